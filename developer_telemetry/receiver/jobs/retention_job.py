"""The job that deletes reports older than their connection's retention, once a day.

With several receivers, the first one to notice that a connection is due prunes it.
"""

from __future__ import annotations

import logging
from contextlib import closing

from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.concurrency import PeriodicThread
from developer_telemetry.database.advisory_lock import ConnectionBusy
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.privacy.retention import PrunedRows, list_due_connections, prune
from developer_telemetry.receiver.ingest.ingestor import Outage

# The time between two checks; the database's clock decides whether a connection is due.
CHECK_SECONDS = 600.0

logger = logging.getLogger(__name__)


class RetentionJob(PeriodicThread):
    """Prunes each connection that has not been pruned for a day."""

    def __init__(self, engine: Engine, outage: Outage) -> None:
        super().__init__("retention")
        self._engine = engine
        self._outage = outage

    def _run(self) -> None:
        while not self._ending.wait(CHECK_SECONDS):
            try:
                self._work()
            except SQLAlchemyError as error:
                logger.warning("can't prune now, will try again: %s", describe_error(error))
            except Exception:  # no error may end this thread
                logger.exception("pruning failed; will try again")

    def _work(self) -> None:
        if self._outage:
            return
        for connection_id in list_due_connections(self._engine):
            try:
                self._prune(connection_id)
            except ConnectionBusy:  # a blueprint's run or another receiver holds the lock
                continue

    def _prune(self, connection_id: int) -> None:
        pruned = PrunedRows()
        with closing(prune(self._engine, connection_id, patience=0)) as steps:
            # A stop ends this after the current transaction; the next check continues.
            while not self._ending.is_set() and (progress := next(steps, None)):
                pruned = progress
        if any(pruned):
            logger.info(
                "pruned connection %d: deleted %d reports, %d days, %d machines;"
                " %d developers have no data any more",
                connection_id,
                pruned.reports,
                pruned.days,
                pruned.machines,
                pruned.developers,
            )
