"""Tool rows rewritten from raw rows, on every database."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from random import Random
from typing import Callable

import pytest
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import OVERWRITE, RAW_TABLE, SUM, TOOL_TABLE
from developer_telemetry.database.migrate import migrate
from developer_telemetry.pipeline import extract as extraction
from developer_telemetry.pipeline.extract import reextract
from developer_telemetry.reports.daily_metrics import ReceivedReport, ToolRow
from developer_telemetry.storage.writer import store, upsert_tool_rows
from tests.support.factories import arrival
from tests.support.layers import (
    BOTH,
    STRATEGIES,
    expected,
    insert_go_plugin_row,
    push_in_batches,
    rewritten,
    senders,
    traffic,
)
from tests.support.rows import raw_rows, tool_rows
from tests.support.threads import run_simultaneously


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_of_pushes_equal_rows_of_an_extract_in_every_column(engine: Engine, seed: int) -> None:
    arrivals = traffic(seed, 150)
    push_in_batches(engine, arrivals, Random(seed))
    pushed = tool_rows(engine)
    assert pushed == expected(engine, arrivals)
    assert rewritten(engine) == pushed
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {TOOL_TABLE}")
    assert rewritten(engine) == pushed


def test_rows_that_are_right_already_are_not_written(
    exact_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def upsert(connection: SqlConnection, rows: Sequence[ToolRow]) -> None:
        written.extend(row.developer_id for row in rows)
        upsert_tool_rows(connection, rows)

    monkeypatch.setattr(extraction, "upsert_tool_rows", upsert)
    odd = arrival(developer="100% %s \\' \"", name="🐙\n", connection_id=1, tools_used=["é\x1f"])
    push_in_batches(exact_engine, [*traffic(7, 60), odd], Random(7))
    before = rewritten(exact_engine)
    assert written == []
    with exact_engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE {TOOL_TABLE} SET created_at = updated_at, builds = 77, name = NULL"
            " WHERE developer_id = 'zoë'"
        )
    assert rewritten(exact_engine) == before
    assert set(written) == {"zoë"}


def test_after_a_change_of_strategy_an_extract_gives_the_rows_of_the_new_one(
    engine: Engine,
) -> None:
    arrivals = traffic(3, 100)
    push_in_batches(engine, arrivals, Random(3))
    changed = {1: SUM, 2: OVERWRITE}
    assert expected(engine, arrivals, changed) != expected(engine, arrivals)
    assert rewritten(engine, changed) == expected(engine, arrivals, changed)
    assert rewritten(engine) == expected(engine, arrivals)


def test_an_extract_keeps_to_its_connection(engine: Engine) -> None:
    store(engine, [arrival(connection_id=1), arrival(connection_id=2)], STRATEGIES)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {TOOL_TABLE}")
    assert [row["connection_id"] for row in rewritten(engine, {2: SUM})] == [2]


@BOTH
def test_an_extract_of_nothing_does_nothing(engine: Engine, strategy: str) -> None:
    assert list(reextract(engine, 1, strategy)) == []
    assert tool_rows(engine) == []


def test_raw_rows_that_cannot_be_read_are_left_out_and_told(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    reports = [arrival(connection_id=1), arrival(connection_id=2)]
    store(engine, reports, STRATEGIES)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {TOOL_TABLE}")
        connection.exec_driver_sql(f"UPDATE {RAW_TABLE} SET payload = 'secret stuff'")
    with caplog.at_level(logging.WARNING):
        assert rewritten(engine) == []
    told = "".join(record.getMessage() for record in caplog.records)
    assert all(f"raw row {row['id']} " in told for row in raw_rows(engine))
    assert "secret" not in told


@BOTH
def test_more_than_a_page_holds_is_extracted_in_several(engine: Engine, strategy: str) -> None:
    first = [arrival(developer=f"developer-{n}", active_hours=n % 24) for n in range(601)]
    second = [arrival(developer=f"developer-{n}", active_hours=1, after=60) for n in range(450)]
    store(engine, first, {1: strategy})
    store(engine, second, {1: strategy})
    pushed = tool_rows(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {TOOL_TABLE}")
    assert list(reextract(engine, 1, strategy)) == [(500, 1051), (1001, 1051), (1051, 1051)]
    assert tool_rows(engine) == pushed == expected(engine, [*first, *second], {1: strategy})


@BOTH
def test_days_with_something_new_are_rewritten_from_all_their_reports(
    engine: Engine, strategy: str
) -> None:
    def reports(count: int, after: int, host: str) -> list[ReceivedReport]:
        return [
            arrival(developer=f"developer-{n}", hostname=host, after=after, active_hours=n % 9)
            for n in range(count)
        ]

    old, new = reports(650, 0, "a"), [*reports(610, 60, "b"), *reports(600, 120, "a")]
    store(engine, old, {1: strategy})
    store(engine, new, {1: strategy})
    pushed = tool_rows(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {TOOL_TABLE} SET builds = builds + 77")
    above = sorted(row["id"] for row in raw_rows(engine))[len(old) - 1]
    assert list(reextract(engine, 1, strategy, above)) == [(500, 1210), (1000, 1210), (1210, 1210)]
    assert len(tool_rows(engine)) == len(pushed)
    touched = {f"developer-{n}" for n in range(610)}
    for row, right in zip(tool_rows(engine), pushed):
        builds = right["builds"] if row["developer_id"] in touched else right["builds"] + 77
        assert row == {**right, "builds": builds}


@BOTH
def test_rows_without_a_raw_row_survive_an_extract(engine: Engine, strategy: str) -> None:
    insert_go_plugin_row(engine)
    [before] = tool_rows(engine)
    assert before["arrived_us"] == 0
    assert before["_raw_data_id"] is None
    bob = arrival(developer="bob")
    store(engine, [bob], {1: strategy})
    assert rewritten(engine, {1: strategy}) == [before, *expected(engine, [bob], {1: strategy})]


@BOTH
def test_reports_that_arrive_while_an_extract_runs_are_not_lost(
    engines: list[Engine], strategy: str
) -> None:
    first = [arrival(developer=f"developer-{n}") for n in range(40)]
    store(engines[0], first, {1: strategy})
    later = [
        [
            arrival(
                developer=f"developer-{n}",
                hostname=f"host-{sender}",
                after=round_ * 10 + sender,
                active_hours=round_ + 1,
            )
            for n in Random(f"{sender} {round_}").sample(range(60), 20)
        ]
        for round_ in range(3)
        for sender in range(4)
    ]
    pushing = threading.Event()
    pushing.set()
    extracts = gaps = 0

    def push() -> None:
        try:
            for batches in [later[n : n + 4] for n in range(0, len(later), 4)]:
                senders(engines[:2], batches, strategy)
        finally:
            pushing.clear()

    def extract() -> None:
        nonlocal extracts, gaps
        while pushing.is_set():
            for _ in reextract(engines[2], 1, strategy):
                gaps += len(tool_rows(engines[2])) < len(first)
            extracts += 1

    run_simultaneously([push, extract])
    assert extracts > 0
    assert gaps == 0
    arrivals = [*first, *(each for batch in later for each in batch)]
    assert len(raw_rows(engines[0])) == len(arrivals)
    assert tool_rows(engines[0]) == expected(engines[0], arrivals, {1: strategy})


def test_a_new_table_is_measured_first(
    postgresql_url: str, opened: Callable[[str], Engine]
) -> None:
    # Without statistics PostgreSQL compared a thousand rows with each other for an hour.
    engine = opened(postgresql_url)
    migrate(engine)
    with engine.begin() as connection:
        for table in (RAW_TABLE, TOOL_TABLE):
            connection.exec_driver_sql(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    days = [f"2026-10-{day:02}" for day in range(1, 29)]
    many = [arrival(after=n, date=days[n % len(days)]) for n in range(1000)]
    store(engine, many, {1: SUM})
    steps = list(reextract(engine, 1, SUM))
    assert steps[-1].done == 1000
    measured = f"SELECT COUNT(*) FROM pg_stats WHERE tablename = '{RAW_TABLE}'"
    with engine.connect() as connection:
        assert connection.exec_driver_sql(measured).scalar_one() > 0
