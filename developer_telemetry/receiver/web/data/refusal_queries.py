"""Queries of the page about refused reports, which are kept for two weeks, and their counts."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy.engine import Connection as SqlConnection

from developer_telemetry.constants import REFUSAL_TABLE, REFUSED_MACHINE_TABLE
from developer_telemetry.receiver.web.data.queries import (
    CONNECTION_NAME,
    Conditions,
    Slice,
    containing,
    moment_of,
    order_sql,
    to_day,
)
from developer_telemetry.receiver.web.selection import Selection
from developer_telemetry.storage.fleet.machines import MachineKey

_SORTS = {
    "developer": "developer_id",
    "host": "hostname",
    "connection": CONNECTION_NAME,
    "address": "address",
    "collector": "user_agent",
    "reason": "reason",
    "first": "first_us",
    "seen": "last_us",
    "reports": "count",
}


class RefusalCount(NamedTuple):
    """The number of reports refused for one reason, and the day of the last one."""

    connection_id: int
    reason: str
    reports: int
    last_day: datetime.date


class RefusedMachine(NamedTuple):
    """A row of the list of refused machines; texts are as far as the refused report has them."""

    connection_id: int
    developer_id: str
    hostname: str
    address: str
    user_agent: str
    reason: str
    message: str
    first: datetime.datetime
    last: datetime.datetime
    reports: int


def refusals(
    connection: SqlConnection, since: datetime.date, connection_id: int = 0
) -> list[RefusalCount]:
    """Count the refusals since a day by connection and reason: at most 50, the largest first."""
    conditions = Conditions(connection)
    conditions.add("day >= ?", since.isoformat())
    conditions.add_connection(connection_id)
    rows = connection.exec_driver_sql(
        f"SELECT connection_id, reason, SUM(count), MAX(day) FROM {REFUSAL_TABLE}"
        f" WHERE {conditions} GROUP BY connection_id, reason ORDER BY 3 DESC, 1, 2 LIMIT 50",
        conditions.values,
    )
    return [RefusalCount(row[0], row[1], int(row[2]), to_day(row[3])) for row in rows]


def count_refusals(
    connection: SqlConnection, first: datetime.date, last: datetime.date, connection_id: int
) -> int:
    """Count the refusals from the first day to the last one."""
    conditions = Conditions(connection)
    conditions.add("day >= ? AND day <= ?", first.isoformat(), last.isoformat())
    conditions.add_connection(connection_id)
    total = connection.exec_driver_sql(
        f"SELECT COALESCE(SUM(count), 0) FROM {REFUSAL_TABLE} WHERE {conditions}",
        conditions.values,
    ).scalar_one()
    return int(total)


def list_refused_machines(
    connection: SqlConnection, selection: Selection, part: Slice
) -> tuple[int, list[RefusedMachine]]:
    """Read the refused machines of a selection, the last refused first unless sorted otherwise.

    Returns:
        The number of all, and those of the part.
    """
    conditions = Conditions(connection)
    conditions.add_connection(selection.connection_id)
    if selection.reason:
        conditions.add("reason = ?", selection.reason)
    if selection.text:
        pattern = containing(selection.text)
        like = " OR ".join(
            f"LOWER({column}) LIKE ? ESCAPE '!'"
            for column in ("developer_id", "hostname", "address")
        )
        conditions.add(f"({like})", *[pattern] * 3)
    total = connection.exec_driver_sql(
        f"SELECT COUNT(*) FROM {REFUSED_MACHINE_TABLE} WHERE {conditions}", conditions.values
    ).scalar_one()
    order = order_sql(_SORTS, part, "-seen", ("id",))
    return int(total), _read_refused_machines(connection, conditions, order)


def refusals_of(connection: SqlConnection, machine: MachineKey) -> list[RefusedMachine]:
    """Return the refusals of one machine, the last refused first."""
    conditions = Conditions(connection)
    conditions.add("connection_id = ? AND developer_id = ?", *machine[:2])
    conditions.add("hostname IN (?, '')", machine.hostname)
    return _read_refused_machines(connection, conditions, "ORDER BY last_us DESC LIMIT 20")


def count_refused_machines(
    connection: SqlConnection, connection_id: int, without: Collection[str]
) -> int:
    """Count the machines that were refused, for other reasons than `without`."""
    conditions = Conditions(connection)
    conditions.add_connection(connection_id)
    conditions.add(f"reason NOT IN ({', '.join('?' * len(without))})", *without)
    machines = (
        "SELECT DISTINCT connection_id, developer_id, hostname,"
        " CASE WHEN developer_id = '' AND hostname = '' THEN address ELSE '' END AS peer"
        f" FROM {REFUSED_MACHINE_TABLE} WHERE {conditions}"
    )
    total = connection.exec_driver_sql(f"SELECT COUNT(*) FROM ({machines}) m", conditions.values)
    return int(total.scalar_one())


def _read_refused_machines(
    connection: SqlConnection, conditions: Conditions, order: str
) -> list[RefusedMachine]:
    rows = connection.exec_driver_sql(
        "SELECT connection_id, developer_id, hostname, address, user_agent, reason, message,"
        f" first_us, last_us, count FROM {REFUSED_MACHINE_TABLE} WHERE {conditions} {order}",
        conditions.values,
    )
    return [
        RefusedMachine._make([*row[:7], moment_of(row[7]), moment_of(row[8]), int(row[9])])
        for row in rows
    ]
