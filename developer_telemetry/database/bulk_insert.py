"""Insert many rows in few statements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.exc import DBAPIError

from developer_telemetry.database.dialects.base import count_characters, cut, flat
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.errors import StatementTooLarge

Row = TypeVar("Row", bound=Sequence[Any])

# Rows in one statement: enough to hide the round trip, well below SQLite's 32,766 parameters.
MAX_ROWS = 500
# Keys of several columns in one condition: the time in which MariaDB plans it grows with their
# square, from 10 ms for so many to 300 ms for 500.
MAX_KEYS = 100


def insert(
    connection: SqlConnection,
    table: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    tail: str,
) -> None:
    """Insert rows in as few statements as the database takes, each with `tail` at its end."""
    for _ in _insert(connection, table, columns, rows, tail):
        pass


def insert_typed(
    connection: SqlConnection,
    table: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    tail: str,
) -> None:
    """Insert rows with any of the table's columns, whose types the table tells."""
    start = f"INSERT INTO {table} ({', '.join(columns)})"
    for batch in batches(connection, rows):
        source = dialect_of(connection).typed_source(table, columns, batch)
        execute(connection, f"{start} {source.sql} {tail}", source.parameters, start)


def insert_if_new(
    connection: SqlConnection,
    table: str,
    columns: Sequence[str],
    row: Sequence[Any],
    keys: Sequence[str],
) -> bool:
    """Insert a row unless one of its keys exists.

    Returns:
        True if the row was inserted; False also where the driver does not report it.
    """
    tail = dialect_of(connection).on_conflict(keys, ())
    ((_, cursor),) = _insert(connection, table, columns, [row], tail)
    return _is_inserted(connection, cursor)


def insert_with_ids(
    connection: SqlConnection,
    table: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    key: str,
    expression: str = "NULL",
) -> tuple[dict[str, int], set[Any]]:
    """Insert rows whose `key` (a column of text) is new; return the ids of all rows by key.

    Also return the values of an expression, of new rows where the database can return them.
    """
    dialect = dialect_of(connection)
    key_index = columns.index(key)
    tail = dialect.on_conflict((key,), ())
    returning = connection.info["returning"]
    if returning:
        tail += f" RETURNING {key}, id, {expression}"
    ids: dict[str, int] = {}
    values: set[Any] = set()
    for batch, cursor in _insert(connection, table, columns, rows, tail):
        if returning:
            returned = cursor.fetchall()
            ids.update((row[0], row[1]) for row in returned)
            values.update(row[2] for row in returned)
        elif len(batch) == 1 and _is_inserted(connection, cursor):
            ids[batch[0][key_index]] = cursor.lastrowid
    unknown = [(row[key_index],) for row in rows if row[key_index] not in ids]
    for keys in batches(connection, unknown):
        placeholders = ", ".join([dialect.placeholder] * len(keys))
        stored = connection.exec_driver_sql(
            f"SELECT {key}, id FROM {table} WHERE {key} IN ({placeholders})", flat(keys)
        )
        ids.update(tuple(row) for row in stored)
    return ids, values


def _insert(
    connection: SqlConnection,
    table: str,
    columns: Sequence[str],
    rows: Sequence[Row],
    tail: str,
) -> Iterator[tuple[Sequence[Row], Any]]:
    """Insert rows; yield those of each statement with the driver's cursor."""
    start = f"INSERT INTO {table} ({', '.join(columns)})"
    done = 0
    for source in dialect_of(connection).sources(columns, rows, MAX_ROWS, connection.info):
        statement = f"{start} {source.sql} {tail}"
        yield (
            rows[done : done + source.rows],
            execute(connection, statement, source.parameters, start),
        )
        done += source.rows


def execute(
    connection: SqlConnection, statement: str, parameters: Sequence[Any], start: str
) -> Any:
    """Execute a statement and return the driver's cursor; SQLAlchemy's would take twice as long.

    Errors contain `start` in place of the statement, which may hold reports.
    """
    driver: Any = connection.connection
    cursor = driver.cursor()
    base: Any = connection.dialect.dbapi
    try:
        # Without the argument, the driver leaves percent signs of the statement as they are.
        cursor.execute(statement, *([parameters] if parameters else []))
    except base.Error as error:
        size = dialect_of(connection).statement_bytes(statement, parameters)
        limit = connection.info.get("packet_bytes", size)
        if size > limit:  # the server closes the connection, perhaps without a reason
            connection.invalidate(error)
            raise StatementTooLarge(
                f"{size} bytes are more than max_allowed_packet ({limit})"
            ) from error
        lost = connection.dialect.is_disconnect(error, driver, cursor)
        lost = lost or dialect_of(connection).is_stale(error)
        if lost:
            connection.invalidate(error)
            connection.engine.dispose()  # the pool's other connections are probably lost, too
        raise DBAPIError.instance(
            start,
            None,  # the parameters hold reports
            error,
            base.Error,
            connection_invalidated=lost,
            dialect=connection.dialect,
        ) from error
    return cursor


def _is_inserted(connection: SqlConnection, cursor: Any) -> bool:
    return bool(connection.info.get("counts_inserted", True)) and cursor.rowcount == 1


def batches(
    connection: SqlConnection, rows: Iterable[Row], most: int = MAX_ROWS
) -> Iterator[list[Row]]:
    """Cut rows into what fits in one statement, at most so many; a single row is never cut."""
    return cut(rows, most, connection.info["statement_characters"], count_characters)
