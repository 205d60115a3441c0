"""The evidence that sources report to the store: counts and names at moments, nothing else."""

from __future__ import annotations

import time
from typing import NamedTuple


class Moment(NamedTuple):
    """A local day, as YYYY-MM-DD, and a clock hour of it."""

    day: str
    hour: int


def local_moment(seconds: float) -> Moment:
    """Return the day and hour that clocks of this machine's time zone show."""
    local = time.localtime(seconds)
    return Moment(time.strftime("%Y-%m-%d", local), local.tm_hour)


def moment_at_offset(seconds: int, offset: str) -> Moment:
    """Return the day and hour at an offset from UTC such as `+0530`, as git writes it."""
    sign = -1 if offset.startswith("-") else 1
    minutes = sign * (int(offset[1:3]) * 60 + int(offset[3:5]))
    local = time.gmtime(seconds + minutes * 60)
    return Moment(time.strftime("%Y-%m-%d", local), local.tm_hour)


class Commit(NamedTuple):
    """A commit of the user.

    A rewritten commit has the second of its author and its ordinal among the commits of that second
    in one line of history in common with what it replaces: together they are its identity.
    """

    repository: str
    authored: int
    ordinal: int
    id: str
    at: Moment
    lines_added: int
    lines_deleted: int
    files_changed: int


class Command(NamedTuple):
    """Uses of one command of the fixed list in one second, from one history."""

    source: str
    second: int
    name: str
    uses: int
    at: Moment
    tool: str
    run: str = ""


class Repository(NamedTuple):
    """A repository on this machine; `key` is its common git folder and never leaves the store."""

    key: str
    name: str
    path: str
