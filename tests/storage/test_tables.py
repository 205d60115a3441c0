"""The declaration of tables against the real schema: every column that may hold a person."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import inspect
from sqlalchemy.engine import Engine

from developer_telemetry.constants import OVERWRITE
from developer_telemetry.models import DeveloperMetrics
from developer_telemetry.pipeline.accounts import convert_accounts
from developer_telemetry.pipeline.cicd_tasks import convert_tasks
from developer_telemetry.reports.daily_metrics import LONG_COLUMNS, TOOL_COLUMNS
from developer_telemetry.storage.tables import (
    BACKUP_TABLES,
    CONNECTION_TABLES,
    DEVELOPER_TABLES,
    ERASED_TABLES,
    EXPORTED_TABLES,
    PRUNED_TABLES,
    TABLES,
    Table,
)
from developer_telemetry.storage.writer import store
from tests.pipeline.test_org_rules import TABLES as DEVLAKES
from tests.support.factories import arrival

TEXT = re.compile(r"CHAR|TEXT|CLOB|JSON|BLOB|BINARY|BYTEA", re.IGNORECASE)
# DevLake's, which we neither read nor write: its people are its own.
NOT_OURS = {"users"}
NAMES = [table.name for table in TABLES]


@pytest.fixture
def lake(engine: Engine) -> Iterator[Engine]:
    """A database with our tables and those that DevLake's server and its org plugin make."""
    with engine.begin() as connection:
        for table, columns in DEVLAKES.items():
            connection.exec_driver_sql(f"CREATE TABLE {table} ({columns})")
    yield engine
    with engine.begin() as connection:
        for table in DEVLAKES:
            connection.exec_driver_sql(f"DROP TABLE {table}")


def columns_of(engine: Engine, table: str) -> dict[str, str]:
    return {column["name"]: str(column["type"]) for column in inspect(engine).get_columns(table)}


def test_every_table_is_declared_once(lake: Engine) -> None:
    assert len(set(NAMES)) == len(NAMES)
    # SQLAlchemy 1.4 also lists SQLite's own tables.
    names = {name for name in inspect(lake).get_table_names() if not name.startswith("sqlite_")}
    assert names == set(NAMES) | NOT_OURS


def test_every_column_of_text_is_declared_personal_or_not(lake: Engine) -> None:
    for table in TABLES:
        there = columns_of(lake, table.name)
        texts = {name for name, kind in there.items() if TEXT.search(kind)}
        declared = {*table.personal, *table.impersonal}
        assert not {*table.personal} & {*table.impersonal}, table.name
        assert texts - declared == set(), table.name
        # The tests' own tables have fewer columns than DevLake's.
        if table.name not in DEVLAKES:
            assert declared - {*there} == set(), table.name


def test_columns_that_a_declaration_names_exist(lake: Engine) -> None:
    for table in TABLES:
        there = set(columns_of(lake, table.name))
        needed = {table.id_column} if table.key and not table.has_days else set()
        if table.name in DEVELOPER_TABLES:
            needed |= {"connection_id", "developer_id"}
        if table.has_days:
            needed |= {"date", "arrived_us"}
        if table.connection_column:
            needed |= {table.connection_column}
        assert needed - there == set(), table.name


@pytest.mark.parametrize("table", TABLES, ids=NAMES)
def test_a_table_with_a_person_is_covered_by_everything_or_says_why_not(table: Table) -> None:
    covers = [table in ERASED_TABLES, table in PRUNED_TABLES, table in EXPORTED_TABLES]
    covers.append(table in CONNECTION_TABLES)

    assert not table.personal or all(covers) or table.exemption
    assert table.personal or not any(covers[:3])
    assert not any(covers[:3]) or (table.key is not None and table.label)


@pytest.mark.parametrize("table", TABLES, ids=NAMES)
def test_a_table_is_backed_up_or_says_why_not(table: Table) -> None:
    # `tests/transfer/test_backup.py` has a row in each of the first.
    assert bool(table.label) or bool(table.backup_exemption)
    assert table.backup_exemption == "" or table not in BACKUP_TABLES


def test_a_person_is_in_columns_that_are_declared_personal_alone(lake: Engine) -> None:
    word = "zebulon"
    fields: dict[str, Any] = {
        "developer": word,
        "hostname": f"{word}-desk",
        "email": f"{word}@example.com",
        "name": word,
        "active_hours": 3,
        "tools_used": [word],
        "project_context": [word],
        "commands": {word: 2},
        "os_info": {"user": word},
        "test_runs": 1,
        "builds": 1,
        "development_activity": {"test_runs_detected": 2, "build_commands_detected": 3},
        "git_activity": {"total_commits": 1, "repositories": [{"name": word, "commits_today": 1}]},
    }
    store(lake, [arrival(**fields)], {1: OVERWRITE})
    list(convert_accounts(lake, 1))
    list(convert_tasks(lake, 1))
    with lake.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO user_accounts (account_id, user_id) SELECT id, user_name FROM accounts"
        )

    personal = {(table.name, column) for table in TABLES for column in table.personal}
    seen = set()
    with lake.connect() as connection:
        for name in inspect(lake).get_table_names():
            for row in connection.exec_driver_sql(f"SELECT * FROM {name}"):
                for column, value in row._asdict().items():
                    if word in str(value).lower():
                        seen.add((name, column))

    assert seen - personal == set()
    assert {table for table, _ in seen} >= {
        "_raw_developer_telemetry",
        "_tool_developer_metrics",
        "accounts",
        "user_accounts",
        "cicd_tasks",
    }


def test_the_tool_rows_columns_are_the_tables_and_the_models(engine: Engine) -> None:
    there = columns_of(engine, DeveloperMetrics.__tablename__)
    fields = vars(DeveloperMetrics)["__table__"].columns.keys()

    assert set(there) == set(TOOL_COLUMNS)
    assert {name.lstrip("_") for name in fields} == {name.lstrip("_") for name in TOOL_COLUMNS}
    long = {name for name, kind in there.items() if re.search("VARCHAR", kind) is None}
    texts = {name for name in long if TEXT.search(there[name])}
    assert texts - {"_raw_data_remark"} == set(LONG_COLUMNS)
