"""The SQL and the sessions of PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Optional

import msgspec
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.exc import DBAPIError

from developer_telemetry.database.dialects.base import (
    SEPARATOR,
    Dialect,
    Source,
)

# The types of the columns that bulk inserts write, where it is not text.
_TYPES = {
    **dict.fromkeys(("date", "day"), "date"),
    **dict.fromkeys(("created_at", "updated_at", "stored_at"), "timestamptz"),
    **dict.fromkeys(("first_seen", "last_seen", "seen"), "timestamptz"),
    **dict.fromkeys(("connection_id", "_raw_data_id", "raw_id", "active_hours"), "bigint"),
    **dict.fromkeys(("commits", "lines_added", "lines_deleted", "files_changed"), "bigint"),
    **dict.fromkeys(("test_runs", "builds", "reports", "count"), "bigint"),
    **dict.fromkeys(("accounts", "tasks", "links", "confirmed", "removed"), "bigint"),
    **dict.fromkeys(("raw_retention_days", "tool_retention_days", "smallest_group"), "bigint"),
    **dict.fromkeys(("previous_token_until", "scope_config_id", "script_version"), "bigint"),
    **dict.fromkeys(("strip_paths", "pseudonyms", "blocked"), "boolean"),
    **dict.fromkeys(("keep_accounts_unlinked", "test_and_build_tasks"), "boolean"),
    **dict.fromkeys(("raw_before", "pruned_on"), "date"),
    **dict.fromkeys(("created_date", "started_date", "finished_date"), "timestamptz"),
    "start": "date",
    **dict.fromkeys(("people", "number"), "bigint"),
    **dict.fromkeys(("duration_sec", "share"), "double precision"),
    **dict.fromkeys(("first_quartile", "median", "third_quartile", "total"), "double precision"),
}


def _type_of(column: str) -> str:
    # Each time in microseconds is named so.
    return "bigint" if column.endswith("_us") else _TYPES.get(column, "text")


class PostgreSQL(Dialect):
    """PostgreSQL."""

    name = "postgres"
    returning = True
    # A session's settings, in place of the statements of `session`.
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
    # Timeouts, which have to be 0, with the version in which they are new.
    newer_timeouts: Mapping[str, int] = {"idle_session_timeout": 14, "transaction_timeout": 17}
    # For each transaction, and as the default of a session.
    transaction = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, NOT DEFERRABLE"
    transactions: Mapping[str, str] = {
        "default_transaction_isolation": "read committed",
        "default_transaction_deferrable": "off",
    }
    # True if sessions are read-only by a setting of our user or database. If the setting is the
    # server's, it may be a former primary.
    read_only_for_us = (
        "SELECT CASE WHEN current_setting('default_transaction_read_only') = 'on' THEN"
        " (SELECT source IN ('database', 'user', 'database user') FROM pg_settings"
        " WHERE name = 'default_transaction_read_only') END"
    )
    preventing_deletion = " FOR KEY SHARE"
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
    timeouts = {
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
            # Statements prepared in one session are unknown in the next session of a pooler.
            options.setdefault("prepare_threshold", None)

    def start_session(self, cursor: Any, info: dict[str, Any]) -> None:
        super().start_session(cursor, info)
        settings = dict(self.settings)
        if type(cursor).__module__.startswith("psycopg2"):
            # It escapes values by both settings at the time of the connection: the first one must
            # not change after that, and the second one only by its own method.
            del settings["standard_conforming_strings"]
            cursor.connection.set_client_encoding(settings["client_encoding"])
        version = cursor.connection.info.server_version // 10_000
        settings.update({name: "0" for name, at in self.newer_timeouts.items() if version >= at})
        cursor.execute(self.read_only_for_us)
        [writing] = cursor.fetchone()
        # The URL's settings; without a pooler they are set already.
        asked: Mapping[str, str] = info.pop("settings of the url", {})
        if _is_pooled(cursor, info):
            info["settings"] = {**asked, **settings}
            info["transaction"] = self.transaction + (", READ WRITE" if writing else "")
        else:
            if writing:
                settings["default_transaction_read_only"] = "off"
            cursor.execute(_set_config({**settings, **self.transactions}, local=False))

    def shorten_lock_waits(self, connection: Any, record: Any) -> None:
        with closing(connection.cursor()) as cursor:
            _set(cursor, record.info, {"lock_timeout": self.brief_lock_timeout})
        connection.commit()

    def limit(self, cursor: Any, info: dict[str, Any], seconds: int) -> None:
        _set(cursor, info, {"statement_timeout": f"{seconds}s"})

    def begin(self, connection: SqlConnection) -> None:
        settings = connection.info.get("settings")
        if settings:
            # A pooler may give each transaction another session.
            statements = f"{connection.info['transaction']}; {_set_config(settings, local=True)}"
            connection.exec_driver_sql(statements, execution_options={"no_parameters": True})

    def source(self, columns: Sequence[str], count: int) -> str:
        # All rows in one parameter: the statement is the same for any count, and is escaped once.
        typed = ", ".join(f"{column} {_type_of(column)}" for column in columns)
        return f"SELECT {', '.join(columns)} FROM json_to_recordset(%s::json) AS r({typed})"

    def parameters(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
        documents = [dict(zip(columns, row)) for row in rows]
        return (msgspec.json.encode(documents).decode(),)

    def typed_source(
        self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> Source:
        names = ", ".join(columns)
        source = f"SELECT {names} FROM json_populate_recordset(NULL::{table}, %s::json)"
        return Source(source, self.parameters(columns, rows), len(rows))

    def continue_ids(self, table: str) -> str:
        return f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), MAX(id)) FROM {table}"

    def begin_snapshot(self, connection: SqlConnection) -> None:
        statement = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
        if "settings" in connection.info:  # of a pooler, which come first
            connection.info["transaction"] = statement
            connection.begin()
        else:
            connection.exec_driver_sql(statement)

    def in_condition(self, columns: Sequence[str], count: int) -> str:
        # A condition on hundreds of rows takes longer to plan than to execute.
        return f"({', '.join(columns)}) IN ({self.source(columns, count)})"

    def await_writers(self, table: str) -> Sequence[str]:
        return ("SET LOCAL lock_timeout = '3s'", f"LOCK TABLE {table} IN SHARE MODE")

    # Behind a pooler the next transaction may have another session: a session's lock would remain.
    lock_scope = "transaction"

    def ago(self, seconds: int) -> str:
        return f"clock_timestamp() - INTERVAL '{seconds} seconds'"

    def try_lock(self, name: str) -> str:
        return f"SELECT pg_try_advisory_xact_lock(hashtextextended('{name}', 0))"

    def items(self, column: str) -> str:
        return f"json_array_elements_text({column}::json)"

    def text_of(self, columns: Sequence[str], prefix: str = "") -> str:
        # A cast to text would add the zone and omit zeros at the end.
        return f" || '{SEPARATOR}' || ".join(
            f"to_char({prefix}{column}, 'YYYY-MM-DD HH24:MI:SS.MS')"
            if _TYPES.get(column) == "timestamptz"
            else f"{prefix}{column}::text"
            for column in columns
        )

    def expected_rows(
        self, connection: SqlConnection, query: str, parameters: Sequence[Any]
    ) -> Optional[int]:
        explained = f"EXPLAIN (FORMAT JSON) {query}"
        plan = connection.exec_driver_sql(explained, tuple(parameters)).scalar_one()
        rows: int = plan[0]["Plan"]["Plan Rows"]
        return rows

    def is_conflict(self, error: DBAPIError) -> bool:
        return _state(error.orig) in self.conflicts

    def is_lock_timeout(self, error: DBAPIError) -> bool:
        return bool(_state(error.orig) == "55P03")

    def is_value_error(self, error: Any) -> bool:
        state = _state(error)
        if state is None:  # an error of the driver, raised before the statement is sent
            return type(error).__name__ == "DataError"
        if state == "23514":  # also for a missing partition, without the name of a constraint
            return bool(error.diag.constraint_name)
        # Data exception, program limit exceeded, not null.
        return state[:2] in ("22", "54") or state == "23502"

    def is_stale(self, error: Any) -> bool:
        return _state(error) in self.stale

    def is_denied(self, error: Any) -> bool:
        return bool(_state(error) == self.denied)


def _is_pooled(cursor: Any, info: dict[str, Any]) -> bool:
    """Return true if a pooler between us and PostgreSQL answers in place of a session."""
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
    """Return a query that makes settings, for a transaction alone if they are `local`."""

    def literal(text: str) -> str:
        # Read alike under any standard_conforming_strings.
        return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"

    calls = [
        f"set_config({literal(name)}, {literal(value)}, {str(local).lower()})"
        for name, value in settings.items()
    ]
    return f"SELECT {', '.join(calls)}"


def _state(error: Any) -> Any:
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
