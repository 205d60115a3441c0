"""Tables and rows of the Go plugin survive the migration, whoever runs it, on any server."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Callable

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.database import migrate as schema
from tests.support.go_plugin import DEVELOPMENT, GIT, ODD_JSON, SECRET, STATEMENTS, insert, row
from tests.support.schemas import Database, fetch, operations_for


@pytest.fixture(params=["mariadb_url", "mariadb_loose_url"])
def left(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Return what the Go plugin left behind, in the collation that the server has by default."""
    database = Database(request.getfixturevalue(request.param))
    for statement in STATEMENTS:
        database.execute(statement)
    yield database
    database.close()


@pytest.fixture(params=["by DevLake's server", "by us"])
def upgraded(
    request: pytest.FixtureRequest, left: Database, opened: Callable[[str], Engine]
) -> Engine:
    engine = opened(left.url)
    if request.param == "by us":
        schema.migrate(engine)
    else:
        left.migrate(operations_for("mysql"))
    return engine


def test_an_upgraded_database_has_the_schema_of_a_fresh_one(left: Database) -> None:
    left.migrate(operations_for("mysql"))
    upgraded = left.structure()
    left.empty()
    left.migrate(operations_for("mysql"))
    fresh = left.structure()

    connections = upgraded["_tool_developer_telemetry_connections"]
    limit = [column for column in connections if column[0] == "rate_limit_per_hour"]
    assert [column[1:3] for column in limit] == [("NO", "0")]
    connections.remove(limit[0])
    assert upgraded == fresh


def test_rows_get_their_numbers(upgraded: Engine) -> None:
    rows = fetch(
        upgraded,
        "SELECT developer_id, commits, lines_added, lines_deleted, files_changed, test_runs,"
        " builds FROM _tool_developer_metrics",
    )
    numbers = {developer: found for developer, *found in rows}
    assert {name: numbers[name] for name in ODD_JSON} == {
        name: list(expected) for name, (_, expected) in ODD_JSON.items()
    }


def test_rows_stay_as_they_were(upgraded: Engine) -> None:
    (kept,) = fetch(
        upgraded,
        "SELECT connection_id, developer_id, date, email, name, hostname, active_hours, tools_used,"
        " project_context, git_activity, development_activity, os_info, created_at, updated_at,"
        " command_counts, arrived_us, _raw_data_params, _raw_data_table, _raw_data_id"
        " FROM _tool_developer_metrics WHERE developer_id = 'usual'",
    )
    day = datetime.date(2026, 2, 11)
    made = datetime.datetime(2026, 2, 11, 20, 0, 0, 123000)
    changed = datetime.datetime(2026, 2, 12, 0, 10, 0, 456000)
    assert kept == (
        *(1, "usual", day, "usual@example.org", "Ada", "mac", 6, '["vim","go"]', "[]"),
        *(GIT, DEVELOPMENT, '{"os":"linux"}', made, changed, None, 0, None, None, None),
    )
    count = fetch(upgraded, "SELECT COUNT(*) FROM _tool_developer_metrics")
    assert count == [(len(ODD_JSON) + 4,)]


def test_json_is_empty_where_it_said_null(upgraded: Engine) -> None:
    kept = fetch(
        upgraded,
        "SELECT developer_id, tools_used, project_context, os_info, git_activity,"
        " development_activity FROM _tool_developer_metrics WHERE developer_id IN"
        " ('bare', 'null text', 'empty text', 'NULL', 'cut off') ORDER BY developer_id",
    )
    os_info = '{"os":"linux"}'
    assert kept == [
        ("NULL", '["vim","go"]', "[]", os_info, None, None),
        ("bare", "[]", "[]", "{}", GIT, DEVELOPMENT),
        ("cut off", '["vim","go"]', "[]", os_info, GIT[:40], DEVELOPMENT),
        ("empty text", '["vim","go"]', "[]", os_info, "{}", "{}"),
        ("null text", '["vim","go"]', "[]", os_info, "{}", "{}"),
    ]


def test_hours_are_lost_only_where_they_were_none(upgraded: Engine) -> None:
    rows = fetch(
        upgraded,
        "SELECT developer_id, active_hours FROM _tool_developer_metrics"
        " WHERE developer_id IN ('hours of a century', 'hours of a lie', 'no hours')"
        " ORDER BY developer_id",
    )
    assert rows == [("hours of a century", 876000), ("hours of a lie", 24), ("no hours", 0)]


def test_connections_keep_their_encrypted_tokens(upgraded: Engine) -> None:
    rows = fetch(
        upgraded,
        "SELECT id, name, endpoint, secret_token, rate_limit_per_hour, duplicate_strategy"
        " FROM _tool_developer_telemetry_connections ORDER BY id",
    )
    assert rows == [
        (3, "fleet", "https://lake", SECRET, 1000, ""),
        (4, "other", "", None, 0, ""),
    ]


def test_connections_can_be_added(upgraded: Engine) -> None:
    token = "x" * 5000
    fetch(
        upgraded,
        "INSERT INTO _tool_developer_telemetry_connections (created_at, updated_at, name, endpoint,"
        f" secret_token, proxy, duplicate_strategy) VALUES (NOW(3), NOW(3), 'FLEET', '', '{token}',"
        " '', '')",
    )
    rows = fetch(
        upgraded,
        "SELECT id, secret_token FROM _tool_developer_telemetry_connections WHERE name = 'FLEET'",
    )
    assert rows == [(5, token)]


def test_people_become_exact_and_texts_long(upgraded: Engine) -> None:
    for person in ("Usual", "usuál"):
        fetch(upgraded, insert(row(person)))
    long = "x" * 100_000
    fetch(
        upgraded,
        f"UPDATE _tool_developer_metrics SET os_info = '{long}' WHERE developer_id = 'usual'",
    )
    rows = fetch(
        upgraded, "SELECT developer_id FROM _tool_developer_metrics WHERE LENGTH(os_info) = 100000"
    )
    assert rows == [("usual",)]
