"""Test deletions of connections while other processes write rows of them, on every database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import pytest
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.connections.database_backend import DatabaseBackend
from developer_telemetry.connections.registry import create
from developer_telemetry.constants import CONNECTION_TABLE, OVERWRITE, TOOL_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import transact
from developer_telemetry.database.schema_owner import SchemaOwner, record_owner
from developer_telemetry.errors import ConnectionDeleted
from developer_telemetry.storage import project_mapping, statistics
from developer_telemetry.storage.bisecting import StoreOutcome, store_bisecting
from developer_telemetry.storage.guarded_writer import store_excluding_erased
from developer_telemetry.storage.statistics import ReportCounts
from developer_telemetry.storage.tables import CONNECTION_TABLES, PARAMS
from developer_telemetry.storage.tombstones import TombstoneCache, TombstoneKey
from developer_telemetry.storage.writer import CommitCheck, store
from tests.support.devlake_tables import devlake_tables, make_projects, run_project
from tests.support.factories import arrival
from tests.support.receivers import SECRET
from tests.support.rows import raw_rows, tool_rows

# A deletion that does not wait for an open transaction has ended by then.
DELETION_SECONDS = 0.5

Write = Callable[[SqlConnection], object]


@pytest.fixture
def lake(engine: Engine) -> Iterator[Engine]:
    """DevLake's database, whose schema we own, with a project."""
    with devlake_tables(engine):
        transact(engine, lambda to: record_owner(to, SchemaOwner.STANDALONE))
        make_projects(engine, "web")
        yield engine


def add_connection(engine: Engine, name: str = "fleet") -> int:
    return create(engine, SECRET, name, "token", OVERWRITE)


def delete(engine: Engine, connection_id: int) -> None:
    DatabaseBackend(engine, SECRET).delete(connection_id)


def tables_with(engine: Engine, connection_id: int) -> set[str]:
    """Return the tables that have rows of a connection, DevLake's among them."""
    scope_id = f"developer_telemetry:TelemetryScope:{connection_id}:all"
    conditions = {
        table.name: f"{table.connection_column} = {connection_id}"
        for table in CONNECTION_TABLES
        if table.connection_column != PARAMS
    }
    conditions |= {"project_mapping": f"row_id = '{scope_id}'", "cicd_scopes": f"id = '{scope_id}'"}
    with engine.connect() as connection:
        return {
            table
            for table, condition in conditions.items()
            if connection.exec_driver_sql(f"SELECT 1 FROM {table} WHERE {condition}").first()
        }


def delete_meanwhile(engine: Engine, connection_id: int, write: Write) -> None:
    """Delete a connection while a transaction has written rows but has not committed."""
    with ThreadPoolExecutor(1) as thread:

        def work(connection: SqlConnection) -> Future[None]:
            write(connection)
            deletion = thread.submit(delete, engine, connection_id)
            wait([deletion], DELETION_SECONDS)
            return deletion

        transact(engine, work).result(60)


def store_as_receiver(
    engine: Engine, *connection_ids: int, store_all: Any = store_bisecting
) -> Any:
    """Store a report of each connection as a receiver does, and return the outcome."""
    reports = [arrival(connection_id=number) for number in connection_ids]
    tombstones = TombstoneCache(engine, TombstoneKey(SECRET))
    strategies = dict.fromkeys(connection_ids, OVERWRITE)
    return store_excluding_erased(engine, tombstones, reports, strategies, store_all)


def test_a_report_of_a_deleted_connection_leaves_no_row(lake: Engine) -> None:
    deleted, other = add_connection(lake), add_connection(lake, "other")
    delete(lake, deleted)

    outcome = store_as_receiver(lake, deleted, other)

    assert outcome.deleted == {deleted}
    assert outcome.connection_ids == [other]
    assert not tables_with(lake, deleted)
    assert {row["connection_id"] for row in raw_rows(lake)} == {other}


def test_a_repeated_report_of_a_deleted_connection_leaves_no_row(engine: Engine) -> None:
    """An insert tells nothing of the connection where the report is there already."""
    number = add_connection(engine)
    report = arrival(connection_id=number)
    store(engine, [report], {number: OVERWRITE})
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {CONNECTION_TABLE}")
        connection.exec_driver_sql(f"DELETE FROM {TOOL_TABLE}")
    tombstones = TombstoneCache(engine, TombstoneKey(SECRET))

    outcome = store_excluding_erased(engine, tombstones, [report], {number: OVERWRITE})

    assert outcome.deleted == {number}
    assert tool_rows(engine) == []


def test_a_deletion_takes_a_report_along_that_is_being_stored(lake: Engine) -> None:
    number = add_connection(lake)

    def store_meanwhile(
        engine: Engine, reports: Any, strategies: Any, check: CommitCheck
    ) -> StoreOutcome:
        def check_and_delete(connection: SqlConnection, locked: frozenset[int]) -> None:
            check(connection, locked)
            deletions.append(thread.submit(delete, lake, number))
            wait(deletions, DELETION_SECONDS)

        store(engine, reports, strategies, check_and_delete)
        return StoreOutcome()

    deletions: list[Future[None]] = []
    with ThreadPoolExecutor(1) as thread:
        outcome = store_as_receiver(lake, number, store_all=store_meanwhile)

    assert [deletion.result() for deletion in deletions] == [None]
    assert outcome.connection_ids == [number]  # it was stored, and then deleted
    assert not tables_with(lake, number)


def test_a_deletion_takes_machines_along_that_are_being_counted(lake: Engine) -> None:
    number = add_connection(lake)
    store_as_receiver(lake, number)
    statement = statistics._count_machines_sql(dialect_of(lake))

    delete_meanwhile(
        lake, number, partial(statistics._count_machines, statement=statement, ids=(0, 1 << 40))
    )

    assert not tables_with(lake, number)


def test_refusals_of_a_deleted_connection_leave_no_row(lake: Engine) -> None:
    number = add_connection(lake)
    counts = ReportCounts()
    counts.refused(number, "token")
    delete(lake, number)

    counts.flush(lake)

    assert not tables_with(lake, number)


def test_a_deletion_takes_a_projects_rows_along_that_are_being_restored(lake: Engine) -> None:
    number = add_connection(lake)
    transact(lake, partial(project_mapping.attach, connection_id=number, project="web"))
    run_project(lake, "web", [])

    delete_meanwhile(lake, number, project_mapping._restore_rows)

    assert not tables_with(lake, number)
    assert project_mapping.restore(lake) == 0
    with pytest.raises(ConnectionDeleted):
        transact(lake, partial(project_mapping.attach, connection_id=number, project="web"))
