"""The record of a database's owner: DevLake or we apply migrations and convert reports.

DevLake's server does both while it loads the plugin. In a database of our own, and in DevLake's
after `migrate --standalone`, `migrate` applies migrations and the receiver converts reports.
"""

from __future__ import annotations

from enum import Enum
from typing import Optional

from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection

from developer_telemetry.constants import DEVLAKE_MIGRATION_TABLE, OWNER_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import now_us

_COLUMNS = ("id", "owner", "since_us")
_ID = 1  # of the only row


class SchemaOwner(Enum):
    """The program that applies migrations and converts reports."""

    DEVLAKE = "devlake"
    STANDALONE = "standalone"


def read_owner(connection: SqlConnection) -> SchemaOwner:
    """Return the recorded owner; without a record, DevLake if the database is DevLake's."""
    schema = inspect(connection)
    if schema.has_table(OWNER_TABLE):
        owner = connection.exec_driver_sql(
            f"SELECT owner FROM {OWNER_TABLE} WHERE id = {_ID}"
        ).scalar()
        if owner:
            return SchemaOwner(owner)
    is_devlakes = schema.has_table(DEVLAKE_MIGRATION_TABLE)
    return SchemaOwner.DEVLAKE if is_devlakes else SchemaOwner.STANDALONE


def read_owner_since_us(connection: SqlConnection) -> Optional[int]:
    """Return the time in UTC of the record of the owner; None without a record."""
    if not inspect(connection).has_table(OWNER_TABLE):
        return None
    since: Optional[int] = connection.exec_driver_sql(
        f"SELECT since_us FROM {OWNER_TABLE} WHERE id = {_ID}"
    ).scalar()
    return since


def record_owner(connection: SqlConnection, owner: SchemaOwner) -> None:
    """Record the owner and the present time; the caller commits."""
    dialect = dialect_of(connection)
    update = dialect.on_conflict(
        _COLUMNS[:1], [(column, dialect.new(column)) for column in _COLUMNS[1:]]
    )
    # The values are our own constants and a number.
    connection.exec_driver_sql(
        f"INSERT INTO {OWNER_TABLE} ({', '.join(_COLUMNS)})"
        f" VALUES ({_ID}, '{owner.value}', {now_us()}) {update}"
    )
