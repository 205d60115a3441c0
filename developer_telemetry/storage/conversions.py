"""The record of conversions by receivers, and the check that they run.

A conversion writes accounts, tasks and links from new reports. Receivers run it where DevLake does
not (`database/schema_owner`); the row of a connection describes its last conversion.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection

from developer_telemetry.constants import (
    CONVERSION_TABLE,
    RAW_TABLE,
    RUN_TABLE,
    SCOPE_CONFIG_TABLE,
    SCOPE_TABLE,
    TOOL_TABLE,
)
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import database_now_us

CONVERT = "convert"  # the subtask whose watermark a conversion moves
# A report that waits for longer than this shows that conversions do not run.
OVERDUE_SECONDS = 300
MAX_ERROR = 255


class Conversion(NamedTuple):
    """The last conversion of a connection; times are UTC in microseconds, by the database's clock.

    `error` is empty after a success; the numbers are those of rows written until then.
    """

    connection_id: int
    started_us: int
    ended_us: int
    accounts: int = 0
    tasks: int = 0
    links: int = 0
    error: str = ""


class ConversionOptions(NamedTuple):
    """The switches of a connection's scope config."""

    with_tasks: bool = False
    with_links: bool = True


def read_options(connection: SqlConnection, connection_id: int) -> ConversionOptions:
    """Return the switches of a connection's scope config, or their defaults."""
    row = connection.exec_driver_sql(
        f"SELECT c.test_and_build_tasks, c.keep_accounts_unlinked FROM {SCOPE_TABLE} s"
        f" JOIN {SCOPE_CONFIG_TABLE} c ON c.id = s.scope_config_id"
        f" WHERE s.connection_id = {dialect_of(connection).placeholder}",
        (connection_id,),
    ).first()
    return ConversionOptions(bool(row[0]), not row[1]) if row else ConversionOptions()


def read_conversions(connection: SqlConnection) -> dict[int, Conversion]:
    """Return the last conversion of each connection that had one."""
    if not inspect(connection).has_table(CONVERSION_TABLE):
        return {}
    rows = connection.exec_driver_sql(
        f"SELECT {', '.join(Conversion._fields)} FROM {CONVERSION_TABLE} ORDER BY connection_id"
    )
    return {row[0]: Conversion(*row) for row in rows}


def read_newest(connection: SqlConnection) -> int:
    """Return the newest raw id of all connections."""
    newest: Optional[int] = connection.exec_driver_sql(f"SELECT MAX(id) FROM {RAW_TABLE}").scalar()
    return newest or 0


def has_days(connection: SqlConnection, connection_id: int) -> bool:
    """Return true if the tool layer has a row of a connection."""
    param = dialect_of(connection).placeholder
    row = connection.exec_driver_sql(
        f"SELECT 1 FROM {TOOL_TABLE} WHERE connection_id = {param} LIMIT 1", (connection_id,)
    ).first()
    return row is not None


def write_conversion(connection: SqlConnection, conversion: Conversion) -> None:
    """Record the last conversion of a connection; the caller commits."""
    dialect = dialect_of(connection)
    columns = Conversion._fields
    tail = dialect.on_conflict(
        columns[:1], [(column, dialect.new(column)) for column in columns[1:]]
    )
    row = conversion._replace(error=conversion.error[:MAX_ERROR])
    insert(connection, CONVERSION_TABLE, columns, [row], tail)


def is_overdue(connection: SqlConnection, connection_id: int, last: Optional[Conversion]) -> bool:
    """Return true if a report has been waiting for a conversion for `OVERDUE_SECONDS`."""
    dialect = dialect_of(connection)
    param = dialect.placeholder
    later = ""
    if last is not None:
        ago_us = max(0, database_now_us(connection) - last.started_us)
        later = f" AND stored_at >= {dialect.ago(ago_us // 1_000_000)}"
    above: Optional[int] = connection.exec_driver_sql(
        f"SELECT raw_id FROM {RUN_TABLE} WHERE connection_id = {param} AND subtask = {param}",
        (connection_id, CONVERT),
    ).scalar()
    report = connection.exec_driver_sql(
        f"SELECT 1 FROM {RAW_TABLE} WHERE connection_id = {param} AND id > {param}"
        f" AND stored_at < {dialect.ago(OVERDUE_SECONDS)}{later} LIMIT 1",
        (connection_id, above or 0),
    ).first()
    return report is not None
