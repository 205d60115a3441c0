"""Counts for operators: machines heard of, reports refused. They lag behind by seconds."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence

from sqlalchemy.engine import Connection, Engine

from developer_telemetry.dialects import (
    batches,
    dialect_of,
    flat,
    insert,
    now_us,
    transact,
)
from developer_telemetry.merging import RAW_TABLE, Arrival, raw_params, timestamp

MACHINE_TABLE = "_tool_developer_telemetry_machines"
REFUSAL_TABLE = "_tool_developer_telemetry_refusals"

Developer = tuple[int, str]
Refusal = tuple[int, str, str]


class Tallies:
    """Notes what happened, from any thread, and writes it down when `flush` is called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._developers: set[Developer] = set()
        self._refusals: Counter[Refusal] = Counter()

    def stored(self, arrivals: Iterable[Arrival]) -> None:
        """These arrivals were committed."""
        with self._lock:
            self._developers.update(arrival.key[:2] for arrival in arrivals)

    def refused(self, connection_id: int, reason: str) -> None:
        """A report to this connection was refused for `reason`, one of a few fixed words."""
        with self._lock:
            self._refusals[(connection_id, timestamp(now_us())[:10], reason)] += 1

    def flush(self, engine: Engine) -> None:
        """Write down what was noted since the last time; keep it for later if that fails."""
        with self._lock:
            developers, self._developers = self._developers, set()
            refusals, self._refusals = self._refusals, Counter()
        try:
            if developers or refusals:
                transact(
                    engine,
                    lambda connection: _write(connection, sorted(developers), refusals),
                )
        except Exception:
            with self._lock:
                self._developers |= developers
                self._refusals += refusals
            raise


def _write(
    connection: Connection, developers: Sequence[Developer], refusals: Counter[Refusal]
) -> None:
    for batch in batches(connection, developers):
        refresh_machines(connection, batch)
    dialect = dialect_of(connection)
    total = f"{REFUSAL_TABLE}.count + {dialect.new('count')}"
    insert(
        connection,
        REFUSAL_TABLE,
        ("connection_id", "day", "reason", "count"),
        [(*refusal, count) for refusal, count in sorted(refusals.items())],
        dialect.on_conflict(("connection_id", "day", "reason"), [("count", total)]),
    )


def refresh_machines(connection: Connection, developers: Sequence[Developer]) -> None:
    """Count these developers' machines anew from the raw layer, so that no crash skews them."""
    dialect = dialect_of(connection)
    found = connection.exec_driver_sql(
        "SELECT connection_id, developer_id, hostname, MIN(arrived_us), MAX(arrived_us),"
        f" COUNT(*), MAX(id) FROM {RAW_TABLE}"
        f" WHERE {dialect.in_rows(('connection_id', 'developer_id'), len(developers))}"
        " GROUP BY connection_id, developer_id, hostname",
        flat(developers),
    ).fetchall()
    rows: list[tuple[object, ...]] = sorted(
        (
            *row[:3],
            timestamp(row[3]),
            timestamp(row[4]),
            row[5],
            raw_params(row[0]),
            RAW_TABLE,
            row[6],
        )
        for row in found
    )
    keys = ("connection_id", "developer_id", "hostname")
    counted = ("first_seen", "last_seen", "reports")
    origin = ("_raw_data_params", "_raw_data_table", "_raw_data_id")
    changing = [(column, dialect.new(column)) for column in (*counted, *origin)]
    insert(
        connection,
        MACHINE_TABLE,
        (*keys, *counted, *origin),
        rows,
        dialect.on_conflict(keys, changing),
    )
