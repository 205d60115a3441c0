"""Connections in DevLake's database, where DevLake does not load the plugin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import inspect
from sqlalchemy.engine import Engine

from developer_telemetry.connections.database_backend import DatabaseBackend
from developer_telemetry.connections.handover import take_over
from developer_telemetry.connections.onboarding import ConnectRequest, Onboarding
from developer_telemetry.constants import RAW_TABLE
from developer_telemetry.database.engine import transact
from developer_telemetry.database.schema_owner import SchemaOwner, record_owner
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.reports.daily_metrics import build_raw_params
from tests.support.devlake_tables import devlake_tables, make_projects
from tests.support.receivers import SECRET


@pytest.fixture
def backend(engine: Engine) -> Iterator[DatabaseBackend]:
    """Return the connections of DevLake's database, which we look after."""
    with devlake_tables(engine):
        take_over(engine, None)
        make_projects(engine, "web", "it's \N{ROCKET}")
        yield DatabaseBackend(engine, SECRET)


def onboard(backend: DatabaseBackend, name: str, project: str = "") -> Onboarding:
    onboarding = Onboarding(backend, ConnectRequest(name, project=project))
    onboarding.run()
    return onboarding


def content(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        return {
            table: sorted(map(repr, connection.exec_driver_sql(f"SELECT * FROM {table}")))
            for table in inspect(engine).get_table_names()
        }


def add_domain_rows(engine: Engine, connection_id: int) -> None:
    """Make an account with a link and a task, as a conversion does."""
    values = f"'{build_raw_params(connection_id)}', '{RAW_TABLE}'"
    account = f"developer_telemetry:Account:{connection_id}:ann"
    with engine.begin() as connection:
        for table, columns, ids in (
            ("accounts", "id", f"'{account}'"),
            ("cicd_tasks", "id", f"'developer_telemetry:Builds:{connection_id}:ann:2026-11-23'"),
            ("user_accounts", "account_id, user_id", f"'{account}', 'u1'"),
        ):
            connection.exec_driver_sql(
                f"INSERT INTO {table} ({columns}, _raw_data_params, _raw_data_table)"
                f" VALUES ({ids}, {values})"
            )


def test_a_connection_joins_projects_that_are_there(backend: DatabaseBackend) -> None:
    for project in ("web", "it's \N{ROCKET}"):
        first, again = (onboard(backend, "fleet", project) for _ in range(2))
        assert ("Project", f"{project}, which has it now") in first.steps
        assert ("Project", f"{project}, which has it already") in again.steps

    projects = {item.project: item.connection_ids for item in backend.blueprints()}
    assert projects == {project: {first.connection_id} for project in ("web", "it's \N{ROCKET}")}


def test_a_project_that_is_not_there_is_refused_before_anything_is_made(
    backend: DatabaseBackend,
) -> None:
    with pytest.raises(ConfigurationError, match=r"no project 'wbe'.*name an existing one:.*'web'"):
        onboard(backend, "fleet", "wbe")
    assert backend.connections() == []


def test_a_deletion_takes_the_domain_rows_of_its_connection_alone(
    engine: Engine, backend: DatabaseBackend
) -> None:
    onboard(backend, "other", "web")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO user_accounts (account_id, user_id, _raw_data_params, _raw_data_table)"
            " VALUES ('github:GithubAccount:1:7', 'u1', 'p', '_raw_github_api_accounts')"
        )
    add_domain_rows(engine, backend.connections()[0].id)
    before = content(engine)
    fleet = onboard(backend, "fleet", "web").connection_id
    add_domain_rows(engine, fleet)

    backend.delete(fleet)

    assert content(engine) == before


def test_what_devlake_looks_after_is_not_deleted_behind_its_back(
    engine: Engine, backend: DatabaseBackend
) -> None:
    fleet = onboard(backend, "fleet", "web").connection_id
    transact(engine, lambda connection: record_owner(connection, SchemaOwner.DEVLAKE))

    with pytest.raises(ConfigurationError, match="this database is DevLake's"):
        backend.delete(fleet)
    with pytest.raises(ConfigurationError, match="a project is DevLake's"):
        onboard(backend, "fleet", "web")
    assert backend.blueprints() == []
