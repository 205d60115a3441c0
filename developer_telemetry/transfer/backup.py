"""Back up what `storage/tables` declares: all rows of one moment, in an order of their keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry import __version__
from developer_telemetry.constants import LINK_TABLE, MADE_LINK_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import reading
from developer_telemetry.database.migrate import TableSchema, read_schema_version, read_schemas
from developer_telemetry.storage.devlake_schema import LINK_COLUMNS
from developer_telemetry.storage.tables import BACKUP_TABLES, Table
from developer_telemetry.storage.tombstones import TombstoneKey
from developer_telemetry.transfer.backup_file import FORMAT, BackupHeader, BackupWriter
from developer_telemetry.transfer.exporter import to_exported

# Rows that a driver holds at once, each of up to 4 MiB.
_BUFFERED_ROWS = 5


class BackupTable(NamedTuple):
    """A table's rows in a backup."""

    table: Table
    columns: Sequence[str]
    keys: Sequence[str]
    has_own_ids: bool


@cache
def list_tables() -> tuple[BackupTable, ...]:
    """Return the tables of a backup, with the columns of our migrations."""
    # DevLake's own table, of which a backup has the links that we made.
    schemas = {**read_schemas(), LINK_TABLE: TableSchema(LINK_COLUMNS, ("account_id",), False)}
    return tuple(BackupTable(table, *schemas[table.name]) for table in BACKUP_TABLES)


def make_header(engine: Engine, encryption_secret: str) -> BackupHeader:
    """Return the first line of a backup of a database."""
    return BackupHeader(
        FORMAT,
        __version__,
        read_schema_version(engine),
        f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
        dialect_of(engine).name,
        TombstoneKey(encryption_secret).fingerprint,
    )


def back_up(engine: Engine, writer: BackupWriter) -> Iterator[int]:
    """Write the rows of all tables; yields the number of rows so far, after each."""
    rows = 0
    with _open_snapshot(engine) as connection:
        names = set(inspect(connection).get_table_names())
        for source in list_tables():
            if source.table.name in names:
                for row in _read_rows(connection, source):
                    writer.write(source.table.name, row)
                    rows += 1
                    yield rows


@contextmanager
def _open_snapshot(engine: Engine) -> Iterator[SqlConnection]:
    """Yield a connection with a transaction that reads the rows of one moment."""
    with reading(engine).connect() as connection:
        connection.detach()  # closed at the end, with its settings
        dialect_of(connection).begin_snapshot(connection)
        yield connection


def _read_rows(connection: SqlConnection, source: BackupTable) -> Iterator[Mapping[str, Any]]:
    name = source.table.name
    # A database may have been migrated by an older release.
    there = connection.exec_driver_sql(f"SELECT * FROM {name} WHERE 1 = 0").keys()
    columns = [column for column in source.columns if column in there]
    condition = ""
    if name == LINK_TABLE:
        condition = (
            f" WHERE EXISTS (SELECT 1 FROM {MADE_LINK_TABLE} m"
            f" WHERE m.account_id = {name}.account_id AND m.user_id = {name}.user_id)"
        )
    result = connection.exec_driver_sql(
        f"SELECT {', '.join(columns)} FROM {name}{condition} ORDER BY {', '.join(source.keys)}",
        execution_options={"stream_results": True, "max_row_buffer": _BUFFERED_ROWS},
    )
    for row in result:
        values = dict(zip(columns, map(_to_value, row)))
        for column in source.table.json_columns:
            if isinstance(values.get(column), str):  # not parsed by the driver
                values[column] = json.loads(values[column])
        yield values


def _to_value(value: Any) -> Any:
    """Return a value as any kind of database has it."""
    return int(value) if isinstance(value, bool) else to_exported(value)
