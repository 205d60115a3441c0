"""Reports whose senders wait for an answer, their deadlines, and the threads for batches."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Optional

from developer_telemetry.errors import TelemetryError
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.reports.limits import BATCH_CHARACTERS, BATCH_REPORTS

# A report that has waited so long is spooled, while there is time to answer; a receiver that stops
# does not wait much longer.
RESCUE_SECONDS = 4.0
# Collectors wait 30 s for an answer.
ANSWER_SECONDS = 20.0
# The pause between two checks of the deadlines.
TICK_SECONDS = 0.1

# Called on the event loop: with None once the report is durable, or with the error.
Done = Callable[[Optional[TelemetryError]], None]


class PendingReport:
    """A report whose sender waits for the answer."""

    __slots__ = ("answered", "arrival", "characters", "done", "since", "strategy")

    def __init__(self, arrival: ReceivedReport, strategy: str, done: Done) -> None:
        self.arrival = arrival
        self.strategy = strategy
        self.done = done
        self.characters = len(arrival.report.payload)
        self.since = time.monotonic()
        self.answered = False


class Deadlines:
    """Spools reports that wait too long, and answers those that still wait; on the event loop."""

    def __init__(
        self, rescue: Callable[[PendingReport], None], give_up: Callable[[PendingReport], None]
    ) -> None:
        self._rescue = rescue
        self._give_up = give_up
        # Both are in order of arrival, so only the oldest is checked.
        self._waiting: dict[PendingReport, None] = {}
        self._rescued: dict[PendingReport, None] = {}
        self._timer: Optional[asyncio.TimerHandle] = None

    def watch(self, waiting: PendingReport) -> None:
        """Watch a report until `forget`."""
        self._waiting[waiting] = None
        if self._timer is None:
            self._check()

    def forget(self, answered: PendingReport) -> None:
        """Forget a report, whose memory is freed soonest so."""
        self._waiting.pop(answered, None)
        self._rescued.pop(answered, None)

    def _check(self) -> None:
        now = time.monotonic()
        for waiting in _overdue(self._waiting, now - RESCUE_SECONDS):
            self._rescue(waiting)
            self._rescued[waiting] = None
        for waiting in _overdue(self._rescued, now - ANSWER_SECONDS):
            self._give_up(waiting)
        self._timer = None
        if self._waiting or self._rescued:
            self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._check)


def _overdue(reports: dict[PendingReport, None], before: float) -> Iterator[PendingReport]:
    """Remove and yield the reports that wait since `before`."""
    while (oldest := next(iter(reports), None)) is not None and oldest.since <= before:
        del reports[oldest]
        yield oldest


class BatchWorker:
    """A queue whose items one thread handles in batches of limited size."""

    def __init__(self, handle: Callable[[Sequence[PendingReport]], None], name: str) -> None:
        self._handle = handle
        self._queue: queue.SimpleQueue[Optional[PendingReport]] = queue.SimpleQueue()
        # A daemon, since a database that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, item: PendingReport) -> None:
        self._queue.put(item)

    def stop(self, seconds: float) -> list[PendingReport]:
        """Handle the queued items for at most `seconds`; return the others."""
        self._queue.put(None)
        self._thread.join(seconds)
        left: list[PendingReport] = []
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return left
            if item is not None:
                left.append(item)

    def _run(self) -> None:
        while True:
            batch, ended = self._next()
            if batch:
                self._handle(batch)
            if ended:
                return

    def _next(self) -> tuple[list[PendingReport], bool]:
        batch: list[PendingReport] = []
        characters = 0
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            characters += item.characters
            if len(batch) >= BATCH_REPORTS or characters >= BATCH_CHARACTERS:
                return batch, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True
