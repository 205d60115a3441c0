"""Test which groups are shown, and that a difference of two is not about a few."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from itertools import permutations
from random import Random

from developer_telemetry.pipeline.figures import (
    WEEK,
    Period,
    summarize,
    summarize_share,
    take_quartiles,
)
from developer_telemetry.pipeline.visible_groups import (
    EVERYBODY,
    PROJECT,
    TEAM,
    Group,
    Groups,
    Part,
    find_visible,
    find_visible_sides,
    join_parts,
)

THIS_WEEK = Period(WEEK, date(2026, 11, 16))


def people(*numbers: int) -> frozenset[str]:
    return frozenset(f"p{number}" for number in numbers)


def shown(
    everyone: frozenset[str], teams: Mapping[str, frozenset[str]], smallest: int = 5
) -> dict[str, set[str]]:
    groups = find_visible(everyone, Groups.of_members(TEAM, teams), smallest)
    return {group.id if group.grouped_by == TEAM else "*": set(group.people) for group in groups}


def test_a_team_of_four_is_not_shown_and_not_in_the_total_of_the_others() -> None:
    large, small = people(*range(1, 8)), people(*range(10, 14))
    assert shown(large | small, {"large": large, "small": small}) == {
        "large": large,
        "*": large,
    }


def test_small_teams_that_are_enough_together_are_in_the_total() -> None:
    large, small, other = people(*range(1, 8)), people(10, 11, 12, 13), people(20, 21)
    groups = {"large": large, "small": small, "other": other}
    assert shown(large | small | other, groups) == {
        "large": large,
        "*": large | small | other,
    }


def test_of_two_teams_that_differ_by_one_person_the_smaller_is_not_shown() -> None:
    team = people(*range(1, 8))
    assert shown(team | people(8), {"team": team, "guild": team | people(8)}) == {
        "guild": team | people(8),
        "*": team | people(8),
    }


def test_fewer_than_the_smallest_group_are_nobody() -> None:
    assert shown(people(1, 2, 3, 4), {"team": people(1, 2, 3, 4)}) == {}
    assert shown(people(1), {"team": people(1)}, smallest=1) == {"team": people(1), "*": people(1)}


def test_someone_without_values_in_the_period_does_not_count() -> None:
    assert shown(people(1, 2, 3, 4), {"team": people(*range(9))}) == {}


def test_no_difference_of_two_groups_is_about_a_few() -> None:
    for seed in range(200):
        random = Random(seed)
        everyone = people(*range(random.randint(1, 30)))
        sizes = [random.randint(1, len(everyone)) for _ in range(random.randint(1, 6))]
        teams = {
            str(number): frozenset(random.sample(sorted(everyone), size))
            for number, size in enumerate(sizes)
        }
        groups = [
            group.people for group in find_visible(everyone, Groups.of_members(TEAM, teams), 5)
        ]
        assert all(len(group) >= 5 for group in groups)
        for one, other in permutations(groups, 2):
            assert not one < other or len(other - one) >= 5


def test_the_total_minus_all_groups_is_nobody_or_enough() -> None:
    for seed in range(100):
        random = Random(seed)
        everyone = people(*range(25))
        teams = {
            str(number): frozenset(person for person in everyone if random.random() < 0.3)
            for number in range(4)
        }
        groups = shown(everyone, teams)
        total = groups.pop("*")
        left = total.difference(*groups.values())
        assert not left or len(left) >= 5


def of_kinds(random: Random, everyone: frozenset[str]) -> Groups:
    """Return teams, and two projects that are teams together with a few others."""
    names = sorted(everyone)
    teams = {str(n): frozenset(random.sample(names, random.randint(1, 9))) for n in range(4)}
    projects = {
        name: teams["0"] | teams[other] | frozenset(random.sample(names, random.randint(0, 3)))
        for name, other in (("p", "1"), ("q", "2"))
    }
    keys: dict[str, list[tuple[str, str]]] = {}
    for grouped_by, members in ((TEAM, teams), (PROJECT, projects)):
        for identity, own in members.items():
            for person in own:
                keys.setdefault(person, []).append((grouped_by, identity))
    return Groups(keys)


def test_a_group_minus_all_groups_of_one_kind_within_it_is_nobody_or_enough() -> None:
    hidden = 0
    for seed in range(400):
        random = Random(seed)
        everyone = people(*range(random.randint(9, 40)))
        groups = of_kinds(random, everyone)
        shown = find_visible(everyone, groups, 5)
        hidden += len(groups.divide(everyone)) + 1 - len(shown)
        for whole, kind in ((one, kind) for one in shown for kind in (TEAM, PROJECT)):
            inner = [
                one.people
                for one in shown
                if one.grouped_by == kind and one.key != whole.key and one.people <= whole.people
            ]
            left = frozenset(whole.people).difference(*inner)
            assert not inner or not left or len(left) >= 5
            assert all(whole.people == one or len(whole.people - one) >= 5 for one in inner)
    assert hidden > 400  # else nothing was tried


def test_a_project_of_two_teams_and_one_more_person_is_not_shown() -> None:
    teams = {"a": people(*range(6)), "b": people(*range(10, 16))}
    keys = {person: [(TEAM, "a"), (PROJECT, "p")] for person in teams["a"]}
    keys |= {person: [(TEAM, "b"), (PROJECT, "p")] for person in teams["b"]}
    keys["p20"] = [(PROJECT, "p")]
    everyone = frozenset(keys) | people(*range(30, 36))
    shown = find_visible(everyone, Groups(keys), 5)
    assert {group.key for group in shown} == {(TEAM, "a"), (TEAM, "b"), (EVERYBODY, "")}
    assert shown[-1].people == everyone


def test_a_distribution_has_quartiles_and_the_numbers_of_people_and_values() -> None:
    values = {f"p{number}": [float(number), float(number)] for number in range(1, 6)}
    (row,) = summarize("hours", THIS_WEEK, values, [Group(EVERYBODY, "", values.keys())])
    assert row[5:] == (5, 10, None, 2.0, 3.0, 4.0, 30.0, "")
    assert take_quartiles([]) == (None, None, None)
    assert take_quartiles([7.0]) == (7.0, 7.0, 7.0)


def test_a_share_is_in_percent_of_all_values() -> None:
    values = {"p1": [1.0, 0.0, 0.0], "p2": [1.0]}
    (row,) = summarize_share("days", THIS_WEEK, values, [Group(EVERYBODY, "", values.keys())])
    assert row[5:] == (2, 4, 50.0, None, None, None, None, "")


def split(with_it: int, without: int) -> tuple[list[str], list[str]]:
    sides = (
        {f"a{number}": [1.0] for number in range(with_it)},
        {f"b{number}": [2.0] for number in range(without)},
    )
    teams = {"team": {*sides[0], *sides[1]}}
    first, second = find_visible_sides(sides, Groups.of_members(TEAM, teams), 5)
    return [group.id for group in first], [group.id for group in second]


def test_two_sides_are_shown_together_or_not_at_all() -> None:
    assert split(6, 5) == (["team", ""], ["team", ""])
    assert split(6, 4) == ([], [])
    assert split(4, 9) == ([], [])
    assert split(6, 0) == (["team", ""], [])


def part(shown: bool, *numbers: int) -> Part:
    values = {person: [1.0] for person in people(*numbers)}
    group = Group(TEAM, "team", values.keys())
    return Part(values, {group.key: group} if shown else {})


def test_a_longer_time_has_no_weeks_that_a_few_people_were_left_in() -> None:
    team = Group(TEAM, "team", people(*range(1, 9)))
    week = part(True, 1, 2, 3, 4, 5)
    assert join_parts(team, [week, week, part(False, 1, 2)], 5).keys() == people(1, 2, 3, 4, 5)
    assert len(join_parts(team, [week, week, part(False, 1, 2)], 5)["p1"]) == 2
    # Several such weeks are of enough people together.
    hidden = [part(False, 1, 2, 3), part(False, 4, 5, 6)]
    assert len(join_parts(team, [week, *hidden], 5)["p1"]) == 2
    assert join_parts(team, hidden, 5).keys() == people(*range(1, 7))
    assert join_parts(team, hidden[:1], 5) == {}
