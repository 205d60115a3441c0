"""What an operator asks first: which connections there are, and whether machines report."""

from __future__ import annotations

import datetime
from collections import Counter
from typing import Any, NamedTuple

from sqlalchemy.engine import Connection, Engine

from developer_telemetry.connections.registry import Connections
from developer_telemetry.constants import (
    CONNECTION_TABLE,
    DAY_US,
    MACHINE_TABLE,
    QUIET_US,
    RAW_TABLE,
    REFUSAL_TABLE,
    TOOL_TABLE,
)
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import now_us, reading
from developer_telemetry.reports.daily_metrics import timestamp
from developer_telemetry.storage.statistics import reports_of_machines

REFUSAL_DAYS = 7


class QuietMachine(NamedTuple):
    """A machine that was not heard of for a week; `last_seen` is UTC."""

    developer: str
    host: str
    last_seen: str


class ConnectionStatus(NamedTuple):
    """One connection: what came, ever and today (UTC); from whom; the newest's arrival, or "".

    `quiet` are the machines not heard of for a week, the one heard of last first; `refused` counts
    the last REFUSAL_DAYS days' refusals by reason, `unread` their rows of the tool layer in which
    something that is no number counts as 0.
    """

    id: int
    name: str
    reports: int
    today: int
    developers: int
    machines: int
    newest: str
    quiet: tuple[QuietMachine, ...]
    refused: dict[str, int]
    unread: int = 0


class _Machine(NamedTuple):
    reports: int = 0
    last_seen: str = ""


# By developer and host.
_Machines = dict[tuple[str, str], _Machine]


def connection_statuses(engine: Engine) -> list[ConnectionStatus]:
    """All connections, by id. What it costs depends on the machines, not on their reports."""
    now = now_us()
    with reading(engine).connect() as connection:
        names = connection.exec_driver_sql(f"SELECT id, name FROM {CONNECTION_TABLE} ORDER BY id")
        known = [(int(row[0]), row[1]) for row in names]
        machines = _machines(connection)
        today = _stored_since(connection, now // DAY_US * DAY_US)
        since = timestamp(now - (REFUSAL_DAYS - 1) * DAY_US)[:10]
        refused = _refusals(connection, since)
        unread = _unread(connection, since)
    return [
        _status(
            each, name, machines.get(each, {}), today[each], refused.get(each, {}), now
        )._replace(unread=unread[each])
        for each, name in known
    ]


def _status(
    number: int, name: str, machines: _Machines, today: int, refused: dict[str, int], now: int
) -> ConnectionStatus:
    limit = timestamp(now - QUIET_US)
    silent = [
        QuietMachine(developer, host, each.last_seen)
        for (developer, host), each in machines.items()
        if each.last_seen < limit
    ]
    return ConnectionStatus(
        id=number,
        name=name,
        reports=sum(each.reports for each in machines.values()),
        today=today,
        developers=len({developer for developer, _ in machines}),
        machines=len(machines),
        newest=max((each.last_seen for each in machines.values()), default=""),
        quiet=tuple(sorted(silent, key=lambda each: each.last_seen, reverse=True)),
        refused=refused,
    )


def token_faults(engine: Engine, encryption_secret: str) -> dict[int, str]:
    """The connections that take no reports because their token can't be read, and why that is."""
    connections = Connections(engine, encryption_secret)
    connections.reload()
    return {each.id: each.fault for each in connections.unreadable()}


def _machines(connection: Connection) -> dict[int, _Machines]:
    """The machines of each connection, with the reports that receivers have yet to count."""
    dialect = dialect_of(connection)
    found: dict[int, _Machines] = {}
    rows = connection.exec_driver_sql(
        "SELECT connection_id, developer_id, hostname, reports, last_seen, _raw_data_id"
        f" FROM {MACHINE_TABLE}"
    )
    counted = 0
    for number, developer, host, reports, last_seen, raw_id in rows:
        found.setdefault(number, {})[developer, host] = _Machine(
            int(reports), text_of_moment(last_seen)
        )
        counted = max(counted, raw_id or 0)
    uncounted = connection.exec_driver_sql(
        "SELECT connection_id, developer_id, hostname, COUNT(*), MAX(seen)"
        f" FROM {reports_of_machines(dialect, f'id > {dialect.placeholder}')} r"
        " GROUP BY connection_id, developer_id, hostname",
        (counted,),
    )
    for number, developer, host, reports, newest in uncounted:
        before = found.setdefault(number, {}).get((developer, host), _Machine())
        found[number][developer, host] = _Machine(
            before.reports + int(reports), max(before.last_seen, text_of_moment(newest))
        )
    return found


def _stored_since(connection: Connection, start_us: int) -> Counter[int]:
    """How many reports of each connection arrived since a time, by the end of the raw layer.

    No index has times of arrival; ids are nearly in the order in which reports were stored.
    """
    mark = dialect_of(connection).placeholder
    before = connection.exec_driver_sql(
        f"SELECT id FROM {RAW_TABLE} WHERE stored_at < {mark} ORDER BY id DESC LIMIT 1",
        (timestamp(start_us),),
    ).scalar()
    rows = connection.exec_driver_sql(
        f"SELECT connection_id, COUNT(*) FROM {RAW_TABLE} WHERE id > {mark}"
        f" AND arrived_us >= {mark} GROUP BY connection_id",
        (before or 0, start_us),
    )
    return Counter({row[0]: int(row[1]) for row in rows})


def _refusals(connection: Connection, since: str) -> dict[int, dict[str, int]]:
    """Refusals by connection and reason, the most frequent reason first."""
    rows = connection.exec_driver_sql(
        f"SELECT connection_id, reason, SUM(count) FROM {REFUSAL_TABLE}"
        f" WHERE day >= {dialect_of(connection).placeholder} GROUP BY connection_id, reason"
        " ORDER BY 3 DESC, 2",
        (since,),
    )
    found: dict[int, dict[str, int]] = {}
    for number, reason, count in rows:
        found.setdefault(number, {})[reason] = int(count)
    return found


def _unread(connection: Connection, since: str) -> Counter[int]:
    """Days of each connection whose row has a remark, as one with an unread number has."""
    rows = connection.exec_driver_sql(
        f"SELECT connection_id, COUNT(*) FROM {TOOL_TABLE}"
        f" WHERE date >= {dialect_of(connection).placeholder} AND _raw_data_remark <> ''"
        " GROUP BY connection_id",
        (since,),
    )
    return Counter({row[0]: int(row[1]) for row in rows})


def text_of_moment(moment: Any) -> str:
    """A time of the database's as `timestamp` writes it; "" for none."""
    if isinstance(moment, datetime.datetime):
        return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:23]
    return moment or ""
