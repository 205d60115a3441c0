"""Compute what the dashboard Delivery shows: activity beside DevLake's pull requests, in groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, timedelta
from typing import NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection

from developer_telemetry.pipeline.activity import ActiveWeek
from developer_telemetry.pipeline.figure_rows import (
    Day,
    Developer,
    People,
    PullRequest,
    read_authors,
    read_first_merges,
    read_pull_requests,
    read_spans,
)
from developer_telemetry.pipeline.figures import (
    HALF_YEAR,
    QUARTER,
    WEEK,
    YEAR,
    Figure,
    Period,
    monday_of,
    summarize,
    summarize_share,
)
from developer_telemetry.pipeline.visible_groups import (
    EVERYBODY,
    PROJECT,
    TEAM,
    Group,
    Groups,
    Key,
    Part,
    Values,
    find_visible,
    find_visible_sides,
    join_parts,
)

HALF_YEAR_WEEKS = 26
# Where older rows are pruned, a first day close to that is not known to be the first.
RETENTION_MARGIN = timedelta(days=7)
TIMES = ("coding", "pickup", "review", "cycle")
OF_PROJECTS = ("test runs", "builds")
OF_TEAMS = ("hours a day", "projects a day", "assistant days")
# The figures that activity has by week, and delivery by half a year as well.
OF_ACTIVITY = ("hours a day", "projects a day")
OF_PULL_REQUESTS = ("pull requests", *(f"{name} time" for name in TIMES))
SHARES = ("assistant days", "first merge happened")

_Values = dict[str, list[float]]


class Spans(NamedTuple):
    """The rows about a longer time than a week."""

    first_merges: dict[str, date]
    authors: set[str]  # accounts
    days: dict[Developer, tuple[date, date]]


class Delivery:
    """The figures of delivery, computed week by week."""

    def __init__(
        self, connection: SqlConnection, people: People, weeks: Sequence[date], smallest: int
    ) -> None:
        """Read what is about a longer time than a week.

        Args:
            weeks: the Mondays of all weeks, in their order.
        """
        self._people = people
        self._weeks = weeks
        self._smallest = smallest
        self._half_year = weeks[-HALF_YEAR_WEEKS]
        self._spans = Spans(
            read_first_merges(connection, people),
            read_authors(connection, self._half_year),
            read_spans(connection),
        )
        self._merged: dict[date, list[PullRequest]] = defaultdict(list)
        for pull_request in read_pull_requests(connection, people, weeks[0]):
            self._merged[monday_of(pull_request.merged)].append(pull_request)
        accounts = self._spans.authors & people.users.keys()
        self._authors = {people.users[account] for account in accounts}
        self._total = _Collected(people, self._authors)
        self._parts: dict[str, list[Part]] = defaultdict(list)

    def add_week(self, week: ActiveWeek) -> list[Figure]:
        """Return the figures of one week; weeks are added in their order."""
        one = _Collected(self._people, self._authors)
        one.add_week(week, self._merged[week.start])
        is_recent = week.start >= self._half_year
        figures: list[Figure] = []
        for figure, values, groups in one.list_shown(week.visible.values(), self._smallest):
            if figure not in OF_ACTIVITY:
                figures += _summarize(figure, Period(WEEK, week.start), values, groups)
            if is_recent:
                self._parts[figure].append(Part(values, {group.key: group for group in groups}))
        if is_recent:
            self._total.add_week(week, self._merged[week.start])
        return figures

    def finish(self, today: date) -> list[Figure]:
        """Return the figures of longer times, after the last week."""
        return [
            *_compute_links(self._people, self._spans, self._half_year, self._smallest),
            *_compute_first_merges(
                self._people, self._spans, self._weeks[0], today, self._smallest
            ),
            *self._join_weeks(),
        ]

    def _join_weeks(self) -> Iterator[Figure]:
        period = Period(HALF_YEAR, self._half_year)
        visible = self._total.find_visible(self._smallest)
        for figure, _, groups in self._total.list_shown(visible, self._smallest):
            for group in groups:
                values = join_parts(group, self._parts[figure], self._smallest)
                if len(values) >= self._smallest:
                    joined = group._replace(people=values.keys())
                    yield from _summarize(figure, period, values, [joined])


def _summarize(
    figure: str, period: Period, values: Values, groups: Sequence[Group]
) -> list[Figure]:
    if figure in SHARES:
        return summarize_share(figure, period, values, groups)
    # Without sums, which can be subtracted: half a year has people whose weeks are not shown.
    return [row._replace(total=None) for row in summarize(figure, period, values, groups)]


class _Collected:
    """The values of people in one period."""

    def __init__(self, people: People, authors: set[str]) -> None:
        self._people = people
        self._authors = authors
        self._values: dict[str, _Values] = defaultdict(lambda: defaultdict(list))
        self._keys: dict[str, set[Key]] = {}
        self._teams = Groups.of_members(TEAM, people.teams)

    def add_week(self, week: ActiveWeek, pull_requests: Iterable[PullRequest]) -> None:
        """Add a week's days and merged pull requests."""
        assistants: dict[str, bool] = {}
        for (person, _), day in week.days.items():
            self._keys.setdefault(person, set()).update(week.groups.of(person))
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
        self._values["hours a day"][person].append(day.hours)
        self._values["projects a day"][person].append(len(day.projects))
        self._values["assistant days"][person].append(day.has_assistant)

    def _add_time(self, figure: str, pull_request: PullRequest, name: str) -> None:
        hours: Optional[float] = getattr(pull_request, name)
        if hours is not None:
            self._values[figure][pull_request.user].append(hours)

    def find_visible(self, smallest: int) -> list[Group]:
        """Return the groups of those with days that may be shown."""
        return find_visible(self._keys.keys(), Groups(self._keys), smallest)

    def list_shown(
        self, visible: Collection[Group], smallest: int
    ) -> Iterator[tuple[str, Values, list[Group]]]:
        """Yield all figures with their values and the groups that may be shown.

        Args:
            visible: such groups of those with days. Figures of days are of these groups, like
                those of activity, from which they would tell of a few otherwise.
        """
        teams = self._teams
        for figures, grouped_by in ((OF_PROJECTS, PROJECT), (OF_TEAMS, TEAM)):
            own = [group for group in visible if group.grouped_by in (grouped_by, EVERYBODY)]
            for figure in figures:
                yield figure, self._values[figure], own
        for figure in OF_PULL_REQUESTS:
            values = self._values[figure]
            yield figure, values, find_visible(values.keys(), teams, smallest)
        for name in ("merged", "cycle time"):
            figures = (f"{name} with assistant", f"{name} without assistant")
            sides = (self._values[figures[0]], self._values[figures[1]])
            shown = find_visible_sides(sides, teams, smallest)
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
    teams = find_visible(members, Groups.of_members(TEAM, people.teams), smallest)
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
    keys: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for grouped_by, members in ((TEAM, people.teams), (QUARTER, quarters)):
        for name, own in members.items():
            for user in own:
                keys[user].append((grouped_by, name))
    for figure, values in (("first merge", days), ("first merge happened", happened)):
        for group in find_visible(values.keys(), Groups(keys), smallest):
            if group.grouped_by == TEAM:
                yield from _summarize(figure, Period(YEAR, since), values, [group])
            elif group.grouped_by == QUARTER:
                period = Period(QUARTER, date.fromisoformat(group.id))
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


def _quarter_of(day: date) -> date:
    return date(day.year, (day.month - 1) // 3 * 3 + 1, 1)
