"""Test what `status` says of each connection, on every database."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine
from typer.testing import CliRunner

from developer_telemetry.cli.main import app
from developer_telemetry.connections.registry import create
from developer_telemetry.constants import DAY_US, OVERWRITE
from developer_telemetry.database.engine import now_us, open_engine
from developer_telemetry.database.migrate import migrate
from developer_telemetry.diagnostics import connection_status as status_module
from developer_telemetry.diagnostics.connection_status import QuietMachine, connection_statuses
from developer_telemetry.reports.daily_metrics import format_timestamp
from developer_telemetry.storage.statistics import count_machines
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.fleets import HOUR_US, add_machines, add_refusals
from tests.support.receivers import SECRET


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> int:
    """A moment that stays, so that no midnight comes in between."""
    moment = now_us()
    monkeypatch.setattr(status_module, "now_us", lambda: moment)
    return moment


def put(engine: Engine, connection_id: int, arrived_us: int, developer: str, host: str) -> None:
    sent = arrival(connection_id=connection_id, developer=developer, hostname=host)
    store(engine, [sent._replace(arrived_us=arrived_us)], {connection_id: OVERWRITE})


def test_reports_are_counted_whether_receivers_have_counted_them_or_not(
    engine: Engine, now: int
) -> None:
    first, second = (create(engine, SECRET, name, "token") for name in ("first", "second"))
    put(engine, first, now - 2 * DAY_US, "ann", "desk")
    put(engine, first, now - 1_000_000, "ann", "laptop")
    count_machines(engine, 0)
    put(engine, first, now, "ann", "laptop")
    put(engine, first, now - 3 * DAY_US, "ann", "desk")
    put(engine, first, now - 5 * DAY_US, "bob", "desk")

    one, other = connection_statuses(engine)

    assert one[:7] == (first, "first", 5, one.today, 2, 3, format_timestamp(now))
    assert other == (second, "second", 0, 0, 0, 0, "", (), {}, 0, 0, {})
    # What arrived a second ago may have been yesterday.
    assert one.today == 2 - (now % DAY_US < 1_000_000)


def test_who_was_silent_for_a_week_is_quiet(engine: Engine, now: int) -> None:
    number = create(engine, SECRET, "fleet", "token")
    hours = {"a": 1, "b": 6 * 24, "c": 7 * 24 + 1, "d": 700}
    add_machines(engine, [(name, "host", age) for name, age in hours.items()], number)

    [status] = connection_statuses(engine)

    assert [(each.developer, each.host) for each in status.quiet] == [("c", "host"), ("d", "host")]
    assert abs(moment_us(status.quiet[1].last_seen) - (now - 700 * HOUR_US)) < 60_000_000
    assert (status.machines, status.reports) == (4, 28)


def test_old_collectors_are_old_beside_those_of_the_whole_fleet(engine: Engine) -> None:
    first, second = (create(engine, SECRET, name, "token") for name in ("first", "second"))
    name = "developer-telemetry-collector"
    add_machines(engine, [("ann", "a", 1), ("bob", "b", 1)], first, user_agent=f"{name}/1.1")
    add_machines(engine, [("cid", "c", 1)], first, user_agent="curl/7.88")
    add_machines(engine, [("dan", "d", 1)], second, user_agent=f"{name}/1.0")

    one, other = connection_statuses(engine)

    assert (one.outdated, other.outdated) == ({}, {f"{name}/1.0": 1})


def moment_us(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp() * 1e6)


def test_refusals_of_seven_days_are_counted_by_reason(engine: Engine, now: int) -> None:
    number = create(engine, SECRET, "fleet", "token")
    today = date.fromisoformat(format_timestamp(now)[:10])
    days = [(0, "token", 3), (6, "token", 1), (7, "token", 9), (7, "size", 5), (2, "date", 8)]
    add_refusals(engine, [(today - timedelta(back), why, n) for back, why, n in days], number)

    [status] = connection_statuses(engine)

    assert list(status.refused.items()) == [("date", 8), ("token", 4)]


def test_days_with_numbers_that_nobody_can_read_are_counted(engine: Engine, now: int) -> None:
    number = create(engine, SECRET, "fleet", "token")
    today = format_timestamp(now)[:10]
    for developer, day, hours in (
        ("ann", today, "eight"),
        ("bob", today, "3,5"),
        ("cid", "2020-01-01", "eight"),
    ):
        sent = arrival(connection_id=number, developer=developer, date=day, active_hours=hours)
        store(engine, [sent], {number: OVERWRITE})

    [status] = connection_statuses(engine)

    assert status.unread == 1


def test_the_table_lists_quiet_machines_and_shows_hostile_names_harmless(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    engine = open_engine(url)
    migrate(engine)
    create(engine, SECRET, "fl\x1b[31meet", "token")
    add_machines(engine, [(f"dev\u202e{n}", "\x1b]0;host", 300 + n) for n in range(12)])
    engine.dispose()

    settings = {"DB_URL": url, "ENCRYPTION_SECRET": SECRET}
    shown = CliRunner().invoke(app, ["status"], env=settings).stdout
    listed = json.loads(CliRunner().invoke(app, ["status", "--json"], env=settings).stdout)

    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert r"1   fl\x1b[31meet  84       0      12          12        12" in shown
    assert r"quiet: dev\u202e0 on \x1b]0;host (connection 1), last heard from at 20" in shown
    assert "quiet: 2 more machines of connection 1; --json lists all" in shown
    assert len(listed[0]["quiet"]) == 12
    assert (
        listed[0]["quiet"][0]
        == QuietMachine("dev\u202e0", "\x1b]0;host", listed[0]["quiet"][0]["last_seen"])._asdict()
    )
