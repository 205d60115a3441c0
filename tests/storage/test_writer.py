"""Test what lies in the raw and the tool layer after reports arrived, on every database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from developer_telemetry.constants import OVERWRITE, RAW_TABLE, SUM
from developer_telemetry.database import bulk_insert as inserts
from developer_telemetry.database.bulk_insert import execute, insert
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import prepare, reading, transact
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.storage.writer import _store, store
from tests.support.factories import START_US, arrival
from tests.support.layers import (
    BOTH,
    expected,
    insert_go_plugin_row,
    push_in_batches,
    rewritten,
    senders,
    traffic,
)
from tests.support.rows import raw_rows, tool_row_of, tool_rows

# One report -------------------------------------------------------------------------------------


@BOTH
def test_a_report_is_in_both_layers_after_the_answer(engine: Engine, strategy: str) -> None:
    report = arrival(active_hours=7, hostname="laptop", email="ann@example.com")
    store(engine, [report], {1: strategy})
    [raw] = raw_rows(engine)
    assert raw.pop("id") > 0
    assert raw == {
        "params": '{"ConnectionId":1,"ScopeId":"all"}',
        "connection_id": 1,
        "payload": report.report.payload,
        "created_at": "2026-11-23 20:26:40.123",
        "report_id": report.report_id,
        "developer_id": "ann.lee",
        "date": "2026-11-23",
        "hostname": "laptop",
        "arrived_us": START_US,
    }
    assert tool_rows(engine) == expected(engine, [report], {1: strategy})


@BOTH
def test_a_report_stored_again_changes_nothing(engine: Engine, strategy: str) -> None:
    first, second = arrival(active_hours=1), arrival(after=60, active_hours=2)
    store(engine, [first, second, first], {1: strategy})
    before = raw_rows(engine), tool_rows(engine)
    store(engine, [second], {1: strategy})
    store(engine, [first, first], {1: strategy})
    assert (raw_rows(engine), tool_rows(engine)) == before
    assert [row["report_id"] for row in before[0]] == [first.report_id, second.report_id]


@BOTH
def test_an_older_report_after_a_newer_changes_nothing_but_the_creation(
    engine: Engine, strategy: str
) -> None:
    store(engine, [arrival(after=60, active_hours=5, name="Ann")], {1: strategy})
    before = tool_row_of(engine)
    store(engine, [arrival(after=1, active_hours=9, name="Bob")], {1: strategy})
    assert tool_row_of(engine) == {**before, "created_at": "2026-11-23 20:26:41.123"}


@BOTH
def test_a_newer_report_changes_all_but_the_creation(engine: Engine, strategy: str) -> None:
    store(engine, [arrival(active_hours=5, tools_used=["vim"])], {1: strategy})
    newer = arrival(after=60, active_hours=9, name="Ann")
    store(engine, [newer], {1: strategy})
    [row] = expected(engine, [newer], {1: strategy})
    assert tool_row_of(engine) == {**row, "created_at": "2026-11-23 20:26:40.123"}


@BOTH
def test_of_reports_of_one_microsecond_the_later_stored_counts(
    engine: Engine, strategy: str
) -> None:
    store(engine, [arrival(active_hours=1), arrival(active_hours=2)], {1: strategy})
    assert tool_row_of(engine)["active_hours"] == 2
    store(engine, [arrival(active_hours=3)], {1: strategy})
    assert tool_row_of(engine)["active_hours"] == 3


def test_under_sum_an_older_report_of_another_host_is_added(engine: Engine) -> None:
    store(engine, [arrival(after=60, hostname="laptop", active_hours=5)], {1: SUM})
    before = tool_row_of(engine)
    store(engine, [arrival(hostname="tower", active_hours=3, tools_used=["vim"])], {1: SUM})
    assert tool_row_of(engine) == {
        **before,
        "active_hours": 8,
        "tools_used": '["vim"]',
        "created_at": "2026-11-23 20:26:40.123",
    }


def test_under_sum_a_host_counts_once_with_its_newest_report(engine: Engine) -> None:
    store(engine, [arrival(hostname="laptop", active_hours=2)], {1: SUM})
    store(engine, [arrival(hostname="tower", active_hours=3)], {1: SUM})
    store(engine, [arrival(after=60, hostname="laptop", active_hours=4)], {1: SUM})
    store(engine, [arrival(after=30, hostname="laptop", active_hours=24)], {1: SUM})
    assert tool_row_of(engine)["active_hours"] == 7


# Push and extract -------------------------------------------------------------------------------


def test_the_order_of_arrival_in_the_database_does_not_matter(engine: Engine) -> None:
    arrivals = [each._replace(arrived_us=START_US + n) for n, each in enumerate(traffic(4, 60))]
    Random(4).shuffle(arrivals)
    push_in_batches(engine, arrivals, Random(4))
    assert tool_rows(engine) == expected(engine, arrivals)


# Exactness --------------------------------------------------------------------------------------

LOOK_ALIKES = ["Irfan", "irfan", "IRFAN", "jose", "josé", "jose\u0301", "straße", "strasse", "ﬁ"]


@BOTH
def test_names_that_look_alike_stay_different_people(exact_engine: Engine, strategy: str) -> None:
    arrivals = [arrival(developer=name, active_hours=n) for n, name in enumerate(LOOK_ALIKES)]
    store(exact_engine, arrivals, {1: strategy})
    for each in arrivals:
        store(exact_engine, [each], {1: strategy})
    assert {row["developer_id"]: row["active_hours"] for row in tool_rows(exact_engine)} == {
        name: hours for hours, name in enumerate(LOOK_ALIKES)
    }
    assert rewritten(exact_engine, {1: strategy}) == expected(exact_engine, arrivals, {1: strategy})


def test_hosts_that_look_alike_are_added_up(exact_engine: Engine) -> None:
    names = {name.lower() if name.isascii() else name for name in LOOK_ALIKES}
    arrivals = [arrival(hostname=name, active_hours=1) for name in names]
    store(exact_engine, arrivals, {1: SUM})
    assert tool_row_of(exact_engine)["active_hours"] == len(names)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("é" * 255, id="as-long-as-the-column"),
        pytest.param("🐙" * 255, id="four-bytes-a-character"),
        pytest.param("100% %s %(a)s ? :b {c} ' \" \\ \\' --", id="marks-of-drivers-and-sql"),
    ],
)
def test_texts_reach_every_column_whole(exact_engine: Engine, text: str) -> None:
    report = arrival(developer=text, hostname=text, email=text, name=text, tools_used=[text])
    store(exact_engine, [report], {1: SUM})
    row = tool_row_of(exact_engine)
    assert [row[column] for column in ("developer_id", "hostname", "email", "name")] == [text] * 4
    assert json.loads(row["tools_used"]) == [text]
    [raw] = raw_rows(exact_engine)
    assert (raw["developer_id"], raw["hostname"]) == (text, text)


def test_the_error_of_a_statement_holds_no_values(exact_engine: Engine) -> None:
    with exact_engine.connect() as connection, pytest.raises(DBAPIError) as caught:
        insert(connection, "missing", ("developer_id", "arrived_us"), [("ann", 1)], "")

    assert "ann" not in str(caught.value.statement)
    assert caught.value.params is None


def test_what_is_longer_than_64_kib_is_kept_whole(exact_engine: Engine) -> None:
    tools = [f"tool-{n}-é" for n in range(20_000)]
    report = arrival(tools_used=tools)
    store(exact_engine, [report], {1: SUM})
    assert json.loads(tool_row_of(exact_engine)["tools_used"]) == tools
    assert raw_rows(exact_engine)[0]["payload"] == report.report.payload


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param('{\n  "developer": "a",\r\n\t"date":"2026-11-23" }\n\n', id="space"),
        pytest.param('\ufeff{"developer":"a","date":"2026-11-23"}', id="byte-order-mark"),
        pytest.param(
            '{"date":"2026-11-23","x":"🐙é\\ud83d\\ude00\\/\\"","developer":"a"}', id="text"
        ),
        pytest.param('{"date":"2026-11-23","developer":"a","x":1.0,"x":1e2}', id="keys-twice"),
        pytest.param('{"date":"2026-11-23","developer":"a","x":"%s %% ? :x \\\\"}', id="marks"),
    ],
)
def test_a_payload_is_stored_byte_by_byte(exact_engine: Engine, sent: str) -> None:
    store(exact_engine, [arrival(sent.encode())], {1: OVERWRITE})
    assert raw_rows(exact_engine)[0]["payload"].encode() == sent.encode()
    assert rewritten(exact_engine, {1: OVERWRITE}) == tool_rows(exact_engine)


def test_times_do_not_follow_the_zone_of_the_server(exact_engine: Engine) -> None:
    store(exact_engine, [arrival(after=0.0009)], {1: OVERWRITE})
    row = tool_row_of(exact_engine)
    [raw] = raw_rows(exact_engine)
    assert {row["created_at"], row["updated_at"], raw["created_at"]} == {"2026-11-23 20:26:40.124"}
    assert raw["arrived_us"] == row["arrived_us"] == START_US + 900


# SQLite's columns have no length, so that nothing can be cut there.
@pytest.mark.parametrize("exact_engine", ["mariadb", "mariadb_loose", "postgresql"], indirect=True)
def test_a_text_too_long_for_its_column_is_an_error_and_nothing_is_stored(
    exact_engine: Engine,
) -> None:
    fitting = arrival()
    overlong = fitting._replace(
        report_id="ffffffff-ffff-ffff-ffff-ffffffffffff",
        report=type(fitting.report)(**{**_fields(fitting), "hostname": "h" * 256}),
    )
    with pytest.raises(DBAPIError):
        store(exact_engine, [fitting, overlong], {1: OVERWRITE})
    assert raw_rows(exact_engine) == []
    assert tool_rows(exact_engine) == []


def _fields(of: ReceivedReport) -> dict[str, Any]:
    return {name: getattr(of.report, name) for name in of.report.__struct_fields__}


def test_sessions_are_strict_and_in_utc(exact_engine: Engine) -> None:
    with exact_engine.connect() as connection:

        def ask(statement: str) -> Any:
            return connection.exec_driver_sql(statement).scalar()

        name = dialect_of(connection).name
        if name == "mysql":
            assert {"STRICT_TRANS_TABLES", "ONLY_FULL_GROUP_BY"} <= set(
                ask("SELECT @@sql_mode").split(",")
            )
            assert ask("SELECT @@time_zone") == "+00:00"
            isolation = connection.exec_driver_sql(
                "SHOW VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')"
            ).fetchall()
            assert {value for _, value in isolation} == {"READ-COMMITTED"}
        elif name == "postgres":
            assert ask("SHOW TIME ZONE") == "UTC"
            assert ask("SHOW transaction_isolation") == "read committed"
        else:
            assert ask("PRAGMA synchronous") == 2
            assert ask("PRAGMA journal_mode") == "delete"
            assert ask("PRAGMA busy_timeout") >= 5000


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_sqlite_lets_one_write_from_the_start_and_others_read(engines: list[Engine]) -> None:
    writer, reader, other = engines
    with writer.begin(), reading(reader).connect() as connection:
        assert connection.exec_driver_sql(f"SELECT COUNT(*) FROM {RAW_TABLE}").scalar() == 0
        second = other.raw_connection()
        second.cursor().execute("PRAGMA busy_timeout = 0")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            second.cursor().execute("BEGIN IMMEDIATE")
        second.close()


def test_an_engine_prepared_twice_works_as_if_once(engine: Engine) -> None:
    report = arrival()
    store(prepare(engine), [report], {1: SUM})
    assert tool_rows(engine) == expected(engine, [report], {1: SUM})


# Rows that DevLake's older plugin left ----------------------------------------------------------


@BOTH
def test_a_row_without_an_arrival_loses_to_any_report(engine: Engine, strategy: str) -> None:
    insert_go_plugin_row(engine)
    report = arrival(hostname="laptop", active_hours=2)
    store(engine, [report], {1: strategy})
    assert tool_rows(engine) == expected(engine, [report], {1: strategy})


# Many at once -----------------------------------------------------------------------------------


@BOTH
def test_the_first_report_of_a_day_from_32_senders_at_once_makes_one_row(
    engines: list[Engine], strategy: str
) -> None:
    arrivals = [arrival(after=n, active_hours=n % 24) for n in range(32)]
    senders(engines, [[each] for each in arrivals], strategy)
    assert len(raw_rows(engines[0])) == 32
    assert tool_rows(engines[0]) == expected(engines[0], arrivals, {1: strategy})


def test_eight_hosts_at_once_give_their_sum(engines: list[Engine]) -> None:
    developers = [f"developer-{n}" for n in range(6)]
    batches = [
        Random(host).sample(
            [
                arrival(
                    developer=developer,
                    hostname=f"host-{host}",
                    after=host,
                    active_hours=1,
                    git_activity={"total_commits": 10**host},
                )
                for developer in developers
            ],
            len(developers),
        )
        for host in range(8)
    ]
    senders(engines, batches, SUM)
    found = tool_rows(engines[0])
    assert {row["commits"] for row in found} == {11_111_111}
    assert {row["active_hours"] for row in found} == {8}
    assert found == expected(engines[0], [each for batch in batches for each in batch], {1: SUM})


# When the database takes a session away ---------------------------------------------------------


# SQLite has no sessions to end.
WITH_SESSIONS = pytest.mark.parametrize("migrated_url", ["mariadb", "postgresql"], indirect=True)


def end_session(connection: SqlConnection, by: Engine) -> None:
    """End the connection's session on the server, as a restart or an administrator does."""
    end = session_end(connection)
    with by.connect() as other:
        other.exec_driver_sql(end)


def session_end(connection: SqlConnection) -> str:
    """The statement that ends the connection's session."""
    own, end = {
        "mysql": ("SELECT CONNECTION_ID()", "KILL {}"),
        "postgres": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({}, 5000)"),
    }[dialect_of(connection).name]
    return end.format(connection.exec_driver_sql(own).scalar())


@WITH_SESSIONS
@BOTH
def test_a_session_lost_on_the_way_is_repeated(engines: list[Engine], strategy: str) -> None:
    report = arrival(active_hours=3)
    attempts: list[int] = []

    def work(connection: SqlConnection) -> None:
        attempts.append(1)
        _store(connection, [report], {1: strategy})
        if len(attempts) == 1:
            end_session(connection, engines[1])
            connection.exec_driver_sql("SELECT 1")

    transact(engines[0], work)
    assert len(attempts) == 2
    assert len(raw_rows(engines[0])) == 1
    assert tool_rows(engines[0]) == expected(engines[0], [report], {1: strategy})


@WITH_SESSIONS
@BOTH
def test_a_session_lost_after_its_commit_leaves_the_report_stored_once(
    engines: list[Engine], strategy: str
) -> None:
    lost: list[SqlConnection] = []

    def lose_the_answer(connection: SqlConnection) -> None:
        if not lost:
            lost.append(connection)
            connection.connection.commit()
            end_session(connection, engines[1])

    event.listen(engines[0], "commit", lose_the_answer)
    report = arrival(active_hours=3)
    store(engines[0], [report], {1: strategy})
    assert lost
    assert len(raw_rows(engines[0])) == 1
    assert tool_rows(engines[0]) == expected(engines[0], [report], {1: strategy})


def test_an_error_that_is_no_conflict_is_raised_at_once(engine: Engine) -> None:
    attempts: list[int] = []

    def work(connection: SqlConnection) -> None:
        attempts.append(1)
        connection.exec_driver_sql(f"SELECT nonsense FROM {RAW_TABLE}")

    with pytest.raises(DBAPIError):
        transact(engine, work)
    assert len(attempts) == 1


@WITH_SESSIONS
def test_what_failed_first_is_told_though_the_session_ends_with_it(engines: list[Engine]) -> None:
    def work(connection: SqlConnection) -> None:
        end = session_end(connection)
        try:
            connection.exec_driver_sql(f"SELECT nonsense FROM {RAW_TABLE}")
        finally:
            with engines[1].connect() as other:
                other.exec_driver_sql(end)

    with pytest.raises(DBAPIError, match="nonsense"):
        transact(engines[0], work)


# The size of statements -------------------------------------------------------------------------


@BOTH
def test_more_than_one_statement_holds_is_stored_in_several(engine: Engine, strategy: str) -> None:
    many = [arrival(developer=f"developer-{n}", active_hours=n % 24) for n in range(601)]
    store(engine, many, {1: strategy})
    assert tool_rows(engine) == expected(engine, many, {1: strategy})


@pytest.mark.parametrize("migrated_url", ["mariadb"], indirect=True)
@pytest.mark.parametrize("mark", ["🐙", '"', "a"], ids=["four-bytes", "escaped", "plain"])
def test_statements_stay_under_a_quarter_of_what_mysql_takes(
    engine: Engine, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def measured(
        connection: SqlConnection, statement: str, values: Sequence[Any], start: str
    ) -> Any:
        cursor = execute(connection, statement, values, start)
        sizes.append(len(cursor.mogrify(statement, values or None).encode()))
        return cursor

    monkeypatch.setattr(inserts, "execute", measured)
    with engine.connect() as connection:
        limit: int = connection.exec_driver_sql("SELECT @@max_allowed_packet").scalar_one()
    count = 300 * limit // (16 << 20)  # MySQL takes four times as much as MariaDB
    many = [arrival(developer=f"developer-{n}", extra=mark * 10_000) for n in range(count)]
    store(engine, many, {1: SUM})
    assert len(sizes) > 3
    assert max(sizes) < limit / 4
