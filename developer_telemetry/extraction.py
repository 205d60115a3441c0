"""Rewrite the tool layer from the raw layer, as a blueprint's run does.

Raw rows are read in the order of their ids, in which they lie on the disk, a page at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy.engine import Connection, Engine

from developer_telemetry.ahead import ahead
from developer_telemetry.database import Progress, reading, transact
from developer_telemetry.dialects import dialect_of
from developer_telemetry.inserts import batches
from developer_telemetry.merging import KEY_COLUMNS, RAW_TABLE, SUM, TOOL_COLUMNS, ToolRow
from developer_telemetry.raw import (
    Key,
    Span,
    first_page,
    is_unforeseen,
    newest,
    newest_of,
    span,
    tool_rows,
)
from developer_telemetry.storage import TOOL_TABLE, UNWRITTEN, claim, upsert_tool


class Page(NamedTuple):
    """What a number of raw rows make of the days that end with them."""

    raw_rows: int
    rows: Sequence[ToolRow]
    stored: Sequence[str]  # the rows that are there already, as `Dialect.text` has them


def reextract(
    engine: Engine, connection_id: int, strategy: str, above: int = 0
) -> Iterator[Progress]:
    """Rewrite a connection's tool rows from its raw rows, while reports go on arriving.

    Only days of which a raw row has an id greater than `above` are looked at, and only rows that
    are not right already are written. Nothing is deleted and no row is away at any moment. Yields
    after each batch how many raw rows are done.
    """
    with reading(engine).connect() as connection:
        whole, total = span(connection, connection_id, above)
        unforeseen = is_unforeseen(connection, whole, total)
    if unforeseen:
        transact(engine, _analyze)
    # The database looks for the next page and writes the last one while this one is decoded.
    pages = (_decoded(connection_id, *each) for each in ahead(_pages(engine, whole, strategy)))
    done = 0
    for page in ahead(pages):
        _write(engine, page, strategy)
        done += page.raw_rows
        yield Progress(done, max(done, total))


def _analyze(connection: Connection) -> None:
    for table in (RAW_TABLE, TOOL_TABLE):
        connection.exec_driver_sql(f"ANALYZE {table}")


def _pages(engine: Engine, rest: Span, strategy: str) -> Iterator[tuple[int, list[Any]]]:
    """How many raw rows each page of a span has, and the newest ones of the days ending there."""
    last = rest.last
    while rest.above < last:
        with reading(engine).connect() as connection:
            page, count = first_page(connection, rest)
            newest_rows = _newest(connection, page, last, strategy)
        yield count, newest_rows
        rest = rest._replace(above=page.last)


def _newest(connection: Connection, page: Span, last: int, strategy: str) -> list[Any]:
    """The newest raw rows of the days whose last one up to the id `last` is in `page`.

    So each day is in one page. Beside each stands, as text, its tool row if there is one.
    """
    dialect = dialect_of(connection)
    mark = dialect.placeholder
    days = (
        f"SELECT developer_id, date FROM {RAW_TABLE} r WHERE connection_id = {mark}"
        f" AND id > {mark} AND id <= {mark} AND NOT EXISTS (SELECT 1 FROM {RAW_TABLE} later"
        f" WHERE later.connection_id = {mark} AND later.developer_id = r.developer_id"
        f" AND later.date = r.date AND later.id > r.id AND later.id <= {mark})"
    )
    source = (
        f"({days}) days JOIN {RAW_TABLE} w ON w.connection_id = {mark}"
        " AND w.developer_id = days.developer_id AND w.date = days.date"
    )
    join = (
        f"LEFT JOIN {TOOL_TABLE} t ON t.connection_id = r.connection_id"
        " AND t.developer_id = r.developer_id AND t.date = r.date"
    )
    query = newest_of(source, strategy, dialect.text_of(TOOL_COLUMNS, "t."), join)
    parameters = (*page, page.connection_id, last, page.connection_id)
    return list(connection.exec_driver_sql(query, parameters))


def _decoded(connection_id: int, count: int, newest_rows: Sequence[Any]) -> Page:
    return Page(count, tool_rows(connection_id, newest_rows), [row[5] for row in newest_rows])


def _write(engine: Engine, page: Page, strategy: str) -> None:
    """Write the rows of a page that are not there just so.

    One that is needs no lock: whoever has added to its day since has changed it, too.
    """
    dialect = dialect_of(engine)
    stored = set(filter(None, page.stored))
    rows = [row for row in page.rows if not stored or dialect.text(row) not in stored]
    if rows and strategy == SUM:
        transact(engine, lambda connection: _sum_again(connection, [row[:3] for row in rows]))
    elif rows:
        transact(engine, lambda connection: upsert_tool(connection, rows))


def _sum_again(connection: Connection, keys: Sequence[Key]) -> None:
    """Write the sums of days, read again when nobody else can add to them any more."""
    claim(connection, keys)
    upsert_tool(connection, tool_rows(keys[0][0], newest(connection, keys, SUM)))
    _release(connection, keys)


def _release(connection: Connection, keys: Sequence[Key]) -> None:
    """Take back claimed rows whose raw rows were deleted before they could be read."""
    dialect = dialect_of(connection)
    for batch in batches(connection, keys):
        connection.exec_driver_sql(
            f"DELETE FROM {TOOL_TABLE} WHERE arrived_us = {UNWRITTEN} AND "
            + dialect.among(KEY_COLUMNS, len(batch)),
            dialect.parameters(KEY_COLUMNS, batch),
        )
