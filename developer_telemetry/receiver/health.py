"""Looks after the receiver's view of the database, and says whether reports can be kept."""

from __future__ import annotations

import logging
import threading
import time

from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.connections import Connections
from developer_telemetry.dialects import clock_offset_us
from developer_telemetry.receiver.ingest import Ingest, reason
from developer_telemetry.receiver.tallies import Tallies
from developer_telemetry.schema import is_migrated

# A changed token is in force within 5 s.
ROUND_SECONDS = 3.0
CLOCK_SECONDS = 60.0

logger = logging.getLogger(__name__)


class Health:
    """Every few seconds: reload connections, write tallies, compare clocks.

    `problem` is why a report could not be kept now, "" if it can.
    """

    def __init__(
        self, engine: Engine, connections: Connections, ingest: Ingest, tallies: Tallies
    ) -> None:
        self.problem = "starting"
        self._engine = engine
        self._connections = connections
        self._ingest = ingest
        self._tallies = tallies
        self._migrated = False
        self._remarks: set[str] = set()
        self._clock_read_at = float("-inf")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health")

    def start(self) -> None:
        """Look once before the first request is taken, then go on in the background."""
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """End the background rounds and write the last tallies."""
        self._stopping.set()
        self._thread.join()
        self._attempt_flush()

    def _run(self) -> None:
        while not self._stopping.wait(ROUND_SECONDS):
            self._look()
            self._attempt_flush()

    def _look(self) -> None:
        problem = self._find_problem()
        if problem != self.problem:
            log = logger.warning if problem else logger.info
            log("%s", f"not ready: {problem}" if problem else "ready for reports")
        self.problem = problem

    def _find_problem(self) -> str:
        try:
            self._migrated = self._migrated or is_migrated(self._engine)
            if not self._migrated:
                return (
                    "the database is not migrated; confirm DevLake's pending migration,"
                    " or run `developer-telemetry migrate` on a database of your own"
                )
            self._connections.reload()
            self._say_remarks()
            if time.monotonic() - self._clock_read_at >= CLOCK_SECONDS:
                self._ingest.clock_offset_us = clock_offset_us(self._engine)
                self._clock_read_at = time.monotonic()
        except SQLAlchemyError as error:
            return f"the database can't be used: {reason(error)}"
        except Exception:  # nothing may end the rounds
            logger.exception("a round of checks failed")
            return "the receiver could not check itself; see its log"
        return ""

    def _say_remarks(self) -> None:
        remarks = {each for known in self._connections.all() for each in known.remarks}
        for remark in sorted(remarks - self._remarks):
            logger.warning("%s", remark)
        self._remarks = remarks

    def _attempt_flush(self) -> None:
        if not self._migrated:
            return
        try:
            self._tallies.flush(self._engine)
        except Exception as error:
            logger.warning("can't write tallies, will try again: %s", error)
