"""Brings spooled reports into the database once it is back, beside those that arrive meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.connections import Connections
from developer_telemetry.database import reason
from developer_telemetry.errors import ReportRefused, Unavailable
from developer_telemetry.merging import Arrival
from developer_telemetry.receiver.ingest import Outage, store_unerased
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.receiver.rounds import Rounds
from developer_telemetry.receiver.spool import Spool, Spooled
from developer_telemetry.receiver.tallies import Tallies
from developer_telemetry.receiver.tombstones import Lease, is_erased
from developer_telemetry.receiver.waiting import BATCH_REPORTS
from developer_telemetry.schema import is_migrated
from developer_telemetry.storage import probe

PAUSE_SECONDS = 0.5

logger = logging.getLogger(__name__)


class Drain(Rounds):
    """Looks twice a second whether there is something to bring in."""

    def __init__(
        self,
        engine: Engine,
        spool: Spool,
        outage: Outage,
        connections: Connections,
        tallies: Tallies,
        metrics: Metrics,
        erased: Lease,
    ) -> None:
        super().__init__("drain")
        self._engine = engine
        self._spool = spool
        self._outage = outage
        self._connections = connections
        self._tallies = tallies
        self._metrics = metrics
        self._erased = erased

    def _run(self) -> None:
        while not self._ending.wait(PAUSE_SECONDS):
            try:
                self._work()
            except SQLAlchemyError as error:
                self._outage.began(reason(error))
            except Unavailable as error:
                logger.warning("the spool can't be drained now: %s", error)
            except Exception:  # nothing may end the rounds
                logger.exception("draining the spool failed; will try again")

    def _work(self) -> None:
        if self._outage.reason:
            # A session may keep the trouble for itself when it is over.
            self._engine.dispose()
            if not is_migrated(self._engine):
                return
            probe(self._engine)
            self._outage.ended()
        if not self._spool.depth:
            return
        # Which connections there are is for the database to say, not for our memory of it.
        self._connections.reload()
        while self._spool.depth and not self._ending.is_set():
            whole, damaged = self._spool.oldest(BATCH_REPORTS)
            for report in damaged:
                self._set_aside(report, "damaged on the spool's disk")
            if whole:
                self._bring_in(whole)

    def _bring_in(self, reports: Sequence[Spooled]) -> None:
        arrivals: list[Arrival] = []
        strategies: dict[int, str] = {}
        for report in reports:
            connection = self._connections.get(report.connection_id)
            if connection is None:
                self._metrics.dropped()
                continue
            strategies[connection.id] = connection.strategy
            try:
                # What came before a switch for privacy was set does not come behind it.
                parsed = connection.parse(report.payload)
                arrivals.append(Arrival(report.report_id, connection.id, report.arrived_us, parsed))
            except ReportRefused as refusal:
                self._set_aside(report, str(refusal))
        kept = store_unerased(self._engine, self._erased, arrivals, strategies)
        by_id = {report.report_id: report for report in reports}
        for report_id, why in kept.refused.items():
            self._set_aside(by_id[report_id], why)
        self._tallies.stored()
        self._metrics.drained(len(kept.connection_ids))
        self._spool.remove(reports)

    def _set_aside(self, report: Spooled, why: str) -> None:
        with self._erased.held() as erased:
            if is_erased(erased, report):
                self._spool.remove([report])
                return
            logger.error("report %s is set aside: %s", report.report_id, why)
            self._spool.set_aside(report, why)
