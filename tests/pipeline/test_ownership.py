"""A blueprint's run records that DevLake owns the schema again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.connections.handover import take_over
from developer_telemetry.database.engine import transact
from developer_telemetry.database.schema_owner import SchemaOwner, read_owner, record_owner
from developer_telemetry.models import TelemetryConnection, TelemetryScopeConfig, make_scope
from developer_telemetry.pipeline.streams import Reports
from pydevlake import Context
from tests.support.devlake_tables import devlake_tables


@pytest.fixture
def lake(engine: Engine) -> Iterator[Engine]:
    """Return DevLake's database that was taken over."""
    with devlake_tables(engine):
        take_over(engine, None)
        yield engine


def run(engine: Engine, subtask: str) -> None:
    context = Context(
        engine=engine,
        connection=TelemetryConnection(id=1, name="fleet", duplicate_strategy=""),
        scope=make_scope(),
        scope_config=TelemetryScopeConfig(),
        options={},
    )
    for _ in getattr(Reports("developer_telemetry"), subtask).run(context):
        pass


def let_devlake_run(engine: Engine, plugin: str, status: str) -> None:
    flags: Any = "false, false" if engine.dialect.name == "postgresql" else "0, 0"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO _devlake_pipelines VALUES (1, {flags})")
        connection.exec_driver_sql(
            "INSERT INTO _devlake_tasks (id, plugin, status, pipeline_id)"
            f" VALUES (1, '{plugin}', '{status}', 1)"
        )


def owner(engine: Engine) -> SchemaOwner:
    with engine.connect() as connection:
        return read_owner(connection)


@pytest.mark.parametrize("subtask", ["extractor", "convertor"])
def test_a_task_of_devlake_records_it_as_the_owner(lake: Engine, subtask: str) -> None:
    let_devlake_run(lake, "developer_telemetry", "TASK_RUNNING")
    run(lake, subtask)
    assert owner(lake) is SchemaOwner.DEVLAKE


@pytest.mark.parametrize(
    ("plugin", "status"), [("github", "TASK_RUNNING"), ("developer_telemetry", "TASK_COMPLETED")]
)
def test_other_tasks_of_devlake_do_not(lake: Engine, plugin: str, status: str) -> None:
    let_devlake_run(lake, plugin, status)
    run(lake, "extractor")
    assert owner(lake) is SchemaOwner.STANDALONE


def test_a_run_on_a_database_of_our_own_records_nothing(engine: Engine) -> None:
    transact(engine, lambda connection: record_owner(connection, SchemaOwner.STANDALONE))
    run(engine, "extractor")
    assert owner(engine) is SchemaOwner.STANDALONE
