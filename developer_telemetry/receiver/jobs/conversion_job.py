"""The job that converts new reports to accounts, tasks and links where DevLake does not.

With several receivers, the first one to take a connection's lock converts it; the others read the
record of that (`storage/conversions`). Pauses between pages leave time for pushes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.concurrency import PeriodicThread
from developer_telemetry.connections.registry import Connection, Connections
from developer_telemetry.constants import RAW_TABLE
from developer_telemetry.database.advisory_lock import ConnectionBusy, hold_connection
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import (
    database_now_us,
    now_us,
    reading,
    transact,
)
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.database.schema_owner import SchemaOwner, read_owner
from developer_telemetry.pipeline.runner import Converted, convert_new
from developer_telemetry.receiver.ingest.ingestor import Outage
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.storage.connection_locks import lock_connections
from developer_telemetry.storage.conversions import (
    OVERDUE_SECONDS,
    Conversion,
    ConversionOptions,
    has_days,
    read_conversions,
    read_newest,
    read_options,
    write_conversion,
)
from developer_telemetry.storage.devlake_schema import is_devlake_database, read_users_version
from developer_telemetry.storage.project_mapping import restore

# How long a run of a DevLake project can hide our scopes from its dashboards.
ROUND_SECONDS = 10.0
# How often the newest report is looked up, which may start a round early.
POLL_SECONDS = 2.0
# The shortest time between two conversions of a connection.
PACE_SECONDS = 60.0
# A transaction may commit a report this long after a later report was seen.
LATE_COMMIT_SECONDS = 30.0
# A pause is as long as the step before it, and longer while reports wait for an answer.
BUSY_PAUSE_FACTOR = 9
MAX_PAUSE_SECONDS = 1.0
# The longest list of ids in a message.
MAX_LISTED = 5
SECOND_US = 1_000_000

logger = logging.getLogger(__name__)


class _Inputs(NamedTuple):
    """The inputs of a conversion; a change makes one due."""

    newest_raw_id: int
    users: tuple[Any, ...]
    options: ConversionOptions
    strategy: str


class _Watched:
    """The state of a connection in the last round; times are those of the database's clock."""

    def __init__(self) -> None:
        self.inputs: Optional[_Inputs] = None
        self.changed_us = 0
        self.waiting_since_us: Optional[int] = None
        self.error = ""
        # The users of the last conversion here that linked all accounts.
        self.linked_users: Optional[tuple[Any, ...]] = None

    def update(self, inputs: _Inputs, last: Optional[Conversion], clock_us: int) -> bool:
        """Update the state by the last round; return true if a conversion may begin now."""
        if self.inputs and inputs.options != self.inputs.options:
            self.linked_users = None
        if inputs != self.inputs:
            self.inputs, self.changed_us = inputs, clock_us
        started_us = last.started_us if last else 0
        self.error = last.error if last else ""
        seen_until_us = started_us - LATE_COMMIT_SECONDS * SECOND_US
        if last and not last.error and self.changed_us <= seen_until_us:
            self.waiting_since_us = None
            return False
        waiting_since_us = clock_us if self.waiting_since_us is None else self.waiting_since_us
        # A successful conversion covers all reports before it, so the wait begins after it.
        self.waiting_since_us = (
            waiting_since_us if self.error else max(waiting_since_us, started_us)
        )
        return clock_us - started_us >= PACE_SECONDS * SECOND_US


class ConversionJob(PeriodicThread):
    """Converts each connection with new reports or users, once a minute at most."""

    def __init__(
        self,
        engine: Engine,
        connections: Connections,
        outage: Outage,
        metrics: Metrics,
        waiting: Callable[[], int],
    ) -> None:
        """Initialize the job.

        Args:
            engine: an engine that no other thread uses.
            waiting: returns the number of reports that wait for an answer.
        """
        super().__init__("conversion")
        self._engine = engine
        self._connections = connections
        self._outage = outage
        self._metrics = metrics
        self._waiting = waiting
        self._newest = _NewestRaws()
        self._watched: dict[int, _Watched] = {}
        self._complaints: dict[int, str] = {}
        self._logged_problem = ""
        self._last_ended_us = 0
        self._round_at = float("-inf")
        self._polled = -1  # the newest raw id
        self._clock_ahead_us = 0

    @property
    def age_seconds(self) -> float:
        """The time since the last conversion by any receiver; 0 if there was none."""
        return self._seconds_since(self._last_ended_us) if self._last_ended_us else 0.0

    @property
    def waiting_seconds(self) -> float:
        """The longest time for which a connection has been waiting for a conversion."""
        waits = [self._seconds_since(since) for since in self._waits().values()]
        return max(waits, default=0.0)

    def note(self) -> str:
        """Return the faults of conversions, for public answers; "" if there are none."""
        watched = dict(self._watched)
        failed = sorted(number for number, one in watched.items() if one.error)
        late = sorted(
            number
            for number, since_us in self._waits().items()
            if number not in failed and self._seconds_since(since_us) > OVERDUE_SECONDS
        )
        notes = []
        if failed:
            notes.append(
                f"the last conversion of {_list_connections(failed)} failed, so accounts may be"
                " missing (for the reason see the log, `status` or `doctor`)"
            )
        if late:
            notes.append(
                f"reports of {_list_connections(late)} have waited for a conversion for more than"
                f" {OVERDUE_SECONDS // 60} minutes (see the log, `status` or `doctor`)"
            )
        return "; ".join(notes)

    def _waits(self) -> dict[int, int]:
        return {
            number: one.waiting_since_us
            for number, one in dict(self._watched).items()
            if one.waiting_since_us is not None
        }

    def _seconds_since(self, moment_us: int) -> float:
        return max(0.0, (now_us() + self._clock_ahead_us - moment_us) / SECOND_US)

    def _run(self) -> None:
        while not self._ending.wait(POLL_SECONDS):
            try:
                if self._is_round_due():
                    self._round_at = time.monotonic()
                    self._work()
                self._logged_problem = ""
            except Exception as error:  # no error may end this thread
                self._log_problem(f"can't list the connections to convert: {_describe(error)}")

    def _log_problem(self, problem: str) -> None:
        if problem != self._logged_problem:
            logger.error("%s; will try again", problem)
        self._logged_problem = problem

    def _is_round_due(self) -> bool:
        """Return true if a round is due by time, or for the first report after a quiet time."""
        if self._outage:
            return False
        with reading(self._engine).connect() as connection:
            before, self._polled = self._polled, read_newest(connection)
        is_quiet = not self._waits()
        is_late = time.monotonic() - self._round_at >= ROUND_SECONDS
        return is_late or (is_quiet and self._polled != before)

    def _work(self) -> None:
        if self._outage:
            return
        with reading(self._engine).connect() as connection:
            if read_owner(connection) is not SchemaOwner.STANDALONE:
                self._watched.clear()
                return
            due = self._list_due(connection)
        if is_devlake_database(self._engine):
            restored = restore(self._engine)
            if restored:
                logger.info("put %d rows back into DevLake's project_mapping", restored)
        for connection_now, options in due:
            if self._ending.is_set():
                return
            self._convert(connection_now, options)

    def _list_due(
        self, connection: SqlConnection
    ) -> Sequence[tuple[Connection, ConversionOptions]]:
        """Return the connections to convert now."""
        clock_us = database_now_us(connection)
        self._clock_ahead_us = clock_us - now_us()
        conversions = read_conversions(connection)
        self._last_ended_us = max((one.ended_us for one in conversions.values()), default=0)
        newest = self._newest.read(connection)
        users = read_users_version(connection)
        due = []
        present = self._connections.all()
        for one in present:
            options = read_options(connection, one.id)
            inputs = _Inputs(newest.get(one.id, 0), users, options, one.strategy)
            if one.id not in conversions and not has_days(connection, one.id):
                continue  # the first report need not wait for a conversion of nothing
            watched = self._watched.setdefault(one.id, _Watched())
            if watched.update(inputs, conversions.get(one.id), clock_us):
                due.append((one, options))
        for gone in self._watched.keys() - {one.id for one in present}:
            del self._watched[gone]
        return due

    def _convert(self, connection: Connection, options: ConversionOptions) -> None:
        """Convert one connection, unless another receiver does, and record the outcome."""
        try:
            with hold_connection(self._engine, connection.id, patience=0) as still_alone:
                if not self._is_due(connection.id):
                    return  # another receiver has converted it since, or it was deleted
                started_us = self._clock_us()
                converted, error = self._try(connection, options, still_alone)
                if self._ending.is_set():
                    return  # the next receiver continues
                self._report(connection.id, converted, error)
                record = Conversion(connection.id, started_us, self._clock_us(), *converted, error)
                transact(self._engine, lambda to: write_conversion(to, record))
        except ConnectionBusy:
            return  # another receiver converts it, or an erasure or the retention works on it

    def _is_due(self, connection_id: int) -> bool:
        with reading(self._engine).connect() as database:
            # Its deletion would wait for the lock that the caller has.
            if connection_id not in lock_connections(database, [connection_id]):
                return False
            last = read_conversions(database).get(connection_id)
            clock_us = database_now_us(database)
        return last is None or clock_us - last.started_us >= PACE_SECONDS * SECOND_US

    def _clock_us(self) -> int:
        with reading(self._engine).connect() as database:
            return database_now_us(database)

    def _try(
        self, connection: Connection, options: ConversionOptions, still_alone: Callable[[], None]
    ) -> tuple[Converted, str]:
        """Convert one connection with pauses; return what was written, and an error or ""."""
        converted = Converted()
        watched = self._watched.setdefault(connection.id, _Watched())
        with reading(self._engine).connect() as database:
            users = read_users_version(database)
        links_all = watched.linked_users != users
        steps = convert_new(self._engine, connection.id, connection.strategy, options, links_all)
        try:
            with closing(steps):
                began = time.monotonic()
                for step in steps:
                    converted = step
                    still_alone()
                    factor = BUSY_PAUSE_FACTOR if self._waiting() else 1
                    pause = factor * (time.monotonic() - began)
                    if self._ending.wait(min(MAX_PAUSE_SECONDS, pause)):
                        return converted, ""
                    began = time.monotonic()
        except Exception as failure:  # an error of one connection must not delay others
            return converted, _describe(failure)
        watched.linked_users = users if options.with_links else None
        return converted, ""

    def _report(self, connection_id: int, converted: Converted, error: str) -> None:
        self._metrics.converted(connection_id, converted.accounts, converted.links, bool(error))
        before = self._complaints.get(connection_id, "")
        if error and error != before:
            logger.error(
                "the conversion of connection %d failed: %s; will try again", connection_id, error
            )
        elif before and not error:
            logger.info("the conversion of connection %d succeeds again", connection_id)
        self._complaints[connection_id] = error


class _NewestRaws:
    """The newest raw row of each connection, read from the end of the table alone.

    Rows may be committed after rows with greater ids, so each round reads the rows of the last
    minute again. The first call reads no row: a connection without a state is due anyway.
    """

    def __init__(self) -> None:
        self._ids: dict[int, int] = {}
        self._floor, self._next_floor, self._moved_at = -1, -1, 0.0

    def read(self, connection: SqlConnection) -> dict[int, int]:
        """Return the newest raw id by connection, of those with rows since the first call."""
        last = read_newest(connection)
        if self._floor < 0 or last < self._floor:  # at first, or after a restore
            self._ids = {}
            self._floor, self._next_floor, self._moved_at = last, last, time.monotonic()
        rows = connection.exec_driver_sql(
            f"SELECT connection_id, MAX(id) FROM {RAW_TABLE}"
            f" WHERE id > {dialect_of(connection).placeholder} GROUP BY connection_id",
            (self._floor,),
        )
        self._ids.update((row[0], row[1]) for row in rows)
        if time.monotonic() - self._moved_at >= PACE_SECONDS:
            self._floor, self._next_floor = self._next_floor, last
            self._moved_at = time.monotonic()
        return dict(self._ids)


def _describe(failure: Exception) -> str:
    """Describe an error without values of rows."""
    text = describe_error(failure)
    return text if isinstance(failure, SQLAlchemyError) else f"{type(failure).__name__}: {text}"


def _list_connections(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers[:MAX_LISTED]))
    more = f" and {len(numbers) - MAX_LISTED} more" if len(numbers) > MAX_LISTED else ""
    return f"connection{'' if len(numbers) == 1 else 's'} {listed}{more}"
