"""Try the plugin and the SDK with the genuine DevLake, and write down how that went.

    python -m conformance --devlake ~/devlake --lake ~/devlake/backend/bin/lake \\
        --go-plugins ~/devlake/backend/bin/plugins

Nothing of DevLake's is kept or changed; what is made for the tries is removed again. Exits with 0
if everything is as it should be, with 1 if something is not, with 2 if something is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Union

from conformance import page
from conformance.environments import ROOT, genuine_environment, genuine_sdk, versions
from conformance.lake import Lake, resources_of
from conformance.life import Life
from conformance.others import others_run
from conformance.outcomes import Outcomes, Unmet, failures
from conformance.sdks import genuine_on_ours, ours_on_genuine, plugins_of, plugins_on_ours
from conformance.taking_over import prepare_go_plugin, take_over
from tests.servers import (
    MariaDB,
    PostgreSQL,
    Running,
    Server,
    ServerMissing,
    create_database,
    drop_database,
    execute,
)

NEEDED = """\
make conformance needs a checkout of DevLake: make conformance DEVLAKE=<checkout>
With LAKE=<binary of its server> it also lives an operator's life with the plugin under that server,
on MariaDB and on PostgreSQL; the folder `resources` has to lie beside it or in the checkout's
`backend`. With GO_PLUGINS=<folder that holds org/org.so> accounts are linked to users there, too.
DevLake's documentation says how to build both. MYSQL=mysql://user:password@host:3306/ is a MySQL
to do the same on; its user has to be allowed to make databases."""
LIBRARIES = ["pydantic", "sqlmodel", "SQLAlchemy", "fire"]
DRIVERS = ["mysqlclient", "PyMySQL", "psycopg2", "psycopg2-binary", "psycopg"]
Database = Union[Server, Running]


class Missing(Exception):
    """Something that this needs is not there; the message says what."""


class Given(NamedTuple):
    """What an operator has of DevLake."""

    devlake: Path
    lake: Optional[Path]
    go_plugins: Optional[Path]
    mysql: str = ""

    def databases(self) -> dict[str, Callable[[], Database]]:
        """What there is to run their server on, by the name that the page gives it."""
        ours: dict[str, Callable[[], Database]] = {"MariaDB": MariaDB, "PostgreSQL": PostgreSQL}
        return {**ours, "MySQL": lambda: Running("mysql", self.mysql)} if self.mysql else ours

    def server(self, url: str, place: Path, plugins: Optional[Path] = None) -> Lake:
        """Their server on a database."""
        assert self.lake is not None
        resources = resources_of(self.lake, self.devlake)
        return Lake(self.lake, resources, url, place, plugins, self.go_plugins)


def given(arguments: Sequence[str]) -> Given:
    parser = argparse.ArgumentParser(prog="python -m conformance")
    for name in ("--devlake", "--lake", "--go-plugins", "--mysql"):
        parser.add_argument(name, default="")
    found = parser.parse_args(arguments)
    if not found.devlake:
        raise Missing(NEEDED)
    for path in (found.devlake, found.lake, found.go_plugins):
        if path and not Path(path).exists():
            raise Missing(f"{path} does not exist.\n{NEEDED}")
    lake, go_plugins = (
        Path(path).resolve() if path else None for path in (found.lake, found.go_plugins)
    )
    return Given(Path(found.devlake).resolve(), lake, go_plugins, found.mysql)


def main(arguments: Sequence[str]) -> int:
    try:
        with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
            return _try_all(given(arguments), Path(folder))
    except (Missing, ServerMissing) as missing:
        print(missing, file=sys.stderr)
        return 2


def _try_all(have: Given, folder: Path) -> int:
    try:
        sdk = genuine_sdk(have.devlake)
        if have.lake:
            resources_of(have.lake, have.devlake)
        print("making an environment for the genuine SDK", flush=True)
        genuine = genuine_environment(sdk, folder / "environment")
    except Unmet as reason:
        raise Missing(str(reason)) from None
    used = {
        "DevLake's checkout": _revision(have.devlake),
        "genuine SDK": versions(genuine, [*LIBRARIES, *DRIVERS, "msgspec"]),
        "our SDK": versions(Path(sys.executable), [*LIBRARIES, *DRIVERS, "msgspec"]),
    }
    # Copied at once: what is tried should be one state of the plugin, whoever works on it.
    plugins = {
        "our SDK": _plugins(folder / "on-ours", Path(sys.executable)),
        "genuine SDK": _plugins(folder / "on-genuine", genuine),
    }
    groups = [
        ours_on_genuine(genuine, folder),
        genuine_on_ours(sdk, folder),
        plugins_on_ours(have.devlake, folder / "others"),
    ]
    lives: list[Outcomes] = []
    if have.lake:
        digest = hashlib.sha256(have.lake.read_bytes()).hexdigest()
        used["DevLake's server"] = f"the binary with the SHA-256 {digest[:16]}..."
        for name, make in have.databases().items():
            with make() as server:
                [(version,)] = execute(server.url(""), "SELECT VERSION()")
                used[name] = version.partition(" (")[0].removeprefix("PostgreSQL ")
                for title, plugin in plugins.items():
                    lives.append(_life(have, server, plugin, folder, f"{name}, {title}"))
                title = f"The same under DevLake's server, {name}"
                groups.append(_others(have, server, folder, title))
    page.write(used, groups, lives)
    faults = failures([*groups, *lives])
    print(
        "\n".join(["", *faults, f"{len(faults)} failed; written to {page.PAGE.relative_to(ROOT)}"])
    )
    return 1 if faults else 0


def _life(have: Given, server: Database, plugins: Path, folder: Path, title: str) -> Outcomes:
    outcomes = Outcomes(title)
    name = title.lower().replace(", ", "_").replace(" ", "_")
    url = server.url(name)
    with (
        outcomes.trying("the server begins with an empty database and lasts to the end"),
        _database(url),
        have.server(url, folder / name) as lake,
    ):
        Life(lake, url, plugins, outcomes).live()
    if server.name != "postgresql":  # on which the Go plugin does not run
        with (
            outcomes.trying("the server begins with the Go plugin's tables and lasts to the end"),
            _database(url),
        ):
            prepare_go_plugin(url)
            with have.server(url, folder / f"{name}_go", plugins) as lake:
                take_over(lake, url, outcomes)
    return outcomes


def _others(have: Given, server: Database, folder: Path, title: str) -> Outcomes:
    """The other plugins, whose copies `plugins_on_ours` has left."""
    outcomes = Outcomes(title)
    url = server.url("others")
    with (
        outcomes.trying("the server begins with an empty database and lasts to the end"),
        _database(url),
        have.server(url, folder / f"others_{server.name}", folder / "others") as lake,
    ):
        others_run(lake, url, [plugin.name for plugin in plugins_of(have.devlake)], outcomes)
    return outcomes


@contextmanager
def _database(url: str) -> Iterator[None]:
    create_database(url)
    try:
        yield
    finally:
        drop_database(url)


def _plugins(folder: Path, python: Path) -> Path:
    """Make of `folder` a REMOTE_PLUGIN_DIR with the plugin on the SDK that `python` has."""
    plugin = folder / "developer_telemetry"
    shutil.copytree(
        ROOT / "developer_telemetry",
        plugin / "developer_telemetry",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copy(ROOT / "run.sh", plugin)
    (plugin / ".venv").symlink_to(python.parent.parent)
    return folder


def _revision(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "log", "-1", "--format=%h of %cs"]
    revision = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    command = ["git", "-C", str(checkout), "describe", "--tags"]
    described = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return ", ".join(filter(None, [described, revision])) or "unknown: no git checkout"


if __name__ == "__main__":
    # Ended by `kill` or a CI's timeout, it still stops what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
