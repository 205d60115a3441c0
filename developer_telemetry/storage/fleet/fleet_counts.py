"""The numbers of machines of each connection, for metrics."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime, timezone
from typing import Any, NamedTuple

from sqlalchemy.engine import Connection as SqlConnection

from developer_telemetry.constants import DAY_US, MACHINE_TABLE, REFUSED_MACHINE_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import now_us
from developer_telemetry.reports.refusal_reasons import WITHOUT_TOKEN
from developer_telemetry.storage.fleet.machines import QUIET, REPORTING, RETIRED, state_condition

REFUSED = "refused"
# The versions of collectors that are counted by themselves; each becomes a value of a label.
MAX_VERSIONS = 20
OTHER = "other"
_COLLECTOR = re.compile(
    r"(?:developer-)?telemetry-collector/([0-9A-Za-z][0-9A-Za-z.+-]{0,31})(?: .*)?"
)


class FleetCounts(NamedTuple):
    """Machines by connection, and by collectors' version.

    Attributes:
        states: Machines by connection and state: reporting, quiet, retired or refused. A refused
            machine was refused within a day, and no report of it has been stored since.
        versions: Reporting machines by connection and version of the collector.
        refused_seconds: By connection, the time for which the longest refused machine has been.
    """

    states: dict[tuple[int, str], int]
    versions: dict[tuple[int, str], int]
    refused_seconds: dict[int, float]


def read_fleet_counts(connection: SqlConnection) -> FleetCounts:
    """Count the machines of all connections."""
    condition = state_condition(connection, QUIET)
    rows = connection.exec_driver_sql(
        f"SELECT connection_id, user_agent, CASE WHEN retired_us > 0 THEN '{RETIRED}'"
        f" WHEN {condition.sql} THEN '{QUIET}' ELSE '{REPORTING}' END AS state, COUNT(*)"
        f" FROM {MACHINE_TABLE} GROUP BY connection_id, user_agent, state",
        condition.parameters,
    )
    states: Counter[tuple[int, str]] = Counter()
    versions: Counter[tuple[int, str]] = Counter()
    for number, user_agent, state, count in rows:
        for every_state in (REPORTING, QUIET, RETIRED, REFUSED):
            states[number, every_state] += 0
        states[number, state] += int(count)
        if state == REPORTING:
            versions[number, _version_of(user_agent)] += int(count)
    refused = _read_refused_since(connection)
    now = now_us()
    seconds = dict.fromkeys((number for number, _ in states), 0.0)
    for (number, *_), since_us in refused.items():
        states[number, REFUSED] += 1
        seconds[number] = max(seconds.get(number, 0.0), (now - since_us) / 1_000_000)
    return FleetCounts(dict(states), _bound_versions(versions), seconds)


def _version_of(user_agent: str) -> str:
    match = _COLLECTOR.fullmatch(user_agent)
    return match[1] if match else OTHER


def _bound_versions(counts: Counter[tuple[int, str]]) -> dict[tuple[int, str], int]:
    """Count the versions of the fewest machines as others."""
    totals: Counter[str] = Counter()
    for (_, version), count in counts.items():
        totals[version] += 0 if version == OTHER else count
    by_count = sorted(totals, key=lambda version: (-totals[version], version))
    common = set(by_count[:MAX_VERSIONS])
    bounded: Counter[tuple[int, str]] = Counter()
    for (number, version), count in counts.items():
        bounded[number, version if version in common else OTHER] += count
    return dict(bounded)


def _read_refused_since(connection: SqlConnection) -> dict[tuple[int, str, str, str], int]:
    """Return the refused machines, each with the time since when all its reports were refused."""
    dialect = dialect_of(connection)
    reasons = ", ".join(f"'{reason}'" for reason in sorted(WITHOUT_TOKEN))
    rows = connection.exec_driver_sql(
        "SELECT r.connection_id, r.developer_id, r.hostname, r.address, r.first_us, r.last_us,"
        f" m.last_seen FROM {REFUSED_MACHINE_TABLE} r LEFT JOIN {MACHINE_TABLE} m"
        " ON m.connection_id = r.connection_id AND m.developer_id = r.developer_id"
        " AND m.hostname = r.hostname"
        f" WHERE r.last_us >= {dialect.placeholder} AND r.reason NOT IN ({reasons})",
        (now_us() - DAY_US,),
    )
    refused: dict[tuple[int, str, str, str], int] = {}
    for number, developer, host, address, first_us, last_us, last_seen in rows:
        stored_us = _epoch_us(last_seen)
        if stored_us < last_us:
            # Without a name, an address is a machine.
            machine = (int(number), developer, host, "" if developer or host else address)
            since_us = max(int(first_us), stored_us)
            refused[machine] = min(since_us, refused.get(machine, since_us))
    return refused


def _epoch_us(moment: Any) -> int:
    """Return a time of the database, which is UTC, in microseconds since 1970; 0 for None."""
    if not moment:
        return 0
    if isinstance(moment, str):  # SQLite has no type for times
        moment = datetime.fromisoformat(moment)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return int(moment.timestamp() * 1_000_000)
