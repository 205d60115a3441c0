"""One at a time: what rewrites a connection's rows from its reports, and what removes them.

A run reads reports and writes rows some time later; had they been pruned or erased in between, it
would bring them back. Pushes take no part in this: they never wait for any of these.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

from sqlalchemy.engine import Engine

from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.errors import Unavailable
from developer_telemetry.private_files import make_file

# Longer than any of them usually takes; who comes in vain is told to come again.
PATIENCE_SECONDS = 600.0
POLL_SECONDS = 0.2


class ConnectionBusy(Unavailable):
    """Another run, prune or erase of the connection went on for all the time that we waited."""


@contextmanager
def hold_connection(
    engine: Engine, connection_id: int, patience: float = PATIENCE_SECONDS
) -> Iterator[Callable[[], None]]:
    """Keep every other run, prune and erase of a connection away until the end of the block.

    Waits for `patience` seconds, 0 for not at all. Yields a function to call now and then, which
    costs one round trip: it raises `SQLAlchemyError` when the lock went with its session.

    :raises Busy: somebody else has it.
    """
    dialect = dialect_of(engine)
    query = dialect.try_lock(f"developer_telemetry {connection_id}")
    with _session(engine, query) if query else _file(engine) as (take, check):
        deadline = time.monotonic() + patience
        while not take():
            if time.monotonic() >= deadline:
                raise ConnectionBusy(
                    f"another run, prune or erase of connection {connection_id} is going on;"
                    " wait until that has ended and try again"
                )
            time.sleep(POLL_SECONDS)
        yield check


# How to take a lock, true if it was free, and how to see whether it is still ours.
_Lock = tuple[Callable[[], bool], Callable[[], None]]


@contextmanager
def _session(engine: Engine, query: str) -> Iterator[_Lock]:
    dialect = dialect_of(engine)
    taken = False
    with engine.connect() as connection:
        connection.detach()  # it is closed at the end, and the lock goes with it, come what may

        def ask(question: str) -> bool:
            answer = connection.exec_driver_sql(question).scalar()
            if dialect.locks_last == "session" or not (answer or taken):
                connection.commit()  # not to stand in the way of the server's own cleaning up
            return bool(answer)

        def take() -> bool:
            nonlocal taken
            taken = ask(query)
            return taken

        def check() -> None:
            ask("SELECT 1")

        yield take, check


@contextmanager
def _file(engine: Engine) -> Iterator[_Lock]:
    # Not the database's own file: to close that anywhere takes away all locks that SQLite has
    # on it. One for all connections, since a file has one writer anyway.
    path = Path(f"{engine.url.database}.exclusion")
    make_file(path)
    descriptor = os.open(path, os.O_RDONLY)

    def take() -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    try:
        yield take, lambda: None
    finally:
        os.close(descriptor)
