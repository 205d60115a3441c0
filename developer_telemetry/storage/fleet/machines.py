"""Machines and their states: reporting, quiet, or retired by an operator or after a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Union

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import DAY_US, MACHINE_TABLE, QUIET_US
from developer_telemetry.database.bulk_insert import MAX_KEYS, batches
from developer_telemetry.database.dialects.lookup import Database, dialect_of
from developer_telemetry.database.engine import now_us, transact
from developer_telemetry.reports.daily_metrics import format_timestamp

REPORTING = "reporting"
QUIET = "quiet"
RETIRED = "retired"
STATES = (REPORTING, QUIET, RETIRED)


class MachineKey(NamedTuple):
    """A machine by its connection, its developer, and the name of its host."""

    connection_id: int
    developer_id: str
    hostname: str


MACHINE_KEY = MachineKey._fields
_COLUMNS = (*MACHINE_KEY, "first_seen", "last_seen", "reports", "user_agent", "retired_us")


class Machine(NamedTuple):
    """A machine's row; `retired_us` is 0 unless the machine is retired.

    Times are as the driver returns them, in UTC.
    """

    key: MachineKey
    first_seen: Any
    last_seen: Any
    reports: int
    user_agent: str
    retired_us: int


class MachineSelection(NamedTuple):
    """The machines to read; 0 and "" select all."""

    connection_id: int = 0
    developer_id: str = ""
    state: str = ""


class Condition(NamedTuple):
    """A condition of SQL and its parameters."""

    sql: str
    parameters: tuple[Union[int, str], ...] = ()


def state_condition(database: Database, state: str) -> Condition:
    """Return the condition for machines of one of STATES."""
    if state == RETIRED:
        return Condition("retired_us > 0")
    sign = "<" if state == QUIET else ">="
    limit = format_timestamp(now_us() - QUIET_US)
    return Condition(
        f"retired_us = 0 AND last_seen {sign} {dialect_of(database).placeholder}", (limit,)
    )


def state_of(machine: Machine) -> str:
    """Return the state of a machine, one of STATES."""
    if machine.retired_us:
        return RETIRED
    limit = format_timestamp(now_us() - QUIET_US)
    return QUIET if str(machine.last_seen or "") < limit else REPORTING


def read_machines(connection: SqlConnection, wanted: MachineSelection) -> list[Machine]:
    """Return the machines of a selection, the last heard from first."""
    param = dialect_of(connection).placeholder
    conditions: list[Condition] = []
    if wanted.connection_id:
        conditions.append(Condition(f"connection_id = {param}", (wanted.connection_id,)))
    if wanted.developer_id:
        conditions.append(Condition(f"developer_id = {param}", (wanted.developer_id,)))
    if wanted.state:
        conditions.append(state_condition(connection, wanted.state))
    where = " AND ".join(condition.sql for condition in conditions) or "1 = 1"
    rows = connection.exec_driver_sql(
        f"SELECT {', '.join(_COLUMNS)} FROM {MACHINE_TABLE} WHERE {where}"
        f" ORDER BY last_seen DESC, {', '.join(MACHINE_KEY)}",
        tuple(value for condition in conditions for value in condition.parameters),
    )
    return [
        Machine(MachineKey(*row[:3]), row[3], row[4], int(row[5]), row[6], int(row[7]))
        for row in rows
    ]


def retire_machines(engine: Engine, keys: Sequence[MachineKey]) -> int:
    """Retire machines until their next report; return the number that was not retired before."""
    return _set_retired(engine, keys, now_us())


def restore_machines(engine: Engine, keys: Sequence[MachineKey]) -> int:
    """Undo the retirement of machines; return the number that was retired."""
    return _set_retired(engine, keys, 0)


def _set_retired(engine: Engine, keys: Sequence[MachineKey], retired_us: int) -> int:
    def work(connection: SqlConnection) -> int:
        dialect = dialect_of(connection)
        changed = 0
        for batch in batches(connection, keys, MAX_KEYS):
            changed += connection.exec_driver_sql(
                f"UPDATE {MACHINE_TABLE} SET retired_us = {dialect.placeholder}"
                f" WHERE retired_us {'=' if retired_us else '>'} 0"
                f" AND {dialect.keys_condition(MACHINE_TABLE, MACHINE_KEY, len(batch))}",
                (retired_us, *dialect.parameters(MACHINE_KEY, batch)),
            ).rowcount
        return changed

    return transact(engine, work)


def retire_silent_machines(engine: Engine, days: int) -> int:
    """Retire the machines that have been silent for so many days; return their number."""
    now = now_us()
    work = partial(_retire_silent, now=now, limit=format_timestamp(now - days * DAY_US))
    return transact(engine, work, awaits_locks=False)


def _retire_silent(connection: SqlConnection, now: int, limit: str) -> int:
    param = dialect_of(connection).placeholder
    retired: int = connection.exec_driver_sql(
        f"UPDATE {MACHINE_TABLE} SET retired_us = {param}"
        f" WHERE retired_us = 0 AND last_seen < {param}",
        (now, limit),
    ).rowcount
    return retired
