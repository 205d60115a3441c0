"""The record of conversions, and reports that wait for one, on every database."""

from __future__ import annotations

from functools import partial
from typing import Optional

from sqlalchemy.engine import Engine

from developer_telemetry.constants import CONVERSION_TABLE, OVERWRITE, RAW_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import database_now_us, transact
from developer_telemetry.storage.conversions import (
    OVERDUE_SECONDS,
    Conversion,
    is_overdue,
    read_conversions,
    write_conversion,
)
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival


def recorded(engine: Engine, *conversions: Conversion) -> dict[int, Conversion]:
    for conversion in conversions:
        transact(engine, partial(write_conversion, conversion=conversion))
    with engine.connect() as connection:
        return read_conversions(connection)


def stored_ago(engine: Engine, seconds: int) -> None:
    """Store a report, so many seconds ago."""
    store(engine, [arrival()], {1: OVERWRITE})
    stored = f"UPDATE {RAW_TABLE} SET stored_at = {dialect_of(engine).ago(seconds)}"
    transact(engine, lambda to: to.exec_driver_sql(stored))


def overdue(engine: Engine, started_ago: Optional[int]) -> bool:
    with engine.connect() as connection:
        last = None
        if started_ago is not None:
            last = Conversion(1, database_now_us(connection) - started_ago * 1_000_000, 0)
        return is_overdue(connection, 1, last)


def test_the_last_conversion_of_each_connection_is_recorded(engine: Engine) -> None:
    first = Conversion(1, 10, 20, accounts=3, tasks=2, links=1)
    other = Conversion(2, 11, 21, error="the database is read-only")
    assert recorded(engine, first, other) == {1: first, 2: other}
    later = Conversion(1, 30, 40)
    assert recorded(engine, later) == {1: later, 2: other}


def test_a_long_error_is_cut(engine: Engine) -> None:
    assert recorded(engine, Conversion(1, 1, 2, error="é" * 300))[1].error == "é" * 255


def test_a_database_without_the_table_has_no_conversions(engine: Engine) -> None:
    away = f"ALTER TABLE {CONVERSION_TABLE} RENAME TO conversions_away"
    transact(engine, lambda to: to.exec_driver_sql(away))
    try:
        with engine.connect() as connection:
            assert read_conversions(connection) == {}
    finally:
        back = f"ALTER TABLE conversions_away RENAME TO {CONVERSION_TABLE}"
        transact(engine, lambda to: to.exec_driver_sql(back))


def test_a_report_that_waits_for_long_is_overdue(engine: Engine) -> None:
    assert not overdue(engine, None)
    stored_ago(engine, OVERDUE_SECONDS - 60)
    assert not overdue(engine, None)
    stored_ago(engine, OVERDUE_SECONDS + 60)
    assert overdue(engine, None)
    assert overdue(engine, started_ago=3_600)
    assert not overdue(engine, started_ago=OVERDUE_SECONDS)  # that conversion has read it
