"""Limits of a report, and of the row made of it."""

from __future__ import annotations

from typing import NamedTuple

KIBIBYTE = 1 << 10
MEBIBYTE = 1 << 20


class Limit(NamedTuple):
    """The bytes that a body may have as sent, and inflated."""

    sent: int
    inflated: int


# A collector's body is about 2 kB; a long day in a hundred repositories stays below 100.
ONE_REPORT = Limit(sent=MEBIBYTE, inflated=4 * MEBIBYTE)
MANY_REPORTS = Limit(sent=5 * MEBIBYTE, inflated=64 * MEBIBYTE)
# One transaction: enough reports to share the cost of a commit, few enough to answer soon.
BATCH_REPORTS = 256
BATCH_CHARACTERS = 1 << 20

# A row of the tool layer is one statement's parameter, a cell of a dashboard and a value in every
# process that reads or adds up days; the raw layer keeps the whole body, whatever it holds.

# Names in one list of a row, or keys of one object. A developer's day has tens of them; a team
# under one name had some hundred.
MAX_NAMES = 1 << 15
# Characters of these names together. A row has five such columns; with each character escaped in
# JSON and once more in SQL (`\\u0001`) its statement stays below 10 MiB, and the smallest
# `max_allowed_packet` in use is 16 MiB: a longer row could never be stored.
MAX_CHARACTERS = 1 << 18
# So many names of the longest kind fit in any case and need not be counted.
SURE_NAMES = MAX_CHARACTERS // 256


class Room:
    """The remaining bounds while names are collected, until the first that does not fit."""

    __slots__ = ("_characters", "_names", "full")

    def __init__(self) -> None:
        self._names = MAX_NAMES
        self._characters = MAX_CHARACTERS
        self.full = False

    def take(self, name: str) -> bool:
        """Return true if a further name fits, and count it then."""
        self._names -= 1
        self._characters -= len(name)
        self.full = self.full or self._names < 0 or self._characters < 0
        return not self.full
