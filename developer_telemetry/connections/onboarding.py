"""The commands about connections, for either backend.

Each of them can be repeated: it first reads what exists already.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from developer_telemetry.connections.backend import Backend, Blueprint, StoredConnection
from developer_telemetry.connections.registry import make_name_conflict, new_token, normalize_name
from developer_telemetry.constants import strategy_of
from developer_telemetry.errors import ConfigurationError


class ConnectRequest(NamedTuple):
    """The request to `connect`; None and `""` change nothing."""

    name: str
    token: str = ""
    options: Mapping[str, Any] = {}
    switches: Mapping[str, bool] = {}
    project: str = ""


class Onboarding:
    """The steps of `connect`; `steps` has their results even if a later one fails."""

    def __init__(self, backend: Backend, request: ConnectRequest) -> None:
        self.name = normalize_name(request.name)
        if not re.fullmatch(r"[!-~]*", request.token):
            raise ConfigurationError(
                "a token has letters, digits and punctuation of ASCII, no spaces"
            )
        strategy_of(request.options.get("duplicate_strategy"))
        self.connection_id = 0
        self.made = False
        self.token = ""  # one that is new
        self.has_token = True
        self.steps: list[tuple[str, str]] = []
        self._backend = backend
        self._request = request

    def run(self) -> None:
        """Check that no step will be refused, and do all that are not done yet."""
        request, backend = self._request, self._backend
        stored = _find_by_name(backend, self.name)
        if stored and request.token and request.token != stored.token:
            raise ConfigurationError(
                f"the connection {self.name!r} exists with another token;"
                f" `developer-telemetry token rotate {stored.id}` gives it a new one"
            )
        blueprint = backend.find_project(request.project) if request.project else None
        if blueprint and blueprint.advanced:
            raise ConfigurationError(
                f"the blueprint {blueprint.name!r} of project {request.project!r} is in advanced"
                " mode, where DevLake takes no connections; add the plugin to its plan there"
            )
        stored = self._reuse(stored) if stored else self._make()
        self._set_options(stored)
        made = backend.make_scope(stored.id) or self.made
        self._add_step("Scope", "all reports" if made else "all reports, there already")
        if request.switches:
            self._add_step(
                "Scope config", backend.configure(stored, request.switches) or "there already"
            )
        if request.project:
            self._join_project(blueprint)

    def _add_step(self, step: str, result: str) -> None:
        self.steps.append((step, result))

    def _make(self) -> StoredConnection:
        self.token = self._request.token or new_token()
        self.connection_id = self._backend.add(self.name, self.token)
        self.made = True
        self._add_step("Connection", f"{self.connection_id} ({self.name})")
        return StoredConnection(self.connection_id, self.name, self.token)

    def _reuse(self, stored: StoredConnection) -> StoredConnection:
        self.connection_id = stored.id
        self.has_token = bool(stored.token or stored.fault)
        self._add_step("Connection", f"{stored.id} ({stored.name}), there already")
        return stored

    def _set_options(self, stored: StoredConnection) -> None:
        changed = {
            name: value
            for name, value in self._request.options.items()
            if _normalize_option(name, value) != _normalize_option(name, stored.options.get(name))
        }
        if changed:
            self._backend.change(stored.id, changed)
            self._add_step(
                "Set", ", ".join(f"{name} to {value}" for name, value in changed.items())
            )
        if "duplicate_strategy" in changed and not self.made:
            self._add_step("", "for earlier days re-transform its blueprint, or `reextract`")

    def _join_project(self, blueprint: Optional[Blueprint]) -> None:
        project = self._request.project
        if blueprint and not blueprint.id:
            added = self._backend.attach(blueprint, self.connection_id)
            result = f"{blueprint.project}, which has it {'now' if added else 'already'}"
            self._add_step("Project", result)
            return
        self._add_step("Project", f"{project}, there already" if blueprint else project)
        blueprint = blueprint or self._backend.make_project(project)
        added = self._backend.attach(blueprint, self.connection_id)
        self._add_step(
            "Blueprint", f"{blueprint.name}, which has it {'now' if added else 'already'}"
        )


def _normalize_option(name: str, value: Any) -> Any:
    if name != "duplicate_strategy":
        return value or 0
    try:
        return strategy_of(value)
    except ConfigurationError:  # another program wrote it
        return value


def _find_by_name(backend: Backend, name: str) -> Optional[StoredConnection]:
    connections = backend.connections()
    return next((connection for connection in connections if connection.name == name), None)


def find_connection(backend: Backend, name_or_id: str) -> StoredConnection:
    """Return the connection of that name, or else of that id."""
    text = name_or_id.strip()
    connections = backend.connections()
    for connection in connections:
        if connection.name == text:
            return connection
    for connection in connections:
        if str(connection.id) == text:
            return connection
    raise ConfigurationError(
        f"there is no connection {name_or_id!r}; `developer-telemetry connections list` shows them"
    )


def rename(backend: Backend, connection: StoredConnection, name: str) -> None:
    """Give a connection another name; its id, and so its report URL, stays the same."""
    name = normalize_name(name)
    same_name = _find_by_name(backend, name)
    if same_name is not None and same_name.id != connection.id:
        raise make_name_conflict(name)
    backend.change(connection.id, {"name": name})


def rotate(backend: Backend, connection: StoredConnection, keep_seconds: int) -> str:
    """Give a connection a new token and return it; the current one stays valid for a while."""
    if connection.fault and keep_seconds:
        raise ConfigurationError(
            f"the current token can't stay valid: {connection.fault}; rotate without --keep-old"
        )
    token = new_token()
    overlaps = bool(connection.token) and keep_seconds > 0
    backend.change(
        connection.id,
        {
            "secret_token": token,
            "previous_secret_token": connection.token if overlaps else "",
            "previous_token_until": int(time.time()) + keep_seconds if overlaps else 0,
        },
    )
    return token


def revoke(backend: Backend, connection: StoredConnection) -> None:
    """End every token of a connection: it accepts no report until it has a new one.

    Without a token the connection would be open to all, so it gets one that is not shown.
    """
    rotate(backend, connection, 0)


def revoke_previous(backend: Backend, connection: StoredConnection) -> None:
    """End the token before the current one, which stayed valid after a rotation."""
    backend.change(connection.id, {"previous_secret_token": "", "previous_token_until": 0})
