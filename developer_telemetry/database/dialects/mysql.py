"""The SQL and the sessions of MySQL and MariaDB."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.exc import DBAPIError

from developer_telemetry.database.dialects.base import (
    SEPARATOR,
    Dialect,
    Source,
    count_characters,
    cut,
    set_clause,
)

# The options of our tables. Whatever the server's defaults: 'Irfan' and 'irfan' are two people, and
# keys of this width fit.
TABLE_OPTIONS = (
    " ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
)
# A text in `_row_template`.
_TEXT = "'%s'"


class MySQL(Dialect):
    """MySQL and MariaDB."""

    name = "mysql"
    session = (
        # The mode is first, since it decides how the statements below are read. Each comment is
        # code for either MySQL or MariaDB.
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
        # Two literals are compared by the session's collation: if that ignores case, MariaDB reads
        # BETWEEN 'a' AND 'A' as = 'a'.
        "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE",
    )
    short_lock_waits = (
        "SET SESSION innodb_lock_wait_timeout = 1",
        "SET SESSION lock_wait_timeout = 2",
    )
    # MariaDB does not have FOR SHARE.
    preventing_deletion = " LOCK IN SHARE MODE"
    # Otherwise MariaDB reads a table completely if it has grown since its statistics were made.
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
        # With AFTER_COMMIT others see rows that the replica may lack: a repeated report then
        # changes nothing, so its commit does not wait for the replica. It is MariaDB's default;
        # MySQL has the settings only where a plugin of one of two names is loaded.
        (
            "rpl_semi_sync_master_wait_point",
            "SELECT /*M! IF(@@rpl_semi_sync_master_enabled, @@rpl_semi_sync_master_wait_point, */"
            " '' /*M! ) */",
            ("AFTER_COMMIT",),
            "set it to AFTER_SYNC",
        ),
        (
            "rpl_semi_sync_source_wait_point",
            "SELECT /*!80000 IFNULL((SELECT MIN(w.VARIABLE_VALUE)"
            " FROM performance_schema.global_variables w, performance_schema.global_variables e"
            " WHERE w.VARIABLE_NAME IN"
            " ('rpl_semi_sync_source_wait_point', 'rpl_semi_sync_master_wait_point')"
            " AND e.VARIABLE_NAME IN"
            " ('rpl_semi_sync_source_enabled', 'rpl_semi_sync_master_enabled')"
            " AND e.VARIABLE_VALUE = 'ON'), */ '' /*!80000 ) */",
            ("AFTER_COMMIT",),
            "set it to AFTER_SYNC",
        ),
    )
    refusal = (
        # Not by @@binlog_format, which a later version may no longer have.
        "SHOW SESSION VARIABLES WHERE Variable_name = 'binlog_format' AND Value = 'STATEMENT'"
        " AND @@log_bin",
        "the database refuses all reports: with binlog_format STATEMENT it logs no transaction of"
        " READ COMMITTED; set binlog_format to ROW or MIXED",
    )
    timeouts = {"connect_timeout": 5, "read_timeout": 300, "write_timeout": 300}
    short_timeouts = {"read_timeout": 30, "write_timeout": 30}
    # Lock wait timeout, deadlock, and MariaDB's "record has changed since last read".
    conflicts = frozenset((1205, 1213, 1020))
    lock_timeout = 1205
    # Of a value: NULL, out of range, truncated, of another type or character set, too long, not
    # JSON, against a CHECK; of a row: too large for a packet, a page or the undo log.
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
        # With this flag, rows that an upsert does not change count as changed.
        record.info["counts_inserted"] = not options.get("client_flag", 0) & self.found_rows

    def is_conflict(self, error: DBAPIError) -> bool:
        return _code(error.orig) in self.conflicts

    def is_lock_timeout(self, error: DBAPIError) -> bool:
        return bool(_code(error.orig) == self.lock_timeout)

    def is_value_error(self, error: Any) -> bool:
        return _code(error) in self.value_errors

    def statement_bytes(self, statement: str, parameters: Sequence[Any]) -> int:
        texts = [_escaped(value) if isinstance(value, str) else str(value) for value in parameters]
        return sum(len(text.encode()) for text in (statement, *texts))

    def is_stale(self, error: Any) -> bool:
        # The first code has other causes, too.
        read_only = _code(error) in self.read_only and "read" in str(error).lower()
        return read_only or _code(error) in self.stale

    def is_denied(self, error: Any) -> bool:
        return _code(error) in self.denied

    def new(self, column: str) -> str:
        # The alias that MySQL 8 prefers is unknown to MariaDB.
        return f"VALUES({column})"

    def begin_snapshot(self, connection: SqlConnection) -> None:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    def await_writers(self, table: str) -> Sequence[str]:
        # Readers continue. Writers wait meanwhile, so it must not take long.
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
        """Return the name of a lock of this database, which is unique in the server."""
        # In 64 characters at most. MySQL 9.6 and later have no MD5.
        return f"CONCAT('{name} ', LEFT(SHA2(DATABASE(), 256), 16))"

    def without_end_dots(self, text: str) -> str:
        return f"TRIM(TRAILING '.' FROM {text})"

    def items(self, column: str) -> str:
        # Rows of other programs may hold anything.
        valid = f"CASE WHEN JSON_VALID({column}) THEN {column} ELSE '[]' END"
        return f"JSON_TABLE({valid}, '$[*]' COLUMNS (value VARCHAR(255) PATH '$'))"

    def text_of(self, columns: Sequence[str], prefix: str = "") -> str:
        values = f", '{SEPARATOR}', ".join(prefix + column for column in columns)
        return f"CONCAT({values})"

    def on_conflict(self, keys: Sequence[str], assignments: Sequence[tuple[str, str]]) -> str:
        # INSERT IGNORE would turn errors into warnings; setting a key to itself changes nothing.
        unchanged = [(keys[0], keys[0])]
        return "ON DUPLICATE KEY UPDATE " + set_clause(assignments or unchanged)

    def connected(self, connection: Any, record: Any) -> None:
        if type(connection).__module__.startswith("pymysql") and "utf8" in connection.charset:
            # PyMySQL's own escapes more than texts between apostrophes need, and takes thirty
            # times as long.
            connection.escape_string = connection._escape_string = _escaped
            connection.escape = _literal_maker(connection.escape)
            record.info["takes_literals"] = True
        super().connected(connection, record)

    def sources(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        most: int,
        info: Mapping[str, Any],
    ) -> Iterator[Source]:
        if not info.get("takes_literals"):
            yield from super().sources(columns, rows, most, info)
            return
        # Its drivers write parameters into the statement one by one, which is many times slower.
        pairs = zip(rows, _row_literals(rows))
        for batch in cut(pairs, most, info["statement_characters"], _count_characters):
            literals = [literal for _, literal in batch if literal is not None]
            if len(literals) == len(batch):
                yield Source(f"VALUES {', '.join(literals)}", (), len(batch))
            else:
                yield self.source_with_parameters(columns, [row for row, _ in batch])

    def source_with_parameters(
        self, columns: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> Source:
        values = [[str(value) if type(value) is int else "%s" for value in row] for row in rows]
        written = ", ".join([f"({', '.join(row)})" for row in values])
        parameters = [value for row in rows for value in row if type(value) is not int]
        return Source(f"VALUES {written}", tuple(parameters), len(rows))

    def start_session(self, cursor: Any, info: dict[str, Any]) -> None:
        super().start_session(cursor, info)
        cursor.execute("SELECT @@max_allowed_packet, @@version")
        packet, version = cursor.fetchone()
        info["packet_bytes"] = int(packet)
        # Characters of up to four bytes, with a fifth of the packet left for separators.
        info["statement_characters"] = int(packet) // 20
        info["returning"] = "MariaDB" in version

    def limit(self, cursor: Any, info: dict[str, Any], seconds: int) -> None:
        is_mariadb = info["returning"]
        name = "max_statement_time" if is_mariadb else "max_execution_time"
        cursor.execute(f"SET SESSION {name} = {seconds if is_mariadb else seconds * 1000}")


def _code(error: Any) -> Any:
    arguments: Sequence[Any] = getattr(error, "args", ())
    return arguments[0] if arguments else None


def _literal_maker(escape: Callable[..., str]) -> Callable[..., str]:
    """Return `escape` of a session of PyMySQL, faster for texts and whole numbers."""

    def literal(value: Any, mapping: Any = None) -> str:
        if type(value) is str:
            return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
        return str(value) if type(value) is int else escape(value, mapping)

    return literal


def _escaped(text: str) -> str:
    """Return a text escaped for apostrophes, in the SQL mode that our sessions set."""
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _count_characters(pair: tuple[Sequence[Any], Optional[str]]) -> int:
    """Return the characters of a row in a statement, as SQL if it can be written so."""
    row, literal = pair
    return count_characters(row) if literal is None else len(literal)


def _row_literals(rows: Iterable[Sequence[Any]]) -> Iterator[Optional[str]]:
    """Yield rows of numbers and texts as SQL; None for one with values of another type."""
    last_types: tuple[type, ...] = ()
    template, apostrophes = "", 0
    for row in rows:
        values = row if isinstance(row, tuple) else tuple(row)
        types = tuple(map(type, values))
        if types != last_types:  # nearly all rows of a table have the same
            last_types = types
            template, apostrophes = _row_template(types)
        if not template:
            yield None
            continue
        literal = template % values
        # Few reports have an apostrophe or a backslash; the others need no escaping.
        if "\\" in literal or literal.count("'") != apostrophes:
            escaped = [_escaped(value) if type(value) is str else value for value in values]
            literal = template % tuple(escaped)
        yield literal


@lru_cache(maxsize=256)
def _row_template(types: tuple[type, ...]) -> tuple[str, int]:
    """Return a row with places for values of these types, and its number of apostrophes."""
    if not {int, str}.issuperset(types):
        return "", 0
    template = f"({', '.join(['%d' if kind is int else _TEXT for kind in types])})"
    return template, template.count("'")
