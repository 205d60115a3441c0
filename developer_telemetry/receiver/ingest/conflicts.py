"""Days whose reports wait by themselves, since something is in the way of theirs alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from developer_telemetry.database.dialects.base import SEPARATOR
from developer_telemetry.storage.raw_reports import Key

# Between one try and the next; each pause is twice as long as the one before.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
# Of a day that is due for so long nothing waits any more, or nothing can be brought in at all.
FORGOTTEN_SECONDS = 60.0


def day_group(key: Key) -> str:
    """Name the group of all reports that one tool row stands for."""
    return SEPARATOR.join(map(str, key))


class _Pause(NamedTuple):
    until: float
    seconds: float


class Conflicts:
    """Groups of reports (those of a day, or a single one) and when each is tried again.

    While a group is here, its reports go to the spool, and only the drain tries them. Every method
    may be called from any thread.
    """

    def __init__(self) -> None:
        self._pauses: dict[str, _Pause] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pauses)

    def __contains__(self, group: str) -> bool:
        return group in self._pauses

    def hold(self, groups: Iterable[str]) -> int:
        """Let groups wait, longer than the last time; return how many didn't wait already."""
        now = time.monotonic()
        with self._lock:
            before = len(self._pauses)
            for group in groups:
                pause = self._pauses.get(group)
                seconds = FIRST_PAUSE_SECONDS
                if pause is not None:
                    seconds = min(2 * pause.seconds, LONGEST_PAUSE_SECONDS)
                self._pauses[group] = _Pause(now + seconds, seconds)
            return len(self._pauses) - before

    def suspect(self, groups: Iterable[str]) -> None:
        """Let groups wait until the drain has looked at them, which it may do at once."""
        now = time.monotonic()
        with self._lock:
            for group in groups:
                self._pauses.setdefault(group, _Pause(now, FIRST_PAUSE_SECONDS / 2))

    def release(self, groups: Iterable[str]) -> list[str]:
        """Nothing is in the way of these any more; return those of them that were waiting."""
        if not self._pauses:
            return []
        with self._lock:
            return [group for group in groups if self._pauses.pop(group, None) is not None]

    def pauses(self, group: str) -> bool:
        """Return true if it is too early to try a group again."""
        pause = self._pauses.get(group)
        return pause is not None and time.monotonic() < pause.until

    def due(self) -> list[str]:
        """Return the groups to try now; the longest overdue are released."""
        now = time.monotonic()
        with self._lock:
            due = [group for group, pause in self._pauses.items() if pause.until <= now]
            for group in due:
                if self._pauses[group].until + FORGOTTEN_SECONDS < now:
                    del self._pauses[group]
        return due
