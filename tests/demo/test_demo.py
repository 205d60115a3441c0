"""The made-up fleet: the same each time, like a real one, and stored as a receiver would."""

from __future__ import annotations

import json
from collections import Counter
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.constants import FIGURE_TABLE, SUM
from developer_telemetry.demo.delivery import OWN_TABLES
from developer_telemetry.demo.seed import MESSAGES, Fleet, fill, fill_delivery, fleet
from developer_telemetry.demo.synthetic_fleet import CONNECTIONS, CONTRACTORS
from developer_telemetry.errors import ConfigurationError
from tests.support.devlake_tables import delivery_tables
from tests.support.layers import rewritten
from tests.support.receivers import query, run_command
from tests.support.rows import raw_rows, tool_rows

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def year() -> Fleet:
    return fleet(developers=24, days=365, seed=1, now=NOW)


def bodies(made: Fleet) -> list[dict[str, Any]]:
    return [json.loads(each.body) for each in made.sent]


def tools_in(made: Fleet, since: date, until: date) -> set[str]:
    return {
        tool
        for body in bodies(made)
        if since.isoformat() <= body["date"] < until.isoformat()
        for tool in body["metrics"]["tools_used"]
    }


def test_the_same_arguments_give_the_same_fleet_and_another_seed_another() -> None:
    made = fleet(8, 30, 5, NOW)
    assert made == fleet(8, 30, 5, NOW)
    assert made.sent != fleet(8, 30, 6, NOW).sent


def test_nobody_reports_the_future_and_everybody_has_a_name_of_their_own(year: Fleet) -> None:
    assert max(each.arrived_us for each in year.sent) < NOW.timestamp() * 1_000_000
    assert max(body["date"] for body in bodies(year)) <= NOW.date().isoformat()
    many = fleet(3000, 1, 1, NOW).developers
    assert len({developer.id.split("\\")[-1] for developer in many}) == 3000


def test_people_work_on_weekdays_above_all_and_hardly_on_holidays(year: Fleet) -> None:
    days = Counter(date.fromisoformat(body["date"]).weekday() for body in bodies(year))
    assert max(days[5], days[6]) * 5 < min(days[day] for day in range(5))
    assert not [body for body in bodies(year) if body["date"].endswith("12-25")]


def test_some_use_several_machines_and_some_machines_go_quiet(year: Fleet) -> None:
    hosts = {developer.id: len(developer.machines) for developer in year.developers}
    assert set(hosts.values()) >= {1, 2}
    assert [m for d in year.developers for m in d.machines if m.last < d.last - timedelta(30)]


def test_tools_come_into_fashion_and_out_of_it(year: Fleet) -> None:
    quarter = timedelta(91)
    before = tools_in(year, year.first, year.first + quarter)
    after = tools_in(year, NOW.date() - quarter, NOW.date())
    assert after - before >= {"claude"}
    assert before - after >= {"eclipse"}


def test_outages_leave_days_with_refused_and_with_late_reports(year: Fleet) -> None:
    assert sum(n for (_, _, reason), n in year.refused.items() if reason == "token") > 10
    assert {name for name, _, reason in year.refused if reason == "token"} == {CONTRACTORS}
    late = [
        each
        for each, body in zip(year.sent, bodies(year))
        if each.arrived_us / 1e6
        > datetime.fromisoformat(body["date"]).replace(tzinfo=timezone.utc).timestamp() + 3 * 86400
    ]
    assert 0 < len(late) < len(year.sent) / 4


def test_what_is_stored_is_what_a_receiver_would_have_stored(engine: Engine) -> None:
    made = fleet(developers=10, days=14, seed=3, now=NOW)
    ids = fill(engine, "secret", made)
    assert [row["arrived_us"] for row in raw_rows(engine)] == [s.arrived_us for s in made.sent]
    stored = tool_rows(engine)
    days = {(ids[s.connection], json.loads(s.body)["developer"]) for s in made.sent}
    assert {(row["connection_id"], row["developer_id"]) for row in stored} == days
    strategies = {ids[name]: strategy for name, strategy in CONNECTIONS.items()}
    assert SUM in strategies.values()
    assert rewritten(engine, strategies) == stored
    assert _count(engine, "SELECT SUM(reports) FROM _tool_developer_telemetry_machines") == len(
        made.sent
    )
    assert _count(engine, "SELECT SUM(count) FROM _tool_developer_telemetry_refusals") == sum(
        made.refused.values()
    )
    assert _count(engine, "SELECT COUNT(*) FROM accounts") == len(days)
    refused = "_tool_developer_telemetry_refused_machines"
    in_words = sum(count for (_, _, reason), count in made.refused.items() if reason in MESSAGES)
    assert 0 < _count(engine, f"SELECT SUM(count) FROM {refused}") <= in_words
    agents = "SELECT COUNT(DISTINCT user_agent) FROM _tool_developer_telemetry_machines"
    assert _count(engine, agents) == 2


def _count(engine: Engine, statement: str) -> int:
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(statement).scalar_one())


def test_a_database_in_use_is_left_alone(engine: Engine) -> None:
    made = fleet(developers=2, days=3, seed=3, now=NOW)
    fill(engine, "secret", made)
    stored = raw_rows(engine)
    with pytest.raises(ConfigurationError, match="has connections already"):
        fill(engine, "secret", made)
    assert raw_rows(engine) == stored


def test_an_empty_devlake_gets_deliveries_and_one_in_use_gets_none(engine: Engine) -> None:
    made = fleet(developers=24, days=30, seed=3, now=NOW)
    ids = fill(engine, "secret", made)
    assert fill_delivery(engine, made, ids, 1) is None
    with delivery_tables(engine):
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO teams (id, name) VALUES ('t', 'ours')")
        assert fill_delivery(engine, made, ids, 1) is False
        assert _count(engine, "SELECT COUNT(*) FROM pull_requests") == 0
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM teams")

        assert fill_delivery(engine, made, ids, 1)

        for table in OWN_TABLES:
            assert _count(engine, f"SELECT COUNT(*) FROM {table}") > 0, table
        figures = f"SELECT COUNT(DISTINCT figure) FROM {FIGURE_TABLE} WHERE grain = 'half year'"
        assert _count(engine, figures) >= 17
        assert fill_delivery(engine, made, ids, 1) is False


def test_the_command_fills_the_embedded_database(tmp_path: Path) -> None:
    done = run_command(tmp_path, "demo", "--developers", "3", "--days", "10", ENCRYPTION_SECRET="")
    assert done.returncode == 0, done.stderr
    assert "reports of 3 developers are stored\nConnection 1: " in done.stdout
    again = run_command(tmp_path, "demo", ENCRYPTION_SECRET="")
    assert again.returncode == 2
    assert again.stderr.startswith("error: this database has connections already")
    url = f"sqlite:///{tmp_path}/data/telemetry.db"
    assert query(url, "SELECT COUNT(*) FROM _tool_developer_metrics")[0][0] > 0
