"""Test what the page counts, on every database."""

from __future__ import annotations

import time
from datetime import date, timedelta
from typing import Any, Callable

import pytest
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from developer_telemetry.receiver.web.data import (
    day_queries,
    fleet_queries,
    queries,
    refusal_queries,
)
from developer_telemetry.receiver.web.data.day_queries import Period
from developer_telemetry.receiver.web.data.queries import Slice
from developer_telemetry.receiver.web.selection import Selection
from developer_telemetry.storage.fleet.machines import MachineKey, retire_machines
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.fleets import add_days, add_machines, add_refusals, add_refused_machines

FIRST = Slice()


def test_machines_are_counted_by_connection_and_age(engine: Engine) -> None:
    ages = [0.1, 23, 25, 71, 100, 169, 27 * 24, 29 * 24]
    add_machines(engine, [("ann", f"host {age}", age) for age in ages])
    add_machines(engine, [("bea", "host", 0.1)], user_agent="collector/2")
    add_machines(engine, [("ann", "host", 5000), ("ann", "old", 9000)], connection_id=7)
    retire_machines(engine, [MachineKey(7, "ann", "old")])

    with engine.connect() as connection:
        found = fleet_queries.fleets(connection)

    assert {each: fleet.ages for each, fleet in found.items()} == {
        1: (3, 2, 1, 2, 1),
        7: (0, 0, 0, 0, 1),
    }
    assert (found[1].newly_quiet, found[7].newly_quiet) == (1, 0)
    assert (found[1].retired, found[7].retired) == (0, 1)
    assert found[1].agents == {"": 8, "collector/2": 1}
    assert found[1].reports == 7 * (len(ages) + 1)
    assert found[1].last_seen is not None
    assert 0 < time.time() - found[1].last_seen.timestamp() - 360 < 60


def test_machines_are_listed_by_age_filtered_sorted_and_paged(engine: Engine) -> None:
    names = [f"developer {number:02}" for number in range(25)]
    add_machines(engine, [(name, f"host{place}", place * 10) for place, name in enumerate(names)])
    add_machines(engine, [("Ünal_100%", "MAC!", 1000)], connection_id=7, user_agent="collector/1")
    add_machines(engine, [("zoe", "gone", 1)], connection_id=7)
    retire_machines(engine, [MachineKey(7, "zoe", "gone")])

    def listed(part: Slice = FIRST, **chosen: Any) -> tuple[int, list[str]]:
        with engine.connect() as connection:
            total, rows = fleet_queries.list_machines(
                connection, Selection(**chosen), ["collector/1"], part
            )
        return total, [row.developer_id for row in rows]

    assert listed() == (26, names[:20])
    assert listed(Slice(start=20)) == (26, [*names[20:], "Ünal_100%"])
    assert listed(Slice(start=40)) == (26, [])
    assert listed(Slice("-developer", size=2)) == (26, ["Ünal_100%", names[24]])
    assert listed(Slice("seen", size=2)) == (26, ["Ünal_100%", names[24]])
    assert listed(Slice("1; DROP TABLE x", size=1)) == (26, names[:1])
    for column in ("host", "connection", "-reports", "collector", "first", "retired"):
        assert listed(Slice(column))[0] == 26
    assert listed(state="day") == (3, names[:3])
    assert listed(state="days") == (5, names[3:8])
    assert listed(state="quiet") == (9, [*names[17:], "Ünal_100%"])
    assert listed(state="older") == (1, ["Ünal_100%"])
    assert listed(state="outdated") == (1, ["Ünal_100%"])
    assert listed(state="retired") == (1, ["zoe"])
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
        found = refusal_queries.refusals(connection, earlier)
        of_seven = refusal_queries.refusals(connection, earlier, 7)
        counted = refusal_queries.count_refusals(connection, earlier, day, 0)
        none = refusal_queries.count_refusals(connection, earlier, day, 8)

    assert [tuple(each) for each in found] == [
        (1, "token", 6, day),
        (7, "date", 3, earlier),
        (1, "body", 1, day),
    ]
    assert of_seven == found[1:2]
    assert (counted, none) == (10, 0)


def test_refused_machines_are_listed_sorted_and_counted(engine: Engine) -> None:
    add_refused_machines(
        engine,
        [
            ("ann", "mac", "date", 2, 3),
            ("ann", "mac", "body", 1, 9),
            ("", "", "date", 4, 1),
            ("", "", "token", 3, 100),
        ],
    )
    add_refused_machines(engine, [("cem", "pc", "date", 0.1, 2)], connection_id=7)

    def listed(part: Slice = FIRST, **chosen: Any) -> list[int]:
        with engine.connect() as connection:
            total, rows = refusal_queries.list_refused_machines(
                connection, Selection(**chosen), part
            )
        assert total >= len(rows)
        return [row.reports for row in rows]

    assert listed() == [2, 9, 3, 100, 1]
    assert listed(Slice("reports", 1, 2)) == [2, 3]
    for column in ("developer", "-host", "connection", "address", "collector", "first", "reason"):
        assert sorted(listed(Slice(column))) == [1, 2, 3, 9, 100]
    assert listed(reason="date", connection_id=1) == [3, 1]
    assert listed(text="MAC") == [9, 3]
    assert listed(text="192.0.2.3") == [100]
    with engine.connect() as connection:
        count = refusal_queries.count_refused_machines(connection, 1, ["token"])
        [newest, older] = refusal_queries.refusals_of(connection, MachineKey(1, "ann", "mac"))
    assert count == 2
    assert (newest.message, older.message) == ("the body of ann", "the date of ann")


def test_hours_and_tools_are_counted_between_two_days(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = date(2026, 11, 23)
    days = [day - timedelta(days=back) for back in range(4)]
    add_days(engine, [("ann", each, 5, ["git", 'a "b" \\ <c>']) for each in days])
    add_days(engine, [("bea", each, 8, ["git"]) for each in days[:2]])
    add_days(engine, [("cem", days[0], 5, [])], connection_id=7)

    with engine.connect() as connection:
        hours = day_queries.hours(connection, Period(days[2], days[0]))
        tools = day_queries.tools(connection, Period(days[1], days[0]))
        of_seven = day_queries.hours(connection, Period(days[3], days[0], 7))
        work = day_queries.count_work(connection, Period(days[1], days[0]))

    assert hours == {days[2]: {5: 1}, days[1]: {5: 1, 8: 1}, days[0]: {5: 2, 8: 1}}
    assert tools == (5, (("git", 4), ('a "b" \\ <c>', 2)))
    assert of_seven == {days[0]: {5: 1}}
    assert work == (5, 3)
    monkeypatch.setattr(day_queries, "TOOL_ROWS", 3)
    with engine.connect() as connection:
        assert day_queries.tools(connection, Period(days[3], days[0])) == (
            3,
            (("git", 2), ('a "b" \\ <c>', 1)),
        )


def test_days_of_work_are_listed_by_period_and_tool(engine: Engine) -> None:
    day = date(2026, 11, 23)
    days = [day - timedelta(days=back) for back in range(3)]
    add_days(engine, [("ann", each, 5, ["git", "vim"]) for each in days])
    add_days(engine, [("bea", days[0], 8, ["git"])])
    add_days(engine, [("cem", days[0], 5, ["vim"])], connection_id=7)

    def listed(
        period: Period, tool: str = "", part: Slice = FIRST
    ) -> tuple[int, list[tuple[str, date]]]:
        with engine.connect() as connection:
            total, rows = day_queries.list_days(connection, period, tool, part)
        return total, [(row.developer_id, row.day) for row in rows]

    assert listed(Period(days[0], days[0])) == (
        3,
        [("ann", days[0]), ("bea", days[0]), ("cem", days[0])],
    )
    assert listed(Period(days[2], days[0], 7)) == (1, [("cem", days[0])])
    assert listed(Period(days[1], days[0]), "vim", Slice("-connection", size=2))[0] == 3
    assert listed(Period(days[2], days[0]), part=Slice("day", 0, 1)) == (5, [("ann", days[2])])
    for column in ("developer", "arrived", "-day"):
        assert listed(Period(days[2], days[0]), "git", Slice(column))[0] == 4


@pytest.mark.parametrize("people", [4, 5])
def test_five_people_are_not_few(engine: Engine, people: int) -> None:
    week = date(2026, 11, 16)
    days = [week + timedelta(days=number) for number in range(7)]
    rows = [(f"dev {who}", day, 6, ["git"]) for who in range(people) for day in days]
    add_days(engine, rows)
    # Of another connection: the same people, and one without active hours.
    add_days(engine, rows, connection_id=7)
    add_days(engine, [("idle", days[0], 0, [])])
    period = Period(week, days[-1])

    with engine.connect() as connection:
        few = day_queries.has_few_people(connection, period, 2)
        few_of_one = day_queries.has_few_people(connection, period._replace(connection_id=7), 2)

    assert (few, few_of_one) == (people < 5, people < 5)


def test_a_machines_reports_are_counted_by_day_under_all_its_names(engine: Engine) -> None:
    key = MachineKey(1, "ann", "anns-mac")
    reports = [
        arrival(after=1, developer="ann", date="2026-11-20", hostname="Anns-Mac.local"),
        arrival(after=2, developer="ann", date="2026-11-20", hostname="anns-mac"),
        arrival(after=3, developer="ann", date="2026-11-21", hostname="anns-mac"),
        arrival(after=4, developer="ann", date="2026-11-21", hostname="other"),
        arrival(after=5, developer="bea", date="2026-11-21", hostname="anns-mac"),
    ]
    store(engine, reports, {1: "overwrite"})

    with engine.connect() as connection:
        days = fleet_queries.machine_days(connection, key, date(2026, 11, 1), date(2026, 11, 30))

    assert [(day.day.day, day.reports) for day in days] == [(21, 1), (20, 2)]


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
