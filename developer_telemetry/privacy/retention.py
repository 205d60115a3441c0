"""Remove rows past a connection's retention: reports, days, and then people.

This takes many short transactions, with pauses, so that reports are stored meanwhile. Each of them
is complete: a day is removed with its tasks, and a developer's last day with all their other rows.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from datetime import date, datetime, timedelta, timezone
from functools import partial
from operator import add
from typing import Callable, NamedTuple, Optional

from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import (
    ACCESS_TABLE,
    ACCOUNT_TABLE,
    CONNECTION_TABLE,
    HORIZON_TABLE,
    MACHINE_TABLE,
    RAW_TABLE,
    TASK_TABLE,
    TOOL_TABLE,
)
from developer_telemetry.database.advisory_lock import PATIENCE_SECONDS, hold_connection
from developer_telemetry.database.bulk_insert import MAX_KEYS, MAX_ROWS, batches
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.domain_texts import read_table_texts
from developer_telemetry.database.engine import (
    clock_offset_us,
    now_us,
    overwrite_deleted_bytes,
    reading,
    transact,
)
from developer_telemetry.database.rights import require_rights
from developer_telemetry.reports.daily_metrics import KEY_COLUMNS, format_timestamp
from developer_telemetry.storage.devlake_schema import TASK_KINDS, make_account_id, make_task_id
from developer_telemetry.storage.fleet.machines import MACHINE_KEY
from developer_telemetry.storage.retention_marks import FIRST_DAY, read_first_day
from developer_telemetry.storage.tables import PRUNED_TABLES, PersonKey
from developer_telemetry.storage.writer import read_developers

_NEEDS = {
    CONNECTION_TABLE: ("SELECT",),
    HORIZON_TABLE: ("SELECT", "INSERT", "UPDATE"),
    **{table.name: ("SELECT", "DELETE") for table in PRUNED_TABLES},
}
# A pause is as long as the transaction before it, within limits.
MAX_PAUSE_SECONDS = 1.0


class RetentionLimits(NamedTuple):
    """The first days to keep, as YYYY-MM-DD: of reports, and of rows made of them."""

    raw: str
    tool: str


class PrunedRows(NamedTuple):
    """The numbers of rows that were removed, or would be."""

    reports: int = 0
    days: int = 0
    developers: int = 0  # those without any remaining row
    machines: int = 0


def compute_limits(
    today: date, raw_days: Optional[int], tool_days: Optional[int]
) -> RetentionLimits:
    """Return the first days to keep, by the retention of reports and of rows made of them.

    None, 0 and less mean for ever. Reports are removed with their rows at the latest, since the
    next run would make the rows again.
    """
    tool = _first_day_to_keep(today, tool_days)
    return RetentionLimits(max(tool, _first_day_to_keep(today, raw_days)), tool)


def _first_day_to_keep(today: date, days: Optional[int]) -> str:
    since_first = (today - date.fromisoformat(FIRST_DAY)).days
    if not days or not 0 < days < since_first:
        return FIRST_DAY
    return (today - timedelta(days)).isoformat()


def read_today(engine: Engine) -> date:
    """Return the day in UTC by the database's clock; a wrong clock of ours could remove all."""
    return date.fromisoformat(format_timestamp(now_us() + clock_offset_us(engine))[:10])


def list_due_connections(engine: Engine) -> list[int]:
    """Return the connections that have a retention and were not pruned today."""
    today = read_today(engine).isoformat()
    with reading(engine).connect() as connection:
        rows = connection.exec_driver_sql(
            f"SELECT c.id, h.pruned_on FROM {CONNECTION_TABLE} c LEFT JOIN {HORIZON_TABLE} h"
            " ON h.connection_id = c.id WHERE c.raw_retention_days > 0 OR c.tool_retention_days > 0"
            " ORDER BY c.id"
        ).fetchall()
    return [row[0] for row in rows if row[1] is None or str(row[1]) < today]


def preview_prune(engine: Engine, connection_id: int) -> tuple[RetentionLimits, PrunedRows]:
    """Return the limits, and the rows that `prune` would remove now."""
    today = read_today(engine)
    param = dialect_of(engine).placeholder
    ended_developers = (
        f"SELECT developer_id FROM {TOOL_TABLE} WHERE connection_id = {param}"
        f" GROUP BY developer_id HAVING MAX(date) < {param}"
    )
    older = f"WHERE connection_id = {param} AND date < {param}"
    with reading(engine).connect() as connection:
        limits = _read_limits(connection, connection_id, today)

        def count(source: str, *parameters: object) -> int:
            query = f"SELECT COUNT(*) FROM {source}"
            number: int = connection.exec_driver_sql(query, parameters).scalar_one()
            return number

        return limits, PrunedRows(
            count(f"{RAW_TABLE} {older}", connection_id, limits.raw),
            count(f"{TOOL_TABLE} {older}", connection_id, limits.tool),
            count(f"({ended_developers}) ended", connection_id, limits.tool),
            count(
                f"{MACHINE_TABLE} WHERE connection_id = {param}"
                f" AND (last_seen < {param} OR developer_id IN ({ended_developers}))",
                *(connection_id, _midnight(limits.tool), connection_id, limits.tool),
            ),
        )


def prune(
    engine: Engine, connection_id: int, patience: float = PATIENCE_SECONDS
) -> Generator[PrunedRows, None, None]:
    """Remove rows past their retention; yield the sum of removed rows after each transaction.

    Raises:
        ConnectionBusy: A run or an erase took longer than `patience` seconds.
        ConfigurationError: A right is missing; nothing was removed.
    """
    existing = inspect(engine).get_table_names()
    require_rights(engine, {table: verbs for table, verbs in _NEEDS.items() if table in existing})
    with hold_connection(engine, connection_id, patience) as still_alone:
        pruned = PrunedRows()
        started = time.monotonic()
        for removed in _Pruning(engine, connection_id).steps():
            pruned = PrunedRows(*map(add, pruned, removed))
            yield pruned
            # On SQLite a waiting writer polls, so it needs a pause to succeed.
            time.sleep(min(MAX_PAUSE_SECONDS, time.monotonic() - started))
            still_alone()
            started = time.monotonic()


class _Pruning:
    """The pruning of one connection."""

    def __init__(self, engine: Engine, connection_id: int) -> None:
        self._engine = engine
        self._id = connection_id
        self._today = read_today(engine)
        self._param = dialect_of(engine).placeholder
        existing = inspect(engine).get_table_names()
        self._account_tables = [
            table
            for table in PRUNED_TABLES
            if table.key is PersonKey.ACCOUNT and table.name in existing
        ]

    def steps(self) -> Iterator[PrunedRows]:
        """Remove all due rows; yield the rows that each transaction removed."""
        for table, remove in ((RAW_TABLE, self._remove_reports), (TOOL_TABLE, self._remove_days)):
            # By pages of developers, so that an index finds the oldest rows of each.
            for page in read_developers(self._engine, table, self._id):
                yield from self._repeat(partial(remove, developers=page))
        yield from self._repeat(self._remove_machines)
        while transact(self._engine, self._remove_accesses):
            yield PrunedRows()
        transact(self._engine, self._complete)

    def _repeat(self, remove: Callable[[SqlConnection], PrunedRows]) -> Iterator[PrunedRows]:
        while any(removed := transact(self._engine, remove)):
            yield removed

    def _begin(self, connection: SqlConnection) -> RetentionLimits:
        """Return the limits by the connection's options now, recorded before rows are deleted."""
        overwrite_deleted_bytes(connection)
        limits = _read_limits(connection, self._id, self._today)
        if limits.raw > read_first_day(connection, self._id):
            self._record(connection, "raw_before", limits.raw)
        return limits

    def _record(self, connection: SqlConnection, column: str, day: str) -> None:
        dialect = dialect_of(connection)
        values = {"connection_id": self._id, "raw_before": FIRST_DAY, column: day}
        connection.exec_driver_sql(
            f"INSERT INTO {HORIZON_TABLE} ({', '.join(values)})"
            f" VALUES ({', '.join([self._param] * len(values))}) "
            + dialect.on_conflict(("connection_id",), [(column, dialect.new(column))]),
            tuple(values.values()),
        )

    def _remove_reports(self, connection: SqlConnection, developers: Sequence[str]) -> PrunedRows:
        limits = self._begin(connection)
        rows = connection.exec_driver_sql(
            f"SELECT id FROM {RAW_TABLE} WHERE {self._condition(developers)}"
            f" AND date < {self._param} LIMIT {MAX_ROWS}",
            (self._id, *developers, limits.raw),
        ).fetchall()
        return PrunedRows(
            reports=self._delete(connection, RAW_TABLE, "id", [row[0] for row in rows])
        )

    def _remove_days(self, connection: SqlConnection, developers: Sequence[str]) -> PrunedRows:
        limits = self._begin(connection)
        # True for a day whose developer has later days to keep.
        later = (
            f"SELECT 1 FROM {TOOL_TABLE} kept WHERE kept.connection_id = t.connection_id"
            f" AND kept.developer_id = t.developer_id AND kept.date >= {self._param}"
        )
        rows = connection.exec_driver_sql(
            f"SELECT developer_id, date, CASE WHEN EXISTS ({later}) THEN 1 ELSE 0 END"
            f" FROM {TOOL_TABLE} t WHERE {self._condition(developers)} AND date < {self._param}"
            f" LIMIT {MAX_ROWS}",
            (limits.tool, self._id, *developers, limits.tool),
        ).fetchall()
        keys = sorted((self._id, row[0], str(row[1])) for row in rows)
        self._delete_keys(connection, TOOL_TABLE, KEY_COLUMNS, keys)
        texts = read_table_texts(connection, TASK_TABLE)
        tasks = [make_task_id(kind, *key, texts) for key in keys for kind in TASK_KINDS]
        self._delete(connection, TASK_TABLE, "id", tasks)
        ending = sorted({row[0] for row in rows if not row[2]})
        removed_days = PrunedRows(days=len(keys))
        return self._remove_people(connection, ending, removed_days) if ending else removed_days

    def _remove_people(
        self, connection: SqlConnection, ending: Sequence[str], removed_days: PrunedRows
    ) -> PrunedRows:
        """Remove all rows of the developers without remaining days."""
        remaining = connection.exec_driver_sql(
            f"SELECT DISTINCT developer_id FROM {TOOL_TABLE} WHERE {self._condition(ending)}",
            (self._id, *ending),
        ).fetchall()
        developers = sorted(set(ending) - {row[0] for row in remaining})
        texts = read_table_texts(connection, ACCOUNT_TABLE)
        accounts = [make_account_id(self._id, developer, texts) for developer in developers]
        for table in self._account_tables:
            self._delete(connection, table.name, table.id_column, accounts)
        machines = 0
        if developers:
            machines = connection.exec_driver_sql(
                f"DELETE FROM {MACHINE_TABLE} WHERE {self._condition(developers)}",
                (self._id, *developers),
            ).rowcount
            connection.exec_driver_sql(
                f"DELETE FROM {ACCESS_TABLE} WHERE {self._condition(developers)}",
                (self._id, *developers),
            )
        return removed_days._replace(developers=len(developers), machines=machines)

    def _remove_machines(self, connection: SqlConnection) -> PrunedRows:
        """Remove machines whose last report arrived before the first day to keep."""
        limits = self._begin(connection)
        keys = connection.exec_driver_sql(
            f"SELECT {', '.join(MACHINE_KEY)} FROM {MACHINE_TABLE}"
            f" WHERE connection_id = {self._param} AND last_seen < {self._param} LIMIT {MAX_ROWS}",
            (self._id, _midnight(limits.tool)),
        ).fetchall()
        self._delete_keys(connection, MACHINE_TABLE, MACHINE_KEY, [tuple(key) for key in keys])
        return PrunedRows(machines=len(keys))

    def _remove_accesses(self, connection: SqlConnection) -> int:
        """Remove accesses from before the first day to keep, some at a time."""
        limits = self._begin(connection)
        rows = connection.exec_driver_sql(
            f"SELECT id FROM {ACCESS_TABLE} WHERE connection_id = {self._param}"
            f" AND looked_us < {self._param} LIMIT {MAX_ROWS}",
            (self._id, _midnight_us(limits.tool)),
        ).fetchall()
        return self._delete(connection, ACCESS_TABLE, "id", [row[0] for row in rows])

    def _complete(self, connection: SqlConnection) -> None:
        self._begin(connection)
        self._record(connection, "pruned_on", self._today.isoformat())

    def _condition(self, developers: Sequence[str]) -> str:
        placeholders = ", ".join([self._param] * len(developers))
        return f"connection_id = {self._param} AND developer_id IN ({placeholders})"

    def _delete_keys(
        self,
        connection: SqlConnection,
        table: str,
        columns: Sequence[str],
        keys: Sequence[tuple[object, ...]],
    ) -> None:
        dialect = dialect_of(connection)
        for batch in batches(connection, keys, MAX_KEYS):
            connection.exec_driver_sql(
                f"DELETE FROM {table} WHERE {dialect.keys_condition(table, columns, len(batch))}",
                dialect.parameters(columns, batch),
            )

    def _delete(
        self, connection: SqlConnection, table: str, column: str, values: Sequence[object]
    ) -> int:
        if not values:
            return 0
        placeholders = ", ".join([self._param] * len(values))
        deleted: int = connection.exec_driver_sql(
            f"DELETE FROM {table} WHERE {column} IN ({placeholders})", tuple(values)
        ).rowcount
        return deleted


def _read_limits(connection: SqlConnection, connection_id: int, today: date) -> RetentionLimits:
    param = dialect_of(connection).placeholder
    retention = connection.exec_driver_sql(
        f"SELECT raw_retention_days, tool_retention_days FROM {CONNECTION_TABLE}"
        f" WHERE id = {param}",
        (connection_id,),
    ).first()
    return compute_limits(today, *(retention or (0, 0)))


def _midnight(day: str) -> str:
    return f"{day} 00:00:00"


def _midnight_us(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=timezone.utc).timestamp()) * 1_000_000
