"""Test the conversions by a receiver, on every database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from sqlalchemy.engine import Engine

from developer_telemetry.connections.registry import Connections, create
from developer_telemetry.constants import ACCOUNT_TABLE, CONVERSION_TABLE, OVERWRITE
from developer_telemetry.database.advisory_lock import hold_connection
from developer_telemetry.database.engine import database_now_us, transact
from developer_telemetry.database.schema_owner import SchemaOwner, record_owner
from developer_telemetry.receiver.ingest.ingestor import Outage
from developer_telemetry.receiver.jobs.conversion_job import ConversionJob
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.storage.conversions import Conversion, read_conversions
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.receivers import SECRET
from tests.support.rows import rows


def make_job(engine: Engine) -> ConversionJob:
    connections = Connections(engine, SECRET)
    connections.reload()
    return ConversionJob(engine, connections, Outage(), Metrics())


def add_reports(engine: Engine) -> int:
    connection_id = create(engine, SECRET, "fleet", "token", OVERWRITE)
    store(engine, [arrival(connection_id=connection_id)], {connection_id: OVERWRITE})
    return connection_id


def last(engine: Engine, connection_id: int) -> Optional[Conversion]:
    with engine.connect() as connection:
        return read_conversions(connection).get(connection_id)


def accounts(engine: Engine) -> list[str]:
    return [row["user_name"] for row in rows(engine, ACCOUNT_TABLE, ("user_name",), "id")]


def test_new_reports_become_accounts(engine: Engine) -> None:
    connection_id = add_reports(engine)
    job = make_job(engine)
    job._work()
    assert accounts(engine) == ["ann.lee"]
    conversion = last(engine, connection_id)
    assert conversion is not None
    assert (conversion.accounts, conversion.error) == (1, "")
    assert job.note() == ""
    job._work()  # within a minute
    assert last(engine, connection_id) == conversion


def test_a_held_lock_is_not_waited_for(engine: Engine, opened: Callable[[str], Engine]) -> None:
    connection_id = add_reports(engine)
    job = make_job(engine)
    with hold_connection(engine, connection_id):
        job._work()
    assert last(engine, connection_id) is None
    job._work()
    assert accounts(engine) == ["ann.lee"]


def test_where_devlake_is_the_owner_nothing_is_converted(engine: Engine) -> None:
    connection_id = add_reports(engine)
    job = make_job(engine)
    transact(engine, lambda to: record_owner(to, SchemaOwner.DEVLAKE))
    job._work()
    assert last(engine, connection_id) is None


def test_a_failure_is_recorded_and_repeated_a_minute_later(engine: Engine) -> None:
    connection_id = add_reports(engine)
    job = make_job(engine)
    transact(engine, lambda to: to.exec_driver_sql(f"ALTER TABLE {ACCOUNT_TABLE} RENAME TO away"))
    try:
        job._work()
    finally:
        transact(
            engine, lambda to: to.exec_driver_sql(f"ALTER TABLE away RENAME TO {ACCOUNT_TABLE}")
        )
    failed = last(engine, connection_id)
    assert failed is not None
    assert failed.error
    job._work()
    assert "failed" in job.note()
    with engine.connect() as connection:
        before_us = database_now_us(connection) - 61_000_000
    earlier = f"UPDATE {CONVERSION_TABLE} SET started_us = {before_us}"
    transact(engine, lambda to: to.exec_driver_sql(earlier))
    job._work()
    assert accounts(engine) == ["ann.lee"]
    job._work()
    assert job.note() == ""
