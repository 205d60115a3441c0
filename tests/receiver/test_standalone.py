"""Receivers and commands beside a DevLake that does not load the plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from sqlalchemy import inspect
from sqlalchemy.engine import Engine

from developer_telemetry.connections.handover import take_over
from developer_telemetry.database.schema_owner import SchemaOwner, read_owner
from tests.support.devlake_tables import (
    load_plugin,
    make_devlake_tables,
    make_projects,
    run_project,
)
from tests.support.receivers import (
    SECRET,
    Receiver,
    add_connection,
    eventually,
    report,
    run_command,
)
from tests.support.small_lake import SmallLake

PROJECT = "Öl & 'Gas' 🚀"
OTHER_SCOPE = ("cicd_scopes", "webhook:Webhook:1")


@pytest.fixture
def lake(database_url: str, opened: Callable[[str], Engine]) -> Engine:
    """Return DevLake's database with two projects and a user."""
    if database_url.startswith("sqlite"):
        pytest.skip("DevLake has no SQLite")
    engine = opened(database_url)
    make_devlake_tables(engine)
    make_projects(engine, PROJECT, "shop")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO users (id, email, name) VALUES ('user-1', 'Ann@Example.com', 'Ann')"
        )
    return engine


@pytest.fixture
def command(lake: Engine, tmp_path: Path) -> Callable[..., CompletedProcess[str]]:
    """Return a function that runs a command on the database."""
    address = lake.url.render_as_string(hide_password=False)

    def run(*arguments: str, **settings: str) -> CompletedProcess[str]:
        settings = {"ENCRYPTION_SECRET": SECRET, "DB_URL": address, **settings}
        return run_command(tmp_path, *arguments, **settings)

    return run


@pytest.fixture
def server() -> Iterator[SmallLake]:
    with SmallLake() as server:
        yield server


def read(engine: Engine, query: str) -> list[Any]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query, ())]


def content(engine: Engine) -> dict[str, list[str]]:
    return {
        table: sorted(map(repr, read(engine, f"SELECT * FROM {table}")))
        for table in inspect(engine).get_table_names()
    }


def test_a_connection_joins_a_project_that_is_there(lake: Engine, command: Any) -> None:
    take_over(lake, None)
    run_project(lake, PROJECT, [OTHER_SCOPE])

    unknown = command("connect", "fleet", "--project", "Oil")
    assert unknown.returncode == 2
    assert "DevLake has no project 'Oil'" in unknown.stderr
    assert "'shop'" in unknown.stderr
    assert read(lake, "SELECT * FROM _tool_developer_telemetry_connections") == []

    made = command("connect", "fleet", "--project", PROJECT)
    assert made.returncode == 0, made.stderr
    rows = set(read(lake, "SELECT project_name, row_id FROM project_mapping"))
    ours = (PROJECT, "developer_telemetry:TelemetryScope:1:all")
    assert rows == {ours, (PROJECT, OTHER_SCOPE[1])}
    assert "which has it now" in made.stdout
    assert "which has it already" in command("connect", "fleet", "--project", PROJECT).stdout
    assert '"shop"' not in command("connections", "list", "--json").stdout
    assert PROJECT in command("connections", "list").stdout


def test_the_database_is_used_although_devlakes_address_is_set(
    lake: Engine, command: Any, server: SmallLake
) -> None:
    take_over(lake, None)
    made = command("connect", "fleet", DEVLAKE_URL=server.url)
    assert made.returncode == 0, made.stderr
    assert len(read(lake, "SELECT * FROM _tool_developer_telemetry_connections")) == 1


def test_while_devlake_owns_its_database_projects_and_deletions_are_its_own(
    lake: Engine, command: Any
) -> None:
    empty = command("connect", "fleet", "--project", "shop")
    assert (empty.returncode, "migrate --standalone" in empty.stderr) == (2, True), empty.stderr
    load_plugin(lake)
    before = content(lake)
    refused = command("connect", "fleet", "--project", "shop")
    assert refused.returncode == 2, refused.stderr
    assert "a project is DevLake's" in refused.stderr
    assert content(lake) == before


def test_a_deletion_takes_domain_rows_along_and_nobody_elses(
    lake: Engine, command: Any, tmp_path: Path
) -> None:
    take_over(lake, None)
    command("connect", "other", "--project", "shop")
    before = content(lake)
    command("connect", "fleet", "--project", "shop", "--test-and-build-tasks")
    address = lake.url.render_as_string(hide_password=False)
    with Receiver(address, tmp_path, ENCRYPTION_SECRET=SECRET) as receiver:
        token = command("token", "rotate", "2").stdout.split("Secret token")[1].split()[0]
        metrics = {"tests_run": 3, "development_activity": {"test_runs_detected": 3}}
        body = report("ann", email="ann@example.com", metrics=metrics)
        answer = eventually(lambda: _accepted(receiver, body, token), 20)
        assert answer.status_code == 200
        # The receiver makes the account and links it by the rule of the org plugin.
        eventually(lambda: read(lake, "SELECT * FROM user_accounts"), 60)
    assert read(lake, "SELECT account_id FROM user_accounts") == [
        ("developer_telemetry:Account:2:ann",)
    ]
    with lake.begin() as connection:
        connection.exec_driver_sql("UPDATE user_accounts SET _raw_data_params = 'by hand'")

    deleted = command("connections", "delete", "fleet", "--yes")

    assert deleted.returncode == 0, deleted.stderr
    assert "removed from project shop" in deleted.stdout
    after = content(lake)
    # The receiver has left its own name there, and what it converted of the other connection.
    for table in ("_tool_developer_telemetry_receivers", "_tool_developer_telemetry_conversions"):
        del before[table], after[table]
    runs = "_tool_developer_telemetry_runs"
    assert all(row.startswith("(1,") for row in after.pop(runs))
    before.pop(runs)
    assert after == before


def test_a_receiver_makes_its_tables_once_devlake_has_made_its_own(
    database_url: str, opened: Callable[[str], Engine], tmp_path: Path
) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("DevLake has no SQLite")
    engine = opened(database_url)
    receiver = Receiver(database_url, tmp_path, TELEMETRY_STANDALONE="true")
    receiver.start(answering="/health/live")
    try:
        not_ready = eventually(lambda: _readiness(receiver, "can't"), 20)
        assert "127.0.0.1" not in not_ready
        make_devlake_tables(engine)
        eventually(lambda: _readiness(receiver, "ready"), 30)
    finally:
        receiver.stop()
    with engine.connect() as connection:
        assert read_owner(connection) is SchemaOwner.STANDALONE


def _readiness(receiver: Receiver, word: str) -> str:
    answer = receiver.client.get("/health/ready")
    text: str = answer.text
    expected = 200 if word == "ready" else 503
    return text if answer.status_code == expected else ""


def test_a_receiver_takes_nothing_over_while_devlake_may_load_the_plugin(
    lake: Engine, tmp_path: Path
) -> None:
    load_plugin(lake)
    address = lake.url.render_as_string(hide_password=False)
    with Receiver(address, tmp_path, TELEMETRY_STANDALONE="true") as receiver:
        connection_id = add_connection(address)
        assert eventually(lambda: receiver.send(report("ann"), connection_id).is_success, 10)
        log = eventually(lambda: _mention(receiver.log, "TELEMETRY_STANDALONE has no effect"), 10)
        assert "--plugin-is-removed" in log
    with lake.connect() as connection:
        assert read_owner(connection) is SchemaOwner.DEVLAKE


def _mention(log: str, words: str) -> str:
    return log if words in log else ""


def _accepted(receiver: Receiver, body: Any, token: str) -> Any:
    answer = receiver.send(body, 2, token=token)
    return answer if answer.status_code == 200 else None
