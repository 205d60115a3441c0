"""The dashboard of delivery on a small DevLake whose answers are known by hand.

Team A has one project a day, an assistant on every other day, tests, fast and sound pull requests;
team B has three projects, no assistant, no tests, slow pull requests and failing builds; team N is
new. A team of four has absurd numbers, which must not be anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any, NamedTuple

import pytest
from sqlalchemy.engine import Engine

from dashboards.delivery import DELIVERY_PAGE, LINKS
from developer_telemetry.connections.registry import create
from developer_telemetry.constants import CONNECTION_TABLE, FIGURE_TABLE, OVERWRITE, TOOL_TABLE
from developer_telemetry.storage.devlake_schema import make_account_id, make_scope_id
from tests.support import dashboard_lakes
from tests.support.dashboard_answers import Chosen, Rows
from tests.support.dashboard_lakes import Range, empty_lake, fill_tables, refresh
from tests.support.devlake_tables import run_project

KINDS = ("mariadb", "postgresql")
TODAY = date(2026, 11, 25)
# Mondays; the last is not over.
FIRST, SECOND, LAST, RUNNING = (date(2026, 11, day) for day in (2, 9, 16, 23))
WEEKS = [str(week) for week in (FIRST, SECOND, LAST, RUNNING)]
RANGE = Range(
    int(datetime(2026, 11, 2, tzinfo=timezone.utc).timestamp()),
    int(datetime(2026, 11, 25, 12, tzinfo=timezone.utc).timestamp()),
)
A, B, N, SMALL = "te'am\\a", "team b", "team n", "small"
SHOP, APPS = "shop's", "apps"
ABSURD = 23


class Person(NamedTuple):
    team: str
    number: int

    @property
    def user(self) -> str:
        return f"{self.team} {self.number}"

    @property
    def author(self) -> str:
        return f"git:{self.user}"

    @property
    def connection_id(self) -> int:
        return 1 if self.team in (A, N) else 2


PEOPLE = [
    *(Person(team, number) for team in (A, B, N) for number in range(6)),
    *(Person(SMALL, number) for number in range(4)),
]


def in_team(team: str) -> list[Person]:
    return [person for person in PEOPLE if person.team == team]


@pytest.fixture(scope="module", params=KINDS)
def lake(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with empty_lake(request.getfixturevalue(f"{request.param}_server")) as engine:
        fill(engine)
        refresh(engine, TODAY)
        yield engine


def fill(engine: Engine) -> None:
    for name in ("one", "two"):
        create(engine, "secret", name, "token", OVERWRITE)
    fill_tables(engine, all_rows())
    run_project(engine, SHOP, [("cicd_scopes", "ci:shop"), ("cicd_scopes", make_scope_id(1))])
    run_project(engine, APPS, [("cicd_scopes", "ci:apps"), ("cicd_scopes", make_scope_id(2))])


def all_rows() -> dict[str, list[dict[str, Any]]]:
    accounts = [(person.connection_id, person.user, person.user) for person in PEOPLE]
    accounts.append((1, "second account", in_team(A)[0].user))
    links = [(make_account_id(number, developer), user) for number, developer, user in accounts]
    links += [(person.author, person.user) for person in PEOPLE]
    return {
        "users": [{"id": person.user, "name": person.user} for person in PEOPLE],
        "user_accounts": [{"account_id": account, "user_id": user} for account, user in links],
        "teams": [{"id": team, "name": team.upper()} for team in (A, B, N, SMALL)],
        "team_users": [{"team_id": each.team, "user_id": each.user} for each in PEOPLE],
        TOOL_TABLE: list(days()),
        "pull_requests": [*pull_requests(), *earlier_pull_requests(), *first_pull_requests()],
        "project_pr_metrics": list(metrics()),
        **builds(),
    }


def day(
    connection_id: int,
    developer: str,
    on: date,
    hours: int,
    projects: Sequence[str] = ("p",),
    tools: Sequence[str] = (),
    tests: int = 0,
) -> dict[str, Any]:
    return {
        "connection_id": connection_id,
        "developer_id": developer,
        "date": str(on),
        "active_hours": hours,
        "project_context": json.dumps(projects),
        "tools_used": json.dumps(["git", *tools]),
        "command_counts": json.dumps({"ls": 3, "cursors": 1}),
        "test_runs": tests,
        "builds": 2 * tests,
        "arrived_us": 1,
    }


def days() -> Iterator[dict[str, Any]]:
    """Two days of each in the last week; of the new in the first."""
    tuesday, friday = LAST + timedelta(1), LAST + timedelta(4)
    for person in in_team(A):
        # The first person's hours are on two machines with an account each.
        own = 3 if person.number == 0 else 4 + person.number
        yield day(1, person.user, tuesday, own, tools=["Claude-Code"], tests=4)
        yield day(1, person.user, friday, own, tests=4)
    yield day(1, "second account", tuesday, 1)
    yield day(1, "second account", friday, 1)
    for person in in_team(B):
        yield day(2, person.user, tuesday, 6, ["p", "q", "r"])
        yield day(2, person.user, friday, 8, ["p", "q", "r"])
    for person in in_team(SMALL):
        yield day(2, person.user, tuesday, ABSURD, list("abcdefgh"), ["codex"])
    yield day(2, "stranger", tuesday, ABSURD)
    for person in in_team(N):
        yield day(1, person.user, FIRST, 5)


def pull_request(identity: str, author: str, created: date, merged: date) -> dict[str, Any]:
    times = {"created_date": f"{created} 09:00:00", "merged_date": f"{merged} 23:30:00"}
    return {"id": identity, "author_id": author, "status": "MERGED", **times}


def pull_requests() -> Iterator[dict[str, Any]]:
    """Two of each in team A in the last week, one of others, merged late on a Sunday."""
    sunday = LAST + timedelta(6)
    for person in (*in_team(A), *in_team(B), *in_team(SMALL)):
        for number in range(2 if person.team == A else 1):
            yield pull_request(f"{person.user}/{number}", person.author, LAST, sunday)
    yield pull_request("bot/1", "git:bot", LAST, sunday)


def metrics() -> Iterator[dict[str, Any]]:
    """Minutes; a pull request is in two projects, and its times count once."""
    hours = {A: (10, 1, 2, 13), B: (30, 3, 6, 39), SMALL: (900, 900, 900, 900)}
    for person in (*in_team(A), *in_team(B), *in_team(SMALL)):
        for number in range(2 if person.team == A else 1):
            for project in (SHOP, APPS):
                coding, pickup, review, cycle = (60 * hour for hour in hours[person.team])
                yield {
                    "id": f"{person.user}/{number}",
                    "project_name": project,
                    "pr_coding_time": coding + 60 * person.number,
                    "pr_pickup_time": pickup,
                    "pr_review_time": review,
                    "pr_cycle_time": cycle + 60 * person.number,
                }


def earlier_pull_requests() -> Iterator[dict[str, Any]]:
    for person in PEOPLE:
        if person.team != N:
            then = date(2026, 1, 5)
            yield pull_request(f"{person.user}/old", person.author, then, then)


def first_pull_requests() -> Iterator[dict[str, Any]]:
    """The first merges of the new: after 3, 5, 7, 9 and 11 days, and none."""
    for person in in_team(N)[:5]:
        merged = FIRST + timedelta(3 + 2 * person.number)
        yield pull_request(f"{person.user}/first", person.author, FIRST, merged)


def builds() -> dict[str, list[dict[str, Any]]]:
    """Ten builds of each project in the last week; four deployments of one, two of the other."""
    done = {"status": "DONE", "finished_date": f"{LAST} 00:30:00"}
    pipelines = [
        {
            "id": f"{scope} {number}",
            "cicd_scope_id": scope,
            "type": "BUILD" if number % 2 else "",
            "result": "FAILURE" if number < failed else "SUCCESS",
            **done,
        }
        for scope, failed in (("ci:shop", 1), ("ci:apps", 5))
        for number in range(10)
    ]
    left_out = {"cicd_scope_id": "ci:shop", "result": "FAILURE", **done}
    pipelines.append({**left_out, "id": "deployment", "type": "DEPLOYMENT"})
    pipelines.append({**left_out, "id": "running", "type": "", "status": "IN_PROGRESS"})
    deployed = {"result": "SUCCESS", "environment": "PRODUCTION", **done}
    commits = [
        {
            "id": f"{scope} {number} {commit}",
            "commit_sha": commit,
            "cicd_scope_id": scope,
            "cicd_deployment_id": f"{scope} {number}",
            **deployed,
        }
        for scope, count in (("ci:shop", 4), ("ci:apps", 2))
        for number in range(count)
        for commit in ("abc", "def")
    ]
    commits.append({**commits[0], "id": "staging", "environment": "STAGING"})
    failed = (("1", SHOP, "ci:shop 2"), ("2", APPS, "ci:apps 0"), ("3", APPS, "ci:apps 1"))
    # A relation is left of the fourth incident alone.
    related = [*failed, ("4", SHOP, "ci:shop 3")]
    return {
        "cicd_pipelines": pipelines,
        "cicd_deployment_commits": commits,
        "incidents": [{"id": identity} for identity, _, _ in failed],
        "project_incident_deployment_relationships": [
            {"id": identity, "project_name": project, "deployment_id": deployment}
            for identity, project, deployment in related
        ],
    }


def answers(engine: Engine, chosen: Chosen) -> Mapping[str, Rows]:
    return dashboard_lakes.answers(engine, DELIVERY_PAGE, RANGE, chosen)


def in_last_week(*values: Any) -> Rows:
    """Return a row a week, with values in the last complete one alone."""
    empty = (None,) * len(values)
    return [(week, *(values if week == str(LAST) else empty)) for week in WEEKS]


def test_both_sources_are_linked_as_far_as_people_are(lake: Engine) -> None:
    found = answers(lake, Chosen())
    linking = [row[:3] for row in found["Linking Quality"]]
    steps = [step for _, step, _ in LINKS]
    # 21 people are authors, and a bot; 22 report, and a stranger.
    shares = [(21, 22), (21, 22), (22, 23), (21, 23)]
    assert linking == [
        (step, pytest.approx(100 * part / of), of) for step, (part, of) in zip(steps, shares)
    ]
    assert all(row[3] for row in found["Linking Quality"])
    assert found["Smallest Group"] == [(5,)]
    share = pytest.approx(100 * 5 / 6)
    assert found["Linked Members by Team"] == [
        (A.upper(), 6, 100, 100, 100),
        (B.upper(), 6, 100, 100, 100),
        (N.upper(), 6, 100, share, share),
    ]


def test_fewer_projects_go_along_with_faster_pull_requests(lake: Engine) -> None:
    a, b = (answers(lake, Chosen(team=[team])) for team in (A, B))
    hours, projects = (
        "Active Hours of a Developer's Day by Week",
        "Projects of a Developer's Day by Week",
    )
    assert (a[hours], b[hours]) == (in_last_week(5, 6, 8), in_last_week(6, 6, 8))
    assert (a[projects], b[projects]) == (in_last_week(1, 1, 1), in_last_week(3, 3, 3))
    assert a["Coding Time by Week"] == in_last_week(11, 12, 14)
    assert b["Coding Time by Week"] == in_last_week(31, 32, 34)
    assert (a["Pickup Time by Week"], b["Pickup Time by Week"]) == (
        in_last_week(1, 1, 1),
        in_last_week(3, 3, 3),
    )
    assert (a["Review Time by Week"], b["Review Time by Week"]) == (
        in_last_week(2, 2, 2),
        in_last_week(6, 6, 6),
    )
    assert a["Cycle Time by Week"] == in_last_week(14, 15, 17)
    assert b["Cycle Time by Week"] == in_last_week(40, 41, 43)
    assert a["Activity Beside Delivery by Week"] == [(str(LAST), 6, 12, 6, 1, 6, 12, 12, 1, 2, 15)]
    by_team = a["Activity Beside Delivery by Team"]
    assert by_team == [
        (A.upper(), 6, 12, 6, 1, 6, 12, 12, 1, 2, 15),
        (B.upper(), 6, 12, 6, 3, 6, 6, 32, 3, 6, 41),
        (N.upper(), 6, 6, 5, 1, 5, 5, None, None, None, None),
    ]


def test_assistants_go_along_with_more_and_faster_pull_requests(lake: Engine) -> None:
    everybody = answers(lake, Chosen())
    a, b = (answers(lake, Chosen(team=[team])) for team in (A, B))
    title = "Developer Days with an AI Assistant by Week"
    new = (str(FIRST), 0)
    assert a[title] == in_last_week(50)
    assert b[title] == in_last_week(0)
    # The team of four and the stranger are enough together.
    assert everybody[title] == [new, *in_last_week(pytest.approx(1000 / 29))[1:]]
    merged = "Merged Pull Requests of a Developer's Week, with and without Assistant"
    assert everybody[merged] == [(str(FIRST), None, 0), *in_last_week(2, 1)[1:]]
    assert everybody["Cycle Time, with and without Assistant"] == in_last_week(15, 41)
    assert everybody["With and without Assistant"] == [
        ("with assistant", 6, 6, 2, 2, 2, 12, 14, 15, 17),
        # Among them the new, of whom two have merged something in their first week.
        ("without assistant", 11, 11, 0, 1, 1, 6, 40, 41, 43),
    ]


def test_local_tests_go_along_with_sound_builds_and_deployments(lake: Engine) -> None:
    shop, apps, every = (answers(lake, Chosen(project=project)) for project in ([SHOP], [APPS], []))
    tests = "Local Test Runs of a Developer's Day by Week"
    assert shop[tests] == [(str(FIRST), 0, 0, 0), *in_last_week(4, 4, 4)[1:]]
    assert apps[tests] == in_last_week(0, 0, 0)
    assert shop["Local Builds of a Developer's Day by Week"] == [
        (str(FIRST), 0, 0, 0),
        *in_last_week(8, 8, 8)[1:],
    ]
    failures = "Failed Builds and Change Failure Rate by Week"
    assert (shop[failures], apps[failures]) == (in_last_week(10, 25), in_last_week(50, 100))
    assert every[failures] == in_last_week(30, 50)
    newest_first = shop["Local Runs Beside Failures by Week"]
    assert newest_first[1] == (str(LAST), 6, 12, 4, 8, 10, 10, 4, 25)
    assert newest_first[3] == (str(FIRST), 6, 6, 0, 0, None, None, None, None)
    # Whoever reports in the project counts, linked or not.
    assert apps["Local Runs Beside Failures by Week"][1][:3] == (str(LAST), 11, 17)


def test_the_first_merge_takes_days_from_the_first_report(lake: Engine) -> None:
    share = pytest.approx(100 * 5 / 6)
    everybody = answers(lake, Chosen())
    by_quarter = "Days from First Report to First Merged Pull Request by Quarter"
    by_team = "Days from First Report to First Merged Pull Request by Team"
    assert everybody[by_quarter] == [("2026-10-01", 6, share, 5, 7, 9)]
    assert everybody[by_team] == [(N.upper(), 6, share, 5, 7, 9)]


def test_nothing_is_stored_about_a_group_that_is_too_small(lake: Engine) -> None:
    assert answers(lake, Chosen(team=[SMALL]))["Activity Beside Delivery by Week"] == []
    with lake.connect() as connection:
        rows = connection.exec_driver_sql(
            f"SELECT figure, people, group_id, third_quartile FROM {FIGURE_TABLE}"
            " WHERE figure NOT IN ('computed', 'digest')"
        ).fetchall()
    assert min(row[1] for row in rows) >= 5
    assert SMALL not in {row[2] for row in rows}
    # Those of a day or a week are about activity alone, where all who report are enough together.
    of_delivery = [row for row in rows if not row[0].endswith((" a day", " a week"))]
    assert all((row[3] or 0) < ABSURD or "time" in row[0] for row in of_delivery)
    assert all((row[3] or 0) < 900 for row in of_delivery)


def test_the_largest_setting_of_all_connections_counts(lake: Engine) -> None:
    def set_smallest(number: int) -> None:
        with lake.begin() as connection:
            connection.exec_driver_sql(
                f"UPDATE {CONNECTION_TABLE} SET smallest_group = {number} WHERE name = 'two'"
            )
        refresh(lake, TODAY)

    try:
        set_smallest(7)
        assert answers(lake, Chosen(team=[A]))["Activity Beside Delivery by Week"] == []
        [week, *_] = answers(lake, Chosen())["Activity Beside Delivery by Week"]
        # Without the six of team A, who would be left beside the project.
        assert week[:2] == (str(LAST), 11)
        assert answers(lake, Chosen())["Smallest Group"] == [(7,)]
    finally:
        set_smallest(0)
    assert answers(lake, Chosen())["Smallest Group"] == [(5,)]


def test_a_choice_of_nobody_is_no_error(lake: Engine) -> None:
    answers(lake, Chosen(team=["none"], project=["none"]))
