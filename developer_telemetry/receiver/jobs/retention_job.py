"""Keeps reports for no longer than connections say: once a day, whichever receiver comes first."""

from __future__ import annotations

import logging
from contextlib import closing

from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.concurrency import PeriodicThread
from developer_telemetry.database.advisory_lock import Busy
from developer_telemetry.database.engine import reason
from developer_telemetry.privacy.retention import Pruned, due, prune
from developer_telemetry.receiver.ingest.ingestor import Outage

# How often a receiver looks whether something is due, by the database's clock.
LOOK_SECONDS = 600.0

logger = logging.getLogger(__name__)


class RetentionJob(PeriodicThread):
    """Looks now and then whether a day has passed."""

    def __init__(self, engine: Engine, outage: Outage) -> None:
        super().__init__("keeping")
        self._engine = engine
        self._outage = outage

    def _run(self) -> None:
        while not self._ending.wait(LOOK_SECONDS):
            try:
                self._work()
            except SQLAlchemyError as error:
                logger.warning("can't prune now, will try again: %s", reason(error))
            except Exception:  # nothing may end the rounds
                logger.exception("pruning failed; will try again")

    def _work(self) -> None:
        if self._outage:
            return
        for connection_id in due(self._engine):
            try:
                self._prune(connection_id)
            except Busy:  # with a run, or another receiver is at it
                continue

    def _prune(self, connection_id: int) -> None:
        pruned = Pruned()
        with closing(prune(self._engine, connection_id, patience=0)) as steps:
            # A stop ends it after a transaction; the rest is for another day.
            while not self._ending.is_set() and (step := next(steps, None)):
                pruned = step
        if any(pruned):
            logger.info(
                "pruned connection %d: %d reports, %d days, %d machines; %d developers are gone",
                connection_id,
                pruned.reports,
                pruned.days,
                pruned.machines,
                pruned.developers,
            )
