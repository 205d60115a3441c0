"""A lock on a connection of ours, so that one run, prune or erase works on it at a time.

A run reads reports and writes their rows later; it would restore rows that were pruned or erased in
between. Pushes do not take the lock and never wait for it.
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

# Longer than a run usually takes.
PATIENCE_SECONDS = 600.0
POLL_SECONDS = 0.2


class ConnectionBusy(Unavailable):
    """Another run, prune or erase of the connection did not end while we waited."""


@contextmanager
def hold_connection(
    engine: Engine, connection_id: int, patience: float = PATIENCE_SECONDS
) -> Iterator[Callable[[], None]]:
    """Hold a connection's lock until the end of the block.

    Waits for `patience` seconds at most, 0 for not at all. Yields a function to call now and then,
    one round trip each: it raises `SQLAlchemyError` if the lock was lost with its session.

    Raises:
        ConnectionBusy: Another process holds the lock.
    """
    dialect = dialect_of(engine)
    query = dialect.try_lock(f"developer_telemetry {connection_id}")
    with _session_lock(engine, query) if query else _file_lock(engine) as (take, check):
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
def _session_lock(engine: Engine, query: str) -> Iterator[_Lock]:
    dialect = dialect_of(engine)
    taken = False
    with engine.connect() as connection:
        connection.detach()  # closed at the end in any case, which frees the lock

        def fetch_bool(statement: str) -> bool:
            answer = connection.exec_driver_sql(statement).scalar()
            if dialect.lock_scope == "session" or not (answer or taken):
                connection.commit()  # an open transaction would hinder the server's cleanup
            return bool(answer)

        def take() -> bool:
            nonlocal taken
            taken = fetch_bool(query)
            return taken

        def check() -> None:
            fetch_bool("SELECT 1")

        yield take, check


@contextmanager
def _file_lock(engine: Engine) -> Iterator[_Lock]:
    # Not the database's file: closing it anywhere frees all locks that SQLite has on it. One
    # lock for all connections, since an SQLite file has one writer anyway.
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
