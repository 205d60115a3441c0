"""A real nginx for tests, with DevLake's front proxy as its image sets it up, and what it asks.

    names = Names({"telemetry-receiver": HOST})
    with names, Echo("DevLake") as devlake, Nginx(devlake.port, server_conf) as proxy:
        answer = proxy.client.post("/api/plugins/webhook/1/issues", json={})
        assert answer.json()["by"] == "DevLake"

The image's template puts SERVER_CONF into its `server` block; beside it are the locations of
DevLake's own, written here anew with the template's behaviour.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import dumps
from pathlib import Path

import httpx
import yaml

from tests.support.servers import HOST, Server, _program, free_port

ROOT = Path(__file__).parents[2]
LOCATION = ROOT / "deploy/nginx/developer-telemetry.conf"
COMPOSE = ROOT / "deploy/compose.override.yml"
# The receiver's, in the compose file.
NAME = "telemetry-receiver"

INDEX = "DevLake's pages"
# Of the DNS protocol.
ADDRESS = 1
NO_SUCH_NAME = 3

CONFIGURATION = """\
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    # As the machine sent it, escapes included.
    map $request_uri $devlake_uri {{ ~^/api(?<rest>/.*)$ $rest; }}
    server {{
        listen {host}:{port};
        server_name localhost;
        absolute_redirect off;
        client_max_body_size 20m;
        {server_conf}
        root {folder}/pages;
        location = / {{ try_files /index.html =404; }}
        location / {{ try_files $uri /index.html; }}
        location /api/ {{ proxy_pass http://{host}:{devlake}$devlake_uri; }}
        location /api/rest/ {{
            auth_basic off;
            rewrite ^/api(/.*) $1 break;
            proxy_pass http://{host}:{devlake};
        }}
        location /health {{ auth_basic off; return 200; }}
    }}
}}
"""

# The settings of ingress-nginx for requests and connections, for an Ingress without annotations.
INGRESS = """\
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    underscores_in_headers off;
    ignore_invalid_headers on;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    upstream receiver {{
        server {host}:{receiver};
        keepalive 320;
        keepalive_requests 10000;
    }}
    server {{
        listen {host}:{port};
        client_max_body_size 20m;
        location /health {{ return 200; }}
        location / {{
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header Proxy "";
            proxy_buffering off;
            proxy_request_buffering {buffering};
            proxy_http_version 1.1;
            proxy_next_upstream error timeout;
            proxy_next_upstream_tries 3;
            proxy_pass http://receiver;
        }}
    }}
}}
"""


def server_conf(folder: Path, before: str, names: int, port: int) -> str:
    """SERVER_CONF of the compose file as the container gets it, with this machine's ports.

    `before` is what was in it already, `names` where names are asked for, `port` the receiver's.
    """
    service = yaml.safe_load(COMPOSE.read_text())["services"]["config-ui"]
    location = LOCATION.read_text()
    for there, here in {
        "resolver 127.0.0.11 valid=10s;": f"resolver {HOST}:{names} valid=1s;",
        f"$telemetry {NAME}:8090;": f"$telemetry {NAME}:{port};",
    }.items():
        assert location.count(there) == 1
        location = location.replace(there, here)
    (folder / "location.conf").write_text(location)
    conf: str = service["environment"]["SERVER_CONF"].replace("${SERVER_CONF:-}", before)
    [mounted] = service["configs"]
    assert conf.count(mounted["target"]) == 1
    return conf.replace(mounted["target"], str(folder / "location.conf"))


class Nginx(Server):
    """The front proxy, with `server_conf` in its `server` block; `with` starts and stops it.

    Raises `tests.support.servers.ServerMissing` when made, if there is none here.
    """

    name = "nginx"

    def __init__(self, devlake: int, server_conf: str) -> None:
        super().__init__()
        self._devlake = devlake
        self._server_conf = server_conf
        self.address = f"http://{HOST}:{self.port}"
        self.client = httpx.Client(base_url=self.address, timeout=30, trust_env=False)

    def close(self) -> None:
        self.client.close()
        super().close()

    def _find(self) -> None:
        self._nginx = _program("nginx")

    def _initialize(self) -> None:
        pages = self.data / "pages"
        pages.mkdir(parents=True)
        (pages / "index.html").write_text(INDEX)
        self._configure(CONFIGURATION, devlake=self._devlake, server_conf=self._server_conf)

    def _configure(self, configuration: str, **more: object) -> None:
        # Its worker needs access to a folder of the tests.
        user = "user root;" if os.geteuid() == 0 else ""
        written = configuration.format(
            user=user, folder=self.data, host=HOST, port=self.port, **more
        )
        (self.data / "nginx.conf").write_text(written)

    def _command(self) -> list[str]:
        return [self._nginx, "-e", "stderr", "-p", str(self.data), "-c", "nginx.conf"]

    def _answers(self) -> bool:
        try:
            return self.client.get("/health").status_code == 200
        except httpx.TransportError:
            return False


class Ingress(Nginx):
    """The proxy before a receiver in Kubernetes; with `buffering` it reads bodies first."""

    def __init__(self, receiver: int, buffering: bool = True) -> None:
        super().__init__(receiver, "")
        self._buffering = buffering

    def _initialize(self) -> None:
        self.data.mkdir(parents=True)
        buffering = "on" if self._buffering else "off"
        self._configure(INGRESS, receiver=self._devlake, buffering=buffering)


class Echo:
    """A server that answers with each request as JSON, and its own name."""

    def __init__(self, name: str, host: str = HOST, port: int = 0) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                seen = {
                    "by": name,
                    "method": self.command,
                    "path": self.path,
                    "headers": {key.lower(): value for key, value in self.headers.items()},
                    "body": body.hex(),
                }
                said = dumps(seen).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(said)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((host, port or free_port()), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Echo:
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Names:
    """A DNS server on the loopback address, for IPv4 addresses only.

    `addresses` may be changed meanwhile; a name that isn't in it does not exist.
    """

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self.addresses = dict(addresses)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Names:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.sendto(b"", self._socket.getsockname())  # the end
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(512)
            if not query:
                return
            self._socket.sendto(self._answer(query), sender)

    def _answer(self, query: bytes) -> bytes:
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        (kind,) = struct.unpack_from(">H", query, at + 1)
        address = self.addresses.get(".".join(labels))
        answers = b""
        if address and kind == ADDRESS:
            # The name as in the question, class IN, without caching, four bytes.
            answers = struct.pack(">HHHIH", 0xC00C, ADDRESS, 1, 0, 4) + socket.inet_aton(address)
        flags = 0x8180 | (0 if address else NO_SUCH_NAME)
        head = query[:2] + struct.pack(">HHHHH", flags, 1, 1 if answers else 0, 0, 0)
        return head + query[12 : at + 5] + answers
