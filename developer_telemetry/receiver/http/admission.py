"""Bounds for the number of connections, and for the bytes that they hold."""

from __future__ import annotations

from itertools import islice
from typing import Protocol

# Waiting to be accepted, at most; all of them may come in one turn of the event loop, before any
# other is closed for them.
MAX_BACKLOG = 2048
# What is left for those, and for the database, the spool, logs and files that are read now and
# then; with few files a quarter of them.
SPARE_FILES = 2 * MAX_BACKLOG + 256
# What was received and not taken yet, of all connections together; a report is well below the
# share that each may hold beyond it.
MAX_HELD_BYTES = 64 << 20
FAIR_SHARE_BYTES = 8 << 10
# How many that brought a report once are asked whether they are idle.
LOOKED_AT = 64


class ClientConnection(Protocol):
    """A connection."""

    @property
    def idle(self) -> bool:
        """Return true if no request of it is being read or answered."""

    def abort(self) -> None:
        """Close it at once, whatever it is about."""


class Admission:
    """Lets connections in and sends others away for them.

    A connection is a stranger until a report of it was kept. When there are too many, the oldest
    stranger goes; among those who are known, the one idle for longest; else the one that came last.
    """

    def __init__(self, open_files: int) -> None:
        spare = min(SPARE_FILES, open_files // 4)
        self.max_connections = max(1, open_files - spare)
        self.backlog = max(1, min(MAX_BACKLOG, spare // 2))
        self.held_bytes = 0
        # Both in order, like a queue: by arrival, and by the latest report.
        self._strangers: dict[ClientConnection, None] = {}
        self._reporters: dict[ClientConnection, None] = {}

    def __len__(self) -> int:
        return len(self._strangers) + len(self._reporters)

    def enter(self, client: ClientConnection) -> None:
        """Take note of a new connection."""
        self._strangers[client] = None
        if len(self) > self.max_connections:
            least_missed = self._least_missed(client)
            self.leave(least_missed)  # its end is only noticed when all newcomers are in
            least_missed.abort()

    def leave(self, client: ClientConnection) -> None:
        """Forget a connection that is closed."""
        self._strangers.pop(client, None)
        self._reporters.pop(client, None)

    def record_stored_report(self, client: ClientConnection) -> None:
        """Record that a report of this connection was stored."""
        queue = self._reporters if client in self._reporters else self._strangers
        if client in queue:
            del queue[client]
            self._reporters[client] = None

    def exceeds(self, held: int) -> bool:
        """Return true if a connection that holds so many bytes has to be closed."""
        return self.held_bytes > MAX_HELD_BYTES and held > FAIR_SHARE_BYTES

    def _least_missed(self, newcomer: ClientConnection) -> ClientConnection:
        oldest = next(iter(self._strangers))
        if oldest is not newcomer:
            return oldest
        looked_at = islice(self._reporters, LOOKED_AT)
        return next((client for client in looked_at if client.idle), newcomer)
