# mypy: ignore-errors
"""Models as plugins for DevLake's own SDK write them: optional values without a default."""

import datetime
import re
from enum import Enum
from typing import Optional

from pydantic import SecretStr

from guestbook.migrations import *  # noqa: F403
from pydevlake import Connection, Field, ScopeConfig, ToolModel, ToolScope
from pydevlake.pipeline_tasks import RefDiffOptions


class GuestbookConnection(Connection):
    token: SecretStr
    organization: Optional[str]


class BookConfig(ScopeConfig):
    refdiff: Optional[RefDiffOptions]
    hidden_pattern: Optional[re.Pattern[str]]


class Book(ToolScope, table=True):
    # A JSON file with a list of entries, or the name of a way to misbehave.
    source: str
    opened_at: Optional[datetime.datetime]


class Entry(ToolModel, table=True):
    class Mood(Enum):
        Happy = "happy"
        Grumpy = "grumpy"

    id: int = Field(primary_key=True)
    guest: str = Field(source="/guest/name", max_length=100)
    mood: Optional[Mood]
    text: Optional[str] = Field(sa_column_kwargs={"name": "body"})
    written_at: Optional[datetime.datetime]
    stars: int = Field(source="/rating/stars", default=3)


class Reply(ToolModel, table=True):
    id: str = Field(primary_key=True)
    entry_id: int
    text: str
