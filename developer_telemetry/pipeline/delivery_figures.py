"""Figures of groups of people: which groups may be shown, and what is shown of them.

A group with fewer than `smallest` people has no figure, and no difference of two figures is about
fewer people. Groups and periods are fixed, so that no choice of a reader makes a smaller group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from typing import NamedTuple, Optional

EVERYBODY, TEAM, PROJECT = "everybody", "team", "project"
WEEK, QUARTER, HALF_YEAR, YEAR = "week", "quarter", "half year", "year"

# The numbers that count for each person.
Values = Mapping[str, Sequence[float]]
Groups = Mapping[str, AbstractSet[str]]


class Period(NamedTuple):
    """A span of time by its kind and first day."""

    grain: str
    start: date


class Figure(NamedTuple):
    """One figure of one group in one period, a row of the table.

    It is a share in percent or a distribution; `number` is how many values it is of.
    """

    figure: str
    grain: str
    start: date
    grouped_by: str
    group_id: str
    people: int
    number: int
    share: Optional[float] = None
    first_quartile: Optional[float] = None
    median: Optional[float] = None
    third_quartile: Optional[float] = None


class Group(NamedTuple):
    """A group that may be shown."""

    grouped_by: str
    id: str
    people: AbstractSet[str]

    @property
    def key(self) -> tuple[str, str]:
        """Return the kind and the id."""
        return self.grouped_by, self.id


def find_visible(
    people: AbstractSet[str], groups: Groups, grouped_by: str, smallest: int
) -> list[Group]:
    """Return the groups of these people that may be shown, and everybody last.

    Everybody are the people of the visible groups, and all others only if these are enough: else
    a total minus the visible groups would be about the few.
    """
    members = ((name, people & group) for name, group in groups.items())
    visible = {name: own for name, own in members if len(own) >= smallest}
    for name in _list_almost_whole(visible, smallest):
        del visible[name]
    everybody = _join(people, visible, smallest)
    while almost := [name for name in visible if _is_almost(visible[name], everybody, smallest)]:
        del visible[min(almost, key=lambda name: (len(visible[name]), name))]
        everybody = _join(people, visible, smallest)
    groups_shown = [Group(grouped_by, name, own) for name, own in visible.items()]
    return groups_shown + ([Group(EVERYBODY, "", everybody)] if everybody else [])


def _list_almost_whole(groups: Groups, smallest: int) -> list[str]:
    """Return the groups that lack a few people only of a larger one, which would show these."""
    by_person: dict[str, list[str]] = {}
    for name, own in groups.items():
        for person in own:
            by_person.setdefault(person, []).append(name)
    return [
        name
        for name, own in groups.items()
        if any(_is_almost(own, groups[other], smallest) for other in by_person[next(iter(own))])
    ]


def _is_almost(part: AbstractSet[str], people: AbstractSet[str], smallest: int) -> bool:
    return 0 < len(people) - len(part) < smallest and part <= people


def _join(people: AbstractSet[str], visible: Groups, smallest: int) -> AbstractSet[str]:
    shown = frozenset[str]().union(*visible.values())
    return people if len(people - shown) >= smallest else shown


def summarize(figure: str, period: Period, values: Values, groups: Sequence[Group]) -> list[Figure]:
    """Return the distribution of the values of each group."""
    rows = []
    for group in groups:
        numbers = sorted(number for person in group.people for number in values[person])
        quartiles = take_quartiles(numbers)
        rows.append(_make_row(figure, period, group, len(numbers), None, *quartiles))
    return rows


def summarize_share(
    figure: str, period: Period, values: Values, groups: Sequence[Group]
) -> list[Figure]:
    """Return the share of each group's values that are 1 instead of 0."""
    rows = []
    for group in groups:
        numbers = [number for person in group.people for number in values[person]]
        share = 100.0 * sum(numbers) / len(numbers)
        rows.append(_make_row(figure, period, group, len(numbers), share))
    return rows


def find_visible_sides(
    sides: tuple[Values, Values], groups: Groups, grouped_by: str, smallest: int
) -> tuple[list[Group], list[Group]]:
    """Return the groups of which both sides may be shown: one side would tell of the other.

    A group with nobody on one side may be shown on the other.
    """
    visible = [find_visible(side.keys(), groups, grouped_by, smallest) for side in sides]
    shown = []
    for own, others, values in (
        (visible[0], visible[1], sides[1]),
        (visible[1], visible[0], sides[0]),
    ):
        keys = {group.key for group in others}
        shown.append(
            [
                group
                for group in own
                if group.key in keys
                or not (values.keys() & groups[group.id] if group.id else values.keys())
            ]
        )
    return shown[0], shown[1]


class Part(NamedTuple):
    """The values of one week, and the groups that are shown in it."""

    values: Values
    groups: Mapping[tuple[str, str], Group]


def join_parts(group: Group, parts: Sequence[Part], smallest: int) -> dict[str, list[float]]:
    """Return a group's values over several weeks.

    Values of weeks in which the group is not shown are left out if they are of a few people: else
    the longer time minus the weeks that are shown would be about these.
    """
    shown: dict[str, list[float]] = {}
    hidden: dict[str, list[float]] = {}
    for part in parts:
        visible = part.groups.get(group.key)
        for person in group.people & part.values.keys():
            into = shown if visible and person in visible.people else hidden
            into.setdefault(person, []).extend(part.values[person])
    if len(hidden) >= smallest:
        for person, values in hidden.items():
            shown.setdefault(person, []).extend(values)
    return shown


def take_quartiles(
    ranked: Sequence[float],
) -> tuple[Optional[float], Optional[float], Optional[float]]:
    """Return the smallest values that a quarter, half and three quarters don't exceed."""
    if not ranked:
        return None, None, None
    first, median, third = (ranked[math.ceil(n * len(ranked) / 4) - 1] for n in (1, 2, 3))
    return first, median, third


def _make_row(
    figure: str,
    period: Period,
    group: Group,
    number: int,
    share: Optional[float],
    *quartiles: Optional[float],
) -> Figure:
    key = (figure, *period, group.grouped_by, group.id)
    return Figure(*key, len(group.people), number, share, *quartiles)
