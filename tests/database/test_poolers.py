"""PostgreSQL behind PgBouncer, in both of its modes; MySQL's poolers keep what sessions set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Callable

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine

from developer_telemetry.constants import ACCOUNT_TABLE, RAW_TABLE, SUM, TOOL_TABLE
from developer_telemetry.database.advisory_lock import ConnectionBusy, hold_connection
from developer_telemetry.database.engine import transact
from developer_telemetry.pipeline.runner import convert, extract
from developer_telemetry.receiver.web.data.queries import STATEMENT_SECONDS, open_reading_engine
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.receivers import (
    Receiver,
    add_connection,
    eventually,
    query,
    report,
)
from tests.support.rows import tool_rows
from tests.support.servers import PgBouncer, ServerMissing, in_database
from tests.support.sites import missing
from tests.support.threads import run_simultaneously

MODES = ("session", "transaction")


@pytest.fixture(scope="module", params=MODES)
def pooler(request: pytest.FixtureRequest, postgresql_server: str) -> Iterator[PgBouncer]:
    yield from _pooler(postgresql_server, request.param)


@pytest.fixture(scope="module")
def transaction_pooler(postgresql_server: str) -> Iterator[PgBouncer]:
    yield from _pooler(postgresql_server, "transaction")


def _pooler(server: str, mode: str) -> Iterator[PgBouncer]:
    try:
        pooler = PgBouncer(server, mode)
    except ServerMissing as error:
        missing(str(error))
    with pooler:
        yield pooler


@pytest.fixture
def direct(migrated: Callable[[str], str]) -> str:
    """A migrated database, and the way to it that passes no pooler."""
    return migrated("postgresql")


def through(pooler: PgBouncer, direct: str, driver: str = "psycopg") -> str:
    name = direct.rpartition("/")[2].partition("?")[0]
    return in_database(pooler.url(""), name).replace("postgres://", f"postgresql+{driver}://")


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_reports_of_many_are_stored_and_added_up(
    pooler: PgBouncer, direct: str, opened: Callable[[str], Engine], driver: str
) -> None:
    engine = opened(through(pooler, direct, driver))
    arrivals = [arrival(hostname=f"host {each % 8}") for each in range(40)]

    run_simultaneously([partial(store, engine, [each], {1: SUM}) for each in arrivals])

    [(count,)] = query(direct, f"SELECT COUNT(*) FROM {RAW_TABLE}")
    assert count == 40
    assert len(tool_rows(engine)) == 1


def test_a_receiver_a_run_and_its_lock_work(
    pooler: PgBouncer, direct: str, opened: Callable[[str], Engine], tmp_path: Path
) -> None:
    url = through(pooler, direct)
    connection = add_connection(direct, strategy="sum")
    with Receiver(url, tmp_path) as receiver:
        sent = [report(f"ann {each % 5}", hostname=f"host {each}") for each in range(40)]
        answers = run_simultaneously([partial(receiver.send, body, connection) for body in sent])
        pooler.kill()
        late = receiver.send(report("late"), connection)
        pooler.start()
        [kept] = [f"SELECT COUNT(*) FROM {RAW_TABLE}"]
        eventually(lambda: query(direct, kept) == [(41,)], 20)
    assert {answer.status_code for answer in [*answers, late]} == {200}
    assert "no round" not in receiver.log
    engine = opened(url)
    before = tool_rows(engine)
    query(direct, f"DELETE FROM {TOOL_TABLE}")

    for _ in extract(engine, connection, SUM, everything=True):
        with pytest.raises(ConnectionBusy), hold_connection(opened(url), connection, patience=0):
            pass
    for _ in convert(engine, connection, SUM, tasks=True):
        pass

    assert tool_rows(engine) == before
    [(accounts,)] = query(direct, f"SELECT COUNT(*) FROM {ACCOUNT_TABLE}")
    assert accounts == 6
    with hold_connection(engine, connection, patience=0):
        pass


def test_a_lock_is_kept_while_sessions_change_hands(
    transaction_pooler: PgBouncer, direct: str, opened: Callable[[str], Engine]
) -> None:
    url = through(transaction_pooler, direct)
    ending = threading.Event()

    def busy() -> None:
        engine = opened(url)
        while not ending.is_set():
            with engine.begin() as connection:
                connection.exec_driver_sql("SELECT 1")

    others = threading.Thread(target=busy)
    others.start()
    try:
        with hold_connection(opened(url), 1) as still_alone:
            for _ in range(10):
                still_alone()
                with pytest.raises(ConnectionBusy), hold_connection(opened(url), 1, patience=0):
                    pass
    finally:
        ending.set()
        others.join()
    with hold_connection(opened(url), 1, patience=0):
        pass
    [(locks,)] = query(direct, "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory'")
    assert locks == 0


def test_each_transaction_has_our_settings_and_leaves_none_behind(
    transaction_pooler: PgBouncer, direct: str, opened: Callable[[str], Engine]
) -> None:
    url = through(transaction_pooler, direct)
    engine = opened(f"{url}&search_path=pg_catalog,public&a.b=it's")
    expected = {
        "timezone": "UTC",
        "lock_timeout": "10s",
        "transaction_isolation": "read committed",
        "search_path": "pg_catalog,public",
        "a.b": "it's",
    }
    for _ in range(5):
        with engine.begin() as connection:
            found = {name: connection.exec_driver_sql(f"SHOW {name}").scalar() for name in expected}
        assert found == expected
    page = open_reading_engine(url)
    with page.connect() as connection:
        limit = connection.exec_driver_sql("SHOW statement_timeout").scalar()
        assert limit == f"{STATEMENT_SECONDS}s"
    page.dispose()

    # DevLake's own sessions come out of the same pool.
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as other:
        for _ in range(5):
            for name, value in {
                "lock_timeout": "0",
                "statement_timeout": "0",
                "search_path": '"$user", public',
            }.items():
                assert other.execute(f"SHOW {name}").fetchone() == (value,)


def test_nothing_is_prepared_on_the_server_unless_that_is_asked_for(
    direct: str, opened: Callable[[str], Engine]
) -> None:
    def prepared(url: str) -> int:
        with opened(url).connect() as connection:
            for _ in range(8):
                connection.execute(text("SELECT 1 WHERE 1 = :one"), {"one": 1})
            counted = "SELECT COUNT(*) FROM pg_prepared_statements"
            return int(connection.exec_driver_sql(counted).scalar_one())

    assert prepared(direct) == 0
    assert prepared(f"{direct}&prepare_threshold=2") > 0


def test_a_pooler_of_statements_is_refused_in_words(
    postgresql_server: str, direct: str, opened: Callable[[str], Engine]
) -> None:
    for pooler in _pooler(postgresql_server, "statement"):
        engine = opened(through(pooler, direct))
        with pytest.raises(Exception, match="statement"):
            transact(engine, lambda connection: connection.exec_driver_sql("SELECT 1"))
