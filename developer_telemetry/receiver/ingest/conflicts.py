"""Days whose reports wait in the spool, since the database can't store theirs alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from developer_telemetry.database.dialects.base import SEPARATOR
from developer_telemetry.storage.raw_reports import Key

# The pauses between two attempts; each is twice as long as the one before.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
# A group that is due for so long has no waiting report, or no report can be stored at all.
FORGOTTEN_SECONDS = 60.0


def day_group(key: Key) -> str:
    """Return the name of the group of all reports of one tool row."""
    return SEPARATOR.join(map(str, key))


class _Pause(NamedTuple):
    until: float
    seconds: float


class Conflicts:
    """Groups of reports (those of a day, or a single one) and the time of the next attempt.

    The receiver spools the reports of these groups, and only the drainer stores them. Every method
    may be called from any thread.
    """

    def __init__(self) -> None:
        self._pauses: dict[str, _Pause] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pauses)

    def __contains__(self, group: str) -> bool:
        return group in self._pauses

    def postpone(self, groups: Iterable[str]) -> int:
        """Pause groups, longer than the last time; return how many are new."""
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

    def retry_soon(self, groups: Iterable[str]) -> None:
        """Add groups that the drainer may try immediately."""
        now = time.monotonic()
        with self._lock:
            for group in groups:
                self._pauses.setdefault(group, _Pause(now, FIRST_PAUSE_SECONDS / 2))

    def release(self, groups: Iterable[str]) -> list[str]:
        """Remove groups whose reports can be stored; return those that were waiting."""
        if not self._pauses:
            return []
        with self._lock:
            return [group for group in groups if self._pauses.pop(group, None) is not None]

    def is_paused(self, group: str) -> bool:
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
