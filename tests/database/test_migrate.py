"""Bringing a database to today's schema, and telling whether it is there."""

from __future__ import annotations

import threading
from typing import Any, Callable

import pytest
from sqlalchemy import inspect
from sqlalchemy.engine import Engine

from developer_telemetry.constants import FIGURE_TABLE, FIGURE_VIEWS, MIGRATION_TABLE
from developer_telemetry.database import migrate as schema
from developer_telemetry.database.migrations import (
    DELIVERY,
    SCRIPTS,
)
from developer_telemetry.database.schema_versions import ADD_FIGURES, NAMES, title_of
from developer_telemetry.errors import ConfigurationError, Unavailable
from tests.support.schemas import Database, columns_of, fetch, operations_for

TITLES = list(map(title_of, NAMES))
DEVLAKES_HISTORY = (
    "CREATE TABLE _devlake_migration_history (created_at VARCHAR(30), script_version BIGINT,"
    " script_name VARCHAR(255), comment VARCHAR(255), PRIMARY KEY (script_version, script_name))"
)


@pytest.fixture
def empty(database_url: str, opened: Callable[[str], Engine]) -> Engine:
    return opened(database_url)


def completed(version: int, name: str) -> str:
    """Return what DevLake's server notes down after the last statement of a script."""
    return (
        "INSERT INTO _devlake_migration_history (script_version, script_name)"
        f" VALUES ({version}, '{name}')"
    )


# A database of its own --------------------------------------------------------------------------


def test_an_empty_database_is_brought_to_the_newest_version(empty: Engine) -> None:
    assert not schema.is_migrated(empty)
    assert schema.list_pending(empty) == TITLES
    assert schema.migrate(empty) == TITLES
    assert schema.is_migrated(empty)
    assert schema.list_pending(empty) == []


def test_a_second_time_changes_nothing(empty: Engine) -> None:
    schema.migrate(empty)
    fetch(empty, "INSERT INTO _tool_developer_telemetry_connections (name) VALUES ('kept')")
    fetch(empty, "INSERT INTO accounts (id, email) VALUES ('kept', 'a@b')")

    assert schema.migrate(empty) == []

    assert fetch(empty, "SELECT name FROM _tool_developer_telemetry_connections") == [("kept",)]
    assert fetch(empty, "SELECT id, email FROM accounts") == [("kept", "a@b")]


# The columns that DevLake's own tables have, beside the id, the times and the provenance.
DOMAIN_TABLES = {
    "accounts": (
        *("email", "full_name", "user_name", "avatar_url"),
        *("organization", "created_date", "status"),
    ),
    "cicd_tasks": (
        *("name", "pipeline_id", "cicd_scope_id", "type", "environment"),
        *("result", "status", "original_result", "original_status"),
        *("duration_sec", "queued_duration_sec"),
        *("created_date", "queued_date", "started_date", "finished_date"),
    ),
}


@pytest.mark.parametrize("table", list(DOMAIN_TABLES))
def test_domain_tables_have_devlakes_columns(engine: Engine, table: str) -> None:
    assert set(columns_of(engine, table)) == {
        *("id", "created_at", "updated_at", *DOMAIN_TABLES[table]),
        *("_raw_data_params", "_raw_data_table", "_raw_data_id", "_raw_data_remark"),
    }
    assert inspect(engine).get_pk_constraint(table)["constrained_columns"] == ["id"]


@pytest.mark.server
def test_every_database_has_the_same_columns(
    migrated: Callable[[str], str], opened: Callable[[str], Engine]
) -> None:
    found = []
    for kind in ("sqlite", "mariadb", "postgresql"):
        engine = opened(migrated(kind))
        # SQLite's own; SQLAlchemy 1.4 lists it as well.
        tables = set(inspect(engine).get_table_names()) - {"sqlite_sequence"}
        found.append({table: list(columns_of(engine, table)) for table in tables})
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("url", ["mariadb_url", "postgresql_url"])
def test_devlakes_server_would_have_made_the_same(
    request: pytest.FixtureRequest, url: str, opened: Callable[[str], Engine]
) -> None:
    database = Database(request.getfixturevalue(url))
    database.migrate(operations_for(database.dialect))
    by_the_server = database.structure()
    database.empty()

    schema.migrate(opened(database.url))

    by_us = database.structure()
    for beside in ("accounts", "cicd_tasks", MIGRATION_TABLE):
        del by_us[beside]
    assert by_us == by_the_server
    database.close()


@pytest.mark.parametrize("url", ["mariadb_url", "postgresql_url"])
def test_a_run_that_ended_halfway_is_completed(
    request: pytest.FixtureRequest, url: str, opened: Callable[[str], Engine]
) -> None:
    database = Database(request.getfixturevalue(url))
    database.migrate(operations_for(database.dialect)[:5])
    database.close()
    engine = opened(database.url)
    assert not schema.is_migrated(engine)
    assert schema.migrate(engine) == TITLES
    assert schema.is_migrated(engine)


@pytest.mark.parametrize("url", ["mariadb_url", "postgresql_url"])
def test_figures_of_groups_come_in_the_place_of_those_of_delivery_alone(
    request: pytest.FixtureRequest, url: str, opened: Callable[[str], Engine]
) -> None:
    database = Database(request.getfixturevalue(url))
    earlier = [script for script in SCRIPTS if script.version < ADD_FIGURES]
    database.migrate(operations_for(database.dialect, earlier))
    assert DELIVERY.name in database.structure()
    schema.migrate(opened(database.url))
    tables = database.structure()
    database.close()
    assert DELIVERY.name not in tables
    assert tables.keys() >= {FIGURE_TABLE, *FIGURE_VIEWS}


def test_processes_that_migrate_at_once_wait_for_each_other(
    database_url: str, opened: Callable[[str], Engine]
) -> None:
    engines = [opened(database_url) for _ in range(4)]
    ready = threading.Barrier(len(engines))
    outcomes: list[Any] = []

    def migrate(engine: Engine) -> None:
        ready.wait()
        try:
            outcomes.append(schema.migrate(engine))
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=migrate, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes, key=str) == [TITLES, [], [], []]


def test_a_lock_that_is_not_given_up_is_an_error_to_try_again(
    database_url: str, opened: Callable[[str], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_SECONDS", 1)
    engine, other = opened(database_url), opened(database_url)
    if database_url.startswith("sqlite"):
        fetch(engine, "PRAGMA busy_timeout = 100")
    with schema._lock_migrations(other), pytest.raises(Unavailable, match="try again"):
        schema.migrate(engine)
    assert schema.migrate(engine) == TITLES


# A database of DevLake's ------------------------------------------------------------------------


def test_devlake_is_left_to_migrate_its_own_database(empty: Engine) -> None:
    fetch(empty, DEVLAKES_HISTORY)
    with pytest.raises(ConfigurationError, match="proceed-db-migration"):
        schema.migrate(empty)
    assert inspect(empty).get_table_names() == ["_devlake_migration_history"]


def test_a_database_is_ready_when_devlake_has_completed_every_script(empty: Engine) -> None:
    fetch(empty, DEVLAKES_HISTORY)
    for version, name in NAMES.items():
        assert not schema.is_migrated(empty)
        fetch(empty, completed(version, name))
    assert schema.is_migrated(empty)
    assert schema.migrate(empty) == []


def test_scripts_of_other_plugins_do_not_count(empty: Engine) -> None:
    fetch(empty, DEVLAKES_HISTORY)
    for version in NAMES:
        fetch(empty, completed(version, "of another plugin"))
    assert schema.list_pending(empty) == TITLES


def test_a_database_that_devlake_takes_over_stays_ready(empty: Engine) -> None:
    schema.migrate(empty)
    fetch(empty, DEVLAKES_HISTORY)
    assert schema.is_migrated(empty)
