"""Locks that keep connections from being deleted while a transaction writes rows of them.

A process has its connections in memory, and may learn some seconds late that one was deleted. So
such a transaction locks its connections before it commits. The deletion waits for it, and then
deletes what it has written.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Optional

from sqlalchemy.engine import Connection as SqlConnection

from developer_telemetry.constants import CONNECTION_TABLE
from developer_telemetry.database.dialects.base import Dialect
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.errors import ConnectionDeleted


def lock_connections(
    connection: SqlConnection, ids: Optional[Collection[int]] = None
) -> frozenset[int]:
    """Return the connections that exist, of all or of `ids`.

    None of them can be deleted until the transaction ends.
    """
    if ids is not None and not ids:
        return frozenset()
    dialect = dialect_of(connection)
    condition = ""
    if ids is not None:
        condition = f" WHERE id IN ({', '.join([dialect.placeholder] * len(ids))})"
    rows = connection.exec_driver_sql(
        f"SELECT id FROM {CONNECTION_TABLE}{condition}{dialect.preventing_deletion}",
        tuple(sorted(ids or ())),
    )
    return frozenset(int(row[0]) for row in rows)


def lock_sql(dialect: Dialect, number: str) -> str:
    """Return an expression that locks a connection: its number, or NULL if there is none."""
    return (
        f"(SELECT c.id FROM {CONNECTION_TABLE} c WHERE c.id = {number}"
        f"{dialect.preventing_deletion})"
    )


def require_connections(connection: SqlConnection, ids: Collection[int]) -> None:
    """Lock connections.

    Raises:
        ConnectionDeleted: Some do not exist.
    """
    deleted = set(ids) - lock_connections(connection, ids)
    if deleted:
        raise ConnectionDeleted(deleted)
