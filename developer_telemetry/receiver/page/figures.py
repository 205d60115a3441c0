"""Figures that are read from the database at most every few seconds, however many look at them."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Callable, Generic, Optional, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.database import reason

T = TypeVar("T")

# A figure is read again after so many times as long as it took, at least: all of them together
# cost the database a few hundredths of one connection.
PAUSE_FACTOR = 100

logger = logging.getLogger(__name__)


class Threads:
    """A few threads for what waits for the database. Daemons, unlike those of an executor, since
    a database that hangs must not keep the process from ending."""

    def __init__(self, number: int, name: str) -> None:
        self._queue: queue.SimpleQueue[Optional[Callable[[], None]]] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name} {each}", daemon=True)
            for each in range(number)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives or raises on one of the threads."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(set_outcome: Callable[[Any], None], outcome: Any) -> None:
            if not future.done():
                set_outcome(outcome)

        def run() -> None:
            try:
                ended = partial(settle, future.set_result, work())
            except Exception as error:
                ended = partial(settle, future.set_exception, error)
            with suppress(RuntimeError):  # nobody waits once the loop is closed
                loop.call_soon_threadsafe(ended)

        self._queue.put(run)
        return await future

    def stop(self) -> None:
        """Begin nothing more, and wait for nothing."""
        for _ in self._threads:
            self._queue.put(None)

    def _run(self) -> None:
        while True:
            work = self._queue.get()
            if work is None:
                return
            work()


class Figure(Generic[T]):
    """What `read` gave last. It runs on one of `threads`, never twice at once, and is due again
    `seconds` after it ended, later if it took long. Lives on the event loop.

    `value` is None until it was read once, and stays when reading fails; `fault` says why it did.
    """

    def __init__(self, read: Callable[[], T], seconds: float, threads: Threads) -> None:
        self._read = read
        self._seconds = seconds
        self._threads = threads
        self._due_at = float("-inf")
        self._reading: Optional[asyncio.Future[None]] = None
        self.value: Optional[T] = None
        self.fault = ""

    def renew(self) -> Optional[asyncio.Future[None]]:
        """Have it read if that is due; what ends when that is done, None if it is not due."""
        if self._reading is not None:
            return self._reading
        if time.monotonic() < self._due_at:
            return None
        self._reading = asyncio.ensure_future(self._renew())
        return self._reading

    async def _renew(self) -> None:
        started = time.monotonic()
        try:
            self.value = await self._threads.run(self._read)
            self.fault = ""
        except SQLAlchemyError as error:
            self.fault = f"the database says: {reason(error)}"
        except Exception:  # the next look may go better
            logger.exception("a figure of the page could not be read")
            self.fault = "the receiver failed to read them; its log says why"
        finally:
            ended = time.monotonic()
            self._due_at = ended + max(self._seconds, PAUSE_FACTOR * (ended - started))
            self._reading = None


async def renewed(figures: Sequence[Figure[T]], patience: float) -> None:
    """Wait until these figures are as new as they should be, for at most `patience` seconds."""
    reading = [each for each in (figure.renew() for figure in figures) if each is not None]
    if reading:
        await asyncio.wait(reading, timeout=patience)
