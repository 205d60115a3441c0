"""Test what counts as an AI assistant, and how two accounts of a person become one day."""

from __future__ import annotations

from typing import Optional

import pytest

from developer_telemetry.database.domain_texts import EXACTLY
from developer_telemetry.pipeline.figure_rows import Day, People, uses_assistant
from developer_telemetry.storage.devlake_schema import make_account_id


@pytest.mark.parametrize(
    "text",
    [
        '["git", "claude"]',
        '["Claude Code"]',
        '["GitHub Copilot"]',
        '["cursor.exe"]',
        '{"ls": 3, "codex": 2}',
        '["gemini-cli"]',
        '["windsurf"]',
    ],
)
def test_an_assistant_is_a_name_of_its_own_or_the_first_word_of_one(text: str) -> None:
    assert uses_assistant(text)


@pytest.mark.parametrize(
    "text", [None, "", "[]", '["cursors"]', '["my-claude"]', '{"copilots": 1}', "no JSON"]
)
def test_other_names_are_no_assistants(text: Optional[str]) -> None:
    assert not uses_assistant(text)


def test_two_accounts_of_a_person_make_one_day() -> None:
    one = Day(
        20, frozenset([1]), frozenset("ab"), frozenset("t"), {"ls": 1, "cd": 2}, {"r": 3}, False, 1
    )
    other = Day(
        7, frozenset([2]), frozenset("bc"), frozenset("u"), {"ls": 4}, {"s": 5}, True, 2, builds=4
    )
    assert one.joined(other) == Day(
        hours=24,
        connections=frozenset([1, 2]),
        projects=frozenset("abc"),
        tools=frozenset("tu"),
        commands={"ls": 5, "cd": 2},
        repositories={"r": 3, "s": 5},
        has_assistant=True,
        commits=3,
        builds=4,
    )


def test_accounts_without_a_user_are_one_person_by_address_or_else_by_id() -> None:
    people = People([], {make_account_id(1, "ann"): "user"}, {}, {}, EXACTLY)
    assert people.find_person((1, "ann"), "ann@example.com") == "user"
    by_address = {people.find_person((1, "x"), "Bo@b.c"), people.find_person((2, "y"), "bo@b.c")}
    by_id = {people.find_person((1, "Cy"), ""), people.find_person((2, "cy"))}
    assert (len(by_address), len(by_id), len(by_address | by_id)) == (1, 1, 2)
