"""The job that computes figures about delivery from DevLake's tables, for the dashboard."""

from __future__ import annotations

import logging
from contextlib import closing
from datetime import date, datetime, timezone

from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.concurrency import PeriodicThread
from developer_telemetry.database.advisory_lock import ConnectionBusy, hold_connection
from developer_telemetry.database.engine import reading
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.pipeline.delivery import is_due, refresh_delivery
from developer_telemetry.receiver.ingest.ingestor import Outage

# How often a receiver looks whether another has computed the figures, and how old they become.
ROUND_SECONDS = 60.0
MAX_AGE_US = 3600 * 1_000_000
# The time between two weeks, for the reports that arrive meanwhile.
PAUSE_SECONDS = 0.1
# A lock's name; no connection has this id.
LOCK_ID = 0

logger = logging.getLogger(__name__)


class DeliveryJob(PeriodicThread):
    """Computes the figures every hour; of several receivers, one does."""

    def __init__(self, engine: Engine, outage: Outage) -> None:
        """Initialize the job; no other thread uses `engine`."""
        super().__init__("delivery")
        self._engine = engine
        self._outage = outage
        self._logged_problem = ""

    def _run(self) -> None:
        while not self._ending.wait(ROUND_SECONDS):
            try:
                self.work()
                self._logged_problem = ""
            except SQLAlchemyError as error:
                self._log_problem(describe_error(error))
            except Exception:  # no error may end this thread
                logger.exception("computing figures about delivery failed; will try again")

    def work(self) -> None:
        """Compute the figures if that is due and no other receiver does."""
        if self._outage or not self._is_due():
            return
        try:
            with hold_connection(self._engine, LOCK_ID, patience=0):
                if self._is_due():
                    self._compute()
        except ConnectionBusy:
            return

    def _log_problem(self, problem: str) -> None:
        if problem != self._logged_problem:
            logger.warning("can't compute figures about delivery, will try again: %s", problem)
        self._logged_problem = problem

    def _is_due(self) -> bool:
        with reading(self._engine).connect() as connection:
            return is_due(connection, MAX_AGE_US)

    def _compute(self) -> None:
        with closing(refresh_delivery(self._engine, _today())) as steps:
            for _ in steps:
                if self._ending.wait(PAUSE_SECONDS):
                    return


def _today() -> date:
    return datetime.now(timezone.utc).date()
