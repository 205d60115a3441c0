"""The DevLakes to try: a checkout of each, its server's binary, its Go plugins."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, Optional

from conformance.lake import Lake, resources_of
from conformance.outcomes import Unmet

NEEDED = """\
make conformance needs checkouts of DevLake: make conformance DEVLAKE="<checkout> <another>"
With LAKE="<binary of its server> <of the other's>" it also lives an operator's life with the
plugin under each server, on MariaDB and on PostgreSQL, and upgrades from the oldest to the newest
and back; a folder `resources` must be beside each binary or in its checkout's `backend`. With
GO_PLUGINS="<folder that holds org/org.so> <another>" accounts are linked to users there, too.
DevLake's documentation says how to build both. MYSQL=mysql://user:password@host:3306/ is a MySQL
to do the same on; its user has to be allowed to make databases."""


class Missing(Exception):
    """A requirement is missing; the message names it."""


class DevLake(NamedTuple):
    """One DevLake; `name` is the date of its newest commit, which the page uses."""

    name: str
    checkout: Path
    lake: Optional[Path] = None
    go_plugins: Optional[Path] = None

    @property
    def sdk(self) -> Path:
        """Return the SDK in the checkout.

        Raises:
            Unmet: if the checkout has none.
        """
        sdk = self.checkout / "backend" / "python" / "pydevlake"
        if not (sdk / "pyproject.toml").is_file():
            raise Unmet(
                f"{self.checkout} is no checkout of DevLake: it has no backend/python/pydevlake"
            )
        return sdk

    @property
    def revision(self) -> str:
        described = _git(self.checkout, "describe", "--tags")
        commit = revision(self.checkout)
        return ", ".join(filter(None, [described, commit])) or "unknown: no git checkout"

    @property
    def binary(self) -> Path:
        """Return the path of its server, which must exist."""
        assert self.lake is not None
        return self.lake

    @property
    def digest(self) -> str:
        """Return an id of its server's binary."""
        return f"{hashlib.sha256(self.binary.read_bytes()).hexdigest()[:16]}..."

    def server(
        self, url: str, position: Path, plugins: Optional[Path] = None, **settings: str
    ) -> Lake:
        """Return its server on a database, with these settings."""
        resources = resources_of(self.binary, self.checkout)
        return Lake(self.binary, resources, url, position, plugins, self.go_plugins, **settings)


def devlakes(checkouts: str, lakes: str, go_plugins: str) -> list[DevLake]:
    """Return the named DevLakes, the oldest first; each argument is a list of paths.

    Raises:
        Missing: if none is named, a path does not exist, or the lists don't match.
    """
    lists = [[Path(item) for item in shlex.split(text)] for text in (checkouts, lakes, go_plugins)]
    if not lists[0]:
        raise Missing(NEEDED)
    for path in (item for paths in lists for item in paths):
        if not path.exists():
            raise Missing(f"{path} does not exist.\n{NEEDED}")
    for name, paths in zip(("LAKE", "GO_PLUGINS"), lists[1:]):
        if len(paths) not in (0, len(lists[0])):
            raise Missing(
                f"DEVLAKE names {len(lists[0])} checkouts, {name} {len(paths)} paths: name one for"
                f" each, in the same order.\n{NEEDED}"
            )
    results = [
        DevLake(_name(checkout), checkout, lake, plugins)
        for checkout, lake, plugins in zip_longest(*(map(Path.resolve, item) for item in lists))
    ]
    return sorted(results, key=lambda item: _committed(item.checkout))


def by_sdk(results: Sequence[DevLake]) -> list[list[DevLake]]:
    """Group DevLakes by their SDK, so that trials of the SDK alone run once.

    Raises:
        Unmet: if one is no checkout of DevLake.
    """
    groups: dict[str, list[DevLake]] = {}
    for item in results:
        groups.setdefault(_contents(item.sdk), []).append(item)
    return list(groups.values())


def names(results: Sequence[DevLake]) -> str:
    """Return the title of a column about these."""
    return ", ".join(item.name for item in results)


def revision(checkout: Path) -> str:
    """Return the commit that is checked out, and its date; empty if it is no git checkout."""
    return _git(checkout, "log", "-1", "--format=%h of %cs")


def _name(checkout: Path) -> str:
    return _git(checkout, "log", "-1", "--format=%cs") or checkout.name


def _committed(checkout: Path) -> int:
    return int(_git(checkout, "log", "-1", "--format=%ct") or 0)


def _git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-C", str(checkout), *arguments]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _contents(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not {".venv", "__pycache__"}.intersection(inside.parts):
            digest.update(f"{inside}\0".encode() + path.read_bytes())
    return digest.hexdigest()
