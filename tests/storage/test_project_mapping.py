"""Our connections in DevLake's projects, without the plugin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.connections.registry import create
from developer_telemetry.storage.devlake_schema import make_scope_id
from developer_telemetry.storage.project_mapping import (
    Member,
    attach,
    detach,
    find_project,
    leave_blueprints,
    list_projects,
    read_members,
    record_blueprints,
    restore,
)
from tests.support.devlake_tables import (
    devlake_tables,
    make_projects,
    run_project,
    use_in_blueprint,
)
from tests.support.receivers import SECRET

REPO = ("repos", "github:GithubRepo:1:7")
NAMES = ["web", "Web", 'it\'s "quoted" `here`', "100%", "Ünïcode \N{ROCKET}", "a\\b", "  "]


@pytest.fixture
def fleet(engine: Engine) -> Iterator[int]:
    """Return a connection in a database with DevLake's tables."""
    with devlake_tables(engine):
        yield create(engine, SECRET, "fleet", "token")


def mapped(engine: Engine, project: str) -> list[str]:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT project_name, row_id FROM project_mapping")
        return sorted(row[1] for row in rows if row[0] == project)


def members(engine: Engine) -> list[Member]:
    with engine.connect() as connection:
        return read_members(connection)


def join(engine: Engine, connection_id: int, project: str) -> bool:
    with engine.begin() as connection:
        return attach(connection, connection_id, project)


def rows(engine: Engine, table: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        result = connection.exec_driver_sql(f"SELECT * FROM {table}")
        return [row._asdict() for row in result]


def test_the_rows_are_those_of_a_run_with_the_plugin(engine: Engine, fleet: int) -> None:
    make_projects(engine, "web")

    assert join(engine, fleet, "web")
    assert not join(engine, fleet, "web")

    [scope], [mapping] = rows(engine, "cicd_scopes"), rows(engine, "project_mapping")
    for row in (scope, mapping):
        assert row.pop("created_at") == row.pop("updated_at") is not None
    scope_id = f"developer_telemetry:TelemetryScope:{fleet}:all"
    assert scope == {
        "id": scope_id,
        "_raw_data_params": f'{{"ConnectionId":{fleet},"ScopeId":"all"}}',
        "_raw_data_table": "_raw_developer_telemetry_scopes",
        "_raw_data_id": 0,
        "_raw_data_remark": "",
        "name": "All reports",
        "description": "",
        "url": "",
        "created_date": None,
        "updated_date": None,
    }
    assert mapping == {
        "project_name": "web",
        "table": "cicd_scopes",
        "row_id": scope_id,
        "_raw_data_params": "web",
        "_raw_data_table": "",
        "_raw_data_id": 0,
        "_raw_data_remark": "",
    }


def test_a_run_of_the_project_loses_our_row_until_it_is_restored(
    engine: Engine, fleet: int
) -> None:
    make_projects(engine, *NAMES)
    for name in NAMES:
        join(engine, fleet, name)

    for _ in range(2):
        for name in NAMES:
            run_project(engine, name, [REPO])
        assert restore(engine) == len(NAMES)

    assert restore(engine) == 0
    for name in NAMES:
        assert mapped(engine, name) == [make_scope_id(fleet), REPO[1]], name


def test_a_scope_that_is_missing_is_restored_with_its_mapping(engine: Engine, fleet: int) -> None:
    make_projects(engine, "web")
    join(engine, fleet, "web")
    before = rows(engine, "cicd_scopes")
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM cicd_scopes")
    run_project(engine, "web", [])

    restore(engine)

    assert [row["id"] for row in rows(engine, "cicd_scopes")] == [row["id"] for row in before]


def test_a_deleted_project_is_forgotten(engine: Engine, fleet: int) -> None:
    make_projects(engine, "web", "app")
    join(engine, fleet, "web")
    join(engine, fleet, "app")
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM projects WHERE name = 'web'")
        connection.exec_driver_sql("DELETE FROM project_mapping WHERE project_name = 'web'")

    assert restore(engine) == 0
    make_projects(engine, "web")
    assert restore(engine) == 0

    assert members(engine) == [(fleet, "app")]
    assert mapped(engine, "web") == []


def test_a_renamed_project_keeps_our_connection(engine: Engine, fleet: int) -> None:
    make_projects(engine, "web")
    join(engine, fleet, "web")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE projects SET name = 'site'")
        connection.exec_driver_sql("UPDATE project_mapping SET project_name = 'site'")

    restore(engine)
    run_project(engine, "site", [REPO])
    restore(engine)

    assert members(engine) == [(fleet, "site")]
    assert mapped(engine, "site") == [make_scope_id(fleet), REPO[1]]


def test_a_connection_that_leaves_takes_its_own_rows_alone(engine: Engine, fleet: int) -> None:
    make_projects(engine, "web")
    other = create(engine, SECRET, "other", "token")
    run_project(engine, "web", [REPO])
    for number in (fleet, other):
        join(engine, number, "web")

    with engine.begin() as connection:
        detach(connection, fleet)
    assert restore(engine) == 0

    assert members(engine) == [(other, "web")]
    assert mapped(engine, "web") == sorted([make_scope_id(other), REPO[1]])
    assert [row["id"] for row in rows(engine, "cicd_scopes")] == [make_scope_id(other)]


def test_scopes_of_connections_that_are_gone_are_not_restored(engine: Engine, fleet: int) -> None:
    make_projects(engine, "web")
    run_project(engine, "web", [("cicd_scopes", make_scope_id(fleet + 7))])

    assert restore(engine) == 0
    assert members(engine) == []


def test_rows_of_others_that_look_like_ours_are_no_connections(engine: Engine, fleet: int) -> None:
    make_projects(engine, "web")
    odd = ["developer_telemetry:TelemetryScope:x:all", "developerXtelemetry:TelemetryScope:1:all"]
    run_project(engine, "web", [("cicd_scopes", row_id) for row_id in odd])

    restore(engine)

    assert members(engine) == []


def test_projects_are_those_whose_blueprints_or_runs_have_us(engine: Engine, fleet: int) -> None:
    make_projects(engine, "mapped", "planned", "former")
    join(engine, fleet, "former")
    run_project(engine, "former", [REPO])
    run_project(engine, "mapped", [("cicd_scopes", make_scope_id(fleet))])
    use_in_blueprint(engine, 3, "planned", fleet)
    use_in_blueprint(engine, 4, "", fleet)  # of no project

    with engine.begin() as connection:
        assert record_blueprints(connection) == [(fleet, "mapped"), (fleet, "planned")]
        leave_blueprints(connection)

    assert rows(engine, "_devlake_blueprint_connections") == []
    assert rows(engine, "_devlake_blueprint_scopes") == []
    assert restore(engine) == 1
    assert mapped(engine, "planned") == [make_scope_id(fleet)]


def test_without_devlakes_tables_there_is_nothing_to_restore(engine: Engine) -> None:
    assert restore(engine) == 0
    with engine.connect() as connection:
        assert (list_projects(connection), find_project(connection, "web")) == ([], None)
