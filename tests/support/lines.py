"""Connections to a receiver, byte by byte."""

from __future__ import annotations

import json
import re
import socket
from typing import NamedTuple

from tests.support.receivers import Receiver
from tests.support.servers import HOST


class Answer(NamedTuple):
    status: int
    head: str
    content: dict[str, object]


class Line:
    """A connection to a receiver, byte by byte."""

    def __init__(self, receiver: Receiver) -> None:
        self._socket = socket.create_connection((HOST, receiver.port), timeout=30)
        self._rest = b""

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def send(self, data: str | bytes) -> None:
        self._socket.sendall(data.encode() if isinstance(data, str) else data)

    def end(self) -> None:
        """End sending; answers can still be read."""
        self._socket.shutdown(socket.SHUT_WR)

    def answer(self) -> Answer:
        """Return the next answer; fail if the connection ends first."""
        while b"\r\n\r\n" not in self._rest:
            self._receive()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        found = re.search(rb"content-length: (\d+)", head)
        length = int(found[1]) if found else 0
        while len(self._rest) < length:
            self._receive()
        body, self._rest = self._rest[:length], self._rest[length:]
        return Answer(status, head.decode(), json.loads(body) if body else {})

    def _receive(self) -> None:
        data = self._socket.recv(1 << 16)
        assert data, f"the connection ended after {self._rest!r}"
        self._rest += data

    def ended_within(self, seconds: float) -> bool:
        """Return true if the receiver closes the connection without a response."""
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(1 << 16) == b""
        except socket.timeout:
            return False
        except ConnectionResetError:
            return True
