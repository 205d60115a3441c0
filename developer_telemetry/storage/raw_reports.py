"""Read the raw layer: the reports of a developer's days."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from operator import attrgetter
from typing import Any, Callable, NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection

from developer_telemetry.constants import RAW_TABLE, SUM, TOOL_TABLE
from developer_telemetry.database.bulk_insert import MAX_KEYS
from developer_telemetry.database.dialects.base import Dialect
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.errors import ReportRefused
from developer_telemetry.reports.daily_metrics import (
    LONG_COLUMNS,
    TOOL_COLUMNS,
    DaySum,
    ReceivedReport,
    ToolRow,
    build_tool_row,
)
from developer_telemetry.reports.hosts import family_name, select_newest
from developer_telemetry.reports.parser import parse

# Raw rows in a page: enough to hide the round trips, read in a fraction of a second.
PAGE = 500
# Raw rows that are read at once to find the newest reports of some days, with bodies of up to
# `SHORT` bytes, as nearly all have. More rows, and longer bodies, are read in parts. Both ways take
# 16 MiB at most.
MAX_NEWEST = 2_000
SHORT = 8 << 10
# Bytes of long bodies that are fetched together; a single one may have up to 4 MiB.
FETCHED = 4 << 20
# The maximum of hosts of one day that are added up, newest first. A machine with a new name in each
# report reaches this; the sums of so many take some 10 MiB.
MAX_HOSTS = 10_000
# A plan is bad if a span has this many times more rows than expected.
UNFORESEEN = 5

# The key of a tool row: connection, developer, date.
Key = tuple[int, str, str]
# Developer and date: the same within a connection.
Day = tuple[str, str]
# Returns a connection to read with: an open one, or a new one for each query.
Opened = Callable[[], AbstractContextManager[SqlConnection]]
# Before all days.
START: Day = ("", "0001-01-01")

logger = logging.getLogger(__name__)


class RawSpan(NamedTuple):
    """The raw rows of a connection with an id greater than `above`, up to `last`."""

    connection_id: int
    above: int
    last: int


class DaysPage(NamedTuple):
    """Days that follow each other: a condition for their raw rows, and its parameters."""

    condition: str
    parameters: tuple[Any, ...]
    last: Optional[Day]  # None in the last page, which has no end


def read_span(connection: SqlConnection, connection_id: int, above: int) -> tuple[RawSpan, int]:
    """Return the raw rows above the id `above` as a span, and their number."""
    param = dialect_of(connection).placeholder
    last, count = connection.exec_driver_sql(
        f"SELECT MAX(id), COUNT(*) FROM {RAW_TABLE} WHERE connection_id = {param} AND id > {param}",
        (connection_id, above),
    ).one()
    return RawSpan(connection_id, above, last or above), count


def is_larger_than_expected(connection: SqlConnection, raw_span: RawSpan, count: int) -> bool:
    """Return true if the planner does not know how many raw rows a span has.

    A table that is new or grew at once has no statistics, and PostgreSQL then compares each row
    with each other one.
    """
    dialect = dialect_of(connection)
    param = dialect.placeholder
    query = (
        f"SELECT 1 FROM {RAW_TABLE}"
        f" WHERE connection_id = {param} AND id > {param} AND id <= {param}"
    )
    expected = dialect.expected_rows(connection, query, raw_span)
    return expected is not None and count > UNFORESEEN * max(1, expected)


def read_first_page(connection: SqlConnection, remaining: RawSpan) -> tuple[RawSpan, int]:
    """Return the start of a span and how many raw rows it has: 0 when there are none left."""
    param = dialect_of(connection).placeholder
    last, count = connection.exec_driver_sql(
        f"SELECT MAX(id), COUNT(*) FROM (SELECT id FROM {RAW_TABLE} WHERE connection_id = {param}"
        f" AND id > {param} AND id <= {param} ORDER BY id LIMIT {PAGE}) page",
        remaining,
    ).one()
    return remaining._replace(last=last or remaining.last), count


def read_days_page(connection: SqlConnection, connection_id: int, last: Day) -> DaysPage:
    """Return the page of whole days after the day `last`, in order of developer and date."""
    param = dialect_of(connection).placeholder
    # Written out, because MySQL walks no index for (a, b) > (x, y).
    following = (
        f"connection_id = {param} AND developer_id >= {param}"
        f" AND (developer_id > {param} OR date > {param})"
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
    until = f" AND developer_id <= {param} AND (developer_id < {param} OR date <= {param})"
    return DaysPage(following + until, (*parameters, day[0], *day), day)


class NewestReport(NamedTuple):
    """A raw row that counts for its day, with its body where that is short."""

    id: int
    report_id: str
    developer_id: str
    date: Any  # of the driver's type
    hostname: str
    arrived_us: int
    size: int  # of the body, as the database counts it
    payload: Optional[str]  # None where it is longer than `SHORT`
    first_us: int  # the arrival of the day's first report
    reports: int  # the number of reports of which it is the newest
    tool_text: Optional[str]  # the day's row; None where there is none, or a long one

    @property
    def day(self) -> Day:
        """Return developer and date."""
        return (self.developer_id, str(self.date))

    @property
    def age(self) -> tuple[int, int]:
        """Return the sort key by age; a newer report has a greater one."""
        return (self.arrived_us, self.id)


def reuse_connection(connection: SqlConnection) -> Opened:
    """Return a function that opens nothing and yields this connection."""
    return lambda: nullcontext(connection)


class TooManyReports(Exception):
    """Too many rows to read at once; the caller reads the days one by one."""


def build_days(opened: Opened, keys: Sequence[Key], strategy: str) -> Iterator[ToolRow]:
    """Build the tool rows of a connection's `keys` (sorted) from their raw rows.

    Between two rows no connection is open, unless `opened` yields one that stays open.
    """
    for start in range(0, len(keys), MAX_KEYS):
        batch = keys[start : start + MAX_KEYS]
        try:
            with opened() as connection:
                reports = read_newest(connection, batch, strategy)
            yield from build_tool_rows(opened, batch[0][0], reports)
        except TooManyReports:
            for key in batch:
                with opened() as connection:
                    reports = _newest_hosts(connection, key, strategy)
                yield from build_tool_rows(opened, key[0], reports)


def read_newest(
    connection: SqlConnection, keys: Sequence[Key], strategy: str
) -> list[NewestReport]:
    """Return the newest raw row of each of a connection's `keys`, under `sum` of each host of it.

    There are at most `MAX_KEYS` keys.

    Raises:
        TooManyReports: There are more than `MAX_NEWEST`.
    """
    dialect = dialect_of(connection)
    columns = ("developer_id", "date")
    source = (
        f"{RAW_TABLE} w WHERE w.connection_id = {dialect.placeholder}"
        f" AND {dialect.in_condition(columns, len(keys))}"
    )
    parameters = (keys[0][0], *dialect.parameters(columns, [key[1:] for key in keys]))
    return read_newest_of(connection, source, parameters, strategy)


def read_newest_of(
    connection: SqlConnection,
    source: str,
    parameters: Sequence[Any],
    strategy: str,
    with_tool_rows: bool = False,
) -> list[NewestReport]:
    """Return the newest of the raw rows `w` in `source`, of each day or of each of its hosts.

    `with_tool_rows` adds the day's tool row in the form of `Dialect.text`.

    Raises:
        TooManyReports: There are more than `MAX_NEWEST`.
    """
    query = _newest_query(dialect_of(connection), source, strategy, with_tool_rows)
    rows = connection.exec_driver_sql(f"{query} LIMIT {MAX_NEWEST + 1}", tuple(parameters))
    reports = [NewestReport(*row) for row in rows]
    if len(reports) > MAX_NEWEST:
        raise TooManyReports
    return reports


def _newest_hosts(connection: SqlConnection, key: Key, strategy: str) -> list[NewestReport]:
    """Return one day's newest raw rows without bodies, only of hosts that reported last."""
    dialect = dialect_of(connection)
    param = dialect.placeholder
    source = (
        f"{RAW_TABLE} w WHERE w.connection_id = {param}"
        f" AND w.developer_id = {param} AND w.date = {param}"
    )
    query = _newest_query(dialect, source, strategy, short=-1)
    rows = connection.exec_driver_sql(
        f"{query} ORDER BY n.arrived_us DESC, n.id DESC LIMIT {MAX_HOSTS}", key
    )
    return [NewestReport(*row) for row in rows]


def _newest_query(
    dialect: Dialect,
    source: str,
    strategy: str,
    with_tool_rows: bool = False,
    short: int = SHORT,
) -> str:
    day = "w.developer_id, w.date"
    one = f"{day}, w.hostname" if strategy == SUM else day
    # Reports of archives have no arrival, so they sort last. With MIN over the day MariaDB would
    # read all reports of the day for each of them.
    first = (
        f"FIRST_VALUE(w.arrived_us) OVER (PARTITION BY {day}"
        " ORDER BY CASE WHEN w.arrived_us = 0 THEN 1 ELSE 0 END, w.arrived_us)"
    )
    size = f"{dialect.octets}(r.payload)"
    tool_text, join = "NULL", ""
    if with_tool_rows:
        tool_size = " + ".join(f"{dialect.octets}(t.{column})" for column in LONG_COLUMNS)
        text = dialect.text_of(TOOL_COLUMNS, "t.")
        tool_text = f"CASE WHEN {tool_size} <= {short} THEN {text} END"
        join = (
            f"LEFT JOIN {TOOL_TABLE} t ON t.connection_id = r.connection_id"
            " AND t.developer_id = r.developer_id AND t.date = r.date"
        )
    # Payloads are fetched only for the newest rows, after the window function has found them.
    return (
        f"SELECT r.id, r.report_id, r.developer_id, r.date, r.hostname, r.arrived_us, {size},"
        f" CASE WHEN {size} <= {short} THEN r.payload END, n.first_us, n.reports,"
        f" {tool_text} FROM (SELECT w.id, w.arrived_us, {first} AS first_us,"
        f" COUNT(*) OVER (PARTITION BY {one}) AS reports, ROW_NUMBER() OVER"
        f" (PARTITION BY {one} ORDER BY w.arrived_us DESC, w.id DESC) AS place FROM {source}"
        f") n {dialect.join_in_order} {RAW_TABLE} r ON r.id = n.id {join} WHERE n.place = 1"
    )


def build_tool_rows(
    opened: Opened, connection_id: int, newest_rows: Iterable[NewestReport]
) -> Iterator[ToolRow]:
    """Build the tool rows of `newest`, by key; reads the long bodies."""
    # In the order of `sum_order`.
    in_order = sorted(newest_rows, key=lambda row: (row.day, family_name(row.hostname), *row.age))
    in_order = [
        row
        for _, same_day in groupby(in_order, key=lambda row: row.day)
        for row in select_newest(list(same_day), attrgetter("hostname"), attrgetter("age"))
    ]
    long = read_bodies(opened, [(row.id, row.size) for row in in_order if row.payload is None])
    for _, same_day in groupby(in_order, key=lambda row: row.day):
        day = DaySum()
        arrival: Optional[ReceivedReport] = None
        added = 0
        for row in same_day:
            payload = next(long)[1] if row.payload is None else row.payload
            read = _parse_row(connection_id, row, payload)
            if read is not None:
                # Without a sum the row is built faster.
                if arrival is not None:
                    day.add(arrival)
                arrival, first_us, added = read, row.first_us, added + 1
        if arrival is None:
            continue
        if added == 1:
            yield build_tool_row([arrival], first_us)
        else:
            day.add(arrival)
            yield day.row(first_us)


def read_bodies(opened: Opened, sized: Iterable[tuple[int, int]]) -> Iterator[tuple[int, str]]:
    """Return raw rows' ids with their bodies, in the order of `sized`: ids and lengths in bytes.

    Up to `FETCHED` bytes are read at once. The body of a row that was deleted meanwhile is "".
    """
    ids: list[int] = []
    size = 0
    for raw_id, length in sized:
        if ids and (size + length > FETCHED or len(ids) == PAGE):
            yield from _fetch_bodies(opened, ids)
            ids, size = [], 0
        ids.append(raw_id)
        size += length
    yield from _fetch_bodies(opened, ids)


def _fetch_bodies(opened: Opened, ids: Sequence[int]) -> Iterator[tuple[int, str]]:
    if not ids:
        return
    with opened() as connection:
        marks = ", ".join([dialect_of(connection).placeholder] * len(ids))
        rows = connection.exec_driver_sql(
            f"SELECT id, payload FROM {RAW_TABLE} WHERE id IN ({marks})", tuple(ids)
        )
        payloads = {row[0]: row[1] for row in rows}
    for raw_id in ids:
        yield raw_id, payloads.pop(raw_id, "")


def _parse_row(connection_id: int, row: NewestReport, payload: str) -> Optional[ReceivedReport]:
    if not payload:
        return None
    try:
        report = parse(payload)
    except ReportRefused as refusal:
        logger.warning("raw row %s is left out: %s: %s", row.id, refusal.field, refusal)
        return None
    return ReceivedReport(row.report_id, connection_id, row.arrived_us, report, row.id)
