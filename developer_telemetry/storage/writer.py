"""Read and write the raw and the tool layer.

Every write is conditional on being newer, so the order in which transactions commit does not
matter, and harmless when repeated: a report's id is unique in the raw layer.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Callable, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import OVERWRITE, RAW_TABLE, SUM, TOOL_TABLE
from developer_telemetry.database.bulk_insert import (
    MAX_KEYS,
    batches,
    insert,
    insert_if_new,
    insert_with_ids,
)
from developer_telemetry.database.dialects.base import Dialect
from developer_telemetry.database.dialects.lookup import Database, dialect_of
from developer_telemetry.database.engine import reading, transact
from developer_telemetry.reports.daily_metrics import (
    KEY_COLUMNS,
    TOOL_COLUMNS,
    ReceivedReport,
    ToolRow,
    build_newest_row,
    build_raw_params,
    format_arrival,
    group_by_key,
)
from developer_telemetry.reports.parser import parse
from developer_telemetry.storage.connection_locks import lock_sql
from developer_telemetry.storage.raw_reports import Key, build_days, reuse_connection
from developer_telemetry.storage.retention_marks import FIRST_DAY, read_first_day

RAW_COLUMNS = (
    "params",
    "connection_id",
    "payload",
    "created_at",
    "report_id",
    "developer_id",
    "date",
    "hostname",
    "arrived_us",
)
# The arrival of a claimed row until it is written, later in the same transaction.
UNWRITTEN = -1
# Called right before a commit, which it prevents by raising; takes connections that are locked.
CommitCheck = Callable[[SqlConnection, frozenset[int]], None]
DAY_SECONDS = 86_400
# No connection has this id, so a probe conflicts with no row.
PROBE_CONNECTION = 0


def store(
    database: Database,
    arrivals: Sequence[ReceivedReport],
    strategies: Mapping[int, str],
    check: Optional[CommitCheck] = None,
) -> None:
    """Store arrivals in the raw and the tool layer, in one transaction.

    `strategies` has a connection's duplicate strategy by its id. When this returns, the arrivals
    are committed; when it raises, none of them is.
    """

    def work(connection: SqlConnection) -> None:
        lock = lock_sql(dialect_of(connection), f"{RAW_TABLE}.connection_id")
        locked = _store(connection, arrivals, strategies, lock)
        if check is not None:
            check(connection, locked)

    transact(database, work, awaits_locks=False)


def probe_store(database: Database, date: str = "2000-01-01", arrived_us: int = 0) -> None:
    """Raise unless both layers accept a harmless report of this day now; it is rolled back.

    A smaller test would not suffice: a database may be read-only, or not migrated yet.
    """
    report = parse(f'{{"developer": "probe", "date": "{date}"}}')
    arrival = ReceivedReport(str(uuid.uuid4()), PROBE_CONNECTION, arrived_us, report)
    with database.engine.connect() as connection:
        transaction = connection.begin()
        _store(connection, [arrival], {PROBE_CONNECTION: OVERWRITE})
        transaction.rollback()


def is_stored(database: Database, report_id: str) -> bool:
    """Return true if the raw layer has a report."""
    param = dialect_of(database).placeholder
    with database.engine.connect() as connection:
        row = connection.exec_driver_sql(
            f"SELECT 1 FROM {RAW_TABLE} WHERE report_id = {param}", (report_id,)
        ).first()
    return row is not None


def find_locked_days(database: Database, keys: Sequence[Key]) -> set[Key]:
    """Return the days whose tool rows another transaction holds now, without waiting for it."""
    dialect = dialect_of(database)
    columns = ", ".join(KEY_COLUMNS)
    locked: set[Key] = set()
    if not dialect.skipping_locked:
        return locked
    with database.engine.connect() as connection:
        for batch in batches(connection, sorted(set(keys)), MAX_KEYS):
            condition = dialect.in_condition(KEY_COLUMNS, len(batch))
            query = f"SELECT {columns} FROM {TOOL_TABLE} WHERE {condition}"
            parameters = dialect.parameters(KEY_COLUMNS, batch)
            there = connection.exec_driver_sql(query, parameters).fetchall()
            query += dialect.skipping_locked
            free = connection.exec_driver_sql(query, parameters).fetchall()
            locked |= {(row[0], row[1], str(row[2])) for row in {*there} - {*free}}
        connection.rollback()
    return locked


def _store(
    connection: SqlConnection,
    arrivals: Sequence[ReceivedReport],
    strategies: Mapping[int, str],
    lock: str = "NULL",
) -> frozenset[int]:
    """Write both layers; return the connections that the expression `lock` has locked."""
    summed = sorted(
        {arrival.key for arrival in arrivals if strategies[arrival.connection_id] == SUM}
    )
    # Tool rows are written first, so that a concurrent report of the same day waits and then reads
    # this one's raw row. A row that does not exist yet could not be locked.
    claim_days(connection, summed)
    stored, locked = _insert_raw(connection, arrivals, lock)
    replacing = [arrival for arrival in stored if strategies[arrival.connection_id] == OVERWRITE]
    rows = list(map(build_newest_row, group_by_key(replacing).values()))
    # A comparison of ages needs one more statement; a day's first report needs none.
    if len(rows) != 1 or not insert_if_new(
        connection, TOOL_TABLE, TOOL_COLUMNS, rows[0], KEY_COLUMNS
    ):
        upsert_tool_rows(connection, rows)
    for connection_id in sorted({key[0] for key in summed}):
        keys = [key for key in summed if key[0] == connection_id]
        _write_sums(connection, keys)
    return locked


def _write_sums(connection: SqlConnection, keys: Sequence[Key]) -> None:
    """Write a connection's claimed days; one that was pruned only if it had no row before."""
    yesterday = time.strftime("%Y-%m-%d", time.gmtime(time.time() - DAY_SECONDS))
    is_late = any(key[2] < yesterday for key in keys)
    for rows in batches(connection, build_days(reuse_connection(connection), keys, SUM)):
        # Read after the reports, so that it includes any earlier pruning. It is never later than
        # yesterday, and nearly all reports are of today and yesterday.
        first_day = read_first_day(connection, keys[0][0]) if is_late else FIRST_DAY
        upsert_tool_rows(connection, [row for row in rows if row.date >= first_day])
        frozen = [row for row in rows if row.date < first_day]
        insert(
            connection, TOOL_TABLE, TOOL_COLUMNS, frozen, _older_wins_sql(dialect_of(connection))
        )


def claim_days(connection: SqlConnection, keys: Sequence[Key]) -> None:
    """Lock the tool rows of `keys` (sorted) until the transaction ends; insert missing ones."""
    dialect = dialect_of(connection)
    columns = (*KEY_COLUMNS, "arrived_us")
    tail = dialect.on_conflict(KEY_COLUMNS, [("arrived_us", f"{TOOL_TABLE}.arrived_us")])
    insert(connection, TOOL_TABLE, columns, [(*key, UNWRITTEN) for key in keys], tail)


def _insert_raw(
    connection: SqlConnection, arrivals: Sequence[ReceivedReport], lock: str
) -> tuple[list[ReceivedReport], frozenset[int]]:
    """Insert the arrivals that are not stored yet; return all with their raw ids.

    Also return connections that `lock` has locked, without a statement of its own.
    """
    rows = [_build_raw_row(arrival) for arrival in arrivals]
    ids, locked = insert_with_ids(connection, RAW_TABLE, RAW_COLUMNS, rows, "report_id", lock)
    stored = [arrival._replace(raw_id=ids[arrival.report_id]) for arrival in arrivals]
    return stored, frozenset(locked)


def _build_raw_row(arrival: ReceivedReport) -> tuple[Any, ...]:
    report = arrival.report
    return (
        build_raw_params(arrival.connection_id),
        arrival.connection_id,
        report.payload,
        format_arrival(arrival.arrived_us, report.date),
        arrival.report_id,
        report.developer_id,
        report.date,
        report.hostname,
        arrival.arrived_us,
    )


def upsert_tool_rows(connection: SqlConnection, rows: Sequence[ToolRow]) -> None:
    """Write tool rows, sorted by key, except those that are older than the stored ones."""
    insert(connection, TOOL_TABLE, TOOL_COLUMNS, rows, _newer_wins_sql(dialect_of(connection)))


@cache
def _older_wins_sql(dialect: Dialect) -> str:
    """Return the tail of an upsert that changes a row only if it is merely claimed."""
    is_written = f"{TOOL_TABLE}.arrived_us <> {UNWRITTEN}"
    # Compared columns are last, as in `_newer_wins_sql`.
    plain = [column for column in TOOL_COLUMNS if column not in (*KEY_COLUMNS, "arrived_us")]
    return dialect.on_conflict(
        KEY_COLUMNS,
        [
            (
                column,
                f"CASE WHEN {is_written} THEN {TOOL_TABLE}.{column} ELSE {dialect.new(column)} END",
            )
            for column in (*plain, "arrived_us")
        ],
    )


@cache
def _newer_wins_sql(dialect: Dialect) -> str:
    """Return the tail of an upsert that does not change a newer row."""

    def old(column: str) -> str:
        return f"{TOOL_TABLE}.{column}"

    def newer(column: str) -> str:
        return f"CASE WHEN {is_newer} THEN {dialect.new(column)} ELSE {old(column)} END"

    # A row of equal age is of the same report, and changes with the mapping or the strategy.
    is_newer = (
        f"({dialect.new('arrived_us')}, {dialect.new('_raw_data_id')})"
        f" >= ({old('arrived_us')}, {old('_raw_data_id')})"
    )
    earliest = f"{dialect.earliest}({old('created_at')}, {dialect.new('created_at')})"
    # Rows of the Go plugin and of archives have no arrival.
    arrived = f"{old('arrived_us')} > 0 AND {dialect.new('arrived_us')} > 0"
    created = f"CASE WHEN {arrived} THEN {earliest} ELSE {newer('created_at')} END"
    # MySQL evaluates from left to right with the values already assigned, so the columns that the
    # comparison reads are last.
    compared = ("_raw_data_id", "arrived_us")
    plain = [c for c in TOOL_COLUMNS if c not in (*KEY_COLUMNS, *compared, "created_at")]
    assignments = [(column, newer(column)) for column in plain]
    assignments.append(("created_at", created))
    assignments.extend((column, newer(column)) for column in compared)
    return dialect.on_conflict(KEY_COLUMNS, assignments)


def read_developers(engine: Engine, table: str, connection_id: int) -> Iterator[list[str]]:
    """Yield pages of the developers with rows in a table, in order, from its index alone."""
    param = dialect_of(engine).placeholder
    last = ""
    while True:
        with reading(engine).connect() as connection:
            rows = connection.exec_driver_sql(
                f"SELECT DISTINCT developer_id FROM {table} WHERE connection_id = {param}"
                f" AND developer_id > {param} ORDER BY developer_id LIMIT {MAX_KEYS}",
                (connection_id, last),
            ).fetchall()
        if not rows:
            return
        last = rows[-1][0]
        yield [row[0] for row in rows]
