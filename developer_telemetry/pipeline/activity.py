"""Compute what the dashboards show of activity at machines: figures of groups by week.

A week's people are those with an active hour in it. All its figures are of the same groups, so
that no difference of two figures is about fewer people than the groups themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import date
from typing import NamedTuple

from developer_telemetry.pipeline.figure_rows import Day, People
from developer_telemetry.pipeline.figures import (
    DAY,
    MONTH,
    WEEK,
    Figure,
    Period,
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
    Values,
    find_visible,
)

# Work on so many projects on one day counts as going back and forth.
MANY_PROJECTS = 3
# Only so many items of a week are stored, those of most people.
ITEMS = 200
# The figures of weeks that are sums of a person's days.
WEEKLY_SUMS = {
    "hours a week": "hours",
    "commits a week": "commits",
    "lines added a week": "lines_added",
    "lines deleted a week": "lines_deleted",
    "files changed a week": "files_changed",
    "test runs a week": "test_runs",
    "builds a week": "builds",
}

Days = Mapping[tuple[str, date], Day]


class ActiveWeek(NamedTuple):
    """The days of a week that count, and the groups of its people that are shown."""

    start: date
    days: Days
    groups: Groups
    visible: Mapping[Key, Group]
    smallest: int

    @property
    def everybody(self) -> AbstractSet[str]:
        """Return the people of the group of everybody."""
        group = self.visible.get((EVERYBODY, ""))
        return group.people if group else frozenset()


def settle_week(people: People, days: Days, start: date, smallest: int) -> ActiveWeek:
    """Find the days and groups that count.

    A day on which fewer people were active, of all or of those who are shown as everybody, counts
    nowhere: a week minus its other days would be about the few.
    """
    while True:
        days = _keep_days(days, _list_common(days, smallest))
        groups = find_groups(people, days)
        visible = find_visible({person for person, _ in days}, groups, smallest)
        week = ActiveWeek(start, days, groups, {one.key: one for one in visible}, smallest)
        everybody = week.everybody
        shown = {key: day for key, day in days.items() if key[0] in everybody}
        rare = {on for _, on in shown} - _list_common(shown, smallest)
        if not rare:
            return week
        days = _keep_days(days, {on for _, on in days} - rare)


def _list_common(days: Days, smallest: int) -> set[date]:
    people: dict[date, int] = defaultdict(int)
    for _, on in days:
        people[on] += 1
    return {on for on, number in people.items() if number >= smallest}


def _keep_days(days: Days, dates: AbstractSet[date]) -> Days:
    return {key: day for key, day in days.items() if key[1] in dates}


def find_groups(people: People, days: Days) -> Groups:
    """Return the groups of everybody with a day; the people of a project report through it."""
    projects: dict[int, list[Key]] = defaultdict(list)
    for project, numbers in people.projects.items():
        for number in numbers:
            projects[number].append((PROJECT, project))
    keys: dict[str, set[Key]] = defaultdict(set)
    for (person, _), day in days.items():
        for number in day.connections:
            keys[person].update(projects[number])
    active = {person for person, _ in days}
    for team, members in people.teams.items():
        for person in members & active:
            keys[person].add((TEAM, team))
    return Groups(keys)


def summarize_week(week: ActiveWeek) -> Iterator[Figure]:
    """Yield the figures of one week, and those of its days for everybody."""
    yield from _summarize_days(week)
    period = Period(WEEK, week.start)
    for figure, values in _collect(week.days).items():
        yield from summarize(figure, period, values, week.visible.values())
    many = {
        person: [float(number >= MANY_PROJECTS) for number in numbers]
        for person, numbers in _collect_days(week.days, lambda day: len(day.projects)).items()
    }
    yield from summarize_share("days with many projects", period, many, week.visible.values())
    for figure, users in _find_users(week.days).items():
        yield from _summarize_items(figure, period, users, week)


def summarize_months(
    people: Mapping[date, set[str]], groups: Groups, smallest: int
) -> Iterator[Figure]:
    """Yield how many people were active in each month, by its first day."""
    for month, active in people.items():
        values: Values = {person: [1.0] for person in active}
        visible = find_visible(active, groups, smallest)
        yield from summarize("active developers", Period(MONTH, month), values, visible)


def _summarize_days(week: ActiveWeek) -> Iterator[Figure]:
    everybody = week.everybody
    hours: dict[date, dict[str, list[float]]] = defaultdict(dict)
    for (person, on), day in week.days.items():
        if person in everybody:
            hours[on][person] = [float(day.hours)]
    for on, values in hours.items():
        group = Group(EVERYBODY, "", values.keys())
        yield from summarize("hours a day", Period(DAY, on), values, [group])


def _collect(days: Days) -> dict[str, Values]:
    values: dict[str, Values] = {
        "hours a day": _collect_days(days, lambda day: day.hours),
        "projects a day": _collect_days(days, lambda day: len(day.projects)),
    }
    for figure, field in WEEKLY_SUMS.items():
        sums: dict[str, list[float]] = {}
        for (person, _), day in days.items():
            sums.setdefault(person, [0.0])[0] += float(getattr(day, field))
        values[figure] = sums
    return values


def _collect_days(days: Days, read: Callable[[Day], float]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for (person, _), day in days.items():
        values.setdefault(person, []).append(float(read(day)))
    return values


class _Use(NamedTuple):
    """A person's uses of an item in a week: their number, and the days that have one."""

    times: int
    days: int


_Users = dict[str, _Use]


def _find_users(days: Days) -> dict[str, dict[str, _Users]]:
    """Return the users of each tool, command and repository."""
    users: dict[str, dict[str, _Users]] = {"tool": {}, "command": {}, "repository": {}}
    for (person, _), day in days.items():
        tools = dict.fromkeys(day.tools, 1)
        for figure, used in (
            ("tool", tools),
            ("command", day.commands),
            ("repository", day.repositories),
        ):
            of_items = users[figure]
            for item, times in used.items():
                own = of_items.setdefault(item, {})
                before = own.get(person)
                own[person] = _Use(before[0] + times, before[1] + 1) if before else _Use(times, 1)
    return users


def _summarize_items(
    figure: str, period: Period, users: Mapping[str, _Users], week: ActiveWeek
) -> Iterator[Figure]:
    common = [item for item, own in users.items() if len(own) >= week.smallest]
    common.sort(key=lambda item: (-len(users[item]), item))
    for item in common[:ITEMS]:
        own = users[item]
        for group in _find_using(week, own.keys()):
            uses = [own[person] for person in group.people & own.keys()]
            yield Figure(
                figure,
                *period,
                *group.key,
                people=len(uses),
                number=sum(use.days for use in uses),
                share=100.0 * len(uses) / len(group.people),
                total=float(sum(use.times for use in uses)),
                item=item,
            )


def _find_using(week: ActiveWeek, users: AbstractSet[str]) -> Iterator[Group]:
    """Yield the groups in which enough are users, and enough or none are not."""
    everybody = week.everybody
    sides = (everybody & users, everybody - users)
    for group in find_visible(everybody, week.groups, week.smallest, sides):
        is_shown = group == week.visible.get(group.key) or group.grouped_by == EVERYBODY
        if is_shown and group.people & users:
            yield group
