"""Test what an address of the page selects, and the tables and files that show it."""

from __future__ import annotations

import csv
import io
from datetime import date, datetime, timezone
from urllib.parse import parse_qsl

import pytest

from developer_telemetry.receiver.web.data.day_queries import Day
from developer_telemetry.receiver.web.data.fleet_queries import Machine
from developer_telemetry.receiver.web.listing import (
    Listing,
    day_columns,
    machine_address,
    machine_columns,
    make_file,
)
from developer_telemetry.receiver.web.problems import FleetFacts, find_problems
from developer_telemetry.receiver.web.selection import Selection, parse_selection
from developer_telemetry.receiver.web.templating import format_change
from developer_telemetry.reports.collectors import find_outdated, parse_collector

DAY = date(2026, 11, 23)
SEEN = datetime(2026, 11, 23, 20, 26, 40, 123456, tzinfo=timezone.utc)


def test_an_address_leads_back_to_its_selection() -> None:
    selection = Selection(3, 91, "ann & bob", "quiet", "date", "git", DAY, DAY, "-seen", 2)
    address = selection.address("days", page=2)

    assert parse_selection(dict(parse_qsl(address.partition("?")[2]))) == selection
    assert selection.base == Selection(connection_id=3, days=91)
    assert Selection(page=5).address("./", sort="host") == "./?sort=host"
    assert Selection().address("./") == "./"


@pytest.mark.parametrize(
    "field",
    ["connection=-1", "connection=" + "9" * 19, "days=8", "state=x", "from=2026-02-30", "page=x"],
)
def test_a_field_that_is_invalid_selects_all(field: str) -> None:
    name, _, value = field.partition("=")

    assert parse_selection({name: value, "q": " \x00 "}) == Selection()


def test_days_to_list_are_limited() -> None:
    today = date(2026, 11, 29)

    assert Selection().listed_days(today) == (date(2026, 11, 23), today)
    assert Selection(first=date(2025, 1, 1), last=DAY).listed_days(today) == (
        date(2026, 11, 17),
        DAY,
    )
    assert Selection(first=DAY, last=date(2027, 1, 1)).listed_days(today) == (DAY, today)
    assert Selection(tool="git").listed_days(today) == (date(2026, 11, 2), today)


def test_columns_sort_both_ways() -> None:
    selection = Selection(connection_id=2, page=3)
    columns = machine_columns({2: "fleet"})
    listing = Listing("machines", "./", columns, [], 45, selection, "-seen")
    developer, _, _, seen, *_ = columns

    assert (listing.pages, listing.first) == (3, 41)
    assert (listing.direction(seen), listing.direction(developer)) == ("descending", "none")
    assert listing.sort_address(developer) == "./?connection=2&sort=developer#machines"
    assert listing.page_address(2) == "./?connection=2&page=2#machines"
    ascending = listing._replace(selection=Selection(sort="developer"))
    assert ascending.direction(developer) == "ascending"
    assert ascending.sort_address(developer) == "./?sort=-developer#machines"
    assert ascending.file_address == "machines.csv?sort=developer"


def test_a_file_has_the_columns_and_no_formula() -> None:
    rows = [
        Machine(2, "=1+1", 'a"b,c', None, SEEN, 7, "collector/1", None),
        Machine(9, "ann\nlee", "", SEEN, SEEN, 7, "", SEEN),
    ]

    lines = list(csv.reader(io.StringIO(make_file(machine_columns({2: "fleet"}), rows).decode())))

    moment = "2026-11-23T20:26:40Z"
    assert lines == [
        ["developer", "host", "connection", "seen", "reports", "collector", "first", "retired"],
        ["'=1+1", 'a"b,c', "fleet", moment, "7", "collector/1", "", ""],
        ["ann\nlee", "unnamed", "deleted (id 9)", moment, "7", "", moment, moment],
    ]


def test_a_days_row_leads_to_its_developers_newest_machine() -> None:
    day = Day(2, "ann & bob", DAY, SEEN)

    assert machine_address(day) == "machine?connection=2&developer=ann+%26+bob"
    assert "hours" not in {column.key for column in day_columns({})}


@pytest.mark.parametrize(
    ("machines", "outdated"),
    [
        ({"collector/1.9": 5, "collector/1.10": 5}, ["collector/1.9"]),
        ({"collector/1.0 (Linux)": 5, "Collector/1": 5}, []),
        ({"collector/1.1": 2, "other/1.2": 3}, []),
        # A trial on a few machines does not make all others old.
        ({"collector/1.1": 50, "collector/2.0": 5, "collector/1.0": 1}, ["collector/1.0"]),
        ({"curl/7.1": 5, "curl/8.5.0": 5, "": 4, "no version": 3, "a/x": 1}, []),
    ],
    ids=["numbers", "equal", "others", "trial", "clients"],
)
def test_old_collectors_are_found(machines: dict[str, int], outdated: list[str]) -> None:
    assert list(find_outdated(machines)) == outdated


def test_a_user_agent_of_any_length_is_read() -> None:
    assert parse_collector("a/" + "1" * 5000) is not None
    assert parse_collector("a" * 5000) is None


def test_problems_lead_to_their_rows() -> None:
    facts = FleetFacts(5, 2, 3, 40, "date is not YYYY-MM-DD", 1)
    problems = find_problems(facts, Selection(connection_id=2))

    assert [problem.title for problem in problems] == [
        "3 machines refused in the last 14 days",
        "5 machines quiet for 7 days or more",
        "1 machine with an old collector",
    ]
    assert problems[0].detail == "Most frequent reason: date is not YYYY-MM-DD."
    assert [problem.address for problem in problems] == [
        "refused?connection=2",
        "./?connection=2&state=quiet#machines-title",
        "./?connection=2&state=outdated#machines-title",
    ]
    [unknown] = find_problems(FleetFacts(0, 0, 0, 40, "token is missing or wrong", 0), Selection())
    assert unknown.title == "40 reports refused in the last 7 days"
    assert find_problems(FleetFacts(0, 0, 0, 0, "", 0), Selection()) == []


@pytest.mark.parametrize(
    ("now", "before", "text"),
    [
        (104, 100, "4\N{NO-BREAK SPACE}% more than the week before"),
        (1, 3, "67\N{NO-BREAK SPACE}% fewer than the week before"),
        (9999, 10000, "1\N{NO-BREAK SPACE}% fewer than the week before"),
        (0, 12, "12 the week before"),
        (12, 0, "0 the week before"),
        (5000, 1000, "1,000 the week before"),
        (7, 7, "as many as the week before"),
    ],
)
def test_a_trend_is_in_words(now: int, before: int, text: str) -> None:
    assert format_change(now, before) == text
