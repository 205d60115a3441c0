"""Test that receivers compute figures about delivery in turns, on every database."""

from __future__ import annotations

from sqlalchemy.engine import Engine

from developer_telemetry.constants import DELIVERY_TABLE
from developer_telemetry.database.advisory_lock import hold_connection
from developer_telemetry.receiver.ingest.ingestor import Outage
from developer_telemetry.receiver.jobs.delivery_job import LOCK_ID, MAX_AGE_US, DeliveryJob
from tests.support.devlake_tables import delivery_tables
from tests.support.rows import rows


def compute(engine: Engine) -> bool:
    """Do a round of a receiver; return true if it computed the figures."""
    columns = ("figure", "computed_us")
    before = rows(engine, DELIVERY_TABLE, columns, "figure")
    DeliveryJob(engine, Outage()).work()
    return rows(engine, DELIVERY_TABLE, columns, "figure") != before


def test_one_receiver_computes_the_figures_once_an_hour(engine: Engine) -> None:
    assert not compute(engine)  # DevLake's tables are missing
    with delivery_tables(engine):
        assert compute(engine)
        figures = rows(engine, DELIVERY_TABLE, ["figure"], "figure")
        assert figures == [{"figure": "computed"}]
        assert not compute(engine)
        with engine.begin() as connection:
            connection.exec_driver_sql(
                f"UPDATE {DELIVERY_TABLE} SET computed_us = computed_us - {MAX_AGE_US}"
            )
        assert compute(engine)


def test_a_receiver_leaves_the_figures_to_another_that_computes_them(engine: Engine) -> None:
    with delivery_tables(engine):
        with hold_connection(engine, LOCK_ID):
            assert not compute(engine)
        assert compute(engine)
