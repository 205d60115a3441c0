"""Looks after the receiver's view of the database, and says whether reports can be kept."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.concurrency import PeriodicThread
from developer_telemetry.connections.registry import Connection, Connections
from developer_telemetry.database.engine import clock_offset_us, losses, reason
from developer_telemetry.database.migrate import is_migrated
from developer_telemetry.receiver.ingest.ingestor import Ingest, Outage
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.storage.statistics import Tallies
from developer_telemetry.storage.writer import probe

# A changed token is in force within 5 s.
ROUND_SECONDS = 3.0
# Clocks drift and settings change, both slowly.
SERVER_SECONDS = 60.0
# How long the first request waits for the first look: a database that hangs must not stop us.
FIRST_LOOK_SECONDS = 6.0

NOT_MIGRATED = (
    "the database is not migrated; confirm DevLake's pending migration,"
    " or run `developer-telemetry migrate` on a database of your own"
)

# Of connections that take no reports.
MOST_NAMED = 5

# To strangers, in place of a database's own words.
UNTOLD = "the database takes no reports (the log, `status` and `doctor` say why)"

logger = logging.getLogger(__name__)


class Monitor(PeriodicThread):
    """Every few seconds: reload connections, write tallies, compare clocks."""

    def __init__(
        self,
        engine: Engine,
        writing: Engine,
        connections: Connections,
        ingest: Ingest,
        spool: Spool,
        outage: Outage,
        tallies: Tallies,
    ) -> None:
        super().__init__("health")
        self.stopping = False
        self._engine = engine
        # It waits for a lock no longer than a round may take.
        self._writing = writing
        self._connections = connections
        self._ingest = ingest
        self._spool = spool
        self._outage = outage
        self._tallies = tallies
        self._migrated = False
        # Why the last round of checks failed, and whether the database takes reports nevertheless.
        self._fault = ""
        self._fails_alone = False
        self._said = "starting"
        self._remarks: set[str] = set()
        self._losses: list[str] = []
        self._server_read_at = float("-inf")
        self._looked = threading.Event()
        # Another session may be one with another server, after a failover.
        event.listen(engine, "connect", self._forget_server)

    def problem(self) -> str:
        """Why a report sent now could not be kept, "" if it can."""
        if self.stopping:
            return "the receiver is stopping"
        trouble = str(self._outage) or self._fault
        if trouble and not self._connections.all():
            return f"no connection is known yet: {trouble}"
        if self._outage and self._spool.full:
            return f"{self._outage}, and the spool is full"
        if self._fails_alone:
            # Who may send, what was erased: all of that is as it was before.
            return f"the checks of the database fail: {self._fault}"
        return ""

    def note(self) -> str:
        """What an operator should know though reports are kept, "" if nothing.

        Tokens that can't be read belong here even where that concerns every connection: API keys
        let in all the same, and `doctor` has to reach this receiver to tell why.
        """
        waiting = f"{self._spool.depth} reports wait in the spool" if self._spool.depth else ""
        orphans = [
            f"{count} of them for connection {number}, which the database has not: bring it back or"
            f" see `developer-telemetry spool drop --connection {number}`"
            for number, count in sorted(self._spool.orphans.items())
        ]
        unreadable = _takes_nothing(self._connections.unreadable())
        remarks = [str(self._outage), unreadable, waiting, *orphans, *self._losses]
        return "; ".join(filter(None, remarks))

    def told(self) -> str:
        """Return the problem, the note, or "ready", without what a database says of itself.

        Anybody may ask for it, and an error names hosts, users and tables.
        """
        text = self.problem() or self.note() or "ready"
        for reason_given in filter(None, (self._outage.reason, self._fault)):
            if reason_given != NOT_MIGRATED:
                text = text.replace(reason_given, UNTOLD)
        return text

    def start(self) -> None:
        """Look once before the first request is taken, then go on in the background."""
        super().start()
        self._looked.wait(FIRST_LOOK_SECONDS)

    def _run(self) -> None:
        while True:
            self._look()
            self._say_readiness()
            self._looked.set()
            ending = self._ending.wait(ROUND_SECONDS)
            self._flush()
            if ending:
                return

    def _look(self) -> None:
        try:
            self._check()
        except Exception as error:  # nothing may end the rounds
            self._failed(error)
        else:
            self._fault, self._fails_alone = "", False

    def _check(self) -> None:
        self._migrated = self._migrated or is_migrated(self._engine)
        if not self._migrated:
            self._outage.began(NOT_MIGRATED)
            return
        self._connections.reload()
        if time.monotonic() - self._server_read_at >= SERVER_SECONDS:
            self._ingest.clock_offset_us = clock_offset_us(self._engine)
            self._losses = losses(self._engine)
            self._server_read_at = time.monotonic()
        self._say_remarks()

    def _failed(self, error: Exception) -> None:
        fault = _fault(error)
        if fault != self._fault and not isinstance(error, SQLAlchemyError):
            logger.error("a round of checks failed", exc_info=error)
        self._fault = fault
        # A session may keep the trouble for itself when it is over.
        self._engine.dispose()
        try:
            probe(self._engine)
        except Exception as outage:
            self._fails_alone = False
            self._outage.began(_fault(outage))
        else:
            self._fails_alone = True

    def _forget_server(self, connection: Any, record: Any) -> None:
        self._server_read_at = float("-inf")

    def _say_readiness(self) -> None:
        problem = self.problem()
        if problem != self._said:
            log = logger.warning if problem else logger.info
            log("%s", f"not ready: {problem}" if problem else "ready for reports")
        self._said = problem

    def _say_remarks(self) -> None:
        remarks = {*self._connections.remarks, *self._losses}
        for remark in sorted(remarks - self._remarks):
            logger.warning("%s", remark)
        self._remarks = remarks

    def _flush(self) -> None:
        if not self._migrated or self._outage:
            return
        try:
            self._tallies.flush(self._writing)
        except Exception as error:
            logger.warning("can't write tallies, will try again: %s", error)


def _fault(error: Exception) -> str:
    """What to call an error; the text of one that isn't the database's may say little by itself."""
    said = reason(error)
    return said if isinstance(error, SQLAlchemyError) else f"{type(error).__name__}: {said}"


def _takes_nothing(unreadable: Sequence[Connection]) -> str:
    """That there are connections whose token can't be read; fit for strangers."""
    if not unreadable:
        return ""
    numbers = ", ".join(str(each.id) for each in unreadable[:MOST_NAMED])
    more = f" and {len(unreadable) - MOST_NAMED} more" if len(unreadable) > MOST_NAMED else ""
    one = len(unreadable) == 1
    return (
        f"takes no reports for connection{'' if one else 's'} {numbers}{more}:"
        f" {'its secret token' if one else 'their secret tokens'} can't be read;"
        " `developer-telemetry doctor` says why"
    )
