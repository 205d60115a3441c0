"""Counts of machines and refused reports for operators, some seconds late."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache, partial
from typing import Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import HOUR_US, MACHINE_TABLE, RAW_TABLE, REFUSAL_TABLE
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.database.dialects.base import Dialect
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import now_us, reading, transact
from developer_telemetry.reports.daily_metrics import format_timestamp
from developer_telemetry.reports.hosts import LOCAL_ENDS
from developer_telemetry.storage.connection_locks import lock_connections
from developer_telemetry.storage.fleet.machines import MACHINE_KEY
from developer_telemetry.storage.fleet.refused_machines import (
    NO_DETAILS,
    NotedRefusals,
    RefusalDetails,
    RefusedMachine,
    escape_details,
    prune_refused_machines,
    write_refused_machines,
)
from developer_telemetry.storage.fleet.user_agents import SenderKey, UserAgents
from developer_telemetry.storage.token_uses import TokenUses
from developer_telemetry.storage.tombstones import TombstoneCache

# Rows counted in one transaction, so that it is short.
ROWS_AT_ONCE = 1_000
# The number of ids to search backwards for uncounted rows: at the start for those of a crash, later
# for those whose transactions ended after that of a higher id.
ROWS_AT_START = 20_000
ROWS_ANEW = 2_000

Refusal = tuple[int, str, str]


class ReportCounts:
    """Counts of events, noted by any thread and written to the database by `flush`."""

    def __init__(self, erased: Optional[TombstoneCache] = None) -> None:
        """Take the tombstones of people whose refusals are counted without their names."""
        self._erased = erased
        self._lock = threading.Lock()
        self._refusals: Counter[Refusal] = Counter()
        self._refused_machines = NotedRefusals()
        self._pruned_us = 0
        self._user_agents = UserAgents()
        self._token_uses = TokenUses()
        self._stored = True
        self._counted_id: Optional[int] = None

    def stored(self) -> None:
        """Note that reports were committed."""
        self._stored = True

    def sent_by(self, machine: SenderKey, user_agent: bytes) -> None:
        """Note the User-Agent of a machine's report."""
        self._user_agents.note(machine, user_agent)

    def token_used(self, connection_id: int, fingerprint: str) -> None:
        """Note that a token was accepted now."""
        self._token_uses.note(connection_id, fingerprint)

    def refused(
        self, connection_id: int, reason: str, details: RefusalDetails = NO_DETAILS
    ) -> None:
        """Count a report that was refused for `reason`, one of a few fixed words."""
        now = now_us()
        epoch = self._erased.tombstones().epoch if self._erased else 0
        with self._lock:
            self._refusals[(connection_id, format_timestamp(now)[:10], reason)] += 1
            self._refused_machines.note(connection_id, reason, details, now, epoch)

    def flush(self, engine: Engine) -> None:
        """Write the counts since the last call; keep them for the next call if that fails.

        It also fails if another transaction holds a row for longer than `engine` waits.
        """
        self._flush_refusals(engine)
        self._token_uses.flush(engine)
        if self._stored:
            self._stored = False
            try:
                self._counted_id = count_machines(engine, self._counted_id, awaits_locks=False)
                self._user_agents.flush(engine)
            except Exception:
                self._stored = True
                raise

    def _flush_refusals(self, engine: Engine) -> None:
        with self._lock:
            refusals, self._refusals = self._refusals, Counter()
            noted, self._refused_machines = self._refused_machines, NotedRefusals()
        is_due = now_us() - self._pruned_us > HOUR_US
        if not (refusals or is_due):
            return
        try:
            self._write_refusals(engine, refusals, noted.machines())
        except Exception:
            with self._lock:
                self._refusals += refusals
                later, self._refused_machines = self._refused_machines, noted
                for machine in later.machines():
                    self._refused_machines.add(machine)
            raise
        self._pruned_us = now_us()

    def _write_refusals(
        self, engine: Engine, refusals: Counter[Refusal], machines: Sequence[RefusedMachine]
    ) -> None:
        def work(connection: SqlConnection) -> None:
            present = lock_connections(connection, {refusal[0] for refusal in refusals})
            _write_counts(connection, refusals, present)
            prune_refused_machines(connection, now_us())
            # An erasure waits for the end of this transaction from here on, and not before.
            tombstones = self._erased.tombstones() if self._erased else None
            rows = [machine for machine in machines if machine.connection_id in present]
            write_refused_machines(connection, rows, tombstones)

        try:
            transact(engine, work, awaits_locks=False)
        except Exception as error:
            if not dialect_of(engine).is_caused_by_values(error):
                raise
            machines = [escape_details(machine) for machine in machines]
            transact(engine, work, awaits_locks=False)


def _write_counts(
    connection: SqlConnection, refusals: Counter[Refusal], present: Collection[int]
) -> None:
    dialect = dialect_of(connection)
    total = f"{REFUSAL_TABLE}.count + {dialect.new('count')}"
    insert(
        connection,
        REFUSAL_TABLE,
        ("connection_id", "day", "reason", "count"),
        [(*refusal, n) for refusal, n in sorted(refusals.items()) if refusal[0] in present],
        dialect.on_conflict(("connection_id", "day", "reason"), [("count", total)]),
    )


def count_machines(engine: Engine, counted_id: Optional[int], awaits_locks: bool = True) -> int:
    """Add raw rows to the counts of their machines; return the highest id that is counted.

    `counted_id` is the last returned value, None at first. A machine's row has the highest raw id
    that was added to it, so no row is counted twice, and rows missed by a crash are counted later.
    """
    with reading(engine).connect() as connection:
        newest = connection.exec_driver_sql(f"SELECT MAX(id) FROM {RAW_TABLE}").scalar_one() or 0
    # After a failover that lost rows, or a restore, new rows get the same ids again.
    if counted_id is None or counted_id > newest:
        first = newest - ROWS_AT_START
    else:
        first = counted_id - ROWS_ANEW
    statement = _count_machines_sql(dialect_of(engine))
    for start in range(max(0, first), newest, ROWS_AT_ONCE):
        ids = (start, min(newest, start + ROWS_AT_ONCE))
        transact(engine, partial(_count_machines, statement=statement, ids=ids), awaits_locks)
    return newest


def _count_machines(connection: SqlConnection, statement: str, ids: tuple[int, int]) -> None:
    # A connection is deleted after this, or the rows that this would read are deleted, too.
    lock_connections(connection)
    connection.exec_driver_sql(statement, ids)


@cache
def _count_machines_sql(dialect: Dialect) -> str:
    """Return the statement that counts the rows after one id and up to another."""

    def old(column: str) -> str:
        return f"{MACHINE_TABLE}.{column}"

    # Another receiver may have counted the same rows in the meantime.
    uncounted = f"{dialect.new('_raw_data_id')} > COALESCE({old('_raw_data_id')}, 0)"
    more = f"CASE WHEN {uncounted} THEN {dialect.new('reports')} ELSE 0 END"
    # Of this value, the statement makes 0 if a report arrived after the machine was retired.
    restored = f"{uncounted} AND {dialect.new('retired_us')} = 0"
    assignments = [
        ("retired_us", f"CASE WHEN {restored} THEN 0 ELSE {old('retired_us')} END"),
        ("reports", f"{old('reports')} + {more}"),
        ("first_seen", f"{dialect.earliest}({old('first_seen')}, {dialect.new('first_seen')})"),
        ("last_seen", f"{dialect.latest}({old('last_seen')}, {dialect.new('last_seen')})"),
        ("_raw_data_id", f"{dialect.latest}({old('_raw_data_id')}, {dialect.new('_raw_data_id')})"),
    ]
    counted = ("first_seen", "last_seen", "reports", "retired_us")
    columns = (*MACHINE_KEY, *counted, "_raw_data_params", "_raw_data_table", "_raw_data_id")
    retired = "MIN(CASE WHEN r.arrived_us <= m.retired_us THEN m.retired_us ELSE 0 END)"
    joined = " AND ".join(f"m.{key} = r.{key}" for key in MACHINE_KEY)
    key_columns = ", ".join(f"r.{key}" for key in MACHINE_KEY)
    param = dialect.placeholder
    source = machine_reports_sql(dialect, f"id > {param} AND id <= {param}")
    return (
        f"INSERT INTO {MACHINE_TABLE} ({', '.join(columns)})"
        f" SELECT {key_columns}, MIN(r.seen), MAX(r.seen), COUNT(*), {retired}, MIN(r.params),"
        f" '{RAW_TABLE}', MAX(r.id) FROM {source} r LEFT JOIN {MACHINE_TABLE} m ON {joined}"
        " WHERE r.id > COALESCE(m._raw_data_id, 0)"
        f" GROUP BY {key_columns} ORDER BY {key_columns} "
        + dialect.on_conflict(MACHINE_KEY, assignments)
    )


def machine_reports_sql(dialect: Dialect, condition: str) -> str:
    """Return a table of raw rows with their machine's name and the time `seen`.

    `seen` is never later than the time at which the row was stored: a report of an archive counts
    as arrived at the start of its day, which may be in the future, and a clock may be fast.
    """
    return (
        "(SELECT id, params, connection_id, developer_id, arrived_us,"
        f" {machine_name_sql(dialect, 'hostname')} AS hostname,"
        f" {dialect.earliest}(created_at, stored_at) AS seen"
        f" FROM {RAW_TABLE} WHERE {condition})"
    )


def machine_name_sql(dialect: Dialect, column: str) -> str:
    """Return the SQL expression of `hosts.machine_name` for a column."""
    name = dialect.without_end_dots(f"LOWER({column})")
    cases = " ".join(
        f"WHEN {dialect.end_of(name, len(end))} = '{end}' AND {name} <> '{end}'"
        f" THEN {dialect.without_end(name, len(end))}"
        for end in LOCAL_ENDS
    )
    return f"CASE {cases} ELSE {name} END"
