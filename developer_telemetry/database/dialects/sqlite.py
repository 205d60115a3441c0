"""The SQL and the sessions of SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from developer_telemetry.database.dialects.base import (
    Dialect,
)
from developer_telemetry.private_files import make_file, make_private


class SQLite(Dialect):
    """SQLite, one file, one writer at a time."""

    name = "sqlite"
    placeholder = "?"
    earliest = "MIN"
    latest = "MAX"
    octets = "LENGTH"  # OCTET_LENGTH exists since 3.43
    session = (
        # Write-ahead logging can corrupt a database used by two connections before 3.51.3.
        "PRAGMA journal_mode = DELETE",
        "PRAGMA synchronous = FULL",
        "PRAGMA busy_timeout = 10000",
    )
    skipping_locked = ""
    overwriting = ("PRAGMA secure_delete = ON",)
    compacting = "VACUUM"

    def connecting(self, dialect: Any, record: Any, args: Any, options: dict[str, Any]) -> None:
        super().connecting(dialect, record, args, options)
        path = str(args[0]) if args else ""
        if path and not path.startswith(("file:", ":")):
            # SQLite makes its other files with the same mode.
            make_file(Path(path))
            for suffix in ("-journal", "-wal", "-shm"):
                make_private(Path(path + suffix))

    def connected(self, connection: Any, record: Any) -> None:
        connection.isolation_level = None  # our listener begins transactions (`engine`)
        super().connected(connection, record)

    def is_conflict(self, error: DBAPIError) -> bool:
        return "locked" in str(error.orig)

    def is_lock_timeout(self, error: DBAPIError) -> bool:
        return self.is_conflict(error)

    def is_value_error(self, error: Any) -> bool:
        message = str(error)
        return type(error).__name__ == "DataError" or message.startswith(
            ("CHECK constraint", "NOT NULL constraint")
        )

    def ago(self, seconds: int) -> str:
        # The same format as the column's default.
        return f"strftime('%Y-%m-%d %H:%M:%f', 'now', '{-seconds:+d} seconds')"

    def end_of(self, text: str, count: int) -> str:
        return f"SUBSTR({text}, -{count})"

    def without_end(self, text: str, count: int) -> str:
        return f"SUBSTR({text}, 1, LENGTH({text}) - {count})"

    def keys_condition(self, table: str, columns: Sequence[str], count: int) -> str:
        # It would compare each row of the table with the list; so it takes each key to the index.
        equal = " AND ".join(
            f"t.{column} = k.column{number}" for number, column in enumerate(columns, 1)
        )
        keys = f"(VALUES {self.rows(len(columns), count)}) k"
        return f"rowid IN (SELECT t.rowid FROM {keys} CROSS JOIN {table} t ON {equal})"

    def in_rows(self, columns: Sequence[str], count: int) -> str:
        return f"({', '.join(columns)}) IN (VALUES {self.rows(len(columns), count)})"
