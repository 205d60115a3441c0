"""Figures that are read from the database at most every few seconds, however many look at them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Callable, Generic, Optional, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.concurrency import DaemonThreads
from developer_telemetry.database.engine import reason

T = TypeVar("T")

# A figure is read again after so many times as long as it took, at least: all of them together
# cost the database a few hundredths of one connection.
PAUSE_FACTOR = 100

logger = logging.getLogger(__name__)


class CachedQuery(Generic[T]):
    """What `read` gave last. It runs on one of `threads`, never twice at once, and is due again
    `seconds` after it ended, later if it took long. Lives on the event loop.

    `value` is None until it was read once, and stays when reading fails; `fault` says why it did.
    """

    def __init__(self, read: Callable[[], T], seconds: float, threads: DaemonThreads) -> None:
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


async def refresh(figures: Sequence[CachedQuery[T]], patience: float) -> None:
    """Wait until these figures are as new as they should be, for at most `patience` seconds."""
    reading = [each for each in (figure.renew() for figure in figures) if each is not None]
    if reading:
        await asyncio.wait(reading, timeout=patience)
