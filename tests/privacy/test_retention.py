"""Test what is kept for a limited time goes in time, whatever else happens meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.constants import (
    ACCESS_TABLE,
    CONNECTION_TABLE,
    MACHINE_TABLE,
    OVERWRITE,
    RAW_TABLE,
    SUM,
    TOOL_TABLE,
)
from developer_telemetry.database.advisory_lock import ConnectionBusy, hold_connection
from developer_telemetry.database.engine import open_engine, transact
from developer_telemetry.pipeline.runner import convert, extract
from developer_telemetry.privacy import retention as pruning
from developer_telemetry.privacy.retention import (
    PrunedRows,
    RetentionLimits,
    compute_limits,
    list_due_connections,
    preview_prune,
    prune,
)
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.storage.devlake_schema import make_account_id
from developer_telemetry.storage.retention_marks import FIRST_DAY, read_first_day
from developer_telemetry.storage.statistics import count_machines
from developer_telemetry.storage.writer import store
from tests.support.factories import DATE, arrival
from tests.support.layers import BOTH, STRATEGIES
from tests.support.receivers import Altered, add_connection, eventually, query, report, run_command
from tests.support.rows import raw_rows, rows, tool_rows

TODAY = date.fromisoformat(DATE)
DAY_SECONDS = 86_400
LINKS = "user_accounts"


def days_ago(days: int) -> str:
    return (TODAY - timedelta(days)).isoformat()


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database's clock shows the day of the tests' reports."""
    monkeypatch.setattr(pruning, "read_today", lambda engine: TODAY)


@pytest.fixture
def engine(engine: Engine) -> Iterator[Engine]:
    """A database with DevLake's table of who has which account, and two connections."""
    change(engine, f"CREATE TABLE {LINKS} (user_id VARCHAR(255), account_id VARCHAR(255))")
    for connection_id, strategy in STRATEGIES.items():
        change(
            engine,
            f"INSERT INTO {CONNECTION_TABLE} (id, name, duplicate_strategy)"
            f" VALUES ({connection_id}, 'c{connection_id}', '{strategy}')",
        )
    yield engine
    change(engine, f"DROP TABLE {LINKS}")


def change(engine: Engine, statement: str) -> None:
    transact(engine, lambda connection: connection.exec_driver_sql(statement))


def keep(engine: Engine, connection_id: int = 1, *, raw: int = 0, tool: int = 0) -> None:
    change(
        engine,
        f"UPDATE {CONNECTION_TABLE} SET raw_retention_days = {raw}, tool_retention_days = {tool}"
        f" WHERE id = {connection_id}",
    )


def push(engine: Engine, *arrivals: ReceivedReport) -> None:
    store(engine, arrivals, STRATEGIES)


def aged(days: int, developer: str = "ann", **fields: Any) -> ReceivedReport:
    """A report of a day so long ago, which arrived on that day."""
    return arrival(developer=developer, date=days_ago(days), after=-days * DAY_SECONDS, **fields)


def dates(found: Sequence[dict[str, Any]]) -> list[str]:
    return [row["date"] for row in found]


def first_day(engine: Engine, connection_id: int = 1) -> str:
    with engine.connect() as connection:
        return read_first_day(connection, connection_id)


def run_all(engine: Engine, connection_id: int = 1, strategy: str = OVERWRITE) -> None:
    """A blueprint's run of everything, and the receivers' counting."""
    count_machines(engine, None)
    list(extract(engine, connection_id, strategy, everything=True))
    list(convert(engine, connection_id, strategy, tasks=True, everything=True))


@pytest.mark.parametrize(
    ("raw", "tool", "expected"),
    [
        (0, 0, RetentionLimits(FIRST_DAY, FIRST_DAY)),
        (None, None, RetentionLimits(FIRST_DAY, FIRST_DAY)),
        (-5, -1, RetentionLimits(FIRST_DAY, FIRST_DAY)),
        (0, 30, RetentionLimits(days_ago(30), days_ago(30))),
        (30, 0, RetentionLimits(days_ago(30), FIRST_DAY)),
        (30, 90, RetentionLimits(days_ago(30), days_ago(90))),
        (90, 30, RetentionLimits(days_ago(30), days_ago(30))),
        (1, 0, RetentionLimits(days_ago(1), FIRST_DAY)),
        (10**9, 10**18, RetentionLimits(FIRST_DAY, FIRST_DAY)),
    ],
)
def test_reports_are_kept_as_long_as_their_rows_unless_for_less(
    raw: int, tool: int, expected: RetentionLimits
) -> None:
    assert compute_limits(TODAY, raw, tool) == expected


@BOTH
def test_what_is_older_goes_from_both_layers(engine: Engine, strategy: str) -> None:
    connection_id = 1 if strategy == OVERWRITE else 2
    push(
        engine,
        *(
            aged(days, who, connection_id=connection_id)
            for days in (0, 29, 30, 31, 400)
            for who in ("ann", "bob")
        ),
        aged(400, connection_id=3 - connection_id),
    )
    keep(engine, connection_id, tool=30)

    steps = list(prune(engine, connection_id))

    assert steps[-1] == PrunedRows(reports=4, days=4)
    remaining = [days_ago(30), days_ago(29), DATE]
    for layer in (raw_rows(engine), tool_rows(engine)):
        mine = [row for row in layer if row["connection_id"] == connection_id]
        assert sorted(dates(mine)) == sorted(remaining * 2)
        assert len(layer) == len(mine) + 1
    assert first_day(engine, connection_id) == days_ago(30)
    assert first_day(engine, 3 - connection_id) == FIRST_DAY


def test_without_a_limit_everything_stays(engine: Engine) -> None:
    push(engine, aged(4000))

    assert list(prune(engine, 1)) == []
    assert len(raw_rows(engine)) == len(tool_rows(engine)) == 1
    assert first_day(engine) == FIRST_DAY


def test_what_was_made_of_a_day_goes_with_it(engine: Engine) -> None:
    tests = {"development_activity": {"test_runs_detected": 3, "build_commands_detected": 1}}
    push(engine, aged(40, metrics=tests), aged(1, metrics=tests))
    run_all(engine)
    keep(engine, tool=30)

    list(prune(engine, 1))

    [account] = rows(engine, "accounts", ["id"], "id")
    assert account == {"id": make_account_id(1, "ann")}
    tasks = rows(engine, "cicd_tasks", ["id"], "id")
    assert [days_ago(1) in task["id"] for task in tasks] == [True, True]


def test_of_who_has_no_days_left_nothing_is(engine: Engine) -> None:
    push(
        engine,
        aged(40, "ann", hostname="a"),
        aged(50, "ann", hostname="b"),
        aged(40, "bob", hostname="c"),
        aged(50, "bob", hostname="d"),
        aged(1, "bob", hostname="c"),
    )
    run_all(engine)
    for who in ("ann", "bob"):
        change(engine, f"INSERT INTO {LINKS} VALUES ('{who}', '{make_account_id(1, who)}')")
    keep(engine, tool=30)

    *_, last = prune(engine, 1)

    assert last == PrunedRows(reports=4, days=4, developers=1, machines=3)
    assert rows(engine, "accounts", ["user_name"], "id") == [{"user_name": "bob"}]
    assert rows(engine, LINKS, ["user_id"], "user_id") == [{"user_id": "bob"}]
    machines = rows(engine, MACHINE_TABLE, ["developer_id", "hostname"], "hostname")
    assert machines == [{"developer_id": "bob", "hostname": "c"}]


def test_a_preview_says_what_will_go_and_removes_nothing(engine: Engine) -> None:
    push(engine, *(aged(days, f"dev{days % 7}", hostname="x") for days in range(60)))
    push(engine, aged(90, "zoe", hostname="z"))
    run_all(engine)
    keep(engine, raw=20, tool=50)

    limits, expected = preview_prune(engine, 1)

    assert limits == RetentionLimits(days_ago(20), days_ago(50))
    assert len(raw_rows(engine)) == len(tool_rows(engine)) == 61
    *_, last = prune(engine, 1)
    assert last == expected
    assert (last.reports, last.days, last.developers) == (40, 10, 1)


@BOTH
def test_a_run_leaves_days_alone_whose_reports_were_pruned(engine: Engine, strategy: str) -> None:
    connection_id = 1 if strategy == OVERWRITE else 2
    push(
        engine,
        aged(40, connection_id=connection_id, hostname="a", metrics={"active_hours": 2}),
        aged(40, connection_id=connection_id, hostname="b", metrics={"active_hours": 3}),
        aged(1, connection_id=connection_id, hostname="a", metrics={"active_hours": 4}),
    )
    before = tool_rows(engine)
    keep(engine, connection_id, raw=30)
    list(prune(engine, connection_id))
    assert dates(raw_rows(engine)) == [days_ago(1)]

    run_all(engine, connection_id, strategy)

    assert tool_rows(engine) == before


def test_a_late_report_is_kept_until_the_next_prune_and_its_day_stays(engine: Engine) -> None:
    push(
        engine,
        aged(40, connection_id=2, hostname="a", metrics={"active_hours": 2}),
        aged(40, connection_id=2, hostname="b", metrics={"active_hours": 3}),
    )
    before = tool_rows(engine)
    keep(engine, 2, raw=30)
    list(prune(engine, 2))

    late = arrival(connection_id=2, developer="ann", date=days_ago(40), hostname="b")
    push(engine, late)

    assert [row["report_id"] for row in raw_rows(engine)] == [late.report_id]
    assert tool_rows(engine) == before
    run_all(engine, 2, SUM)
    assert tool_rows(engine) == before
    list(prune(engine, 2))
    assert raw_rows(engine) == []
    assert tool_rows(engine) == before


def test_a_late_report_of_a_day_that_nobody_had_makes_one(engine: Engine) -> None:
    keep(engine, 2, raw=30)
    push(engine, aged(40, connection_id=2))
    list(prune(engine, 2))

    hours = {"active_hours": 5}
    push(engine, arrival(connection_id=2, developer="zoe", date=days_ago(40), metrics=hours))

    assert [(row["developer_id"], row["active_hours"]) for row in tool_rows(engine)] == [
        ("ann", 0),
        ("zoe", 5),
    ]


def test_where_a_report_is_a_whole_day_a_late_one_still_counts(engine: Engine) -> None:
    push(engine, aged(40, metrics={"active_hours": 2}))
    keep(engine, raw=30)
    list(prune(engine, 1))

    late = arrival(developer="ann", date=days_ago(40), metrics={"active_hours": 8})
    push(engine, late)

    [row] = tool_rows(engine)
    assert row["active_hours"] == 8
    run_all(engine)
    assert tool_rows(engine) == [row]


def test_the_horizon_stays_when_more_is_to_be_kept(engine: Engine) -> None:
    push(engine, aged(40), aged(20))
    keep(engine, raw=30)
    list(prune(engine, 1))

    keep(engine, raw=90)
    list(prune(engine, 1))
    assert first_day(engine) == days_ago(30)
    keep(engine)
    list(prune(engine, 1))
    assert first_day(engine) == days_ago(30)
    assert dates(raw_rows(engine)) == [days_ago(20)]


def test_what_changes_in_between_counts_from_then_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "MAX_ROWS", 3)
    push(engine, *(aged(40 + days) for days in range(10)))
    keep(engine, tool=30)

    with closing(prune(engine, 1)) as steps:
        assert next(steps) == PrunedRows(reports=3)
        keep(engine)
        assert list(steps) == []

    assert len(raw_rows(engine)) == 7
    assert len(tool_rows(engine)) == 10


def test_who_was_stopped_in_the_middle_goes_on_later(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "MAX_ROWS", 3)
    push(engine, *(aged(40 + days, f"dev{days % 4}") for days in range(10)), aged(0))
    run_all(engine)
    keep(engine, tool=30)

    with closing(prune(engine, 1)) as steps:
        next(steps)
    assert first_day(engine) == days_ago(30)
    assert list_due_connections(engine) == [1]
    before = tool_rows(engine)
    run_all(engine)
    assert tool_rows(engine) == before
    *_, last = prune(engine, 1)

    assert (last.reports, last.days) == (7, 10)
    assert dates(tool_rows(engine)) == [DATE]
    assert list_due_connections(engine) == []


def test_it_is_due_once_a_day_where_something_is_kept_for_a_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list_due_connections(engine) == []
    keep(engine, 1, raw=5)
    keep(engine, 2, tool=5)
    assert list_due_connections(engine) == [1, 2]

    list(prune(engine, 1))
    assert list_due_connections(engine) == [2]
    monkeypatch.setattr(pruning, "read_today", lambda engine: TODAY + timedelta(1))
    assert list_due_connections(engine) == [1, 2]


def test_only_one_prunes_and_never_beside_a_run(engine: Engine) -> None:
    push(engine, aged(40))
    keep(engine, tool=30)

    with hold_connection(engine, 1), pytest.raises(ConnectionBusy):
        list(prune(engine, 1, patience=0))

    assert len(raw_rows(engine)) == 1


def test_reports_are_stored_while_it_prunes(
    engine: Engine, engines: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "MAX_ROWS", 20)
    push(engine, *(aged(40 + n % 9, f"dev{n}") for n in range(400)))
    keep(engine, tool=30)
    ended = threading.Event()
    waits: list[float] = []

    def send() -> None:
        while not ended.is_set():
            started = time.monotonic()
            store(engines[1], [arrival(developer=f"new{len(waits)}")], STRATEGIES)
            waits.append(time.monotonic() - started)
            time.sleep(0.01)  # a file has one writer, and whoever never pauses is the only one

    sender = threading.Thread(target=send)
    sender.start()
    *_, last = prune(engine, 1)
    ended.set()
    sender.join()

    assert last == PrunedRows(reports=400, days=400, developers=400)
    assert len(waits) > 3
    assert len(tool_rows(engine)) == len(raw_rows(engine)) == len(waits)
    assert max(waits) < 5


class Eager(Altered):
    """A receiver that looks often whether something is due."""

    constants = {"receiver.jobs.retention_job.CHECK_SECONDS": 0.2}


def long_ago(days: int) -> str:
    # Of the clock that the receiver has, too; nothing here comes near a limit.
    return (date.today() - timedelta(days)).isoformat()


def test_receivers_prune_by_themselves_what_devlake_set(migrated_url: str, tmp_path: Path) -> None:
    connection = add_connection(migrated_url)
    with Eager(migrated_url, tmp_path) as one, Eager(migrated_url, tmp_path) as other:
        for receiver in (one, other):
            for days in (5, 500):
                body = {**report(f"dev{receiver.port}-{days}"), "date": long_ago(days)}
                assert receiver.send(body, connection).status_code == 200
        query(
            migrated_url,
            f"UPDATE {CONNECTION_TABLE} SET tool_retention_days = 100 WHERE id = {connection}",
        )

        def is_done() -> bool:
            return query(migrated_url, f"SELECT COUNT(*) FROM {RAW_TABLE}") == [(2,)]

        assert eventually(is_done, 30)
        eventually(lambda: "pruned connection" in one.log + other.log, 30)

    assert (one.log + other.log).count(f"pruned connection {connection}: deleted 2 reports") == 1


def test_an_operator_looks_before_anything_goes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    assert run_command(tmp_path, "migrate", DB_URL=url).returncode == 0
    connection = add_connection(url)
    engine = open_engine(url)
    store(engine, [arrival(date=long_ago(500), connection_id=connection)], {connection: OVERWRITE})
    engine.dispose()
    query(url, f"UPDATE {CONNECTION_TABLE} SET raw_retention_days = 100")

    shown = run_command(tmp_path, "prune", "--dry-run", DB_URL=url)
    assert shown.returncode == 0, shown.stderr
    assert "Nothing was removed" in shown.stdout
    refused = run_command(tmp_path, "prune", DB_URL=url)
    assert (refused.returncode, "give --yes" in refused.stderr) == (2, True)
    assert shown.stdout.startswith(refused.stdout)
    assert query(url, f"SELECT COUNT(*) FROM {RAW_TABLE}") == [(1,)]

    done = run_command(tmp_path, "prune", "--yes", DB_URL=url)
    assert done.returncode == 0, done.stderr
    assert query(url, f"SELECT COUNT(*) FROM {RAW_TABLE}") == [(0,)]
    assert query(url, f"SELECT COUNT(*) FROM {TOOL_TABLE}") == [(1,)]
    unknown = run_command(tmp_path, "prune", "--connection", "77", DB_URL=url)
    assert unknown.returncode == 2
    assert "no connection '77'" in unknown.stderr


def add_access(engine: Engine, developer: str, days: int, connection_id: int = 1) -> None:
    looked_us = int(time.mktime((TODAY - timedelta(days)).timetuple())) * 1_000_000
    change(
        engine,
        f"INSERT INTO {ACCESS_TABLE} (connection_id, developer_id, looked_us, who, how, what)"
        f" VALUES ({connection_id}, '{developer}', {looked_us}, 'an operator', 'page', 'days')",
    )


def stored_accesses(engine: Engine) -> Sequence[dict[str, Any]]:
    return rows(engine, ACCESS_TABLE, ("connection_id", "developer_id"), "connection_id")


def test_accesses_are_kept_as_long_as_the_rows_that_were_looked_at(engine: Engine) -> None:
    push(engine, aged(200, "gone"), aged(0))
    for developer, days in (("gone", 1), ("ann", 100), ("ann", 1)):
        add_access(engine, developer, days)
    add_access(engine, "ann", 100, 2)
    keep(engine, tool=30)

    list(prune(engine, 1))

    assert [(row["connection_id"], row["developer_id"]) for row in stored_accesses(engine)] == [
        (1, "ann"),
        (2, "ann"),
    ]


def test_accesses_are_kept_for_ever_where_rows_are(engine: Engine) -> None:
    push(engine, aged(9000))
    add_access(engine, "ann", 9000)
    keep(engine, raw=30)

    list(prune(engine, 1))

    assert len(stored_accesses(engine)) == 1
