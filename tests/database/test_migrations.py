"""The schema that the scripts make, on each database, and from wherever a run of them ended."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from typing import Any

import pytest
import sqlglot
from sqlalchemy import inspect
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlglot import expressions

from developer_telemetry import models
from developer_telemetry.constants import FIGURE_VIEWS
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.migrations import SCRIPTS, SQLITE_STATEMENTS
from developer_telemetry.database.schema_versions import NAMES
from pydevlake.migration import MIGRATION_SCRIPTS
from pydevlake.model import SubtaskRun
from pydevlake.model_info import DynamicModelInfo
from tests.support.go_plugin import STATEMENTS as GO_PLUGIN
from tests.support.schemas import Database, columns_of, fetch, operations_for

RAW = "_raw_developer_telemetry"
METRICS = "_tool_developer_metrics"
MACHINES = "_tool_developer_telemetry_machines"
CONNECTIONS = "_tool_developer_telemetry_connections"
OUR_TABLES = {
    RAW,
    METRICS,
    MACHINES,
    CONNECTIONS,
    "_tool_developer_telemetry_horizons",
    "_tool_developer_telemetry_receivers",
    "_tool_developer_telemetry_refusals",
    "_tool_developer_telemetry_runs",
    "_tool_developer_telemetry_scope_configs",
    "_tool_developer_telemetry_scopes",
    "_tool_developer_telemetry_tombstones",
}
RAW_ROW = (
    f"INSERT INTO {RAW} (params, connection_id, payload, created_at, report_id, developer_id,"
    " date, arrived_us) VALUES ('p', 1, '{{}}', '2026-11-23 08:00:00.123', '{0}', 'ada',"
    " '2026-11-23', 1)"
)


def test_devlake_is_offered_the_scripts_in_order() -> None:
    ours = [script for script in MIGRATION_SCRIPTS if script in SCRIPTS]
    assert ours == list(SCRIPTS)
    versions = [script.version for script in SCRIPTS]
    assert versions == sorted(set(versions))
    assert versions == list(SQLITE_STATEMENTS)
    assert {script.version: script.name for script in SCRIPTS} == NAMES


# What is there ----------------------------------------------------------------------------------


def test_all_tables_are_there(engine: Engine) -> None:
    assert set(inspect(engine).get_table_names()) >= OUR_TABLES


@pytest.mark.parametrize(
    "model",
    [
        models.TelemetryConnection,
        models.TelemetryScope,
        models.TelemetryScopeConfig,
        models.DeveloperMetrics,
        models.Machine,
    ],
)
def test_models_and_tables_agree(engine: Engine, model: Any) -> None:
    info = DynamicModelInfo.from_model(model)  # by which DevLake's server reads and writes
    modelled = {
        "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
        for name in info.json_schema["properties"]
    }
    assert modelled == set(columns_of(engine, info.table_name))


def test_the_sdk_finds_the_table_of_its_runs(engine: Engine) -> None:
    """Otherwise the first runs of two connections would each make it, and one would fail."""
    name = SubtaskRun.__tablename__
    assert set(columns_of(engine, name)) == set(SubtaskRun.__table__.columns.keys())  # type: ignore[attr-defined]
    started = datetime.datetime(2026, 11, 29, 12)
    with Session(engine) as session:
        session.add(SubtaskRun(subtask_name="x", connection_id=1, started=started, state="{}"))
        session.commit()
    assert fetch(engine, f"SELECT subtask_name, completed FROM {name}") == [("x", None)]


def test_dates_are_dates_and_ids_are_wide(engine: Engine) -> None:
    raw, metrics = columns_of(engine, RAW), columns_of(engine, METRICS)
    assert raw["date"] == metrics["date"] == "DATE"
    assert columns_of(engine, "_tool_developer_telemetry_refusals")["day"] == "DATE"
    assert metrics["active_hours"] in ("INTEGER", "INTEGER(11)")
    for column in (raw["connection_id"], raw["arrived_us"], metrics["_raw_data_id"]):
        assert column.startswith("BIGINT")
    text = "LONGTEXT" if dialect_of(engine).name == "mysql" else "TEXT"
    assert raw["payload"] == metrics["os_info"] == metrics["tools_used"] == text


def test_keys_and_indexes_are_in_the_order_that_queries_need(engine: Engine) -> None:
    inspector = inspect(engine)

    def key(table: str) -> list[str]:
        return list(inspector.get_pk_constraint(table)["constrained_columns"])

    def indexes(table: str) -> list[list[Any]]:
        return [list(index["column_names"]) for index in inspector.get_indexes(table)]

    assert key(METRICS) == ["connection_id", "developer_id", "date"]
    assert key(MACHINES) == ["connection_id", "developer_id", "hostname"]
    assert ["email"] in indexes(METRICS)
    assert ["_raw_data_params"] in indexes(METRICS)
    assert ["_raw_data_params"] in indexes(MACHINES)
    day = ["connection_id", "developer_id", "date", "hostname", "arrived_us"]
    assert day in indexes(RAW)


def test_a_report_is_in_raw_once_and_a_connections_name_is_its_own(engine: Engine) -> None:
    add_connection = f"INSERT INTO {CONNECTIONS} (name) VALUES ('fleet')"
    for statement in (RAW_ROW.format("r1"), add_connection):
        fetch(engine, statement)
        with pytest.raises(IntegrityError):
            fetch(engine, statement)


def test_the_view_shows_raw_rows(engine: Engine) -> None:
    fetch(engine, RAW_ROW.format("r1"))
    views = inspect(engine).get_view_names()
    assert sorted(views) == sorted(["raw_developer_telemetry", *FIGURE_VIEWS])
    columns = list(columns_of(engine, "raw_developer_telemetry"))
    assert columns == ["id", "connection_id", "payload", "created_at"]
    rows = fetch(engine, "SELECT connection_id, payload FROM raw_developer_telemetry")
    assert rows == [(1, "{}")]


def test_devlakes_deletion_finds_params_wherever_it_looks(engine: Engine) -> None:
    inspector = inspect(engine)
    names = inspector.get_table_names() + inspector.get_view_names()
    searched = [name for name in names if name.startswith(RAW)]
    assert searched == [RAW]
    assert "params" in columns_of(engine, RAW)


def test_a_row_is_stored_at_the_databases_time_in_utc(exact_engine: Engine) -> None:
    fetch(exact_engine, RAW_ROW.format("r1"))
    now = datetime.datetime.now(datetime.timezone.utc)
    ((stored,),) = fetch(exact_engine, f"SELECT stored_at FROM {RAW}")
    moment = datetime.datetime.fromisoformat(stored) if isinstance(stored, str) else stored
    away = moment.replace(tzinfo=datetime.timezone.utc) - now
    assert abs(away) < datetime.timedelta(minutes=2)


def test_ids_of_deleted_raw_rows_are_not_given_again(engine: Engine) -> None:
    fetch(engine, RAW_ROW.format("r1"))
    ((first,),) = fetch(engine, f"SELECT id FROM {RAW}")
    fetch(engine, f"DELETE FROM {RAW}")
    fetch(engine, RAW_ROW.format("r2"))
    assert fetch(engine, f"SELECT id FROM {RAW}") == [(first + 1,)]


def test_keys_are_exact_whatever_the_server_thinks(exact_engine: Engine) -> None:
    people = ["Irfan", "irfan", "jose", "josé"]
    for person in people:
        fetch(
            exact_engine,
            f"INSERT INTO {METRICS} (connection_id, developer_id, date, email)"
            f" VALUES (1, '{person}', '2026-11-23', '{person}@x')",
        )
        fetch(exact_engine, f"INSERT INTO accounts (id) VALUES ('{person}')")
    for person in people:
        by_email = f"SELECT developer_id FROM {METRICS} WHERE email = '{person}@x'"
        assert fetch(exact_engine, by_email) == [(person,)]
    in_order = fetch(exact_engine, f"SELECT developer_id FROM {METRICS} ORDER BY developer_id")
    assert in_order == [(person,) for person in sorted(people)]


# Begun before -----------------------------------------------------------------------------------


@pytest.mark.timeout(600)  # hundreds of statements that change tables, each synced to the disk
@pytest.mark.parametrize("url", ["mariadb_url", "postgresql_url"])
def test_scripts_get_there_from_wherever_a_run_ended(
    request: pytest.FixtureRequest, url: str
) -> None:
    database = Database(request.getfixturevalue(url))
    operations = operations_for(database.dialect)
    # Tables of our own have every column, so an add_column brings no state worth starting from.
    ends = [0] + [number for number, each in enumerate(operations, 1) if each.type != "add_column"]
    assert_same_from(database, [], operations, ends)


@pytest.mark.timeout(600)
def test_the_take_over_gets_there_from_wherever_a_run_ended(mariadb_url: str) -> None:
    operations = operations_for("mysql", SCRIPTS[1:2])
    ends = range(len(operations) + 1)
    assert_same_from(Database(mariadb_url), GO_PLUGIN, operations, ends)


def assert_same_from(
    database: Database, before: list[str], operations: list[Any], ends: Iterable[int]
) -> None:
    """Run the first so many operations and then all of them: it ends the same for all `ends`."""
    expected = None
    for end in ends:
        database.empty()
        for statement in before:
            database.execute(statement)
        database.migrate(operations[:end])
        database.migrate(operations)
        found = (
            database.structure(),
            database.execute(f"SELECT * FROM {METRICS} ORDER BY developer_id"),
            database.execute(f"SELECT * FROM {CONNECTIONS} ORDER BY id"),
        )
        expected = expected or found
        assert found == expected, f"after the first {end} operations, then all"
    database.close()


# MySQL 8 ----------------------------------------------------------------------------------------
# MariaDB, on which these tests run, takes much that MySQL refuses.

# Both have them, with one meaning.
FUNCTIONS = {
    *("CAST", "CURRENT_TIMESTAMP", "JSON_VALID", "JSON_UNQUOTE", "JSON_EXTRACT"),
    *("REGEXP_SUBSTR", "TRIM"),
}


def mysql_statements() -> list[Any]:
    statements = []
    for number, operation in enumerate(operations_for("mysql")):
        if operation.type == "execute":
            statement = operation.sql
        else:
            added = f"{operation.column} {operation.column_type}"
            statement = f"ALTER TABLE {operation.table} ADD {added}"
        statements.append(pytest.param(statement, id=f"{number}: {statement[:40]}"))
    return statements


# MySQL's manual has it; the parser does not and only passes it on.
CONVERT = re.compile(
    r"ALTER TABLE \w+ CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, ROW_FORMAT=DYNAMIC"
)


@pytest.mark.parametrize("statement", mysql_statements())
def test_mysql_8_can_parse_every_statement(statement: str) -> None:
    (tree,) = sqlglot.parse(statement, dialect="mysql", error_level=sqlglot.ErrorLevel.RAISE)
    assert tree is not None
    assert not isinstance(tree, expressions.Command) or CONVERT.fullmatch(statement)
    for column in tree.find_all(expressions.ColumnDef):
        if str(column.kind) in ("TEXT", "LONGTEXT", "JSON"):
            kinds = [type(constraint.kind) for constraint in column.constraints]
            assert expressions.DefaultColumnConstraint not in kinds, "MySQL has no such default"


@pytest.mark.parametrize("statement", mysql_statements())
def test_nothing_is_used_that_only_mariadb_takes(statement: str) -> None:
    words = " ".join(statement.upper().split())
    assert "IF NOT EXISTS" not in words or words.startswith("CREATE TABLE IF NOT EXISTS")
    assert "IF EXISTS" not in words
    assert "RETURNING" not in words
    assert "CREATE INDEX" not in words
    if words.startswith("UPDATE"):
        assert set(re.findall(r"(\w+)\(", words)) <= FUNCTIONS


@pytest.mark.parametrize("statement", mysql_statements())
def test_nothing_is_taken_for_a_parameter_on_the_way_to_the_database(statement: str) -> None:
    assert not set("?@%:") & set(statement)
