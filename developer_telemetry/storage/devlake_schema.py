"""TODO."""

from __future__ import annotations

from typing import NamedTuple

from developer_telemetry.database.domain_texts import EXACTLY, TableTexts, hashed

MAX_ID = 255


def account_id(connection_id: int, developer_id: str, texts: TableTexts = EXACTLY) -> str:
    """The account's id in the domain layer; a developer that it can't hold exactly is hashed."""
    prefix = f"developer_telemetry:Account:{connection_id}:"
    key = texts.key(developer_id)
    return prefix + (key if len(prefix) + len(key) <= MAX_ID else hashed(developer_id))


class Kind(NamedTuple):
    """A kind of task: its number's column, DevLake's type of it, its id's and its name's word."""

    column: str
    type: str
    identity: str
    noun: str


KINDS = (
    Kind("test_runs", "TEST", "TestRuns", "test run"),
    Kind("builds", "BUILD", "Builds", "build"),
)


def task_id(
    kind: Kind,
    connection_id: int,
    developer_id: str,
    date: str,
    texts: TableTexts = EXACTLY,
) -> str:
    """The task's id in the domain layer; a developer that it can't hold exactly is hashed."""
    prefix = f"developer_telemetry:{kind.identity}:{connection_id}"
    key = texts.key(developer_id)
    if len(prefix) + len(key) + len(date) + 2 > MAX_ID:
        key = hashed(developer_id)
    return f"{prefix}:{key}:{date}"
