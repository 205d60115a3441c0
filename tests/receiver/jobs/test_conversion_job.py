"""Test the conversions by a receiver, on every database."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Optional

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from developer_telemetry.connections.database_backend import DatabaseBackend
from developer_telemetry.connections.registry import Connection, Connections, create
from developer_telemetry.constants import (
    ACCOUNT_TABLE,
    CONVERSION_TABLE,
    LINK_TABLE,
    MADE_LINK_TABLE,
    OVERWRITE,
    RAW_TABLE,
    RUN_TABLE,
    SUM,
    TASK_TABLE,
    TOOL_TABLE,
)
from developer_telemetry.database.advisory_lock import hold_connection
from developer_telemetry.database.bulk_insert import MAX_KEYS, insert
from developer_telemetry.database.engine import database_now_us, open_engine, transact
from developer_telemetry.database.schema_owner import SchemaOwner, record_owner
from developer_telemetry.privacy.erasure import erase
from developer_telemetry.privacy.person_search import PersonSearch
from developer_telemetry.receiver.ingest.ingestor import Outage
from developer_telemetry.receiver.jobs.conversion_job import ConversionJob
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.storage.conversions import (
    OVERDUE_SECONDS,
    Conversion,
    ConversionOptions,
    read_conversions,
)
from developer_telemetry.storage.project_mapping import attach
from developer_telemetry.storage.tombstones import TombstoneKey
from developer_telemetry.storage.writer import store
from tests.support.devlake_tables import devlake_tables, make_projects, run_project
from tests.support.factories import arrival
from tests.support.receivers import SECRET
from tests.support.rows import rows


def make_job(engine: Engine) -> ConversionJob:
    connections = Connections(engine, SECRET)
    connections.reload()
    return ConversionJob(engine, connections, Outage(), Metrics(), lambda: 0)


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


def due(job: ConversionJob, engine: Engine) -> tuple[Connection, ConversionOptions]:
    with engine.connect() as connection:
        [connection_due] = job._list_due(connection)
    return connection_due


def completed(job: ConversionJob) -> int:
    return job._metrics.exposition().count(b'outcome="completed"} 1.0')


@pytest.mark.parametrize("at_once", [True, False])
def test_of_two_receivers_one_converts(
    engine: Engine, opened: Callable[[str], Engine], at_once: bool
) -> None:
    connection_id = add_reports(engine)
    url = engine.url.render_as_string(hide_password=False)
    jobs = make_job(engine), make_job(opened(url))
    dues = [due(job, engine) for job in jobs]  # both have seen the reports
    with ThreadPoolExecutor(2 if at_once else 1) as threads:
        for work in [threads.submit(job._convert, *one) for job, one in zip(jobs, dues)]:
            work.result()
    assert sum(map(completed, jobs)) == 1
    conversion = last(engine, connection_id)
    assert conversion is not None
    assert conversion.accounts == 1
    assert accounts(engine) == ["ann.lee"]


def test_the_next_receiver_finishes_what_one_that_stopped_has_begun(engine: Engine) -> None:
    connection_id = create(engine, SECRET, "fleet", "token", OVERWRITE)
    reports = [
        arrival(connection_id=connection_id, developer=f"dev-{number:03d}")
        for number in range(MAX_KEYS + 1)
    ]
    store(engine, reports, {connection_id: OVERWRITE})
    stopped = make_job(engine)
    stopped._waiting = lambda: stopped._ending.set() or 1  # type: ignore[func-returns-value]
    stopped._convert(*due(stopped, engine))
    assert len(accounts(engine)) == MAX_KEYS
    assert last(engine, connection_id) is None
    make_job(engine)._work()
    assert len(accounts(engine)) == MAX_KEYS + 1
    conversion = last(engine, connection_id)
    assert conversion is not None
    assert conversion.error == ""


@pytest.mark.parametrize("commits", [0, 1, 2])
def test_the_next_receiver_finishes_what_a_killed_one_has_begun(
    engine: Engine, migrated_url: str, commits: int
) -> None:
    connection_id = create(engine, SECRET, "fleet", "token", OVERWRITE)
    reports = [
        arrival(connection_id=connection_id, developer=f"dev-{number:03d}")
        for number in range(2 * MAX_KEYS + 1)
    ]
    store(engine, reports, {connection_id: OVERWRITE})

    assert killed_at_commit(migrated_url, commits) == signal.SIGKILL
    assert last(engine, connection_id) is None
    make_job(engine)._work()

    assert accounts(engine) == sorted(f"dev-{number:03d}" for number in range(2 * MAX_KEYS + 1))
    conversion = last(engine, connection_id)
    assert conversion is not None
    assert conversion.error == ""


def killed_at_commit(url: str, commits: int) -> int:
    """Convert in another process, which is killed right before one more commit than `commits`.

    Returns the signal that ended it.
    """
    process = os.fork()
    if process == 0:
        own = open_engine(url)
        job = make_job(own)
        made = itertools.count()

        @event.listens_for(own, "commit")
        def kill(_: object) -> None:
            if next(made) == commits:
                os.kill(os.getpid(), signal.SIGKILL)

        with suppress(BaseException):
            job._work()
        os._exit(0)
    return os.WTERMSIG(os.waitpid(process, 0)[1])


def test_of_a_connection_deleted_meanwhile_nothing_is_converted(engine: Engine) -> None:
    connection_id = add_reports(engine)
    job = make_job(engine)
    seen = due(job, engine)
    DatabaseBackend(engine, SECRET).delete(connection_id)
    job._convert(*seen)
    assert accounts(engine) == []
    assert last(engine, connection_id) is None
    assert count(engine, RUN_TABLE) == 0


def test_the_first_report_after_a_quiet_time_is_converted_at_once(engine: Engine) -> None:
    connection_id = create(engine, SECRET, "fleet", "token", OVERWRITE)
    job = make_job(engine)
    assert run_if_due(job)  # the receiver has just started
    assert last(engine, connection_id) is None  # nothing to convert, and no reason to wait later
    assert not run_if_due(job)
    store(engine, [arrival(connection_id=connection_id)], {connection_id: OVERWRITE})
    assert run_if_due(job)
    assert accounts(engine) == ["ann.lee"]
    # Until a minute later, rounds come at their time alone.
    bob = arrival(connection_id=connection_id, after=60, developer="bob")
    store(engine, [bob], {connection_id: OVERWRITE})
    assert not run_if_due(job)
    assert accounts(engine) == ["ann.lee"]


def run_if_due(job: ConversionJob) -> bool:
    """Do what the job's thread does every two seconds."""
    if not job._is_round_due():
        return False
    job._round_at = time.monotonic()
    job._work()
    return True


def test_links_of_all_accounts_are_looked_up_once_for_the_same_users(engine: Engine) -> None:
    connection_id = add_reports(engine)
    aged = f"UPDATE {RAW_TABLE} SET stored_at = '2020-01-01 00:00:00'"
    transact(engine, lambda to: to.exec_driver_sql(aged))
    with devlake_tables(engine):
        job = make_job(engine)
        [stored] = job._connections.all()

        def convert(developer: str) -> set[str]:
            more = arrival(connection_id=connection_id, after=60, developer=developer)
            store(engine, [more], {connection_id: OVERWRITE})
            make_due(engine)
            job._convert(stored, ConversionOptions())
            return {row["user_id"] for row in rows(engine, LINK_TABLE, ("user_id",), "user_id")}

        users = [("u1", "nobody", "2026-01-01 00:00:00"), ("u2", "bob", "2026-01-01 00:00:00")]
        with engine.begin() as connection:
            insert(connection, "users", ("id", "name", "updated_at"), users, "")
        job._convert(stored, ConversionOptions())
        renamed = "UPDATE users SET name = 'ann.lee' WHERE id = 'u1'"
        transact(engine, lambda to: to.exec_driver_sql(renamed))
        assert convert("bob") == {"u2"}
        changed = "UPDATE users SET updated_at = '2026-01-02 00:00:00' WHERE id = 'u1'"
        transact(engine, lambda to: to.exec_driver_sql(changed))
        assert convert("cem") == {"u1", "u2"}


def test_a_report_that_waits_for_too_long_is_noted(engine: Engine) -> None:
    connection_id = add_reports(engine)
    job = make_job(engine)
    with hold_connection(engine, connection_id):
        job._work()
        assert job.note() == ""
        job._clock_ahead_us += (OVERDUE_SECONDS + 1) * 1_000_000
        assert f"connection {connection_id} have waited for a conversion" in job.note()
        assert job.waiting_seconds > OVERDUE_SECONDS
    job._work()
    assert job.note() == ""


def test_each_round_restores_what_a_projects_run_deleted(engine: Engine) -> None:
    connection_id = create(engine, SECRET, "fleet", "token", OVERWRITE)
    with devlake_tables(engine):
        transact(engine, lambda to: record_owner(to, SchemaOwner.STANDALONE))
        make_projects(engine, "web")
        transact(engine, partial(attach, connection_id=connection_id, project="web"))
        run_project(engine, "web", [])
        assert count(engine, "project_mapping") == 0
        make_job(engine)._work()
        mapping = rows(engine, "project_mapping", ("project_name", "row_id"), "row_id")
        scope = f"developer_telemetry:TelemetryScope:{connection_id}:all"
        assert mapping == [{"project_name": "web", "row_id": scope}]


def test_a_link_removed_by_hand_outlasts_a_restart_and_another_strategy(engine: Engine) -> None:
    add_reports(engine)
    with devlake_tables(engine):
        with engine.begin() as connection:
            insert(connection, "users", ("id", "name"), [("u", "ann.lee")], "")
        job = make_job(engine)
        [stored] = job._connections.all()
        job._convert(stored, ConversionOptions())
        transact(engine, lambda to: to.exec_driver_sql(f"DELETE FROM {LINK_TABLE}"))
        make_due(engine)
        make_job(engine)._convert(stored._replace(strategy=SUM), ConversionOptions())
        assert accounts(engine) == ["ann.lee"]
        assert count(engine, LINK_TABLE) == 0


def test_a_changed_switch_or_strategy_is_followed(engine: Engine) -> None:
    connection_id = add_reports(engine)
    sent = {"tests_run": 3, "development_activity": {"test_runs_detected": 3}}
    more = arrival(connection_id=connection_id, after=60, developer="bob", metrics=sent)
    store(engine, [more], {connection_id: OVERWRITE})
    job = make_job(engine)
    [stored] = job._connections.all()
    for with_tasks in (False, True, False):
        job._convert(stored, ConversionOptions(with_tasks=with_tasks))
        make_due(engine)
        names = {row["name"] for row in rows(engine, TASK_TABLE, ("name",), "id")}
        assert bool(names) is with_tasks
    tools = f"UPDATE {TOOL_TABLE} SET test_runs = 77"
    transact(engine, lambda to: to.exec_driver_sql(tools))
    job._convert(stored, ConversionOptions())
    assert runs_of(engine) == {77}  # nothing asks for new tool rows
    make_due(engine)
    job._convert(stored._replace(strategy=SUM), ConversionOptions())
    assert 77 not in runs_of(engine)


def test_an_erased_person_stays_away(engine: Engine) -> None:
    connection_id = add_reports(engine)
    with devlake_tables(engine):
        with engine.begin() as connection:
            insert(connection, "users", ("id", "name"), [("u", "ann.lee")], "")
        job = make_job(engine)
        [stored] = job._connections.all()
        job._convert(stored, ConversionOptions(with_tasks=True))
        assert [row["user_id"] for row in rows(engine, LINK_TABLE, ("user_id",), "user_id")] == [
            "u"
        ]
        search = PersonSearch(engine, SECRET, "ann.lee")
        erase(engine, TombstoneKey(SECRET), search, search.people(), block=True)
        make_due(engine)
        job._convert(stored._replace(strategy=SUM), ConversionOptions(with_tasks=True))
        conversion = last(engine, connection_id)
        assert conversion is not None
        assert conversion.error == ""
        for table in (ACCOUNT_TABLE, LINK_TABLE, MADE_LINK_TABLE, TASK_TABLE, TOOL_TABLE):
            assert count(engine, table) == 0, table


def make_due(engine: Engine) -> None:
    """Let the last conversion be a minute ago."""
    earlier = f"UPDATE {CONVERSION_TABLE} SET started_us = started_us - 61000000"
    transact(engine, lambda to: to.exec_driver_sql(earlier))


def runs_of(engine: Engine) -> set[int]:
    return {row["test_runs"] for row in rows(engine, TOOL_TABLE, ("test_runs",), "developer_id")}


def count(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        number: int = connection.exec_driver_sql(f"SELECT COUNT(*) FROM {table}").scalar_one()
    return number
