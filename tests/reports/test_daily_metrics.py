"""Test how the reports of one developer's day become one row."""

from __future__ import annotations

import itertools
import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from developer_telemetry.constants import strategy_of
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.reports.daily_metrics import (
    TOOL_COLUMNS,
    ReceivedReport,
    build_newest_row,
    build_raw_params,
    build_tool_row,
    format_timestamp,
    group_by_key,
)
from tests.support.examples import examples
from tests.support.factories import START_US, arrival

GIT_LAPTOP = {
    "total_commits": 2,
    "total_lines_added": 60,
    "repositories": [
        {"name": "billing", "commits": 1, "lines_added": 50, "branches_worked": ["main", "fix"]},
        {"name": "docs", "commits": 1, "lines_added": 10},
    ],
}
GIT_TOWER = {
    "total_commits": 5,
    "total_lines_deleted": 7,
    "repositories": [
        {"name": "billing", "commits": 5, "lines_deleted": 7, "branches_worked": ["fix", "next"]},
    ],
}


def test_row_of_one_report_carries_its_arrival_and_provenance() -> None:
    row = build_tool_row([arrival(connection_id=7, after=3600, raw_id=42)], START_US)
    assert row.connection_id == 7
    assert row.arrived_us == START_US + 3_600_000_000
    assert row.created_at == "2026-11-23 20:26:40.123"
    assert row.updated_at == "2026-11-23 21:26:40.123"
    assert row.raw_data_id == 42
    assert row.raw_data_params == '{"ConnectionId":7,"ScopeId":"all"}'
    assert row.raw_data_table == "_raw_developer_telemetry"
    assert row.raw_data_remark == ""


def test_provenance_columns_have_devlakes_names() -> None:
    assert TOOL_COLUMNS[-4:] == (
        "_raw_data_params",
        "_raw_data_table",
        "_raw_data_id",
        "_raw_data_remark",
    )
    assert not any(name.startswith("_") for name in TOOL_COLUMNS[:-4])


def test_hosts_are_added_up() -> None:
    row = build_tool_row(
        [
            arrival(
                hostname="tower",
                active_hours=5,
                tools_used=["vim", "git"],
                projects=["billing"],
                commands={"git": 5, "make": 1},
                git_activity=GIT_TOWER,
                development_activity={"test_runs_detected": 3},
            ),
            arrival(
                hostname="laptop",
                after=60,
                active_hours=4,
                tools_used=["git", "vscode"],
                projects=["docs", "billing"],
                commands={"git": 2, "npm": 4},
                git_activity=GIT_LAPTOP,
                development_activity={"test_runs_detected": 1, "build_commands_detected": 2},
            ),
        ],
        START_US,
    )
    assert row.hostname == "laptop"
    assert row.active_hours == 9
    assert (row.commits, row.lines_added, row.lines_deleted, row.files_changed) == (7, 60, 7, 0)
    assert (row.test_runs, row.builds) == (4, 2)
    # Lists are united in the order of hosts: the laptop's first.
    assert json.loads(row.tools_used) == ["git", "vscode", "vim"]
    assert json.loads(row.project_context) == ["docs", "billing"]
    assert json.loads(row.command_counts) == {"git": 7, "make": 1, "npm": 4}
    assert json.loads(row.development_activity) == {
        "test_runs_detected": 4,
        "build_commands_detected": 2,
    }
    assert json.loads(row.git_activity) == {
        "total_commits": 7,
        "total_lines_added": 60,
        "total_lines_deleted": 7,
        "total_files_changed": 0,
        "repositories": [
            {
                "name": "billing",
                "commits": 6,
                "lines_added": 50,
                "lines_deleted": 7,
                "files_changed": 0,
                "branches_worked": ["main", "fix", "next"],
            },
            {
                "name": "docs",
                "commits": 1,
                "lines_added": 10,
                "lines_deleted": 0,
                "files_changed": 0,
                "branches_worked": [],
            },
        ],
    }


def hours(*each: float) -> int:
    """The hours of a day on which each host reported so many."""
    hosts = [arrival(hostname=f"h{n}", active_hours=number) for n, number in enumerate(each)]
    return build_tool_row(hosts, START_US).active_hours


def test_hours_are_brought_into_range_once_after_adding() -> None:
    assert hours(37, -20) == 17
    assert hours(20, 20) == 24
    assert hours(-5, 3) == 0


def test_fractions_are_rounded_once_after_adding() -> None:
    assert hours(0.4, 0.4, 0.4) == 1
    assert hours(1.5, 1.5) == 3
    assert hours(2.5) == 3


def test_fractions_add_up_to_the_same_in_any_order() -> None:
    # Added from left to right, the large ones would swallow some of the others.
    shares = [0.1, 0.7, -0.3, 1e15, -1e15]
    assert {hours(*order) for order in itertools.permutations(shares)} == {1}


def test_who_it_is_comes_from_the_newest_report_that_says_so() -> None:
    row = build_tool_row(
        [
            arrival(hostname="a", after=1, email="old@example.com", name="Old", os_info="Linux"),
            arrival(hostname="b", after=2, email="new@example.com", name="", os_info="macOS"),
            arrival(hostname="c", after=3, email="", name=""),
        ],
        START_US,
    )
    assert (row.email, row.name, row.hostname) == ("new@example.com", "Old", "c")
    assert row.os_info == "{}"


def test_an_equal_arrival_is_decided_by_the_raw_id() -> None:
    twins = [arrival(hostname="a", raw_id=10), arrival(hostname="b", raw_id=9)]
    assert build_tool_row(twins, START_US).hostname == "a"
    assert build_tool_row(twins[::-1], START_US).raw_data_id == 10


@pytest.mark.parametrize(
    ("epoch_us", "text"),
    [
        (0, "1970-01-01 00:00:00.000"),
        (1_795_465_600_999_999, "2026-11-23 20:26:40.999"),
        (1_795_465_600_000_999, "2026-11-23 20:26:40.000"),
        (-1, "1969-12-31 23:59:59.999"),
    ],
)
def test_times_are_cut_to_milliseconds_in_utc(epoch_us: int, text: str) -> None:
    assert format_timestamp(epoch_us) == text


@pytest.mark.parametrize("text", [None, "", " ", "overwrite", " OverWrite "])
def test_overwrite_is_the_default_strategy(text: str | None) -> None:
    assert strategy_of(text) == "overwrite"


def test_sum_is_the_other_strategy() -> None:
    assert strategy_of("Sum") == "sum"


def test_an_unknown_strategy_is_told_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"'add'.*'overwrite' or 'sum'"):
        strategy_of("add")


def test_params_are_spelled_as_devlake_spells_them() -> None:
    assert build_raw_params(12) == '{"ConnectionId":12,"ScopeId":"all"}'


def test_grouping_keeps_connections_developers_and_dates_apart() -> None:
    mixed = [
        arrival(connection_id=2, developer="bob"),
        arrival(connection_id=1, developer="bob", date="2026-11-24"),
        arrival(connection_id=1, developer="bob"),
        arrival(connection_id=1, developer="Bob"),
    ]
    assert list(group_by_key(mixed)) == [
        (1, "Bob", "2026-11-23"),
        (1, "bob", "2026-11-23"),
        (1, "bob", "2026-11-24"),
        (2, "bob", "2026-11-23"),
    ]


NUMBERS = st.integers(-50, 50) | st.floats(-50, 50) | st.just(10**15)
NAMES = st.lists(st.sampled_from(["git", "vim", "go", "é"]), max_size=4)


@st.composite
def days(draw: st.DrawFn) -> list[ReceivedReport]:
    """Reports of one day, of different hosts; some arrived in the same microsecond."""
    return [
        arrival(
            hostname=f"host-{number}",
            after=draw(st.integers(0, 2)),
            raw_id=number + 1,
            email=draw(st.sampled_from(["", "a@example.com", "b@example.com"])),
            name=draw(st.sampled_from(["", "Ann", "Anna"])),
            active_hours=draw(NUMBERS),
            tools_used=draw(NAMES),
            projects=draw(NAMES),
            commands=draw(st.dictionaries(st.sampled_from(["git", "go"]), NUMBERS)),
            git_activity={
                "total_commits": draw(NUMBERS),
                "repositories": [{"name": name, "commits": draw(NUMBERS)} for name in draw(NAMES)],
            },
        )
        for number in range(draw(st.integers(1, 5)))
    ]


@examples(100)
@given(days(), st.randoms(use_true_random=False))
def test_a_row_does_not_depend_on_the_order_of_its_reports(
    day: list[ReceivedReport], random: Random
) -> None:
    shuffled = list(day)
    random.shuffle(shuffled)
    assert build_tool_row(shuffled, START_US) == build_tool_row(day, START_US)


@examples(100)
@given(days(), st.randoms(use_true_random=False))
def test_the_newest_gives_the_row_whatever_the_order_and_however_often(
    day: list[ReceivedReport], random: Random
) -> None:
    newest = max(day, key=lambda report: (report.arrived_us, report.raw_id))
    first_us = min(report.arrived_us for report in day)
    again = [*day, *day]
    random.shuffle(again)
    [same_day] = group_by_key(again).values()
    assert build_newest_row(same_day) == build_tool_row([newest], first_us)
