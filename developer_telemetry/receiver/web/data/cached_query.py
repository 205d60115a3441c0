"""Results of database queries that many requests share and that are renewed every few seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Callable, Generic, Optional, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.concurrency import DaemonThreads
from developer_telemetry.database.error_texts import describe_error

T = TypeVar("T")

# The pause after a query is at least this many times as long as the query took, so that all queries
# together keep one database connection busy for a few hundredths of the time.
PAUSE_FACTOR = 100

logger = logging.getLogger(__name__)


class CachedQuery(Generic[T]):
    """The last result of a query, renewed on demand.

    The query runs on one of `threads`, never twice at once. Its next run is due `seconds` after its
    end, or later if it took long. All methods belong on the event loop.

    Attributes:
        value: the last result; None before the first one. A failure leaves it as it is.
        fault: why the last run failed, "" if it succeeded.
    """

    def __init__(self, read: Callable[[], T], seconds: float, threads: DaemonThreads) -> None:
        self._read = read
        self._seconds = seconds
        self._threads = threads
        self._due_at = float("-inf")
        self._running: Optional[asyncio.Future[None]] = None
        self.value: Optional[T] = None
        self.fault = ""

    def renew(self) -> Optional[asyncio.Future[None]]:
        """Start the query if it is due; return the running one, None if there is none."""
        if self._running is not None:
            return self._running
        if time.monotonic() < self._due_at:
            return None
        self._running = asyncio.ensure_future(self._renew())
        return self._running

    async def _renew(self) -> None:
        started = time.monotonic()
        try:
            self.value = await self._threads.run(self._read)
            self.fault = ""
        except SQLAlchemyError as error:
            self.fault = f"the database reports: {describe_error(error)}"
        except Exception:  # the next run may succeed
            logger.exception("a query of the page failed")
            self.fault = "the receiver failed to read them; see its log"
        finally:
            ended = time.monotonic()
            self._due_at = ended + max(self._seconds, PAUSE_FACTOR * (ended - started))
            self._running = None


async def refresh(queries: Sequence[CachedQuery[T]], timeout: float) -> None:
    """Run the queries that are due, and wait at most `timeout` seconds for their results."""
    running = [run for run in (query.renew() for query in queries) if run is not None]
    if running:
        await asyncio.wait(running, timeout=timeout)
