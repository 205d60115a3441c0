"""Store reports, and find those that stop a batch: for now, or for good by their own content.

Only what a report's content causes is for good: an error by which the database blames the values of
a statement that has this report alone, while it takes a harmless one of the same day. All else
passes: locks, failovers, rights, a full disk, and faults of our own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from sqlalchemy.exc import DBAPIError

from developer_telemetry.database.dialects.lookup import Database, dialect_of
from developer_telemetry.database.engine import reason
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.storage.raw_reports import Key
from developer_telemetry.storage.tombstones import OutdatedTombstones
from developer_telemetry.storage.writer import CommitCheck, find_locked_days, probe_store, store

# A batch in which more fails is not taken apart any further now: others wait behind it.
MAX_FAILURES = 40
MAX_SECONDS = 15.0


class StoreOutcome:
    """Reports of a batch that are not stored, by id, with the reason."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}  # by their content, for good
        self.waiting: dict[str, str] = {}  # to be tried again

    def wait(self, arrivals: Iterable[ReceivedReport], failure: Exception) -> None:
        """Let arrivals be tried again."""
        why = reason(failure)
        for arrival in arrivals:
            self.waiting[arrival.report_id] = why


def store_bisecting(
    database: Database,
    arrivals: Sequence[ReceivedReport],
    strategies: Mapping[int, str],
    check: CommitCheck,
) -> StoreOutcome:
    """Store arrivals; those that fail stop no others.

    Raises what a harmless report is answered with when the database takes no reports at all, and
    `OutdatedTombstones` of `check`. What was stored by then stays; storing it again is harmless.
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
    """Store arrivals in one transaction, but for those of days that another transaction holds.

    Raises what anything else than such a lock is answered with.
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
    """Return the days that another transaction holds, if that is why `arrivals` failed."""
    if isinstance(error, DBAPIError) and dialect_of(database).is_lock_timeout(error):
        with suppress(Exception):  # nobody can say, then
            return find_locked_days(database, [arrival.key for arrival in arrivals])
    return set()


class _Bisection:
    """One batch that is taken apart."""

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
        """Store arrivals, or each half of them by itself."""
        try:
            store(self._database, arrivals, self._strategies, self._check)
            return
        except OutdatedTombstones:
            raise
        except Exception as error:  # whatever it is, it concerns the reports that cause it
            failure = error
        self._failures += 1
        if locked := _find_locked_days(self._database, failure, arrivals):
            self.outcome.wait((arrival for arrival in arrivals if arrival.key in locked), failure)
            if free := [arrival for arrival in arrivals if arrival.key not in locked]:
                self.store(free)
            return
        # A statement can be so bad that it looks like an outage: ask with a harmless one.
        probe_store(self._database)
        if len(arrivals) == 1:
            self._judge(arrivals[0], failure)
        elif self._failures >= MAX_FAILURES or time.monotonic() > self._ends_at:
            self.outcome.wait(arrivals, failure)
        else:
            middle = len(arrivals) // 2
            self.store(arrivals[:middle])
            self.store(arrivals[middle:])

    def _judge(self, arrival: ReceivedReport, failure: Exception) -> None:
        if dialect_of(self._database).is_content(failure) and self._takes_harmless(arrival):
            self.outcome.refused[arrival.report_id] = reason(failure)
        else:
            self.outcome.wait([arrival], failure)

    def _takes_harmless(self, arrival: ReceivedReport) -> bool:
        try:
            probe_store(self._database, arrival.report.date, arrival.arrived_us)
        except Exception:  # then it is the day that is not taken: its partition may be missing
            return False
        return True
