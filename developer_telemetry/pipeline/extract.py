"""Rewrite the tool layer from the raw layer, as a blueprint's run does.

A full run reads pages in the order of days, which is the order of tool rows on disk. A run on new
raw rows reads them in the order of their ids, and the other raw rows of their days.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.concurrency import map_concurrently, prefetch
from developer_telemetry.constants import RAW_TABLE, SUM, TOOL_TABLE
from developer_telemetry.database.bulk_insert import MAX_KEYS, batches
from developer_telemetry.database.dialects.base import count_characters, cut
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import Progress, reading, transact
from developer_telemetry.reports.daily_metrics import KEY_COLUMNS, ToolRow
from developer_telemetry.storage.raw_reports import (
    START,
    Day,
    DaysPage,
    Key,
    NewestReport,
    RawSpan,
    TooManyReports,
    build_days,
    build_tool_rows,
    is_larger_than_expected,
    read_days_page,
    read_first_page,
    read_newest_of,
    read_span,
    reuse_connection,
)
from developer_telemetry.storage.retention_marks import read_first_day
from developer_telemetry.storage.writer import UNWRITTEN, claim_days, upsert_tool_rows

# Rows in one transaction; a page has no more days, unless reports of further days arrive.
MAX_PART = 500
# The same in characters.
PART_CHARACTERS = 4 << 20


class DaysRead(NamedTuple):
    """A page of raw rows, as the database returns it."""

    raw_rows: int
    newest: Sequence[NewestReport]  # with their tool rows as texts
    # Days with too many rows to read at once; they are read one by one.
    keys: Sequence[Key] = ()


class Page(NamedTuple):
    """The tool rows of a number of raw rows."""

    raw_rows: int
    rows: Sequence[ToolRow]
    stored: Collection[str]  # the existing rows, in the form of `Dialect.text`


def reextract(
    engine: Engine, connection_id: int, strategy: str, above: int = 0
) -> Iterator[Progress]:
    """Rewrite a connection's tool rows from its raw rows, while reports arrive.

    Only days with a raw row above the id `above` are read, and only changed rows are written; days
    before the retention mark are left out. No row is deleted, even for a moment. Yields the number
    of finished raw rows after each batch.
    """
    with reading(engine).connect() as connection:
        new_rows, total = read_span(connection, connection_id, above)
        unforeseen = is_larger_than_expected(connection, new_rows, total)
        first_day = read_first_day(connection, connection_id)
    if unforeseen:
        transact(engine, _analyze)
    pages_read = (
        _read_new_days(engine, new_rows, strategy)
        if above
        else _read_all_days(engine, connection_id, strategy)
    )
    # The database reads the next page and writes the last one while this one is decoded.
    pages = (
        page
        for days_read in prefetch(pages_read)
        for page in _build_pages(engine, connection_id, strategy, days_read, first_day)
    )
    done = 0
    for page in prefetch(pages):
        _write(engine, page, strategy)
        done += page.raw_rows
        yield Progress(done, max(done, total))


def _analyze(connection: SqlConnection) -> None:
    for table in (RAW_TABLE, TOOL_TABLE):
        connection.exec_driver_sql(f"ANALYZE {table}")


def _read_all_days(engine: Engine, connection_id: int, strategy: str) -> Iterator[DaysRead]:
    """Yield all days of a connection."""

    def find(page: DaysPage) -> DaysRead:
        source = f"{RAW_TABLE} w WHERE {page.condition}"
        with reading(engine).connect() as connection:
            return _read_days(connection, connection_id, source, page.parameters, strategy)

    pages = map_concurrently(find, _days_pages(engine, connection_id))
    return (page for page in pages if page.raw_rows)


def _days_pages(engine: Engine, connection_id: int) -> Iterator[DaysPage]:
    last: Optional[Day] = START
    while last:
        with reading(engine).connect() as connection:
            page = read_days_page(connection, connection_id, last)
        yield page
        last = page.last


def _read_new_days(engine: Engine, new_rows: RawSpan, strategy: str) -> Iterator[DaysRead]:
    """Yield the days that raw rows of a span belong to."""

    def find(page: tuple[RawSpan, int]) -> DaysRead:
        with reading(engine).connect() as connection:
            days = _read_days_ending_in(connection, page[0], new_rows.last, strategy)
        return days._replace(raw_rows=page[1])

    return map_concurrently(find, _span_pages(engine, new_rows))


def _span_pages(engine: Engine, remaining: RawSpan) -> Iterator[tuple[RawSpan, int]]:
    while remaining.above < remaining.last:
        with reading(engine).connect() as connection:
            page, count = read_first_page(connection, remaining)
        yield page, count
        remaining = remaining._replace(above=page.last)


def _read_days_ending_in(
    connection: SqlConnection, page: RawSpan, last: int, strategy: str
) -> DaysRead:
    """Return the newest raw rows of the days whose last raw row up to the id `last` is in `page`.

    So each day is in exactly one page.
    """
    dialect = dialect_of(connection)
    param = dialect.placeholder
    days = (
        f"SELECT developer_id, date FROM {RAW_TABLE} r WHERE connection_id = {param}"
        f" AND id > {param} AND id <= {param} AND NOT EXISTS (SELECT 1 FROM {RAW_TABLE} later"
        f" WHERE later.connection_id = {param} AND later.developer_id = r.developer_id"
        f" AND later.date = r.date AND later.id > r.id AND later.id <= {param})"
    )
    source = (
        f"({days}) days {dialect.join_in_order} {RAW_TABLE} w ON w.connection_id = {param}"
        " AND w.developer_id = days.developer_id AND w.date = days.date"
    )
    parameters = (*page, page.connection_id, last, page.connection_id)
    return _read_days(connection, page.connection_id, source, parameters, strategy)


def _read_days(
    connection: SqlConnection,
    connection_id: int,
    source: str,
    parameters: Sequence[Any],
    strategy: str,
) -> DaysRead:
    """Return the newest of the raw rows `w` in `source`, with their tool rows."""
    try:
        rows = read_newest_of(connection, source, parameters, strategy, with_tool_rows=True)
        return DaysRead(sum(row.reports for row in rows), rows)
    except TooManyReports:
        days = connection.exec_driver_sql(
            f"SELECT w.developer_id, w.date, COUNT(*) FROM {source}"
            " GROUP BY w.developer_id, w.date",
            tuple(parameters),
        ).fetchall()
        keys = sorted((connection_id, row[0], str(row[1])) for row in days)
        return DaysRead(sum(row[2] for row in days), (), keys)


def _build_pages(
    engine: Engine, connection_id: int, strategy: str, days_read: DaysRead, first_day: str
) -> Iterator[Page]:
    """Yield the rows of a page, with very long rows in several parts."""
    stored = {row.tool_text for row in days_read.newest if row.tool_text is not None}
    raw_rows = days_read.raw_rows
    opened = reading(engine).connect
    rows = (
        build_days(opened, days_read.keys, strategy)
        if days_read.keys
        else build_tool_rows(opened, connection_id, days_read.newest)
    )
    rows_in_time = (row for row in rows if row.date >= first_day)
    for part in cut(rows_in_time, MAX_PART, PART_CHARACTERS, count_characters):
        yield Page(raw_rows, part, stored)
        raw_rows = 0
    if raw_rows:
        yield Page(raw_rows, (), stored)


def _write(engine: Engine, page: Page, strategy: str) -> None:
    """Write the rows of a page that differ from the stored ones.

    An equal row needs no lock: a later report of its day changes the row itself.
    """
    dialect = dialect_of(engine)
    rows = [row for row in page.rows if not page.stored or dialect.text(row) not in page.stored]
    if rows and strategy == SUM:
        transact(engine, lambda connection: _rewrite_sums(connection, [row[:3] for row in rows]))
    elif rows:
        transact(engine, lambda connection: upsert_tool_rows(connection, rows))


def _rewrite_sums(connection: SqlConnection, keys: Sequence[Key]) -> None:
    """Write the sums of days, read again under a lock against other writers."""
    claim_days(connection, keys)
    for rows in batches(connection, build_days(reuse_connection(connection), keys, SUM)):
        upsert_tool_rows(connection, rows)
    _delete_claimed(connection, keys)


def _delete_claimed(connection: SqlConnection, keys: Sequence[Key]) -> None:
    """Delete claimed rows whose raw rows were deleted before they could be read."""
    dialect = dialect_of(connection)
    for batch in batches(connection, keys, MAX_KEYS):
        connection.exec_driver_sql(
            f"DELETE FROM {TOOL_TABLE} WHERE arrived_us = {UNWRITTEN} AND "
            + dialect.keys_condition(TOOL_TABLE, KEY_COLUMNS, len(batch)),
            dialect.parameters(KEY_COLUMNS, batch),
        )
