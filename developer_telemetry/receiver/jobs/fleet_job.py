"""The job that counts machines for metrics, and retires those that have been silent for long."""

from __future__ import annotations

import logging

from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.concurrency import PeriodicThread
from developer_telemetry.database.engine import reading
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.receiver.ingest.ingestor import Outage
from developer_telemetry.storage.fleet.fleet_counts import FleetCounts, read_fleet_counts
from developer_telemetry.storage.fleet.machines import retire_silent_machines

# The time between two rounds; Prometheus usually scrapes once a minute, or more often.
ROUND_SECONDS = 30.0

logger = logging.getLogger(__name__)


class FleetJob(PeriodicThread):
    """Counts machines, and retires those without a report for so many days, 0 for never."""

    def __init__(self, engine: Engine, outage: Outage, retire_days: int) -> None:
        super().__init__("fleet")
        self.counts = FleetCounts({}, {}, {})
        self._engine = engine
        self._outage = outage
        self._retire_days = retire_days

    def _run(self) -> None:
        while not self._ending.wait(ROUND_SECONDS):
            try:
                self._work()
            except SQLAlchemyError as error:
                logger.warning(
                    "can't count machines now, will try again: %s", describe_error(error)
                )
            except Exception:  # no error may end this thread
                logger.exception("counting machines failed; will try again")

    def _work(self) -> None:
        if self._outage:
            return
        if self._retire_days:
            retired = retire_silent_machines(self._engine, self._retire_days)
            if retired:
                logger.info(
                    "retired %d machines without a report in %d days", retired, self._retire_days
                )
        with reading(self._engine).connect() as connection:
            self.counts = read_fleet_counts(connection)
