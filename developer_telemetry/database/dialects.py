"""The only place that knows which database it is.

SQL suits MySQL 8, MariaDB 10.6, PostgreSQL 12 and SQLite 3.25 and later; statements are sent with
positional parameters through the driver, since hundreds of rows go into one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Optional, Union

import msgspec
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from developer_telemetry.errors import StatementTooLarge
from developer_telemetry.private_files import make_file, make_private

Database = Union[Engine, Connection]

MEBIBYTE = 1 << 20
# Stands between values, as its name in ASCII says.
SEPARATOR = "\x1f"


class Dialect:
    """What differs from one database to the next; this base is the standard's side of it."""

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
        """Whether repeating the whole transaction may succeed: a deadlock, a lock not given."""
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
        """Return true if this error of the driver stands for a value that can't be stored."""
        raise NotImplementedError

    def is_stale(self, error: Any) -> bool:
        """Whether this error of the driver's may be one of this session's alone.

        A session keeps rights, roles, settings and its database as they were when it began; a new
        one has them as they are now. A server that takes no writes has a successor after a
        failover, which only a new session may lead to.
        """
        return False

    def is_denied(self, error: Any) -> bool:
        """Whether by this error of the driver's the user lacks a right."""
        return False

    def new(self, column: str) -> str:
        """The value that an upsert brings for `column`."""
        return f"excluded.{column}"

    def on_conflict(self, keys: Sequence[str], assignments: Sequence[tuple[str, str]]) -> str:
        """The tail of an upsert; without assignments an existing row stays as it is."""
        target = f"ON CONFLICT ({', '.join(keys)}) DO "
        if not assignments:
            return target + "NOTHING"
        return target + "UPDATE SET " + _assignments(assignments)

    def in_rows(self, columns: Sequence[str], count: int) -> str:
        """`(a, b) IN (...)` for `count` rows of parameters."""
        return f"({', '.join(columns)}) IN ({self.rows(len(columns), count)})"

    def among(self, columns: Sequence[str], count: int) -> str:
        """The same for `parameters`, which a database may take faster."""
        return self.in_rows(columns, count)

    def text_of(self, columns: Sequence[str], prefix: str = "") -> str:
        """What `text` gives for the same values; NULL where one of them is."""
        return f" || '{SEPARATOR}' || ".join(prefix + column for column in columns)

    def text(self, values: Sequence[Any]) -> str:
        """A row's values as one text, to tell whether a stored row has the same."""
        return SEPARATOR.join(map(str, values))

    def source(self, columns: Sequence[str], count: int) -> str:
        """Where an INSERT takes `count` rows from: `VALUES ...`, or something faster."""
        return f"VALUES {self.rows(len(columns), count)}"

    def parameters(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
        """The parameters for `source`."""
        return flat(rows)

    def written(
        self, columns: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> tuple[str, tuple[Any, ...]]:
        """`source` and `parameters` of rows, or the same in fewer parameters."""
        return self.source(columns, len(rows)), self.parameters(columns, rows)

    def rows(self, width: int, count: int) -> str:
        """`count` parenthesised rows of `width` placeholders."""
        row = f"({', '.join([self.placeholder] * width)})"
        return ", ".join([row] * count)

    def connecting(self, dialect: Any, record: Any, args: Any, options: dict[str, Any]) -> None:
        """A new connection is about to be made with `options`."""
        for name, value in self.patience.items():
            options.setdefault(name, value)

    def hurry(self, dialect: Any, record: Any, args: Any, options: dict[str, Any]) -> None:
        """Called after `connecting` where no statement takes long."""
        for name, value in self.short_patience.items():
            if options[name] == self.patience[name]:  # and not what the URL says
                options[name] = value

    def connected(self, connection: Any, record: Any) -> None:
        """Called by SQLAlchemy with each new connection of the driver and its pool's record."""
        with closing(connection.cursor()) as cursor:
            self.start_session(cursor, record.info)
        connection.commit()

    def wait_briefly(self, connection: Any, record: Any) -> None:
        """Called after `connected` where a sender waits for what is stored."""
        with closing(connection.cursor()) as cursor:
            for statement in self.brief_waits:
                cursor.execute(statement)
        connection.commit()

    def statement_bytes(self, statement: str, parameters: Sequence[Any]) -> int:
        """The size of a statement as it is sent, where the session's packets have a limit."""
        return 0

    def limit(self, cursor: Any, info: dict[str, Any], seconds: int) -> None:
        """Let each statement of a new session end after so many seconds; called after `connected`.

        Not on SQLite, a local file, whose readers keep nobody waiting for a row.
        """

    def begin(self, connection: Connection) -> None:
        """Called by SQLAlchemy as a transaction begins."""

    def await_writers(self, table: str) -> Sequence[str]:
        """Statements for a transaction that ends after all those which write to a table by now.

        They wait for a few seconds at most and then fail with a conflict.
        """
        return ()

    def ago(self, seconds: int) -> str:
        """The time by the database's clock so many seconds before now."""
        raise NotImplementedError

    def try_lock(self, name: str) -> str:
        """The query that takes a lock of this database's, true if it was free.

        "" where the database has no such locks. `locks_last` says for how long it is taken.
        """
        return ""

    def without_end_dots(self, text: str) -> str:
        """An expression without the dots at its end."""
        return f"RTRIM({text}, '.')"

    def end_of(self, text: str, count: int) -> str:
        """The last characters of an expression."""
        return f"RIGHT({text}, {count})"

    def without_end(self, text: str, count: int) -> str:
        """An expression without its last characters."""
        return f"LEFT({text}, CHAR_LENGTH({text}) - {count})"

    def items(self, column: str) -> str:
        """A table to join: the items of the JSON list of texts in `column`, each a `value`."""
        return f"json_each({column})"

    def expected_rows(
        self, connection: Connection, query: str, parameters: Sequence[Any]
    ) -> Optional[int]:
        """How many rows the planner expects of a query; None where plans don't hang on that."""
        return None

    def start_session(self, cursor: Any, info: dict[str, Any]) -> None:
        """Set up a new session; leave in `info` what later statements need to know."""
        for statement in self.session:
            cursor.execute(statement)
        info["statement_characters"] = 4 * MEBIBYTE
        info["returning"] = self.returning


class MySQL(Dialect):
    """MySQL and MariaDB."""

    name = "mysql"
    session = (
        # The mode first, since by it the rest is read. The comments are for one of the two alone.
        "SET SESSION sql_mode = 'ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,"
        "NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION',"
        " SESSION time_zone = '+00:00', SESSION autocommit = 0, SESSION completion_type = 0,"
        " SESSION sql_safe_updates = 0, SESSION sql_select_limit = 18446744073709551615,"
        " SESSION sql_big_selects = 1, SESSION sql_auto_is_null = 0, SESSION unique_checks = 1,"
        " SESSION sql_quote_show_create = 1, SESSION group_concat_max_len = 1048576,"
        " SESSION max_sort_length = 1024, SESSION default_storage_engine = InnoDB,"
        " SESSION lock_wait_timeout = 60, SESSION innodb_lock_wait_timeout = 10,"
        " SESSION wait_timeout = 28800"
        " /*!80000 , SESSION max_execution_time = 0 */"
        " /*M! , SESSION max_statement_time = 0, SESSION idle_transaction_timeout = 0,"
        " SESSION idle_write_transaction_timeout = 0,"
        " SESSION idle_readonly_transaction_timeout = 0 */",
        # Two literals are compared by the session's collation: MariaDB reads BETWEEN 'a' AND 'A'
        # as = 'a' where that one ignores case.
        "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE",
    )
    brief_waits = (
        "SET SESSION innodb_lock_wait_timeout = 1",
        "SET SESSION lock_wait_timeout = 2",
    )
    # By itself MariaDB reads the whole of a table that has grown since it was last measured.
    join_in_order = "STRAIGHT_JOIN"
    clock = "UNIX_TIMESTAMP(NOW(6))"
    reads_only = "SELECT CAST(@@read_only AS CHAR) NOT IN ('0', 'OFF') OR @@innodb_read_only"
    risks = (
        (
            "innodb_flush_log_at_trx_commit",
            "SELECT @@innodb_flush_log_at_trx_commit",
            ("0", "2"),
            "set it to 1",
        ),
        # With AFTER_COMMIT others see what the replica may not have yet: a report that is brought
        # in again changes nothing then, so its commit waits for nobody. MySQL reads a comment
        # here; there AFTER_SYNC is the default, and MariaDB's is the other one.
        (
            "rpl_semi_sync_master_wait_point",
            "SELECT /*M! IF(@@rpl_semi_sync_master_enabled, @@rpl_semi_sync_master_wait_point, */"
            " '' /*M! ) */",
            ("AFTER_COMMIT",),
            "set it to AFTER_SYNC",
        ),
    )
    refusal = (
        # Not by @@binlog_format, which a version to come may no longer have.
        "SHOW SESSION VARIABLES WHERE Variable_name = 'binlog_format' AND Value = 'STATEMENT'"
        " AND @@log_bin",
        "the database refuses all reports: with binlog_format STATEMENT it logs no transaction of"
        " READ COMMITTED; set binlog_format to ROW or MIXED",
    )
    patience = {"connect_timeout": 5, "read_timeout": 300, "write_timeout": 300}
    short_patience = {"read_timeout": 30, "write_timeout": 30}
    # Lock wait timeout, deadlock, and MariaDB's "record has changed since last read".
    conflicts = frozenset((1205, 1213, 1020))
    lock_timeout = 1205
    # Of a value: NULL, out of range, truncated, not of this type or character set, too long, not
    # JSON, against a CHECK; of a row: larger than a packet, a page, the undo log takes.
    value_errors = frozenset(
        (
            *(1048, 1118, 1153, 1264, 1265, 1292, 1300, 1366, 1367, 1406, 1411, 1441, 1690, 1713),
            *(1977, 3140, 3819, 3854, 3988, 4025),
        )
    )
    # Read-only by an option, by its mode, and as a replica that is being made the primary.
    read_only = frozenset((1290, 1836, 1792))
    # Access denied: to a database, a table, a column, an operation, a routine.
    denied = frozenset((1044, 1142, 1143, 1227, 1370))
    # The same, and no database.
    stale = denied | {1046, 1049}
    # The client's flag for counting rows found in place of rows changed.
    found_rows = 2

    def connecting(self, dialect: Any, record: Any, args: Any, options: dict[str, Any]) -> None:
        super().connecting(dialect, record, args, options)
        # Rows that an upsert leaves as they are count as changed for whoever asked for "found".
        record.info["counts_inserted"] = not options.get("client_flag", 0) & self.found_rows

    def is_conflict(self, error: DBAPIError) -> bool:
        return _code(error.orig) in self.conflicts

    def is_lock_timeout(self, error: DBAPIError) -> bool:
        return bool(_code(error.orig) == self.lock_timeout)

    def blames_values(self, error: Any) -> bool:
        return _code(error) in self.value_errors

    def statement_bytes(self, statement: str, parameters: Sequence[Any]) -> int:
        texts = [_escaped(each) if isinstance(each, str) else str(each) for each in parameters]
        return len(statement) + sum(len(each.encode()) for each in texts)

    def is_stale(self, error: Any) -> bool:
        # The first of them also stands for other options that forbid something.
        read_only = _code(error) in self.read_only and "read" in str(error).lower()
        return read_only or _code(error) in self.stale

    def is_denied(self, error: Any) -> bool:
        return _code(error) in self.denied

    def new(self, column: str) -> str:
        # The alias that MySQL 8 prefers is unknown to MariaDB.
        return f"VALUES({column})"

    def await_writers(self, table: str) -> Sequence[str]:
        # Readers go on. Who wants to write meanwhile waits, so it must not take long.
        return (
            "SET SESSION lock_wait_timeout = 3",
            "SET SESSION innodb_lock_wait_timeout = 3",
            f"LOCK TABLES {table} READ",
            "UNLOCK TABLES",
        )

    def ago(self, seconds: int) -> str:
        return f"NOW(3) - INTERVAL {seconds} SECOND"

    def try_lock(self, name: str) -> str:
        return f"SELECT GET_LOCK({self.lock_name(name)}, 0)"

    @staticmethod
    def lock_name(name: str) -> str:
        """What a lock of this database's is called in the whole server."""
        # In 64 characters at most. MySQL 9.6 and later have no MD5.
        return f"CONCAT('{name} ', LEFT(SHA2(DATABASE(), 256), 16))"

    def without_end_dots(self, text: str) -> str:
        return f"TRIM(TRAILING '.' FROM {text})"

    def items(self, column: str) -> str:
        # Rows that others left here may hold anything.
        valid = f"CASE WHEN JSON_VALID({column}) THEN {column} ELSE '[]' END"
        return f"JSON_TABLE({valid}, '$[*]' COLUMNS (value VARCHAR(255) PATH '$'))"

    def text_of(self, columns: Sequence[str], prefix: str = "") -> str:
        values = f", '{SEPARATOR}', ".join(prefix + column for column in columns)
        return f"CONCAT({values})"

    def on_conflict(self, keys: Sequence[str], assignments: Sequence[tuple[str, str]]) -> str:
        # INSERT IGNORE would turn errors into warnings; setting a key to itself changes nothing.
        unchanged = [(keys[0], keys[0])]
        return "ON DUPLICATE KEY UPDATE " + _assignments(assignments or unchanged)

    def connected(self, connection: Any, record: Any) -> None:
        if type(connection).__module__.startswith("pymysql") and "utf8" in connection.charset:
            # Its own takes thirty times as long, for marks that mean nothing between apostrophes.
            connection.escape_string = connection._escape_string = _escaped
        super().connected(connection, record)

    def written(
        self, columns: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> tuple[str, tuple[Any, ...]]:
        # Its drivers write parameters into the statement, for numbers at many times their cost.
        values = [[str(each) if type(each) is int else "%s" for each in row] for row in rows]
        written = ", ".join([f"({', '.join(row)})" for row in values])
        parameters = [each for row in rows for each in row if type(each) is not int]
        return f"VALUES {written}", tuple(parameters)

    def start_session(self, cursor: Any, info: dict[str, Any]) -> None:
        super().start_session(cursor, info)
        cursor.execute("SELECT @@max_allowed_packet, @@version")
        packet, version = cursor.fetchone()
        info["packet_bytes"] = int(packet)
        # A quarter of it in characters of four bytes, less what stands between the values.
        info["statement_characters"] = int(packet) // 20
        info["returning"] = "MariaDB" in version

    def limit(self, cursor: Any, info: dict[str, Any], seconds: int) -> None:
        is_mariadb = info["returning"]
        name = "max_statement_time" if is_mariadb else "max_execution_time"
        cursor.execute(f"SET SESSION {name} = {seconds if is_mariadb else seconds * 1000}")


def _code(error: Any) -> Any:
    arguments: Sequence[Any] = getattr(error, "args", ())
    return arguments[0] if arguments else None


def _escaped(text: str) -> str:
    """A text as it stands between apostrophes, in the SQL mode that our sessions set."""
    return text.replace("\\", "\\\\").replace("'", "\\'")


# The types of the columns that bulk inserts write, where it is not text.
_TYPES = {
    **dict.fromkeys(("date", "day"), "date"),
    **dict.fromkeys(("created_at", "updated_at", "stored_at"), "timestamptz"),
    **dict.fromkeys(("first_seen", "last_seen"), "timestamptz"),
    **dict.fromkeys(
        ("connection_id", "_raw_data_id", "raw_id", "arrived_us", "active_hours"), "bigint"
    ),
    **dict.fromkeys(("commits", "lines_added", "lines_deleted", "files_changed"), "bigint"),
    **dict.fromkeys(("test_runs", "builds", "reports", "count"), "bigint"),
    **dict.fromkeys(("created_date", "started_date", "finished_date"), "timestamptz"),
    "duration_sec": "double precision",
}


class PostgreSQL(Dialect):
    """PostgreSQL."""

    name = "postgres"
    returning = True
    # What a session is set to; `session` would be the same as statements.
    settings: Mapping[str, str] = {
        "timezone": "UTC",
        "client_encoding": "UTF8",
        "datestyle": "ISO, YMD",
        "intervalstyle": "postgres",
        "bytea_output": "hex",
        "extra_float_digits": "1",
        "standard_conforming_strings": "on",
        "transform_null_equals": "off",
        "exit_on_error": "off",
        "lock_timeout": "10s",
        # A COMMIT that runs out of time while it waits for a standby succeeds, with a warning.
        "statement_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
    }
    # Timeouts by the version that brought them, all of which have to be 0.
    newer_timeouts: Mapping[str, int] = {"idle_session_timeout": 14, "transaction_timeout": 17}
    # Of each transaction, and what a session makes the usual one.
    transaction = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, NOT DEFERRABLE"
    transactions: Mapping[str, str] = {
        "default_transaction_isolation": "read committed",
        "default_transaction_deferrable": "off",
    }
    # Whether sessions are read-only for our user or in our database alone. Where the whole server
    # says so it may be a former primary, kept from taking writes.
    read_only_for_us = (
        "SELECT CASE WHEN current_setting('default_transaction_read_only') = 'on' THEN"
        " (SELECT source IN ('database', 'user', 'database user') FROM pg_settings"
        " WHERE name = 'default_transaction_read_only') END"
    )
    clock = "EXTRACT(EPOCH FROM clock_timestamp())"
    reads_only = "SELECT current_setting('transaction_read_only') = 'on'"
    risks = (
        ("synchronous_commit", "SHOW synchronous_commit", ("off",), "set it to on"),
        ("fsync", "SHOW fsync", ("off",), "set it to on"),
        (
            "synchronous_commit beside synchronous_standby_names",
            "SELECT CASE current_setting('synchronous_standby_names') WHEN '' THEN ''"
            " ELSE current_setting('synchronous_commit') END",
            ("local",),
            "set it to on",
        ),
    )
    patience = {
        "connect_timeout": 5,
        "tcp_user_timeout": 30_000,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
    }
    brief_lock_timeout = "1s"
    # Serialization failure, deadlock, lock not available.
    conflicts = frozenset(("40001", "40P01", "55P03"))
    denied = "42501"
    # Read-only; insufficient privilege; by another search_path no such table, or no such schema.
    stale = frozenset(("25006", "42501", "42P01", "3F000"))

    def connecting(self, dialect: Any, record: Any, args: Any, options: dict[str, Any]) -> None:
        super().connecting(dialect, record, args, options)
        if dialect.driver == "psycopg":
            # What one session has prepared another behind a pooler doesn't know.
            options.setdefault("prepare_threshold", None)

    def start_session(self, cursor: Any, info: dict[str, Any]) -> None:
        super().start_session(cursor, info)
        settings = dict(self.settings)
        if type(cursor).__module__.startswith("psycopg2"):
            # It writes values into statements by what it saw of both when it connected: a
            # statement may not change the one, and the other it changes by itself alone.
            del settings["standard_conforming_strings"]
            cursor.connection.set_client_encoding(settings["client_encoding"])
        version = cursor.connection.info.server_version // 10_000
        settings.update({name: "0" for name, at in self.newer_timeouts.items() if version >= at})
        cursor.execute(self.read_only_for_us)
        [writing] = cursor.fetchone()
        # Of the URL; set by now unless there is a pooler.
        asked: Mapping[str, str] = info.pop("settings of the url", {})
        if _is_pooled(cursor, info):
            info["settings"] = {**asked, **settings}
            info["transaction"] = self.transaction + (", READ WRITE" if writing else "")
        else:
            if writing:
                settings["default_transaction_read_only"] = "off"
            cursor.execute(_set_config({**settings, **self.transactions}, local=False))

    def wait_briefly(self, connection: Any, record: Any) -> None:
        with closing(connection.cursor()) as cursor:
            _set(cursor, record.info, {"lock_timeout": self.brief_lock_timeout})
        connection.commit()

    def limit(self, cursor: Any, info: dict[str, Any], seconds: int) -> None:
        _set(cursor, info, {"statement_timeout": f"{seconds}s"})

    def begin(self, connection: Connection) -> None:
        settings = connection.info.get("settings")
        if settings:
            # A pooler may give each transaction another session, and that session to others next.
            statements = f"{connection.info['transaction']}; {_set_config(settings, local=True)}"
            connection.exec_driver_sql(statements, execution_options={"no_parameters": True})

    def source(self, columns: Sequence[str], count: int) -> str:
        # All rows in one parameter: the statement is the same for any count, so it is prepared
        # once, and nothing has to be escaped piece by piece.
        typed = ", ".join(f"{column} {_TYPES.get(column, 'text')}" for column in columns)
        return f"SELECT {', '.join(columns)} FROM json_to_recordset(%s::json) AS r({typed})"

    def parameters(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
        documents = [dict(zip(columns, row)) for row in rows]
        return (msgspec.json.encode(documents).decode(),)

    def among(self, columns: Sequence[str], count: int) -> str:
        # Hundreds of rows written out take longer to plan than to find.
        return f"({', '.join(columns)}) IN ({self.source(columns, count)})"

    def await_writers(self, table: str) -> Sequence[str]:
        return ("SET LOCAL lock_timeout = '3s'", f"LOCK TABLE {table} IN SHARE MODE")

    # Behind a pooler two transactions may be of two sessions, and a session's lock remain for ever.
    locks_last = "transaction"

    def ago(self, seconds: int) -> str:
        return f"clock_timestamp() - INTERVAL '{seconds} seconds'"

    def try_lock(self, name: str) -> str:
        return f"SELECT pg_try_advisory_xact_lock(hashtextextended('{name}', 0))"

    def items(self, column: str) -> str:
        return f"json_array_elements_text({column}::json)"

    def text_of(self, columns: Sequence[str], prefix: str = "") -> str:
        # A time by itself would be written with its zone and without zeros at its end.
        return f" || '{SEPARATOR}' || ".join(
            f"to_char({prefix}{column}, 'YYYY-MM-DD HH24:MI:SS.MS')"
            if _TYPES.get(column) == "timestamptz"
            else f"{prefix}{column}::text"
            for column in columns
        )

    def expected_rows(
        self, connection: Connection, query: str, parameters: Sequence[Any]
    ) -> Optional[int]:
        explained = f"EXPLAIN (FORMAT JSON) {query}"
        plan = connection.exec_driver_sql(explained, tuple(parameters)).scalar_one()
        rows: int = plan[0]["Plan"]["Plan Rows"]
        return rows

    def is_conflict(self, error: DBAPIError) -> bool:
        return _state(error.orig) in self.conflicts

    def is_lock_timeout(self, error: DBAPIError) -> bool:
        return bool(_state(error.orig) == "55P03")

    def blames_values(self, error: Any) -> bool:
        state = _state(error)
        if state is None:  # the driver's own, which does not send what it can't write
            return type(error).__name__ == "DataError"
        if state == "23514":  # also of a partition that is not there, which breaks no constraint
            return bool(error.diag.constraint_name)
        # Data exception, program limit exceeded, not null.
        return state[:2] in ("22", "54") or state == "23502"

    def is_stale(self, error: Any) -> bool:
        return _state(error) in self.stale

    def is_denied(self, error: Any) -> bool:
        return bool(_state(error) == self.denied)


def _is_pooled(cursor: Any, info: dict[str, Any]) -> bool:
    """Whether somebody between us and PostgreSQL answers in a session's place."""
    if "pooled" not in info:
        cursor.execute("SELECT pg_backend_pid()")
        [answers] = cursor.fetchone()
        info["pooled"] = answers != cursor.connection.info.backend_pid
    return bool(info["pooled"])


def _set(cursor: Any, info: dict[str, Any], settings: Mapping[str, str]) -> None:
    """Make settings of a session that is set up, or of each of its transactions."""
    if "settings" in info:
        info["settings"].update(settings)
    else:
        cursor.execute(_set_config(settings, local=False))


def _set_config(settings: Mapping[str, str], local: bool) -> str:
    """A query that makes settings, for a transaction alone if they are `local`."""

    def literal(text: str) -> str:
        # Read alike whatever standard_conforming_strings is.
        return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"

    calls = [
        f"set_config({literal(name)}, {literal(value)}, {str(local).lower()})"
        for name, value in settings.items()
    ]
    return f"SELECT {', '.join(calls)}"


def _state(error: Any) -> Any:
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


class SQLite(Dialect):
    """SQLite, one file, one writer at a time."""

    name = "sqlite"
    placeholder = "?"
    earliest = "MIN"
    latest = "MAX"
    octets = "LENGTH"  # the other one came with 3.43
    session = (
        # Write-ahead logging can corrupt a database used by two connections before 3.51.3.
        "PRAGMA journal_mode = DELETE",
        "PRAGMA synchronous = FULL",
        "PRAGMA busy_timeout = 10000",
    )
    skipping_locked = ""
    thorough = ("PRAGMA secure_delete = ON",)
    compacting = "VACUUM"

    def connecting(self, dialect: Any, record: Any, args: Any, options: dict[str, Any]) -> None:
        super().connecting(dialect, record, args, options)
        path = str(args[0]) if args else ""
        if path and not path.startswith(("file:", ":")):
            # What SQLite keeps beside it is made with the same mode.
            make_file(Path(path))
            for suffix in ("-journal", "-wal", "-shm"):
                make_private(Path(path + suffix))

    def connected(self, connection: Any, record: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, in `_begin`
        super().connected(connection, record)

    def is_conflict(self, error: DBAPIError) -> bool:
        return "locked" in str(error.orig)

    def is_lock_timeout(self, error: DBAPIError) -> bool:
        return self.is_conflict(error)

    def blames_values(self, error: Any) -> bool:
        said = str(error)
        return type(error).__name__ == "DataError" or said.startswith(
            ("CHECK constraint", "NOT NULL constraint")
        )

    def ago(self, seconds: int) -> str:
        # The form that the column's default has.
        return f"strftime('%Y-%m-%d %H:%M:%f', 'now', '{-seconds:+d} seconds')"

    def end_of(self, text: str, count: int) -> str:
        return f"SUBSTR({text}, -{count})"

    def without_end(self, text: str, count: int) -> str:
        return f"SUBSTR({text}, 1, LENGTH({text}) - {count})"

    def in_rows(self, columns: Sequence[str], count: int) -> str:
        return f"({', '.join(columns)}) IN (VALUES {self.rows(len(columns), count)})"


_DIALECTS: dict[str, Dialect] = {
    "mysql": MySQL(),
    "mariadb": MySQL(),
    "postgresql": PostgreSQL(),
    "sqlite": SQLite(),
}


def dialect_of(database: Database) -> Dialect:
    """The dialect that an engine or a connection speaks."""
    return _DIALECTS[database.dialect.name]


def _assignments(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{column} = {value}" for column, value in pairs)


def flat(rows: Iterable[Sequence[Any]]) -> tuple[Any, ...]:
    """The parameters of a statement of many rows."""
    return tuple(value for row in rows for value in row)
