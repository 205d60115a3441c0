"""Reports whose senders wait for the answer, and how long they do."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Optional

from developer_telemetry.errors import TelemetryError
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.reports.limits import BATCH_CHARACTERS, BATCH_REPORTS

# A report that waited so long goes to the spool, while there is time to answer: also when the
# receiver was just told to stop, which it does not put off for much longer.
RESCUE_SECONDS = 4.0
# Collectors give up after 30 s, so an answer has to come before.
ANSWER_SECONDS = 20.0
# How often deadlines are looked at.
TICK_SECONDS = 0.1

# Called on the event loop: with None once the report is durable, or with why it can't be promised.
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
    """Calls for help when a report has waited too long; lives on the event loop."""

    def __init__(
        self, rescue: Callable[[PendingReport], None], give_up: Callable[[PendingReport], None]
    ) -> None:
        self._rescue = rescue
        self._give_up = give_up
        # Each in the order in which they came, so only the oldest has to be looked at.
        self._waiting: deque[PendingReport] = deque()
        self._rescued: deque[PendingReport] = deque()
        self._timer: Optional[asyncio.TimerHandle] = None

    def watch(self, waiting: PendingReport) -> None:
        """Look after a report until it is answered."""
        self._waiting.append(waiting)
        if self._timer is None:
            self._look()

    def _look(self) -> None:
        now = time.monotonic()
        for waiting in _overdue(self._waiting, now - RESCUE_SECONDS):
            self._rescue(waiting)
            self._rescued.append(waiting)
        for waiting in _overdue(self._rescued, now - ANSWER_SECONDS):
            self._give_up(waiting)
        self._timer = None
        if self._waiting or self._rescued:
            self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._look)


def _overdue(reports: deque[PendingReport], before: float) -> Iterator[PendingReport]:
    """Take those from the front that wait since `before`, and leave out who has the answer."""
    while reports and (reports[0].answered or reports[0].since <= before):
        waiting = reports.popleft()
        if not waiting.answered:
            yield waiting


class BatchWorker:
    """A queue whose items one thread handles: all that wait together, within bounds."""

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
        """Handle what is there, waiting for at most `seconds`; return what is left."""
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
