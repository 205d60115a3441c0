"""The plugin as DevLake's server calls it: the real run.sh, a child process, answers on fd 3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, NamedTuple, Optional

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.reports.daily_metrics import KEY_COLUMNS, TOOL_COLUMNS
from developer_telemetry.storage.writer import store
from pydevlake.testing import assert_valid_plugin_info
from tests.support.factories import arrival
from tests.support.plugin_folder import plugin_folder

PROTOCOL = Path(__file__).parents[1] / "protocol"
# The server's calls as recorded from it: {"db", "verb", "args"}, one a line.
RECORDED = [json.loads(line) for line in (PROTOCOL / "server-calls.jsonl").read_text().splitlines()]
SUBTASKS = ["Collect Reports", "Extract Reports", "Convert Reports"]
RUNS = ("collect", "extract", "convert")


class Answer(NamedTuple):
    status: int
    documents: list[Any]
    errors: str


def call(verb: str, *arguments: Any) -> Answer:
    """Run run.sh as the server does."""
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3>&{writer}', "bash", "./run.sh", verb]
            + [json.dumps(argument) for argument in arguments],
            cwd=plugin_folder(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(writer,),
            text=True,
        )
    finally:
        os.close(writer)
    with os.fdopen(reader) as answers:
        lines = answers.read().splitlines()
    _, errors = process.communicate(timeout=60)
    return Answer(process.returncode, [json.loads(line) for line in lines], errors)


def recorded(verb: str, database: str = "mysql") -> list[Any]:
    """The arguments of the last recorded call of a verb."""
    calls = [each["args"] for each in RECORDED if (each["verb"], each["db"]) == (verb, database)]
    arguments: list[Any] = calls[-1]
    return arguments


@pytest.fixture(scope="module")
def plugin_info() -> dict[str, Any]:
    answer = call("plugin-info", {"log_level": "info"})
    assert answer.status == 0, answer.errors
    (info,) = answer.documents
    assert isinstance(info, dict)
    return info


CALLS = [each for each in RECORDED if each["verb"] not in RUNS]


@pytest.mark.parametrize("recorded_call", CALLS, ids=lambda each: f"{each['db']}-{each['verb']}")
def test_answers_a_call_recorded_from_the_server(recorded_call: dict[str, Any]) -> None:
    answer = call(recorded_call["verb"], *recorded_call["args"])
    assert (answer.status, answer.errors) == (0, "")
    assert len(answer.documents) == 1


@pytest.mark.parametrize("verb", RUNS)
def test_runs_as_recorded_from_the_server(verb: str, migrated_url: str) -> None:
    (recorded_call,) = [each for each in RECORDED if each["verb"] == verb]
    config, context, stream = recorded_call["args"]
    answer = call(verb, config, {**context, "db_url": migrated_url}, stream)
    assert (answer.status, answer.errors) == (0, "")


def test_plugin_info_obeys_the_server(plugin_info: dict[str, Any]) -> None:
    assert_valid_plugin_info(plugin_info)


def test_plugin_info_agrees_with_one_recorded_from_devlakes_own_sdk(
    plugin_info: dict[str, Any],
) -> None:
    theirs = json.loads((PROTOCOL / "plugin-info.json").read_text())
    assert plugin_info["name"] == theirs["name"]
    assert plugin_info["extension"] == theirs["extension"]
    assert [{**meta, "description": ""} for meta in plugin_info["subtask_metas"]] == [
        {**meta, "description": ""} for meta in theirs["subtask_metas"]
    ]
    # The recording is of a plugin with fewer fields; those that both have are alike.
    for part in ("connection_model_info", "scope_config_model_info"):
        assert plugin_info[part]["table_name"] == theirs[part]["table_name"]
        assert _types(plugin_info[part]).items() >= _types(theirs[part]).items()
    assert _types(plugin_info["scope_model_info"]) == {
        **_types(theirs["scope_model_info"]),
        "_raw_data_id": _types(plugin_info["scope_model_info"])["_raw_data_id"],
    }
    metrics, theirs_metrics = plugin_info["tool_model_infos"][0], theirs["tool_model_infos"][0]
    assert metrics["table_name"] == theirs_metrics["table_name"]
    assert _primary_key(metrics) == _primary_key(theirs_metrics)


def _types(model_info: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    properties = model_info["json_schema"]["properties"]
    return {
        name: (each["type"], each.get("format"), each.get("primaryKey", False))
        for name, each in properties.items()
    }


def _primary_key(model_info: dict[str, Any]) -> set[str]:
    properties = model_info["json_schema"]["properties"]
    return {name for name, each in properties.items() if each.get("primaryKey")}


def test_only_the_name_is_required_of_a_connection(plugin_info: dict[str, Any]) -> None:
    schema = plugin_info["connection_model_info"]["json_schema"]
    assert schema["required"] == ["name"]
    assert schema["properties"]["secretToken"]["format"] == "password"


def test_connection_fields_survive_the_servers_decoder(plugin_info: dict[str, Any]) -> None:
    times = ("createdAt", "updatedAt")
    properties = plugin_info["connection_model_info"]["json_schema"]["properties"]
    kinds = {name: each["type"] for name, each in properties.items() if name not in times}
    assert set(kinds.values()) <= {"string", "integer", "boolean"}


def test_every_table_that_holds_people_is_emptied_by_a_data_deletion(
    plugin_info: dict[str, Any],
) -> None:
    tables = {info["table_name"] for info in plugin_info["tool_model_infos"]}
    assert tables == {"_tool_developer_metrics", "_tool_developer_telemetry_machines"}
    for info in plugin_info["tool_model_infos"]:
        assert "_raw_data_params" in info["json_schema"]["properties"]


@pytest.mark.parametrize(
    ("connection", "success", "said"),
    [
        ({"name": "fleet", "endpoint": "", "secretToken": "s3cret"}, True, "Bearer"),
        ({"name": "fleet", "duplicateStrategy": "sum"}, True, "anyone"),
        ({"proxy": "", "token": ""}, True, "keeps its own"),
        ({"name": "fleet", "duplicateStrategy": "max"}, False, "'sum'"),
    ],
    ids=["new", "without token", "short form of a saved one", "unknown strategy"],
)
def test_a_connection_test_says_what_matters(
    connection: dict[str, Any], success: bool, said: str
) -> None:
    answer = call("test-connection", {"log_level": "info"}, connection)
    (result,) = answer.documents
    assert result["success"] is success
    assert result["status"] == (200 if success else 400)
    assert said in result["message"]
    assert "s3cret" not in result["message"]


def test_the_one_scope_is_offered() -> None:
    (group,) = call("remote-scopes", *recorded("remote-scopes")[:2], "").documents
    assert group == {"id": "all", "name": "All reports", "type": "group"}
    (scope,) = call("remote-scopes", *recorded("remote-scopes")[:2], group["id"]).documents
    assert (scope["id"], scope["type"], scope["parentId"]) == ("all", "scope", "all")
    assert scope["data"]["connectionId"] == 1


def test_a_pipeline_has_our_stage_and_then_links_accounts_to_users() -> None:
    (pipeline,) = call("make-pipeline", *recorded("make-pipeline", "postgres")).documents
    (ours,), (link,) = pipeline["plan"]
    assert (ours["plugin"], ours["subtasks"]) == ("developer_telemetry", SUBTASKS)
    assert ours["options"]["scopeId"] == "all"
    assert (link["plugin"], link["subtasks"]) == ("org", ["connectUserAccountsExact"])
    assert link["options"] == {"connectionId": 1}
    (scope,) = pipeline["scopes"]
    assert scope["type_name"] == "CicdScope"
    assert json.loads(scope["data"])["id"] == "developer_telemetry:TelemetryScope:1:all"


def test_a_scope_config_can_leave_accounts_unlinked() -> None:
    config, ((scope, scope_config),), connection = recorded("make-pipeline")
    scope_config = {**scope_config, "keepAccountsUnlinked": True}
    (pipeline,) = call("make-pipeline", config, [[scope, scope_config]], connection).documents
    assert [task["plugin"] for stage in pipeline["plan"] for task in stage] == [
        "developer_telemetry"
    ]


@pytest.mark.parametrize("strategy", ["", "overwrite", "sum"])
def test_a_run_rewrites_the_pushed_rows_as_they_were_and_makes_accounts(
    migrated_url: str, engine: Engine, strategy: str
) -> None:
    arrivals = [
        arrival(after=number, developer=developer, hostname=host)
        for number, (developer, host) in enumerate(
            [("ann", "a"), ("ann", "b"), ("bob", "c"), ("ann", "a")]
        )
    ]
    store(engine, arrivals, {1: strategy or "overwrite"})
    pushed = _rows(engine, f"SELECT * FROM _tool_developer_metrics {ORDER}")
    raw = _rows(engine, "SELECT * FROM _raw_developer_telemetry ORDER BY id")
    spoil = "UPDATE _tool_developer_metrics SET email = 'spoilt', active_hours = 1, commits = 9"
    with engine.begin() as connection:
        connection.exec_driver_sql(spoil)

    for verb in RUNS:
        config, context, stream = recorded("collect")
        context = {**context, "db_url": migrated_url, "scope_config": None}
        context["connection"] = {**context["connection"], "duplicateStrategy": strategy}
        answer = call(verb, config, context, stream)
        assert (answer.status, answer.errors) == (0, "")
        count = {"collect": 0, "extract": len(arrivals), "convert": 2}[verb]
        assert answer.documents[-1]["current"] == answer.documents[-1]["total"] == count

    assert _rows(engine, f"SELECT * FROM _tool_developer_metrics {ORDER}") == pushed
    assert _rows(engine, "SELECT * FROM _raw_developer_telemetry ORDER BY id") == raw
    assert _rows(engine, "SELECT id, user_name FROM accounts ORDER BY id") == [
        ("developer_telemetry:Account:1:ann", "ann"),
        ("developer_telemetry:Account:1:bob", "bob"),
    ]


# SQLite waits for a lock without looking at signals.
@pytest.mark.parametrize("migrated_url", ["mariadb", "postgresql"], indirect=True)
def test_a_cancelled_extract_ends_between_two_pages(migrated_url: str, engine: Engine) -> None:
    arrivals = [arrival(developer=f"developer-{number:04}") for number in range(3_000)]
    store(engine, arrivals, {1: "overwrite"})
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM _tool_developer_metrics")
    config, context, stream = recorded("collect")
    documents = [json.dumps(each) for each in (config, {**context, "db_url": migrated_url}, stream)]
    with engine.connect() as connection:
        holding = connection.begin()
        connection.exec_driver_sql(
            "INSERT INTO _tool_developer_metrics (connection_id, developer_id, date)"
            f" VALUES (1, 'developer-2500', '{arrivals[0].report.date}')"
        )
        process = subprocess.Popen(
            ["bash", "-c", 'exec "$@" 3>&1 >/dev/null', "bash", "./run.sh", "extract", *documents],
            cwd=plugin_folder(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        while json.loads(process.stdout.readline())["current"] < 2_500:
            pass
        process.terminate()
        process.communicate(timeout=60)
        holding.rollback()
    # DevLake's own SDK leaves a signal to the system.
    assert process.returncode in (128 + signal.SIGTERM, -signal.SIGTERM)
    assert _rows(engine, "SELECT COUNT(*) FROM _tool_developer_metrics") == [(2_500,)]
    assert _rows(engine, "SELECT subtask FROM _tool_developer_telemetry_runs") == []


def test_test_runs_and_builds_become_tasks_while_the_scope_config_says_so(
    migrated_url: str, engine: Engine
) -> None:
    counts = {"test_runs_detected": 3, "build_commands_detected": 2}
    store(engine, [arrival(metrics={"development_activity": counts})], {1: "overwrite"})
    tasks = "SELECT type, name FROM cicd_tasks ORDER BY type"
    config, context, stream = recorded("collect")
    for wanted, expected in [
        (None, []),
        (True, [("BUILD", "2 builds"), ("TEST", "3 test runs")]),
        (False, []),
    ]:
        scope_config = {**(context["scope_config"] or {}), "testAndBuildTasks": wanted}
        context = {**context, "db_url": migrated_url, "scope_config": scope_config}
        answer = call("convert", config, context, stream)
        assert (answer.status, answer.errors) == (0, "")
        assert _rows(engine, tasks) == expected


ORDER = "ORDER BY " + ", ".join(KEY_COLUMNS)


def _rows(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({"db_url": "mysql://merico:merico@127.0.0.1:1/lake"}, "127.0.0.1"),
        ({"db_url": "oracle://somewhere"}, "oracle"),
        ({"duplicateStrategy": "max"}, "duplicateStrategy"),
    ],
    ids=["database away", "database unknown", "strategy unknown"],
)
def test_a_failed_run_says_why_in_one_line(
    context: dict[str, Any], said: str, sqlite_url: str
) -> None:
    config, recorded_context, stream = recorded("extract", "postgres")
    strategy: Optional[str] = context.pop("duplicateStrategy", None)
    arguments = {**recorded_context, "db_url": sqlite_url, **context}
    arguments["connection"] = {**arguments["connection"], "duplicateStrategy": strategy}
    answer = call("extract", config, arguments, stream)
    assert answer.status == 1
    assert len(answer.errors.strip().splitlines()) == 1, answer.errors
    assert said in answer.errors
    assert "merico:merico" not in answer.errors


def test_the_models_name_the_columns_that_are_written(plugin_info: dict[str, Any]) -> None:
    from developer_telemetry.models import DeveloperMetrics

    columns = DeveloperMetrics.metadata.tables["_tool_developer_metrics"].columns
    assert set(columns.keys()) == set(TOOL_COLUMNS)
