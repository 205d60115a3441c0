"""Expand dashboards' queries as Grafana does, and compute the expected answers without SQL.

Each function of `ANSWERS` returns the rows that a panel of the fleet has to show for the selected
rows of the tool layer, in the panel's order, with dates as ISO texts.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any, Callable, NamedTuple

from developer_telemetry.reports.daily_metrics import ToolRow

Value = Any
Rows = list[tuple[Value, ...]]


class Chosen(NamedTuple):
    """The values of a dashboard's variables; an empty list is All.

    A page of groups has `group` alone: kind and id, with a space between them.
    """

    connection: Sequence[int] = ()
    project: Sequence[str] = ()
    team: Sequence[str] = ()
    developer: Sequence[str] = ()
    group: str = "everybody "


class Machine(NamedTuple):
    connection_id: int
    developer_id: str
    hostname: str
    first_us: int
    last_us: int
    reports: int
    is_retired: bool = False
    user_agent: str = ""


class Data(NamedTuple):
    """The selected rows of the database, and the selected seconds."""

    start: int
    end: int
    rows: Sequence[ToolRow]  # of the days selected
    machines: Sequence[Machine]
    machine_days: Sequence[tuple[int, str, str, str]]  # connection, developer, host, date
    refusals: Mapping[tuple[int, str, str], int]  # connection, day, reason
    linked: int
    refused_machines: Rows = []  # as the panel lists them

    @property
    def first_day(self) -> date:
        return _date(self.start)

    @property
    def last_day(self) -> date:
        return _date(self.end)

    @property
    def days(self) -> list[date]:
        count = (self.last_day - self.first_day).days + 1
        return [self.first_day + timedelta(n) for n in range(count)]

    @property
    def weeks(self) -> list[date]:
        return sorted({monday(day) for day in self.days})


def expand(sql: str, database: str, start: int, end: int, chosen: Chosen) -> str:
    """Return the query as Grafana sends it, with macros and variables replaced."""
    sql = sql.replace("$__unixEpochFrom()", str(start)).replace("$__unixEpochTo()", str(end))
    connections = ",".join(map(str, chosen.connection)) or "0"
    sql = sql.replace("${connection:csv}", connections)
    sql = sql.replace("${group:sqlstring}", _quoted(as_value(chosen.group, database)))
    for name in ("project", "team", "developer"):
        values = [as_value(value, database) for value in getattr(chosen, name)]
        quoted = ",".join(map(_quoted, values))
        sql = sql.replace(f"${{{name}:sqlstring}}", quoted or "''")
    return sql


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def as_value(text: str, database: str) -> str:
    """Return a text as the variable's own query returns it."""
    return text.replace("\\", "\\\\") if database == "mysql" else text


def _date(epoch: int) -> date:
    return datetime.fromtimestamp(epoch, timezone.utc).date()


def monday(day: date) -> date:
    return day - timedelta(day.weekday())


def day_of(row: ToolRow) -> date:
    return date.fromisoformat(row.date)


def week_of(row: ToolRow) -> date:
    return monday(day_of(row))


def person_of(row: ToolRow) -> tuple[int, str]:
    return row.connection_id, row.developer_id


def grouped(rows: Iterable[ToolRow], key: Callable[[ToolRow], Any]) -> dict[Any, list[ToolRow]]:
    groups: dict[Any, list[ToolRow]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def by_day(data: Data, rows: Iterable[ToolRow], figure: Callable[[list[ToolRow]], Value]) -> Rows:
    groups = grouped(rows, day_of)
    return [(str(day), figure(groups.get(day, []))) for day in data.days]


def ages(data: Data) -> list[tuple[Machine, int]]:
    known = [each for each in data.machines if each.first_us // 1_000_000 <= data.end]
    known = [each for each in known if not each.is_retired]
    return [(each, data.end - each.last_us // 1_000_000) for each in known]


def machines_heard(data: Data) -> Rows:
    return [(sum(age <= 7 * 86400 for _, age in ages(data)),)]


def machines_by_day(data: Data) -> Rows:
    days = Counter(each[3] for each in set(data.machine_days))
    return [(str(day), days[str(day)]) for day in data.days]


def freshness(data: Data) -> Rows:
    limits = [1, 3, 7, 30, math.inf]
    names = ["up to a day", "up to 3 days", "up to 7 days", "up to 30 days", "older"]
    places = [
        next(n for n, top in enumerate(limits) if age <= top * 86400) for _, age in ages(data)
    ]
    return [(f"{n + 1}: {name}", places.count(n)) for n, name in enumerate(names)]


def quiet(data: Data) -> Rows:
    silent = [
        (each.developer_id, each.hostname, each.last_us // 1_000_000, age, each.reports)
        for each, age in ages(data)
        if 7 * 86400 < age <= data.end - data.start
    ]
    return sorted(silent)


def collectors(data: Data) -> Rows:
    groups: dict[str, list[int]] = {}
    for machine, _ in ages(data):
        groups.setdefault(machine.user_agent, []).append(machine.last_us // 1_000_000)
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    return [(agent or "unknown", len(times), max(times)) for agent, times in ordered]


def coverage(data: Data) -> Rows:
    known = {each[:2] for each in data.machines}
    return [(len({person_of(row) for row in data.rows}), len(known), data.linked)]


def refused_by_day(data: Data) -> Rows:
    counts: Counter[tuple[str, str]] = Counter()
    for (_, day, reason), count in data.refusals.items():
        counts[day, reason] += count
    reasons = sorted({reason for _, reason in counts})
    return [(str(day), why, counts[str(day), why]) for day in data.days for why in reasons]


def late(data: Data) -> Rows:
    counts: dict[date, list[int]] = {week: [0, 0, 0] for week in data.weeks}
    for row in data.rows:
        days = (_date(row.arrived_us // 1_000_000) - day_of(row)).days
        counts[week_of(row)][0 if days <= 1 else 1 if days <= 3 else 2] += 1
    return [(str(week), *counts[week]) for week in data.weeks]


ANSWERS: dict[str, Callable[[Data], Rows]] = {
    "Machines Heard From [Last 7 Days of Selected Time Range]": machines_heard,
    "Machines with a Report about the Day": machines_by_day,
    "Coverage: Developers": coverage,
    "Developers with a Report about the Day": lambda data: by_day(data, data.rows, len),
    "Machines by Age of Newest Report": freshness,
    "Quiet Machines [Silent for More than 7 Days]": quiet,
    "Machines by Collector": collectors,
    "Refused Reports [Selected Time Range]": lambda data: [(sum(data.refusals.values()),)],
    "Refused Reports by Day and Reason": refused_by_day,
    "Refused Machines [Last 14 Days at Most]": lambda data: data.refused_machines,
    "Developer Days by Arrival of Their Newest Report [Each Week]": late,
}
