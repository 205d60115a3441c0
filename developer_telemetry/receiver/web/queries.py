"""Queries of the page. An index, a range of days or a number of rows bounds each statement."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import DAY_US, MACHINE_TABLE, QUIET_US, REFUSAL_TABLE, TOOL_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import limited, now_us, prepare, with_short_timeouts
from developer_telemetry.reports.daily_metrics import format_timestamp

# A longer statement would slow down the storing of reports.
STATEMENT_SECONDS = 5
# A long statement on one of them must not delay all others.
CONNECTIONS = 2

MACHINES_A_PAGE = 20
# The tools are in the rows themselves, not in an index: each row may need a page from disk.
TOOL_ROWS = 5_000
MAX_PAGES = 1_000


class AgeClass(NamedTuple):
    """A class of machines by the time since their newest report.

    `until_us` is the longest time in it, in microseconds; None means that there is no limit.
    """

    key: str
    title: str
    until_us: Optional[int]


AGE_CLASSES = (
    AgeClass("day", "in the last 24 hours", DAY_US),
    AgeClass("days", "1 to 3 days ago", 3 * DAY_US),
    AgeClass("week", "3 to 7 days ago", 7 * DAY_US),
    AgeClass("month", "1 to 4 weeks ago", 28 * DAY_US),
    AgeClass("older", "longer ago", None),
)


class Fleet(NamedTuple):
    """The machines of one connection: the number in each of AGE_CLASSES, and the newest report."""

    ages: tuple[int, ...]
    reports: int
    last_seen: Optional[datetime.datetime]


class Machine(NamedTuple):
    """A row of the table of machines; times are UTC."""

    connection_id: int
    developer_id: str
    hostname: str
    first_seen: Optional[datetime.datetime]
    last_seen: Optional[datetime.datetime]
    reports: int


class MachineFilter(NamedTuple):
    """The machines to list; `connection_id` 0, `text` "" and `state` "" select all."""

    connection_id: int = 0
    text: str = ""
    state: str = ""  # "heard" (within a day) or "quiet" (not for QUIET_US)
    page: int = 1


class RefusalCount(NamedTuple):
    """The number of reports refused for one reason, and the day of the last one."""

    connection_id: int
    reason: str
    reports: int
    last_day: datetime.date


# For each day the number of reports by their active hours.
Hours = dict[datetime.date, dict[int, int]]


class ToolUse(NamedTuple):
    """For each tool the number of reported days that name it, out of `days`; largest first."""

    days: int
    used: tuple[tuple[str, int], ...]


def open_reading_engine(url: str) -> Engine:
    """Open an engine for the page alone, with few connections and bounded statements.

    The database cancels a statement after STATEMENT_SECONDS.
    """
    from pydevlake.database import create_db_engine

    options: dict[str, Any] = {"pool_recycle": 600}
    if not url.startswith("sqlite"):
        options.update(pool_size=CONNECTIONS, max_overflow=0, pool_timeout=STATEMENT_SECONDS)
    return limited(
        with_short_timeouts(prepare(create_db_engine(url, **options))), STATEMENT_SECONDS
    )


def fleets(connection: SqlConnection) -> dict[int, Fleet]:
    """Count the machines of each connection, by its id; a connection without machines is absent."""
    values: list[str] = []
    conditions: list[str] = []
    end: Optional[str] = None
    for age in AGE_CLASSES:
        start = None if age.until_us is None else _ago(age.until_us)
        limits = [("last_seen >= {0}", start), ("last_seen < {0}", end)]
        bounds = [(text, value) for text, value in limits if value is not None]
        conditions.append(" AND ".join(text for text, _ in bounds))
        values.extend(value for _, value in bounds)
        end = start
    counts = ", ".join(f"SUM(CASE WHEN {text} THEN 1 ELSE 0 END)" for text in conditions)
    rows = connection.exec_driver_sql(
        f"SELECT connection_id, {counts.format(dialect_of(connection).placeholder)},"
        f" SUM(reports), MAX(last_seen) FROM {MACHINE_TABLE} GROUP BY connection_id",
        tuple(values),
    )
    return {
        int(row[0]): Fleet(tuple(map(int, row[1:-2])), int(row[-2]), _moment(row[-1]))
        for row in rows
    }


def machines(connection: SqlConnection, machine_filter: MachineFilter) -> tuple[int, list[Machine]]:
    """Read the machines of a filter's page, the newest report first.

    Returns:
        The number of machines on all pages of the filter, and those on its page.
    """
    where, values = _condition(connection, machine_filter)
    total = connection.exec_driver_sql(f"SELECT COUNT(*) {where}", values).scalar_one()
    start = (machine_filter.page - 1) * MACHINES_A_PAGE
    rows = connection.exec_driver_sql(
        f"SELECT connection_id, developer_id, hostname, first_seen, last_seen, reports {where}"
        " ORDER BY last_seen DESC, connection_id, developer_id, hostname"
        f" LIMIT {MACHINES_A_PAGE} OFFSET {start}",
        values,
    ).fetchall()
    return int(total), [
        Machine(row[0], row[1], row[2], _moment(row[3]), _moment(row[4]), int(row[5]))
        for row in rows
    ]


def _condition(
    connection: SqlConnection, machine_filter: MachineFilter
) -> tuple[str, tuple[Union[int, str], ...]]:
    """Return FROM and WHERE of the machines of a filter, and the statement's values."""
    placeholder = dialect_of(connection).placeholder
    conditions = ["1 = 1"]
    values: list[Union[int, str]] = []
    if machine_filter.connection_id:
        conditions.append(f"connection_id = {placeholder}")
        values.append(machine_filter.connection_id)
    if machine_filter.state in ("heard", "quiet"):
        is_quiet = machine_filter.state == "quiet"
        conditions.append(f"last_seen {'<' if is_quiet else '>='} {placeholder}")
        values.append(_ago(QUIET_US if is_quiet else DAY_US))
    if machine_filter.text:
        like = f"LIKE {placeholder} ESCAPE '!'"
        conditions.append(f"(LOWER(developer_id) {like} OR LOWER(hostname) {like})")
        values += [_containing(machine_filter.text)] * 2
    return f"FROM {MACHINE_TABLE} WHERE {' AND '.join(conditions)}", tuple(values)


def refusals(connection: SqlConnection, since: datetime.date) -> list[RefusalCount]:
    """Count the refusals since a day by connection and reason: at most 50, the largest first."""
    rows = connection.exec_driver_sql(
        f"SELECT connection_id, reason, SUM(count), MAX(day) FROM {REFUSAL_TABLE}"
        f" WHERE day >= {dialect_of(connection).placeholder} GROUP BY connection_id, reason"
        " ORDER BY 3 DESC, 1, 2 LIMIT 50",
        (since.isoformat(),),
    )
    return [RefusalCount(row[0], row[1], int(row[2]), _day(row[3])) for row in rows]


def hours(connection: SqlConnection, first: datetime.date, last: datetime.date) -> Hours:
    """Count the reports of each day by active hours, from the first day to the last one."""
    placeholder = dialect_of(connection).placeholder
    rows = connection.exec_driver_sql(
        f"SELECT date, active_hours, COUNT(*) FROM {TOOL_TABLE}"
        f" WHERE date >= {placeholder} AND date <= {placeholder} GROUP BY date, active_hours",
        (first.isoformat(), last.isoformat()),
    )
    counts: Hours = {}
    for day, active, count in rows:
        counts.setdefault(_day(day), {})[int(active)] = int(count)
    return counts


def tools(
    connection: SqlConnection, first: datetime.date, last: datetime.date, most: int = 14
) -> ToolUse:
    """Count the tools used most from the first day to the last one, in the newest TOOL_ROWS rows.

    Args:
        most: the number of tools to return.
    """
    dialect = dialect_of(connection)
    placeholder = dialect.placeholder
    days = (first.isoformat(), last.isoformat())
    newest = (
        f"FROM {TOOL_TABLE} WHERE date >= {placeholder} AND date <= {placeholder}"
        f" ORDER BY date DESC LIMIT {TOOL_ROWS}"
    )
    total = connection.exec_driver_sql(f"SELECT COUNT(*) FROM (SELECT date {newest}) d", days)
    rows = connection.exec_driver_sql(
        f"SELECT i.value, COUNT(*) FROM (SELECT tools_used {newest}) t,"
        f" {dialect.items('t.tools_used')} AS i GROUP BY i.value ORDER BY 2 DESC, 1 LIMIT {most}",
        days,
    )
    return ToolUse(int(total.scalar_one()), tuple((name, int(count)) for name, count in rows))


def _ago(microseconds: int) -> str:
    return format_timestamp(now_us() - microseconds)


def _containing(text: str) -> str:
    """Return the pattern of LIKE for texts that contain `text`, in lower case."""
    for special in "!%_":
        text = text.replace(special, f"!{special}")
    return f"%{text.lower()}%"


def _moment(value: Union[datetime.datetime, str, None]) -> Optional[datetime.datetime]:
    if isinstance(value, str):  # SQLite has no type for times
        value = datetime.datetime.fromisoformat(value)
    if value is None or value.tzinfo is not None:
        return value
    return value.replace(tzinfo=datetime.timezone.utc)


def _day(value: Union[datetime.date, str]) -> datetime.date:
    return datetime.date.fromisoformat(value) if isinstance(value, str) else value


def today() -> datetime.date:
    """Return the current day in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).date()


def days_before(day: datetime.date, count: int) -> Sequence[datetime.date]:
    """Return `count` days in order; the last one is `day`."""
    return [day - datetime.timedelta(days=offset) for offset in range(count - 1, -1, -1)]
