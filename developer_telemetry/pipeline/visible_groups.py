"""Choose the groups of people that may be shown: none is of a few, nor is a difference of two.

Groups and periods are fixed, so that no choice of a reader makes a smaller group.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

EVERYBODY, TEAM, PROJECT = "everybody", "team", "project"

Key = tuple[str, str]  # a group's kind and id
# The numbers that count for each person.
Values = Mapping[str, Sequence[float]]


class Group(NamedTuple):
    """A group that may be shown."""

    grouped_by: str
    id: str
    people: AbstractSet[str]

    @property
    def key(self) -> Key:
        """Return the kind and the id."""
        return self.grouped_by, self.id


class Groups:
    """The groups of each person, of one or more kinds."""

    def __init__(self, keys: Mapping[str, Collection[Key]]) -> None:
        """Initialize them by the keys of each person's groups."""
        self._keys = keys

    @classmethod
    def of_members(cls, grouped_by: str, members: Mapping[str, AbstractSet[str]]) -> Groups:
        """Return the groups of one kind, of which the members are known by id."""
        keys: dict[str, list[Key]] = {}
        for identity, own in members.items():
            for person in own:
                keys.setdefault(person, []).append((grouped_by, identity))
        return cls(keys)

    def of(self, person: str) -> Collection[Key]:
        """Return the keys of a person's groups."""
        return self._keys.get(person, ())

    def divide(self, people: Iterable[str]) -> dict[Key, set[str]]:
        """Return the people of each group."""
        divided: dict[Key, set[str]] = {}
        for person in people:
            for key in self.of(person):
                divided.setdefault(key, set()).add(person)
        return divided


class _Few:
    """Tells whether people are too few to be shown, or those of them on one side are."""

    def __init__(self, smallest: int, sides: Sequence[AbstractSet[str]]) -> None:
        self._smallest = smallest
        self._sides = sides

    def __call__(self, people: AbstractSet[str]) -> bool:
        if 0 < len(people) < self._smallest:
            return True
        return any(0 < len(people & side) < self._smallest for side in self._sides)


def find_visible(
    people: AbstractSet[str],
    groups: Groups,
    smallest: int,
    sides: Sequence[AbstractSet[str]] = (),
) -> list[Group]:
    """Return the groups of these people that may be shown, and everybody last.

    A group has at least `smallest` people; so has what is left of it without a group within it,
    and without all groups of one kind within it, and so have the people who are in several of
    these, if nobody is left. Everybody are all people, without those who would be left of them in
    this way.

    Args:
        sides: parts of the people, of each of which nobody or enough have to be there as well.
    """
    few = _Few(smallest, sides)
    visible = {key: own for key, own in groups.divide(people).items() if not few(own)}
    while hidden := _find_revealing(visible, groups, few):
        visible = {key: own for key, own in visible.items() if key not in hidden}
    everybody = _join_everybody(people, visible, few)
    while too_much := _find_beside_everybody(everybody, visible, few):
        del visible[min(too_much, key=lambda key: (len(visible[key]), key))]
        everybody = _join_everybody(people, visible, few)
    shown = [Group(*key, own) for key, own in visible.items()]
    return shown + ([Group(EVERYBODY, "", everybody)] if everybody else [])


def _find_revealing(visible: Mapping[Key, AbstractSet[str]], groups: Groups, few: _Few) -> set[Key]:
    """Return the groups that would show a few people, beside others."""
    within: dict[Key, list[Key]] = {}
    revealing: set[Key] = set()
    for key, own in visible.items():
        for other in groups.of(next(iter(own))):
            if other != key and other in visible and own <= visible[other]:
                within.setdefault(other, []).append(key)
                if few(visible[other] - own):
                    revealing.add(key)
    if revealing:  # without these, what is left of others is more
        return revealing
    for key, inner in within.items():
        for kind in _join_kinds({one: visible[one] for one in inner}):
            left = visible[key] - kind.people
            if few(left) or (not left and few(kind.repeated)):
                revealing.add(key)
    return revealing


class _Kind(NamedTuple):
    """The people of all groups of one kind, and those who are in several of these."""

    people: set[str]
    repeated: set[str]


def _join_kinds(groups: Mapping[Key, AbstractSet[str]]) -> Iterable[_Kind]:
    kinds: dict[str, _Kind] = {}
    for (grouped_by, _), own in groups.items():
        kind = kinds.setdefault(grouped_by, _Kind(set(), set()))
        kind.repeated.update(kind.people & own)
        kind.people.update(own)
    return kinds.values()


def _find_beside_everybody(
    everybody: AbstractSet[str], visible: Mapping[Key, AbstractSet[str]], few: _Few
) -> set[Key]:
    """Return the groups of which one has to be hidden, or everybody would show a few."""
    within = {key: own for key, own in visible.items() if own <= everybody}
    almost = {key for key, own in within.items() if few(everybody - own)}
    if almost:
        return almost
    for kind in _join_kinds(within):
        if kind.people == everybody and few(kind.repeated):
            return {key for key, own in within.items() if own & kind.repeated}
    return set()


def _join_everybody(
    people: AbstractSet[str], visible: Mapping[Key, AbstractSet[str]], few: _Few
) -> AbstractSet[str]:
    everybody = set(people)
    while everybody:
        within = {key: own for key, own in visible.items() if own <= everybody}
        rests = [everybody - kind.people for kind in _join_kinds(within)]
        left = set().union(*filter(few, rests))
        if not left:
            break
        everybody -= left
    return frozenset() if few(everybody) else everybody


def find_visible_sides(
    sides: tuple[Values, Values], groups: Groups, smallest: int
) -> tuple[list[Group], list[Group]]:
    """Return the groups of which both sides may be shown: one side would tell of the other.

    A group with nobody on one side may be shown on the other.
    """
    visible = [find_visible(side.keys(), groups, smallest) for side in sides]
    shown = []
    for own, others, values in (
        (visible[0], visible[1], sides[1]),
        (visible[1], visible[0], sides[0]),
    ):
        keys = {group.key for group in others}
        present = groups.divide(values)
        shown.append(
            [
                group
                for group in own
                if group.key in keys or not (group.key in present if group.id else values)
            ]
        )
    return shown[0], shown[1]


class Part(NamedTuple):
    """The values of one week, and the groups that are shown in it."""

    values: Values
    groups: Mapping[Key, Group]


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
