"""Brings spooled reports into the database once it is back, beside those that arrive meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Optional

from sqlalchemy.engine import Engine

from developer_telemetry.concurrency import PeriodicThread
from developer_telemetry.connections.registry import Connections
from developer_telemetry.database.engine import reason
from developer_telemetry.database.migrate import is_migrated
from developer_telemetry.errors import ReportRefused, Unavailable
from developer_telemetry.receiver.ingest.conflicts import Conflicts, day_group
from developer_telemetry.receiver.ingest.decisions import Decisions
from developer_telemetry.receiver.ingest.ingestor import Outage
from developer_telemetry.receiver.ingest.spool import DAMAGED, START, Place, Spool
from developer_telemetry.receiver.ingest.spooled_report import Spooled, arrival_of, is_erased
from developer_telemetry.receiver.ingest.tombstone_lease import Lease
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.reports.daily_metrics import Arrival
from developer_telemetry.reports.limits import BATCH_REPORTS
from developer_telemetry.storage.guarded_writer import store_excluding_erased
from developer_telemetry.storage.statistics import Tallies
from developer_telemetry.storage.writer import is_stored, probe

PAUSE_SECONDS = 0.5

logger = logging.getLogger(__name__)


class _DatabaseAway(Exception):
    """The database takes no reports at all."""


class _Parsed(NamedTuple):
    """A report of the spool as it is stored, and the group that it waits with."""

    report: Spooled
    arrival: Arrival
    strategy: str

    @property
    def group(self) -> str:
        return day_group(self.arrival.key)


class SpoolDrainer(PeriodicThread):
    """Looks twice a second whether there is something to bring in.

    What can't be brought in now is parked with others like it, and waits behind nobody's back:
    reports of a day that something is in the way of, and of a connection that is gone.
    """

    def __init__(
        self,
        engine: Engine,
        spool: Spool,
        outage: Outage,
        conflicts: Conflicts,
        connections: Connections,
        tallies: Tallies,
        metrics: Metrics,
        erased: Lease,
        decisions: Decisions,
    ) -> None:
        super().__init__("drain")
        self._engine = engine
        self._spool = spool
        self._outage = outage
        self._conflicts = conflicts
        self._connections = connections
        self._tallies = tallies
        self._metrics = metrics
        self._erased = erased
        self._decisions = decisions
        self._complaint = ""

    def _run(self) -> None:
        while not self._ending.wait(PAUSE_SECONDS):
            try:
                self._work()
                self._complaint = ""
            except _DatabaseAway as error:
                self._outage.began(reason(error))
            except Unavailable as error:
                self._complain(f"the spool can't be drained now: {error}")
            except Exception as error:  # nothing may end the rounds
                self._complain(
                    f"draining the spool failed: {type(error).__name__}: {reason(error)}"
                )

    def _complain(self, problem: str) -> None:
        if problem != self._complaint:
            logger.error("%s; will try again", problem)
        self._complaint = problem

    def _work(self) -> None:
        self._spool.look_after_file()
        if self._outage.reason:
            self._end_outage()
        if self._outage.reason:
            return
        if self._spool.depth:
            self._read_connections()
            self._unpark()
            self._bring_all_in()
        for connection_id in self._decisions.to_drop():
            self._drop(connection_id)
        self._spool.count_parked()

    def _end_outage(self) -> None:
        """Let reports go to the database again if it takes one."""
        try:
            # A session that was there before may have rights, or a server, that are gone.
            self._engine.dispose()
            if not is_migrated(self._engine):
                return
            probe(self._engine)
        except Exception as error:
            raise _DatabaseAway(reason(error)) from error
        self._outage.ended()

    def _read_connections(self) -> None:
        # Which connections there are is for the database to say, not for our memory of it.
        try:
            self._connections.reload()
        except Exception as error:
            raise _DatabaseAway(reason(error)) from error

    def _unpark(self) -> None:
        """Have those reports looked at again that wait for nothing more."""
        for group in self._conflicts.due():
            self._spool.unpark(group)
        for connection_id in list(self._spool.orphans):
            if self._connections.get(connection_id) is not None:
                logger.info("connection %d is back; its reports come in", connection_id)
                self._spool.unpark_orphans(connection_id)

    def _bring_all_in(self) -> None:
        place: Optional[Place] = START
        while place is not None and not self._ending.is_set():
            whole, damaged, place = self._spool.next(BATCH_REPORTS, place)
            for report in damaged:
                self._set_aside(report, DAMAGED)
            self._bring_in_marked(whole)
        # Behind all others, and each by itself: one of them may end this process once more.
        while not self._ending.is_set() and (suspect := self._spool.next_suspect()):
            report, why = suspect
            if why:
                self._set_aside(report, why)
            else:
                self._bring_in_marked([report])

    def _bring_in_marked(self, reports: Sequence[Spooled]) -> None:
        """Bring reports in, such that the next process knows which they were if this one dies."""
        if not reports:
            return
        self._spool.begin(reports)
        try:
            self._bring_in([each for each in map(self._parse, reports) if each is not None])
        finally:
            self._spool.end()

    def stop(self, seconds: float) -> None:
        """As that of `PeriodicThread`; what is not done by then is no crash."""
        super().stop(seconds)
        with suppress(Unavailable):
            self._spool.end()

    def _parse(self, report: Spooled) -> Optional[_Parsed]:
        """Return a report as its connection keeps it, None if it can't be stored now."""
        connection = self._connections.get(report.connection_id)
        if connection is None:
            self._spool.park_orphans([report], report.connection_id)
            self._name_orphans(report.connection_id)
            return None
        try:
            # What came before a switch for privacy was set does not come behind it.
            parsed = connection.parse(report.payload)
        except ReportRefused as refusal:
            self._set_aside(report, str(refusal))
            return None
        except Exception as error:  # a fault of ours, which the next version may not have
            self._park(report, report.report_id, error)
            return None
        arrival = arrival_of(report, parsed)
        found = _Parsed(report, arrival, connection.strategy)
        if self._conflicts.pauses(found.group):
            self._spool.park([report], found.group)
            return None
        return found

    def _name_orphans(self, connection_id: int) -> None:
        if connection_id not in self._spool.orphans:
            self._spool.orphans[connection_id] = 0  # until they are counted
            logger.warning(
                "reports wait for connection %d, which the database has not: bring it back, or let"
                " `developer-telemetry spool drop --connection %d` delete them",
                connection_id,
                connection_id,
            )

    def _park(self, report: Spooled, group: str, why: object) -> None:
        if self._conflicts.hold([group]):
            logger.warning("report %s waits by itself: %s", report.report_id, why)
        self._spool.park([report], group)

    def _bring_in(self, parsed: Sequence[_Parsed]) -> None:
        if not parsed:
            return
        strategies = {each.arrival.connection_id: each.strategy for each in parsed}
        try:
            kept = store_excluding_erased(
                self._engine, self._erased, [each.arrival for each in parsed], strategies
            )
        except Exception as error:
            raise _DatabaseAway(reason(error)) from error
        for each in parsed:
            if why := kept.refused.get(each.report.report_id):
                self._set_aside(each.report, why)
        waiting = [each for each in parsed if each.report.report_id in kept.waiting]
        self._let_wait(waiting, kept.waiting)
        self._tallies.stored()
        self._metrics.drained(len(kept.connection_ids))
        self._spool.remove(
            each.report
            for each in parsed
            if each.report.report_id not in {**kept.refused, **kept.waiting}
        )
        over = {each.group for each in parsed} - {each.group for each in waiting}
        for group in self._conflicts.release(over):
            self._spool.unpark(group)

    def _let_wait(self, parsed: Sequence[_Parsed], why: Mapping[str, str]) -> None:
        if not parsed:
            return
        for each in parsed:
            self._spool.park([each.report], each.group)
        days = self._conflicts.hold({each.group for each in parsed})
        if days:
            logger.warning(
                "%d reports wait by themselves in the spool, and are tried again: %s",
                len(parsed),
                why[parsed[0].report.report_id],
            )

    def _set_aside(self, report: Spooled, why: str) -> None:
        """Move a report to the dead letters, unless the database has it, or must not."""
        is_here = self._is_stored(report)  # where it was rescued from a writer that did store it
        with self._erased.held() as erased:
            if is_here or is_erased(erased, report):
                self._spool.remove([report])
                return
            logger.error("report %s is set aside: %s", report.report_id, why)
            self._spool.set_aside(report, why)
            self._metrics.set_aside(report.connection_id)

    def _is_stored(self, report: Spooled) -> bool:
        try:
            return is_stored(self._engine, report.report_id)
        except Exception as error:
            raise _DatabaseAway(reason(error)) from error

    def _drop(self, connection_id: int) -> None:
        """Delete what waits for a connection that is gone, as an operator decided."""
        removed = 0
        if self._connections.get(connection_id) is None:
            removed = self._spool.drop_orphans(connection_id)
            self._metrics.dropped(removed)
            logger.warning(
                "%d reports that waited for connection %d are deleted, as was decided by"
                " `developer-telemetry spool drop`",
                removed,
                connection_id,
            )
        self._decisions.done(connection_id)
