"""Engines with our session settings, and transactions that are repeated after a conflict."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Callable, NamedTuple, TypeVar

from sqlalchemy import event
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from developer_telemetry.database.dialects.lookup import Database, dialect_of
from developer_telemetry.database.dialects.mysql import MySQL

T = TypeVar("T")

# A batch's conflicts are over in milliseconds; ten tries with growing pauses span two seconds.
ATTEMPTS = 10
# A second loss is the statement's own fault or an outage; neither is over in milliseconds.
LOST_CONNECTIONS = 2


class Progress(NamedTuple):
    """The progress of a long piece of work: units done, and their total."""

    done: int
    total: int


def open_engine(url: str) -> Engine:
    """Return an engine for a Go-style or SQLAlchemy-style URL, with our session settings."""
    from pydevlake.database import create_db_engine

    return prepare(create_db_engine(url))


def address_of(engine: Engine) -> str:
    """Return the database's URL without password and options."""
    return engine.url.render_as_string(hide_password=True).partition("?")[0]


def open_writing_engine(url: str) -> Engine:
    """Return an engine for `transact` alone, which saves two round trips in each transaction.

    It does not test connections, since `transact` repeats the work of a lost one, and does not
    roll back when one is returned, since `transact` has committed. Its sessions count the rows
    that an insert changed; with SQLAlchemy's default they would count existing rows, too.
    """
    from pydevlake.database import create_db_engine

    options = {"pool_pre_ping": False, "pool_reset_on_return": None}
    engine = create_db_engine(url, **options)
    event.listen(engine, "do_connect", _count_changed)
    with_short_timeouts(prepare(engine))
    event.listen(engine, "connect", dialect_of(engine).shorten_lock_waits)
    return engine


def with_short_timeouts(engine: Engine) -> Engine:
    """Return the same engine, which from now on waits less for a silent server.

    For callers that run short statements alone.
    """
    event.listen(engine, "do_connect", dialect_of(engine).shorten_timeouts)
    engine.dispose()
    return engine


def _count_changed(dialect: Any, record: Any, args: Any, options: dict[str, Any]) -> None:
    if "client_flag" in options:
        options["client_flag"] &= ~MySQL.found_rows


def prepare(engine: Engine) -> Engine:
    """Give every session of `engine` our settings, and close its present ones; idempotent."""
    dialect = dialect_of(engine)
    engine.dispose()
    event.listen(engine, "do_connect", dialect.connecting)
    # Before SQLAlchemy inspects the new session.
    event.listen(engine, "connect", dialect.connected, insert=True)
    event.listen(engine, "begin", dialect.begin)
    event.listen(engine, "handle_error", _invalidate_if_stale)
    if dialect.name == "sqlite":
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def limited(engine: Engine, seconds: int) -> Engine:
    """Return the same prepared engine, whose statements from now on end after so many seconds."""
    dialect = dialect_of(engine)

    def limit(connection: Any, record: Any) -> None:
        with closing(connection.cursor()) as cursor:
            dialect.limit(cursor, record.info, seconds)
        connection.commit()

    engine.dispose()
    event.listen(engine, "connect", limit)
    return engine


def _invalidate_if_stale(context: Any) -> None:
    """Count a session as lost where a new one may not have the error."""
    if context.engine is not None:
        error = context.original_exception
        context.is_disconnect |= dialect_of(context.engine).is_stale(error)


def _begin_sqlite(connection: SqlConnection) -> None:
    # Taking the write lock at once: a read that turns into a write can't wait for it.
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def now_us() -> int:
    """Return this machine's time: UTC in microseconds since 1970."""
    return time.time_ns() // 1000


def reading(engine: Engine) -> Engine:
    """Return the same engine for transactions that only read: on SQLite they wait for no writer."""
    return engine.execution_options(reading=True)


@contextmanager
def connect_to_primary(engine: Engine) -> Iterator[SqlConnection]:
    """Yield a connection that reads the newest rows: not one to a former primary."""
    question = dialect_of(engine).reads_only
    with reading(engine).connect() as connection:
        if not question or not connection.exec_driver_sql(question).scalar_one():
            yield connection
            return
        connection.invalidate()
    engine.dispose()
    with reading(engine).connect() as connection:
        yield connection  # to the new primary, if there is one


def clock_offset_us(engine: Engine) -> int:
    """Return the microseconds by which the database's clock is ahead of this machine's."""
    clock = dialect_of(engine).clock
    if not clock:
        return 0
    with engine.connect() as connection:
        before = now_us()
        theirs: Any = connection.exec_driver_sql(f"SELECT {clock}").scalar_one()
        after = now_us()
    return int(theirs * 1_000_000) - (before + after) // 2


def database_now_us(connection: SqlConnection) -> int:
    """Return the database's time: UTC in microseconds since 1970."""
    clock = dialect_of(connection).clock
    if not clock:
        return now_us()
    return int(connection.exec_driver_sql(f"SELECT {clock}").scalar_one() * 1_000_000)


def list_risks(engine: Engine) -> list[str]:
    """Return messages about settings by which the database loses commits or refuses ours."""
    messages: list[str] = []
    with reading(engine).connect() as connection:
        for setting, question, risky, remedy in dialect_of(engine).risks:
            value = str(connection.exec_driver_sql(question).scalar_one())
            if value in risky:
                messages.append(
                    f"the database may lose reports that were acknowledged: {setting} is {value};"
                    f" {remedy}"
                )
        if dialect_of(engine).refusal:
            question, reason_and_remedy = dialect_of(engine).refusal
            if connection.exec_driver_sql(question).first() is not None:
                messages.append(reason_and_remedy)
    return messages


def transact(
    database: Database, work: Callable[[SqlConnection], T], awaits_locks: bool = True
) -> T:
    """Run `work` in a transaction and commit; repeat the whole of it after a conflict.

    Without `awaits_locks` it is not repeated after a lock timeout.

    `work` is repeated as well if the connection is lost, also during COMMIT, or if the server has
    become read-only. So it has to be harmless when done twice.
    """
    dialect = dialect_of(database)
    lost = 0
    for attempt in range(1, ATTEMPTS + 1):
        try:
            if isinstance(database, Engine):
                with database.connect() as connection:
                    return _run_transaction(connection, work)
            return _run_transaction(database, work)
        except DBAPIError as error:
            lost += error.connection_invalidated
            passing = error.connection_invalidated or dialect.is_conflict(error)
            passing = passing and (awaits_locks or not dialect.is_lock_timeout(error))
            if attempt == ATTEMPTS or lost == LOST_CONNECTIONS or not passing:
                raise
            time.sleep(random.uniform(0, 0.01) * attempt * attempt)
    raise AssertionError("unreachable")


def _run_transaction(connection: SqlConnection, work: Callable[[SqlConnection], T]) -> T:
    transaction = connection.begin()
    try:
        done = work(connection)
        transaction.commit()
    except BaseException as error:
        try:
            transaction.rollback()
        except DBAPIError as failure:  # of the connection; the first error explains more
            if isinstance(error, DBAPIError):
                error.connection_invalidated |= failure.connection_invalidated
        raise
    return done


def overwrite_deleted_bytes(connection: SqlConnection) -> None:
    """Overwrite all bytes that this transaction deletes."""
    for statement in dialect_of(connection).overwriting:
        connection.exec_driver_sql(statement)
