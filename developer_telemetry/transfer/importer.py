"""Import reports from files into the raw and the tool layer.

Each report has an identity, its own or one computed from its content, so stored reports are
skipped: an import may be killed and started again, or repeated.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from operator import add
from typing import Any, NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.concurrency import prefetch
from developer_telemetry.connections.registry import Connection
from developer_telemetry.constants import RAW_TABLE
from developer_telemetry.database.advisory_lock import hold_connection
from developer_telemetry.database.bulk_insert import batches
from developer_telemetry.database.dialects.base import flat
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import reading, transact
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.errors import ConnectionDeleted, Unavailable
from developer_telemetry.reports.daily_metrics import (
    TOOL_COLUMNS,
    ReceivedReport,
    ToolRow,
    build_raw_params,
)
from developer_telemetry.storage.connection_locks import require_connections
from developer_telemetry.storage.guarded_writer import StoredReports, store_excluding_erased
from developer_telemetry.storage.raw_reports import Key
from developer_telemetry.storage.statistics import count_machines
from developer_telemetry.storage.tombstones import TombstoneCache
from developer_telemetry.storage.writer import upsert_tool_rows
from developer_telemetry.transfer.import_reader import ImportBatch, make_copy_id
from developer_telemetry.transfer.input_files import InputItem

# Reports stored between two counts of machines: after a crash, much older rows are not counted.
COUNT_EVERY = 10_000
# The time to wait for another transaction's lock, and between two tries.
CONFLICT_SECONDS = 120.0
CONFLICT_PAUSE_SECONDS = 1.0


class ImportCounts(NamedTuple):
    """The numbers of items that were read so far, by outcome."""

    read: int = 0  # bytes of the files
    stored: int = 0
    already_stored: int = 0  # reports that were stored already
    days: int = 0  # rows of the tool layer without a report behind them
    left_out: int = 0  # rows that follow from the reports
    erased: int = 0  # of erased people
    refused: int = 0


class ImportStep(NamedTuple):
    """The progress after a batch."""

    counts: ImportCounts  # of all batches so far
    refused: Sequence[tuple[InputItem, str]]  # of this batch, with reasons


class Importer:
    """The importer into a database with these connections."""

    def __init__(
        self, engine: Engine, erased: TombstoneCache, connections: Mapping[int, Connection]
    ) -> None:
        self._engine = engine
        self._erased = erased
        self._strategies = {
            connection.id: connection.strategy for connection in connections.values()
        }

    def store(self, waiting: Iterator[ImportBatch]) -> Iterator[ImportStep]:
        """Store batches, each in one transaction; yields after each of them."""
        counts = ImportCounts()
        counted_id = count_machines(self._engine, None)
        counted = 0
        # The database stores a batch while the next one is read.
        for batch in prefetch(waiting):
            step = self._store(batch)
            counts = ImportCounts(batch.read, *map(add, counts[1:], step.counts[1:]))
            if counts.stored - counted >= COUNT_EVERY:
                counted_id = count_machines(self._engine, counted_id)
                counted = counts.stored
            yield ImportStep(counts, step.refused)
        count_machines(self._engine, counted_id)

    def _store(self, batch: ImportBatch) -> ImportStep:
        fresh = _select_new(self._engine, batch.reports)
        arrivals = [arrival for _, arrival in fresh]
        outcome = self._store_with_retries(arrivals)
        refused = [
            *batch.refused,
            *(
                (item, outcome.refused[arrival.report_id])
                for item, arrival in fresh
                if arrival.report_id in outcome.refused
            ),
        ]
        alone_days = self._select_days(batch.days)
        days, refused_days = self._store_days(alone_days)
        refused += refused_days
        spared = len(outcome.arrivals) + days + len(refused_days)
        return ImportStep(
            ImportCounts(
                stored=len(outcome.connection_ids),
                already_stored=len(batch.reports) - len(fresh),
                days=days,
                left_out=batch.left_out + len(batch.days) - len(alone_days),
                erased=len(arrivals) + len(alone_days) - spared,
                refused=len(refused),
            ),
            refused,
        )

    def _store_with_retries(self, arrivals: Sequence[ReceivedReport]) -> StoredReports:
        """Store arrivals, again after a lock or an outage."""
        gives_up_at = time.monotonic() + CONFLICT_SECONDS
        refused: dict[str, str] = {}
        outcome = StoredReports((), {})
        waiting = arrivals
        while waiting:
            now = store_excluding_erased(self._engine, self._erased, waiting, self._strategies)
            if now.deleted:
                raise ConnectionDeleted(now.deleted)
            refused.update(now.refused)
            waiting = [arrival for arrival in now.arrivals if arrival.report_id in now.waiting]
            stored = [arrival for arrival in now.arrivals if arrival.report_id not in now.waiting]
            outcome = StoredReports([*outcome.arrivals, *stored], refused)
            if waiting and time.monotonic() > gives_up_at:
                why = now.waiting[waiting[0].report_id]
                raise Unavailable(
                    f"{len(waiting)} reports can't be stored now ({why}); fix that and import"
                    " again: reports stored already are skipped"
                )
            if waiting:
                time.sleep(CONFLICT_PAUSE_SECONDS)
        return outcome

    def _select_days(
        self, days: Sequence[tuple[InputItem, Mapping[str, Any]]]
    ) -> list[tuple[InputItem, ToolRow]]:
        """Return the rows of days, sorted by key, without their reports here."""
        named = {(day["report_id"], day["connection_id"]) for _, day in days if day["report_id"]}
        identities = _resolve_identities(self._engine, named)
        rows: dict[Key, tuple[InputItem, ToolRow]] = {}
        for item, day in days:
            _, raw_id = identities.get((day["report_id"], day["connection_id"]), ("", None))
            if raw_id is None:
                row = _build_day_row(day)
                key = (row.connection_id, row.developer_id, row.date)
                if key not in rows or row.arrived_us > rows[key][1].arrived_us:
                    rows[key] = item, row
        return [rows[key] for key in sorted(rows)]

    def _store_days(
        self, days: Sequence[tuple[InputItem, ToolRow]]
    ) -> tuple[int, list[tuple[InputItem, str]]]:
        """Store days, except those of erased people.

        Returns:
            The number of stored days, and the refused ones with the reason.
        """
        stored = 0
        refused: list[tuple[InputItem, str]] = []
        for connection_id, group in groupby(days, key=lambda day: day[1].connection_id):
            # An erasure waits for writes to the raw layer, so lock it although days write none.
            with hold_connection(self._engine, connection_id):
                tombstones = self._erased.reload()
                spared = [day for day in group if not tombstones.cover_person(*_person_key(day[1]))]
                faults = self._upsert(spared)
            stored += len(spared) - len(faults)
            refused += faults
        return stored, refused

    def _upsert(self, days: Sequence[tuple[InputItem, ToolRow]]) -> list[tuple[InputItem, str]]:
        """Write days; return those whose content the database refuses, each with the reason."""
        rows = [row for _, row in days]

        def work(connection: SqlConnection) -> None:
            require_connections(connection, {row.connection_id for row in rows})
            upsert_tool_rows(connection, rows)

        try:
            transact(self._engine, work)
        except Exception as error:
            if not dialect_of(self._engine).is_caused_by_values(error):
                raise
            if len(days) == 1:
                return [(days[0][0], describe_error(error))]
            middle = len(days) // 2
            return [*self._upsert(days[:middle]), *self._upsert(days[middle:])]
        return []


def _build_day_row(day: Mapping[str, Any]) -> ToolRow:
    """Return a row of the tool layer without a report here, such as one of the Go plugin."""
    values = dict(day)
    if day["_raw_data_id"] is not None:
        values["_raw_data_id"] = 0
        values["_raw_data_params"] = build_raw_params(day["connection_id"])
    return ToolRow._make(values[column] for column in TOOL_COLUMNS)


def _person_key(row: ToolRow) -> tuple[int, int, str, str]:
    return (row.connection_id, row.arrived_us, row.developer_id, row.email or "")


def _select_new(
    engine: Engine, reports: Sequence[tuple[InputItem, ReceivedReport]]
) -> list[tuple[InputItem, ReceivedReport]]:
    """Return the reports that are not stored yet, without duplicates."""
    identities = _resolve_identities(engine, {(a.report_id, a.connection_id) for _, a in reports})
    fresh: dict[str, tuple[InputItem, ReceivedReport]] = {}
    for item, arrival in reports:
        report_id, raw_id = identities[arrival.report_id, arrival.connection_id]
        if raw_id is None:
            fresh.setdefault(report_id, (item, arrival._replace(report_id=report_id)))
    return list(fresh.values())


def _resolve_identities(
    engine: Engine, wanted: Collection[tuple[str, int]]
) -> dict[tuple[str, int], tuple[str, Optional[int]]]:
    """Return each report's identity in its connection, and its raw id if stored.

    A report gets another identity if another connection has stored one with its own identity.
    """
    stored = _read_stored(engine, [report_id for report_id, _ in wanted])
    identities: dict[tuple[str, int], tuple[str, Optional[int]]] = {}
    copies: dict[tuple[str, int], str] = {}
    for report_id, connection_id in wanted:
        owner, raw_id = stored.get(report_id, (connection_id, None))
        if owner == connection_id:
            identities[report_id, connection_id] = (report_id, raw_id)
        else:
            copies[report_id, connection_id] = make_copy_id(report_id, connection_id)
    stored = _read_stored(engine, list(copies.values()))
    for pair, copy in copies.items():
        identities[pair] = (copy, stored[copy][1] if copy in stored else None)
    return identities


def _read_stored(engine: Engine, report_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return connection and raw id of each stored report."""
    if not report_ids:
        return {}
    param = dialect_of(engine).placeholder
    stored: dict[str, tuple[int, int]] = {}
    with reading(engine).connect() as connection:
        for batch in batches(connection, [(report_id,) for report_id in report_ids]):
            rows = connection.exec_driver_sql(
                f"SELECT report_id, connection_id, id FROM {RAW_TABLE}"
                f" WHERE report_id IN ({', '.join([param] * len(batch))})",
                flat(batch),
            )
            stored.update({row[0]: (row[1], row[2]) for row in rows})
    return stored
