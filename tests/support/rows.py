"""Read rows as they were written, for all drivers."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy.engine import Engine

from developer_telemetry.constants import CONNECTION_TABLE, RAW_TABLE, TOOL_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.reports.daily_metrics import TOOL_COLUMNS
from developer_telemetry.storage.writer import RAW_COLUMNS

Row = dict[str, Any]


def rows(engine: Engine, table: str, columns: Sequence[str], order: str) -> list[Row]:
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}"
        ).fetchall()
    return [dict(zip(columns, map(plain, row))) for row in found]


def plain(value: Any) -> Any:
    """Return a value as it was written, for any type of the driver."""
    if isinstance(value, datetime.datetime):
        assert value.microsecond % 1000 == 0
        return value.replace(tzinfo=None).isoformat(" ", "milliseconds")
    return str(value) if isinstance(value, datetime.date) else value


def tool_rows(engine: Engine) -> list[Row]:
    found = rows(engine, TOOL_TABLE, TOOL_COLUMNS, "connection_id, developer_id, date")
    # Sorted here, since SQLite, MySQL and PostgreSQL need not agree on an order.
    return sorted(found, key=lambda row: (row["connection_id"], row["developer_id"], row["date"]))


def tool_row_of(engine: Engine) -> Row:
    [row] = tool_rows(engine)
    return row


def raw_rows(engine: Engine) -> list[Row]:
    return rows(engine, RAW_TABLE, ("id", *RAW_COLUMNS), "id")


def add_connections(engine: Engine, numbers: Iterable[int]) -> None:
    """Make connections with these ids, unless they exist."""
    made = ", ".join(f"({number}, 'fleet {number}', '')" for number in numbers)
    tail = dialect_of(engine).on_conflict(("id",), ())
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO {CONNECTION_TABLE} (id, name, endpoint) VALUES {made} {tail}"
        )
