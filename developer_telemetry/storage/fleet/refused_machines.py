"""The machines whose reports were refused: a row for each machine and reason, for two weeks.

A receiver notes refusals in memory and writes them with its statistics. Both are bounded, for each
connection and separately for senders without a valid token, so that these can't displace machines.
A refusal beyond a bound counts in a row without a sender.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection

from developer_telemetry.constants import DAY_US, REFUSED_MACHINE_TABLE
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.reports.parser import TEXT_LIMIT
from developer_telemetry.reports.refusal_reasons import WITHOUT_TOKEN
from developer_telemetry.storage.tombstones import Tombstones

RETENTION_US = 14 * DAY_US
# The rows of a connection: of senders with a valid token, and of addresses without one.
MAX_MACHINES = 2_000
MAX_STRANGERS = 200

_KEY_COLUMNS = ("id", "connection_id", "reason")
_DETAIL_COLUMNS = ("developer_id", "hostname", "address", "user_agent", "message")
_COLUMNS = (*_KEY_COLUMNS, *_DETAIL_COLUMNS, "first_us", "last_us", "count")


class RefusalDetails(NamedTuple):
    """The sender of a refused report, as far as it is known, and the fault that it was told.

    Attributes:
        address: The IP address of the sender.
        message: The fault in words, "" for a sender without a valid token.
    """

    developer_id: str = ""
    hostname: str = ""
    address: str = ""
    user_agent: str = ""
    message: str = ""


NO_DETAILS = RefusalDetails()


class RefusedMachine(NamedTuple):
    """A machine that was refused for one reason; times are UTC in microseconds since 1970.

    `epoch` is the receiver's (`tombstones`) at the last refusal, and not stored.
    """

    id: str
    connection_id: int
    reason: str
    details: RefusalDetails
    first_us: int
    last_us: int
    count: int  # type: ignore[assignment]  # not the tuple's
    epoch: int = 0

    @property
    def has_token(self) -> bool:
        """Return true if its token was valid."""
        return self.reason not in WITHOUT_TOKEN

    def merge(self, later: RefusedMachine) -> RefusedMachine:
        """Return the sum of both."""
        return later._replace(first_us=self.first_us, count=self.count + later.count)

    def without_sender(self) -> RefusedMachine:
        """Return the same refusals as those of an unknown sender."""
        anonymous = _make_id(self.connection_id, self.reason, NO_DETAILS)
        return self._replace(id=anonymous, details=NO_DETAILS)


def _make_id(connection_id: int, reason: str, details: RefusalDetails) -> str:
    """Return the key of a machine: its developer and host, or its address if both are unknown."""
    names = (details.developer_id, details.hostname)
    key = repr((connection_id, reason, names if any(names) else details.address))
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


class NotedRefusals:
    """Refusals that are not written yet."""

    def __init__(self) -> None:
        self._machines: dict[str, RefusedMachine] = {}
        self._counts: Counter[tuple[int, bool]] = Counter()

    def __bool__(self) -> bool:
        return bool(self._machines)

    def note(
        self, connection_id: int, reason: str, details: RefusalDetails, now: int, epoch: int
    ) -> None:
        """Note a refusal."""
        machine_id = _make_id(connection_id, reason, details)
        self.add(RefusedMachine(machine_id, connection_id, reason, details, now, now, 1, epoch))

    def add(self, machine: RefusedMachine) -> None:
        """Add refusals of a machine, which are no older than those before."""
        earlier = self._machines.get(machine.id)
        if earlier is not None:
            self._machines[machine.id] = earlier.merge(machine)
            return
        group = (machine.connection_id, machine.has_token)
        if self._counts[group] < _limit(machine.has_token):
            self._counts[group] += 1
            self._machines[machine.id] = machine
        elif machine.details != NO_DETAILS:
            self.add(machine.without_sender())
        else:  # the one row beyond the limit
            self._machines[machine.id] = machine

    def machines(self) -> list[RefusedMachine]:
        """Return all of them, in the order of their ids."""
        return [self._machines[machine_id] for machine_id in sorted(self._machines)]


def _limit(has_token: bool) -> int:
    return MAX_MACHINES if has_token else MAX_STRANGERS


def write_refused_machines(
    connection: SqlConnection,
    machines: Sequence[RefusedMachine],
    tombstones: Optional[Tombstones],
) -> None:
    """Add refusals to the table, those of erased people without a sender."""
    rows = NotedRefusals()
    for machine in machines:
        rows.add(machine.without_sender() if _is_erased(machine, tombstones) else machine)
    dialect = dialect_of(connection)
    insert(
        connection,
        REFUSED_MACHINE_TABLE,
        _COLUMNS,
        [_row(machine) for machine in rows.machines()],
        dialect.on_conflict(("id",), _assignments(connection)),
    )
    for connection_id, has_token in sorted(
        {(row.connection_id, row.has_token) for row in machines}
    ):
        _delete_surplus(connection, connection_id, has_token)


def _is_erased(machine: RefusedMachine, tombstones: Optional[Tombstones]) -> bool:
    developer = machine.details.developer_id
    return tombstones is not None and tombstones.cover_person(
        machine.connection_id, machine.last_us, developer, "", machine.epoch
    )


def _row(machine: RefusedMachine) -> tuple[object, ...]:
    return (*machine[:3], *machine.details, machine.first_us, machine.last_us, machine.count)


def _assignments(connection: SqlConnection) -> list[tuple[str, str]]:
    # MySQL assigns from left to right, and later expressions see the new values.
    dialect = dialect_of(connection)

    def old(column: str) -> str:
        return f"{REFUSED_MACHINE_TABLE}.{column}"

    def newest(column: str) -> str:
        is_newer = f"{dialect.new('last_us')} >= {old('last_us')}"
        return f"CASE WHEN {is_newer} THEN {dialect.new(column)} ELSE {old(column)} END"

    return [
        *((column, newest(column)) for column in _DETAIL_COLUMNS),
        ("first_us", f"{dialect.earliest}({old('first_us')}, {dialect.new('first_us')})"),
        ("last_us", f"{dialect.latest}({old('last_us')}, {dialect.new('last_us')})"),
        ("count", f"{old('count')} + {dialect.new('count')}"),
    ]


def prune_refused_machines(connection: SqlConnection, now: int) -> None:
    """Delete the machines that were last refused before the retention."""
    connection.exec_driver_sql(
        f"DELETE FROM {REFUSED_MACHINE_TABLE} WHERE last_us < {dialect_of(connection).placeholder}",
        (now - RETENTION_US,),
    )


def _delete_surplus(connection: SqlConnection, connection_id: int, has_token: bool) -> None:
    """Delete the oldest rows of a connection beyond its limit."""
    param = dialect_of(connection).placeholder
    reasons = ", ".join(f"'{reason}'" for reason in sorted(WITHOUT_TOKEN))
    group = f"connection_id = {param} AND reason {'NOT ' if has_token else ''}IN ({reasons})"
    surplus = connection.exec_driver_sql(
        f"SELECT last_us FROM {REFUSED_MACHINE_TABLE} WHERE {group}"
        f" ORDER BY last_us DESC LIMIT 1 OFFSET {_limit(has_token)}",
        (connection_id,),
    ).scalar()
    if surplus is not None:
        connection.exec_driver_sql(
            f"DELETE FROM {REFUSED_MACHINE_TABLE} WHERE {group} AND last_us <= {param}",
            (connection_id, surplus),
        )


def escape_details(machine: RefusedMachine) -> RefusedMachine:
    """Return the same in ASCII, for a database whose encoding lacks a character."""
    details = (text.encode("ascii", "backslashreplace").decode() for text in machine.details)
    return machine._replace(details=RefusalDetails(*(text[:TEXT_LIMIT] for text in details)))


class RefusedMachineFilter(NamedTuple):
    """The refused machines to read.

    Attributes:
        connection_id: 0 for those of all connections.
        with_token: Only those whose token was valid.
        limit: The largest number of machines.
    """

    since_us: int = 0
    connection_id: int = 0
    with_token: bool = False
    limit: int = 10 * MAX_MACHINES


def read_refused_machines(
    connection: SqlConnection, wanted: RefusedMachineFilter
) -> list[RefusedMachine]:
    """Return the refused machines of a filter, the last refused first."""
    param = dialect_of(connection).placeholder
    conditions, values = [f"last_us >= {param}"], [wanted.since_us]
    if wanted.connection_id:
        conditions.append(f"connection_id = {param}")
        values.append(wanted.connection_id)
    if wanted.with_token:
        reasons = ", ".join(f"'{reason}'" for reason in sorted(WITHOUT_TOKEN))
        conditions.append(f"reason NOT IN ({reasons})")
    rows = connection.exec_driver_sql(
        f"SELECT {', '.join(_COLUMNS)} FROM {REFUSED_MACHINE_TABLE}"
        f" WHERE {' AND '.join(conditions)} ORDER BY last_us DESC, id LIMIT {wanted.limit}",
        tuple(values),
    )
    return [
        RefusedMachine(row[0], int(row[1]), row[2], RefusalDetails(*row[3:8]), *map(int, row[8:]))
        for row in rows
    ]
