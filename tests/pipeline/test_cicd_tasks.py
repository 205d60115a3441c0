"""Test runs and builds as tasks of DevLake's domain layer, on every database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.constants import OVERWRITE, TASK_TABLE
from developer_telemetry.pipeline.cicd_tasks import TASK_COLUMNS, convert_tasks, remove_tasks
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.storage.devlake_schema import TASK_KINDS, make_task_id
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.rows import Row, raw_rows, rows

STRATEGIES = {1: OVERWRITE, 2: OVERWRITE}


def day(test_runs: int = 0, builds: int = 0, **fields: Any) -> ReceivedReport:
    """A report of so many test runs and builds."""
    counts = {"test_runs_detected": test_runs, "build_commands_detected": builds}
    return arrival(metrics={"development_activity": counts}, **fields)


def converted(
    engine: Engine, *arrivals: ReceivedReport, developers: Optional[Sequence[str]] = None
) -> list[Row]:
    """All tasks after these reports arrived and connection 1 was converted."""
    store(engine, arrivals, STRATEGIES)
    for _ in convert_tasks(engine, 1, developers):
        pass
    return rows(engine, TASK_TABLE, TASK_COLUMNS, "id")


def names(tasks: Sequence[Row]) -> dict[str, str]:
    """Return what tasks are called, by the end of their id: kind, connection, developer, date."""
    return {task["id"].partition(":")[2]: task["name"] for task in tasks}


def test_a_days_test_runs_and_builds_are_a_task_each(engine: Engine) -> None:
    builds, test_runs = converted(engine, day(test_runs=12, builds=1))
    assert test_runs == {
        "id": "developer_telemetry:TestRuns:1:ann.lee:2026-11-23",
        "name": "12 test runs",
        "pipeline_id": "",
        "cicd_scope_id": "developer_telemetry:TelemetryScope:1:all",
        "result": "",
        "status": "DONE",
        "original_status": "",
        "original_result": "",
        "type": "TEST",
        "environment": "",
        "duration_sec": 0,
        "created_date": "2026-11-23 00:00:00.000",
        "started_date": "2026-11-23 00:00:00.000",
        "finished_date": "2026-11-23 00:00:00.000",
        "created_at": "2026-11-23 20:26:40.123",
        "updated_at": "2026-11-23 20:26:40.123",
        "_raw_data_params": '{"ConnectionId":1,"ScopeId":"all"}',
        "_raw_data_table": "_raw_developer_telemetry",
        "_raw_data_id": raw_rows(engine)[0]["id"],
        "_raw_data_remark": "",
    }
    assert builds == {
        **test_runs,
        "id": "developer_telemetry:Builds:1:ann.lee:2026-11-23",
        "name": "1 build",
        "type": "BUILD",
    }


def test_a_day_without_any_has_no_task(engine: Engine) -> None:
    assert converted(engine, day(), day(builds=2, date="2026-11-24")) == converted(engine)
    assert names(converted(engine)) == {"Builds:1:ann.lee:2026-11-24": "2 builds"}


def test_tasks_follow_what_a_newer_report_says(engine: Engine) -> None:
    before = converted(engine, day(test_runs=3, builds=3))
    after = converted(engine, day(test_runs=5, after=60))
    assert names(after) == {"TestRuns:1:ann.lee:2026-11-23": "5 test runs"}
    assert after[0]["created_at"] == before[1]["created_at"]
    assert after[0]["updated_at"] == "2026-11-23 20:27:40.123"


def test_converting_again_changes_nothing(engine: Engine) -> None:
    before = converted(engine, *[day(n, n, developer=f"developer-{n}") for n in range(3)])
    assert converted(engine) == before


def test_only_some_developers_are_converted_when_asked(engine: Engine) -> None:
    people = ["ann", "bob", "cem"]
    days = ["2026-11-22", "2026-11-23"]
    arrivals = [day(1, developer=person, date=date) for person in people for date in days]
    some = converted(engine, *arrivals, developers=["ann", "cem"])
    assert list(names(some)) == [
        f"TestRuns:1:{each}:{date}" for each in ("ann", "cem") for date in days
    ]
    assert converted(engine, developers=[]) == some
    assert len(converted(engine)) == 6


def test_more_days_than_a_batch_holds_all_get_tasks(engine: Engine) -> None:
    store(engine, [day(1, developer=f"developer-{n}") for n in range(501)], STRATEGIES)
    assert [step.done for step in convert_tasks(engine, 1)] == [500, 501]
    assert len(converted(engine)) == 501
    everyone = [f"developer-{n}" for n in range(501)]
    assert [step.done for step in convert_tasks(engine, 1, everyone)] == [500, 501]


def test_only_the_connections_own_are_written_and_removed(engine: Engine) -> None:
    converted(engine, day(1), day(1, connection_id=2))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO {TASK_TABLE} (id) VALUES ('github:1')")
    for _ in convert_tasks(engine, 2):
        pass
    remove_tasks(engine, 1)
    assert [row["id"] for row in rows(engine, TASK_TABLE, ("id",), "id")] == [
        "developer_telemetry:TestRuns:2:ann.lee:2026-11-23",
        "github:1",
    ]


# As its `dora` plugin decides what a deployment is: by the pipeline of a task, and by its type,
# environment and result.
DEPLOYMENTS = (
    f"SELECT id FROM {TASK_TABLE} WHERE type NOT IN ('TEST', 'BUILD') OR type IS NULL"
    " OR pipeline_id <> '' OR environment <> '' OR result <> ''"
)


def test_nothing_is_there_for_dora_to_count(engine: Engine) -> None:
    assert len(converted(engine, day(3, 3))) == 2
    with engine.connect() as connection:
        assert connection.exec_driver_sql(DEPLOYMENTS).fetchall() == []


def test_names_that_look_alike_have_tasks_of_their_own(exact_engine: Engine) -> None:
    people = ["Irfan", "irfan", "jose", "josé", "jose\u0301", "DESKTOP-7\\ann", "🐙"]
    tasks = converted(exact_engine, *[day(1, developer=person) for person in people])
    assert {task["id"] for task in tasks} == {
        f"developer_telemetry:TestRuns:1:{person}:2026-11-23" for person in people
    }


@pytest.mark.parametrize("kind", TASK_KINDS, ids=lambda kind: kind.identity)
def test_an_id_that_would_not_fit_has_the_developer_hashed(kind: Any) -> None:
    prefix = f"developer_telemetry:{kind.identity}:1:"
    longest = "é" * (255 - len(prefix) - len(":2026-11-23"))
    assert make_task_id(kind, 1, longest, "2026-11-23") == f"{prefix}{longest}:2026-11-23"
    hashed = make_task_id(kind, 1, longest + "é", "2026-11-23")
    assert len(hashed) == len(prefix) + 64 + len(":2026-11-23")
    assert hashed != make_task_id(kind, 1, longest + "e", "2026-11-23")
