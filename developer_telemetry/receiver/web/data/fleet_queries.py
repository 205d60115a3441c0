"""Queries of the page about machines."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection

from developer_telemetry.constants import (
    DAY_US,
    MACHINE_TABLE,
    QUIET_US,
    RAW_TABLE,
)
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import now_us
from developer_telemetry.receiver.web.data.queries import (
    CONNECTION_NAME,
    Conditions,
    Slice,
    ago,
    containing,
    moment_of,
    order_sql,
    to_day,
    to_moment,
)
from developer_telemetry.receiver.web.selection import Selection
from developer_telemetry.reports.hosts import machine_name
from developer_telemetry.storage.fleet.machines import MACHINE_KEY, MachineKey


class AgeClass(NamedTuple):
    """A class of machines by the time since their newest report.

    `until_us` is the longest time in it, in microseconds; None means that there is no limit.
    """

    key: str
    title: str
    until_us: Optional[int]


AGE_CLASSES = (
    AgeClass("day", "in the last 24 hours", DAY_US),
    AgeClass("days", "1 to 3 days ago", 3 * DAY_US),
    AgeClass("week", "3 to 7 days ago", 7 * DAY_US),
    AgeClass("month", "1 to 4 weeks ago", 28 * DAY_US),
    AgeClass("older", "longer ago", None),
)

_MACHINE_SORTS = {
    "developer": "developer_id",
    "host": "hostname",
    "connection": CONNECTION_NAME,
    "seen": "last_seen",
    "reports": "reports",
    "collector": "user_agent",
    "first": "first_seen",
    "retired": "retired_us",
}


class Fleet(NamedTuple):
    """The machines of one connection, and its newest report.

    Attributes:
        ages: The number in each of AGE_CLASSES, of those that are not retired.
        newly_quiet: Those of them that became quiet in the last 7 days.
        agents: The number of machines by User-Agent, without retired ones.
    """

    ages: tuple[int, ...]
    newly_quiet: int
    retired: int
    reports: int
    last_seen: Optional[datetime.datetime]
    agents: Counter[str]

    def __add__(self, other: Fleet) -> Fleet:  # type: ignore[override]  # not the tuple's
        """Return the machines of both."""
        seen = [moment for moment in (self.last_seen, other.last_seen) if moment]
        return Fleet(
            tuple(one + another for one, another in zip(self.ages, other.ages)),
            self.newly_quiet + other.newly_quiet,
            self.retired + other.retired,
            self.reports + other.reports,
            max(seen, default=None),
            self.agents + other.agents,
        )


NO_MACHINES = Fleet((0,) * len(AGE_CLASSES), 0, 0, 0, None, Counter())


class Machine(NamedTuple):
    """A row of the list of machines; times are UTC."""

    connection_id: int
    developer_id: str
    hostname: str
    first_seen: Optional[datetime.datetime]
    last_seen: Optional[datetime.datetime]
    reports: int
    user_agent: str
    retired: Optional[datetime.datetime]

    @property
    def key(self) -> MachineKey:
        """Return the columns that identify it."""
        return MachineKey(self.connection_id, self.developer_id, self.hostname)


class MachineDay(NamedTuple):
    """The reports of a machine about one day, and the arrival of the newest."""

    day: datetime.date
    reports: int
    arrived: datetime.datetime


def fleets(connection: SqlConnection) -> dict[int, Fleet]:
    """Count the machines of each connection, by its id; a connection without machines is absent."""
    counts: list[str] = []
    values: list[str] = []
    end: Optional[str] = None
    for age in AGE_CLASSES:
        start = None if age.until_us is None else ago(age.until_us)
        counts.append(_sum_seen(start, end))
        values += [limit for limit in (start, end) if limit is not None]
        end = start
    quiet = ago(QUIET_US)
    earlier = ago(QUIET_US + 7 * DAY_US)
    counts.append(_sum_seen(earlier, quiet))
    values += [earlier, quiet]
    rows = connection.exec_driver_sql(
        f"SELECT connection_id, user_agent, {', '.join(counts)},"
        " SUM(CASE WHEN retired_us > 0 THEN 1 ELSE 0 END), SUM(reports), MAX(last_seen)"
        f" FROM {MACHINE_TABLE} GROUP BY connection_id, user_agent".replace(
            "?", dialect_of(connection).placeholder
        ),
        tuple(values),
    )
    by_id: dict[int, Fleet] = {}
    for number, user_agent, *numbers, last_seen in rows:
        *ages, newly_quiet, retired, reports = map(int, numbers)
        agents = Counter({user_agent: sum(ages)})
        fleet = Fleet(tuple(ages), newly_quiet, retired, reports, to_moment(last_seen), agents)
        by_id[number] = by_id.get(number, NO_MACHINES) + fleet
    return by_id


def add_up(fleets: Mapping[int, Fleet], connection_id: int = 0) -> Fleet:
    """Return the machines of one connection, or for 0 those of all."""
    total = NO_MACHINES
    for number, fleet in fleets.items():
        if connection_id in (0, number):
            total += fleet
    return total


def _sum_seen(start: Optional[str], end: Optional[str]) -> str:
    """Return the number of machines in use that were last heard from between two times."""
    conditions = ["retired_us = 0"]
    conditions += ["last_seen >= ?"] if start is not None else []
    conditions += ["last_seen < ?"] if end is not None else []
    return f"SUM(CASE WHEN {' AND '.join(conditions)} THEN 1 ELSE 0 END)"


def list_machines(
    connection: SqlConnection, selection: Selection, outdated: Collection[str], part: Slice
) -> tuple[int, list[Machine]]:
    """Read machines, the newest report first unless the part has another order.

    Args:
        outdated: The User-Agents of old collectors.

    Returns:
        The number of all machines of the selection, and those of the part.
    """
    conditions = Conditions(connection)
    conditions.add_connection(selection.connection_id)
    _add_state(conditions, selection.state, outdated)
    if selection.text:
        pattern = containing(selection.text)
        like = "LIKE ? ESCAPE '!'"
        conditions.add(f"(LOWER(developer_id) {like} OR LOWER(hostname) {like})", pattern, pattern)
    total = connection.exec_driver_sql(
        f"SELECT COUNT(*) FROM {MACHINE_TABLE} WHERE {conditions}", conditions.values
    ).scalar_one()
    order = order_sql(_MACHINE_SORTS, part, "-seen", MACHINE_KEY)
    return int(total), _read_machines(connection, conditions, order)


def _add_state(conditions: Conditions, state: str, outdated: Collection[str]) -> None:
    conditions.add("retired_us > 0" if state == "retired" else "retired_us = 0")
    if state == "outdated":
        names = ", ".join("?" * len(outdated))
        conditions.add(f"user_agent IN ({names})" if names else "1 = 0", *outdated)
    elif state == "quiet":
        conditions.add("last_seen < ?", ago(QUIET_US))
    limit = None
    for age in AGE_CLASSES:
        if age.key == state and age.until_us is not None:
            conditions.add("last_seen >= ?", ago(age.until_us))
        if age.key == state and limit is not None:
            conditions.add("last_seen < ?", ago(limit))
        limit = age.until_us


def age_class(machine: Machine) -> str:
    """Return the key of a machine's class by the time since its newest report."""
    seen = machine.last_seen
    age_us = now_us() - round(seen.timestamp() * 1e6) if seen else None
    for one in AGE_CLASSES[:-1]:
        if age_us is not None and one.until_us is not None and age_us <= one.until_us:
            return one.key
    return AGE_CLASSES[-1].key


def machines_of(connection: SqlConnection, connection_id: int, developer: str) -> list[Machine]:
    """Return the machines of a developer, the newest report first."""
    conditions = Conditions(connection)
    conditions.add("connection_id = ? AND developer_id = ?", connection_id, developer)
    return _read_machines(connection, conditions, "ORDER BY last_seen DESC, hostname LIMIT 100")


def _read_machines(connection: SqlConnection, conditions: Conditions, order: str) -> list[Machine]:
    rows = connection.exec_driver_sql(
        "SELECT connection_id, developer_id, hostname, first_seen, last_seen, reports, user_agent,"
        f" retired_us FROM {MACHINE_TABLE} WHERE {conditions} {order}",
        conditions.values,
    )
    return [
        Machine._make(
            [*row[:3], to_moment(row[3]), to_moment(row[4]), int(row[5]), row[6], _since(row[7])]
        )
        for row in rows
    ]


def machine_days(
    connection: SqlConnection, machine: MachineKey, first: datetime.date, last: datetime.date
) -> list[MachineDay]:
    """Count a machine's reports by day, the last day first."""
    conditions = Conditions(connection)
    conditions.add("connection_id = ? AND developer_id = ?", *machine[:2])
    conditions.add_days(first, last)
    rows = connection.exec_driver_sql(
        f"SELECT date, hostname, COUNT(*), MAX(arrived_us) FROM {RAW_TABLE} WHERE {conditions}"
        " GROUP BY date, hostname ORDER BY date DESC",
        conditions.values,
    )
    days: dict[datetime.date, MachineDay] = {}
    for row in rows:
        if machine_name(row[1]) == machine.hostname:
            counted = MachineDay(to_day(row[0]), int(row[2]), moment_of(row[3]))
            earlier = days.get(counted.day, counted._replace(reports=0))
            days[counted.day] = MachineDay(
                counted.day,
                earlier.reports + counted.reports,
                max(earlier.arrived, counted.arrived),
            )
    return list(days.values())


def _since(epoch_us: int) -> Optional[datetime.datetime]:
    return moment_of(epoch_us) if epoch_us else None
