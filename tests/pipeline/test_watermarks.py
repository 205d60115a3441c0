"""Raw rows that a run reads, by the kind of run in DevLake's tables, on every database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from random import Random
from typing import Any, Callable

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.constants import (
    ACCOUNT_TABLE,
    OVERWRITE,
    RAW_TABLE,
    RUN_TABLE,
    SUM,
    TOOL_TABLE,
)
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.models import TelemetryConnection, TelemetryScopeConfig, make_scope
from developer_telemetry.pipeline import watermarks as runs
from developer_telemetry.pipeline.streams import Reports
from developer_telemetry.pipeline.watermarks import EXTRACT, begin, complete
from developer_telemetry.reports.daily_metrics import ReceivedReport, build_raw_params
from developer_telemetry.storage.writer import _store, store
from pydevlake import Context
from tests.support.factories import arrival
from tests.support.layers import (
    BOTH,
    STRATEGIES,
    expected,
    insert_go_plugin_row,
    traffic,
)
from tests.support.rows import tool_rows
from tests.support.threads import run_simultaneously

DAY_SECONDS = 86_400
SCHEDULED = (0, 0)
KINDS = {"retransform": (1, 0), "full-sync": (0, 1), "both": (1, 1)}

Looks = Callable[..., set[str]]


@pytest.fixture
def engine(migrated_url: str, opened: Callable[[str], Engine]) -> Iterator[Engine]:
    """A database with DevLake's tables of tasks and pipelines, as far as we read them."""
    engine = opened(migrated_url)
    task = "id BIGINT, plugin VARCHAR(255), pipeline_id BIGINT, status VARCHAR(255)"
    pipeline = "id BIGINT, skip_collectors {0}, full_sync {0}"
    flag = "BOOLEAN" if dialect_of(engine).name == "postgres" else "TINYINT(1)"
    change(engine, f"CREATE TABLE _devlake_tasks ({task})")
    change(engine, f"CREATE TABLE _devlake_pipelines ({pipeline.format(flag)})")
    going_on(engine, SCHEDULED)
    yield engine
    change(engine, "DROP TABLE _devlake_tasks")
    change(engine, "DROP TABLE _devlake_pipelines")


def change(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)


def going_on(
    engine: Engine,
    *kinds: tuple[int, int],
    plugin: str = "developer_telemetry",
    status: str = "TASK_RUNNING",
) -> None:
    """DevLake has a pipeline of each of these kinds going: its two flags."""
    for number, flags in enumerate(kinds, 10 if plugin == "developer_telemetry" else 20):
        skip, full = (f"CAST({flag} AS CHAR(1))" for flag in flags)
        if dialect_of(engine).name == "postgres":
            skip, full = (f"CAST({flag} AS BOOLEAN)" for flag in flags)
        change(engine, f"DELETE FROM _devlake_tasks WHERE id = {number}")
        change(engine, f"DELETE FROM _devlake_pipelines WHERE id = {number}")
        change(engine, f"INSERT INTO _devlake_pipelines VALUES ({number}, {skip}, {full})")
        change(
            engine,
            f"INSERT INTO _devlake_tasks VALUES ({number}, '{plugin}', {number}, '{status}')",
        )


def settle(engine: Engine, where: str = "1 = 1") -> None:
    """Let an hour pass since these raw rows were stored."""
    an_hour_ago = dialect_of(engine).ago(3600)
    change(engine, f"UPDATE {RAW_TABLE} SET stored_at = {an_hour_ago} WHERE {where}")


def context(
    engine: Engine, strategy: str = OVERWRITE, connection_id: int = 1, tasks: bool = False
) -> Context:
    return Context(
        engine=engine,
        connection=TelemetryConnection(id=connection_id, name="fleet", duplicate_strategy=strategy),
        scope=make_scope(),
        scope_config=TelemetryScopeConfig(test_and_build_tasks=tasks),
        options={},
    )


def run(subtask: str, engine: Engine, **said: Any) -> None:
    for _ in getattr(Reports("developer_telemetry"), subtask).run(context(engine, **said)):
        pass


def extract(engine: Engine, **said: Any) -> set[str]:
    """Run Extract; give the developers whose rows it looked at."""
    change(engine, f"UPDATE {TOOL_TABLE} SET commits = 77 WHERE arrived_us > 0")
    run("extractor", engine, **said)
    return {row["developer_id"] for row in tool_rows(engine) if row["commits"] != 77}


def convert(engine: Engine, **said: Any) -> set[str]:
    """Run Convert; give the developers whose accounts it looked at."""
    change(engine, f"UPDATE {ACCOUNT_TABLE} SET email = 'spoilt'")
    run("convertor", engine, **said)
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            f"SELECT user_name FROM {ACCOUNT_TABLE} WHERE email <> 'spoilt'"
        )
        return {row[0] for row in found}


SUBTASKS = pytest.mark.parametrize(
    "looks", [pytest.param(extract, id="extract"), pytest.param(convert, id="convert")]
)


def push(engine: Engine, *developers: str, **fields: Any) -> None:
    connection_id = fields.get("connection_id", 1)
    arrivals = [arrival(developer=each, **fields) for each in developers]
    store(engine, arrivals, {connection_id: OVERWRITE})


@pytest.fixture
def settled(engine: Engine) -> Engine:
    """A database on which everything about ann and bob was done, and nothing about cem."""
    push(engine, "ann", "bob")
    settle(engine)
    assert extract(engine) == {"ann", "bob"}
    assert convert(engine) == {"ann", "bob"}
    push(engine, "cem")
    return engine


# What kind of run it is -------------------------------------------------------------------------


@SUBTASKS
def test_a_scheduled_run_looks_at_what_is_new(settled: Engine, looks: Looks) -> None:
    assert looks(settled) == {"cem"}
    settle(settled)
    assert looks(settled) == {"cem"}
    assert looks(settled) == set()


@SUBTASKS
@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_any_other_run_looks_at_everything(
    settled: Engine, looks: Looks, kind: tuple[int, int]
) -> None:
    going_on(settled, kind)
    assert looks(settled) == {"ann", "bob", "cem"}


def test_a_run_of_another_kind_beside_it_makes_it_look_at_everything(settled: Engine) -> None:
    going_on(settled, SCHEDULED, KINDS["retransform"])
    assert extract(settled) == {"ann", "bob", "cem"}


def test_runs_that_have_ended_and_other_plugins_do_not_count(settled: Engine) -> None:
    going_on(settled, KINDS["retransform"], plugin="gitlab")
    assert extract(settled) == {"cem"}
    going_on(settled, KINDS["retransform"], status="TASK_COMPLETED")
    assert extract(settled) == {"ann", "bob", "cem"}
    going_on(settled, SCHEDULED, status="TASK_RUNNING")
    assert extract(settled) == {"cem"}


def test_without_devlakes_tables_everything_is_looked_at(settled: Engine) -> None:
    for table in ("_devlake_tasks", "_devlake_pipelines"):
        change(settled, f"ALTER TABLE {table} RENAME TO {table}_away")
    try:
        assert extract(settled) == {"ann", "bob", "cem"}
    finally:
        for table in ("_devlake_tasks", "_devlake_pipelines"):
            change(settled, f"ALTER TABLE {table}_away RENAME TO {table}")


# What makes what was done count no more ---------------------------------------------------------


@SUBTASKS
def test_a_changed_strategy_makes_a_run_look_at_everything_once(
    settled: Engine, looks: Looks
) -> None:
    assert looks(settled, strategy=SUM) == {"ann", "bob", "cem"}
    assert looks(settled, strategy=SUM) == {"cem"}
    assert looks(settled, strategy=OVERWRITE) == {"ann", "bob", "cem"}


def test_rows_follow_a_changed_strategy(engine: Engine) -> None:
    arrivals = traffic(5, 80)
    for strategies in (STRATEGIES, {1: SUM, 2: OVERWRITE}, STRATEGIES):
        store(engine, arrivals, STRATEGIES)
        settle(engine)
        for connection_id, strategy in strategies.items():
            run("extractor", engine, strategy=strategy, connection_id=connection_id)
        assert tool_rows(engine) == expected(engine, arrivals, strategies)


@SUBTASKS
def test_a_new_mapping_makes_a_run_look_at_everything_once(
    settled: Engine, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "MAPPING", runs.MAPPING + 1)
    assert looks(settled) == {"ann", "bob", "cem"}
    assert looks(settled) == {"cem"}


def test_tasks_wanted_from_now_on_make_convert_look_at_everything_once(settled: Engine) -> None:
    assert convert(settled, tasks=True) == {"ann", "bob", "cem"}
    assert convert(settled, tasks=True) == {"cem"}


@SUBTASKS
def test_a_run_that_was_killed_is_repeated(settled: Engine, looks: Looks) -> None:
    stream = Reports("developer_telemetry")
    subtask = stream.extractor if looks is extract else stream.convertor
    killed: Any = subtask.run(context(settled, strategy=SUM))
    next(killed)
    killed.close()
    # Neither the new strategy nor the watermark was kept.
    assert looks(settled, strategy=OVERWRITE) == {"cem"}
    assert looks(settled, strategy=SUM) == {"ann", "bob", "cem"}


def test_convert_looks_at_what_extracts_did_since_it_was_completed(settled: Engine) -> None:
    for developer in ("dan", "eve"):
        push(settled, developer)
        settle(settled)
        assert developer in extract(settled)
    assert convert(settled) == {"cem", "dan", "eve"}


def test_a_watermark_is_the_connections_own(settled: Engine) -> None:
    push(settled, "dan", connection_id=2)
    settle(settled)
    assert extract(settled, connection_id=2) == {"dan"}
    assert extract(settled, connection_id=1) == {"cem"}
    push(settled, "eve", connection_id=2)
    assert extract(settled, connection_id=2) == {"eve"}
    assert extract(settled, connection_id=1) == set()


@SUBTASKS
def test_after_data_were_deleted_what_came_since_is_looked_at(
    settled: Engine, looks: Looks
) -> None:
    params = build_raw_params(1)
    change(settled, f"DELETE FROM {RAW_TABLE} WHERE params = '{params}'")
    for table in (TOOL_TABLE, ACCOUNT_TABLE):
        change(settled, f"DELETE FROM {table} WHERE _raw_data_params = '{params}'")
    push(settled, "dan")
    assert looks(settled) == {"dan"}
    settle(settled)
    assert looks(settled) == {"dan"}
    push(settled, "eve")
    assert looks(settled) == {"eve"}


@SUBTASKS
def test_after_a_backup_was_restored_everything_is_looked_at(settled: Engine, looks: Looks) -> None:
    # As it was before bob's report: then others came, and one of them has his id.
    with settled.connect() as connection:
        bobs: Any = connection.exec_driver_sql(
            f"SELECT id FROM {RAW_TABLE} WHERE developer_id = 'bob'"
        ).scalar()
    change(settled, f"DELETE FROM {RAW_TABLE} WHERE id >= {bobs}")
    push(settled, "dan")
    change(settled, f"UPDATE {RAW_TABLE} SET id = {bobs} WHERE developer_id = 'dan'")
    change(settled, f"UPDATE {TOOL_TABLE} SET _raw_data_id = {bobs} WHERE developer_id = 'dan'")
    assert looks(settled) >= {"ann", "dan"}


def test_a_watermark_above_every_row_means_everything(settled: Engine) -> None:
    change(settled, f"UPDATE {RUN_TABLE} SET raw_id = raw_id + 1000000")
    assert extract(settled) == {"ann", "bob", "cem"}


# When rows come ---------------------------------------------------------------------------------


@SUBTASKS
@pytest.mark.parametrize("migrated_url", ["mariadb", "postgresql"], indirect=True)
def test_a_row_with_a_low_id_that_is_committed_late_is_looked_at(
    settled: Engine, engines: Sequence[Engine], looks: Looks
) -> None:
    with engines[1].begin() as slow:
        _store(slow, [arrival(developer="late")], {1: OVERWRITE})
        push(settled, "dan")
        assert looks(settled) == {"cem", "dan"}
    settle(settled, "developer_id <> 'late'")
    assert "late" in looks(settled)


@BOTH
@SUBTASKS
def test_reports_drained_days_later_are_looked_at(
    settled: Engine, looks: Looks, strategy: str
) -> None:
    assert looks(settled, strategy=strategy)
    drained = arrival(developer="zoë", after=-3 * DAY_SECONDS, hostname="tower")
    store(settled, [drained], {1: strategy})
    assert "zoë" in looks(settled, strategy=strategy)


@BOTH
def test_a_day_is_right_when_an_older_report_of_it_is_drained(
    engine: Engine, strategy: str
) -> None:
    newer = arrival(active_hours=3, hostname="laptop")
    older = arrival(active_hours=2, hostname="tower", after=-DAY_SECONDS)
    store(engine, [newer], {1: strategy})
    settle(engine)
    extract(engine, strategy=strategy)
    store(engine, [older], {1: strategy})
    change(engine, f"DELETE FROM {TOOL_TABLE}")
    extract(engine, strategy=strategy)
    assert tool_rows(engine) == expected(engine, [newer, older], {1: strategy})


@pytest.mark.parametrize("seconds", [7200, -7200], ids=["forwards", "backwards"])
def test_nothing_is_left_out_when_the_databases_clock_steps(settled: Engine, seconds: int) -> None:
    """Rows stored before a step of the clock look older or younger than they are."""
    stored_at = dialect_of(settled).ago(seconds)
    change(settled, f"UPDATE {RAW_TABLE} SET stored_at = {stored_at} WHERE developer_id = 'cem'")
    assert "cem" in extract(settled)
    push(settled, "dan")
    assert "dan" in extract(settled)
    settle(settled, "developer_id <> 'cem'")
    push(settled, "eve")
    assert "eve" in extract(settled)


# Many at once -----------------------------------------------------------------------------------


def test_of_two_runs_at_once_the_one_that_began_first_says_where_the_next_begins(
    settled: Engine,
) -> None:
    first = begin(settled, 1, EXTRACT, OVERWRITE)
    push(settled, "dan")
    settle(settled)
    complete(settled, begin(settled, 1, EXTRACT, OVERWRITE))
    complete(settled, first)
    assert extract(settled) == {"cem", "dan"}


@BOTH
def test_two_runs_at_once_give_the_rows_of_one(engines: Sequence[Engine], strategy: str) -> None:
    arrivals = [each._replace(connection_id=1) for each in traffic(6, 200)]
    store(engines[0], arrivals, {1: strategy})
    change(engines[0], f"DELETE FROM {TOOL_TABLE}")

    run_simultaneously([partial(run, "extractor", each, strategy=strategy) for each in engines[1:]])
    assert tool_rows(engines[0]) == expected(engines[0], arrivals, {1: strategy})


@BOTH
@pytest.mark.parametrize("seed", [1, 2])
def test_rows_of_one_run_after_another_are_those_of_one_over_all(
    engine: Engine, strategy: str, seed: int
) -> None:
    random = Random(seed)
    reports = [each._replace(connection_id=1) for each in traffic(seed, 120)]
    stored: list[ReceivedReport] = []
    while reports:
        batch = [reports.pop() for _ in range(min(len(reports), random.randint(1, 30)))]
        # Without their tool rows, as an import leaves them.
        with engine.begin() as connection:
            _store(connection, batch, {1: strategy})
            for each in batch:
                connection.exec_driver_sql(
                    f"DELETE FROM {TOOL_TABLE} WHERE developer_id ="
                    f" {dialect_of(connection).placeholder}",
                    (each.report.developer_id,),
                )
        touched = {each.report.developer_id for each in batch}
        stored += batch
        again = [each for each in stored if each.report.developer_id in touched]
        if random.random() < 0.5:
            settle(engine)
        run("extractor", engine, strategy=strategy)
        keys = {each.key for each in batch}
        right = [row for row in expected(engine, again, {1: strategy}) if _key(row) in keys]
        assert [row for row in tool_rows(engine) if _key(row) in keys] == right


def _key(row: dict[str, Any]) -> tuple[int, str, str]:
    return (row["connection_id"], row["developer_id"], row["date"])


@BOTH
def test_rows_of_the_go_plugin_are_left_as_they_are(settled: Engine, strategy: str) -> None:
    insert_go_plugin_row(settled, "gopher")
    [before] = [row for row in tool_rows(settled) if row["developer_id"] == "gopher"]
    extract(settled, strategy=strategy)
    going_on(settled, KINDS["retransform"])
    extract(settled, strategy=strategy)
    assert before in tool_rows(settled)
    assert "gopher" in convert(settled, strategy=strategy)
