"""Store reports, and find those that make a batch fail: for now, or for good by their content.

A report is refused for good only for its content: the database refuses the values of a statement
with this report alone, and accepts a harmless one of the same day. Every other failure is
temporary: locks, failovers, rights, a full disk, and faults of our own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from sqlalchemy.exc import DBAPIError

from developer_telemetry.database.dialects.lookup import Database, dialect_of
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.errors import ConnectionDeleted
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.storage.raw_reports import Key
from developer_telemetry.storage.tombstones import OutdatedTombstones
from developer_telemetry.storage.writer import CommitCheck, find_locked_days, probe_store, store

# A batch with more failures is not split any further now: other batches wait for it.
MAX_FAILURES = 40
MAX_SECONDS = 15.0


class StoreOutcome:
    """Reports of a batch that are not stored, by id, with the reason."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}  # for good, by their content
        self.waiting: dict[str, str] = {}  # to be tried again

    def wait(self, arrivals: Iterable[ReceivedReport], failure: Exception) -> None:
        """Note arrivals that are to be tried again."""
        why = describe_error(failure)
        for arrival in arrivals:
            self.waiting[arrival.report_id] = why


def store_bisecting(
    database: Database,
    arrivals: Sequence[ReceivedReport],
    strategies: Mapping[int, str],
    check: CommitCheck,
) -> StoreOutcome:
    """Store arrivals, also if one of them fails.

    Reports stored before an exception stay stored; storing them again is harmless.

    Raises:
        OutdatedTombstones, ConnectionDeleted: By `check`.
        Exception: The database accepts no reports at all, not even a harmless one.
    """
    search = _Bisection(database, strategies, check)
    search.store(arrivals)
    return search.outcome


def store_or_find_lock(
    database: Database,
    arrivals: Sequence[ReceivedReport],
    strategies: Mapping[int, str],
    check: CommitCheck,
) -> StoreOutcome:
    """Store arrivals in one transaction, except those of days that another transaction holds.

    Raises:
        Exception: The failure, if it is not such a lock.
    """
    outcome = StoreOutcome()
    while arrivals:
        try:
            store(database, arrivals, strategies, check)
            break
        except DBAPIError as error:
            locked = _find_locked_days(database, error, arrivals)
            if not locked:
                raise
            outcome.wait((arrival for arrival in arrivals if arrival.key in locked), error)
            arrivals = [arrival for arrival in arrivals if arrival.key not in locked]
    return outcome


def _find_locked_days(
    database: Database, error: Exception, arrivals: Sequence[ReceivedReport]
) -> set[Key]:
    """Return the days that another transaction holds, if `arrivals` failed for that reason."""
    if isinstance(error, DBAPIError) and dialect_of(database).is_lock_timeout(error):
        with suppress(Exception):  # then the cause is unknown
            return find_locked_days(database, [arrival.key for arrival in arrivals])
    return set()


class _Bisection:
    """One batch that is split until its failing reports are alone."""

    def __init__(
        self, database: Database, strategies: Mapping[int, str], check: CommitCheck
    ) -> None:
        self.outcome = StoreOutcome()
        self._database = database
        self._strategies = strategies
        self._check = check
        self._failures = 0
        self._ends_at = time.monotonic() + MAX_SECONDS

    def store(self, arrivals: Sequence[ReceivedReport]) -> None:
        """Store arrivals together, or in halves if that fails."""
        try:
            store(self._database, arrivals, self._strategies, self._check)
            return
        except (OutdatedTombstones, ConnectionDeleted):
            raise
        except Exception as error:  # of any kind: it concerns only the reports that cause it
            failure = error
        self._failures += 1
        if locked := _find_locked_days(self._database, failure, arrivals):
            self.outcome.wait((arrival for arrival in arrivals if arrival.key in locked), failure)
            if free := [arrival for arrival in arrivals if arrival.key not in locked]:
                self.store(free)
            return
        # A bad statement can look like an outage; a harmless one tells them apart.
        probe_store(self._database)
        if len(arrivals) == 1:
            self._refuse_or_wait(arrivals[0], failure)
        elif self._failures >= MAX_FAILURES or time.monotonic() > self._ends_at:
            self.outcome.wait(arrivals, failure)
        else:
            middle = len(arrivals) // 2
            self.store(arrivals[:middle])
            self.store(arrivals[middle:])

    def _refuse_or_wait(self, arrival: ReceivedReport, failure: Exception) -> None:
        if dialect_of(self._database).is_caused_by_values(failure) and self._can_store_harmless(
            arrival
        ):
            self.outcome.refused[arrival.report_id] = describe_error(failure)
        else:
            self.outcome.wait([arrival], failure)

    def _can_store_harmless(self, arrival: ReceivedReport) -> bool:
        try:
            probe_store(self._database, arrival.report.date, arrival.arrived_us)
        except Exception:  # the day is refused, not the report: its partition may be missing
            return False
        return True
