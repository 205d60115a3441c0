"""Store reports, except those of people who were erased meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from developer_telemetry.database.dialects.lookup import Database
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.storage.bisecting import StoreOutcome, store_bisecting
from developer_telemetry.storage.tombstones import OutdatedTombstones, TombstoneCache
from developer_telemetry.storage.writer import CommitCheck


class StoredReports(NamedTuple):
    """The outcome for reports of people who were not erased."""

    arrivals: Sequence[ReceivedReport]
    refused: Mapping[str, str]  # for good, by their content: a report's id and the reason
    waiting: Mapping[str, str] = {}  # to be tried again

    @property
    def connection_ids(self) -> list[int]:
        """Return the connection of each report that was stored."""
        left = {*self.refused, *self.waiting}
        return [arrival.connection_id for arrival in self.arrivals if arrival.report_id not in left]


Store = Callable[[Database, Sequence[ReceivedReport], Mapping[int, str], CommitCheck], StoreOutcome]


def store_excluding_erased(
    database: Database,
    erased: TombstoneCache,
    arrivals: Sequence[ReceivedReport],
    strategies: Mapping[int, str],
    store_all: Store = store_bisecting,
) -> StoredReports:
    """Store arrivals, except those of people who were erased since or are blocked.

    Raises the exceptions of `store_all`.
    """
    while True:
        tombstones = erased.tombstones()
        spared = tombstones.without_erased(arrivals)
        if not spared:
            return StoredReports((), {})
        try:
            outcome = store_all(database, spared, strategies, partial(erased.check, tombstones))
        except OutdatedTombstones:
            erased.reload()
        else:
            return StoredReports(spared, outcome.refused, outcome.waiting)
