"""Numbers in texts, as countries and programs write them."""

from __future__ import annotations

from typing import Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from developer_telemetry.reports.numerals import read_number
from tests.support.factories import body, row_of

WHOLE = {
    "7": 7,
    " 07 ": 7,
    "-3": -3,
    "+3": 3,
    "\u22123": -3,
    "0": 0,
    "1e3": 1000.0,
    "2.5": 2.5,
    "1.234": 1234,
    "1,234": 1234,
    "12 345": 12345,
    "12\u202f345": 12345,
    "1_234": 1234,
    "1'234": 1234,
    "1\u2019234": 1234,
    "1.234.567": 1234567,
    "12,34,567": 1234567,
    "1.234,5": 1234.5,
    "1,234.5": 1234.5,
    "1 234,5": 1234.5,
    "1'234.50": 1234.5,
    "3,5": 3.5,
    "0.125": 0.125,
    "0,125": 0.125,
    "1234,5": 1234.5,
    "1234.567": 1234.567,
    "3.": None,
    "\u0661\u0662\u0663": 123,
    "\u0663\u066b\u0665": 3.5,
    "\u0661\u066c\u0662\u0663\u0664": 1234,
    "\uff11\uff12\uff0e\uff15": 12.5,
    "9" * 400: float("inf"),
}
UNREAD = (
    *("", " ", "eight", "3 h", "3h", "50%", "1.23.4", "1,2,3", "1 2", "12 34", "1'23", "1.234.56"),
    *(
        "nan",
        "NaN",
        "inf",
        "Infinity",
        "-",
        "--3",
        "3-4",
        "1..2",
        ".",
        ",5",
        "0x10",
        "1e",
        "½",
        "²",
    ),
    *("1 234 56", "1.234 567", "1,234.567,8", "1234.567.890", "3,", "\u0661\u066b"),
)


@pytest.mark.parametrize("text", WHOLE)
def test_a_number_is_read_as_it_is_written_anywhere(text: str) -> None:
    assert read_number(text, is_whole=True) == WHOLE[text]


@pytest.mark.parametrize("text", UNREAD)
def test_what_is_no_number_or_may_be_two_is_not_read(text: str) -> None:
    assert read_number(text, is_whole=True) is None


@pytest.mark.parametrize(
    ("text", "hours"),
    [("1.234", 1.234), ("1,234", 1.234), ("3,5", 3.5), ("7", 7), ("1.234,5", 1234.5)],
)
def test_of_hours_a_fraction_is_likelier_than_thousands(text: str, hours: float) -> None:
    assert read_number(text, is_whole=False) == hours


@given(st.one_of(st.text(max_size=80), st.text(alphabet="0123456789.,' -+e", max_size=80)))
def test_any_text_is_a_number_or_none(text: str) -> None:
    number = read_number(text, is_whole=True)

    assert number is None or number == number


@given(st.integers(-(10**15), 10**15), st.sampled_from([",", ".", " ", "'", "\u202f"]))
def test_a_whole_number_in_groups_is_itself(number: int, sign: str) -> None:
    assert read_number(f"{number:,}".replace(",", sign), is_whole=True) == number


@pytest.mark.parametrize(
    ("fields", "remark"),
    [
        ({"active_hours": "eight"}, "unread: active_hours"),
        ({"active_hours": True}, "unread: active_hours"),
        ({"commands": {"git": [3]}}, "unread: commands"),
        (
            {"git_activity": {"repositories": [{"name": "a", "commits": "x"}]}},
            "unread: git_activity",
        ),
        ({"development_activity": {"test_runs_detected": {}}}, "unread: development_activity"),
        ({"git_commits": "some", "active_hours": "x"}, "unread: active_hours, git_activity"),
        ({"active_hours": "3,5", "commands": {"git": None, "go": ""}}, ""),
        ({"active_hours": 30, "git_activity": {"total_commits": -1}}, ""),
    ],
)
def test_a_row_names_the_fields_with_unread_numbers(fields: dict[str, object], remark: str) -> None:
    assert row_of(body(**fields)).raw_data_remark == remark


def test_a_sum_names_the_unread_fields_of_each_host() -> None:
    one: dict[str, Union[str, int]] = {"hostname": "a", "active_hours": "x"}
    row = row_of(body(**one), body(hostname="b", commands={"git": "y"}), body(hostname="c"))

    assert row.raw_data_remark == "unread: active_hours, commands"
