"""Test that receivers compute the figures of groups in turns, on every database."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Optional

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.connections.registry import create
from developer_telemetry.constants import (
    CONNECTION_TABLE,
    FIGURE_TABLE,
    OVERWRITE,
    TOMBSTONE_TABLE,
    TOOL_TABLE,
)
from developer_telemetry.database.advisory_lock import hold_connection
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.pipeline.figures import monday_of
from developer_telemetry.receiver.ingest.ingestor import Outage
from developer_telemetry.receiver.jobs import figure_job
from developer_telemetry.receiver.jobs.figure_job import (
    LOCK_ID,
    MAX_AGE_US,
    MIN_AGE_US,
    FigureJob,
)
from developer_telemetry.storage.devlake_schema import make_account_id
from tests.support.devlake_tables import delivery_tables
from tests.support.rows import rows

MINUTE_US = 60 * 1_000_000


def compute(engine: Engine, job: Optional[FigureJob] = None) -> bool:
    """Do a round of a receiver; return true if it computed the figures."""
    before = read_computed(engine)
    (job or FigureJob(engine, Outage())).work()
    return read_computed(engine) != before


def read_computed(engine: Engine) -> Optional[int]:
    """Return when the figures were computed."""
    columns = ("figure", "computed_us")
    found = {row["figure"]: row for row in rows(engine, FIGURE_TABLE, columns, "figure")}
    return int(found["computed"]["computed_us"]) if found else None


def let_pass(engine: Engine, microseconds: int) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE {FIGURE_TABLE} SET computed_us = computed_us - {microseconds}"
        )


def add_days(engine: Engine, people: int) -> int:
    """Add a connection, and an hour of each of so many people in the last complete week."""
    connection_id = create(engine, "secret", "one", "token", OVERWRITE)
    monday = monday_of(datetime.now(timezone.utc).date()) - timedelta(weeks=1)
    columns = ("connection_id", "developer_id", "date", "active_hours")
    days = [(connection_id, f"dev {number}", str(monday), 1) for number in range(people)]
    with engine.begin() as connection:
        insert(connection, TOOL_TABLE, columns, days, "")
    return connection_id


def people_of_week(engine: Engine) -> dict[tuple[str, str], int]:
    """Return how many people were active in the last week, by group."""
    columns = ("figure", "grain", "grouped_by", "group_id", "people")
    return {
        (row["grouped_by"], row["group_id"]): row["people"]
        for row in rows(engine, FIGURE_TABLE, columns, "group_id")
        if (row["figure"], row["grain"]) == ("hours a week", "week")
    }


def test_one_receiver_computes_the_figures_once_an_hour(engine: Engine) -> None:
    assert compute(engine)
    assert not compute(engine)
    let_pass(engine, MIN_AGE_US - MINUTE_US)
    assert not compute(engine)
    let_pass(engine, MINUTE_US)
    assert compute(engine)


def test_a_computation_that_takes_long_is_repeated_after_a_longer_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figure_job, "AGE_FACTOR", MAX_AGE_US)
    job = FigureJob(engine, Outage())
    assert compute(engine, job)
    let_pass(engine, MAX_AGE_US - MINUTE_US)
    assert not compute(engine, job)
    let_pass(engine, MINUTE_US)
    assert compute(engine, job)


def test_without_devlakes_tables_figures_are_of_everybody(engine: Engine) -> None:
    add_days(engine, 6)
    assert compute(engine)
    assert people_of_week(engine) == {("everybody", ""): 6}


def test_with_devlakes_tables_figures_are_of_teams_too(engine: Engine) -> None:
    connection_id = add_days(engine, 6)
    accounts = [(f"user {n}", make_account_id(connection_id, f"dev {n}")) for n in range(6)]
    with delivery_tables(engine):
        with engine.begin() as connection:
            insert(connection, "user_accounts", ("user_id", "account_id"), accounts, "")
            members = [("team", user) for user, _ in accounts]
            insert(connection, "team_users", ("team_id", "user_id"), members, "")
        assert compute(engine)
        assert people_of_week(engine) == {("everybody", ""): 6, ("team", "team"): 6}


def test_another_smallest_group_counts_at_once(engine: Engine) -> None:
    add_days(engine, 6)
    assert compute(engine)
    for smallest, shown in ((7, {}), (6, {("everybody", ""): 6})):
        with engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE {CONNECTION_TABLE} SET smallest_group = {smallest}")
        assert compute(engine)
        assert people_of_week(engine) == shown
        assert not compute(engine)


def test_after_an_erasure_figures_are_computed_at_once(engine: Engine) -> None:
    connection_id = add_days(engine, 6)
    assert compute(engine)
    computed = read_computed(engine)
    assert computed is not None
    columns = ("connection_id", "subject", "erased_us", "blocked")
    for erased_us in (computed + 1, computed + 86_400_000_000):  # also by a clock that is ahead
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DELETE FROM {TOOL_TABLE} WHERE developer_id = 'dev 0'")
            tombstone = (connection_id, f"dev {erased_us}", erased_us, False)
            insert(connection, TOMBSTONE_TABLE, columns, [tombstone], "")
        assert compute(engine)
        assert people_of_week(engine) == {("everybody", ""): 5}
        assert not compute(engine)


def test_a_receiver_leaves_the_figures_to_another_that_computes_them(engine: Engine) -> None:
    with hold_connection(engine, LOCK_ID):
        assert not compute(engine)
    assert compute(engine)
