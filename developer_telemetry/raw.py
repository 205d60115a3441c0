"""Read the raw layer: the reports that a developer's day is made of."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy.engine import Connection, Engine

from developer_telemetry.dialects import MAX_ROWS, batches, dialect_of, flat, reading
from developer_telemetry.errors import ReportRefused
from developer_telemetry.merging import RAW_TABLE, SUM, Arrival, ToolRow, tool_row
from developer_telemetry.reports import parse

# Connection, developer, date: what one tool row stands for.
Key = tuple[int, str, str]

logger = logging.getLogger(__name__)


def rows_from_raw(connection: Connection, keys: Sequence[Key], strategy: str) -> list[ToolRow]:
    """The tool rows that the raw layer gives for `keys` (of one connection), sorted by key."""
    arrivals: dict[Key, list[Arrival]] = {}
    first: dict[Key, int] = {}
    for row in _newest_raw(connection, keys, strategy):
        try:
            report = parse(row.payload)
        except ReportRefused as refusal:
            logger.warning("raw row %s is left out: %s: %s", row.id, refusal.field, refusal)
            continue
        arrival = Arrival(row.report_id, keys[0][0], row.arrived_us, report, row.id)
        arrivals.setdefault(arrival.key, []).append(arrival)
        first[arrival.key] = row.first_us
    return [tool_row(each, first[key]) for key, each in sorted(arrivals.items())]


def _newest_raw(connection: Connection, keys: Sequence[Key], strategy: str) -> Iterator[Any]:
    """The newest raw row of each key, under `sum` of each host of it."""
    dialect = dialect_of(connection)
    day = "developer_id, date"
    one = f"{day}, hostname" if strategy == SUM else day
    for batch in batches(connection, [key[1:] for key in keys]):
        # Payloads are fetched only for the rows that count, after the window has found them.
        yield from connection.exec_driver_sql(
            f"SELECT r.id, r.report_id, r.arrived_us, r.payload, n.first_us FROM ("
            f" SELECT id, MIN(arrived_us) OVER (PARTITION BY {day}) AS first_us, ROW_NUMBER()"
            f" OVER (PARTITION BY {one} ORDER BY arrived_us DESC, id DESC) AS place"
            f" FROM {RAW_TABLE} WHERE connection_id = {dialect.placeholder}"
            f" AND {dialect.in_rows(('developer_id', 'date'), len(batch))}"
            f") n JOIN {RAW_TABLE} r ON r.id = n.id WHERE n.place = 1",
            (keys[0][0], *flat(batch)),
        )


def count_keys(engine: Engine, connection_id: int) -> int:
    """How many tool rows the raw rows of a connection give."""
    mark = dialect_of(engine).placeholder
    with reading(engine).connect() as connection:
        count: int = connection.exec_driver_sql(
            f"SELECT COUNT(*) FROM (SELECT DISTINCT developer_id, date FROM {RAW_TABLE}"
            f" WHERE connection_id = {mark}) k",
            (connection_id,),
        ).scalar_one()
    return count


def keys_after(engine: Engine, connection_id: int, last: tuple[str, str]) -> list[Key]:
    """The next batch of keys that have raw rows, in order, after developer and date `last`."""
    mark = dialect_of(engine).placeholder
    with reading(engine).connect() as connection:
        # Written out, because MySQL walks no index for (a, b) > (x, y).
        rows = connection.exec_driver_sql(
            f"SELECT DISTINCT developer_id, date FROM {RAW_TABLE} WHERE connection_id = {mark}"
            f" AND developer_id >= {mark} AND (developer_id > {mark} OR date > {mark})"
            f" ORDER BY developer_id, date LIMIT {MAX_ROWS}",
            (connection_id, last[0], *last),
        ).fetchall()
    return [(connection_id, row[0], str(row[1])) for row in rows]
