"""Only one run, prune or erase of a connection at a time, on every database."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.database.advisory_lock import ConnectionBusy, hold_connection
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.layers import STRATEGIES
from tests.support.rows import tool_rows

SESSIONS = {
    "mysql": "SELECT ID FROM information_schema.PROCESSLIST"
    " WHERE DB = DATABASE() AND ID <> CONNECTION_ID()",
    "postgres": "SELECT pid FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()",
}
ENDINGS = {"mysql": "KILL {}", "postgres": "SELECT pg_terminate_backend({})"}


def is_free(engine: Engine, connection_id: int = 1) -> bool:
    try:
        with hold_connection(engine, connection_id, patience=0):
            return True
    except ConnectionBusy:
        return False


def test_who_comes_second_is_told_that_somebody_else_is_there(engines: list[Engine]) -> None:
    with (
        hold_connection(engines[0], 1),
        pytest.raises(ConnectionBusy, match="of connection 1 is going on"),
        hold_connection(engines[1], 1, patience=0.3),
    ):
        pass


def test_two_threads_of_one_process_exclude_each_other_too(engine: Engine) -> None:
    with hold_connection(engine, 1):
        assert not is_free(engine)


def test_who_waits_gets_in_when_the_other_has_ended(engines: list[Engine]) -> None:
    entered = threading.Event()

    def wait() -> None:
        with hold_connection(engines[1], 1):
            entered.set()

    waiting = threading.Thread(target=wait, daemon=True)
    with hold_connection(engines[0], 1) as still_alone:
        waiting.start()
        still_alone()
        assert not entered.is_set()
    waiting.join(60)

    assert entered.is_set()


def test_it_is_free_again_after_a_failure(engines: list[Engine]) -> None:
    with pytest.raises(ZeroDivisionError), hold_connection(engines[0], 1):
        raise ZeroDivisionError

    with hold_connection(engines[1], 1, patience=30):
        pass


def test_a_connection_does_not_wait_for_another(engines: list[Engine]) -> None:
    if dialect_of(engines[0]).name == "sqlite":
        pytest.skip("a file has one writer")
    with hold_connection(engines[0], 1):
        assert is_free(engines[1], 2)


def test_reports_are_stored_meanwhile(engines: list[Engine]) -> None:
    with hold_connection(engines[0], 1):
        store(engines[1], [arrival()], STRATEGIES)

    assert len(tool_rows(engines[1])) == 1


def test_whose_session_was_lost_is_told(engines: list[Engine]) -> None:
    dialect = dialect_of(engines[0])
    if dialect.name == "sqlite":
        pytest.skip("a lock of a file has no session")
    with hold_connection(engines[0], 1) as still_alone:
        still_alone()
        with engines[1].connect() as connection:
            for (session,) in connection.exec_driver_sql(SESSIONS[dialect.name]).fetchall():
                connection.exec_driver_sql(ENDINGS[dialect.name].format(session))

        with pytest.raises(SQLAlchemyError):
            still_alone()
