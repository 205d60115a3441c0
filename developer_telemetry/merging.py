"""The reports of one developer's day become one row of the tool layer.

One function serves the push and the re-extract, so both write the same row. Its result depends
on the reports alone: not on the order in which they were stored, nor on any clock.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import NamedTuple

import msgspec

from developer_telemetry.names import OVERWRITE as OVERWRITE
from developer_telemetry.names import RAW_TABLE as RAW_TABLE
from developer_telemetry.names import SCOPE_ID as SCOPE_ID
from developer_telemetry.names import SUM as SUM
from developer_telemetry.names import strategy_of as strategy_of
from developer_telemetry.reports import (
    DEVELOPMENT_COUNTS,
    GIT_TOTALS,
    MAX_COUNT,
    REPOSITORY_COUNTS,
    Number,
    Report,
    Repository,
)

MAX_HOURS = 24
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Arrival(NamedTuple):
    """A report as it arrived on a connection.

    `arrived_us` is UTC in microseconds since 1970, 0 for a report of an archive, which counts as
    older than any that arrived; `raw_id` is 0 until the raw row has its id.
    """

    report_id: str
    connection_id: int
    arrived_us: int
    report: Report
    raw_id: int = 0

    @property
    def key(self) -> tuple[int, str, str]:
        """What one tool row stands for: connection, developer, date."""
        return (self.connection_id, self.report.developer_id, self.report.date)

    @property
    def age(self) -> tuple[int, int]:
        """Newer means greater."""
        return (self.arrived_us, self.raw_id)


class ToolRow(NamedTuple):
    """One row of `_tool_developer_metrics`, its fields in the table's column order."""

    connection_id: int
    developer_id: str
    date: str
    email: str
    name: str
    hostname: str
    active_hours: int
    tools_used: str
    project_context: str
    command_counts: str
    os_info: str
    git_activity: str
    development_activity: str
    commits: int
    lines_added: int
    lines_deleted: int
    files_changed: int
    test_runs: int
    builds: int
    arrived_us: int
    created_at: str
    updated_at: str
    raw_data_params: str
    raw_data_table: str
    raw_data_id: int
    raw_data_remark: str


KEY_COLUMNS = ToolRow._fields[:3]
# The four columns of provenance carry a leading underscore, which a NamedTuple can't have.
TOOL_COLUMNS = tuple(
    f"_{name}" if name.startswith("raw_data") else name for name in ToolRow._fields
)


def newest_by_key(arrivals: Iterable[Arrival]) -> dict[tuple[int, str, str], Arrival]:
    """Fold arrivals to the newest of each key, in the order of the keys."""
    newest: dict[tuple[int, str, str], Arrival] = {}
    for arrival in arrivals:
        best = newest.get(arrival.key)
        if best is None or arrival.age > best.age:
            newest[arrival.key] = arrival
    return dict(sorted(newest.items()))


def tool_row(arrivals: Sequence[Arrival], first_arrived_us: int) -> ToolRow:
    """Add up one key's reports: the newest of the day, or under `sum` the newest of each host.

    `first_arrived_us` is the arrival of the first report that the key ever had, 0 if none arrived.
    """
    newest = arrivals[0] if len(arrivals) == 1 else max(arrivals, key=lambda each: each.age)
    day = newest.report if len(arrivals) == 1 else _added(arrivals, newest.report)
    git = _rounded(day.git)
    development = _rounded(day.development)
    return ToolRow(
        connection_id=newest.connection_id,
        developer_id=day.developer_id,
        date=day.date,
        email=day.email,
        name=day.name,
        hostname=day.hostname,
        active_hours=min(MAX_HOURS, _count(day.active_hours)),
        tools_used=_json(day.tools),
        project_context=_json(day.projects),
        command_counts=_json(_rounded(day.commands)),
        os_info=_json(day.os_info),
        git_activity=_json({**git, "repositories": _repositories(day)} if git else {}),
        development_activity=_json(development),
        commits=git.get(GIT_TOTALS[0], 0),
        lines_added=git.get(GIT_TOTALS[1], 0),
        lines_deleted=git.get(GIT_TOTALS[2], 0),
        files_changed=git.get(GIT_TOTALS[3], 0),
        test_runs=development.get(DEVELOPMENT_COUNTS[0], 0),
        builds=development.get(DEVELOPMENT_COUNTS[1], 0),
        arrived_us=newest.arrived_us,
        created_at=arrival_time(first_arrived_us, day.date),
        updated_at=arrival_time(newest.arrived_us, day.date),
        raw_data_params=raw_params(newest.connection_id),
        raw_data_table=RAW_TABLE,
        raw_data_id=newest.raw_id,
        raw_data_remark="",
    )


def _added(arrivals: Sequence[Arrival], newest: Report) -> Report:
    """One report for several of a day; of what can't be added up, the newest one's counts."""
    hosts = sorted(arrivals, key=lambda each: (each.report.hostname, *each.age))
    reports = [arrival.report for arrival in hosts]
    ages = [each.report for each in sorted(arrivals, key=lambda each: each.age, reverse=True)]
    return Report(
        developer_id=newest.developer_id,
        date=newest.date,
        hostname=newest.hostname,
        email=_first(report.email for report in ages),
        name=_first(report.name for report in ages),
        active_hours=_total([report.active_hours for report in reports]),
        tools=_union(report.tools for report in reports),
        projects=_union(report.projects for report in reports),
        commands=_add(report.commands for report in reports),
        git=_add(report.git for report in reports),
        repositories=tuple(each for report in reports for each in report.repositories),
        development=_add(report.development for report in reports),
        os_info=newest.os_info,
        payload="",
    )


@lru_cache(maxsize=1024)
def raw_params(connection_id: int) -> str:
    """The provenance string by which DevLake finds a scope's rows."""
    return json.dumps({"ConnectionId": connection_id, "ScopeId": SCOPE_ID}, separators=(",", ":"))


@lru_cache(maxsize=1024)
def timestamp(epoch_us: int) -> str:
    """Epoch microseconds as UTC text in milliseconds (cut, not rounded: the columns keep three)."""
    moment = _EPOCH + timedelta(microseconds=epoch_us)
    return moment.isoformat(" ", "milliseconds")[:23]  # without the offset


def arrival_time(arrived_us: int, day: str) -> str:
    """When a report arrived, as text; one of an archive is put at the start of its day."""
    return timestamp(arrived_us) if arrived_us else f"{day} 00:00:00.000"


def earlier(one_us: int, other_us: int) -> int:
    """The first of two arrivals; 0, which is none, gives way."""
    return min(one_us, other_us) or max(one_us, other_us)


def _first(texts: Iterable[str]) -> str:
    return next(filter(None, texts), "")


def _total(values: Sequence[Number]) -> Number:
    if len(values) == 1:
        return values[0]
    # fsum is exact, so fractions add up to the same in any order.
    return math.fsum(values) if any(isinstance(value, float) for value in values) else sum(values)


def _add(mappings: Iterable[Mapping[str, Number]]) -> dict[str, Number]:
    values: dict[str, list[Number]] = {}
    for mapping in mappings:
        for name, value in mapping.items():
            values.setdefault(name, []).append(value)
    return {name: _total(each) for name, each in values.items()}


def _union(lists: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item for each in lists for item in each))


def _count(value: Number) -> int:
    """A whole number from 0 to `MAX_COUNT`; halves are rounded up."""
    if type(value) is int and 0 <= value <= MAX_COUNT:  # as nearly always
        return value
    whole = math.floor(value + 0.5) if isinstance(value, float) else value
    return max(0, min(MAX_COUNT, whole))


def _rounded(counts: Mapping[str, Number]) -> dict[str, int]:
    return {name: _count(value) for name, value in counts.items()}


def _repositories(day: Report) -> list[dict[str, object]]:
    """Each repository once, those of one name added up."""
    by_name: dict[str, list[Repository]] = {}
    for repository in day.repositories:
        by_name.setdefault(repository.name, []).append(repository)
    return [
        {
            "name": name,
            "branches_worked": _union(each.branches for each in same),
            **dict(zip(REPOSITORY_COUNTS, map(_count, _totals(same)))),
        }
        for name, same in by_name.items()
    ]


def _totals(repositories: Sequence[Repository]) -> Sequence[Number]:
    if len(repositories) == 1:
        return repositories[0].counts
    return [_total(values) for values in zip(*(each.counts for each in repositories))]


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
