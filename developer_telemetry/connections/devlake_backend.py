"""Connections, scopes and blueprints through DevLake's API of 2026."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import httpx

from developer_telemetry.config import DevLakeAccess
from developer_telemetry.connections.backend import (
    OPTIONS,
    Backend,
    Blueprint,
    StoredConnection,
)
from developer_telemetry.connections.devlake_refusals import (
    DENIED_STATUSES,
    PLUGIN,
    Refusal,
    json_of,
    rank_explanation,
    read_page_title,
)
from developer_telemetry.connections.http_client import make_client, proxy_remark
from developer_telemetry.constants import SCOPE_ID, SCOPE_NAME
from developer_telemetry.errors import ConfigurationError, TelemetryError, Unavailable

CONNECTIONS = f"/plugins/{PLUGIN}/connections"

CONNECT_SECONDS = 5.0
# Saving a blueprint starts a process for each connection of a remote plugin in it.
ANSWER_SECONDS = 60.0
# Deleting a scope deletes all of its rows.
DELETE_SECONDS = 600.0
PAGE_SIZE = 100


class DevLakeBackend(Backend):
    """Connections of the DevLake at an address: that of its server, or of its front proxy.

    A `with` statement closes the client.
    """

    def __init__(self, access: DevLakeAccess) -> None:
        self._access = access
        self._base = ""
        headers = {"Authorization": f"Bearer {access.api_key}"} if access.api_key else {}
        if access.forwarded_user:
            headers["X-Forwarded-User"] = access.forwarded_user
            headers["X-Forwarded-User-Secret"] = access.forwarded_secret
        self._client = make_client(
            auth=(access.user, access.password) if access.user else None, headers=headers
        )

    def __enter__(self) -> DevLakeBackend:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    @property
    def address(self) -> str:
        return f"DevLake at {self.base}"

    @property
    def base(self) -> str:
        """Return the address that all paths are appended to, with `/api` and `/rest` if needed."""
        if not self._base:
            self._base = self._find()
        return self._base

    @property
    def front(self) -> str:
        """Return the address that report paths are appended to; `""` without a front proxy."""
        base = self.base[: -len("/rest")] if self._access.api_key else self.base
        return base if base.endswith("/api") else ""

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        missing: bool = False,
        seconds: Optional[float] = None,
    ) -> Any:
        """Return the JSON of DevLake's answer to a call.

        With `missing`, return None if DevLake has no such thing. Raises a `TelemetryError` with
        the reason and a remedy.
        """
        answer = self._send(method, self.base + path, body, seconds)
        content = json_of(answer)
        if answer.is_success and content is not None:
            return content
        if answer.status_code == 404 and missing and content is not None:
            return None
        raise self._refusal(answer, f"{method} {path}")

    def plugins(self) -> list[str]:
        """Return the names of the plugins that DevLake has loaded."""
        return sorted(str(entry["plugin"]) for entry in self.call("GET", "/plugins"))

    def connections(self) -> list[StoredConnection]:
        return sorted(_stored_connection(row) for row in self.call("GET", CONNECTIONS))

    def add(self, name: str, token: str, options: Mapping[str, Any]) -> int:
        wanted = {"name": name, "secretToken": token, **_to_camel_case(options)}
        return int(self.call("POST", CONNECTIONS, wanted)["id"])

    def require_options(self, connection_id: int, options: Mapping[str, Any]) -> None:
        if options:
            rows = self.call("GET", CONNECTIONS)
            [made] = [row for row in rows if row["id"] == connection_id]
            _require_accepted(_to_camel_case(options), made)

    def change(self, connection_id: int, fields: Mapping[str, Any]) -> None:
        wanted = _to_camel_case(fields)
        _require_accepted(wanted, self.call("PATCH", f"{CONNECTIONS}/{connection_id}", wanted))

    def make_scope(self, connection_id: int) -> bool:
        if self._scope(connection_id) is not None:
            return False
        # DevLake inserts the scope, which fails if it exists already.
        scope = {"id": SCOPE_ID, "name": SCOPE_NAME, "connectionId": connection_id}
        self.call("PUT", f"{CONNECTIONS}/{connection_id}/scopes", {"data": [scope]})
        return True

    def _scope(self, connection_id: int) -> Optional[dict[str, Any]]:
        path = f"{CONNECTIONS}/{connection_id}/scopes/{SCOPE_ID}"
        answer = self.call("GET", path, missing=True)
        return dict(answer["scope"]) if answer else None

    def read_switches(self, connection: StoredConnection) -> Optional[Mapping[str, bool]]:
        config_id = (self._scope(connection.id) or {}).get("scopeConfigId")
        if not config_id:
            return None
        path = f"{CONNECTIONS}/{connection.id}/scope-configs/{config_id}"
        return _to_snake_case(self.call("GET", path))

    def configure(self, connection: StoredConnection, switches: Mapping[str, bool]) -> str:
        wanted = _to_camel_case(switches)
        path = f"{CONNECTIONS}/{connection.id}/scope-configs"
        scope = self._scope(connection.id) or {}
        config_id = scope.get("scopeConfigId") or self._find_unused_config(path, connection)
        if not config_id:
            made = self.call(
                "POST", path, {"name": connection.name, "entities": ["CROSS"], **wanted}
            )
            config_id = made["id"]
            done = f"{connection.name}, made"
        else:
            config = self.call("GET", f"{path}/{config_id}")
            wanted = {name: value for name, value in wanted.items() if config.get(name) != value}
            if wanted:
                self.call("PATCH", f"{path}/{config_id}", wanted)
            done = f"{config['name']}, changed" if wanted else ""
        if scope.get("scopeConfigId") != config_id:
            used = {"scopeConfigId": config_id}
            self.call("PATCH", f"{CONNECTIONS}/{connection.id}/scopes/{SCOPE_ID}", used)
        return done

    def _find_unused_config(self, path: str, connection: StoredConnection) -> int:
        """Return the config that an interrupted call has made; 0 if there is none."""
        for config in self._pages(path):  # the list has the configs of all connections
            if (config["connectionId"], config["name"]) == (connection.id, connection.name):
                return int(config["id"])
        return 0

    def blueprints(self) -> list[Blueprint]:
        return [_blueprint(entry) for entry in self._pages("/blueprints", "blueprints")]

    def _pages(self, path: str, name: str = "") -> Iterator[dict[str, Any]]:
        """Yield the entries of a list that has pages; `name` is their key in a page, if any."""
        for page in itertools.count(1):
            answer = self.call("GET", f"{path}?page={page}&pageSize={PAGE_SIZE}")
            entries = answer[name] if name else answer
            yield from entries
            if len(entries) < PAGE_SIZE:
                return

    def find_project(self, name: str) -> Optional[Blueprint]:
        # With an API key, DevLake does not find a project by a name that has a slash.
        return next(
            (blueprint for blueprint in self.blueprints() if blueprint.project == name), None
        )

    def make_project(self, name: str) -> Blueprint:
        wanted = {"name": name, "description": "", "metrics": []}
        return _blueprint(self.call("POST", "/projects", wanted)["blueprint"])

    def attach(self, blueprint: Blueprint, connection_id: int) -> bool:
        used = self._list_used(blueprint)
        ours = next((entry for entry in used if _is_ours(entry, connection_id)), None)
        if ours is None:
            ours = {"pluginName": PLUGIN, "connectionId": connection_id, "scopes": []}
            used.append(ours)
        scopes = ours["scopes"] or []
        if any(entry["scopeId"] == SCOPE_ID for entry in scopes):
            return False
        ours["scopes"] = [*scopes, {"scopeId": SCOPE_ID}]
        self.call("PATCH", f"/blueprints/{blueprint.id}", {"connections": used})
        return True

    def _list_used(self, blueprint: Blueprint) -> list[dict[str, Any]]:
        """Return the connections of a blueprint, of all plugins."""
        return list(self.call("GET", f"/blueprints/{blueprint.id}")["connections"] or [])

    def delete(self, connection_id: int) -> None:
        for blueprint in self.blueprints():
            if connection_id in blueprint.connection_ids:
                used = self._list_used(blueprint)
                left = [entry for entry in used if not _is_ours(entry, connection_id)]
                self.call("PATCH", f"/blueprints/{blueprint.id}", {"connections": left})
        path = f"{CONNECTIONS}/{connection_id}"
        if self._scope(connection_id) is not None:
            self.call("DELETE", f"{path}/scopes/{SCOPE_ID}", seconds=DELETE_SECONDS)
        self.call("DELETE", path)

    def _find(self) -> str:
        """Return the address at which DevLake answers, of all possible ones."""
        url = self._access.url
        suffix = "/rest" if self._access.api_key else ""
        url = url[: -len(suffix)] if suffix and url.endswith(suffix) else url
        # The web UI answers every other path with its page.
        addresses = [url] if url.endswith("/api") else [f"{url}/api", url]
        answers = [self._send("GET", f"{address}{suffix}/version") for address in addresses]
        for address, answer in zip(addresses, answers):
            if isinstance(content := json_of(answer), dict) and "version" in content:
                return address + suffix
        address, answer = max(zip(addresses, answers), key=lambda pair: rank_explanation(pair[1]))
        if answer.status_code in DENIED_STATUSES and json_of(answer) is not None:
            return address + suffix  # only DevLake refuses a key with an answer in JSON
        if rank_explanation(answer) > 0:
            raise self._refusal(answer, "GET /version")
        title = next(filter(None, map(read_page_title, answers)), "")
        page = f" but a page, {title}" if title else ""
        raise ConfigurationError(
            f"there is no DevLake at {url}{page}; give the address of its web UI or of its server,"
            " with --devlake-url or as DEVLAKE_URL; behind a sign-on that of its server"
        )

    def _send(
        self, method: str, url: str, body: Any = None, seconds: Optional[float] = None
    ) -> httpx.Response:
        seconds = seconds or ANSWER_SECONDS
        where = f"DevLake at {self._access.url}"
        again = "completed steps stay, so run the command again"
        try:
            timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
            return self._client.request(method, url, json=body, timeout=timeout)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            why = str(error) or f"no answer within {CONNECT_SECONDS:.0f} s"
            remedy = "check DEVLAKE_URL, and that DevLake runs"
            if "CERTIFICATE" in why:
                remedy = "set SSL_CERT_FILE to the authority that signed DevLake's certificate"
            by = proxy_remark(url)
            raise Unavailable(f"can't reach {where}{by}: {why}; {remedy}") from None
        except httpx.TimeoutException:
            raise Unavailable(
                f"{where} did not answer {method} {_path(url)} within {seconds:.0f} s; {again}"
                " when it answers (its log has the reason)"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(
                f"{where} did not complete {method} {_path(url)}: {error}; {again}"
            ) from None

    def _refusal(self, answer: httpx.Response, what: str) -> TelemetryError:
        return Refusal(self._access, self._base, answer, what).error()


def _path(url: str) -> str:
    return httpx.URL(url).path


def _to_camel_case(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {re.sub("_([a-z])", lambda m: m[1].upper(), name): fields[name] for name in fields}


def _to_snake_case(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {re.sub("[A-Z]", lambda m: f"_{m[0].lower()}", name): fields[name] for name in fields}


def _stored_connection(row: Mapping[str, Any]) -> StoredConnection:
    camel = zip(OPTIONS, _to_camel_case(dict.fromkeys(OPTIONS)))
    options = {name: row[spelled] for name, spelled in camel if spelled in row}
    return StoredConnection(
        id=row["id"],
        name=row["name"],
        token=row.get("secretToken") or "",
        previous_token=row.get("previousSecretToken") or "",
        previous_until=row.get("previousTokenUntil") or 0,
        options=options,
    )


def _require_accepted(wanted: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """Check that DevLake took all fields: it ignores fields that its plugin does not declare."""
    unknown = [name for name in wanted if name not in answer]
    if unknown:
        raise ConfigurationError(
            f"DevLake's plugin does not know {', '.join(unknown)}: it is older than this command;"
            " update it there (build.sh, restart, confirm the migration)"
        )


def _blueprint(answer: Mapping[str, Any]) -> Blueprint:
    used = answer["connections"] or []
    ours = frozenset(entry["connectionId"] for entry in used if entry["pluginName"] == PLUGIN)
    advanced = answer["mode"] == "ADVANCED"
    return Blueprint(answer["id"], answer["name"], answer["projectName"], ours, advanced)


def _is_ours(used: Mapping[str, Any], connection_id: int) -> bool:
    return (used["pluginName"], used["connectionId"]) == (PLUGIN, connection_id)
