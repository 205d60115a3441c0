"""Test what counts as an AI assistant, and how two accounts of a person become one day."""

from __future__ import annotations

from typing import Optional

import pytest

from developer_telemetry.pipeline.delivery_rows import Day, uses_assistant


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
    one = Day(20, frozenset("ab"), False, 1, 2, frozenset([1]))
    other = Day(7, frozenset("bc"), True, 3, 4, frozenset([2]))
    assert one.joined(other) == Day(24, frozenset("abc"), True, 4, 6, frozenset([1, 2]))
