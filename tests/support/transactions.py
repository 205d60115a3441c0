"""Transactions of others that stay open, and ends of sessions, for tests of conflicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pymysql

from tests.support.servers import HOST, PASSWORD, USER, Server, execute

# What PostgreSQL shows of who holds a transaction open.
APPLICATION = "holder"
MYSQL_DEADLOCK = 1213


@contextmanager
def transaction(url: str, *statements: str) -> Iterator[None]:
    """Keep a transaction open that has run these statements; it is rolled back in the end."""
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
    """End what a database's sessions do, then them altogether; not those of `transaction`."""
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
            with suppress(pymysql.err.OperationalError):  # it has ended by itself
                execute(server.url(""), f"KILL {how} {session}")
