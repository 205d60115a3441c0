"""Expand dashboards' queries as Grafana does, and compute the expected answers without SQL.

Each function of `ANSWERS` returns the rows that a panel has to show for the selected rows of the
tool layer, in the panel's order, with dates as ISO texts.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any, Callable, NamedTuple

from developer_telemetry.reports.daily_metrics import ToolRow

Value = Any
Rows = list[tuple[Value, ...]]
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Chosen(NamedTuple):
    """The values of a dashboard's variables; an empty list is All. One page has `user`."""

    connection: Sequence[int] = ()
    project: Sequence[str] = ()
    team: Sequence[str] = ()
    developer: Sequence[str] = ()
    user: Sequence[str] = ()


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
    teams: Mapping[str, tuple[str, Sequence[tuple[int, str]]]]  # name and developers, by id
    members: Sequence[tuple[str, int, str]] = ()  # name, accounts, user id
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

    @property
    def active(self) -> list[ToolRow]:
        return [row for row in self.rows if row.active_hours > 0]


def expand(sql: str, database: str, start: int, end: int, chosen: Chosen) -> str:
    """Return the query as Grafana sends it, with macros and variables replaced."""
    sql = sql.replace("$__unixEpochFrom()", str(start)).replace("$__unixEpochTo()", str(end))
    connections = ",".join(map(str, chosen.connection)) or "0"
    sql = sql.replace("${connection:csv}", connections)
    for name in ("project", "team", "developer", "user"):
        values = [as_value(value, database) for value in getattr(chosen, name)]
        quoted = ",".join("'" + value.replace("'", "''") + "'" for value in values)
        sql = sql.replace(f"${{{name}:sqlstring}}", quoted or "''")
    return sql


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


def quartiles(values: Iterable[int]) -> tuple[Value, Value, Value]:
    ranked = sorted(values)
    if not ranked:
        return None, None, None
    first, second, third = (ranked[math.ceil(n * len(ranked) / 4) - 1] for n in (1, 2, 3))
    return first, second, third


def grouped(rows: Iterable[ToolRow], key: Callable[[ToolRow], Any]) -> dict[Any, list[ToolRow]]:
    groups: dict[Any, list[ToolRow]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def by_day(data: Data, rows: Iterable[ToolRow], figure: Callable[[list[ToolRow]], Value]) -> Rows:
    groups = grouped(rows, day_of)
    return [(str(day), figure(groups.get(day, []))) for day in data.days]


def by_week(data: Data, *columns: str) -> Rows:
    groups = grouped(data.rows, week_of)
    return [
        (str(week), *(sum(getattr(row, each) for row in groups.get(week, [])) for each in columns))
        for week in data.weeks
    ]


def weekly_quartiles(data: Data, column: str) -> Rows:
    sums: dict[date, Counter[tuple[int, str]]] = defaultdict(Counter)
    for row in data.active:
        sums[week_of(row)][person_of(row)] += getattr(row, column)
    return [(str(week), *quartiles(sums[week].values())) for week in data.weeks]


def active_by(data: Data, start: Callable[[date], date]) -> Rows:
    people: dict[date, set[tuple[int, str]]] = {start(day): set() for day in data.days}
    for row in data.active:
        people[start(day_of(row))].add(person_of(row))
    return [(str(period), len(people[period])) for period in sorted(people)]


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


def median_hours(data: Data) -> Rows:
    hours = [row.active_hours for row in data.active]
    return [(quartiles(hours)[1],)] if hours else []


def hours_by_day(data: Data) -> Rows:
    groups = grouped(data.active, day_of)
    return [
        (str(day), *quartiles(row.active_hours for row in groups.get(day, []))) for day in data.days
    ]


def hours_by_team(data: Data) -> Rows:
    result = []
    for identity, (name, developers) in data.teams.items():
        hours = [row.active_hours for row in data.active if person_of(row) in set(developers)]
        if hours:
            result.append((name, *quartiles(hours), len(hours), sum(hours), identity))
    return sorted(result)


def hours_by_weekday(data: Data) -> Rows:
    days: Counter[int] = Counter()
    for own in grouped(data.rows, person_of).values():
        first, last = min(map(day_of, own)), max(map(day_of, own))
        days.update((first + timedelta(n)).weekday() for n in range((last - first).days + 1))
    hours: Counter[int] = Counter()
    for row in data.rows:
        hours[day_of(row).weekday()] += row.active_hours
    return [(name, hours[n] / days[n] if days[n] else 0) for n, name in enumerate(WEEKDAYS)]


def projects_a_day(data: Data) -> Rows:
    groups = grouped(data.active, week_of)
    result: Rows = []
    for week in data.weeks:
        counts = [len(json.loads(row.project_context)) for row in groups.get(week, [])]
        if counts:
            share = 100 * sum(count > 2 for count in counts) / len(counts)
            result.append((str(week), sum(counts) / len(counts), share))
        else:
            result.append((str(week), None, None))
    return result


def last_days(data: Data) -> dict[date, list[ToolRow]]:
    newest = {(week_of(row), *person_of(row)): row for row in sorted(data.active, key=day_of)}
    return grouped(newest.values(), week_of)


def tools_by_week(data: Data) -> Rows:
    used = {week: _items(rows) for week, rows in last_days(data).items()}
    totals = sum(used.values(), Counter())
    top = sorted(totals, key=lambda item: (-totals[item], item))[:10]
    return [
        (
            str(week),
            item,
            100 * used[week][item] / len(last_days(data)[week]) if week in used else 0,
        )
        for week in data.weeks
        for item in sorted(top)
    ]


def _items(rows: Iterable[ToolRow]) -> Counter[str]:
    return Counter(item for row in rows for item in json.loads(row.tools_used))


def tools(data: Data) -> Rows:
    newest = last_days(data)
    everybody = sum(map(len, newest.values()))
    seen: dict[str, list[date]] = defaultdict(list)
    for week, rows in newest.items():
        for item in _items(rows).elements():
            seen[item].append(week)
    middle = data.first_day + timedelta((data.last_day - data.first_day).days // 2)
    ranked = sorted(seen, key=lambda item: (-len(seen[item]), item))
    return [
        (
            item,
            100 * len(seen[item]) / everybody,
            str(min(seen[item])),
            str(max(seen[item])),
            "new" if min(seen[item]) > middle else "gone" if max(seen[item]) < middle else "",
        )
        for item in ranked
    ]


def commands(data: Data) -> Rows:
    times: Counter[str] = Counter()
    days: Counter[str] = Counter()
    for row in data.rows:
        counts = json.loads(row.command_counts)
        times.update(counts)
        days.update(dict.fromkeys(counts, 1))
    return [(each, times[each], days[each]) for each in sorted(days, key=lambda c: (-times[c], c))]


def commands_by_week(data: Data) -> Rows:
    top = sorted(each[0] for each in commands(data)[:10])
    weekly: dict[date, Counter[str]] = defaultdict(Counter)
    for row in data.rows:
        weekly[week_of(row)].update(json.loads(row.command_counts))
    return [(str(week), each, weekly[week][each]) for week in data.weeks for each in top]


def repositories(data: Data) -> Rows:
    columns = ("commits", "lines_added", "lines_deleted")
    found: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for row in data.rows:
        for each in json.loads(row.git_activity).get("repositories", []):
            found[each["name"]].append(tuple(each[column] for column in columns))
    ranked = sorted(found, key=lambda name: (-len(found[name]), name))
    return [(name, len(found[name]), *map(sum, zip(*found[name]))) for name in ranked]


def projects(data: Data) -> Rows:
    days: dict[str, set[str]] = defaultdict(set)
    for row in data.rows:
        for project in json.loads(row.project_context):
            days[project].add(row.date)
    ranked = sorted(days, key=lambda name: (-len(days[name]), name))
    return [(name, len(days[name]), min(days[name]), max(days[name])) for name in ranked]


def members(data: Data) -> Rows:
    return sorted(data.members, key=lambda each: (each[0], each[2]))


def total(column: str) -> Callable[[Data], Rows]:
    return lambda data: [(sum(getattr(row, column) for row in data.rows),)]


def weekly(*columns: str) -> Callable[[Data], Rows]:
    return lambda data: by_week(data, *columns)


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
    "Median Active Hours of a Developer's Day": median_hours,
    "Active Hours of a Developer's Day": hours_by_day,
    "Active Hours of a Developer's Week": lambda data: weekly_quartiles(data, "active_hours"),
    "Sum of Active Hours by Week": weekly("active_hours"),
    "Active Hours of a Developer's Day by Team": hours_by_team,
    "Mean Active Hours of a Developer by Day of the Week": hours_by_weekday,
    "Active Developers [Selected Time Range]": lambda data: [
        (len(set(map(person_of, data.active))),)
    ],
    "Active Developers by Day": lambda data: active_by(data, lambda day: day),
    "Active Developers by Week": lambda data: active_by(data, monday),
    "Active Developers by Month": lambda data: active_by(data, lambda day: day.replace(day=1)),
    "Projects of an Active Developer's Day [Each Week]": projects_a_day,
    "Share of Developers Who Use a Tool by Week [10 Most Used]": tools_by_week,
    "Tools: Most Used, New and Gone": tools,
    "Commands Run by Week [10 Most Run]": commands_by_week,
    "Commands Most Run [Selected Time Range]": commands,
    "Commits [Selected Time Range]": total("commits"),
    "Commits by Week": weekly("commits"),
    "Commits of a Developer's Week": lambda data: weekly_quartiles(data, "commits"),
    "Lines Added and Deleted by Week": weekly("lines_added", "lines_deleted"),
    "Files Changed by Week": weekly("files_changed"),
    "Repositories [Selected Time Range]": repositories,
    "Test Runs [Selected Time Range]": total("test_runs"),
    "Test Runs and Builds beside Commits by Week": weekly("test_runs", "builds", "commits"),
    "Members": members,
    "Active Hours by Day": lambda data: by_day(
        data, data.rows, lambda rows: sum(row.active_hours for row in rows)
    ),
    "Projects [Selected Time Range]": projects,
}
