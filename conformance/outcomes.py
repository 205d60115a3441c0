"""The trials and their outcomes."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Optional

import httpx

# Set to end early: no further step starts then.
STOP = threading.Event()
OK = "ok"
LEFT_OUT = "left out"
FAILED = "FAILED"


class Unmet(Exception):
    """A step's result differs from the expected one; the message names both."""


# The errors of a busy or broken machine fail one step, and the others still run.
_UNMET = (Unmet, AssertionError, OSError, httpx.TransportError, subprocess.SubprocessError)


class LeftOut(Exception):
    """A step can't be tried here; the message is the reason."""


class Outcome(NamedTuple):
    """The outcome of one step: `OK`, `LEFT_OUT` or `FAILED`, and a remark."""

    what: str
    how: str
    remark: str = ""


class Outcomes(list[Outcome]):
    """The outcomes of steps in their order, printed immediately; one column."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title

    @contextmanager
    def record_outcome(self, what: str) -> Iterator[list[str]]:
        """Record the outcome of the block; the texts appended to the list become the remark."""
        if STOP.is_set():
            raise KeyboardInterrupt
        remarks: list[str] = []
        how = FAILED
        try:
            yield remarks
            how = OK
        except LeftOut as reason:
            how = LEFT_OUT
            remarks.append(str(reason))
        except _UNMET as error:
            remarks.append(f"{type(error).__name__}: {error}" if str(error) else repr(error))
        finally:
            self.note(Outcome(what, how, "; ".join(remarks)))

    def run(self, what: str, step: Callable[[], Optional[str]]) -> None:
        """Record the outcome of a step; a text that it returns becomes the remark."""
        with self.record_outcome(what) as remarks:
            remark = step()
            if remark:
                remarks.append(remark)

    def note(self, outcome: Outcome) -> None:
        self.append(outcome)
        remark = f": {outcome.remark}" if outcome.remark else ""
        print(f"{self.title}: {outcome.what}: {outcome.how}{remark}", flush=True)


class Table(NamedTuple):
    """Trials of the same steps in several places, each of which is a column."""

    title: str
    columns: list[Outcomes]
    text: str = ""


def failures(tables: Sequence[Table]) -> list[str]:
    return [
        f"{table.title}: {column.title}: {item.what}"
        for table in tables
        for column in table.columns
        for item in column
        if item.how == FAILED
    ]
