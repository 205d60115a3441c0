"""What the page asks the database. Every statement is bounded by an index, by days, or by rows."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

from sqlalchemy.engine import Connection, Engine

from developer_telemetry.constants import DAY_US, MACHINE_TABLE, QUIET_US, REFUSAL_TABLE, TOOL_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import hurried, limited, now_us, prepare
from developer_telemetry.reports.daily_metrics import timestamp

# Whatever takes longer would cost the reports more than it is worth to who looks.
STATEMENT_SECONDS = 5
# One may be busy with a long statement while another answers.
CONNECTIONS = 2


MACHINES_A_PAGE = 20
# Their texts lie in the rows, each of which may be a page to read from disk.
TOOL_ROWS = 5_000
MAX_PAGES = 1_000


class Age(NamedTuple):
    """A class of machines by the time since they were last heard of; `until_us` is its end."""

    key: str
    title: str
    until_us: Optional[int]


AGES = (
    Age("day", "in the last 24 hours", DAY_US),
    Age("days", "1 to 3 days ago", 3 * DAY_US),
    Age("week", "3 to 7 days ago", 7 * DAY_US),
    Age("month", "1 to 4 weeks ago", 28 * DAY_US),
    Age("gone", "longer ago", None),
)


class Fleet(NamedTuple):
    """The machines of one connection: how many in each of AGES, and the newest report."""

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


class Choice(NamedTuple):
    """Which machines are asked for; `connection_id` 0 and `text` "" mean all."""

    connection_id: int = 0
    text: str = ""
    state: str = ""  # "", "heard" or "quiet"
    page: int = 1


class Refused(NamedTuple):
    """Refusals of one reason, and the last day on which there was one."""

    connection_id: int
    reason: str
    reports: int
    last_day: datetime.date


# How many of a day's reports had so many active hours, by day and hours.
Hours = dict[datetime.date, dict[int, int]]


class Tools(NamedTuple):
    """In how many of `days` reported days each tool was used, the most used first."""

    days: int
    used: tuple[tuple[str, int], ...]


def open_reading_engine(url: str) -> Engine:
    """A few connections of the page's own, whose statements give up after some seconds."""
    from pydevlake.database import create_db_engine

    options: dict[str, Any] = {"pool_recycle": 600}
    if not url.startswith("sqlite"):
        options.update(pool_size=CONNECTIONS, max_overflow=0, pool_timeout=STATEMENT_SECONDS)
    return limited(hurried(prepare(create_db_engine(url, **options))), STATEMENT_SECONDS)


def fleets(connection: Connection) -> dict[int, Fleet]:
    """The machines of each connection that has any, by its id."""
    marks: list[str] = []
    ages: list[str] = []
    later: Optional[str] = None
    for age in AGES:
        start = None if age.until_us is None else _ago(age.until_us)
        since, before = ("last_seen >= {0}", start), ("last_seen < {0}", later)
        given = [(text, value) for text, value in (since, before) if value is not None]
        ages.append(" AND ".join(text for text, _ in given))
        marks.extend(value for _, value in given)
        later = start
    counted = ", ".join(f"SUM(CASE WHEN {age} THEN 1 ELSE 0 END)" for age in ages)
    rows = connection.exec_driver_sql(
        f"SELECT connection_id, {counted.format(dialect_of(connection).placeholder)},"
        f" SUM(reports), MAX(last_seen) FROM {MACHINE_TABLE} GROUP BY connection_id",
        tuple(marks),
    )
    return {
        int(row[0]): Fleet(tuple(map(int, row[1:-2])), int(row[-2]), _moment(row[-1]))
        for row in rows
    }


def machines(connection: Connection, choice: Choice) -> tuple[int, list[Machine]]:
    """How many machines are chosen, and those on its page, the one last heard of first."""
    mark = dialect_of(connection).placeholder
    conditions = ["1 = 1"]
    values: list[Union[int, str]] = []
    if choice.connection_id:
        conditions.append(f"connection_id = {mark}")
        values.append(choice.connection_id)
    if choice.state in ("heard", "quiet"):
        quiet = choice.state == "quiet"
        conditions.append(f"last_seen {'<' if quiet else '>='} {mark}")
        values.append(_ago(QUIET_US if quiet else DAY_US))
    if choice.text:
        like = f"LIKE {mark} ESCAPE '!'"
        conditions.append(f"(LOWER(developer_id) {like} OR LOWER(hostname) {like})")
        values += [_containing(choice.text)] * 2
    where = f"FROM {MACHINE_TABLE} WHERE {' AND '.join(conditions)}"
    total = connection.exec_driver_sql(f"SELECT COUNT(*) {where}", tuple(values)).scalar_one()
    start = (choice.page - 1) * MACHINES_A_PAGE
    rows = connection.exec_driver_sql(
        f"SELECT connection_id, developer_id, hostname, first_seen, last_seen, reports {where}"
        " ORDER BY last_seen DESC, connection_id, developer_id, hostname"
        f" LIMIT {MACHINES_A_PAGE} OFFSET {start}",
        tuple(values),
    ).fetchall()
    return int(total), [
        Machine(row[0], row[1], row[2], _moment(row[3]), _moment(row[4]), int(row[5]))
        for row in rows
    ]


def refusals(connection: Connection, since: datetime.date) -> list[Refused]:
    """What was refused since a day, the most frequent reason first, at most 50."""
    rows = connection.exec_driver_sql(
        f"SELECT connection_id, reason, SUM(count), MAX(day) FROM {REFUSAL_TABLE}"
        f" WHERE day >= {dialect_of(connection).placeholder} GROUP BY connection_id, reason"
        " ORDER BY 3 DESC, 1, 2 LIMIT 50",
        (since.isoformat(),),
    )
    return [Refused(row[0], row[1], int(row[2]), _day(row[3])) for row in rows]


def hours(connection: Connection, first: datetime.date, last: datetime.date) -> Hours:
    """Active hours of all reported days between two days, both included."""
    mark = dialect_of(connection).placeholder
    rows = connection.exec_driver_sql(
        f"SELECT date, active_hours, COUNT(*) FROM {TOOL_TABLE}"
        f" WHERE date >= {mark} AND date <= {mark} GROUP BY date, active_hours",
        (first.isoformat(), last.isoformat()),
    )
    found: Hours = {}
    for day, active, count in rows:
        found.setdefault(_day(day), {})[int(active)] = int(count)
    return found


def tools(
    connection: Connection, first: datetime.date, last: datetime.date, most: int = 14
) -> Tools:
    """The tools used most between two days, both included, in the newest TOOL_ROWS of them."""
    dialect = dialect_of(connection)
    mark = dialect.placeholder
    days = (first.isoformat(), last.isoformat())
    newest = (
        f"FROM {TOOL_TABLE} WHERE date >= {mark} AND date <= {mark}"
        f" ORDER BY date DESC LIMIT {TOOL_ROWS}"
    )
    total = connection.exec_driver_sql(f"SELECT COUNT(*) FROM (SELECT date {newest}) d", days)
    rows = connection.exec_driver_sql(
        f"SELECT i.value, COUNT(*) FROM (SELECT tools_used {newest}) t,"
        f" {dialect.items('t.tools_used')} AS i GROUP BY i.value ORDER BY 2 DESC, 1 LIMIT {most}",
        days,
    )
    return Tools(int(total.scalar_one()), tuple((name, int(count)) for name, count in rows))


def _ago(microseconds: int) -> str:
    return timestamp(now_us() - microseconds)


def _containing(text: str) -> str:
    for special in "!%_":
        text = text.replace(special, f"!{special}")
    return f"%{text.lower()}%"


def _moment(value: Union[datetime.datetime, str, None]) -> Optional[datetime.datetime]:
    if isinstance(value, str):  # as SQLite has it
        value = datetime.datetime.fromisoformat(value)
    if value is None or value.tzinfo is not None:
        return value
    return value.replace(tzinfo=datetime.timezone.utc)


def _day(value: Union[datetime.date, str]) -> datetime.date:
    return datetime.date.fromisoformat(value) if isinstance(value, str) else value


def today() -> datetime.date:
    """By UTC."""
    return datetime.datetime.now(datetime.timezone.utc).date()


def days_before(day: datetime.date, count: int) -> Sequence[datetime.date]:
    """`count` days, the last of which is `day`."""
    return [day - datetime.timedelta(days=back) for back in range(count - 1, -1, -1)]
