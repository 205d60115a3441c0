"""What an operator does with connections, wherever they are kept.

`devlake.DevLake` keeps them behind DevLake's API, `register.Register` in a database that we open
ourselves. Whatever is done here may be done again: it looks at what is there first.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from developer_telemetry.connections.registry import name_taken, new_token, valid_name
from developer_telemetry.constants import strategy_of
from developer_telemetry.errors import ConfigurationError

# What may be set beside name and tokens; "", 0 and false mean the default.
OPTIONS = (
    "duplicate_strategy",
    "strip_paths",
    "pseudonyms",
    "raw_retention_days",
    "tool_retention_days",
)


class Kept(NamedTuple):
    """A connection as it is kept, its secrets in clear; `""` where there is none.

    `previous_token` counts until `previous_until` (epoch seconds). `fault` says why the tokens
    can't be known.
    """

    id: int
    name: str
    token: str = ""
    previous_token: str = ""
    previous_until: int = 0
    options: Mapping[str, Any] = {}
    fault: str = ""

    @property
    def overlaps(self) -> bool:
        """Whether a token before the current one is still valid."""
        return bool(self.previous_token) and time.time() < self.previous_until


class Blueprint(NamedTuple):
    """One of DevLake's blueprints, and which connections of ours it runs."""

    id: int
    name: str
    project: str
    connection_ids: frozenset[int]
    # Its plan is written by hand: connections can't be put into it.
    advanced: bool = False


class Home:
    """Where connections are kept. Fields are named as in the database, secrets given in clear.

    Every method raises a `TelemetryError` that says what to do, or `SQLAlchemyError`.
    """

    @property
    def address(self) -> str:
        """The database, or DevLake, by its URL."""
        raise NotImplementedError

    def connections(self) -> list[Kept]:
        """All of them, by id."""
        raise NotImplementedError

    def add(self, name: str, token: str) -> int:
        """Make one and return its id."""
        raise NotImplementedError

    def change(self, connection_id: int, fields: Mapping[str, Any]) -> None:
        """Set some fields of one, all at once."""
        raise NotImplementedError

    def make_scope(self, connection_id: int) -> bool:
        """Make its scope unless it is there; whether it was made."""
        raise NotImplementedError

    def delete(self, connection_id: int) -> None:
        """Delete it and all that came from it; blueprints lose it, and nothing else."""
        raise NotImplementedError

    def blueprints(self) -> list[Blueprint]:
        """All blueprints that DevLake runs."""
        return []

    def configure(self, kept: Kept, switches: Mapping[str, bool]) -> str:
        """Set switches of its scope config, made if needed; what was done, `""` for nothing."""
        raise _devlake_needed("a scope config")

    def find_project(self, name: str) -> Optional[Blueprint]:
        """The blueprint of a project; None if there is no such project."""
        raise _devlake_needed("a project")

    def make_project(self, name: str) -> Blueprint:
        """Make a project, and return its blueprint."""
        raise _devlake_needed("a project")

    def attach(self, blueprint: Blueprint, connection_id: int) -> bool:
        """Add a connection to what a blueprint has; False if it is there already."""
        raise _devlake_needed("a blueprint")


def _devlake_needed(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{what} is DevLake's: give its address, with --devlake-url or as DEVLAKE_URL"
    )


class Wanted(NamedTuple):
    """What `connect` is asked for; None and `""` leave things as they are."""

    name: str
    token: str = ""
    options: Mapping[str, Any] = {}
    switches: Mapping[str, bool] = {}
    project: str = ""


class Onboarding:
    """The steps of `connect`. What came of them so far is here even when one of them fails."""

    def __init__(self, home: Home, wanted: Wanted) -> None:
        self.name = valid_name(wanted.name)
        if not re.fullmatch(r"[!-~]*", wanted.token):
            raise ConfigurationError("a token has letters, digits and marks of ASCII, no spaces")
        strategy_of(wanted.options.get("duplicate_strategy"))
        self.connection_id = 0
        self.made = False
        self.token = ""  # one that is new
        self.has_token = True
        self.steps: list[tuple[str, str]] = []
        self._home = home
        self._wanted = wanted

    def run(self) -> None:
        """Do all that is not done yet; what can't work is found out before anything is made."""
        wanted, home = self._wanted, self._home
        kept = next((each for each in home.connections() if each.name == self.name), None)
        if kept and wanted.token and wanted.token != kept.token:
            raise ConfigurationError(
                f"the connection {self.name!r} is there with another token;"
                f" `developer-telemetry token rotate {kept.id}` gives it a new one"
            )
        blueprint = home.find_project(wanted.project) if wanted.project else None
        if blueprint and blueprint.advanced:
            raise ConfigurationError(
                f"the blueprint {blueprint.name!r} of project {wanted.project!r} is in advanced"
                " mode, where DevLake takes no connections; add the plugin to its plan there"
            )
        kept = self._reuse(kept) if kept else self._make()
        self._set_options(kept)
        made = home.make_scope(kept.id) or self.made
        self._note("Scope", "all reports" if made else "all reports, there already")
        if wanted.switches:
            self._note("Scope config", home.configure(kept, wanted.switches) or "there already")
        if wanted.project:
            self._join(blueprint)

    def _note(self, what: str, how: str) -> None:
        self.steps.append((what, how))

    def _make(self) -> Kept:
        self.token = self._wanted.token or new_token()
        self.connection_id = self._home.add(self.name, self.token)
        self.made = True
        self._note("Connection", f"{self.connection_id} ({self.name})")
        return Kept(self.connection_id, self.name, self.token)

    def _reuse(self, kept: Kept) -> Kept:
        self.connection_id = kept.id
        self.has_token = bool(kept.token or kept.fault)
        self._note("Connection", f"{kept.id} ({kept.name}), there already")
        return kept

    def _set_options(self, kept: Kept) -> None:
        changed = {
            name: value
            for name, value in self._wanted.options.items()
            if _meaning(name, value) != _meaning(name, kept.options.get(name))
        }
        if changed:
            self._home.change(kept.id, changed)
            self._note("Set", ", ".join(f"{name} to {value}" for name, value in changed.items()))
        if "duplicate_strategy" in changed and not self.made:
            self._note("", "for earlier days re-transform its blueprint, or `reextract`")

    def _join(self, blueprint: Optional[Blueprint]) -> None:
        project = self._wanted.project
        self._note("Project", f"{project}, there already" if blueprint else project)
        blueprint = blueprint or self._home.make_project(project)
        added = self._home.attach(blueprint, self.connection_id)
        self._note("Blueprint", f"{blueprint.name}, which has it {'now' if added else 'already'}")


def _meaning(name: str, value: Any) -> Any:
    if name != "duplicate_strategy":
        return value or 0
    try:
        return strategy_of(value)
    except ConfigurationError:  # what others have left there
        return value


def find(home: Home, name_or_id: str) -> Kept:
    """The connection of a name, or else of an id."""
    kept = home.connections()
    for each in kept:
        if each.name == name_or_id.strip():
            return each
    for each in kept:
        if str(each.id) == name_or_id.strip():
            return each
    raise ConfigurationError(
        f"there is no connection {name_or_id!r}; `developer-telemetry connections list` shows them"
    )


def rename(home: Home, kept: Kept, name: str) -> None:
    """Give a connection another name; its id, and so its address, stays."""
    name = valid_name(name)
    if any(each.name == name and each.id != kept.id for each in home.connections()):
        raise name_taken(name)
    home.change(kept.id, {"name": name})


def rotate(home: Home, kept: Kept, keep_seconds: int) -> str:
    """Give a connection a new token and return it; the current one stays valid for a while."""
    if kept.fault and keep_seconds:
        raise ConfigurationError(
            f"the current token can't be kept: {kept.fault}; rotate without keeping it"
        )
    token = new_token()
    keeps = bool(kept.token) and keep_seconds > 0
    home.change(
        kept.id,
        {
            "secret_token": token,
            "previous_secret_token": kept.token if keeps else "",
            "previous_token_until": int(time.time()) + keep_seconds if keeps else 0,
        },
    )
    return token


def revoke(home: Home, kept: Kept) -> None:
    """End every token of a connection: it takes no report until it is given a new one.

    Without any token it would take everybody's, so it gets one that nobody knows.
    """
    rotate(home, kept, 0)


def revoke_previous(home: Home, kept: Kept) -> None:
    """End the token before the current one, which a rotation has kept."""
    home.change(kept.id, {"previous_secret_token": "", "previous_token_until": 0})
