"""Test what stayed from before a failover, each thing alone and without a second server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable

import pytest
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.constants import MACHINE_TABLE, OVERWRITE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import (
    connect_to_primary,
    open_engine,
    open_writing_engine,
    transact,
    with_short_timeouts,
)
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.storage.statistics import count_machines
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.rows import raw_rows, rows

WITH_SESSIONS = pytest.mark.parametrize("migrated_url", ["mariadb", "postgresql"], indirect=True)

# In this session alone what a former primary does in all of them.
READ_ONLY = {
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "postgres": "SET default_transaction_read_only = on",
}

NOBODY = "postgres://ann@127.0.0.1:1,127.0.0.1:2/lake"


@pytest.fixture
def writing(migrated_url: str) -> Iterator[Engine]:
    """An engine as the receiver's writer has it."""
    engine = open_writing_engine(migrated_url)
    yield engine
    engine.dispose()


def make_read_only(connection: SqlConnection) -> None:
    connection.exec_driver_sql(READ_ONLY[dialect_of(connection).name])
    connection.commit()


@WITH_SESSIONS
def test_a_pooled_session_that_turned_read_only_is_left_for_a_new_one(engine: Engine) -> None:
    with engine.connect() as connection:
        make_read_only(connection)

    transact(engine, lambda connection: connection.exec_driver_sql(f"DELETE FROM {MACHINE_TABLE}"))


# MariaDB knows of a whole server alone, as the tests of switchovers have it.
@pytest.mark.parametrize("migrated_url", ["postgresql"], indirect=True)
def test_a_pooled_session_that_turned_read_only_is_not_asked_for_what_is_new(
    engine: Engine,
) -> None:
    with engine.connect() as connection:
        make_read_only(connection)
        former = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()

    with connect_to_primary(engine) as connection:
        asked = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()

    assert asked != former


@WITH_SESSIONS
def test_a_writer_whose_session_turned_read_only_goes_on_in_a_new_one(writing: Engine) -> None:
    report = arrival()
    with writing.connect() as connection:
        make_read_only(connection)

        store(connection, [report], {1: OVERWRITE})

    assert [row["report_id"] for row in raw_rows(writing)] == [report.report_id]


@pytest.mark.parametrize(("option", "seconds"), [("", 30), ("&read_timeout=7", 7)])
def test_the_receiver_waits_less_for_a_silent_server_unless_told_otherwise(
    mariadb_url: str, opened: Callable[[str], Engine], option: str, seconds: int
) -> None:
    engine = with_short_timeouts(opened(mariadb_url + option))
    with engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        assert driver._read_timeout == seconds


def test_of_several_hosts_each_ones_fault_is_told_once() -> None:
    with pytest.raises(SQLAlchemyError) as failed, open_engine(NOBODY).connect():
        pass

    told = describe_error(failed.value)

    assert told.startswith("- host: '127.0.0.1', port: '1'")
    assert [told.count(f"port {port} failed: Connection refused") for port in (1, 2)] == [1, 1]


def test_machines_are_counted_where_rows_were_lost_and_their_ids_given_anew(engine: Engine) -> None:
    store(engine, [arrival(hostname="laptop")], {1: OVERWRITE})
    [row] = raw_rows(engine)

    counted = count_machines(engine, counted_id=row["id"] + 100_000)

    assert counted == row["id"]
    assert rows(engine, MACHINE_TABLE, ["hostname", "reports"], "hostname") == [
        {"hostname": "laptop", "reports": 1}
    ]
