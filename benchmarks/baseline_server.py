"""A server that answers every request at once, to measure the load tool alone.

with BaselineServer() as port: ...
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
from contextlib import suppress

from benchmarks.fleet import body
from benchmarks.load import HOST, ROOT

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}"
RECEIVE_BYTES = 1 << 16


class BaselineServer:
    """The server as a child process; `with` returns its port."""

    def __enter__(self) -> int:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.baseline_server"], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Answer each request at the end of its body."""
    listener = socket.create_server((HOST, 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    last = body(0)[-8:]
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    peers: dict[int, socket.socket] = {}
    while True:
        for file, _ in poll.poll():
            if file == listener.fileno():
                peer, _ = listener.accept()
                peers[peer.fileno()] = peer
                poll.register(peer, select.EPOLLIN)
                continue
            with suppress(ConnectionError):
                if data := peers[file].recv(RECEIVE_BYTES):
                    if data.endswith(last):
                        peers[file].send(ANSWER)
                    continue
            peers.pop(file).close()


if __name__ == "__main__":
    main()
