"""A small DevLake: an HTTP server with connections, scopes and blueprints.

It behaves as DevLake's own server does, its oddities included: unknown fields are dropped without
an error, an existing scope is an error, the list of scope configs has those of all connections, a
connection in use is not deleted.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Optional, Union
from urllib.parse import parse_qs, urlsplit

from tests.support.servers import HOST

Answer = tuple[int, Union[dict[str, Any], list[Any], str]]

CONNECTION = {
    "name": "",
    "proxy": "",
    "endpoint": "",
    "secretToken": "",
    "previousSecretToken": "",
    "previousTokenUntil": 0,
    "duplicateStrategy": "",
    "stripPaths": False,
    "pseudonyms": False,
    "rawRetentionDays": 0,
    "toolRetentionDays": 0,
    "smallestGroup": 0,
}
CONFIG = {"name": "", "entities": None, "testAndBuildTasks": False, "keepAccountsUnlinked": False}
TIMES = {"createdAt": "2026-11-23T18:20:42.076Z", "updatedAt": "2026-11-23T18:20:42.076Z"}
# The answer since May 2026 to a request without a user, where AUTH_ENABLED is true.
BARE: Answer = (401, {"success": False, "message": "unauthorized"})
PUBLIC = ("/version", "/ping", "/ready", "/health")
# The answer of the server's router, and the web UI's for an unknown file.
NO_ROUTE: Answer = (404, "404 page not found")
PAGE: Answer = (200, "<!doctype html><title>DevLake</title>")

PLUGIN = "/plugins/developer_telemetry/connections"
ROUTES = {
    r"GET /version": "version",
    r"GET /plugins": "plugins",
    rf"GET {PLUGIN}": "connections",
    rf"POST {PLUGIN}": "add_connection",
    rf"PATCH {PLUGIN}/(\d+)": "change_connection",
    rf"DELETE {PLUGIN}/(\d+)": "delete_connection",
    rf"PUT {PLUGIN}/(\d+)/scopes": "add_scopes",
    rf"GET {PLUGIN}/(\d+)/scopes/all": "scope",
    rf"PATCH {PLUGIN}/(\d+)/scopes/all": "change_scope",
    rf"DELETE {PLUGIN}/(\d+)/scopes/all": "delete_scope",
    rf"GET {PLUGIN}/\d+/scope-configs": "list_configs",
    rf"POST {PLUGIN}/(\d+)/scope-configs": "add_config",
    rf"GET {PLUGIN}/\d+/scope-configs/(\d+)": "config",
    rf"PATCH {PLUGIN}/\d+/scope-configs/(\d+)": "change_config",
    r"POST /projects": "add_project",
    r"GET /blueprints": "list_blueprints",
    r"GET /blueprints/(\d+)": "blueprint",
    r"PATCH /blueprints/(\d+)": "change_blueprint",
}


class SmallLake:
    """The server, on a free port; `with` starts and stops it.

    `key` is an API key that it knows, `login` the basic auth of its front proxy. `auth` is the
    month of a server whose AUTH_ENABLED is true: "june" loses the user of an API key, "july" does
    not, "september" takes no basic auth any more; `forwarded` is its FORWARDED_USER_SECRET.
    `fault` is what it answers everything with, except for its version.
    """

    def __init__(self, key: str = "", login: str = "", auth: str = "", forwarded: str = "") -> None:
        self.key = key
        self.login = login
        self.auth = auth
        self.forwarded = forwarded
        self.fault: Optional[Answer] = None
        self.fails_at = 0  # the number of the change that fails with 500
        self.silent_seconds = 0.0
        self.has_plugin = True
        self.other_plugins: list[str] = []
        self.changes: list[str] = []
        self.kept: dict[int, dict[str, Any]] = {}
        self.scopes: dict[int, dict[str, Any]] = {}
        self.configs: dict[int, dict[str, Any]] = {}
        self.blueprints: dict[int, dict[str, Any]] = {}
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._server = _Server((HOST, 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://{HOST}:{self._server.server_port}"

    def __enter__(self) -> SmallLake:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: Any) -> Answer:
        """Answer on the paths of the server, of its API keys, and of the front proxy."""
        path, authorization = urlsplit(target).path, headers.get("Authorization", "")
        if self.login:
            wanted = base64.b64encode(self.login.encode()).decode()
            if not path.startswith("/api/rest/") and authorization != f"Basic {wanted}":
                return 401, "<html>401 Authorization Required</html>"
            if not path.startswith("/api/"):
                return PAGE
            path = path[len("/api") :]
        keyed = path.startswith("/rest/")
        if keyed:
            path = path[len("/rest") :]
            if authorization != f"Bearer {self.key}":
                message = "api key is invalid" if authorization else "token is missing"
                return 403 if authorization else 401, {"success": False, "message": message}
        if self.auth and path not in PUBLIC and not self._is_signed_in(headers, keyed):
            return BARE
        if self.fault and path != "/version":
            return self.fault
        with self._lock:
            time.sleep(self.silent_seconds)
            return self._dispatch(method, path, parse_qs(urlsplit(target).query), body)

    def _is_signed_in(self, headers: Mapping[str, str], keyed: bool) -> bool:
        """Return true if a server with sign-on accepts the user of this request."""
        if headers.get("X-Forwarded-User") and self.forwarded:
            return headers.get("X-Forwarded-User-Secret") == self.forwarded
        kind, _, credentials = headers.get("Authorization", "").partition(" ")
        if kind == "Basic" and self.auth != "september":
            return base64.b64decode(credentials).count(b":") == 1
        return keyed and self.auth != "june"

    def _dispatch(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Answer:
        routes = ((re.fullmatch(route, f"{method} {path}"), ROUTES[route]) for route in ROUTES)
        found, name = next(((match, name) for match, name in routes if match), (None, ""))
        if found is None or (path.startswith(PLUGIN) and not self.has_plugin):
            return NO_ROUTE
        if method != "GET":
            self.changes.append(f"{method} {path}")
            if len(self.changes) == self.fails_at:
                return 500, {"success": False, "message": "out of luck (500)\nWraps: (2) luck"}
        arguments: list[Any] = [int(each) for each in found.groups()]
        if "pageSize" in query:
            size, page = int(query["pageSize"][0]), int(query["page"][0])
            arguments.append(slice((page - 1) * size, page * size))
        if body is not None:
            arguments.append(body)
        try:
            answer: Answer = getattr(self, f"_{name}")(*arguments)
        except KeyError:
            return _refused(404, "record not found (404)\nWraps: (2) record not found")
        return answer

    def _version(self) -> Answer:
        return 200, {"version": "small"}

    def _plugins(self) -> Answer:
        ours = ["developer_telemetry"] if self.has_plugin else []
        names = ["org", "webhook", *self.other_plugins, *ours]
        return 200, [{"plugin": name, "metric": {"isProjectMetric": False}} for name in names]

    def _connections(self) -> Answer:
        return 200, list(self.kept.values())

    def _add_connection(self, body: dict[str, Any]) -> Answer:
        if any(each["name"] == body["name"] for each in self.kept.values()):
            return _refused(400, "the connection name already exists (400)")
        made = {"id": next(self._ids), **TIMES, **_known(CONNECTION, body)}
        self.kept[made["id"]] = made
        return 200, made

    def _change_connection(self, identity: int, body: dict[str, Any]) -> Answer:
        self.kept[identity].update(_known(self.kept[identity], body))
        return 200, self.kept[identity]

    def _delete_connection(self, identity: int) -> Answer:
        if self._used(identity) or identity in self.scopes:
            return _refused(409, "Found one or more references to this connection (409)")
        self.configs = {n: c for n, c in self.configs.items() if c["connectionId"] != identity}
        return 200, self.kept.pop(identity)

    def _used(self, identity: int) -> bool:
        return any(
            (each["pluginName"], each["connectionId"]) == ("developer_telemetry", identity)
            for blueprint in self.blueprints.values()
            for each in blueprint["connections"]
        )

    def _add_scopes(self, connection: int, body: dict[str, Any]) -> Answer:
        [scope] = body["data"]
        if connection in self.scopes:
            return _refused(400, "error saving scope (400)\nWraps: (2) Duplicate entry '1-all'")
        self.scopes[connection] = {**scope, "scopeConfigId": 0, **TIMES}
        return 200, [{**self.scopes[connection], "scope": self.scopes[connection]}]

    def _scope(self, connection: int) -> Answer:
        return 200, {**self.scopes[connection], "scope": self.scopes[connection]}

    def _change_scope(self, connection: int, body: dict[str, Any]) -> Answer:
        self.scopes[connection].update(body)
        return self._scope(connection)

    def _delete_scope(self, connection: int) -> Answer:
        if self._used(connection):
            return 409, {"projects": ["p"], "blueprints": ["p-Blueprint"]}
        del self.scopes[connection]
        return 200, {"success": True, "message": "success"}

    def _list_configs(self, page: slice) -> Answer:
        return 200, list(self.configs.values())[page]

    def _add_config(self, connection: int, body: dict[str, Any]) -> Answer:
        made = {"id": next(self._ids), "connectionId": connection, **_known(CONFIG, body)}
        self.configs[made["id"]] = made
        return 200, made

    def _config(self, identity: int) -> Answer:
        return 200, self.configs[identity]

    def _change_config(self, identity: int, body: dict[str, Any]) -> Answer:
        self.configs[identity].update(_known(CONFIG, {**self.configs[identity], **body}))
        return self._config(identity)

    def _add_project(self, body: dict[str, Any]) -> Answer:
        blueprint = self.add_blueprint(body["name"])
        return 201, {"name": body["name"], "metrics": None, "blueprint": blueprint}

    def add_blueprint(self, project: str, *used: dict[str, Any], **other: Any) -> dict[str, Any]:
        """Make a blueprint of a project with these connections."""
        made = {
            "id": next(self._ids),
            "name": f"{project}-Blueprint",
            "projectName": project,
            "mode": "NORMAL",
            "cronConfig": "0 0 * * *",
            "connections": list(used),
            **other,
        }
        self.blueprints[made["id"]] = made
        return made

    def _list_blueprints(self, page: slice) -> Answer:
        every = list(self.blueprints.values())
        return 200, {"blueprints": every[page], "count": len(every)}

    def _blueprint(self, identity: int) -> Answer:
        return 200, self.blueprints[identity]

    def _change_blueprint(self, identity: int, body: dict[str, Any]) -> Answer:
        self.blueprints[identity].update(body)
        return self._blueprint(identity)


def _known(fields: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """Return the known fields of a body, as a lenient decoder does."""
    return {name: body.get(name, default) for name, default in fields.items()}


def _refused(status: int, message: str) -> Answer:
    return status, {"code": 0, "success": False, "message": message, "causes": None, "data": None}


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing it waits for them

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnected, such as after a timeout."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _handler(lake: SmallLake) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def handle_one(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(size)) if size else None
            headers = {name.title(): value for name, value in self.headers.items()}
            status, said = lake.answer(self.command, self.path, headers, body)
            text = said if isinstance(said, str) else json.dumps(said)
            self.send_response(status)
            if status in (301, 302, 307, 308):
                self.send_header("Location", text)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

        def log_message(self, *arguments: object) -> None:
            """Log nothing: tests check the requested changes."""

    return Handler
