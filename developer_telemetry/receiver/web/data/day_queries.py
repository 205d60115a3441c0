"""Queries of the page about days of work.

The index by day has all columns of most of them. They count people by their developer id, so a
person who is one developer of two connections counts once.
"""

from __future__ import annotations

import datetime
from typing import NamedTuple

from sqlalchemy.engine import Connection as SqlConnection

from developer_telemetry.constants import TOOL_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.receiver.web.data.queries import (
    CONNECTION_NAME,
    Conditions,
    Slice,
    moment_of,
    order_sql,
    to_day,
)

# The tools are in the rows themselves, not in an index: each row may need a page from disk.
TOOL_ROWS = 5_000
# The hours of fewer people would be those of a person.
FEWEST_PEOPLE = 5

# For each day the number of reports by their active hours.
Hours = dict[datetime.date, dict[int, int]]

_SORTS = {
    "day": "date",
    "developer": "developer_id",
    "connection": CONNECTION_NAME,
    "arrived": "arrived_us",
}
_KEY = ("date DESC", "connection_id", "developer_id")


class Period(NamedTuple):
    """The days from the first to the last, of one connection, or for 0 of all."""

    first: datetime.date
    last: datetime.date
    connection_id: int = 0

    def conditions(self, connection: SqlConnection) -> Conditions:
        """Return the conditions for its rows."""
        conditions = Conditions(connection)
        conditions.add_days(self.first, self.last)
        conditions.add_connection(self.connection_id)
        return conditions

    def before(self) -> Period:
        """Return the period of the same length that ends before this one."""
        length = (self.last - self.first).days + 1
        return self._replace(
            first=self.first - datetime.timedelta(days=length),
            last=self.first - datetime.timedelta(days=1),
        )


class WorkCount(NamedTuple):
    """The numbers of days of work and of the people who reported them."""

    days: int
    people: int


class ToolUse(NamedTuple):
    """For each tool the number of reported days that name it, out of `days`; largest first."""

    days: int
    used: tuple[tuple[str, int], ...]


class Day(NamedTuple):
    """A developer's day of work, and the arrival of its newest report."""

    connection_id: int
    developer_id: str
    day: datetime.date
    arrived: datetime.datetime


def hours(connection: SqlConnection, period: Period) -> Hours:
    """Count the reports of each day by active hours."""
    conditions = period.conditions(connection)
    rows = connection.exec_driver_sql(
        f"SELECT date, active_hours, COUNT(*) FROM {TOOL_TABLE} WHERE {conditions}"
        " GROUP BY date, active_hours",
        conditions.values,
    )
    counts: Hours = {}
    for day, active, count in rows:
        counts.setdefault(to_day(day), {})[int(active)] = int(count)
    return counts


def has_few_people(connection: SqlConnection, period: Period, connections: int) -> bool:
    """Return true if fewer than FEWEST_PEOPLE people have active hours in a period.

    It reads so few rows that fewer people can't have more.

    Args:
        connections: The number of connections; a person has a row a day of each.
    """
    conditions = period.conditions(connection)
    conditions.add("active_hours > 0")
    rows = most_rows(period, connections)
    people = connection.exec_driver_sql(
        f"SELECT COUNT(DISTINCT d.developer_id) FROM (SELECT developer_id FROM {TOOL_TABLE}"
        f" WHERE {conditions} LIMIT {rows + 1}) d",
        conditions.values,
    ).scalar_one()
    return int(people) < FEWEST_PEOPLE


def most_rows(period: Period, connections: int) -> int:
    """Return the largest number of days of work that too few people can have."""
    days = (period.last - period.first).days + 1
    return (FEWEST_PEOPLE - 1) * days * (1 if period.connection_id else max(1, connections))


def count_work(connection: SqlConnection, period: Period) -> WorkCount:
    """Count the days of work and the people of a period."""
    conditions = period.conditions(connection)
    row = connection.exec_driver_sql(
        f"SELECT COUNT(*), COUNT(DISTINCT developer_id) FROM {TOOL_TABLE} WHERE {conditions}",
        conditions.values,
    ).one()
    return WorkCount(int(row[0]), int(row[1]))


def tools(connection: SqlConnection, period: Period, most: int = 14) -> ToolUse:
    """Count the tools used most, in the newest TOOL_ROWS rows.

    Args:
        most: The number of tools to return.
    """
    conditions = period.conditions(connection)
    total = connection.exec_driver_sql(
        f"SELECT COUNT(*) FROM (SELECT date {_newest(conditions)}) d", conditions.values
    )
    rows = connection.exec_driver_sql(
        f"SELECT i.value, COUNT(*) {_tools_sql(connection, conditions)}"
        f" GROUP BY i.value ORDER BY 2 DESC, 1 LIMIT {most}",
        conditions.values,
    )
    return ToolUse(int(total.scalar_one()), tuple((name, int(count)) for name, count in rows))


def list_days(
    connection: SqlConnection, period: Period, tool: str, part: Slice
) -> tuple[int, list[Day]]:
    """Read days of work.

    Args:
        tool: Only those that name it, out of the rows in which `tools` counts; "" for all days.

    Returns:
        The number of all, and those of the part.
    """
    conditions = period.conditions(connection)
    values = conditions.values
    if tool:
        source = _tools_sql(connection, conditions)
        source += f" WHERE i.value = {dialect_of(connection).placeholder}"
        values = (*values, tool)
    else:
        source = f"FROM {TOOL_TABLE} WHERE {conditions}"
    total = connection.exec_driver_sql(f"SELECT COUNT(*) {source}", values).scalar_one()
    rows = connection.exec_driver_sql(
        f"SELECT connection_id, developer_id, date, arrived_us {source}"
        f" {order_sql(_SORTS, part, '-day', _KEY)}",
        values,
    )
    return int(total), [Day(row[0], row[1], to_day(row[2]), moment_of(row[3])) for row in rows]


def _newest(conditions: Conditions) -> str:
    return f"FROM {TOOL_TABLE} WHERE {conditions} ORDER BY date DESC LIMIT {TOOL_ROWS}"


def _tools_sql(connection: SqlConnection, conditions: Conditions) -> str:
    """Return a source of the newest rows, once for each tool `i.value` of them."""
    columns = "connection_id, developer_id, date, arrived_us, tools_used"
    items = dialect_of(connection).items("t.tools_used")
    return f"FROM (SELECT {columns} {_newest(conditions)}) t, {items} AS i"
