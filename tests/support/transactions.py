"""Open transactions and ended sessions, for tests of conflicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pymysql

from tests.support.servers import HOST, PASSWORD, USER, Server, execute

# The name of the session with the open transaction, in PostgreSQL's views.
APPLICATION = "holder"
MYSQL_DEADLOCK = 1213


@contextmanager
def transaction(url: str, *statements: str) -> Iterator[None]:
    """Run statements in a transaction that is open in this context, then rolled back."""
    parts = urlsplit(url)
    connection: Any
    if parts.scheme == "mysql":
        connection = pymysql.connect(
            host=HOST, port=parts.port or 0, user=USER, password=PASSWORD, database=parts.path[1:]
        )
    else:
        connection = psycopg.connect(
            url.replace("postgres", "postgresql", 1), application_name=APPLICATION
        )
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    try:
        while not _has_run(connection, statements):
            pass
        yield
    finally:
        connection.close()


def _has_run(connection: Any, statements: Sequence[str]) -> bool:
    """Run statements; roll back and return False if another transaction waits for ours as well."""
    cursor = connection.cursor()
    try:
        for statement in statements:
            cursor.execute(statement)
    except psycopg.errors.DeadlockDetected:
        connection.rollback()
        return False
    except pymysql.err.OperationalError as error:
        if error.args[0] != MYSQL_DEADLOCK:
            raise
        connection.rollback()
        return False
    return True


def kill_sessions(server: Server, database: str) -> None:
    """Cancel statements of a database's sessions, then end these; not those of `transaction`."""
    if server.name == "postgresql":
        for function in ("pg_cancel_backend", "pg_terminate_backend"):
            execute(
                server.url(""),
                f"SELECT {function}(pid) FROM pg_stat_activity WHERE datname = '{database}'"
                f" AND application_name <> '{APPLICATION}'",
            )
        return
    sessions = execute(
        server.url(""),
        f"SELECT ID FROM information_schema.PROCESSLIST WHERE DB = '{database}'"
        f" AND USER <> '{USER}'",
    )
    for how in ("QUERY", "CONNECTION"):
        for (session,) in sessions:
            with suppress(pymysql.err.OperationalError):  # the session has ended itself
                execute(server.url(""), f"KILL {how} {session}")
