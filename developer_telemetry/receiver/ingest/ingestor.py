"""Storing of accepted reports: shared transactions, and the spool during an outage."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.connections.registry import Connection
from developer_telemetry.database.engine import now_us
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.errors import ConnectionDeleted, TelemetryError, Unavailable
from developer_telemetry.receiver.ingest.batching import BatchWorker, Deadlines, Done, PendingReport
from developer_telemetry.receiver.ingest.conflicts import Conflicts, day_group
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.receiver.ingest.spooled_report import make_spooled_report
from developer_telemetry.receiver.ingest.tombstone_lease import TombstoneLease
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.reports.parser import Report
from developer_telemetry.reports.report_id import report_id
from developer_telemetry.storage.bisecting import store_or_find_lock
from developer_telemetry.storage.guarded_writer import StoredReports, store_excluding_erased
from developer_telemetry.storage.raw_reports import Key
from developer_telemetry.storage.statistics import ReportCounts
from developer_telemetry.storage.writer import probe_store

# The reports that may wait in memory; the receiver refuses more with a time to retry.
MAX_WAITING = 5_000
MAX_WAITING_CHARACTERS = 64 << 20
# After so long a transaction the database counts as hanging, and other reports are spooled.
HANGING_SECONDS = 3.0

logger = logging.getLogger(__name__)


class Outage:
    """The state of the database: available or not, and the reason. Any thread may set it."""

    def __init__(self) -> None:
        self.reason = ""
        self._busy_since: Optional[float] = None
        self.number = 0  # of the current outage, or else of the last one

    def begin_transaction(self) -> None:
        """Note that the writer starts to wait for the database."""
        self._busy_since = time.monotonic()

    def end_transaction(self) -> None:
        """Note that the database has answered the writer."""
        self._busy_since = None

    @property
    def hanging(self) -> bool:
        """Return true if the writer has waited for longer than HANGING_SECONDS."""
        since = self._busy_since
        return since is not None and time.monotonic() - since > HANGING_SECONDS

    def __bool__(self) -> bool:
        return bool(self.reason) or self.hanging

    def __str__(self) -> str:
        return self.reason or ("the database does not answer" if self.hanging else "")

    def begin(self, reason: str) -> None:
        """Note that the database can't accept reports."""
        if not self.reason:
            self.number += 1
            logger.warning("reports go to the spool: %s", reason)
        self.reason = reason

    def end(self) -> None:
        """Note that the database accepts reports again."""
        if self.reason:
            logger.info("the database accepts reports again")
        self.reason = ""


class Ingestor:
    """Accepts reports on the event loop, and returns when they are committed or spooled."""

    def __init__(
        self,
        engine: Engine,
        spool: Spool,
        outage: Outage,
        conflicts: Conflicts,
        tallies: ReportCounts,
        metrics: Metrics,
        erased: TombstoneLease,
    ) -> None:
        self.clock_offset_us = 0
        self._engine = engine
        # The writer has a session of its own: to borrow one from the pool costs a statement.
        self._writing: Optional[SqlConnection] = None
        self._outages = 0  # the number of the outage before this session
        self._spool = spool
        self._outage = outage
        self._conflicts = conflicts
        self._tallies = tallies
        self._metrics = metrics
        self._erased = erased
        self._to_store = BatchWorker(self._store, "writer")
        self._to_spool = BatchWorker(self._put_into_spool, "spooler")
        # The database may store a rescued report later, too: its id is unique there.
        self._deadlines = Deadlines(rescue=self._to_spool.put, give_up=self._give_up)
        self._last_arrival_us = 0
        # The last arrival time after an erasure whose clock is ahead of this one.
        self._last_later_us = 0
        self._waiting = 0
        self._waiting_characters = 0
        self._loop: Optional[asyncio.AbstractEventLoop] = None

    @property
    def waiting(self) -> int:
        """The number of reports that wait for an answer."""
        return self._waiting

    def start(self) -> None:
        """Start the writers; to be called on the event loop of `keep`."""
        self._loop = asyncio.get_running_loop()
        self._to_store.start()
        self._to_spool.start()

    def stop(self, seconds: float) -> None:
        """Store the accepted reports; spool those that the database has not stored in `seconds`."""
        left = self._to_store.stop(seconds)
        for waiting in left:
            self._to_spool.put(waiting)
        self._to_spool.stop(seconds)

    def put(self, connection: Connection, report: Report, done: Done) -> None:
        """Call `done` on this event loop once the report is durable or can't be stored.

        Raises:
            Unavailable: if too many reports wait already.
        """
        characters = len(report.payload)
        if (
            self._waiting >= MAX_WAITING
            or self._waiting_characters + characters > MAX_WAITING_CHARACTERS
        ):
            raise Unavailable("too many reports are waiting; send this one again")
        erased = self._erased.tombstones()
        arrived_us = self._arrival_time()
        later_us = erased.next_arrival_us(connection.id, arrived_us, report)
        if later_us > arrived_us:
            arrived_us = self._last_later_us = max(later_us, self._last_later_us + 1)
        arrival = ReceivedReport(
            report_id(arrived_us), connection.id, arrived_us, report, epoch=erased.epoch
        )
        waiting = PendingReport(arrival, connection.strategy, done)
        self._waiting += 1
        self._waiting_characters += characters
        self._deadlines.watch(waiting)
        (self._to_spool if self._outage else self._to_store).put(waiting)

    async def keep(self, connection: Connection, report: Report) -> None:
        """Return once the report is durable.

        Raises:
            Unavailable: It may not be durable.
            ConnectionDeleted: The database no longer has its connection.
        """
        (failure,) = await self.keep_all(connection, [report])
        if failure is not None:
            raise failure

    async def keep_all(
        self, connection: Connection, reports: Sequence[Report]
    ) -> list[Optional[TelemetryError]]:
        """Store reports, the first as the oldest; return None or an error for each."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Optional[TelemetryError]]] = []
        for report in reports:
            future = loop.create_future()
            futures.append(future)
            try:
                self.put(connection, report, partial(_set_result, future))
            except Unavailable as error:
                future.set_result(error)
        return await asyncio.gather(*futures)

    def _arrival_time(self) -> int:
        # Strictly increasing, even if the clock is set back.
        self._last_arrival_us = max(self._last_arrival_us + 1, now_us() + self.clock_offset_us)
        return self._last_arrival_us

    def _store(self, batch: Sequence[PendingReport]) -> None:
        # An answered report was spooled meanwhile.
        batch = [report for report in batch if not report.answered]
        if self._conflicts:
            batch = self._spool_blocked(batch, lambda key: day_group(key) in self._conflicts)
        if not batch:
            return
        self._outage.begin_transaction()
        try:
            outcome = self._store_directly(batch)
        except Exception as error:  # the drainer finds the reports that cause it
            self._spool_failed(batch, error)
            return
        finally:
            self._outage.end_transaction()
        self._metrics.stored(outcome.connection_ids)
        self._tallies.stored()
        deleted = [r for r in batch if r.arrival.connection_id in outcome.deleted]
        if deleted:
            self._answer(deleted, ConnectionDeleted(outcome.deleted))
            batch = [r for r in batch if r.arrival.connection_id not in outcome.deleted]
        # The sender of a blocked report gets its answer after the report is spooled.
        self._answer(
            [report for report in batch if report.arrival.report_id not in outcome.waiting], None
        )
        for report in batch:
            if report.arrival.report_id in outcome.waiting:
                self._to_spool.put(report)

    def _spool_blocked(
        self, batch: Sequence[PendingReport], is_blocked: Callable[[Key], bool]
    ) -> list[PendingReport]:
        """Spool the reports of blocked days; return the others."""
        others: list[PendingReport] = []
        for report in batch:
            if is_blocked(report.arrival.key):
                self._to_spool.put(report)
            else:
                others.append(report)
        return others

    def _store_directly(self, batch: Sequence[PendingReport]) -> StoredReports:
        """Store a batch in one transaction, without the days that another one has locked."""
        arrivals = [report.arrival for report in batch]
        strategies = {report.arrival.connection_id: report.strategy for report in batch}
        outcome = store_excluding_erased(
            self._session(), self._erased, arrivals, strategies, store_or_find_lock
        )
        groups = {
            day_group(report.arrival.key)
            for report in batch
            if report.arrival.report_id in outcome.waiting
        }
        if groups and self._conflicts.postpone(groups):
            logger.warning(
                "reports of %d days wait in the spool for another transaction's lock", len(groups)
            )
        return outcome

    def _spool_failed(self, batch: Sequence[PendingReport], error: Exception) -> None:
        """Spool a batch that failed; the drainer stores its reports one by one if necessary."""
        self._discard_session()
        try:
            # A bad statement may fail like an outage does; a harmless one tells them apart.
            probe_store(self._engine)
        except Exception as outage:
            self._outage.begin(describe_error(outage))
        else:
            # More reports of these days must not make another batch fail.
            self._conflicts.retry_soon(day_group(report.arrival.key) for report in batch)
            logger.warning(
                "%d reports go through the spool, since storing them at once failed: %s",
                len(batch),
                describe_error(error),
            )
        for report in batch:
            self._to_spool.put(report)

    def _discard_session(self) -> None:
        """Discard the writer's session after an error in it."""
        session, self._writing = self._writing, None
        if session is not None:
            with suppress(Exception):
                session.invalidate()
            with suppress(Exception):
                session.close()

    def _session(self) -> SqlConnection:
        """Return the writer's session, a new one after each outage.

        An old session may keep rights and settings that the database has corrected since.
        """
        if self._outages != self._outage.number:
            self._discard_session()
        if self._writing is None:
            self._outages = self._outage.number
            self._writing = self._engine.connect()
        return self._writing

    def _put_into_spool(self, batch: Sequence[PendingReport]) -> None:
        try:
            with self._erased.locked() as erased:
                arrivals = erased.without_erased([report.arrival for report in batch])
                self._spool.put([make_spooled_report(arrival) for arrival in arrivals])
        except Unavailable as error:
            self._answer(batch, error)
        except Exception as error:  # one bad report must not end the spooler
            if len(batch) > 1:
                middle = len(batch) // 2
                self._put_into_spool(batch[:middle])
                self._put_into_spool(batch[middle:])
                return
            logger.exception("a report could not be spooled")
            self._answer(
                batch, Unavailable(f"the report could not be spooled: {describe_error(error)}")
            )
        else:
            self._metrics.spooled(arrival.connection_id for arrival in arrivals)
            self._answer(batch, None)

    def _answer(self, batch: Sequence[PendingReport], error: Optional[TelemetryError]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._resolve, list(batch), error)

    def _resolve(self, batch: list[PendingReport], error: Optional[TelemetryError]) -> None:
        for waiting in batch:
            if waiting.answered:
                continue  # stored and spooled both
            waiting.answered = True
            self._deadlines.forget(waiting)
            self._waiting -= 1
            self._waiting_characters -= waiting.characters
            try:
                waiting.done(error)
            except Exception as fault:  # the other senders still get their answers
                logger.error("an answer could not be given: %s", type(fault).__name__)

    def _give_up(self, waiting: PendingReport) -> None:
        error = "neither database nor spool answered in time; send this report again"
        self._resolve([waiting], Unavailable(error))


def _set_result(
    future: asyncio.Future[Optional[TelemetryError]], error: Optional[TelemetryError]
) -> None:
    if not future.done():  # the sender may have disconnected
        future.set_result(error)
