"""What an operator asks first: which connections there are, and whether machines report."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy.engine import Engine

from developer_telemetry.connections import CONNECTION_TABLE
from developer_telemetry.database import reading
from developer_telemetry.merging import RAW_TABLE, timestamp


class ConnectionStatus(NamedTuple):
    """One connection: reports kept, who sent them, and when the newest came (UTC, or "")."""

    id: int
    name: str
    reports: int
    developers: int
    machines: int
    newest: str


def connection_statuses(engine: Engine) -> list[ConnectionStatus]:
    """All connections, by id, counted from the raw layer."""
    with reading(engine).connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT c.id, c.name, COALESCE(r.reports, 0), COALESCE(r.developers, 0),"
            f" COALESCE(m.machines, 0), r.newest FROM {CONNECTION_TABLE} c"
            " LEFT JOIN (SELECT connection_id, COUNT(*) AS reports,"
            "  COUNT(DISTINCT developer_id) AS developers, MAX(arrived_us) AS newest"
            f"  FROM {RAW_TABLE} GROUP BY connection_id) r ON r.connection_id = c.id"
            " LEFT JOIN (SELECT connection_id, COUNT(*) AS machines FROM"
            f"  (SELECT DISTINCT connection_id, developer_id, hostname FROM {RAW_TABLE}) d"
            "  GROUP BY connection_id) m ON m.connection_id = c.id"
            " ORDER BY c.id"
        ).fetchall()
    return [ConnectionStatus._make((*row[:5], timestamp(row[5]) if row[5] else "")) for row in rows]
