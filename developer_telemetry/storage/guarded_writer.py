"""Store reports, but none of a person who was erased meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from developer_telemetry.database.dialects.lookup import Database
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.storage.bisecting import Outcome, store_bisecting
from developer_telemetry.storage.tombstones import Erased, Outdated
from developer_telemetry.storage.writer import Check


class Kept(NamedTuple):
    """What became of arrivals of whom nobody was erased."""

    arrivals: Sequence[ReceivedReport]
    refused: Mapping[str, str]  # for good, by their content: a report's id and the reason
    waiting: Mapping[str, str] = {}  # to be tried again

    @property
    def connection_ids(self) -> list[int]:
        """Those of the reports that were stored, one each."""
        left = {*self.refused, *self.waiting}
        return [each.connection_id for each in self.arrivals if each.report_id not in left]


Store = Callable[[Database, Sequence[ReceivedReport], Mapping[int, str], Check], Outcome]


def store_excluding_erased(
    database: Database,
    erased: Erased,
    arrivals: Sequence[ReceivedReport],
    strategies: Mapping[int, str],
    store_all: Store = store_bisecting,
) -> Kept:
    """Store arrivals but those of people who were erased since, or are blocked.

    Raises as `store_all` does.
    """
    while True:
        known = erased.known()
        kept = known.spare(arrivals)
        if not kept:
            return Kept((), {})
        try:
            outcome = store_all(database, kept, strategies, partial(erased.check, known))
        except Outdated:
            erased.reload()
        else:
            return Kept(kept, outcome.refused, outcome.waiting)
