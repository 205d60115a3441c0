"""Handing DevLake's database over to us, and back, without a row of reports that changes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Callable, Optional

import pytest
from sqlalchemy import inspect
from sqlalchemy.engine import Engine

from developer_telemetry.connections.handover import hand_back, take_over
from developer_telemetry.constants import DEVLAKE_MIGRATION_TABLE, MIGRATION_TABLE, PROJECT_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.migrate import apply_operation, list_pending, migrate
from developer_telemetry.database.schema_owner import SchemaOwner, read_owner
from developer_telemetry.database.schema_versions import ADD_STANDALONE, NAMES, title_of
from developer_telemetry.errors import ConfigurationError, NotDevLakeYet
from tests.support.devlake_tables import (
    load_plugin,
    make_devlake_tables,
    make_projects,
    use_in_blueprint,
)
from tests.support.receivers import run_command
from tests.support.schemas import operations_for
from tests.support.small_lake import SmallLake

TITLES = list(map(title_of, NAMES))


@pytest.fixture
def lake(database_url: str, opened: Callable[[str], Engine]) -> Engine:
    """Return DevLake's database, in which the plugin was never loaded."""
    engine = opened(database_url)
    make_devlake_tables(engine)
    return engine


@pytest.fixture
def on_server(lake: Engine) -> Engine:
    """Return the same where DevLake's server could have it: the command refuses SQLite."""
    if lake.dialect.name == "sqlite":
        pytest.skip("DevLake has no SQLite")
    return lake


@pytest.fixture
def server() -> Iterator[SmallLake]:
    with SmallLake() as server:
        yield server


def owner(engine: Engine) -> SchemaOwner:
    with engine.connect() as connection:
        return read_owner(connection)


def rows(engine: Engine, *left_out: str) -> dict[str, Any]:
    with engine.connect() as connection:
        return {
            table: sorted(map(repr, connection.exec_driver_sql(f"SELECT * FROM {table}")))
            for table in inspect(engine).get_table_names()
            if table not in left_out
        }


def run(
    engine: Engine, tmp_path: Path, *arguments: str, url: Optional[str] = None
) -> CompletedProcess[str]:
    address = engine.url.render_as_string(hide_password=False)
    return run_command(tmp_path, "migrate", *arguments, DB_URL=address, DEVLAKE_URL=url or "")


def test_devlakes_database_gets_our_tables_and_no_other_row(lake: Engine) -> None:
    before = rows(lake)
    assert owner(lake) is SchemaOwner.DEVLAKE

    taken = take_over(lake, None)

    assert (taken.migrations, taken.is_new) == (TITLES, True)
    assert list_pending(lake) == []
    assert owner(lake) is SchemaOwner.STANDALONE
    after = rows(lake)
    assert {table: after[table] for table in before} == before


def test_it_can_be_repeated_and_migrate_does_what_is_pending(lake: Engine) -> None:
    take_over(lake, None)
    with lake.begin() as connection:
        connection.exec_driver_sql(
            f"DELETE FROM {MIGRATION_TABLE} WHERE script_version = {ADD_STANDALONE}"
        )

    assert [title.partition(" ")[0] for title in migrate(lake)] == [str(ADD_STANDALONE)]
    again = take_over(lake, None)

    assert (again.migrations, again.is_new, again.members) == ([], False, [])


@pytest.mark.parametrize("gone", ["users", "project_mapping", DEVLAKE_MIGRATION_TABLE])
def test_a_database_that_is_not_devlakes_yet_is_left_alone(lake: Engine, gone: str) -> None:
    with lake.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE {gone}")
    before = inspect(lake).get_table_names()

    with pytest.raises(NotDevLakeYet, match=rf"not \(yet\) DevLake's.*{gone}.*confirm"):
        take_over(lake, None)

    assert inspect(lake).get_table_names() == before


def test_a_plugin_that_was_loaded_before_has_to_be_confirmed_as_removed(lake: Engine) -> None:
    load_plugin(lake)
    before = rows(lake)

    with pytest.raises(ConfigurationError, match=r"DISABLED_REMOTE_PLUGINS.*--plugin-is-removed"):
        take_over(lake, None)
    assert rows(lake) == before

    assert take_over(lake, None, plugin_is_removed=True).migrations == []
    assert owner(lake) is SchemaOwner.STANDALONE


def test_projects_go_on_and_blueprints_are_left(lake: Engine) -> None:
    load_plugin(lake)
    make_projects(lake, "web", "app")
    with lake.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO _tool_developer_telemetry_connections (id, name) VALUES (1, 'fleet')"
        )
        connection.exec_driver_sql(
            "INSERT INTO _devlake_blueprint_connections VALUES (3, 'jira', 1)"
        )
    use_in_blueprint(lake, 3, "web", 1)
    changed = (
        PROJECT_TABLE,
        "_tool_developer_telemetry_schema_owner",
        "_devlake_blueprint_scopes",
        "_devlake_blueprint_connections",
        MIGRATION_TABLE,
    )
    before = rows(lake, *changed)

    taken = take_over(lake, None, plugin_is_removed=True)

    assert taken.members == [(1, "web")]
    after = rows(lake)
    assert {name: after[name] for name in before} == before
    assert after["_devlake_blueprint_connections"] == ["(3, 'jira', 1)"]
    assert after["_devlake_blueprint_scopes"] == []
    assert after[PROJECT_TABLE] == ["(1, 'web')"]
    assert hand_back(lake, None) == [("fleet", "web")]


def test_the_way_back_needs_devlake_to_have_migrated(lake: Engine) -> None:
    take_over(lake, None)
    with pytest.raises(ConfigurationError, match=f"has not run {len(NAMES)} of our migrations"):
        hand_back(lake, None)
    assert owner(lake) is SchemaOwner.STANDALONE


def test_the_way_back_is_recorded_and_changes_nothing_else(lake: Engine) -> None:
    load_plugin(lake)
    take_over(lake, None, plugin_is_removed=True)
    before = rows(lake, "_tool_developer_telemetry_schema_owner")

    hand_back(lake, None)

    assert owner(lake) is SchemaOwner.DEVLAKE
    assert rows(lake, "_tool_developer_telemetry_schema_owner") == before
    with pytest.raises(ConfigurationError, match="loaded the plugin before"):
        take_over(lake, None)


def test_a_database_of_our_own_is_not_handed_back(
    database_url: str, opened: Callable[[str], Engine]
) -> None:
    engine = opened(database_url)
    migrate(engine)
    with pytest.raises(ConfigurationError, match="is not DevLake's database"):
        hand_back(engine, None)


def test_devlakes_migrations_after_ours_change_no_row(on_server: Engine) -> None:
    lake = on_server
    take_over(lake, None)
    with lake.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO _tool_developer_telemetry_connections (id, name) VALUES (1, 'fleet')"
        )
        connection.exec_driver_sql(
            "INSERT INTO _tool_developer_telemetry_machines"
            " (connection_id, developer_id, hostname, reports) VALUES (1, 'ann', 'laptop', 7)"
        )
    before = rows(lake)

    with lake.begin() as connection:
        for operation in operations_for(dialect_of(lake).name):
            apply_operation(connection, operation)

    assert rows(lake) == before


# The command ------------------------------------------------------------------------------------


def test_the_command_takes_over_and_repeats(on_server: Engine, tmp_path: Path) -> None:
    first = run(on_server, tmp_path, "--standalone")
    again = run(on_server, tmp_path, "--standalone")
    plain = run(on_server, tmp_path)

    assert (first.returncode, again.returncode, plain.returncode) == (0, 0, 0), first.stderr
    assert first.stdout.splitlines() == [
        *(f"applied {title}" for title in TITLES),
        "The receiver looks after the schema from now on, and makes accounts.",
    ]
    assert again.stdout == "no migration was pending\n"
    assert plain.stdout == "nothing to do\n"


def test_the_command_says_that_devlake_has_not_started_yet(
    mariadb_url: str, tmp_path: Path
) -> None:
    done = run_command(tmp_path, "migrate", "--standalone", DB_URL=mariadb_url)

    assert (done.returncode, done.stdout) == (75, "")
    assert "Start DevLake once and confirm its migration" in done.stderr


def test_plain_migrate_names_the_way_without_the_plugin(on_server: Engine, tmp_path: Path) -> None:
    done = run(on_server, tmp_path)

    assert done.returncode == 2
    assert "`developer-telemetry migrate --standalone`" in done.stderr


def test_a_devlake_that_loads_the_plugin_keeps_the_schema(
    on_server: Engine, server: SmallLake, tmp_path: Path
) -> None:
    load_plugin(on_server)
    before = rows(on_server)

    done = run(on_server, tmp_path, "--standalone", "--plugin-is-removed", url=server.url)

    assert done.returncode == 2
    assert "loads the plugin, so it owns the schema. To hand over: (1)" in done.stderr
    assert rows(on_server) == before


def test_a_devlake_without_the_plugin_needs_no_confirmation(
    on_server: Engine, server: SmallLake, tmp_path: Path
) -> None:
    load_plugin(on_server)
    server.has_plugin = False

    done = run(on_server, tmp_path, "--standalone", url=server.url)

    assert (done.returncode, done.stderr) == (0, "")
    assert owner(on_server) is SchemaOwner.STANDALONE

    back = run(on_server, tmp_path, "--hand-back", url=server.url)
    assert (back.returncode, owner(on_server)) == (2, SchemaOwner.STANDALONE)
    assert "does not load the plugin" in back.stderr

    server.has_plugin = True
    back = run(on_server, tmp_path, "--hand-back", url=server.url)
    assert (back.returncode, owner(on_server)) == (0, SchemaOwner.DEVLAKE), back.stderr


def test_a_devlake_that_is_down_leaves_it_to_operators(on_server: Engine, tmp_path: Path) -> None:
    load_plugin(on_server)
    away = "http://127.0.0.1:9"

    assert run(on_server, tmp_path, "--standalone", url=away).returncode == 2
    done = run(on_server, tmp_path, "--standalone", "--plugin-is-removed", url=away)

    assert (done.returncode, owner(on_server)) == (0, SchemaOwner.STANDALONE), done.stderr


def test_options_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    for options in (["--hand-back", "--standalone"], ["--plugin-is-removed"]):
        assert run_command(tmp_path, "migrate", *options).returncode == 2
    done = run_command(tmp_path, "migrate", "--standalone")
    assert (done.returncode, "set DB_URL to that of its server" in done.stderr) == (2, True)


def test_the_way_back_names_the_command_for_each_project(
    on_server: Engine, server: SmallLake, tmp_path: Path
) -> None:
    load_plugin(on_server)
    make_projects(on_server, "it's ours")
    with on_server.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO _tool_developer_telemetry_connections (id, name) VALUES (1, 'web team')"
        )
    use_in_blueprint(on_server, 1, "it's ours", 1)
    server.has_plugin = False
    there = run(on_server, tmp_path, "--standalone", url=server.url)
    assert "Connection 1 stays in project it's ours; it left the blueprint" in there.stdout

    too_early = run(on_server, tmp_path, "--hand-back", url=server.url)
    assert (too_early.returncode, owner(on_server)) == (2, SchemaOwner.STANDALONE)
    server.has_plugin = True
    back = run(on_server, tmp_path, "--hand-back", url=server.url)

    assert (back.returncode, owner(on_server)) == (0, SchemaOwner.DEVLAKE), back.stderr
    last = back.stdout.splitlines()[-1].strip()
    words = ["developer-telemetry", "connect", "web team", "--project", "it's ours"]
    assert shlex.split(last) == words
