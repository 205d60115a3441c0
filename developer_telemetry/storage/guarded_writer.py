"""Store reports, except those of people erased and of connections deleted meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy.engine import Connection as SqlConnection

from developer_telemetry.database.dialects.lookup import Database
from developer_telemetry.errors import ConnectionDeleted
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.storage.bisecting import StoreOutcome, store_bisecting
from developer_telemetry.storage.connection_locks import require_connections
from developer_telemetry.storage.tombstones import (
    OutdatedTombstones,
    TombstoneCache,
    Tombstones,
)
from developer_telemetry.storage.writer import CommitCheck


class StoredReports(NamedTuple):
    """The outcome for reports of people who were not erased."""

    arrivals: Sequence[ReceivedReport]
    refused: Mapping[str, str]  # for good, by their content: a report's id and the reason
    waiting: Mapping[str, str] = {}  # to be tried again
    deleted: frozenset[int] = frozenset()  # connections, whose reports are not in `arrivals`

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

    Reports of deleted connections are omitted, too. Raises the exceptions of `store_all`.
    """
    deleted: frozenset[int] = frozenset()
    while True:
        tombstones = erased.tombstones()
        spared = [
            arrival
            for arrival in tombstones.without_erased(arrivals)
            if arrival.connection_id not in deleted
        ]
        if not spared:
            return StoredReports((), {}, deleted=deleted)
        try:
            outcome = store_all(
                database, spared, strategies, _make_check(erased, tombstones, spared)
            )
        except OutdatedTombstones:
            erased.reload()
        except ConnectionDeleted as missing:
            deleted |= missing.ids
        else:
            return StoredReports(spared, outcome.refused, outcome.waiting, deleted)


def _make_check(
    erased: TombstoneCache, tombstones: Tombstones, arrivals: Sequence[ReceivedReport]
) -> CommitCheck:
    ids = {arrival.connection_id for arrival in arrivals}

    def check(connection: SqlConnection, locked: frozenset[int]) -> None:
        require_connections(connection, ids - locked)
        erased.check(tombstones, connection)

    return check
