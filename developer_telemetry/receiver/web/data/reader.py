"""Access of the page to the database: a few threads and connections of its own."""

from __future__ import annotations

from typing import Callable, TypeVar

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.concurrency import DaemonThreads
from developer_telemetry.connections.registry import Connections
from developer_telemetry.database.engine import reading
from developer_telemetry.receiver.web.data.queries import CONNECTIONS

T = TypeVar("T")


class Reader:
    """Runs the page's queries on its own threads, so that reports never wait for the page."""

    def __init__(self, engine: Engine, connections: Connections) -> None:
        self.engine = reading(engine)
        self.connections = connections
        self.threads = DaemonThreads(CONNECTIONS, "page")

    def close(self) -> None:
        """Close the database connections without waiting for queries that run."""
        self.threads.stop()
        self.engine.dispose()

    async def read(self, query: Callable[[SqlConnection], T]) -> T:
        """Return what a query returns."""

        def run() -> T:
            with self.engine.connect() as connection:
                return query(connection)

        return await self.threads.run(run)

    async def run(self, work: Callable[[], T]) -> T:
        """Return what other work of the page returns that waits for the database."""
        return await self.threads.run(work)

    def names(self) -> dict[int, str]:
        """Return the names of the connections by id."""
        return {connection.id: connection.name for connection in self.connections.all()}
