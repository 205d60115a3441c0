"""The interface to connections, which are in a database that we open or behind DevLake's API.

`database_backend` and `devlake_backend` implement it; `onboarding` does the same with either.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from developer_telemetry.errors import ConfigurationError

# Fields besides name and tokens; "", 0 and false mean the default.
OPTIONS = (
    "duplicate_strategy",
    "strip_paths",
    "pseudonyms",
    "raw_retention_days",
    "tool_retention_days",
    "smallest_group",
)


class StoredConnection(NamedTuple):
    """A connection as it is stored, its secrets in clear; `""` where there is none.

    `previous_token` is valid until `previous_until` (epoch seconds). `fault` is the reason why the
    tokens can't be read.
    """

    id: int
    name: str
    token: str = ""
    previous_token: str = ""
    previous_until: int = 0
    options: Mapping[str, Any] = {}
    fault: str = ""

    @property
    def has_previous_token(self) -> bool:
        """Return true if the token before the current one is still valid."""
        return bool(self.previous_token) and time.time() < self.previous_until


class Blueprint(NamedTuple):
    """One of DevLake's blueprints, and the connections of ours that it runs.

    Without the plugin it is a project, with the id 0.
    """

    id: int
    name: str
    project: str
    connection_ids: frozenset[int]
    # Its plan is written by hand: connections can't be added to it.
    advanced: bool = False


class Backend:
    """Connections at one address. Fields have the names of columns, and secrets are in clear.

    Every method raises a `TelemetryError` with a remedy, or `SQLAlchemyError`.
    """

    @property
    def address(self) -> str:
        """Return the URL of the database, or of DevLake."""
        raise NotImplementedError

    def connections(self) -> list[StoredConnection]:
        """Return all connections by id."""
        raise NotImplementedError

    def add(self, name: str, token: str, options: Mapping[str, Any]) -> int:
        """Make a connection with some of `OPTIONS` and return its id."""
        raise NotImplementedError

    def require_options(self, connection_id: int, options: Mapping[str, Any]) -> None:
        """Raise `ConfigurationError` if a connection that was just made lacks some of these."""

    def change(self, connection_id: int, fields: Mapping[str, Any]) -> None:
        """Set some fields of a connection, all at once."""
        raise NotImplementedError

    def make_scope(self, connection_id: int) -> bool:
        """Make a connection's scope; return False if it exists already."""
        raise NotImplementedError

    def delete(self, connection_id: int) -> None:
        """Delete a connection with all its data, and remove it from blueprints."""
        raise NotImplementedError

    def blueprints(self) -> list[Blueprint]:
        """Return all blueprints that DevLake runs."""
        return []

    def read_switches(self, connection: StoredConnection) -> Optional[Mapping[str, bool]]:
        """Return the switches of its scope config; None if it has none."""
        raise _make_devlake_error("a scope config")

    def configure(self, connection: StoredConnection, switches: Mapping[str, bool]) -> str:
        """Set switches of its scope config, which is made if needed.

        Returns:
            A text for the operator about the change, `""` without one.
        """
        raise _make_devlake_error("a scope config")

    def find_project(self, name: str) -> Optional[Blueprint]:
        """Return the blueprint of a project; None if there is no such project."""
        raise _make_devlake_error("a project")

    def make_project(self, name: str) -> Blueprint:
        """Make a project, and return its blueprint."""
        raise _make_devlake_error("a project")

    def attach(self, blueprint: Blueprint, connection_id: int) -> bool:
        """Add a connection to a blueprint; return False if the blueprint has it already."""
        raise _make_devlake_error("a blueprint")


def _make_devlake_error(thing: str) -> ConfigurationError:
    return ConfigurationError(
        f"{thing} is DevLake's: give its address, with --devlake-url or as DEVLAKE_URL"
    )
