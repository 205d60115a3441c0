"""A fixed address that leads to one server after another, as a virtual IP or a TCP proxy does."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from tests.support.servers import HOST

BYTES = 1 << 16


class Link:
    """One connection through the forwarder."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.stranded = False
        self._ends = (client, server)
        for source, target in ((client, server), (server, client)):
            threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def close(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(BYTES):
                if self.stranded:
                    return
                target.sendall(data)
        if not self.stranded:
            self.close()


class Forwarder:
    """Listens on a port of its own from `with` on; connections made later go where it leads."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._links: list[Link] = []
        self._socket = socket.create_server((HOST, 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Forwarder:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        self.cut()

    def set_target(self, port: int) -> None:
        """Take new connections to this port; those that are open stay where they are."""
        self._target_port = port

    def cut(self) -> None:
        """End the open connections."""
        for link in self._links:
            link.close()

    def strand(self) -> None:
        """Let the open connections carry nothing more, as when the machine behind them is gone."""
        for link in self._links:
            link.stranded = True

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((HOST, self._target_port))
            except OSError:
                client.close()
            else:
                self._links.append(Link(client, server))
