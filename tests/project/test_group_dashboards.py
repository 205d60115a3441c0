"""The dashboards about groups on a small DevLake whose answers are known by hand.

Team A has six people, team B five, and five more are in no team. Team A and these are in the
project SHOP; all of them are in the project BOTH. Days are Tuesdays and Fridays; team B is new in
the second week. A team of four has absurd numbers, which must not be anywhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any, NamedTuple, Optional

import pytest
from sqlalchemy.engine import Engine

from dashboards.__main__ import PAGES
from dashboards.activity import ACTIVITY
from dashboards.code import CODE
from dashboards.dialects import MySQL
from dashboards.panels import Dashboard, dashboard
from dashboards.team import TEAM
from dashboards.tools import TOOLS
from developer_telemetry.connections.registry import create
from developer_telemetry.constants import CONNECTION_TABLE, FIGURE_TABLE, OVERWRITE, TOOL_TABLE
from developer_telemetry.storage.devlake_schema import make_account_id, make_scope_id
from tests.support.dashboard_answers import Chosen, Rows, as_value
from tests.support.dashboard_lakes import (
    Range,
    answers,
    database_of,
    empty_lake,
    fill_tables,
    made_page,
    refresh,
    shown,
)
from tests.support.devlake_tables import make_projects, run_project

KINDS = ("mariadb", "mariadb_loose", "postgresql")
TODAY = date(2026, 11, 25)
# Mondays; the last is not over.
FIRST, SECOND, LAST, RUNNING = (date(2026, 11, day) for day in (2, 9, 16, 23))
COMPLETE = (FIRST, SECOND, LAST)
WEEKS = [str(week) for week in (date(2026, 10, 26), *COMPLETE, RUNNING)]
RANGE = Range(
    int(datetime(2026, 11, 1, tzinfo=timezone.utc).timestamp()),
    int(datetime(2026, 11, 25, 12, tzinfo=timezone.utc).timestamp()),
)
GROUP_PAGES = (ACTIVITY, TOOLS, CODE)
A, B, SMALL = 'te\'am \\ "a"', "b", "small"
TEAM_NAMES = {A: "The 1st Team's", B: "Two", SMALL: "Four"}
NO_TEAM = ""
SHOP, BOTH = 'the shop\'s \\n "best"', "böth 🐙 naïve"
HOURS = 23
ABSURD = 1_000_000
ODD = 'it\'s "a" \\ 🐙 100%'  # a tool
REPOSITORY = 'o\'repo \\ "x" é'
COMMANDS = {f"cmd {number:02}": 20 - number for number in range(12)}


class Person(NamedTuple):
    team: str
    number: int

    @property
    def id(self) -> str:
        return f"{self.team or 'alone'} {self.number}"

    @property
    def connection_id(self) -> int:
        return {A: 1, NO_TEAM: 1, B: 2, SMALL: 3}[self.team]


def people_of(team: str, number: int) -> list[Person]:
    return [Person(team, each) for each in range(number)]


OF_A, OF_B, ALONE, FEW = (people_of(*each) for each in ((A, 6), (B, 5), (NO_TEAM, 5), (SMALL, 4)))
MEMBERS = [*OF_A, *OF_B, *FEW]


@pytest.fixture(scope="module", params=KINDS)
def lake(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with empty_lake(request.getfixturevalue(f"{request.param}_server")) as engine:
        fill(engine)
        refresh(engine, TODAY)
        yield engine


def fill(engine: Engine) -> None:
    for name in ("one", "two", "three"):
        create(engine, "secret", name, "token", OVERWRITE)
    accounts = [(person.connection_id, person.id, person.id) for person in MEMBERS]
    accounts.append((1, "second account", OF_A[0].id))
    fill_tables(
        engine,
        {
            "users": [{"id": person.id, "name": person.id} for person in MEMBERS],
            "user_accounts": [
                {"account_id": make_account_id(number, developer), "user_id": user}
                for number, developer, user in accounts
            ],
            "teams": [{"id": team, "name": name} for team, name in TEAM_NAMES.items()],
            "team_users": [{"team_id": each.team, "user_id": each.id} for each in MEMBERS],
            TOOL_TABLE: list(days()),
        },
    )
    make_projects(engine, SHOP, BOTH)
    scopes = [("cicd_scopes", make_scope_id(number)) for number in (1, 2)]
    run_project(engine, SHOP, scopes[:1])
    run_project(engine, BOTH, scopes)


def day(person: Person, on: date, hours: int, **more: Any) -> dict[str, Any]:
    texts: dict[str, Any] = {"project_context": ["p"], "tools_used": [], "command_counts": {}}
    texts.update((name, more.pop(name)) for name in texts if name in more)
    repositories = more.pop("repositories", {})
    listed = [{"name": name, "commits": count} for name, count in repositories.items()]
    texts["git_activity"] = {"repositories": listed}
    numbers = ("commits", "lines_added", "lines_deleted", "files_changed", "test_runs", "builds")
    return {
        "connection_id": person.connection_id,
        "developer_id": person.id,
        "email": f"{person.id}@example.com",
        "date": str(on),
        "active_hours": hours,
        **{name: json.dumps(value, ensure_ascii=False) for name, value in texts.items()},
        **dict.fromkeys(numbers, 0),
        "arrived_us": 1,
        **more,
    }


def days() -> Iterator[dict[str, Any]]:
    for week in COMPLETE:
        tuesday, friday = week + timedelta(1), week + timedelta(4)
        yield from days_of_team_a(week, tuesday, friday)
        if week != FIRST:
            for person in OF_B:
                yield from days_of_team_b(person, tuesday, friday)
        for person in ALONE:
            yield from days_of_others(person, week, tuesday)
        for person in FEW:
            yield absurd_day(person, tuesday)
    # Of a Sunday on which two people worked, and of the week that is not over, nothing counts.
    for person in OF_A[:2]:
        yield {**absurd_day(person, SECOND + timedelta(6)), "active_hours": 24}
    for person in OF_A:
        yield absurd_day(person, RUNNING)


def days_of_team_a(week: date, tuesday: date, friday: date) -> Iterator[dict[str, Any]]:
    broken: list[dict[str, Any]] = [
        {column: text.get(column) for column in BROKEN_COLUMNS} for text in BROKEN
    ]
    for person in OF_A:
        hours = 3 + person.number + (week == LAST)
        # The first person's hours are on two machines with an account each.
        own = hours - 1 if person == OF_A[0] else hours
        tools = ["Git", ODD, ODD, *(["Cursor", "helix"] if person.number < 4 else [])]
        if week == LAST and person.number < 5:
            tools.append("vim")
        yield day(
            person,
            tuesday,
            own,
            tools_used=tools,
            command_counts={**COMMANDS, **({"vi": 1000} if person.number < 4 else {})},
            repositories={REPOSITORY: person.number, **({"of 4": 9} if person.number < 4 else {})},
            commits=person.number,
            lines_added=10,
            lines_deleted=5,
            files_changed=2,
            test_runs=4,
        )
        last = day(person, friday, own, tools_used=["Git"], test_runs=4)
        if week == LAST and person.number < len(broken):
            last.update(broken[person.number], arrived_us=0)
        yield last
    for on in (tuesday, friday):
        yield {**day(OF_A[0], on, 1, tools_used=["Git"]), "developer_id": "second account"}


BROKEN_COLUMNS = ("project_context", "tools_used", "command_counts", "git_activity")
# As the Go plugin may have written them.
BROKEN: list[dict[str, str]] = [
    {},
    dict.fromkeys(BROKEN_COLUMNS, "no JSON"),
    {
        "project_context": '{"p": 1}',
        "tools_used": '"Git"',
        "command_counts": '["cmd 00"]',
        "git_activity": '{"repositories": {"name": "r"}}',
    },
]


def days_of_team_b(person: Person, tuesday: date, friday: date) -> Iterator[dict[str, Any]]:
    yield day(
        person,
        tuesday,
        6,
        project_context=["p", "q", "r"],
        tools_used=["Git", "git"],
        command_counts={"LS": 30},
        builds=1,
    )
    yield day(
        person,
        friday,
        8,
        command_counts={"LS": 30},
        repositories={"lib": 4},
        commits=4,
        lines_added=100,
        files_changed=3,
    )


def days_of_others(person: Person, week: date, tuesday: date) -> Iterator[dict[str, Any]]:
    tools = ["Git", "git", *(["make"] if week == FIRST else [])]
    row = day(
        person,
        tuesday,
        2,
        project_context=["p", "q"],
        tools_used=tools,
        command_counts={"ls": 1},
        repositories={"lib": 0},
    )
    if person == ALONE[0]:  # two accounts without a user, of one mail address
        yield {**row, "active_hours": 1, "email": "Alone@Example.com"}
        yield {
            **day(person, tuesday, 1, project_context=["p"]),
            "developer_id": "another",
            "email": "alone@example.com",
        }
    else:
        yield row


def absurd_day(person: Person, on: date) -> dict[str, Any]:
    return day(
        person,
        on,
        HOURS,
        project_context=list("abcdefgh"),
        tools_used=["Git", "codex", "helix"],
        command_counts={"rm": ABSURD},
        repositories={"absurd": ABSURD},
        commits=ABSURD,
        lines_added=ABSURD,
        lines_deleted=ABSURD,
        files_changed=ABSURD,
        test_runs=ABSURD,
        builds=ABSURD,
    )


def by_week(*rows: Sequence[Any]) -> Rows:
    """Return the rows of the complete weeks between those of two weeks without values."""
    empty = (None,) * len(rows[0])
    return [(week, *row) for week, row in zip(WEEKS, (empty, *rows, empty))]


def by_item(items: Mapping[str, Sequence[Optional[float]]]) -> Rows:
    """Return the rows of items by week, from their values in the complete weeks."""
    return [
        (week, item, value)
        for week, values in zip(WEEKS, zip(*((None, *own, None) for own in items.values())))
        for item, value in sorted(zip(items, values))
    ]


def by_day(values: Mapping[str, Sequence[Any]]) -> Rows:
    """Return a row for each selected day, with the values of some."""
    [width] = {len(each) for each in values.values()}
    selected = [str(date(2026, 11, 1) + timedelta(number)) for number in range(25)]
    return [(on, *values.get(on, (None,) * width)) for on in selected]


# Of those who are everybody in the week: the team of four would be left beside the project.
DAYS: dict[str, tuple[int, int, int, int]] = {
    "2026-11-03": (11, 2, 3, 6),
    "2026-11-06": (6, 4, 5, 7),
    "2026-11-10": (16, 2, 5, 6),
    "2026-11-13": (11, 5, 8, 8),
    "2026-11-17": (16, 2, 6, 6),
    "2026-11-20": (11, 6, 8, 8),
}
WEEKDAYS: list[tuple[str, Optional[float]]] = [
    ("Monday", None),
    ("Tuesday", (43 + 73 + 79) / (11 + 16 + 16)),
    ("Wednesday", None),
    ("Thursday", None),
    ("Friday", (33 + 73 + 79) / (6 + 11 + 11)),
    ("Saturday", None),
    ("Sunday", None),
]


def of_everybody(database: str) -> dict[str, Rows]:
    """Return what is shown whatever group is selected."""
    return {
        "Active Hours of a Developer's Day by Team [Last Week of Selected Time Range]": [
            (TEAM_NAMES[A], 6, 12, 5, 6, 8, 78, as_value(A, database)),
            (TEAM_NAMES[B], 5, 10, 6, 6, 8, 70, B),
        ],
        "Active Hours of a Developer's Day [Everybody]": by_day(
            {on: row[1:] for on, row in DAYS.items()}
        ),
        "Mean Active Hours of a Developer by Day of the Week [Everybody]": [*WEEKDAYS],
        "Active Developers by Day [Everybody]": by_day({on: row[:1] for on, row in DAYS.items()}),
        "Smallest Group": [(5,)],
        "Figures Computed": [(pytest.approx(time.time() * 1000, abs=3_600_000),)],
    }


HOURS_OF_DAYS = "Active Hours of a Developer's Day by Week"
TOOLS_BY_WEEK = "Share of Developers Who Use a Tool by Week [10 Most Used]"
COMMANDS_BY_WEEK = "Commands Run by Week [10 Most Run]"
SUM_OF_COMMANDS = {name: 6 * times for name, times in COMMANDS.items()}  # of a week
OF_COMMANDS = [(name, 3 * times, 18) for name, times in SUM_OF_COMMANDS.items()]
EVERYBODY: dict[str, Rows] = {
    "Median Active Hours of a Developer's Day [Last Week of Selected Time Range]": [(6,)],
    HOURS_OF_DAYS: by_week((2, 4, 6), (3, 6, 8), (4, 6, 8)),
    "Active Hours of a Developer's Week": by_week((2, 6, 12), (2, 10, 14), (2, 12, 14)),
    "Sum of Active Hours by Week": by_week([76], [146], [158]),
    "Active Developers [Last Week of Selected Time Range]": [(16,)],
    "Active Developers by Week": by_week([11], [16], [16]),
    "Active Developers by Month": [("2026-11-01", 16)],
    "Projects of an Active Developer's Day [Each Week]": by_week(
        (22 / 17, 0),
        (42 / 27, 100 * 5 / 27),
        (40 / 27, 100 * 5 / 27),  # two days have no readable projects
    ),
    TOOLS_BY_WEEK: by_item(
        {
            "Git": (100, 100, 100),
            "git": (500 / 11, 1000 / 16, 1000 / 16),
            ODD: (600 / 11, 600 / 16, 600 / 16),
            "make": (500 / 11, 0, 0),
            "vim": (0, 0, 500 / 16),
        }
    ),
    "Tools: Most Used, New and Gone": [
        ("Git", 100, str(FIRST), str(LAST), ""),
        ("git", 100 * 25 / 43, str(FIRST), str(LAST), ""),
        (ODD, 100 * 18 / 43, str(FIRST), str(LAST), ""),
        ("make", 100 * 5 / 43, str(FIRST), str(FIRST), "gone"),
        ("vim", 100 * 5 / 43, str(LAST), str(LAST), "new"),
    ],
    COMMANDS_BY_WEEK: by_item(
        {"LS": (0, 300, 300)}
        | {name: (times,) * 3 for name, times in list(SUM_OF_COMMANDS.items())[:9]}
    ),
    "Commands Most Run [Selected Time Range]": [("LS", 600, 20), *OF_COMMANDS, ("ls", 15, 15)],
    "Commits [Selected Time Range]": [(85,)],
    "Commits by Week": by_week([15], [35], [35]),
    "Commits of a Developer's Week": by_week((0, 0, 3), (0, 2, 4), (0, 2, 4)),
    "Lines Added and Deleted by Week": by_week((60, 30), (560, 30), (560, 30)),
    "Files Changed by Week": by_week([12], [27], [27]),
    "Repositories [Selected Time Range]": [("lib", 25, 40), (REPOSITORY, 18, 45)],
    "Test Runs [Selected Time Range]": [(144,)],
    "Test Runs and Builds beside Commits by Week": by_week((48, 0, 15), (48, 5, 35), (48, 5, 35)),
}
OF_SHOP: dict[str, Rows] = {
    "Median Active Hours of a Developer's Day [Last Week of Selected Time Range]": [(5,)],
    HOURS_OF_DAYS: by_week((2, 4, 6), (2, 4, 6), (2, 5, 7)),
    "Active Hours of a Developer's Week": by_week((2, 6, 12), (2, 6, 12), (2, 8, 14)),
    "Sum of Active Hours by Week": by_week([76], [76], [88]),
    "Active Developers [Last Week of Selected Time Range]": [(11,)],
    "Active Developers by Week": by_week([11], [11], [11]),
    "Active Developers by Month": [("2026-11-01", 11)],
    "Projects of an Active Developer's Day [Each Week]": by_week(
        (22 / 17, 0), (22 / 17, 0), (20 / 17, 0)
    ),
    TOOLS_BY_WEEK: by_item(
        {
            "Git": (100, 100, 100),
            "git": (500 / 11,) * 3,
            ODD: (600 / 11,) * 3,
            "make": (500 / 11, 0, 0),
            "vim": (0, 0, 500 / 11),
        }
    ),
    "Tools: Most Used, New and Gone": [
        ("Git", 100, str(FIRST), str(LAST), ""),
        (ODD, 100 * 18 / 33, str(FIRST), str(LAST), ""),
        ("git", 100 * 15 / 33, str(FIRST), str(LAST), ""),
        ("make", 100 * 5 / 33, str(FIRST), str(FIRST), "gone"),
        ("vim", 100 * 5 / 33, str(LAST), str(LAST), "new"),
    ],
    COMMANDS_BY_WEEK: by_item(
        {name: (times,) * 3 for name, times in list(SUM_OF_COMMANDS.items())[:10]}
    ),
    "Commands Most Run [Selected Time Range]": [*OF_COMMANDS, ("ls", 15, 15)],
    "Commits [Selected Time Range]": [(45,)],
    "Commits by Week": by_week([15], [15], [15]),
    "Commits of a Developer's Week": by_week((0, 0, 3), (0, 0, 3), (0, 0, 3)),
    "Lines Added and Deleted by Week": by_week((60, 30), (60, 30), (60, 30)),
    "Files Changed by Week": by_week([12], [12], [12]),
    "Repositories [Selected Time Range]": [(REPOSITORY, 18, 45), ("lib", 15, 0)],
    "Test Runs [Selected Time Range]": [(144,)],
    "Test Runs and Builds beside Commits by Week": by_week((48, 0, 15), (48, 0, 15), (48, 0, 15)),
}
OF_TEAM_A: dict[str, Rows] = {
    "Median Active Hours of a Developer's Day [Last Week of Selected Time Range]": [(6,)],
    HOURS_OF_DAYS: by_week((4, 5, 7), (4, 5, 7), (5, 6, 8)),
    "Active Hours of a Developer's Week": by_week((8, 10, 14), (8, 10, 14), (10, 12, 16)),
    "Sum of Active Hours by Week": by_week([66], [66], [78]),
    "Active Developers [Last Week of Selected Time Range]": [(6,)],
    "Active Developers by Week": by_week([6], [6], [6]),
    "Active Developers by Month": [("2026-11-01", 6)],
    "Projects of an Active Developer's Day [Each Week]": by_week((1, 0), (1, 0), (10 / 12, 0)),
    # All but one use vim, of whom nothing is said.
    TOOLS_BY_WEEK: by_item({"Git": (100,) * 3, ODD: (100,) * 3}),
    "Tools: Most Used, New and Gone": [
        ("Git", 100, str(FIRST), str(LAST), ""),
        (ODD, 100, str(FIRST), str(LAST), ""),
    ],
    COMMANDS_BY_WEEK: OF_SHOP[COMMANDS_BY_WEEK],
    "Commands Most Run [Selected Time Range]": OF_COMMANDS,
    "Commits [Selected Time Range]": [(45,)],
    "Commits by Week": by_week([15], [15], [15]),
    "Commits of a Developer's Week": by_week((1, 2, 4), (1, 2, 4), (1, 2, 4)),
    "Lines Added and Deleted by Week": by_week((60, 30), (60, 30), (60, 30)),
    "Files Changed by Week": by_week([12], [12], [12]),
    "Repositories [Selected Time Range]": [(REPOSITORY, 18, 45)],
    "Test Runs [Selected Time Range]": [(144,)],
    "Test Runs and Builds beside Commits by Week": by_week((48, 0, 15), (48, 0, 15), (48, 0, 15)),
}


def assert_shown(
    lake: Engine, page: Dashboard, chosen: Chosen, expected: Mapping[str, Rows]
) -> None:
    known = {**of_everybody(database_of(lake)), **expected}
    for title, rows in answers(lake, page, RANGE, chosen).items():
        right = known[title]
        assert len(rows) == len(right), f"{title}: {rows}"
        for row, answer in zip(rows, right):
            assert row == pytest.approx(answer, abs=1e-3), f"{title}: {rows}"


@pytest.mark.parametrize("page", GROUP_PAGES, ids=lambda page: page.uid)
@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("everybody ", EVERYBODY),
        (f"project {BOTH}", EVERYBODY),
        (f"project {SHOP}", OF_SHOP),
        (f"team {A}", OF_TEAM_A),
    ],
    ids=["everybody", "large project", "small project", "team"],
)
def test_every_panel_shows_the_figures_of_the_group(
    lake: Engine, page: Dashboard, group: str, expected: Mapping[str, Rows]
) -> None:
    assert_shown(lake, page, Chosen(group=group), expected)


def test_a_teams_page_shows_the_figures_of_the_team(lake: Engine) -> None:
    assert_shown(lake, TEAM, Chosen(team=[A]), OF_TEAM_A)


@pytest.mark.parametrize("expected", [EVERYBODY, OF_SHOP, OF_TEAM_A])
def test_every_panel_has_an_expectation(expected: Mapping[str, Rows]) -> None:
    titles = {
        panel["title"]
        for page in (*GROUP_PAGES, TEAM)
        for panel in dashboard(page, MySQL(page.about))["panels"]
        if "targets" in panel
    }
    assert titles == {*of_everybody("mysql"), *expected}


def test_a_week_without_a_group_has_no_values_rather_than_zeros(lake: Engine) -> None:
    b = answers(lake, TEAM, RANGE, Chosen(team=[B]))
    assert b[HOURS_OF_DAYS] == by_week((None,) * 3, (6, 6, 8), (6, 6, 8))
    assert b["Commits by Week"] == by_week([None], [20], [20])
    used = {"Git": (None, 100, 100), "git": (None, 100, 100)}
    assert b[TOOLS_BY_WEEK] == by_item(used)


@pytest.mark.parametrize(
    "group",
    [
        f"team {SMALL}",
        f"team {A.upper()}",
        f"team {SHOP}",
        f"project {A}",
        "project ",
        "team ",
        "everybody x",
        "nothing",
        "",
    ],
)
def test_a_group_that_is_small_or_not_there_has_no_values(lake: Engine, group: str) -> None:
    of_all = of_everybody(database_of(lake))
    for page in GROUP_PAGES:
        for title, rows in answers(lake, page, RANGE, Chosen(group=group)).items():
            if title not in of_all:
                values = [value for row in rows for value in row if value not in WEEKS]
                assert set(values) <= {None}, title


@pytest.mark.parametrize("team", [SMALL, "none", ""])
def test_a_team_that_is_small_or_not_there_has_no_values(lake: Engine, team: str) -> None:
    of_all = of_everybody(database_of(lake))
    for title, rows in answers(lake, TEAM, RANGE, Chosen(team=[team])).items():
        if title not in of_all:
            assert {value for row in rows for value in row[1:]} <= {None}, title


def test_nothing_is_stored_about_a_few_people(lake: Engine) -> None:
    columns = "grain, figure, group_id, item, people, number, total, third_quartile"
    rows = shown(
        lake,
        f"SELECT {columns} FROM {FIGURE_TABLE} WHERE figure NOT IN ('computed', 'digest')",
    )
    assert min(row[4] for row in rows) >= 5
    assert SMALL not in {row[2] for row in rows}
    items = {row[3] for row in rows} - {""}
    assert items == {"Git", "git", ODD, "make", "vim", *COMMANDS, "LS", "ls", REPOSITORY, "lib"}
    assert all(value is None or value < ABSURD / 100 for row in rows for value in row[4:])
    hours = {row[7] for row in rows if row[:2] == ("week", "hours a day")}
    assert hours
    assert max(hours) < HOURS


def test_a_person_with_two_accounts_counts_once(lake: Engine) -> None:
    rows = shown(
        lake,
        f"SELECT people, number FROM {FIGURE_TABLE} WHERE figure = 'hours a day'"
        f" AND grain = 'week' AND start = '{LAST}' AND grouped_by = 'everybody'",
    )
    assert rows == [(16, 27)]


def test_one_switches_the_protection_off(lake: Engine) -> None:
    def set_smallest(number: int) -> None:
        with lake.begin() as connection:
            connection.exec_driver_sql(f"UPDATE {CONNECTION_TABLE} SET smallest_group = {number}")
        refresh(lake, TODAY)

    try:
        set_smallest(1)
        small = answers(lake, TEAM, RANGE, Chosen(team=[SMALL]))
        activity = answers(lake, ACTIVITY, RANGE, Chosen())
        a = answers(lake, TOOLS, RANGE, Chosen(group=f"team {A}"))
    finally:
        set_smallest(0)
    assert small["Smallest Group"] == activity["Smallest Group"] == [(1,)]
    assert small[HOURS_OF_DAYS] == by_week(*[(HOURS,) * 3] * 3)
    assert small["Commits by Week"] == by_week(*[[4 * ABSURD]] * 3)
    assert activity["Active Developers by Week"] == by_week([15], [20], [20])
    by_date: dict[str, Any] = dict(activity["Active Developers by Day [Everybody]"])
    assert by_date["2026-11-15"] == 2
    assert by_date["2026-11-23"] is None  # the week is not over
    used = {row[0]: row[1] for row in a["Tools: Most Used, New and Gone"]}
    assert used["vim"] == pytest.approx(100 * 5 / 18, abs=1e-3)
    assert used["Cursor"] == pytest.approx(100 * 12 / 18, abs=1e-3)
    assert answers(lake, TEAM, RANGE, Chosen(team=[SMALL]))["Smallest Group"] == [(5,)]


def test_variables_offer_every_group_with_a_value_that_finds_it(lake: Engine) -> None:
    database = database_of(lake)
    projects = {(name, as_value(name, database)) for name in (SHOP, BOTH)}
    teams = {(name, as_value(team, database)) for team, name in TEAM_NAMES.items()}
    groups = {("Everybody", "everybody ")}
    groups |= {(f"Project {name}", f"project {value}") for name, value in projects}
    groups |= {(f"Team {name}", f"team {value}") for name, value in teams}
    expected = {"project": projects, "team": teams, "group": groups}
    for page in PAGES:
        if page.about != "fleet":
            for variable in made_page(lake, page)["templating"]["list"][1:]:
                found = shown(lake, variable["query"])
                assert len(found) == len(set(found))
                assert set(found) == expected[variable["name"]], page.uid
