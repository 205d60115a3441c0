"""The connections, and whether their machines report."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

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
from developer_telemetry.reports.collectors import find_outdated
from developer_telemetry.reports.daily_metrics import format_timestamp
from developer_telemetry.storage.statistics import machine_reports_sql

REFUSAL_DAYS = 7


class QuietMachine(NamedTuple):
    """A machine that is not retired and whose last report is older than a week, in UTC."""

    developer: str
    host: str
    last_seen: str


class ConnectionStatus(NamedTuple):
    """Counts of one connection: `reports` in all and `today` (UTC), and their sources.

    Attributes:
        newest: The arrival of the newest report, or "".
        quiet: The machines that stopped reporting, the latest first.
        refused: The refusals of the last REFUSAL_DAYS days by reason.
        unread: The tool rows of those days in which a text that is no number counts as 0.
        retired: The number of `machines` that are retired; they are not quiet.
        outdated: The machines in use with an old collector, by its User-Agent.
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
    retired: int = 0
    outdated: Mapping[str, int] = {}


class _Machine(NamedTuple):
    reports: int = 0
    last_seen: str = ""
    is_retired: bool = False
    user_agent: str = ""


# By developer and host.
_Machines = dict[tuple[str, str], _Machine]


def connection_statuses(engine: Engine) -> list[ConnectionStatus]:
    """Return all connections by id. The cost depends on the machines, not on their reports."""
    now = now_us()
    with reading(engine).connect() as connection:
        names = connection.exec_driver_sql(f"SELECT id, name FROM {CONNECTION_TABLE} ORDER BY id")
        connections = [(int(row[0]), row[1]) for row in names]
        machines = _machines(connection)
        today = _stored_since(connection, now // DAY_US * DAY_US)
        since = format_timestamp(now - (REFUSAL_DAYS - 1) * DAY_US)[:10]
        refused = _refusals(connection, since)
        unread = _unread(connection, since)
    agents = {number: _user_agents(own) for number, own in machines.items()}
    # A version is old or not in comparison with those of the whole fleet.
    outdated = find_outdated(sum(agents.values(), Counter()))
    return [
        _status(
            number, name, machines.get(number, {}), today[number], refused.get(number, {}), now
        )._replace(
            unread=unread[number],
            outdated={
                agent: count
                for agent, count in sorted(agents.get(number, {}).items())
                if agent in outdated
            },
        )
        for number, name in connections
    ]


def _user_agents(machines: _Machines) -> Counter[str]:
    """Count the machines in use by User-Agent."""
    return Counter(machine.user_agent for machine in machines.values() if not machine.is_retired)


def _status(
    number: int, name: str, machines: _Machines, today: int, refused: dict[str, int], now: int
) -> ConnectionStatus:
    limit = format_timestamp(now - QUIET_US)
    silent = [
        QuietMachine(developer, host, machine.last_seen)
        for (developer, host), machine in machines.items()
        if machine.last_seen < limit and not machine.is_retired
    ]
    return ConnectionStatus(
        id=number,
        name=name,
        reports=sum(machine.reports for machine in machines.values()),
        today=today,
        developers=len({developer for developer, _ in machines}),
        machines=len(machines),
        newest=max((machine.last_seen for machine in machines.values()), default=""),
        quiet=tuple(sorted(silent, key=lambda machine: machine.last_seen, reverse=True)),
        refused=refused,
        retired=sum(machine.is_retired for machine in machines.values()),
    )


def token_faults(engine: Engine, encryption_secret: str) -> dict[int, str]:
    """Return the connections whose token can't be read, each with the reason."""
    connections = Connections(engine, encryption_secret)
    connections.reload()
    return {connection.id: connection.fault for connection in connections.unreadable()}


def _machines(connection: SqlConnection) -> dict[int, _Machines]:
    """Return the machines of each connection, with reports that are not counted yet."""
    dialect = dialect_of(connection)
    machines: dict[int, _Machines] = {}
    rows = connection.exec_driver_sql(
        "SELECT connection_id, developer_id, hostname, reports, last_seen, _raw_data_id,"
        f" retired_us, user_agent FROM {MACHINE_TABLE}"
    )
    counted = 0
    for number, developer, host, reports, last_seen, raw_id, retired_us, agent in rows:
        machines.setdefault(number, {})[developer, host] = _Machine(
            int(reports), text_of_moment(last_seen), retired_us > 0, agent
        )
        counted = max(counted, raw_id or 0)
    uncounted = connection.exec_driver_sql(
        "SELECT connection_id, developer_id, hostname, COUNT(*), MAX(seen)"
        f" FROM {machine_reports_sql(dialect, f'id > {dialect.placeholder}')} r"
        " GROUP BY connection_id, developer_id, hostname",
        (counted,),
    )
    for number, developer, host, reports, newest in uncounted:
        before = machines.setdefault(number, {}).get((developer, host), _Machine())
        last_seen = max(before.last_seen, text_of_moment(newest))
        # As it is counted in a few seconds, a report later than the others restores the machine.
        is_retired = before.is_retired and last_seen == before.last_seen
        machines[number][developer, host] = _Machine(
            before.reports + int(reports), last_seen, is_retired, before.user_agent
        )
    return machines


def _stored_since(connection: SqlConnection, start_us: int) -> Counter[int]:
    """Count the reports of each connection since a time, at the end of the raw layer.

    No index has times of arrival; ids are nearly in the order in which reports were stored.
    """
    placeholder = dialect_of(connection).placeholder
    before = connection.exec_driver_sql(
        f"SELECT id FROM {RAW_TABLE} WHERE stored_at < {placeholder} ORDER BY id DESC LIMIT 1",
        (format_timestamp(start_us),),
    ).scalar()
    rows = connection.exec_driver_sql(
        f"SELECT connection_id, COUNT(*) FROM {RAW_TABLE} WHERE id > {placeholder}"
        f" AND arrived_us >= {placeholder} GROUP BY connection_id",
        (before or 0, start_us),
    )
    return Counter({row[0]: int(row[1]) for row in rows})


def _refusals(connection: SqlConnection, since: str) -> dict[int, dict[str, int]]:
    """Return refusals by connection and reason, the most frequent reason first."""
    rows = connection.exec_driver_sql(
        f"SELECT connection_id, reason, SUM(count) FROM {REFUSAL_TABLE}"
        f" WHERE day >= {dialect_of(connection).placeholder} GROUP BY connection_id, reason"
        " ORDER BY 3 DESC, 2",
        (since,),
    )
    refusals: dict[int, dict[str, int]] = {}
    for number, reason, count in rows:
        refusals.setdefault(number, {})[reason] = int(count)
    return refusals


def _unread(connection: SqlConnection, since: str) -> Counter[int]:
    """Count the rows of each connection that have a remark about an unread number."""
    rows = connection.exec_driver_sql(
        f"SELECT connection_id, COUNT(*) FROM {TOOL_TABLE}"
        f" WHERE date >= {dialect_of(connection).placeholder} AND _raw_data_remark <> ''"
        " GROUP BY connection_id",
        (since,),
    )
    return Counter({row[0]: int(row[1]) for row in rows})


def text_of_moment(moment: Any) -> str:
    """Return a time from the database as `timestamp` writes it; "" for None."""
    if isinstance(moment, datetime.datetime):
        return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:23]
    return moment or ""
