"""The job that stores spooled reports once the database is back, while new ones arrive."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Optional

from sqlalchemy.engine import Engine

from developer_telemetry.concurrency import PeriodicThread
from developer_telemetry.connections.registry import Connections
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.database.migrate import is_migrated
from developer_telemetry.errors import ReportRefused, Unavailable
from developer_telemetry.receiver.ingest.conflicts import Conflicts, day_group
from developer_telemetry.receiver.ingest.decisions import Decisions
from developer_telemetry.receiver.ingest.ingestor import Outage
from developer_telemetry.receiver.ingest.spool import DAMAGED, START, Position, Spool
from developer_telemetry.receiver.ingest.spool_file import SpoolFull
from developer_telemetry.receiver.ingest.spooled_report import (
    SpooledReport,
    is_erased,
    restore_report,
)
from developer_telemetry.receiver.ingest.tombstone_lease import TombstoneLease
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.reports.limits import BATCH_REPORTS
from developer_telemetry.storage.guarded_writer import store_excluding_erased
from developer_telemetry.storage.statistics import ReportCounts
from developer_telemetry.storage.writer import is_stored, probe_store

PAUSE_SECONDS = 0.5

logger = logging.getLogger(__name__)


class _DatabaseAway(Exception):
    """The database accepts no reports at all."""


class _Parsed(NamedTuple):
    """A spooled report, parsed; `strategy` is the rule of its connection for reports of a day."""

    report: SpooledReport
    arrival: ReceivedReport
    strategy: str

    @property
    def group(self) -> str:
        """Return the group of reports that may only be stored together with this one."""
        return day_group(self.arrival.key)


class SpoolDrainer(PeriodicThread):
    """Stores the reports of the spool, twice a second if there are any.

    Reports that the database can't store now are parked in groups, so that other reports don't wait
    for them: those of a day whose rows are locked or broken, and those of a deleted connection.
    """

    def __init__(
        self,
        engine: Engine,
        spool: Spool,
        outage: Outage,
        conflicts: Conflicts,
        connections: Connections,
        tallies: ReportCounts,
        metrics: Metrics,
        erased: TombstoneLease,
        decisions: Decisions,
    ) -> None:
        super().__init__("spool drainer")
        self._engine = engine
        self._spool = spool
        self._outage = outage
        self._conflicts = conflicts
        self._connections = connections
        self._tallies = tallies
        self._metrics = metrics
        self._erased = erased
        self._decisions = decisions
        self._logged_problem = ""

    def _run(self) -> None:
        while not self._ending.wait(PAUSE_SECONDS):
            try:
                self._work()
                self._logged_problem = ""
            except _DatabaseAway as error:
                self._outage.begin(describe_error(error))
            except Unavailable as error:
                self._log_problem(f"the spool can't be drained now: {error}")
            except Exception as error:  # no error may end this thread
                self._log_problem(
                    f"draining the spool failed: {type(error).__name__}: {describe_error(error)}"
                )

    def _log_problem(self, problem: str) -> None:
        if problem != self._logged_problem:
            logger.error("%s; will try again", problem)
        self._logged_problem = problem

    def _work(self) -> None:
        self._spool.check_file()
        self._apply_letter_decisions()
        if self._outage.reason:
            self._end_outage()
        if self._outage.reason:
            return
        if self._spool.depth:
            self._read_connections()
            self._unpark()
            self._store_all()
        for connection_id in self._decisions.list_connections_to_drop():
            self._drop(connection_id)
        self._spool.count_parked()

    def _apply_letter_decisions(self) -> None:
        """Retry or delete dead letters, as an operator decided; the database may be away."""
        retried = self._decisions.list_letters_to_retry()
        dropped = self._decisions.list_letters_to_drop()
        try:
            if dropped:
                self._spool.drop_letters(dropped)
                logger.warning("dead letters deleted, as an operator decided: %d", len(dropped))
            if retried:
                self._spool.retry_letters(retried)
                logger.warning("dead letters tried again, as an operator decided: %d", len(retried))
        except SpoolFull:  # in the next round, when waiting reports are stored
            return
        self._decisions.done_letters([*dropped, *retried])

    def _end_outage(self) -> None:
        """End the outage if the database accepts a report."""
        try:
            # Older sessions may have lost their server, or have outdated rights.
            self._engine.dispose()
            if not is_migrated(self._engine):
                return
            probe_store(self._engine)
        except Exception as error:
            raise _DatabaseAway(describe_error(error)) from error
        self._outage.end()

    def _read_connections(self) -> None:
        # A connection in memory may have been deleted from the database since.
        try:
            self._connections.reload()
        except Exception as error:
            raise _DatabaseAway(describe_error(error)) from error

    def _unpark(self) -> None:
        """Unpark the reports whose pause is over or whose connection is back."""
        for group in self._conflicts.due():
            self._spool.unpark(group)
        for connection_id in list(self._spool.orphans):
            if self._connections.get(connection_id) is not None:
                logger.info("connection %d is back; its reports are stored now", connection_id)
                self._spool.unpark_orphans(connection_id)

    def _store_all(self) -> None:
        position: Optional[Position] = START
        while position is not None and not self._ending.is_set():
            intact, damaged, position = self._spool.next(BATCH_REPORTS, position)
            for report in damaged:
                self._set_aside(report, DAMAGED)
            self._store_noted(intact)
        # Last, and one by one: a report among them may crash this process again.
        while not self._ending.is_set() and (suspect := self._spool.next_suspect()):
            report, cause = suspect
            if cause:
                self._set_aside(report, cause)
            else:
                self._store_noted([report])

    def _store_noted(self, reports: Sequence[SpooledReport]) -> None:
        """Store reports, recorded in the spool as suspects in case this process crashes."""
        if not reports:
            return
        self._spool.begin(reports)
        try:
            self._store([parsed for parsed in map(self._parse, reports) if parsed is not None])
        finally:
            self._spool.end()

    def stop(self, seconds: float) -> None:
        """Stop the thread, and delete its record of suspects: this is no crash."""
        super().stop(seconds)
        with suppress(Unavailable):
            self._spool.end()

    def _parse(self, report: SpooledReport) -> Optional[_Parsed]:
        """Parse a report by its connection's rules; park it and return None if it has to wait."""
        connection = self._connections.get(report.connection_id)
        if connection is None:
            self._spool.park_orphans([report], report.connection_id)
            self._log_orphans(report.connection_id)
            return None
        try:
            # The connection's current privacy settings apply to older reports, too.
            parsed = connection.parse(report.payload)
        except ReportRefused as refusal:
            self._set_aside(report, str(refusal))
            return None
        except Exception as error:  # a bug of ours, which the next version may have fixed
            self._park(report, report.report_id, error)
            return None
        arrival = restore_report(report, parsed)
        result = _Parsed(report, arrival, connection.strategy)
        if self._conflicts.is_paused(result.group):
            self._spool.park([report], result.group)
            return None
        return result

    def _log_orphans(self, connection_id: int) -> None:
        if connection_id not in self._spool.orphans:
            self._spool.orphans[connection_id] = 0  # until they are counted
            logger.warning(
                "reports wait for connection %d, which the database does not have: restore it, or"
                " delete them with `developer-telemetry spool drop --connection %d`",
                connection_id,
                connection_id,
            )

    def _park(self, report: SpooledReport, group: str, cause: object) -> None:
        if self._conflicts.postpone([group]):
            logger.warning("report %s waits in the spool alone: %s", report.report_id, cause)
        self._spool.park([report], group)

    def _store(self, batch: Sequence[_Parsed]) -> None:
        """Store a batch; remove from the spool what is stored, set aside or park all else.

        Raises:
            _DatabaseAway: if the database accepts no reports.
        """
        if not batch:
            return
        strategies = {parsed.arrival.connection_id: parsed.strategy for parsed in batch}
        try:
            outcome = store_excluding_erased(
                self._engine, self._erased, [parsed.arrival for parsed in batch], strategies
            )
        except Exception as error:
            raise _DatabaseAway(describe_error(error)) from error
        for parsed in batch:
            if cause := outcome.refused.get(parsed.report.report_id):
                self._set_aside(parsed.report, cause)
        for connection_id in sorted(outcome.deleted):
            orphans = [p.report for p in batch if p.report.connection_id == connection_id]
            self._spool.park_orphans(orphans, connection_id)
            self._log_orphans(connection_id)
        batch = [p for p in batch if p.report.connection_id not in outcome.deleted]
        waiting = [parsed for parsed in batch if parsed.report.report_id in outcome.waiting]
        self._park_waiting(waiting, outcome.waiting)
        self._tallies.stored()
        self._metrics.drained(len(outcome.connection_ids))
        self._spool.remove(
            parsed.report
            for parsed in batch
            if parsed.report.report_id not in {**outcome.refused, **outcome.waiting}
        )
        stored = {parsed.group for parsed in batch} - {parsed.group for parsed in waiting}
        for group in self._conflicts.release(stored):
            self._spool.unpark(group)

    def _park_waiting(self, waiting: Sequence[_Parsed], causes: Mapping[str, str]) -> None:
        """Park reports that the database can't store now; `causes` has the error of each id."""
        if not waiting:
            return
        for parsed in waiting:
            self._spool.park([parsed.report], parsed.group)
        if self._conflicts.postpone({parsed.group for parsed in waiting}):
            logger.warning(
                "%d reports wait in the spool and are tried again, without delaying others: %s",
                len(waiting),
                causes[waiting[0].report.report_id],
            )

    def _set_aside(self, report: SpooledReport, cause: str) -> None:
        """Move a report to the dead letters; delete it if it is stored or its person is erased."""
        is_here = self._is_stored(report)  # a hanging transaction may have stored it in the end
        with self._erased.locked() as erased:
            if is_here or is_erased(erased, report):
                self._spool.remove([report])
                return
            logger.error("report %s is set aside: %s", report.report_id, cause)
            self._spool.set_aside(report, cause)
            self._metrics.set_aside(report.connection_id)

    def _is_stored(self, report: SpooledReport) -> bool:
        try:
            return is_stored(self._engine, report.report_id)
        except Exception as error:
            raise _DatabaseAway(describe_error(error)) from error

    def _drop(self, connection_id: int) -> None:
        """Delete the reports that wait for a deleted connection, as an operator decided."""
        removed = 0
        if self._connections.get(connection_id) is None:
            removed = self._spool.drop_orphans(connection_id)
            self._metrics.dropped(removed)
            logger.warning(
                "deleted %d reports that waited for connection %d, because of"
                " `developer-telemetry spool drop`",
                removed,
                connection_id,
            )
        self._decisions.done(connection_id)
