"""The only place that knows which database it is.

SQL suits MySQL 8, MariaDB 10.6, PostgreSQL 12 and SQLite 3.25 and later; statements are sent with
positional parameters through the driver, since hundreds of rows go into one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.exc import DBAPIError

from developer_telemetry.errors import StatementTooLarge

MEBIBYTE = 1 << 20


# ASCII's separator, which is put between values.
SEPARATOR = "\x1f"


class Dialect:
    """The differences between databases; this base class is standard SQL."""

    name = ""
    placeholder = "%s"
    earliest = "LEAST"
    latest = "GREATEST"
    # How long a text is, at best without reading it: in bytes, on SQLite in characters.
    octets = "OCTET_LENGTH"
    # A join whose left side is read first, where the planner can be told.
    join_in_order = "JOIN"
    # Whether an INSERT can tell of its rows.
    returning = False
    # The database's clock in epoch seconds, with a fraction; "" where it is this machine's.
    clock = ""
    # Whether this session may only read, as one does that stayed with a former primary.
    reads_only = ""
    # Settings of the server, each with how to ask for it, what it must not be, and the remedy.
    risks: Sequence[tuple[str, str, Sequence[str], str]] = ()
    # A query, true where the server refuses whatever we write, and the reason with its remedy.
    refusal: Sequence[str] = ()
    # How long a driver waits for a server that went silent, unless the URL says otherwise.
    patience: Mapping[str, int] = {}
    # The same where no statement takes long.
    short_patience: Mapping[str, int] = {}
    # The end of a query that leaves out rows which another transaction holds; "" where it is one
    # lock for all of them.
    skipping_locked = " FOR UPDATE SKIP LOCKED"
    # Statements that each new session starts with: strict, in UTC, never waiting for long, and
    # with everything else that we rely on, whatever server, database or user are set to.
    session: Sequence[str] = ()
    # Statements after which a session waits for a lock no longer than a sender should.
    brief_waits: Sequence[str] = ()
    # Statements after which a session leaves no byte of what it deletes in the database's pages.
    thorough: Sequence[str] = ()
    # What `try_lock` takes a lock for: the "session", or the "transaction".
    locks_last = "session"
    # The statement, outside of a transaction, that leaves none of what was ever deleted.
    compacting = ""

    def is_conflict(self, error: DBAPIError) -> bool:
        """Return true if a repeated transaction may succeed: after a deadlock or a lock timeout."""
        raise NotImplementedError

    def is_lock_timeout(self, error: DBAPIError) -> bool:
        """Return true for a conflict that took long: a lock that another transaction holds."""
        raise NotImplementedError

    def is_content(self, error: Exception) -> bool:
        """Return true if database or driver blame the values of the statement that failed.

        Nothing else is: neither what another transaction did nor what the server lacks.
        """
        if isinstance(error, (UnicodeEncodeError, OverflowError, StatementTooLarge)):
            return True
        return (
            isinstance(error, DBAPIError)
            and not error.connection_invalidated
            and self.blames_values(error.orig)
        )

    def blames_values(self, error: Any) -> bool:
        """Return true if this error of the driver is about a value that can't be stored."""
        raise NotImplementedError

    def is_stale(self, error: Any) -> bool:
        """Return true if a new session may not have this error of the driver.

        A session keeps rights, roles, settings and its database as they were when it began; a new
        one has them as they are now. A server that takes no writes has a successor after a
        failover, which only a new session may lead to.
        """
        return False

    def is_denied(self, error: Any) -> bool:
        """Return true if the user lacks a right, by this error of the driver."""
        return False

    def new(self, column: str) -> str:
        """Return the value that an upsert brings for `column`."""
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

    def text_of(self, columns: Sequence[str], prefix: str = "") -> str:
        """Return SQL for what `text` returns for the same values; NULL if one of them is."""
        return f" || '{SEPARATOR}' || ".join(prefix + column for column in columns)

    def text(self, values: Sequence[Any]) -> str:
        """Return a row's values as one text, to tell whether a stored row has the same."""
        return SEPARATOR.join(map(str, values))

    def source(self, columns: Sequence[str], count: int) -> str:
        """Return the source of `count` rows for an INSERT: `VALUES ...`, or something faster."""
        return f"VALUES {self.rows(len(columns), count)}"

    def parameters(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
        """Return the parameters for `source`."""
        return flat(rows)

    def source_with_parameters(
        self, columns: Sequence[str], rows: Sequence[Sequence[Any]], info: Mapping[str, Any]
    ) -> tuple[str, tuple[Any, ...]]:
        """Return `source` and `parameters` of rows, or the same in fewer parameters.

        `info` is the session's, as `connected` and `start_session` have filled it.
        """
        return self.source(columns, len(rows)), self.parameters(columns, rows)

    def rows(self, width: int, count: int) -> str:
        """`count` parenthesised rows of `width` placeholders."""
        row = f"({', '.join([self.placeholder] * width)})"
        return ", ".join([row] * count)

    def connecting(self, dialect: Any, record: Any, args: Any, options: dict[str, Any]) -> None:
        """Prepare `options` for a new connection."""
        for name, value in self.patience.items():
            options.setdefault(name, value)

    def connecting_briefly(
        self, dialect: Any, record: Any, args: Any, options: dict[str, Any]
    ) -> None:
        """Prepare more options, after `connecting`, where no statement takes long."""
        for name, value in self.short_patience.items():
            if options[name] == self.patience[name]:  # and not the URL's own value
                options[name] = value

    def connected(self, connection: Any, record: Any) -> None:
        """Set up a new connection of the driver; SQLAlchemy passes its pool's record, too."""
        with closing(connection.cursor()) as cursor:
            self.start_session(cursor, record.info)
        connection.commit()

    def wait_briefly(self, connection: Any, record: Any) -> None:
        """Set up more, after `connected`, where a sender waits for what is stored."""
        with closing(connection.cursor()) as cursor:
            for statement in self.brief_waits:
                cursor.execute(statement)
        connection.commit()

    def statement_bytes(self, statement: str, parameters: Sequence[Any]) -> int:
        """Return the size of a statement as it is sent, where the session's packets have a
        limit."""
        return 0

    def limit(self, cursor: Any, info: dict[str, Any], seconds: int) -> None:
        """Let each statement of a new session end after so many seconds; called after `connected`.

        Not on SQLite, a local file, whose readers keep nobody waiting for a row.
        """

    def begin(self, connection: SqlConnection) -> None:
        """Set up a transaction that begins; SQLAlchemy calls this."""

    def await_writers(self, table: str) -> Sequence[str]:
        """Statements for a transaction that ends after all those which write to a table by now.

        They wait for a few seconds at most and then fail with a conflict.
        """
        return ()

    def ago(self, seconds: int) -> str:
        """Return the time by the database's clock so many seconds before now."""
        raise NotImplementedError

    def try_lock(self, name: str) -> str:
        """Return the query that takes a lock of this database's, true if it was free.

        "" where the database has no such locks. `locks_last` is the time for which it is held.
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
        """Return a table to join: the items of the JSON list of texts in `column`, each a
        `value`."""
        return f"json_each({column})"

    def expected_rows(
        self, connection: SqlConnection, query: str, parameters: Sequence[Any]
    ) -> Optional[int]:
        """Return the planner's guess of a query's rows; None where plans don't depend on it."""
        return None

    def start_session(self, cursor: Any, info: dict[str, Any]) -> None:
        """Set up a new session; leave in `info` what later statements need to know."""
        for statement in self.session:
            cursor.execute(statement)
        info["statement_characters"] = 4 * MEBIBYTE
        info["returning"] = self.returning


def set_clause(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{column} = {value}" for column, value in pairs)


def flat(rows: Iterable[Sequence[Any]]) -> tuple[Any, ...]:
    """Return the parameters of a statement of many rows."""
    return tuple(value for row in rows for value in row)
