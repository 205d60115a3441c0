"""The differences between databases; no other room depends on the kind of database.

SQL suits MySQL 8, MariaDB 10.6, PostgreSQL 12 and SQLite 3.25 and later. Statements have positional
parameters for the driver, since one of them may insert hundreds of rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple, Optional, TypeVar

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.exc import DBAPIError

from developer_telemetry.errors import StatementTooLarge

Item = TypeVar("Item")

MEBIBYTE = 1 << 20

# The digits of a BIGINT.
NUMBER_LENGTH = 19

# ASCII's separator, which is put between values.
SEPARATOR = "\x1f"


class Source(NamedTuple):
    """The source of an INSERT, such as `VALUES ...`, with its parameters and number of rows."""

    sql: str
    parameters: tuple[Any, ...]
    rows: int


class Dialect:
    """The differences between databases; this base class is standard SQL."""

    name = ""
    placeholder = "%s"
    earliest = "LEAST"
    latest = "GREATEST"
    # The length of a text, if possible without reading it: in bytes, on SQLite in characters.
    octets = "OCTET_LENGTH"
    # A join whose left side is read first, where SQL can demand it.
    join_in_order = "JOIN"
    # True if an INSERT has a RETURNING clause.
    returning = False
    # The database's clock in epoch seconds, with a fraction; "" where it is this machine's.
    clock = ""
    # A query, true if the session may only read, as on a former primary.
    reads_only = ""
    # Settings of the server, each with a query for its value, bad values, and the remedy.
    risks: Sequence[tuple[str, str, Sequence[str], str]] = ()
    # A query, true where the server refuses all writes of ours, and the reason with its remedy.
    refusal: Sequence[str] = ()
    # A driver's timeouts for a silent server, unless the URL has its own.
    timeouts: Mapping[str, int] = {}
    # The same where no statement takes long.
    short_timeouts: Mapping[str, int] = {}
    # The end of a query that omits rows locked by another transaction; "" where one lock covers
    # all rows.
    skipping_locked = " FOR UPDATE SKIP LOCKED"
    # The end of a query whose rows no other transaction deletes until this one ends; several may
    # have the same rows. "" where one lock covers all rows.
    preventing_deletion = ""
    # Statements that start each session: strict, in UTC, with short waits and all other settings
    # that we need, independent of the settings of server, database and user.
    session: Sequence[str] = ()
    # Statements after which a session waits for a lock no longer than a sender should.
    short_lock_waits: Sequence[str] = ()
    # Statements after which a session overwrites all bytes that it deletes.
    overwriting: Sequence[str] = ()
    # The scope of a lock of `try_lock`: the "session", or the "transaction".
    lock_scope = "session"
    # The statement, outside of a transaction, that overwrites everything deleted before.
    compacting = ""

    def is_conflict(self, error: DBAPIError) -> bool:
        """Return true if a repeated transaction may succeed: after a deadlock or a lock timeout."""
        raise NotImplementedError

    def is_lock_timeout(self, error: DBAPIError) -> bool:
        """Return true for a conflict that took long: a lock that another transaction holds."""
        raise NotImplementedError

    def is_caused_by_values(self, error: Exception) -> bool:
        """Return true if database or driver refuse the values of the statement that failed.

        Other causes are another transaction, or something that the server lacks.
        """
        if isinstance(error, (UnicodeEncodeError, OverflowError, StatementTooLarge)):
            return True
        return (
            isinstance(error, DBAPIError)
            and not error.connection_invalidated
            and self.is_value_error(error.orig)
        )

    def is_value_error(self, error: Any) -> bool:
        """Return true if this error of the driver is about a value that can't be stored."""
        raise NotImplementedError

    def is_stale(self, error: Any) -> bool:
        """Return true if a new session may not have this error of the driver.

        A session keeps the rights, roles, settings and database of its start. After a failover
        only a new session connects to the server that takes writes.
        """
        return False

    def is_denied(self, error: Any) -> bool:
        """Return true if the user lacks a right, by this error of the driver."""
        return False

    def new(self, column: str) -> str:
        """Return the SQL of the new value of `column` in an upsert."""
        return f"excluded.{column}"

    def on_conflict(self, keys: Sequence[str], assignments: Sequence[tuple[str, str]]) -> str:
        """Return the tail of an upsert; without assignments an existing row stays as it is."""
        target = f"ON CONFLICT ({', '.join(keys)}) DO "
        if not assignments:
            return target + "NOTHING"
        return target + "UPDATE SET " + set_clause(assignments)

    def in_rows(self, columns: Sequence[str], count: int) -> str:
        """Return `(a, b) IN (...)` for `count` rows of parameters."""
        return f"({', '.join(columns)}) IN ({self.rows(len(columns), count)})"

    def in_condition(self, columns: Sequence[str], count: int) -> str:
        """Return the same condition for `parameters`, in the fastest form."""
        return self.in_rows(columns, count)

    def keys_condition(self, table: str, columns: Sequence[str], count: int) -> str:
        """Return the same condition for a table whose index begins with the columns."""
        return self.in_condition(columns, count)

    def text_of(self, columns: Sequence[str], prefix: str = "") -> str:
        """Return SQL that gives the same text as `text`; NULL if one of the values is NULL."""
        return f" || '{SEPARATOR}' || ".join(prefix + column for column in columns)

    def text(self, values: Sequence[Any]) -> str:
        """Return a row's values as one text, to compare them with a stored row."""
        return SEPARATOR.join(map(str, values))

    def source(self, columns: Sequence[str], count: int) -> str:
        """Return the source of `count` rows for an INSERT: `VALUES ...`, or something faster."""
        return f"VALUES {self.rows(len(columns), count)}"

    def parameters(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
        """Return the parameters for `source`."""
        return flat(rows)

    def sources(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        most: int,
        info: Mapping[str, Any],
    ) -> Iterator[Source]:
        """Yield the sources of as many INSERTs as rows need, of at most `most` rows each.

        `info` is the session's, as `connected` and `start_session` have filled it.
        """
        for batch in cut(rows, most, info["statement_characters"], count_characters):
            yield self.source_with_parameters(columns, batch)

    def source_with_parameters(
        self, columns: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> Source:
        """Return `source` and `parameters` of rows, or the same in fewer parameters."""
        return Source(self.source(columns, len(rows)), self.parameters(columns, rows), len(rows))

    def typed_source(
        self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> Source:
        """Return the same for values of any of the table's columns, such as lists for JSON."""
        texts = [
            [json.dumps(value) if isinstance(value, (dict, list)) else value for value in row]
            for row in rows
        ]
        return self.source_with_parameters(columns, texts)

    def continue_ids(self, table: str) -> str:
        """Return the query by which the table's next id follows its last one.

        It is "" where inserted ids count by themselves.
        """
        return ""

    def rows(self, width: int, count: int) -> str:
        """Return `count` parenthesised rows of `width` placeholders."""
        row = f"({', '.join([self.placeholder] * width)})"
        return ", ".join([row] * count)

    def connecting(self, dialect: Any, record: Any, args: Any, options: dict[str, Any]) -> None:
        """Prepare `options` for a new connection."""
        for name, value in self.timeouts.items():
            options.setdefault(name, value)

    def shorten_timeouts(
        self, dialect: Any, record: Any, args: Any, options: dict[str, Any]
    ) -> None:
        """Prepare more options, after `connecting`, where no statement takes long."""
        for name, value in self.short_timeouts.items():
            if options[name] == self.timeouts[name]:  # and not the URL's own value
                options[name] = value

    def connected(self, connection: Any, record: Any) -> None:
        """Set up a new connection of the driver; SQLAlchemy passes its pool's record, too."""
        with closing(connection.cursor()) as cursor:
            self.start_session(cursor, record.info)
        connection.commit()

    def shorten_lock_waits(self, connection: Any, record: Any) -> None:
        """Shorten the waits for locks, after `connected`, for a session that a sender waits for."""
        with closing(connection.cursor()) as cursor:
            for statement in self.short_lock_waits:
                cursor.execute(statement)
        connection.commit()

    def statement_bytes(self, statement: str, parameters: Sequence[Any]) -> int:
        """Return the size of a statement as sent; 0 where packets have no limit."""
        return 0

    def limit(self, cursor: Any, info: dict[str, Any], seconds: int) -> None:
        """Let each statement of a new session end after so many seconds; called after `connected`.

        It does nothing on SQLite, a local file.
        """

    def begin(self, connection: SqlConnection) -> None:
        """Set up a transaction that begins; SQLAlchemy calls this."""

    def begin_snapshot(self, connection: SqlConnection) -> None:
        """Begin a transaction that reads the rows of this moment, on a detached connection."""

    def await_writers(self, table: str) -> Sequence[str]:
        """Return the statements of a transaction that ends after all present writers of a table.

        They wait for a few seconds at most and then fail with a conflict.
        """
        return ()

    def ago(self, seconds: int) -> str:
        """Return the time by the database's clock so many seconds before now."""
        raise NotImplementedError

    def try_lock(self, name: str) -> str:
        """Return the query that takes a lock of this database, true if it was free.

        It is "" where the database has no such locks. The lock is held for `lock_scope`.
        """
        return ""

    def without_end_dots(self, text: str) -> str:
        """Return an expression without the dots at its end."""
        return f"RTRIM({text}, '.')"

    def end_of(self, text: str, count: int) -> str:
        """Return the last characters of an expression."""
        return f"RIGHT({text}, {count})"

    def without_end(self, text: str, count: int) -> str:
        """Return an expression without its last characters."""
        return f"LEFT({text}, CHAR_LENGTH({text}) - {count})"

    def items(self, column: str) -> str:
        """Return a table to join: each text of the JSON list in `column` as a `value`."""
        return f"json_each({column})"

    def expected_rows(
        self, connection: SqlConnection, query: str, parameters: Sequence[Any]
    ) -> Optional[int]:
        """Return the planner's estimate of a query's rows; None where plans don't depend on it."""
        return None

    def start_session(self, cursor: Any, info: dict[str, Any]) -> None:
        """Set up a new session; record in `info` the properties that later statements need."""
        for statement in self.session:
            cursor.execute(statement)
        info["statement_characters"] = 4 * MEBIBYTE
        info["returning"] = self.returning


def set_clause(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{column} = {value}" for column, value in pairs)


def flat(rows: Iterable[Sequence[Any]]) -> tuple[Any, ...]:
    """Return the parameters of a statement of many rows."""
    return tuple(value for row in rows for value in row)


def count_characters(row: Sequence[Any]) -> int:
    """Return the characters of a row's values, with those of the longest numbers."""
    texts = [value for value in row if isinstance(value, str)]
    return sum(map(len, texts)) + NUMBER_LENGTH * (len(row) - len(texts))


def cut(
    items: Iterable[Item], most: int, limit: int, size: Callable[[Item], int]
) -> Iterator[list[Item]]:
    """Cut items into lists of at most `most` items and a total size of `limit`.

    A single item is never cut. Items are taken as they are needed.
    """
    batch: list[Item] = []
    total = 0
    for item in items:
        own = size(item)
        if batch and (len(batch) == most or total + own > limit):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += own
    if batch:
        yield batch
