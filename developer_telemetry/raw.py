"""Read the raw layer: the reports that a developer's day is made of."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Optional

from sqlalchemy.engine import Connection

from developer_telemetry.dialects import Dialect, dialect_of
from developer_telemetry.errors import ReportRefused
from developer_telemetry.inserts import MAX_KEYS, batches
from developer_telemetry.merging import RAW_TABLE, SUM, Arrival, ToolRow, tool_row
from developer_telemetry.reports import parse

# Raw rows in a page: enough to hide the round trips, and over in a fraction of a second.
PAGE = 500
# How many times more rows than expected make a plan a bad one.
UNFORESEEN = 5

# Connection, developer, date: what one tool row stands for.
Key = tuple[int, str, str]
# Developer and date: the same within a connection.
Day = tuple[str, str]
# Before all days.
START: Day = ("", "0001-01-01")

logger = logging.getLogger(__name__)


class Span(NamedTuple):
    """The raw rows of a connection with an id greater than `above`, up to `last`."""

    connection_id: int
    above: int
    last: int


class DaysPage(NamedTuple):
    """Days that follow each other: a condition for their raw rows, and its parameters."""

    condition: str
    parameters: tuple[Any, ...]
    last: Optional[Day]  # None in the last page, which has no end


def span(connection: Connection, connection_id: int, above: int) -> tuple[Span, int]:
    """What there is above the id `above` by now, and how many raw rows that is."""
    mark = dialect_of(connection).placeholder
    last, count = connection.exec_driver_sql(
        f"SELECT MAX(id), COUNT(*) FROM {RAW_TABLE} WHERE connection_id = {mark} AND id > {mark}",
        (connection_id, above),
    ).one()
    return Span(connection_id, above, last or above), count


def is_unforeseen(connection: Connection, whole: Span, count: int) -> bool:
    """Whether the planner has yet to hear how many raw rows a span has.

    A table that is new or grew at once has no statistics, and PostgreSQL then compares each row
    with each other one.
    """
    dialect = dialect_of(connection)
    mark = dialect.placeholder
    query = (
        f"SELECT 1 FROM {RAW_TABLE} WHERE connection_id = {mark} AND id > {mark} AND id <= {mark}"
    )
    expected = dialect.expected_rows(connection, query, whole)
    return expected is not None and count > UNFORESEEN * max(1, expected)


def first_page(connection: Connection, rest: Span) -> tuple[Span, int]:
    """The start of a span and how many raw rows it has: 0 when there are none left."""
    mark = dialect_of(connection).placeholder
    last, count = connection.exec_driver_sql(
        f"SELECT MAX(id), COUNT(*) FROM (SELECT id FROM {RAW_TABLE} WHERE connection_id = {mark}"
        f" AND id > {mark} AND id <= {mark} ORDER BY id LIMIT {PAGE}) page",
        rest,
    ).one()
    return rest._replace(last=last or rest.last), count


def days_page(connection: Connection, connection_id: int, last: Day) -> DaysPage:
    """The page of whole days after the day `last`, in order of developer and date."""
    mark = dialect_of(connection).placeholder
    # Written out, because MySQL walks no index for (a, b) > (x, y).
    following = (
        f"connection_id = {mark} AND developer_id >= {mark}"
        f" AND (developer_id > {mark} OR date > {mark})"
    )
    parameters = (connection_id, last[0], *last)
    end: Any = connection.exec_driver_sql(
        f"SELECT developer_id, date FROM {RAW_TABLE} WHERE {following}"
        f" ORDER BY developer_id, date LIMIT 1 OFFSET {PAGE - 1}",
        parameters,
    ).first()
    if end is None:
        return DaysPage(following, parameters, None)
    day = (end[0], str(end[1]))
    until = f" AND developer_id <= {mark} AND (developer_id < {mark} OR date <= {mark})"
    return DaysPage(following + until, (*parameters, day[0], *day), day)


def newest(connection: Connection, keys: Sequence[Key], strategy: str) -> list[Any]:
    """The newest raw row of each of a connection's `keys`, under `sum` of each host of it."""
    dialect = dialect_of(connection)
    columns = ("developer_id", "date")
    found: list[Any] = []
    for batch in batches(connection, [key[1:] for key in keys], MAX_KEYS):
        source = (
            f"{RAW_TABLE} w WHERE w.connection_id = {dialect.placeholder}"
            f" AND {dialect.among(columns, len(batch))}"
        )
        found += connection.exec_driver_sql(
            newest_of(dialect, source, strategy), (keys[0][0], *dialect.parameters(columns, batch))
        )
    return found


def newest_of(
    dialect: Dialect, source: str, strategy: str, tool_text: str = "NULL", join: str = ""
) -> str:
    """The query for the newest of the raw rows `w` in `source`, of each day or host of it.

    Its rows are what `tool_rows` takes, then `reports`, of how many it is the newest, and
    `tool_text`, which may come from a `join`.
    """
    day = "w.developer_id, w.date"
    one = f"{day}, w.hostname" if strategy == SUM else day
    # Archives have no arrival, so theirs is not the first one.
    first = f"COALESCE(MIN(NULLIF(w.arrived_us, 0)) OVER (PARTITION BY {day}), 0)"
    # Payloads are fetched only for the rows that count, after the window has found them.
    return (
        "SELECT r.id, r.report_id, r.arrived_us, r.payload, n.first_us, n.reports,"
        f" {tool_text} AS tool_text FROM (SELECT w.id, {first} AS first_us,"
        f" COUNT(*) OVER (PARTITION BY {one}) AS reports, ROW_NUMBER() OVER"
        f" (PARTITION BY {one} ORDER BY w.arrived_us DESC, w.id DESC) AS place FROM {source}"
        f") n {dialect.join_in_order} {RAW_TABLE} r ON r.id = n.id {join} WHERE n.place = 1"
    )


def tool_rows(connection_id: int, newest_rows: Iterable[Any]) -> list[ToolRow]:
    """The tool rows that the rows of `newest` give, sorted by key."""
    arrivals: dict[Key, list[Arrival]] = {}
    first: dict[Key, int] = {}
    for row in newest_rows:
        arrival = _arrival(connection_id, *row[:4])
        if arrival is not None:
            arrivals.setdefault(arrival.key, []).append(arrival)
            first[arrival.key] = row[4]
    return [tool_row(each, first[key]) for key, each in sorted(arrivals.items())]


def _arrival(
    connection_id: int, raw_id: int, report_id: str, arrived_us: int, payload: str
) -> Optional[Arrival]:
    try:
        return Arrival(report_id, connection_id, arrived_us, parse(payload), raw_id)
    except ReportRefused as refusal:
        logger.warning("raw row %s is left out: %s: %s", raw_id, refusal.field, refusal)
        return None
