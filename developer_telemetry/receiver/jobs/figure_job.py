"""The job that computes the figures of groups that dashboards show."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from datetime import date, datetime, timezone

from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.concurrency import PeriodicThread
from developer_telemetry.database.advisory_lock import ConnectionBusy, hold_connection
from developer_telemetry.database.engine import reading
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.pipeline.figure_refresh import is_due, refresh_figures
from developer_telemetry.receiver.ingest.ingestor import Outage

# How often a receiver looks whether the figures are due.
ROUND_SECONDS = 60.0
# How old they become: so much that computing takes a hundredth of the time, within these bounds.
MIN_AGE_US = 3600 * 1_000_000
MAX_AGE_US = 6 * MIN_AGE_US
AGE_FACTOR = 100
# A pause between two weeks is as long as the step before it, for the reports that arrive meanwhile.
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.02, 2.0
# A lock's name; no connection has this id.
LOCK_ID = 0

logger = logging.getLogger(__name__)


class FigureJob(PeriodicThread):
    """Computes the figures every few hours; of several receivers, one does."""

    def __init__(self, engine: Engine, outage: Outage) -> None:
        """Initialize the job; no other thread uses `engine`."""
        super().__init__("figures")
        self._engine = engine
        self._outage = outage
        self._logged_problem = ""
        self._max_age_us = MIN_AGE_US

    def _run(self) -> None:
        while not self._ending.wait(ROUND_SECONDS):
            try:
                self.work()
                self._logged_problem = ""
            except SQLAlchemyError as error:
                self._log_problem(describe_error(error))
            except Exception:  # no error may end this thread
                logger.exception("computing figures for the dashboards failed; will try again")

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
            logger.warning("can't compute figures for the dashboards, will try again: %s", problem)
        self._logged_problem = problem

    def _is_due(self) -> bool:
        with reading(self._engine).connect() as connection:
            return is_due(connection, self._max_age_us)

    def _compute(self) -> None:
        worked = 0.0
        began = time.monotonic()
        with closing(refresh_figures(self._engine, _today())) as steps:
            for _ in steps:
                step = time.monotonic() - began
                worked += step
                if self._ending.wait(min(MAX_PAUSE_SECONDS, max(MIN_PAUSE_SECONDS, step))):
                    return
                began = time.monotonic()
        worked_us = int(worked * 1_000_000)
        self._max_age_us = min(MAX_AGE_US, max(MIN_AGE_US, AGE_FACTOR * worked_us))


def _today() -> date:
    return datetime.now(timezone.utc).date()
