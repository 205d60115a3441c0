"""The job that checks the database, and the receiver's readiness."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Optional

from sqlalchemy import event, inspect
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.concurrency import PeriodicThread
from developer_telemetry.connections.registry import Connection, Connections
from developer_telemetry.constants import MIGRATION_TABLE
from developer_telemetry.database.engine import clock_offset_us, list_risks, reading
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.database.migrate import is_migrated, list_applied_by_devlake
from developer_telemetry.database.schema_owner import (
    SchemaOwner,
    read_owner,
    read_owner_since_us,
)
from developer_telemetry.errors import TelemetryError
from developer_telemetry.receiver.ingest.ingestor import Ingestor, Outage
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.storage.devlake_schema import is_devlake_database
from developer_telemetry.storage.statistics import ReportCounts
from developer_telemetry.storage.writer import probe_store

# Short enough for a changed token to be in force within 5 s.
ROUND_SECONDS = 3.0
# Clocks drift and the database's settings change, both slowly.
SERVER_SECONDS = 60.0
# The time that the first request waits for the first check, since the database may hang.
FIRST_CHECK_SECONDS = 6.0

# The time until TELEMETRY_STANDALONE is tried again after a refusal; it doubles each time.
FIRST_RETRY_SECONDS = 3.0
MAX_RETRY_SECONDS = 60.0

_START_DEVLAKE = "start DevLake with the plugin and confirm its pending migration"
_MIGRATE = "run `developer-telemetry migrate`"
_MIGRATE_STANDALONE = "run `developer-telemetry migrate --standalone`"

# The longest list of ids in a message.
MAX_LISTED = 5

# In public answers, this replaces the database's error, which may name hosts, users and tables.
PUBLIC_REASON = "the database accepts no reports (for the reason see the log, `status` or `doctor`)"

# In public answers, this replaces the refusal, which may name the database's address.
PUBLIC_REFUSAL = "TELEMETRY_STANDALONE has no effect (for the reason see the log)"

logger = logging.getLogger(__name__)


class Monitor(PeriodicThread):
    """Reloads connections, writes statistics and compares clocks, every few seconds."""

    def __init__(
        self,
        engine: Engine,
        writing: Engine,
        connections: Connections,
        ingest: Ingestor,
        spool: Spool,
        outage: Outage,
        tallies: ReportCounts,
        conversion_note: Callable[[], str],
        take_over: Optional[Callable[[], None]] = None,
    ) -> None:
        """Initialize the monitor; `take_over` migrates DevLake's database if this is standalone."""
        super().__init__("monitor")
        self.stopping = False
        self._engine = engine
        # Its statements wait for locks no longer than a round may take.
        self._writing = writing
        self._connections = connections
        self._ingest = ingest
        self._spool = spool
        self._outage = outage
        self._tallies = tallies
        self._conversion_note = conversion_note
        self._take_over = take_over
        self._schema_problem = ""
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._retry_at = float("-inf")
        self._migrated = False
        self._not_migrated = ""
        # The fault of the last checks, and whether the database accepts reports nevertheless.
        self._fault = ""
        self._only_checks_fail = False
        self._logged_problem = "starting"
        self._is_listening = False
        self._remarks: set[str] = set()
        self._losses: list[str] = []
        self._server_read_at = float("-inf")
        self._checked = threading.Event()
        # After a failover, a new session may be with another server.
        event.listen(engine, "connect", self._forget_server)

    def problem(self) -> str:
        """Return why the receiver can't accept a report now, "" if it can."""
        if self.stopping:
            return "the receiver is stopping"
        trouble = str(self._outage) or self._fault
        if trouble and not self._connections.all():
            return f"no connection is known yet: {trouble}"
        if self._outage and self._spool.full:
            return f"{self._outage}, and the spool is full"
        if self._only_checks_fail:
            # Tokens and erasures may have changed since the last round that succeeded.
            return f"the checks of the database fail: {self._fault}"
        return ""

    def note(self) -> str:
        """Return problems that an operator should fix although reports are accepted, "" if none.

        Unreadable tokens are among them even if no connection's token is readable: reports with an
        API key are accepted all the same, and `doctor` needs this receiver to find the reason.
        """
        waiting = f"{self._spool.depth} reports wait in the spool" if self._spool.depth else ""
        orphans = [
            f"{count} of them for connection {number}, which the database does not have: restore"
            f" it, or delete them with `developer-telemetry spool drop --connection {number}`"
            for number, count in sorted(self._spool.orphans.items())
        ]
        unreadable = _unreadable_note(self._connections.unreadable())
        remarks = [str(self._outage), unreadable, waiting, *orphans, *self._losses]
        remarks += [self._schema_problem, self._conversion_note()]
        return "; ".join(filter(None, remarks))

    def public_status(self) -> str:
        """Return the problem, the note, or "ready", without the database's own error messages.

        The answer is public, and those messages may name hosts, users and tables.
        """
        text = self.problem() or self.note() or "ready"
        if self._schema_problem:
            text = text.replace(self._schema_problem, PUBLIC_REFUSAL)
        for error in filter(None, (self._outage.reason, self._fault)):
            if error != self._not_migrated:
                text = text.replace(error, PUBLIC_REASON)
        return text

    def start(self) -> None:
        """Start the thread and wait for its first check, at most FIRST_CHECK_SECONDS."""
        super().start()
        self._checked.wait(FIRST_CHECK_SECONDS)

    def _run(self) -> None:
        while True:
            self._check_safely()
            self._log_readiness()
            self._checked.set()
            ending = self._ending.wait(ROUND_SECONDS)
            self._flush()
            if ending:
                return

    def _check_safely(self) -> None:
        try:
            self._check()
        except Exception as error:  # no error may end this thread
            self._handle_failure(error)
        else:
            self._fault, self._only_checks_fail = "", False

    def _check(self) -> None:
        self._try_take_over()
        self._migrated = self._migrated or is_migrated(self._engine)
        if not self._migrated:
            self._not_migrated = describe_pending(self._engine)
            self._outage.begin(self._schema_problem or self._not_migrated)
            return
        self._connections.reload()
        if time.monotonic() - self._server_read_at >= SERVER_SECONDS:
            self._ingest.clock_offset_us = clock_offset_us(self._engine)
            self._losses = list_risks(self._engine)
            self._server_read_at = time.monotonic()
        self._log_remarks()

    def _try_take_over(self) -> None:
        """Take DevLake's schema over, once; a refusal is tried again, less and less often."""
        if self._take_over is None or time.monotonic() < self._retry_at:
            return
        try:
            self._take_over()
        except TelemetryError as refusal:
            self._postpone_take_over(str(refusal))
        else:
            self._take_over, self._schema_problem = None, ""

    def _postpone_take_over(self, problem: str) -> None:
        if problem != self._schema_problem:
            logger.warning("TELEMETRY_STANDALONE has no effect yet: %s", problem)
            self._retry_seconds = FIRST_RETRY_SECONDS
        self._schema_problem = problem
        self._retry_at = time.monotonic() + self._retry_seconds
        self._retry_seconds = min(MAX_RETRY_SECONDS, 2 * self._retry_seconds)

    def _handle_failure(self, error: Exception) -> None:
        """Test whether the database still accepts reports although a check failed."""
        fault = _fault(error)
        if fault != self._fault and not isinstance(error, SQLAlchemyError):
            logger.error("a round of checks failed", exc_info=error)
        self._fault = fault
        # Open sessions may fail even after the database has recovered.
        self._engine.dispose()
        try:
            probe_store(self._engine)
        except Exception as outage:
            self._only_checks_fail = False
            self._outage.begin(_fault(outage))
        else:
            self._only_checks_fail = True

    def _forget_server(self, connection: Any, record: Any) -> None:
        self._server_read_at = float("-inf")

    def report_listening(self) -> None:
        """Log from now on that the receiver is ready when it is."""
        self._is_listening = True
        self._log_readiness()

    def _log_readiness(self) -> None:
        problem = self.problem()
        # A stop was asked for, so it is no news; a round of checks may end in the middle of it.
        if self.stopping or not (problem or self._is_listening):
            return
        if problem != self._logged_problem:
            log = logger.warning if problem else logger.info
            log("%s", f"not ready: {problem}" if problem else "ready for reports")
        self._logged_problem = problem

    def _log_remarks(self) -> None:
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
            logger.warning("can't write statistics, will try again: %s", error)


def describe_pending(engine: Engine) -> str:
    """Describe the remedy for pending migrations, by the owner of the schema."""
    with reading(engine).connect() as connection:
        owner = read_owner(connection)
        is_recorded = read_owner_since_us(connection) is not None
    is_devlakes = is_devlake_database(engine)
    if owner is SchemaOwner.STANDALONE and is_devlakes:
        remedy = _MIGRATE_STANDALONE
    elif is_devlakes and (is_recorded or list_applied_by_devlake(engine)):
        remedy = _START_DEVLAKE
    elif is_devlakes:
        remedy = f"{_START_DEVLAKE}; or, for a DevLake without the plugin, {_MIGRATE_STANDALONE}"
    elif inspect(engine).has_table(MIGRATION_TABLE):
        remedy = _MIGRATE
    else:
        remedy = (
            f"for DevLake's database {_START_DEVLAKE}, or {_MIGRATE_STANDALONE} for a DevLake"
            f" without the plugin; for a database of your own {_MIGRATE}"
        )
    return f"the database is not migrated: {remedy}"


def _fault(error: Exception) -> str:
    """Return an error's text, preceded by its class if it is not an error of the database."""
    text = describe_error(error)
    return text if isinstance(error, SQLAlchemyError) else f"{type(error).__name__}: {text}"


def _unreadable_note(unreadable: Sequence[Connection]) -> str:
    """Return a note about connections with unreadable tokens, for public answers; "" for none."""
    if not unreadable:
        return ""
    numbers = ", ".join(str(connection.id) for connection in unreadable[:MAX_LISTED])
    more = f" and {len(unreadable) - MAX_LISTED} more" if len(unreadable) > MAX_LISTED else ""
    one = len(unreadable) == 1
    return (
        f"accepts no reports for connection{'' if one else 's'} {numbers}{more}:"
        f" {'its secret token' if one else 'their secret tokens'} can't be read;"
        " run `developer-telemetry doctor` for the reason"
    )
