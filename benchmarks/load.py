"""Send reports to a receiver as fast as it answers, over open connections.

    python -m benchmarks.load PORT CONNECTION CONNECTIONS WARM_UP SECONDS REPORTS

takes the token from TOKEN and prints an `Outcome` as JSON. One thread, sockets polled by hand:
nothing that an HTTP client would do for other servers takes time here.
"""

from __future__ import annotations

import json
import os
import select
import socket
import statistics
import subprocess
import sys
import time
from array import array
from pathlib import Path
from typing import NamedTuple

from benchmarks.fleet import body

HOST = "127.0.0.1"
ROOT = Path(__file__).parent.parent
# The longest wait for the last answers.
PATIENCE_SECONDS = 60.0
RECEIVE_BYTES = 1 << 16
SUCCESS = b"200"


class Outcome(NamedTuple):
    """The outcome of one run; rates and times are those after the warm-up."""

    rate: float  # reports stored a second
    p50_ms: float
    p99_ms: float
    refused: int  # answers other than 200
    broken: int  # connections that ended without an answer
    acknowledged: int  # answers of 200, those of the warm-up included
    busy: float  # the share of one core that the load tool used


def measure(
    port: int,
    connection_id: int,
    token: str,
    connections: int,
    warm_up: float,
    seconds: float,
    reports: int = sys.maxsize,
) -> Outcome:
    """Run the load tool in a process of its own, until the time is over or `reports` are sent."""
    numbers = (port, connection_id, connections, warm_up, seconds, reports)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", *map(str, numbers)],
        cwd=ROOT,
        env={**os.environ, "TOKEN": token},
        stdout=subprocess.PIPE,
        check=True,
    )
    return Outcome(**json.loads(done.stdout))


class Sender:
    """One connection, with one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.sent_at = 0.0
        self._received = b""
        self.open()

    def open(self) -> None:
        """Connect, or connect again after `close`."""
        self.socket = socket.create_connection((HOST, self._port), PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def send(self, request: bytes) -> None:
        """Send a request, which fits into the buffer of a socket."""
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> bytes:
        """Return the status of the answer once it is complete, else `b""`.

        Raises:
            ConnectionError: if the connection ended.
        """
        data = self.socket.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError("ended without an answer")
        if self._received:
            data = self._received + data
        end = data.find(b"\r\n\r\n")
        if end < 0 or len(data) < end + 4 + _content_length(data[:end]):
            self._received = data
            return b""
        self._received = b""
        return data[9:12]


class Load:
    """Sends over all connections until the end, then waits for the last answers."""

    def __init__(
        self, port: int, connection_id: int, token: str, connections: int, reports: int
    ) -> None:
        self._head = (
            f"POST /plugins/developer-telemetry/{connection_id}/report HTTP/1.1\r\n"
            f"Host: {HOST}:{port}\r\n"
            "User-Agent: DevLake-Telemetry-Collector/1.0\r\n"
            "Content-Type: application/json\r\n"
            f"Authorization: Bearer {token}\r\n"
            f"Content-Length: {len(body(0))}\r\n\r\n"
        ).encode()
        self._poll = select.epoll()
        self._senders = [Sender(port) for _ in range(connections)]
        self._by_file = {sender.socket.fileno(): sender for sender in self._senders}
        self._next, self._reports = 0, reports
        self._times = array("d")
        self._refused = self._broken = self._acknowledged = 0

    def run(self, warm_up: float, seconds: float) -> Outcome:
        """Send for `warm_up` and then `seconds`, and measure in the latter."""
        for sender in self._senders:
            self._poll.register(sender.socket, select.EPOLLIN)
            self._send(sender)
        self._until(time.perf_counter() + warm_up)
        self._times = array("d")
        self._refused = self._broken = 0
        started, cpu_started = time.perf_counter(), time.process_time()
        self._until(started + seconds)
        lasted, busy = time.perf_counter() - started, time.process_time() - cpu_started
        rate = len(self._times) / lasted
        self._finish()
        times = sorted(self._times) or [0.0]
        cuts = statistics.quantiles(times, n=100) if len(times) > 1 else times * 99
        return Outcome(
            rate=rate,
            p50_ms=cuts[49] * 1000,
            p99_ms=cuts[98] * 1000,
            refused=self._refused,
            broken=self._broken,
            acknowledged=self._acknowledged,
            busy=busy / lasted,
        )

    def _until(self, deadline: float) -> None:
        while self._next < self._reports and (left := deadline - time.perf_counter()) > 0:
            for file, _ in self._poll.poll(left):
                sender = self._by_file[file]
                if self._answered(sender):
                    self._send(sender)

    def _finish(self) -> None:
        waiting = set(self._by_file)
        deadline = time.perf_counter() + PATIENCE_SECONDS
        while waiting and (left := deadline - time.perf_counter()) > 0:
            for file, _ in self._poll.poll(left):
                if file in waiting and self._answered(self._by_file[file]):
                    waiting.remove(file)
        self._broken += len(waiting)

    def _send(self, sender: Sender) -> None:
        number = self._next
        self._next += 1
        sender.send(self._head + body(number))

    def _answered(self, sender: Sender) -> bool:
        """Return true if the sender's request has its answer."""
        try:
            status = sender.receive()
        except ConnectionError:
            self._broken += 1
            self._reopen(sender)
            return True
        if not status:
            return False
        if status == SUCCESS:
            self._times.append(time.perf_counter() - sender.sent_at)
            self._acknowledged += 1
        else:
            self._refused += 1
            self._reopen(sender)  # a receiver that refuses may close
        return True

    def _reopen(self, sender: Sender) -> None:
        del self._by_file[sender.socket.fileno()]
        sender.socket.close()
        sender.open()
        self._by_file[sender.socket.fileno()] = sender
        self._poll.register(sender.socket, select.EPOLLIN)


def _content_length(head: bytes) -> int:
    lower = head.lower()
    start = lower.index(b"content-length:") + len(b"content-length:")
    end = lower.find(b"\r\n", start)
    return int(lower[start:] if end < 0 else lower[start:end])


def main() -> None:
    """Run as the process that `measure` starts."""
    port, connection_id, connections = map(int, sys.argv[1:4])
    warm_up, seconds = map(float, sys.argv[4:6])
    reports = int(sys.argv[6])
    load = Load(port, connection_id, os.environ["TOKEN"], connections, reports)
    print(json.dumps(load.run(warm_up, seconds)._asdict()))


if __name__ == "__main__":
    main()
