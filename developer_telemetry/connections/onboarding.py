"""The commands about connections, for either backend.

Each of them can be repeated: it first reads what exists already.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from developer_telemetry.connections.backend import Backend, Blueprint, StoredConnection
from developer_telemetry.connections.registry import (
    find_by_name_or_id,
    make_name_conflict,
    new_token,
    normalize_name,
)
from developer_telemetry.constants import smallest_group_of, strategy_of
from developer_telemetry.errors import ConfigurationError

# Parts of names by which a series is told apart: numbers, and single letters.
_SERIES = re.compile(r"[0-9]+|(?<![^\W_])[^\W_](?![^\W_])")


class ConnectRequest(NamedTuple):
    """The request to `connect`; what it does not name is the default."""

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
        if stored:
            self._require_same(stored)
        blueprint = backend.find_project(request.project) if request.project else None
        if blueprint and blueprint.advanced:
            raise ConfigurationError(
                f"the blueprint {blueprint.name!r} of project {request.project!r} is in advanced"
                " mode, where DevLake takes no connections; add the plugin to its plan there"
            )
        stored = self._reuse(stored) if stored else self._make()
        made = backend.make_scope(stored.id) or self.made
        self._add_step("Scope", "all reports" if made else "all reports, there already")
        if request.switches:
            self._add_step(
                "Scope config", backend.configure(stored, request.switches) or "there already"
            )
        if request.project:
            self._join_project(blueprint)

    def similar_names(self) -> list[str]:
        """Return the names of connections that this one may be a misspelling of; [] if it exists.

        Raises:
            TelemetryError: The connections can't be read.
        """
        names = [connection.name for connection in self._backend.connections()]
        if self.name in names:
            return []
        return [name for name in names if is_similar(name, self.name)]

    def _require_same(self, stored: StoredConnection) -> None:
        """Raise if the connection exists with other settings than those of the request."""
        request = self._request
        if request.token and request.token != stored.token:
            raise ConfigurationError(
                f"the connection {self.name!r} exists with another token;"
                f" `developer-telemetry token rotate {stored.id}` gives it a new one"
            )
        switches = self._backend.read_switches(stored) if request.switches else None
        others = {
            **_find_changes(request.options, stored.options),
            **({} if switches is None else _find_changes(request.switches, switches)),
        }
        if others:
            options = " ".join(_spell_option(name, value) for name, value in others.items())
            raise ConfigurationError(
                f"the connection {self.name!r} exists with other settings; to change them:"
                f" `developer-telemetry connections set {shlex.quote(self.name)} {options}`"
            )

    def _add_step(self, step: str, result: str) -> None:
        self.steps.append((step, result))

    def _make(self) -> StoredConnection:
        self.token = self._request.token or new_token()
        options = self._request.options
        self.connection_id = self._backend.add(self.name, self.token, options)
        self.made = True
        self._add_step("Connection", f"{self.connection_id} ({self.name})")
        self._backend.require_options(self.connection_id, options)
        if options:
            self._add_step("Set", _describe_options(options))
        return StoredConnection(self.connection_id, self.name, self.token)

    def _reuse(self, stored: StoredConnection) -> StoredConnection:
        self.connection_id = stored.id
        self.has_token = bool(stored.token or stored.fault)
        self._add_step("Connection", f"{stored.id} ({stored.name}), there already")
        return stored

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
    if name == "smallest_group":
        return smallest_group_of(value)
    if name != "duplicate_strategy":
        return value or 0
    try:
        return strategy_of(value)
    except ConfigurationError:  # another program wrote it
        return value


def _find_changes(wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that differ from those that are stored."""
    return {
        name: value
        for name, value in wanted.items()
        if _normalize_option(name, value) != _normalize_option(name, stored.get(name))
    }


def _describe_options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} to {value}" for name, value in options.items())


def _spell_option(name: str, value: Any) -> str:
    """Return a setting as an option of a command."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option} {value}"


def is_similar(name: str, other: str) -> bool:
    """Return true if one of two different names may be a misspelling of the other.

    They differ in letter case, spaces and punctuation, or in one letter. Names of a series, such
    as `team 1` and `team 2` or `site a` and `site b`, are not similar.
    """
    if _SERIES.findall(name.lower()) != _SERIES.findall(other.lower()):
        return False
    one, two = (re.sub(r"[\W_]", "", text.lower()) for text in (name, other))
    return one == two or _is_one_edit(*sorted((one, two), key=len))


def _is_one_edit(short: str, long: str) -> bool:
    """Return true if one letter is missing or another one, or two neighbors are exchanged."""
    start = next((at for at, (one, two) in enumerate(zip(short, long)) if one != two), len(short))
    short, long = short[start:], long[start:]
    if len(short) == len(long):
        return short[1:] == long[1:] or (
            sorted(short[:2]) == sorted(long[:2]) and short[2:] == long[2:]
        )
    return short == long[1:]


def change_settings(
    backend: Backend,
    connection: StoredConnection,
    options: Mapping[str, Any],
    switches: Mapping[str, bool],
) -> dict[str, Any]:
    """Change settings of a connection; return those that were different before."""
    strategy_of(options.get("duplicate_strategy"))
    changes = _find_changes(options, connection.options)
    if changes:
        backend.change(connection.id, changes)
    if switches:
        before = backend.read_switches(connection) or {}
        backend.configure(connection, switches)
        changes.update(_find_changes(switches, before))
    return changes


# What a change means for the rows of earlier reports.
_CONSEQUENCES = {
    ("pseudonyms", True): (
        "Reports that arrive from now on get pseudonyms. Earlier reports, days, machines and"
        " accounts keep their names until they are pruned or erased; so each developer appears"
        " twice for a time, under the name and under the pseudonym."
    ),
    ("pseudonyms", False): (
        "Reports that arrive from now on have names. Earlier ones keep their pseudonyms, which"
        " can't be turned back; so each developer appears twice."
    ),
    ("strip_paths", True): (
        "Reports that arrive from now on have no paths. Earlier reports keep theirs until they are"
        " pruned or erased."
    ),
    ("strip_paths", False): (
        "Reports that arrive from now on keep their paths. Those of earlier reports are gone."
    ),
}


def describe_consequences(connection: StoredConnection, changes: Mapping[str, Any]) -> list[str]:
    """Return what changes of settings mean for rows that are there."""
    lines = [_CONSEQUENCES[item] for item in changes.items() if item in _CONSEQUENCES]
    if "duplicate_strategy" in changes:
        lines.append("For earlier days re-transform its blueprint, or `reextract`.")
    if "smallest_group" in changes:
        lines.append(_describe_group(smallest_group_of(changes["smallest_group"])))
    if any(name.endswith("retention_days") for name in changes):
        lines.append(
            f"`developer-telemetry prune --connection {connection.id} --dry-run` shows the rows"
            " that the next daily prune removes."
        )
    return lines


def _describe_group(smallest: int) -> str:
    if smallest == 1:
        return "Dashboards can show figures of single developers, also of earlier days."
    return f"Dashboards show figures of {smallest} developers or more, also of earlier days."


def _find_by_name(backend: Backend, name: str) -> Optional[StoredConnection]:
    connections = backend.connections()
    return next((connection for connection in connections if connection.name == name), None)


def find_connection(backend: Backend, name_or_id: str) -> StoredConnection:
    """Return the connection of that name or id."""
    return find_by_name_or_id(backend.connections(), name_or_id)


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
