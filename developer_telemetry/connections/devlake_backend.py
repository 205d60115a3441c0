"""DevLake's API, as far as connections, scopes and blueprints go.

Its answers are those of DevLake's server of 2026; `Home` says what the methods are for.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import httpx

from developer_telemetry.config import DevLakeAccess
from developer_telemetry.connections.devlake_refusals import (
    NOT_LET_IN,
    PLUGIN,
    Refusal,
    json_of,
    page_title,
    weight,
)
from developer_telemetry.connections.http_client import make_client, proxy_remark
from developer_telemetry.connections.onboarding import OPTIONS, Blueprint, Home, Kept
from developer_telemetry.constants import SCOPE_ID
from developer_telemetry.errors import ConfigurationError, TelemetryError, Unavailable

CONNECTIONS = f"/plugins/{PLUGIN}/connections"

CONNECT_SECONDS = 5.0
# Saving a blueprint starts a process for each connection of a remote plugin in it.
ANSWER_SECONDS = 60.0
# Deleting a scope deletes all of its rows.
DELETE_SECONDS = 600.0
PAGE_SIZE = 100


class DevLake(Home):
    """DevLake at an address: of its server, or of the front proxy that its web UI has.

    `with` closes its connections.
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

    def __enter__(self) -> DevLake:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    @property
    def address(self) -> str:
        return f"DevLake at {self.base}"

    @property
    def base(self) -> str:
        """The address that all paths follow: the given one, perhaps with `/api` and `/rest`."""
        if not self._base:
            self._base = self._find()
        return self._base

    @property
    def front(self) -> str:
        """What the report's paths follow behind DevLake's front proxy; `""` if this is none."""
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
        """The JSON that a call is answered with.

        With `missing` it is None when DevLake has no such thing. Raises a `TelemetryError` that
        says in words what is wrong, and what to do.
        """
        answer = self._send(method, self.base + path, body, seconds)
        said = json_of(answer)
        if answer.is_success and said is not None:
            return said
        if answer.status_code == 404 and missing and said is not None:
            return None
        raise self._refusal(answer, f"{method} {path}")

    def connections(self) -> list[Kept]:
        return sorted(_kept(each) for each in self.call("GET", CONNECTIONS))

    def add(self, name: str, token: str) -> int:
        return int(self.call("POST", CONNECTIONS, {"name": name, "secretToken": token})["id"])

    def change(self, connection_id: int, fields: Mapping[str, Any]) -> None:
        wanted = _camel(fields)
        _assert_taken(wanted, self.call("PATCH", f"{CONNECTIONS}/{connection_id}", wanted))

    def make_scope(self, connection_id: int) -> bool:
        if self._scope(connection_id) is not None:
            return False
        # DevLake inserts what it is given: one that is there would be an error.
        scope = {"id": SCOPE_ID, "name": "All reports", "connectionId": connection_id}
        self.call("PUT", f"{CONNECTIONS}/{connection_id}/scopes", {"data": [scope]})
        return True

    def _scope(self, connection_id: int) -> Optional[dict[str, Any]]:
        path = f"{CONNECTIONS}/{connection_id}/scopes/{SCOPE_ID}"
        found = self.call("GET", path, missing=True)
        return dict(found["scope"]) if found else None

    def configure(self, kept: Kept, switches: Mapping[str, bool]) -> str:
        wanted = _camel(switches)
        path = f"{CONNECTIONS}/{kept.id}/scope-configs"
        scope = self._scope(kept.id) or {}
        config_id = scope.get("scopeConfigId") or self._loose_config(path, kept)
        if not config_id:
            made = self.call("POST", path, {"name": kept.name, "entities": ["CROSS"], **wanted})
            config_id = made["id"]
            done = f"{kept.name}, made"
        else:
            config = self.call("GET", f"{path}/{config_id}")
            wanted = {name: value for name, value in wanted.items() if config.get(name) != value}
            if wanted:
                self.call("PATCH", f"{path}/{config_id}", wanted)
            done = f"{config['name']}, changed" if wanted else ""
        if scope.get("scopeConfigId") != config_id:
            used = {"scopeConfigId": config_id}
            self.call("PATCH", f"{CONNECTIONS}/{kept.id}/scopes/{SCOPE_ID}", used)
        return done

    def _loose_config(self, path: str, kept: Kept) -> int:
        """The config that an earlier call has made and not come to use; 0 for none."""
        for each in self._pages(path):  # those of all connections
            if (each["connectionId"], each["name"]) == (kept.id, kept.name):
                return int(each["id"])
        return 0

    def blueprints(self) -> list[Blueprint]:
        return [_blueprint(each) for each in self._pages("/blueprints", "blueprints")]

    def _pages(self, path: str, name: str = "") -> Iterator[dict[str, Any]]:
        """The entries of a list that comes in pages, each one perhaps under a name."""
        for page in itertools.count(1):
            answer = self.call("GET", f"{path}?page={page}&pageSize={PAGE_SIZE}")
            entries = answer[name] if name else answer
            yield from entries
            if len(entries) < PAGE_SIZE:
                return

    def find_project(self, name: str) -> Optional[Blueprint]:
        # Asked for by its name, one with a slash in it is not found with an API key.
        return next((each for each in self.blueprints() if each.project == name), None)

    def make_project(self, name: str) -> Blueprint:
        wanted = {"name": name, "description": "", "metrics": []}
        return _blueprint(self.call("POST", "/projects", wanted)["blueprint"])

    def attach(self, blueprint: Blueprint, connection_id: int) -> bool:
        used = self._used(blueprint)
        ours = next((each for each in used if _is_ours(each, connection_id)), None)
        if ours is None:
            ours = {"pluginName": PLUGIN, "connectionId": connection_id, "scopes": []}
            used.append(ours)
        scopes = ours["scopes"] or []
        if any(each["scopeId"] == SCOPE_ID for each in scopes):
            return False
        ours["scopes"] = [*scopes, {"scopeId": SCOPE_ID}]
        self.call("PATCH", f"/blueprints/{blueprint.id}", {"connections": used})
        return True

    def _used(self, blueprint: Blueprint) -> list[dict[str, Any]]:
        """The connections of a blueprint, of all plugins."""
        return list(self.call("GET", f"/blueprints/{blueprint.id}")["connections"] or [])

    def delete(self, connection_id: int) -> None:
        for each in self.blueprints():
            if connection_id in each.connection_ids:
                used = self._used(each)
                left = [other for other in used if not _is_ours(other, connection_id)]
                self.call("PATCH", f"/blueprints/{each.id}", {"connections": left})
        path = f"{CONNECTIONS}/{connection_id}"
        if self._scope(connection_id) is not None:
            self.call("DELETE", f"{path}/scopes/{SCOPE_ID}", seconds=DELETE_SECONDS)
        self.call("DELETE", path)

    def _find(self) -> str:
        """Which of the addresses that may be meant DevLake answers at."""
        url = self._access.url
        rest = "/rest" if self._access.api_key else ""
        url = url[: -len(rest)] if rest and url.endswith(rest) else url
        # The web UI answers every other path with its page.
        places = [url] if url.endswith("/api") else [f"{url}/api", url]
        answers = [self._send("GET", f"{place}{rest}/version") for place in places]
        for place, answer in zip(places, answers):
            if isinstance(said := json_of(answer), dict) and "version" in said:
                return place + rest
        place, answer = max(zip(places, answers), key=lambda each: weight(each[1]))
        if answer.status_code in NOT_LET_IN and json_of(answer) is not None:
            return place + rest  # whoever refuses a key in words is DevLake
        if weight(answer) > 0:
            raise self._refusal(answer, "GET /version")
        title = next(filter(None, map(page_title, answers)), "")
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
        again = "what was done so far stays, so run the command again"
        try:
            timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
            return self._client.request(method, url, json=body, timeout=timeout)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            why = str(error) or f"no answer within {CONNECT_SECONDS:.0f} s"
            mend = "check DEVLAKE_URL, and that DevLake runs"
            if "CERTIFICATE" in why:
                mend = "set SSL_CERT_FILE to the certificate of who signed DevLake's"
            by = proxy_remark(url)
            raise Unavailable(f"can't reach {where}{by}: {why}; {mend}") from None
        except httpx.TimeoutException:
            raise Unavailable(
                f"{where} did not answer {method} {_path(url)} within {seconds:.0f} s; {again}"
                " when it answers (its log says what keeps it)"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(
                f"{where} broke off {method} {_path(url)}: {error}; {again}"
            ) from None

    def _refusal(self, answer: httpx.Response, what: str) -> TelemetryError:
        return Refusal(self._access, self._base, answer, what).error()


def _path(url: str) -> str:
    return httpx.URL(url).path


def _camel(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {re.sub("_([a-z])", lambda m: m[1].upper(), name): fields[name] for name in fields}


def _kept(row: Mapping[str, Any]) -> Kept:
    camel = zip(OPTIONS, _camel(dict.fromkeys(OPTIONS)))
    options = {name: row[spelled] for name, spelled in camel if spelled in row}
    return Kept(
        id=row["id"],
        name=row["name"],
        token=row.get("secretToken") or "",
        previous_token=row.get("previousSecretToken") or "",
        previous_until=row.get("previousTokenUntil") or 0,
        options=options,
    )


def _assert_taken(wanted: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """DevLake passes over fields that its plugin does not declare."""
    unknown = [name for name in wanted if name not in answer]
    if unknown:
        raise ConfigurationError(
            f"DevLake's plugin does not know {', '.join(unknown)}: it is older than this command;"
            " update it there (build.sh, restart, confirm the migration)"
        )


def _blueprint(found: Mapping[str, Any]) -> Blueprint:
    used = found["connections"] or []
    ours = frozenset(each["connectionId"] for each in used if each["pluginName"] == PLUGIN)
    advanced = found["mode"] == "ADVANCED"
    return Blueprint(found["id"], found["name"], found["projectName"], ours, advanced)


def _is_ours(used: Mapping[str, Any], connection_id: int) -> bool:
    return (used["pluginName"], used["connectionId"]) == (PLUGIN, connection_id)
