"""Limits for the number of connections and for the bytes that they hold."""

from __future__ import annotations

from itertools import islice
from typing import Protocol

# The connections that may wait to be accepted. One turn of the event loop may accept all of them
# before it closes another one.
MAX_BACKLOG = 2048
# The file descriptors reserved for those, the database, the spool, logs and other files; at most a
# quarter of all.
SPARE_FILES = 2 * MAX_BACKLOG + 256
# The received and unprocessed bytes of all connections. Beyond it each may hold its share, which a
# usual report does not reach.
MAX_HELD_BYTES = 64 << 20
FAIR_SHARE_BYTES = 8 << 10
# The number of connections with a stored report that are searched for an idle one.
MAX_CANDIDATES = 64


class ClientConnection(Protocol):
    """A connection."""

    @property
    def idle(self) -> bool:
        """Return true if the connection has no request in progress."""

    def abort(self) -> None:
        """Close the connection immediately."""


class Admission:
    """Accepts connections, and closes one when there are too many.

    A connection is a stranger until a report of it was stored. The oldest stranger is closed first,
    then the reporter that is idle for longest, else the newest connection.
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

    def add(self, client: ClientConnection) -> None:
        """Add a new connection; close the least important one if there are too many."""
        self._strangers[client] = None
        if len(self) > self.max_connections:
            least_important = self._choose_to_close(client)
            self.remove(least_important)  # its end is noticed after more connections are added
            least_important.abort()

    def remove(self, client: ClientConnection) -> None:
        """Remove a closed connection."""
        self._strangers.pop(client, None)
        self._reporters.pop(client, None)

    def record_stored_report(self, client: ClientConnection) -> None:
        """Record that a report of this connection was stored."""
        queue = self._reporters if client in self._reporters else self._strangers
        if client in queue:
            del queue[client]
            self._reporters[client] = None

    def exceeds(self, client_bytes: int) -> bool:
        """Return true if a connection that holds so many bytes has to be closed."""
        return self.held_bytes > MAX_HELD_BYTES and client_bytes > FAIR_SHARE_BYTES

    def _choose_to_close(self, newcomer: ClientConnection) -> ClientConnection:
        oldest = next(iter(self._strangers))
        if oldest is not newcomer:
            return oldest
        candidates = islice(self._reporters, MAX_CANDIDATES)
        return next((client for client in candidates if client.idle), newcomer)
