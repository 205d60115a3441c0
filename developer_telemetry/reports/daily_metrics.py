"""Build one row of the tool layer from the reports of a developer's day.

One function serves the push and the re-extract, so both write the same row. Its result depends
on the reports alone: not on the order in which they were stored, nor on any clock.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple, NewType, Optional, cast, get_type_hints

import msgspec

from developer_telemetry.constants import RAW_TABLE, SCOPE_ID
from developer_telemetry.reports.hosts import family_name, may_be_renamed, select_newest
from developer_telemetry.reports.limits import Room
from developer_telemetry.reports.parser import (
    DEVELOPMENT_COUNTS,
    GIT_TOTALS,
    MAX_COUNT,
    REPOSITORY_COUNTS,
    Number,
    Report,
    Repository,
    counts_of,
)

MAX_HOURS = 24
# The epoch of reports that did not arrive at a receiver, such as those of archives.
NO_EPOCH = 1 << 62
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class ReceivedReport(NamedTuple):
    """A report as it arrived on a connection.

    `arrived_us` is UTC in microseconds since 1970, 0 for a report of an archive, which is older
    than any other; `raw_id` is 0 until the raw row has its id.
    """

    report_id: str
    connection_id: int
    arrived_us: int
    report: Report
    raw_id: int = 0
    # The receiver's epoch when the report arrived there (`tombstones`).
    epoch: int = NO_EPOCH

    @property
    def key(self) -> tuple[int, str, str]:
        """Return the key of the tool row: connection, developer, date."""
        return (self.connection_id, self.report.developer_id, self.report.date)

    @property
    def age(self) -> tuple[int, int]:
        """Return the sort key by age; a newer report has a greater one."""
        return (self.arrived_us, self.raw_id)


# JSON text of a column that can be long; other texts have 255 characters at most.
JsonText = NewType("JsonText", str)


class ToolRow(NamedTuple):
    """One row of `_tool_developer_metrics`, its fields in the table's column order.

    Writer, extract, export, import and the declaration of tables take the columns from here.
    """

    connection_id: int
    developer_id: str
    date: str
    email: str
    name: str
    hostname: str
    active_hours: int
    tools_used: JsonText
    project_context: JsonText
    command_counts: JsonText
    os_info: JsonText
    git_activity: JsonText
    development_activity: JsonText
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
LONG_COLUMNS = tuple(name for name, kind in get_type_hints(ToolRow).items() if kind is JsonText)


def group_by_key(
    arrivals: Iterable[ReceivedReport],
) -> dict[tuple[int, str, str], list[ReceivedReport]]:
    """Return the arrivals of each key, in the order of the keys."""
    by_key: dict[tuple[int, str, str], list[ReceivedReport]] = {}
    for arrival in arrivals:
        by_key.setdefault(arrival.key, []).append(arrival)
    return dict(sorted(by_key.items()))


def build_newest_row(arrivals: Sequence[ReceivedReport]) -> ToolRow:
    """Build the row of the newest of one key's reports, created when the first of them arrived."""
    newest = max(arrivals, key=attrgetter("age")) if len(arrivals) > 1 else arrivals[0]
    first_us = 0
    for arrival in arrivals:
        first_us = earlier_arrival(arrival.arrived_us, first_us)
    return build_tool_row([newest], first_us)


def build_tool_row(arrivals: Sequence[ReceivedReport], first_arrived_us: int) -> ToolRow:
    """Add up one key's reports: the newest of the day, or under `sum` the newest of each host.

    `first_arrived_us` is the arrival of the first report that the key ever had, 0 if none arrived.
    """
    if len(arrivals) == 1:
        return _build_row(arrivals[0], arrivals[0].report, first_arrived_us)
    day = DaySum()
    newest = select_newest(arrivals, lambda arrival: arrival.report.hostname, attrgetter("age"))
    for arrival in sorted(newest, key=sum_order):
        day.add(arrival)
    return day.row(first_arrived_us)


def sum_order(arrival: ReceivedReport) -> tuple[str, int, int]:
    """Return the sort key of a day's reports before they are added up."""
    return (family_name(arrival.report.hostname), *arrival.age)


def _build_row(newest: ReceivedReport, day: Report, first_arrived_us: int) -> ToolRow:
    """Return the row of a day whose newest report is `newest`."""
    day = _limit_counts(day)
    git = cast("dict[str, int]", day.git)
    development = cast("dict[str, int]", day.development)
    activity = {**git, "repositories": day.repositories} if git else {}
    texts = _encode_json(day.tools, day.projects, day.commands, day.os_info, activity, development)
    updated_at = format_arrival(newest.arrived_us, day.date)
    is_first = first_arrived_us == newest.arrived_us
    return ToolRow(
        connection_id=newest.connection_id,
        developer_id=day.developer_id,
        date=day.date,
        email=day.email,
        name=day.name,
        hostname=day.hostname,
        active_hours=min(MAX_HOURS, _count(day.active_hours)),
        tools_used=texts[0],
        project_context=texts[1],
        command_counts=texts[2],
        os_info=texts[3],
        git_activity=texts[4],
        development_activity=texts[5],
        commits=git.get(GIT_TOTALS[0], 0),
        lines_added=git.get(GIT_TOTALS[1], 0),
        lines_deleted=git.get(GIT_TOTALS[2], 0),
        files_changed=git.get(GIT_TOTALS[3], 0),
        test_runs=development.get(DEVELOPMENT_COUNTS[0], 0),
        builds=development.get(DEVELOPMENT_COUNTS[1], 0),
        arrived_us=newest.arrived_us,
        created_at=updated_at if is_first else format_arrival(first_arrived_us, day.date),
        updated_at=updated_at,
        raw_data_params=build_raw_params(newest.connection_id),
        raw_data_table=RAW_TABLE,
        raw_data_id=newest.raw_id,
        raw_data_remark=f"unread: {', '.join(day.unread)}" if day.unread else "",
    )


class DaySum:
    """The sum of a day's reports, which are added one by one in the order of `sum_order`.

    It has a bounded size (`limits`), since it holds only the newest and the last report. Values
    that can't be added up are those of the newest report.
    """

    def __init__(self) -> None:
        self._newest: Optional[ReceivedReport] = None
        self._last: Optional[ReceivedReport] = None  # the next one may replace it
        self._email = self._name = (_NEVER, "")
        self._active_hours = _Total()
        self._tools = _Names()
        self._projects = _Names()
        self._commands = _Totals(Room())
        self._git = _Totals(None)
        self._development = _Totals(None)
        self._repositories = _RepositorySum()
        self._unread: set[str] = set()

    def add(self, arrival: ReceivedReport) -> None:
        """Add the newest report of one more host."""
        if self._last is not None and not _may_continue(arrival.report, self._last.report):
            self._count(self._last)
        # The text is not needed, and may be long.
        report = msgspec.structs.replace(arrival.report, payload="")
        self._last = arrival._replace(report=report)

    def _count(self, arrival: ReceivedReport) -> None:
        report = arrival.report
        if self._newest is None or arrival.age > self._newest.age:
            self._newest = arrival
        self._email = max(self._email, (arrival.age if report.email else _NEVER, report.email))
        self._name = max(self._name, (arrival.age if report.name else _NEVER, report.name))
        self._active_hours.add(report.active_hours)
        self._tools.add(report.tools)
        self._projects.add(report.projects)
        self._commands.add(report.commands)
        self._git.add(report.git)
        self._development.add(report.development)
        self._repositories.add(report.repositories)
        self._unread.update(report.unread)

    def row(self, first_arrived_us: int) -> ToolRow:
        """Return the row of the day; see `build_tool_row`."""
        if self._last is not None:
            self._count(self._last)
            self._last = None
        newest = self._newest
        assert newest is not None, "a sum without reports has no row"
        day = Report(
            developer_id=newest.report.developer_id,
            date=newest.report.date,
            hostname=newest.report.hostname,
            email=self._email[1],
            name=self._name[1],
            active_hours=self._active_hours.value,
            tools=self._tools.all,
            projects=self._projects.all,
            commands=self._commands.all,
            git=self._git.all,
            repositories=self._repositories.all,
            development=self._development.all,
            os_info=newest.report.os_info,
            payload="",
            unread=tuple(sorted(self._unread)),
        )
        return _build_row(newest, day, first_arrived_us)


# Older than every report.
_NEVER = (-1, -1)


def _may_continue(later: Report, earlier: Report) -> bool:
    """Return true if a machine that Bonjour renamed may have sent both reports of one day.

    Two machines may have such names, too. A machine's report grows in the course of a day, so the
    later one has all counts of the earlier one; an empty report proves nothing.
    """
    return (
        may_be_renamed(earlier.hostname, later.hostname)
        and bool(earlier.tools or earlier.projects or earlier.commands or earlier.repositories)
        and later.active_hours >= earlier.active_hours
        and set(later.tools) >= set(earlier.tools)
        and set(later.projects) >= set(earlier.projects)
        and _has_all_counts(later.commands, earlier.commands)
        and _has_all_counts(later.git, earlier.git)
        and _has_all_counts(later.development, earlier.development)
        and _has_all_counts(
            _counts_by_repository(later.repositories), _counts_by_repository(earlier.repositories)
        )
    )


def _has_all_counts(later: Mapping[str, Number], earlier: Mapping[str, Number]) -> bool:
    return all(later.get(name, -1) >= count for name, count in earlier.items())


def _counts_by_repository(repositories: Iterable[Repository]) -> dict[str, Number]:
    return {
        f"{repository.name} {field}": count
        for repository in repositories
        for field, count in zip(REPOSITORY_COUNTS, counts_of(repository))
    }


class _Total:
    """A sum of numbers that does not depend on their order."""

    __slots__ = ("_fractions", "_integers")

    def __init__(self) -> None:
        self._integers = 0
        self._fractions: Optional[Fraction] = None

    def add(self, value: Number) -> None:
        if isinstance(value, float):
            self._fractions = (self._fractions or Fraction()) + Fraction(value)
        else:
            self._integers += value

    @property
    def value(self) -> Number:
        return (
            self._integers if self._fractions is None else float(self._integers + self._fractions)
        )


class _Totals:
    """Sums by name, for as many names as fit the room; None if there are always few."""

    def __init__(self, room: Optional[Room]) -> None:
        self._room = room
        self._by_name: dict[str, _Total] = {}

    def add(self, values: Mapping[str, Number]) -> None:
        for name, value in values.items():
            total = self._by_name.get(name)
            if total is None:
                if self._room is not None and not self._room.take(name):
                    continue
                total = self._by_name[name] = _Total()
            total.add(value)

    @property
    def all(self) -> dict[str, Number]:
        return {name: total.value for name, total in self._by_name.items()}


class _Names:
    """Distinct names in the order in which they are added, as many as fit the room."""

    def __init__(self, room: Optional[Room] = None) -> None:
        self._room = Room() if room is None else room
        self._names: dict[str, None] = {}

    def add(self, names: Iterable[str]) -> None:
        if self._room.full:
            return
        for name in names:
            if name not in self._names and self._room.take(name):
                self._names[name] = None

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(self._names)


class _RepositorySum:
    """Sums of repositories by name, as many as fit the room with their branches."""

    def __init__(self) -> None:
        self._room = Room()
        self._by_name: dict[str, tuple[list[_Total], _Names]] = {}

    def add(self, repositories: Iterable[Repository]) -> None:
        for repository in repositories:
            sums = self._by_name.get(repository.name)
            if sums is None:
                if not self._room.take(repository.name):
                    continue
                sums = ([_Total() for _ in REPOSITORY_COUNTS], _Names(self._room))
                self._by_name[repository.name] = sums
            for total, count in zip(sums[0], counts_of(repository)):
                total.add(count)
            sums[1].add(repository.branches_worked)

    @property
    def all(self) -> tuple[Repository, ...]:
        return tuple(
            _repository(name, [total.value for total in totals], branches.all)
            for name, (totals, branches) in self._by_name.items()
        )


@lru_cache(maxsize=1024)
def build_raw_params(connection_id: int) -> str:
    """Return the provenance string by which DevLake finds a scope's rows."""
    return json.dumps({"ConnectionId": connection_id, "ScopeId": SCOPE_ID}, separators=(",", ":"))


def format_timestamp(epoch_us: int) -> str:
    """Format epoch microseconds as UTC text with milliseconds, cut off as in the columns."""
    seconds, rest_us = divmod(epoch_us, 1_000_000)
    return f"{_format_seconds(seconds)}.{rest_us // 1000:03d}"


@lru_cache(maxsize=1024)
def _format_seconds(epoch_seconds: int) -> str:
    moment = _EPOCH + timedelta(seconds=epoch_seconds)
    return moment.isoformat(" ")[:19]  # without the offset


def format_arrival(arrived_us: int, day: str) -> str:
    """Format the time of arrival, which for a report of an archive is the start of its day."""
    return format_timestamp(arrived_us) if arrived_us else f"{day} 00:00:00.000"


def earlier_arrival(one_us: int, other_us: int) -> int:
    """Return the earlier of two arrivals; 0 means none."""
    return min(one_us, other_us) or max(one_us, other_us)


def _count(value: Number) -> int:
    """Return a whole number from 0 to `MAX_COUNT`; halves are rounded up."""
    if type(value) is int and 0 <= value <= MAX_COUNT:  # as nearly always
        return value
    rounded = math.floor(value + 0.5) if isinstance(value, float) else value
    return max(0, min(MAX_COUNT, rounded))


def _limit_counts(day: Report) -> Report:
    """Return a day with each repository once and, except the hours, all counts within range."""
    if day.is_exact:  # as nearly always
        return day
    return msgspec.structs.replace(
        day,
        commands=_round_counts(day.commands),
        git=_round_counts(day.git),
        development=_round_counts(day.development),
        repositories=tuple(map(_round_repository, _merge_repositories(day.repositories))),
        is_exact=True,
    )


def _round_counts(counts: Mapping[str, Number]) -> dict[str, int]:
    return {name: _count(value) for name, value in counts.items()}


def _round_repository(repository: Repository) -> Repository:
    counts = map(_count, counts_of(repository))
    return _repository(repository.name, counts, repository.branches_worked)


def _merge_repositories(repositories: tuple[Repository, ...]) -> tuple[Repository, ...]:
    """Return each repository once, with repositories of the same name added up."""
    added = _RepositorySum()
    added.add(repositories)
    return added.all


def _repository(name: str, counts: Iterable[Number], branches: tuple[str, ...]) -> Repository:
    commits, added, deleted, files = counts
    return Repository(branches, commits, files, added, deleted, name)


_ENCODER = msgspec.json.Encoder(order="sorted")


def _encode_json(*values: object) -> list[JsonText]:
    """Return each value as JSON; one call of the encoder is faster than one for each."""
    # A line break in a text is escaped in JSON.
    return cast("list[JsonText]", _ENCODER.encode_lines(values).decode().split("\n"))
