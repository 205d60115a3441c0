"""Test what the page counts, on every database."""

from __future__ import annotations

import time
from datetime import date, timedelta
from typing import Any, Callable

import pytest
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from developer_telemetry.receiver.web import queries
from developer_telemetry.receiver.web.queries import MachineFilter
from tests.support.fleets import add_days, add_machines, add_refusals


def test_machines_are_counted_by_connection_and_age(engine: Engine) -> None:
    ages = [0.1, 23, 25, 71, 100, 169, 27 * 24, 29 * 24]
    add_machines(engine, [("ann", f"host {age}", age) for age in ages])
    add_machines(engine, [("ann", "host", 5000)], connection_id=7)

    with engine.connect() as connection:
        found = queries.fleets(connection)

    assert {each: fleet.ages for each, fleet in found.items()} == {
        1: (2, 2, 1, 2, 1),
        7: (0, 0, 0, 0, 1),
    }
    assert found[1].reports == 7 * len(ages)
    assert found[1].last_seen is not None
    assert 0 < time.time() - found[1].last_seen.timestamp() - 360 < 60


def test_machines_are_listed_by_age_filtered_and_paged(engine: Engine) -> None:
    names = [f"developer {number:02}" for number in range(25)]
    add_machines(engine, [(name, f"host{place}", place * 10) for place, name in enumerate(names)])
    add_machines(engine, [("Ünal_100%", "MAC!", 1000)], connection_id=7)

    def listed(**chosen: Any) -> tuple[int, list[str]]:
        with engine.connect() as connection:
            total, rows = queries.machines(connection, MachineFilter(**chosen))
        return total, [row.developer_id for row in rows]

    assert listed() == (26, names[:20])
    assert listed(page=2) == (26, [*names[20:], "Ünal_100%"])
    assert listed(page=3) == (26, [])
    assert listed(state="heard") == (3, names[:3])
    assert listed(state="quiet") == (9, [*names[17:], "Ünal_100%"])
    assert listed(connection_id=7) == (1, ["Ünal_100%"])
    assert listed(text="DEVELOPER 07") == (1, ["developer 07"])
    assert listed(text="mac!") == (1, ["Ünal_100%"])
    assert listed(text="l_1") == (1, ["Ünal_100%"])
    assert listed(text="0%") == (1, ["Ünal_100%"])
    assert listed(text="%") == (1, ["Ünal_100%"])
    assert listed(text="' OR ''='") == (0, [])


def test_refusals_are_added_up_since_a_day(engine: Engine) -> None:
    day = date(2026, 11, 23)
    earlier = day - timedelta(days=1)
    add_refusals(engine, [(earlier, "token", 4), (day, "token", 2), (day, "body", 1)])
    add_refusals(engine, [(earlier - timedelta(days=1), "date", 100)])
    add_refusals(engine, [(earlier, "date", 3)], connection_id=7)

    with engine.connect() as connection:
        found = queries.refusals(connection, earlier)

    assert [tuple(each) for each in found] == [
        (1, "token", 6, day),
        (7, "date", 3, earlier),
        (1, "body", 1, day),
    ]


def test_hours_and_tools_are_counted_between_two_days(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = date(2026, 11, 23)
    days = [day - timedelta(days=back) for back in range(4)]
    add_days(engine, [("ann", each, 5, ["git", 'a "b" \\ <c>']) for each in days])
    add_days(engine, [("bea", each, 8, ["git"]) for each in days[:2]])
    add_days(engine, [("cem", days[0], 5, [])], connection_id=7)

    with engine.connect() as connection:
        hours = queries.hours(connection, days[2], days[0])
        tools = queries.tools(connection, days[1], days[0])

    assert hours == {days[2]: {5: 1}, days[1]: {5: 1, 8: 1}, days[0]: {5: 2, 8: 1}}
    assert tools == (5, (("git", 4), ('a "b" \\ <c>', 2)))
    monkeypatch.setattr(queries, "TOOL_ROWS", 3)
    with engine.connect() as connection:
        assert queries.tools(connection, days[3], days[0]) == (3, (("git", 2), ('a "b" \\ <c>', 1)))


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_a_statement_that_takes_too_long_is_given_up(
    kind: str, migrated: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "STATEMENT_SECONDS", 1)
    engine = queries.open_reading_engine(migrated(kind))
    # MySQL calls a statement that is nothing but SLEEP a success, however it ended.
    sleeps = "SELECT 1 FROM (SELECT 1 AS n UNION SELECT 2) two WHERE SLEEP(30) = n"
    slow = sleeps if kind == "mariadb" else "SELECT pg_sleep(30)"
    started = time.monotonic()

    with pytest.raises(DBAPIError), engine.connect() as connection:
        connection.exec_driver_sql(slow)

    assert time.monotonic() - started < 15
    engine.dispose()
