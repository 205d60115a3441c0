"""Attack the figures that readers of the dashboards can read, on every database.

Each person has a number of commits of their own, a power of two, so that a sum tells exactly whose
commits are in it. All sums that the views show, and what is left of one without others, have to be
of nobody or of at least the smallest group.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import combinations, permutations
from random import Random
from typing import Optional

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.constants import CONNECTION_TABLE, FIGURE_TABLE, TOOL_TABLE
from developer_telemetry.pipeline.figure_refresh import WEEKS, refresh_figures
from developer_telemetry.storage.devlake_schema import make_scope_id
from tests.support.devlake_tables import delivery_tables, run_project
from tests.support.telling_fleet import BEFORE, MONDAY, TODAY, Fleet, Sums

SMALLEST = 5


def assert_reveals_nobody(sums: Sums) -> None:
    """Try each sum, each difference of two, and each without all of one kind within it."""
    for people in sums.values():
        assert len(people) >= SMALLEST
    for one, other in permutations(sums.values(), 2):
        assert not one < other or len(other - one) >= SMALLEST
    for key, whole in sums.items():
        for kind in ("team", "project"):
            inner = [
                own
                for other, own in sums.items()
                if other[0] == kind and other != key and own <= whole
            ]
            left = whole.difference(*inner)
            repeated = {n for n in whole if sum(n in own for own in inner) > 1}
            assert not inner or not left or len(left) >= SMALLEST
            assert left or not repeated or len(repeated) >= SMALLEST


@pytest.fixture
def fleet(engine: Engine) -> Iterator[Fleet]:
    with delivery_tables(engine):
        yield Fleet(engine)


def test_a_team_of_four_has_no_figures_and_no_total_tells_them(fleet: Fleet) -> None:
    fleet.report(range(10))
    fleet.link(range(10))
    fleet.team("six", range(6))
    fleet.team("four", range(6, 10))
    fleet.refresh()
    assert fleet.sums() == {
        ("team", "six"): frozenset(range(6)),
        ("everybody", ""): frozenset(range(6)),
    }
    assert fleet.read("SELECT * FROM telemetry_weeks WHERE group_id = 'four'") == []


def test_groups_that_differ_by_one_person_are_not_both_shown(fleet: Fleet) -> None:
    fleet.report(range(20))
    fleet.link(range(20))
    fleet.team("team", range(6))
    fleet.team("with one more", range(7))
    fleet.refresh()
    sums = fleet.sums()
    assert_reveals_nobody(sums)
    assert set(sums) == {("team", "with one more"), ("everybody", "")}


def test_a_project_does_not_tell_who_reports_in_it_beside_a_team(fleet: Fleet) -> None:
    fleet.report(range(8))
    fleet.report(range(8, 20), connection_id=2)
    fleet.link(range(8))
    fleet.team("team", range(6))
    run_project(fleet.engine, "small", [("cicd_scopes", make_scope_id(fleet.ids[1]))])
    run_project(fleet.engine, "large", [("cicd_scopes", make_scope_id(fleet.ids[2]))])
    fleet.refresh()
    sums = fleet.sums()
    assert_reveals_nobody(sums)
    assert ("team", "team") not in sums
    assert sums["project", "small"] == frozenset(range(8))


def test_two_accounts_of_one_person_are_one_of_the_smallest_group(fleet: Fleet) -> None:
    fleet.report(range(4))
    fleet.report([0], connection_id=2, account="second ")
    fleet.link(range(4))
    fleet.link([0], connection_id=2, account="second ")
    fleet.team("team", range(4))
    fleet.refresh()
    assert fleet.sums() == {}
    assert fleet.read("SELECT * FROM telemetry_days") == []


def test_a_person_who_moved_is_in_both_teams_and_no_difference_is_the_person(
    fleet: Fleet,
) -> None:
    fleet.report(range(11))
    fleet.report(range(11), on=BEFORE)
    fleet.link(range(11))
    fleet.team("old", range(6))
    fleet.team("new", range(5, 11))
    fleet.refresh()
    for week in (BEFORE, MONDAY):
        sums = fleet.sums(week)
        assert_reveals_nobody(sums)
        # Both teams' sums without everybody's would be the person's.
        assert len(sums) == 2


@pytest.mark.parametrize("seed", range(6))
def test_no_sum_and_no_difference_of_a_random_fleet_is_of_a_few(fleet: Fleet, seed: int) -> None:
    random = Random(seed)
    size = random.randint(12, 40)
    connections = {number: random.randint(1, 2) for number in range(size)}
    for week in (BEFORE, MONDAY):
        for connection_id in (1, 2):
            active = [n for n in range(size) if connections[n] == connection_id]
            fleet.report([n for n in active if random.random() < 0.8], week, connection_id)
    linked = [number for number in range(size) if random.random() < 0.9]
    for number in linked:
        fleet.link([number], connections[number])
    for name in "abcd":
        fleet.team(name, random.sample(linked, random.randint(1, len(linked) // 2)))
    run_project(fleet.engine, "p", [("cicd_scopes", make_scope_id(fleet.ids[1]))])
    run_project(fleet.engine, "q", [("cicd_scopes", make_scope_id(fleet.ids[n])) for n in (1, 2)])
    fleet.refresh()
    for week in (BEFORE, MONDAY):
        assert_reveals_nobody(fleet.sums(week))


def test_a_day_of_a_few_counts_neither_in_its_week_nor_anywhere(fleet: Fleet) -> None:
    fleet.report(range(6))
    fleet.report([6, 7], on=MONDAY + timedelta(days=6))
    fleet.refresh()
    assert fleet.sums() == {("everybody", ""): frozenset(range(6))}
    days = fleet.read("SELECT day, total FROM telemetry_days WHERE figure = 'hours a day'")
    weeks = fleet.read("SELECT total FROM telemetry_weeks WHERE figure = 'hours a week'")
    assert [(str(day), total) for day, total in days] == [(str(MONDAY), 6)]
    assert weeks == [(6,)]


def sum_days_and_week(fleet: Fleet) -> tuple[float, float]:
    fleet.refresh()
    [(days,)] = fleet.read("SELECT SUM(total) FROM telemetry_days WHERE figure = 'hours a day'")
    [(week,)] = fleet.read(
        "SELECT total FROM telemetry_weeks"
        " WHERE figure = 'hours a week' AND grouped_by = 'everybody'"
    )
    return days, week


def test_days_of_a_week_add_up_to_the_week(fleet: Fleet) -> None:
    for number in range(7):
        fleet.report(range(5 + number), on=MONDAY + timedelta(days=number))
    assert sum_days_and_week(fleet) == (56, 56)


def test_days_minus_the_week_are_not_those_of_a_small_team(fleet: Fleet) -> None:
    fleet.report(range(10))
    fleet.link(range(10))
    fleet.team("six", range(6))
    fleet.team("four", range(6, 10))
    assert sum_days_and_week(fleet) == (6, 6)


def test_a_day_that_is_only_common_beside_a_small_team_counts_nowhere(fleet: Fleet) -> None:
    fleet.report(range(10))
    fleet.report(range(3, 10), on=MONDAY + timedelta(days=1))  # three of the six
    fleet.link(range(10))
    fleet.team("six", range(6))
    fleet.team("four", range(6, 10))
    assert sum_days_and_week(fleet) == (6, 6)


def test_figures_of_delivery_are_of_the_same_people_as_those_of_activity(fleet: Fleet) -> None:
    fleet.report(range(12))
    fleet.link(range(10))
    fleet.team("team", range(5))
    run_project(fleet.engine, "p", [("cicd_scopes", make_scope_id(fleet.ids[1]))])
    fleet.refresh()
    people = fleet.read(
        "SELECT grouped_by, figure, people FROM telemetry_weeks WHERE figure IN"
        " ('hours a week', 'hours a day', 'assistant days', 'test runs', 'builds')"
    )
    everybody = {row[1:] for row in people if row[0] == "everybody"}
    assert {number for _, number in everybody} == {12}
    assert len(everybody) == 5
    assert {row[2] for row in people if row[0] == "team"} == {5}
    assert {row[2] for row in people if row[0] == "project"} == {12}


def test_neither_the_few_who_use_a_tool_nor_the_few_who_do_not_are_told(fleet: Fleet) -> None:
    fleet.report(range(6), tools=["git", "common"])
    fleet.report(range(6, 10), tools=["git", "secret"])
    fleet.report(range(10, 21), tools=["git"])
    fleet.link(range(21))
    fleet.team("one", range(8))
    fleet.team("two", range(8, 16))
    fleet.refresh()
    shown = {
        (item, group): (people, share)
        for item, group, people, share in fleet.read(
            "SELECT item, group_id, people, share FROM telemetry_weeks WHERE figure = 'tool'"
        )
    }
    # Two of team one don't have "common": nothing is said of the team, nor by a total without it.
    assert shown == {
        ("git", ""): (21, 100),
        ("git", "one"): (8, 100),
        ("git", "two"): (8, 100),
        ("common", ""): (6, pytest.approx(100 * 6 / 21)),
    }


@pytest.mark.parametrize("seed", range(6))
def test_no_difference_tells_of_a_few_who_run_a_command_or_do_not(fleet: Fleet, seed: int) -> None:
    random = Random(seed)
    size = random.randint(20, 40)
    commands = {name: random.uniform(0.3, 0.9) for name in ("ls", "rm", "vi", "make")}
    for number in range(size):
        run = [name for name, share in commands.items() if random.random() < share]
        fleet.report([number], connection_id=random.randint(1, 2), commands=run)
    fleet.link(range(size), 1)
    fleet.link(range(size), 2)
    for name in "abc":
        fleet.team(name, random.sample(range(size), random.randint(5, size // 2)))
    run_project(fleet.engine, "p", [("cicd_scopes", make_scope_id(fleet.ids[1]))])
    fleet.refresh()
    active = fleet.sums()
    shown = 0
    for command in commands:
        users = fleet.sums(figure="command", item=command)
        [(share,)] = fleet.read(
            "SELECT MAX(share) FROM telemetry_weeks WHERE figure = 'command'"
            f" AND item = '{command}' AND grouped_by = 'everybody'"
        ) or [(None,)]
        everybody = ("everybody", "")
        if share and round(100 * len(users[everybody]) / share) != len(active[everybody]):
            del users[everybody]  # they are without a few, so that their others are not known
        shown += len(users)
        others = {key: active[key] - own for key, own in users.items()}
        for own in (*users.values(), *filter(None, others.values())):
            assert len(own) >= SMALLEST
        for one, other in permutations(users, 2):
            if active[one] < active[other]:
                for left in (users[other] - users[one], others[other] - others[one]):
                    assert not left or len(left) >= SMALLEST
    assert shown > 2


def test_running_weeks_and_hidden_rows_are_not_in_the_views(fleet: Fleet) -> None:
    fleet.report(range(6), on=TODAY)
    fleet.refresh()
    for view in ("telemetry_days", "telemetry_weeks"):
        assert fleet.read(f"SELECT * FROM {view}") == []
    [(_, smallest)] = fleet.read("SELECT computed_us, smallest_group FROM telemetry_computed")
    assert smallest == SMALLEST


def test_the_smallest_group_of_1_shows_single_people_and_the_largest_setting_counts(
    fleet: Fleet,
) -> None:
    fleet.report(range(3))

    def set_smallest(number: int, name: Optional[str] = None) -> None:
        where = f" WHERE name = '{name}'" if name else ""
        with fleet.engine.begin() as connection:
            connection.exec_driver_sql(
                f"UPDATE {CONNECTION_TABLE} SET smallest_group = {number}{where}"
            )
        fleet.refresh()

    set_smallest(1)
    assert fleet.sums() == {("everybody", ""): frozenset(range(3))}
    set_smallest(4, "two")
    assert fleet.sums() == {}


def test_only_weeks_that_have_changed_are_written_again(fleet: Fleet) -> None:
    fleet.report(range(6))
    fleet.report(range(6), on=BEFORE)
    fleet.refresh()

    def computed() -> dict[str, int]:
        rows = fleet.read(f"SELECT start, computed_us FROM {FIGURE_TABLE} WHERE grain = 'week'")
        return {str(start): computed_us for start, computed_us in rows}

    first = computed()
    assert len(first) == WEEKS
    fleet.report(range(6, 12))
    fleet.refresh()
    second = computed()
    assert {week for week in first if first[week] != second[week]} == {str(MONDAY)}
    assert fleet.sums() == {("everybody", ""): frozenset(range(12))}


def test_weeks_that_are_too_old_go(fleet: Fleet) -> None:
    old = MONDAY - timedelta(weeks=WEEKS)
    fleet.report(range(6), on=MONDAY - timedelta(weeks=WEEKS - 1))
    for _ in refresh_figures(fleet.engine, TODAY - timedelta(weeks=1)):
        pass
    assert fleet.read(f"SELECT * FROM {FIGURE_TABLE} WHERE start = '{old}'") != []
    fleet.refresh()
    assert fleet.read(f"SELECT * FROM {FIGURE_TABLE} WHERE start = '{old}'") == []


def test_without_devlakes_tables_there_is_everybody(engine: Engine) -> None:
    fleet = Fleet(engine)
    fleet.report(range(6), tools=["git"])
    fleet.refresh()
    assert fleet.sums() == {("everybody", ""): frozenset(range(6))}


@pytest.mark.parametrize(
    "text", ["no JSON", "null", '"git"', "[null, 1, {}]", '["a\\u0000b", " a ", "ab"]', '["x"]']
)
def test_whatever_text_a_row_has_is_stored_or_left_out(engine: Engine, text: str) -> None:
    fleet = Fleet(engine)
    fleet.report(range(6))
    with engine.begin() as connection:
        quoted = text.replace("'", "''")
        for column in ("project_context", "tools_used", "command_counts", "git_activity"):
            connection.exec_driver_sql(f"UPDATE {TOOL_TABLE} SET {column} = '{quoted}'")
    fleet.refresh()
    assert fleet.sums() == {("everybody", ""): frozenset(range(6))}


def test_names_that_databases_take_for_equal_are_one_or_stay_apart(engine: Engine) -> None:
    fleet = Fleet(engine)
    names = ["git", "Git", "git ", " git", "é", "e\u0301", "x" * 300, "x" * 260, "🐙"]
    fleet.report(range(6), tools=names)
    fleet.refresh()
    items = [row[0] for row in fleet.read("SELECT item FROM telemetry_weeks WHERE figure = 'tool'")]
    assert sorted(items) == sorted(["git", "Git", "é", "e\u0301", "x" * 255, "🐙"])


def test_every_pair_of_weeks_is_about_enough_people(fleet: Fleet) -> None:
    fleet.report(range(9))
    fleet.report(range(8), on=BEFORE)
    fleet.refresh()
    sums = [fleet.sums(week)["everybody", ""] for week in (BEFORE, MONDAY)]
    assert all(len(one) >= SMALLEST for one in sums)
    # Two weeks are two sums of different days: their difference is no figure of a person's week.
    assert [one & other for one, other in combinations(sums, 2)] == [frozenset(range(8))]
