"""Compute what the dashboard of delivery shows, from people's rows to figures of groups.

Readers of the dashboards may read the table of figures, which has no row about fewer people than
the smallest group, and neither days nor accounts. It is written completely each time, so that
it is always about the same links and teams. A view could not do this: PostgreSQL refuses DevLake's
own migrations of tables that a view reads, and these tables exist in DevLake's database alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import DEFAULT_SMALLEST_GROUP, DELIVERY_TABLE
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.database.engine import database_now_us, reading, transact
from developer_telemetry.pipeline.delivery_figures import (
    EVERYBODY,
    HALF_YEAR,
    PROJECT,
    QUARTER,
    TEAM,
    WEEK,
    YEAR,
    Figure,
    Group,
    Part,
    Period,
    Values,
    find_visible,
    find_visible_sides,
    join_parts,
    summarize,
    summarize_share,
)
from developer_telemetry.pipeline.delivery_rows import (
    Day,
    Developer,
    People,
    PullRequest,
    has_delivery,
    read_authors,
    read_days,
    read_first_merges,
    read_people,
    read_pull_requests,
    read_spans,
)

WEEKS = 53
HALF_YEAR_WEEKS = 26
# The row of the last computation: its number is the smallest group's size.
COMPUTED = "computed"
# Where older rows are pruned, a first day close to that is not known to be the first.
RETENTION_MARGIN = timedelta(days=7)
TIMES = ("coding", "pickup", "review", "cycle")
OF_TEAMS = (
    "active hours",
    "projects",
    "assistant days",
    "pull requests",
    *(f"{name} time" for name in TIMES),
)
SHARES = ("assistant days", "first merge happened")

_Values = dict[str, list[float]]


class Spans(NamedTuple):
    """The rows about a longer time than a week."""

    first_merges: dict[str, date]
    authors: set[str]  # accounts
    days: dict[Developer, tuple[date, date]]


def refresh_delivery(engine: Engine, today: date) -> Generator[int, None, None]:
    """Compute all figures of complete weeks and replace the table's rows.

    Yields the number of figures after each week, so that the caller can pause or end; nothing is
    written before the last. Does nothing in a database without DevLake's tables.
    """
    with reading(engine).connect() as connection:
        if not has_delivery(connection):
            return
        figures: list[Figure] = []
        for computed in _compute(connection, today):
            figures += computed
            yield len(figures)
    transact(engine, lambda to: _replace(to, figures))
    yield len(figures)


def _replace(connection: SqlConnection, figures: Sequence[Figure]) -> None:
    connection.exec_driver_sql(f"DELETE FROM {DELIVERY_TABLE}")
    clock_us = database_now_us(connection)
    rows = [(*figure, clock_us) for figure in figures]
    insert(connection, DELIVERY_TABLE, (*Figure._fields, "computed_us"), rows, "")


def is_due(connection: SqlConnection, max_age_us: int) -> bool:
    """Return true if the figures are older, in a database with DevLake's tables."""
    if not has_delivery(connection):
        return False
    row = connection.exec_driver_sql(
        f"SELECT computed_us FROM {DELIVERY_TABLE} WHERE figure = '{COMPUTED}'"
    ).first()
    return row is None or database_now_us(connection) - int(row[0]) >= max_age_us


def _compute(connection: SqlConnection, today: date) -> Iterator[list[Figure]]:
    people = read_people(connection)
    smallest = max(
        (one.smallest_group for one in people.connections), default=DEFAULT_SMALLEST_GROUP
    )
    end = today - timedelta(days=today.weekday())
    weeks = [end - timedelta(weeks=number) for number in range(WEEKS, 0, -1)]
    half_year = weeks[-HALF_YEAR_WEEKS]
    spans = Spans(
        read_first_merges(connection, people),
        read_authors(connection, half_year),
        read_spans(connection),
    )
    yield [Figure(COMPUTED, "", today, EVERYBODY, "", 0, smallest)]
    yield list(_compute_links(people, spans, half_year, smallest))
    yield list(_compute_first_merges(people, spans, weeks[0], today, smallest))
    merged: dict[date, list[PullRequest]] = defaultdict(list)
    for pull_request in read_pull_requests(connection, people, weeks[0]):
        merged[_week_of(pull_request.merged)].append(pull_request)
    authors = {people.users[account] for account in spans.authors if account in people.users}
    parts: dict[str, list[Part]] = defaultdict(list)
    total = _Collected(people, authors)
    for week in weeks:
        days = read_days(connection, people, week, week + timedelta(days=6))
        one = _Collected(people, authors)
        one.add_week(days, merged[week])
        figures: list[Figure] = []
        for figure, values, groups in one.list_shown(smallest):
            figures += _summarize(figure, Period(WEEK, week), values, groups)
            parts[figure].append(Part(values, {group.key: group for group in groups}))
        if week < half_year:
            parts.clear()
        else:
            total.add_week(days, merged[week])
        yield figures
    yield list(_join_weeks(total, parts, Period(HALF_YEAR, half_year), smallest))


def _summarize(
    figure: str, period: Period, values: Values, groups: Sequence[Group]
) -> list[Figure]:
    method = summarize_share if figure in SHARES else summarize
    return method(figure, period, values, groups)


def _join_weeks(
    total: _Collected, parts: Mapping[str, Sequence[Part]], period: Period, smallest: int
) -> Iterator[Figure]:
    for figure, _, groups in total.list_shown(smallest):
        for group in groups:
            values = join_parts(group, parts[figure], smallest)
            if len(values) >= smallest:
                joined = group._replace(people=values.keys())
                yield from _summarize(figure, period, values, [joined])


class _Collected:
    """The values of people in one period."""

    def __init__(self, people: People, authors: set[str]) -> None:
        self._people = people
        self._authors = authors
        self._linked = set(people.users.values())
        self._values: dict[str, _Values] = defaultdict(lambda: defaultdict(list))
        self._projects: dict[str, set[str]] = defaultdict(set)

    def add_week(
        self, days: dict[tuple[str, date], Day], pull_requests: Iterable[PullRequest]
    ) -> None:
        """Add a week's days and merged pull requests."""
        assistants: dict[str, bool] = {}
        for (person, _), day in days.items():
            self._add_day(person, day)
            assistants[person] = assistants.get(person, False) or day.has_assistant
        merged: dict[str, list[PullRequest]] = defaultdict(list)
        for pull_request in pull_requests:
            merged[pull_request.user].append(pull_request)
            self._values["pull requests"][pull_request.user].append(1)
            for name in TIMES:
                self._add_time(f"{name} time", pull_request, name)
        for person, has_assistant in assistants.items():
            if person in self._authors:
                side = "with assistant" if has_assistant else "without assistant"
                self._values[f"merged {side}"][person].append(len(merged[person]))
                for pull_request in merged[person]:
                    self._add_time(f"cycle time {side}", pull_request, "cycle")

    def _add_day(self, person: str, day: Day) -> None:
        self._values["test runs"][person].append(day.test_runs)
        self._values["builds"][person].append(day.builds)
        for project, connections in self._people.projects.items():
            if connections & day.connections:
                self._projects[project].add(person)
        if person in self._linked:
            self._values["active hours"][person].append(day.hours)
            self._values["projects"][person].append(len(day.projects))
            self._values["assistant days"][person].append(day.has_assistant)

    def _add_time(self, figure: str, pull_request: PullRequest, name: str) -> None:
        hours: Optional[float] = getattr(pull_request, name)
        if hours is not None:
            self._values[figure][pull_request.user].append(hours)

    def list_shown(self, smallest: int) -> Iterator[tuple[str, Values, list[Group]]]:
        """Yield all figures with their values and the groups that may be shown."""
        teams = self._people.teams
        for figure in ("test runs", "builds"):
            values = self._values[figure]
            yield figure, values, find_visible(values.keys(), self._projects, PROJECT, smallest)
        for figure in OF_TEAMS:
            values = self._values[figure]
            yield figure, values, find_visible(values.keys(), teams, TEAM, smallest)
        for name in ("merged", "cycle time"):
            figures = (f"{name} with assistant", f"{name} without assistant")
            sides = (self._values[figures[0]], self._values[figures[1]])
            shown = find_visible_sides(sides, teams, TEAM, smallest)
            yield from zip(figures, sides, shown)


def _compute_links(people: People, spans: Spans, since: date, smallest: int) -> Iterator[Figure]:
    """Yield which share of authors has telemetry and the reverse, and of each team's members."""
    period = Period(HALF_YEAR, since)
    reporting = [who for who, (_, last) in spans.days.items() if last >= since]
    with_telemetry = {user for who in reporting if (user := people.find_user(who))}
    writing = {people.users[account] for account in spans.authors if account in people.users}
    authors = {people.users.get(account, account) for account in spans.authors}
    developers = {people.find_person(who) for who in reporting}
    for figure, base, met in (
        ("authors linked", authors, writing),
        ("authors with telemetry", authors, with_telemetry),
        ("developers linked", developers, with_telemetry),
        ("developers who are authors", developers, writing),
    ):
        values = {person: [float(person in met)] for person in base}
        everybody = [Group(EVERYBODY, "", base)] if len(base) >= smallest else []
        yield from summarize_share(figure, period, values, everybody)
    members = frozenset[str]().union(*people.teams.values())
    teams = find_visible(members, people.teams, TEAM, smallest)
    for figure, met in (
        ("members with telemetry", with_telemetry),
        ("members who are authors", writing),
        ("members with both", with_telemetry & writing),
    ):
        values = {person: [float(person in met)] for person in members}
        yield from summarize_share(figure, period, values, teams)


def _compute_first_merges(
    people: People, spans: Spans, since: date, today: date, smallest: int
) -> Iterator[Figure]:
    """Yield the days from the first report to the first merge, of those who began within a year.

    A person who had merged before the first report is none of them. Of a person who has merged
    nothing so far there is no number of days, but the person counts in the share.
    """
    days: _Values = {}
    happened: _Values = {}
    quarters: dict[str, set[str]] = defaultdict(set)
    for user, first in _find_first_days(people, spans, today).items():
        merge = spans.first_merges.get(user)
        if first >= since and (merge is None or merge >= first):
            happened[user] = [float(merge is not None)]
            quarters[str(_quarter_of(first))].add(user)
            if merge is not None:
                days[user] = [(merge - first).days]
    # Together, since the people of a team may be those of a quarter but for a few.
    families = {(TEAM, name): own for name, own in people.teams.items()}
    families.update({(QUARTER, start): own for start, own in quarters.items()})
    groups = {" ".join(key): own for key, own in families.items()}
    for figure, values in (("first merge", days), ("first merge happened", happened)):
        for group in find_visible(values.keys(), groups, "", smallest):
            family, _, name = group.id.partition(" ")
            if family == TEAM:
                shown = group._replace(grouped_by=TEAM, id=name)
                yield from _summarize(figure, Period(YEAR, since), values, [shown])
            elif family == QUARTER:
                period = Period(QUARTER, date.fromisoformat(name))
                shown = Group(EVERYBODY, "", group.people)
                yield from _summarize(figure, period, values, [shown])


def _find_first_days(people: People, spans: Spans, today: date) -> dict[str, date]:
    """Return each user's first day, without those whose first rows may have been pruned."""
    retention = {one.id: one.retention_days for one in people.connections}
    first_days: dict[str, date] = {}
    unknown = set()
    for who, (first, _) in spans.days.items():
        user = people.find_user(who)
        if user:
            first_days[user] = min(first, first_days.get(user, first))
            days = retention.get(who[0], 0)
            if days and first <= today - timedelta(days=days) + RETENTION_MARGIN:
                unknown.add(user)
    return {user: first for user, first in first_days.items() if user not in unknown}


def _week_of(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _quarter_of(day: date) -> date:
    return date(day.year, (day.month - 1) // 3 * 3 + 1, 1)
