"""Reports that wait for the database, written by one thread in shared transactions."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections.abc import Sequence
from typing import NamedTuple, Optional

from sqlalchemy.engine import Engine
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from developer_telemetry.connections import Connection
from developer_telemetry.dialects import now_us
from developer_telemetry.errors import Unavailable
from developer_telemetry.merging import Arrival
from developer_telemetry.receiver.tallies import Tallies
from developer_telemetry.reports import Report
from developer_telemetry.storage import store

# One transaction: enough reports to share the cost of a commit, few enough to answer soon.
BATCH_REPORTS = 256
BATCH_CHARACTERS = 1 << 20
# What may wait for the writer; beyond it a sender is told to come back.
MAX_WAITING = 5_000
MAX_WAITING_CHARACTERS = 64 << 20
# Collectors give up after 30 s, so an answer has to come before.
ANSWER_SECONDS = 25.0

logger = logging.getLogger(__name__)


class Waiting(NamedTuple):
    """A report whose sender waits for the answer."""

    arrival: Arrival
    strategy: str
    stored: asyncio.Future[None]

    @property
    def characters(self) -> int:
        return len(self.arrival.report.payload)


class Ingest:
    """Takes reports on the event loop, and returns when they are committed."""

    def __init__(self, engine: Engine, tallies: Tallies) -> None:
        self.clock_offset_us = 0
        self._engine = engine
        self._tallies = tallies
        self._queue: queue.SimpleQueue[Optional[Waiting]] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="writer")
        self._last_arrival_us = 0
        self._waiting = 0
        self._waiting_characters = 0
        self._loop: Optional[asyncio.AbstractEventLoop] = None

    def start(self) -> None:
        """Begin to write; called on the event loop that `keep` will run on."""
        self._loop = asyncio.get_running_loop()
        self._writer.start()

    def stop(self) -> None:
        """Write what was taken, then return."""
        self._queue.put(None)
        self._writer.join()

    async def keep(self, connection: Connection, report: Report) -> None:
        """Return once the report is committed; raise `Unavailable` if that can't be promised."""
        assert self._loop is not None, "start() comes first"
        characters = len(report.payload)
        full = (
            self._waiting >= MAX_WAITING
            or self._waiting_characters + characters > MAX_WAITING_CHARACTERS
        )
        if full:
            raise Unavailable("too many reports are waiting; send this one again")
        arrived_us = self._arrival_time()
        arrival = Arrival(report_id(arrived_us), connection.id, arrived_us, report)
        waiting = Waiting(arrival, connection.strategy, self._loop.create_future())
        self._waiting += 1
        self._waiting_characters += characters
        self._queue.put(waiting)
        done, _ = await asyncio.wait([waiting.stored], timeout=ANSWER_SECONDS)
        if not done:
            raise Unavailable("the database did not answer in time; send this report again")
        await waiting.stored

    def _arrival_time(self) -> int:
        # Never the same twice and never backwards, whatever the clock does.
        self._last_arrival_us = max(self._last_arrival_us + 1, now_us() + self.clock_offset_us)
        return self._last_arrival_us

    def _write(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            batch = [first]
            characters = first.characters
            stopping = False
            while len(batch) < BATCH_REPORTS and characters < BATCH_CHARACTERS:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    stopping = True
                    break
                batch.append(following)
                characters += following.characters
            self._store(batch)
            if stopping:
                return

    def _store(self, batch: Sequence[Waiting]) -> None:
        strategies = {each.arrival.connection_id: each.strategy for each in batch}
        arrivals = [each.arrival for each in batch]
        try:
            store(self._engine, arrivals, strategies)
        except SQLAlchemyError as error:
            if len(batch) > 1 and isinstance(error, (DataError, IntegrityError)):
                # One report must not fail its neighbours.
                middle = len(batch) // 2
                self._store(batch[:middle])
                self._store(batch[middle:])
                return
            logger.error("can't store %d reports: %s", len(batch), reason(error))
            self._answer(batch, Unavailable("the database can't take the report; send it again"))
        except Exception as error:  # the writer has to outlive whatever one batch does to it
            logger.exception("can't store %d reports", len(batch))
            self._answer(batch, Unavailable(f"the report could not be stored: {error}"))
        else:
            self._tallies.stored(arrivals)
            self._answer(batch, None)

    def _answer(self, batch: Sequence[Waiting], error: Optional[Unavailable]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._resolve, list(batch), error)

    def _resolve(self, batch: list[Waiting], error: Optional[Unavailable]) -> None:
        for waiting in batch:
            self._waiting -= 1
            self._waiting_characters -= waiting.characters
            if waiting.stored.done():
                continue  # the sender went away
            if error is None:
                waiting.stored.set_result(None)
            else:
                waiting.stored.set_exception(error)


def report_id(arrived_us: int) -> str:
    """A new UUID of version 7: its first 48 bits are the time in milliseconds."""
    random_bits = int.from_bytes(os.urandom(10), "big")
    value = (arrived_us // 1000 & (1 << 48) - 1) << 80 | random_bits
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def reason(error: SQLAlchemyError) -> str:
    """What the database said, without the statement and its parameters (they hold reports)."""
    original = getattr(error, "orig", None) or error
    return " ".join(str(original).split())
