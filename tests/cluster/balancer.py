"""A real nginx that spreads requests over several receivers."""

from __future__ import annotations

import socket
from contextlib import suppress

from tests.support.receivers import Receiver
from tests.support.servers import HOST, Server, _program

# A report that was handed to a receiver isn't handed to another when the answer fails to come:
# that is nginx's default for POST, and both may have stored it.
CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream receivers {{
        {servers}
        keepalive 16;
    }}
    server {{
        listen {host}:{port};
        location / {{
            proxy_pass http://receivers;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_connect_timeout 3s;
            proxy_read_timeout 30s;
        }}
    }}
}}
"""


class Balancer(Server):
    """nginx in front of `receivers`, whose ports it knows before they run."""

    name = "nginx"

    def __init__(self, *receivers: Receiver) -> None:
        self._servers = [f"server {HOST}:{each.port} fail_timeout=2s;" for each in receivers]
        super().__init__()

    def _find(self) -> None:
        self._nginx = _program("nginx")

    def _initialize(self) -> None:
        self.data.mkdir()
        configuration = CONFIGURATION.format(
            folder=self.data, host=HOST, port=self.port, servers="\n        ".join(self._servers)
        )
        (self.folder / "nginx.conf").write_text(configuration)

    def _command(self) -> list[str]:
        return [self._nginx, "-p", str(self.folder), "-c", f"{self.folder}/nginx.conf"]

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((HOST, self.port)):
            return True
        return False
