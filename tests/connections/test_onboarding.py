"""Connections as an operator looks after them: in a database, and through DevLake's API."""

from __future__ import annotations

import json
import re
import shlex
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from sqlalchemy import inspect
from sqlalchemy.engine import Engine
from typer.testing import Result

from developer_telemetry.cli.common import TRY_AGAIN, USAGE_ERROR
from developer_telemetry.cli.main import app
from developer_telemetry.config import SETTINGS
from developer_telemetry.connections import devlake_backend as devlake
from developer_telemetry.connections.backend import OPTIONS
from developer_telemetry.connections.database_backend import DatabaseBackend, count_rows
from developer_telemetry.connections.onboarding import (
    ConnectRequest,
    Onboarding,
    change_settings,
    describe_consequences,
    find_connection,
    is_similar,
    rename,
    revoke,
    revoke_previous,
    rotate,
)
from developer_telemetry.connections.registry import Connections, create
from developer_telemetry.constants import (
    CONNECTION_TABLE,
    DEVLAKE_MIGRATION_TABLE,
    MIGRATION_TABLE,
    OVERWRITE,
)
from developer_telemetry.database.engine import open_engine
from developer_telemetry.database.migrate import migrate
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.pipeline.accounts import convert_accounts
from developer_telemetry.storage.conversions import read_options
from developer_telemetry.storage.writer import store
from tests.support import small_lake
from tests.support.factories import arrival
from tests.support.receivers import SECRET, command_runner, run_command
from tests.support.servers import HOST, free_port
from tests.support.small_lake import PAGE, SmallLake
from tests.support.terminals import answer

# What whoever runs the tests has set must not reach the commands.
UNSET: dict[str, Optional[str]] = dict.fromkeys(
    name for each in SETTINGS for name in (each.name, f"{each.name}_FILE")
)
WEEK = 7 * 86400
TOKEN = "a-token-that-is-as-long-as-one-of-ours"
OURS = {"pluginName": "developer_telemetry", "connectionId": 0, "scopes": [{"scopeId": "all"}]}
GITHUB = {"pluginName": "github", "connectionId": 1, "scopes": [{"scopeId": "7"}]}
JIRA = {"pluginName": "jira", "connectionId": 1, "scopes": None}


# In a database.


@pytest.fixture
def backend(engine: Engine) -> DatabaseBackend:
    return DatabaseBackend(engine, SECRET)


def onboard(backend: DatabaseBackend, name: str = "fleet", **wanted: Any) -> Onboarding:
    onboarding = Onboarding(backend, ConnectRequest(name, **wanted))
    onboarding.run()
    return onboarding


def accepted(engine: Engine, connection_id: int, *tokens: str) -> list[bool]:
    """Return for each token if a receiver accepts it right after a reload."""
    connections = Connections(engine, SECRET)
    connections.reload()
    connection = connections.get(connection_id)
    assert connection is not None
    return [connection.token is None or connection.accepts(each.encode()) for each in tokens]


def content(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table but the schema's history."""
    with engine.connect() as connection:
        found = {
            table: connection.exec_driver_sql(f"SELECT * FROM {table}")
            for table in inspect(engine).get_table_names()
            if table != MIGRATION_TABLE
        }
        return {
            table: sorted((row._asdict() for row in rows), key=repr)
            for table, rows in found.items()
        }


def test_connecting_twice_doubles_nothing(engine: Engine, backend: DatabaseBackend) -> None:
    first = onboard(backend, " fleet ")
    before = content(engine)

    second = onboard(backend)

    assert content(engine) == before
    assert (first.made, second.made) == (True, False)
    assert first.connection_id == second.connection_id
    assert (len(first.token) >= 40, second.token) == (True, "")
    assert second.steps[0] == ("Connection", f"{first.connection_id} (fleet), there already")
    assert accepted(engine, first.connection_id, first.token, "") == [True, False]


def test_connecting_again_changes_nothing(engine: Engine, backend: DatabaseBackend) -> None:
    onboard(backend, options={"strip_paths": True}, switches={"test_and_build_tasks": True})
    before = content(engine)

    onboard(backend, options={"strip_paths": True}, switches={"test_and_build_tasks": True})
    with pytest.raises(ConfigurationError, match=r"`.* set fleet --no-strip-paths --pseudonyms`"):
        onboard(backend, options={"strip_paths": False, "pseudonyms": True})
    with pytest.raises(ConfigurationError, match=r"`.* set fleet --no-test-and-build-tasks`"):
        onboard(backend, switches={"test_and_build_tasks": False})

    assert content(engine) == before


def test_settings_change_as_named_and_no_others(backend: DatabaseBackend) -> None:
    wanted = {"duplicate_strategy": "sum", "strip_paths": True, "raw_retention_days": 30}
    onboard(backend, options=wanted)
    connection = find_connection(backend, "fleet")

    changes = change_settings(
        backend, connection, {"strip_paths": False, "duplicate_strategy": "sum"}, {}
    )

    assert changes == {"strip_paths": False}
    assert describe_consequences(connection, changes) == [
        "Reports that arrive from now on keep their paths. Those of earlier reports are gone."
    ]
    [kept] = backend.connections()
    assert {name: kept.options[name] for name in OPTIONS} == {
        "duplicate_strategy": "sum",
        "strip_paths": False,
        "pseudonyms": False,
        "raw_retention_days": 30,
        "tool_retention_days": 0,
        "smallest_group": 5,
    }


@pytest.mark.parametrize(
    ("name", "other", "similar"),
    [
        ("fleet", "flete", True),
        ("fleet", "Fleet", True),
        ("fleet", "fleets", True),
        ("web team", "web-team", True),
        ("web team", "ops team", False),
        ("team 1", "team 2", False),
        ("site a", "site b", False),
    ],
)
def test_a_name_may_be_a_misspelling_of_another(name: str, other: str, similar: bool) -> None:
    assert is_similar(name, other) is similar
    assert is_similar(other, name) is similar


def test_a_scope_that_is_missing_is_made(engine: Engine, backend: DatabaseBackend) -> None:
    onboard(backend)
    [before] = content(engine)["_tool_developer_telemetry_scopes"]
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM _tool_developer_telemetry_scopes")

    onboard(backend)

    [made] = content(engine)["_tool_developer_telemetry_scopes"]
    assert {**made, "created_at": 0, "updated_at": 0} == {
        **before,
        "created_at": 0,
        "updated_at": 0,
    }


def test_a_token_of_ones_own_is_taken_once(engine: Engine, backend: DatabaseBackend) -> None:
    made = onboard(backend, token=TOKEN)
    assert onboard(backend, token=TOKEN).token == ""

    with pytest.raises(ConfigurationError, match=r"another token; .*token rotate"):
        onboard(backend, token="other")

    assert accepted(engine, made.connection_id, TOKEN, "other") == [True, False]


@pytest.mark.parametrize("token", ["two words", "tökén", "line\nline"])
def test_a_token_that_no_header_holds_is_refused(backend: DatabaseBackend, token: str) -> None:
    with pytest.raises(ConfigurationError, match="letters, digits and punctuation"):
        onboard(backend, token=token)

    assert backend.connections() == []


def test_a_project_needs_devlake(backend: DatabaseBackend) -> None:
    with pytest.raises(ConfigurationError, match=r"DevLake's: give its address.*--devlake-url"):
        onboard(backend, project="p")


def test_switches_are_those_of_conversions(engine: Engine, backend: DatabaseBackend) -> None:
    made = onboard(backend, switches={"test_and_build_tasks": True})
    same = onboard(backend, switches={"test_and_build_tasks": True})
    stored = find_connection(backend, "fleet")
    more = change_settings(backend, stored, {}, {"keep_accounts_unlinked": True})

    notes = [dict(done.steps)["Scope config"] for done in (made, same)]
    assert notes == ["fleet, made", "there already"]
    assert more == {"keep_accounts_unlinked": True}
    with engine.connect() as connection:
        assert read_options(connection, made.connection_id) == (True, False)


def test_a_rotation_keeps_the_old_token_for_as_long_as_asked(
    engine: Engine, backend: DatabaseBackend
) -> None:
    made = onboard(backend)
    new = rotate(backend, find_connection(backend, "fleet"), WEEK)

    assert accepted(engine, made.connection_id, new, made.token, "") == [True, True, False]
    [kept] = backend.connections()
    assert 0 <= kept.previous_until - time.time() - WEEK + 60 <= 60

    backend.change(kept.id, {"previous_token_until": int(time.time()) - 1})
    assert accepted(engine, made.connection_id, new, made.token) == [True, False]


def test_a_rotation_ends_the_old_token(engine: Engine, backend: DatabaseBackend) -> None:
    made = onboard(backend)
    first = rotate(backend, find_connection(backend, "fleet"), WEEK)

    second = rotate(backend, find_connection(backend, "fleet"), 0)

    tokens = (second, first, made.token)
    assert accepted(engine, made.connection_id, *tokens) == [True, False, False]


def test_a_revoked_connection_takes_no_reports(engine: Engine, backend: DatabaseBackend) -> None:
    made = onboard(backend)
    new = rotate(backend, find_connection(backend, "fleet"), WEEK)

    revoke_previous(backend, find_connection(backend, "fleet"))
    assert accepted(engine, made.connection_id, new, made.token) == [True, False]

    revoke(backend, find_connection(backend, "fleet"))
    assert accepted(engine, made.connection_id, new, made.token, "") == [False, False, False]


def test_an_unreadable_token_is_replaced(engine: Engine, backend: DatabaseBackend) -> None:
    connection_id = create(engine, "another secret", "fleet", TOKEN)
    kept = find_connection(backend, "fleet")
    assert "ENCRYPTION_SECRET is not DevLake's" in kept.fault

    with pytest.raises(ConfigurationError, match="rotate without --keep-old"):
        rotate(backend, kept, WEEK)
    new = rotate(backend, kept, 0)

    assert accepted(engine, connection_id, new) == [True]


def test_a_connection_is_renamed_and_found_by_name_and_id(backend: DatabaseBackend) -> None:
    first, second = (onboard(backend, name).connection_id for name in ("fleet", "team"))

    rename(backend, find_connection(backend, str(first)), " other ")

    assert find_connection(backend, "other").id == first
    assert find_connection(backend, str(second)).id == second
    with pytest.raises(ConfigurationError, match="named 'team' already"):
        rename(backend, find_connection(backend, "other"), "team")
    with pytest.raises(ConfigurationError, match="named 'team' already"):
        backend.change(first, {"name": "team"})  # as when another has just come to it
    with pytest.raises(ConfigurationError, match=r"no connection 'fleet'.*connections list"):
        find_connection(backend, "fleet")


def test_a_deleted_connection_leaves_nothing_and_the_others_everything(
    engine: Engine, backend: DatabaseBackend
) -> None:
    kept, gone = (onboard(backend, name).connection_id for name in ("kept", "gone"))
    for connection_id in (kept, gone):
        report_all(engine, connection_id)
    before = content(engine)
    assert count_rows(engine, gone)._asdict() == {
        "reports": 75,
        "days": 50,
        "developers": 25,
        "machines": 0,
    }

    backend.delete(gone)

    after = content(engine)
    assert count_rows(engine, gone) == (0, 0, 0, 0)
    for table, rows in before.items():
        left = [row for row in rows if not belongs(row, table, gone)]
        assert after[table] == left, table
    changed = [table for table, rows in before.items() if after[table] != rows]
    assert len(changed) >= 5


def report_all(engine: Engine, connection_id: int) -> None:
    """Three reports on two days of each of 25 developers, and their accounts."""
    sent = [
        arrival(connection_id=connection_id, developer=f"dev-{number}", date=date, hostname=host)
        for number in range(25)
        for date, host in (("2026-11-22", "a"), ("2026-11-23", "a"), ("2026-11-23", "b"))
    ]
    store(engine, sent, {connection_id: OVERWRITE})
    assert list(convert_accounts(engine, connection_id))


def belongs(row: dict[str, Any], table: str, connection_id: int) -> bool:
    """Return true if a row is of a connection, by its id or its provenance."""
    params = f'{{"ConnectionId":{connection_id},"ScopeId":"all"}}'
    named = row["id"] if table == CONNECTION_TABLE else row.get("connection_id")
    return named == connection_id or row.get("_raw_data_params") == params


def test_a_connection_of_devlakes_is_not_deleted_behind_its_back(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/lake.db")
    migrate(engine)
    backend = DatabaseBackend(engine, SECRET)
    made = onboard(backend)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE {DEVLAKE_MIGRATION_TABLE} (script_version BIGINT)"
        )

    with pytest.raises(ConfigurationError, match=r"DevLake's.*delete it through DevLake"):
        backend.delete(made.connection_id)

    assert find_connection(backend, "fleet").token == made.token
    engine.dispose()


def test_an_operators_commands_on_the_embedded_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, status: int = 0) -> str:
        settings = {"TELEMETRY_PUBLIC_URL": "https://lake.example/api"}
        done = command_runner().invoke(app, arguments, env={**UNSET, **settings}, input="")
        assert done.exit_code == status, done.output
        return done.stdout + done.stderr

    run("migrate")
    made = json.loads(run("connect", "fleet", "--json"))
    url = f"https://lake.example/api/plugins/developer-telemetry/{made['id']}/report"
    assert made["config"] == {"webhook_url": url, "api_key": made["token"]}
    again = run("connect", "fleet")
    assert made["token"] not in again
    assert "token rotate 1" in again
    assert "connections set fleet --pseudonyms" in run("connect", "fleet", "--pseudonyms", status=2)
    assert "give --new to make 'flete' beside it" in run("connect", "flete", status=2)
    assert "name a setting to change" in run("connections", "set", "fleet", status=2)
    changed = run("connections", "set", "fleet", "--pseudonyms")
    assert "Earlier reports, days, machines and accounts keep their names" in changed
    assert "Nothing changes." in run("connections", "set", "1", "--pseudonyms")
    shown = json.loads(run("connections", "show", "fleet", "--json"))
    assert (shown["pseudonyms"], shown["token"]) == (True, f"ends in {made['token'][-4:]}")
    assert shown["holds"] == {"reports": 0, "days": 0, "developers": 0, "machines": 0}
    assert "is now called team" in run("connections", "rename", "fleet", "team")
    assert "give a length of time" in run("token", "rotate", "team", "--keep-old", "7w", status=2)
    new = json.loads(run("token", "rotate", "team", "--keep-old", "7d", "--json"))
    until = datetime.fromisoformat(new["old_token_until"].replace("Z", "+00:00")).timestamp()
    assert abs(until - time.time() - WEEK) < 60
    listed = json.loads(run("connections", "list", "--json"))
    assert [each["token"] for each in listed] == [f"ends in {new['token'][-4:]}"]
    assert "the token before the current one ended" in run(
        "token", "revoke", "1", "--previous", "--yes"
    )
    assert "has only one token" in run("token", "revoke", "1", "--previous", status=2)
    for command in (("connections", "delete"), ("token", "revoke")):
        assert "nothing was changed; give --yes" in run(*command, "team", status=2)
    assert "accepts no token any more" in run("token", "revoke", "team", "--yes")
    assert run("connections", "delete", "team", "--yes").endswith("deleted\n")
    assert run("connections", "list", "--json") == "[]\n"


def test_a_misspelled_name_makes_no_second_fleet_unasked(tmp_path: Path) -> None:
    settings = {"ENCRYPTION_SECRET": ""}
    assert run_command(tmp_path, "connect", "fleet", **settings).returncode == 0

    for keys, status in (("n\n", 130), ("y\n", 0)):
        done, output = answer(tmp_path, ["connect", "flete"], keys, **settings)
        assert done == status, output
        assert "There is a connection 'fleet'. Make another one, 'flete'? [y/N]" in output
    assert run_command(tmp_path, "connect", "Fleet", "--new", **settings).returncode == 0


def test_a_token_need_not_be_on_the_command_line(tmp_path: Path, lake: SmallLake) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    file = str(tmp_path / "token")
    options = {"read": ["--secret-token", "-"], "file": ["--secret-token-file", file]}
    for name, typed in options.items():
        done = command_runner().invoke(
            app,
            ["connect", name, *typed],
            env={**UNSET, "DEVLAKE_URL": lake.url},
            input=f"{TOKEN}\n",
        )
        assert done.exit_code == 0, done.output

    assert [kept["secretToken"] for kept in lake.kept.values()] == [TOKEN, TOKEN]


# Through DevLake's API.

PLACES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "server": ({}, {}),
    "server-key": ({"key": "a-key"}, {"DEVLAKE_API_KEY": "a-key"}),
    "front": ({"login": "ann:pw"}, {"DEVLAKE_USER": "ann", "DEVLAKE_PASSWORD": "pw"}),
    "front-key": ({"login": "ann:pw", "key": "a-key"}, {"DEVLAKE_API_KEY": "a-key"}),
}

Command = Callable[..., Result]


@pytest.fixture
def lake() -> Iterator[SmallLake]:
    with SmallLake() as lake:
        yield lake


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command with these settings; none leaves anything in its folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, answer: Optional[str] = None, **settings: str) -> Result:
        done = command_runner().invoke(app, arguments, env={**UNSET, **settings}, input=answer)
        assert list(tmp_path.iterdir()) == []
        return done

    return run


def said(done: Result) -> str:
    assert done.exit_code == 0, done.output
    return done.stdout


def failed(done: Result) -> str:
    """Return the error, by which an operator corrects something or tries again."""
    assert done.exit_code in (USAGE_ERROR, TRY_AGAIN), done.output
    [line] = [line for line in done.stderr.splitlines() if line]
    return line


@pytest.mark.parametrize("place", PLACES)
def test_a_project_is_connected_wherever_devlake_is(place: str, command: Command) -> None:
    arguments, settings = PLACES[place]
    with SmallLake(**arguments) as lake:
        settings = {**settings, "DEVLAKE_URL": f"{lake.url}/"}

        made = json.loads(
            said(command("connect", "fleet", "--project", "a/b c", "--json", **settings))
        )
        changes = list(lake.changes)
        again = said(command("connect", "fleet", "--project", "a/b c", **settings))

    assert lake.changes == changes
    [kept] = lake.kept.values()
    assert (kept["id"], kept["name"], kept["secretToken"]) == (made["id"], "fleet", made["token"])
    assert lake.scopes[made["id"]]["name"] == "All reports"
    [blueprint] = lake.blueprints.values()
    assert blueprint["projectName"] == "a/b c"
    assert blueprint["connections"] == [{**OURS, "connectionId": made["id"]}]
    front = f"{lake.url}/api" if "front" in place else "http://127.0.0.1:8090"
    assert made["url"] == f"{front}/plugins/developer-telemetry/{made['id']}/report"
    assert made["token"] not in again
    assert re.search(r"^Blueprint +a/b c-Blueprint, which has it already$", again, re.M)


def test_a_blueprint_keeps_what_it_has(lake: SmallLake, command: Command) -> None:
    other = {**OURS, "connectionId": 77}
    blueprint = lake.add_blueprint("shop", GITHUB, JIRA, other, cronConfig="5 3 * * 1")
    before = dict(blueprint)

    made = json.loads(
        said(command("connect", "fleet", "--project", "shop", "--json", DEVLAKE_URL=lake.url))
    )

    ours = {**OURS, "connectionId": made["id"]}
    assert lake.blueprints == {
        blueprint["id"]: {**before, "connections": [GITHUB, JIRA, other, ours]}
    }


def test_a_blueprint_is_found_among_hundreds(lake: SmallLake, command: Command) -> None:
    for number in range(250):
        lake.add_blueprint(f"p{number}")

    said(command("connect", "fleet", "--project", "p0", DEVLAKE_URL=lake.url))

    assert len(lake.blueprints) == 250
    listed = json.loads(said(command("connections", "list", "--json", DEVLAKE_URL=lake.url)))
    assert [each["projects"] for each in listed] == [["p0"]]


def test_an_advanced_blueprint_is_left_alone(lake: SmallLake, command: Command) -> None:
    lake.add_blueprint("shop", mode="ADVANCED")

    done = command("connect", "fleet", "--project", "shop", DEVLAKE_URL=lake.url)

    assert "'shop-Blueprint' of project 'shop' is in advanced mode" in failed(done)
    assert lake.changes == []


ALL = ("connect", "fleet", "--project", "shop", "--test-and-build-tasks", "--strip-paths")


@pytest.mark.parametrize("number", range(1, 7))
def test_a_connect_that_broke_off_is_finished_by_the_next(
    lake: SmallLake, command: Command, number: int
) -> None:
    lake.fails_at = number
    first = command(*ALL, DEVLAKE_URL=lake.url)
    assert "with 500: out of luck; its log has details; run this again" in failed(first)
    lake.fails_at = 0

    second = said(command(*ALL, DEVLAKE_URL=lake.url))

    [kept] = lake.kept.values()
    # The token was shown, once, whatever came after.
    assert [kept["secretToken"] in text for text in (first.stdout, second)].count(True) == 1
    [config] = lake.configs.values()
    assert (config["name"], config["testAndBuildTasks"]) == ("fleet", True)
    assert lake.scopes[kept["id"]]["scopeConfigId"] == config["id"]
    [blueprint] = lake.blueprints.values()
    assert blueprint["connections"] == [{**OURS, "connectionId": kept["id"]}]
    # As many changes as it takes, and the one that failed.
    assert len(lake.changes) == 7


def test_a_scope_config_that_is_used_is_changed(lake: SmallLake, command: Command) -> None:
    said(command(*ALL, DEVLAKE_URL=lake.url))
    [config] = lake.configs.values()
    config["name"] = "renamed by hand"

    changing = ("connections", "set", "fleet", "--keep-accounts-unlinked")
    assert "keep accounts unlinked: yes" in said(command(*changing, DEVLAKE_URL=lake.url))

    [config] = lake.configs.values()
    assert (config["testAndBuildTasks"], config["keepAccountsUnlinked"]) == (True, True)
    changes = list(lake.changes)
    assert "Nothing changes." in said(command(*changing, DEVLAKE_URL=lake.url))
    assert lake.changes == changes


def test_a_plugin_that_does_not_know_an_option_is_named(
    lake: SmallLake, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(small_lake.CONNECTION, "stripPaths")

    done = command("connect", "fleet", "--strip-paths", DEVLAKE_URL=lake.url)

    assert "DevLake's plugin does not know stripPaths: it is older" in failed(done)
    [kept] = lake.kept.values()
    assert kept["secretToken"] in done.stdout


def test_tokens_and_names_are_changed_through_devlake(lake: SmallLake, command: Command) -> None:
    made = json.loads(said(command("connect", "fleet", "--json", DEVLAKE_URL=lake.url)))
    [kept] = lake.kept.values()

    said(command("connections", "rename", "fleet", "team", DEVLAKE_URL=lake.url))
    new = json.loads(
        said(command("token", "rotate", "team", "--keep-old=2d", "--json", DEVLAKE_URL=lake.url))
    )

    assert (kept["name"], kept["secretToken"]) == ("team", new["token"])
    assert kept["previousSecretToken"] == made["token"]
    assert abs(kept["previousTokenUntil"] - time.time() - 2 * 86400) < 60
    for shown in (("list",), ("show", "team"), ("show", "team", "--json")):
        output = said(command("connections", *shown, DEVLAKE_URL=lake.url))
        assert not {made["token"], new["token"]} & set(re.findall(r"[\w-]{20,}", output))
        assert f"ends in {new['token'][-4:]}" in output
    assert "earlier rotation, has ended" in said(
        command("token", "rotate", "1", DEVLAKE_URL=lake.url)
    )
    assert (kept["previousSecretToken"], kept["previousTokenUntil"]) == ("", 0)
    last = kept["secretToken"]
    said(command("token", "revoke", "team", "--yes", DEVLAKE_URL=lake.url))
    assert kept["secretToken"] not in ("", last)


def test_a_connection_in_use_is_deleted_when_the_operator_agrees(
    lake: SmallLake, command: Command, tmp_path: Path
) -> None:
    lake.add_blueprint("shop", GITHUB)
    for name in ("fleet", "other"):
        said(command("connect", name, "--project", "shop", DEVLAKE_URL=lake.url))
    [before] = [dict(each) for each in lake.blueprints.values()]
    first = before["connections"][1]["connectionId"]

    done = command("connections", "delete", "fleet", answer="y\n", DEVLAKE_URL=lake.url)
    assert "nothing was changed; give --yes" in failed(done)
    assert "It is removed from the blueprint shop-Blueprint of project shop" in done.stdout
    assert "set DB_URL to see how many" in done.stdout
    typed = ["connections", "delete", "fleet"]
    for keys in ("n\n", "\x03", "\x04"):  # no, Ctrl+C, Ctrl+D
        status, output = answer(tmp_path, typed, keys, DEVLAKE_URL=lake.url)
        assert (status, output.splitlines()[-1]) == (130, "cancelled")
    assert len(lake.kept) == len(lake.scopes) == 2

    assert answer(tmp_path, typed, "y\n", DEVLAKE_URL=lake.url)[0] == 0

    [kept] = lake.kept.values()
    assert kept["name"] == "other"
    assert list(lake.scopes) == [kept["id"]]
    [after] = lake.blueprints.values()
    assert [each["connectionId"] for each in before["connections"]] == [1, first, kept["id"]]
    assert after["connections"] == [GITHUB, {**OURS, "connectionId": kept["id"]}]


# What can be wrong with DevLake, by what it answers, and what is said.
PENDING = "New migration scripts detected. Database migration is required to launch DevLake."
FAULTS: dict[str, tuple[Any, str]] = {
    "pending": (
        (428, {"success": False, "message": f"\n{PENDING}\nWARNING: more (428)"}),
        r"waits for you to confirm a migration .*`curl http://\S+\d/proceed-db-migration`",
    ),
    "migrating": (
        (428, {"message": "Database migration is in progress. Please wait (428)"}),
        "is migrating its database; try again when it is done",
    ),
    "no-plugin": ((404, "404 page not found"), "has no plugin developer_telemetry.*build.sh"),
    "single-sign-on": (
        (401, {"message": "unauthorized"}),
        "needs a login: unauthorized; set DEVLAKE",
    ),
    "redirect": ((302, "https://lake.example/x"), "redirects to https://lake.example/x; give that"),
    "server-down": (
        (502, "<html>502 Bad Gateway</html>"),
        "can't reach DevLake's server \\(502\\)",
    ),
    "no-json": (PAGE, "answered GET .* with 200: an answer that this command does not understand"),
    "error": (
        (500, {"message": "cipher: message authentication failed (500)\nWraps: (2) x"}),
        "with 500: cipher: message authentication failed; its log",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_devlakes_is_said_in_words(
    lake: SmallLake, command: Command, fault: str
) -> None:
    lake.fault, message = FAULTS[fault]

    for arguments in (("connect", "fleet", "--project", "p"), ("connections", "list")):
        line = failed(command(*arguments, DEVLAKE_URL=lake.url))
        assert re.fullmatch(rf"error: DevLake at {lake.url} .*|error: the proxy .*", line), line
        assert re.search(message, line), line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs a login: 401; set DEVLAKE_API_KEY, or DEVLAKE_USER"),
        ({"DEVLAKE_API_KEY": "guess"}, "refuses DEVLAKE_API_KEY: api key is invalid; make one"),
        (
            {"DEVLAKE_USER": "ann", "DEVLAKE_PASSWORD": "guess"},
            "refuses DEVLAKE_USER and DEVLAKE_PASSWORD",
        ),
    ],
    ids=["nothing", "key", "password"],
)
def test_who_is_not_let_in_is_told_what_to_show(
    command: Command, settings: dict[str, str], message: str
) -> None:
    with SmallLake(key="a-key", login="ann:pw") as lake:
        line = failed(command("connections", "list", DEVLAKE_URL=lake.url, **settings))

    assert message in line
    assert "guess" not in line


def test_an_address_without_devlake_is_said(lake: SmallLake, command: Command) -> None:
    line = failed(command("connections", "list", "--devlake-url", f"{lake.url}/elsewhere"))

    assert f"there is no DevLake at {lake.url}/elsewhere; give the address of its web UI" in line


def test_an_address_that_nobody_listens_at_is_said(command: Command) -> None:
    url = f"http://{HOST}:{free_port()}"

    done = command("connections", "list", DEVLAKE_URL=url)
    line = failed(done)

    assert done.exit_code == TRY_AGAIN
    assert f"can't reach DevLake at {url}: " in line
    assert "check DEVLAKE_URL, and that DevLake runs" in line


def test_a_devlake_that_does_not_answer_in_time_is_said(
    lake: SmallLake, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devlake, "ANSWER_SECONDS", 0.2)
    lake.silent_seconds = 0.6

    line = failed(command("connections", "list", DEVLAKE_URL=lake.url))

    assert re.search(
        r"did not answer GET /(api/)?version within 0 s; .*run the command again", line
    )


def test_a_connection_that_breaks_off_is_said(command: Command) -> None:
    with socket.create_server((HOST, 0)) as listening:
        listening.settimeout(10)
        url = f"http://{HOST}:{listening.getsockname()[1]}"

        def hang_up() -> None:
            listening.accept()[0].close()

        with ThreadPoolExecutor(1) as pool:
            pool.submit(hang_up)
            line = failed(command("connections", "list", DEVLAKE_URL=url))

    assert f"DevLake at {url} did not complete GET " in line


# The guide.

GUIDE = (Path(__file__).parents[2] / "docs/onboarding.md").read_text(encoding="utf-8")


def test_the_guides_commands_work_in_their_order(lake: SmallLake, command: Command) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", GUIDE, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    lines = [line for line in lines if not line.startswith(("export", "# needs"))]
    assert len(lines) >= 9

    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "developer-telemetry"
        said(command(*arguments, answer="y\n", DEVLAKE_URL=lake.url))

    assert (lake.kept, len(lake.blueprints)) == ({}, 2)


def test_the_guide_has_every_option_of_connect() -> None:
    shown = command_runner().invoke(app, ["connect", "--help"], env={"COLUMNS": "200"}).stdout
    options = set(re.findall(r"--[a-z-]+", shown)) - {"--help"}
    # Those whose absence means no.
    assert "--project" in options
    options -= {"--no-test-and-build-tasks", "--no-keep-accounts-unlinked"}
    options -= {"--devlake-url"}

    assert {each for each in options if f"`{each}" not in GUIDE} == set()
