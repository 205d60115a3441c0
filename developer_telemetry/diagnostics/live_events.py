"""Reports and refusals as they arrive, by polling, which works on any database."""

from __future__ import annotations

from typing import NamedTuple, Union

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import HOUR_US, RAW_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import now_us, reading
from developer_telemetry.diagnostics.connection_status import text_of_moment
from developer_telemetry.reports.daily_metrics import format_timestamp
from developer_telemetry.storage.fleet.refused_machines import (
    RefusedMachine,
    RefusedMachineFilter,
    read_refused_machines,
)

# Writers don't commit in the order of ids, so these last rows are read again.
ROWS_ANEW = 500
# Only an import stores that many between two calls.
ROWS_AT_ONCE = 2_000


class Arrived(NamedTuple):
    """A report that was stored; `arrived` is UTC."""

    id: int
    connection: int
    developer: str
    host: str
    date: str
    arrived: str


class Refused(NamedTuple):
    """New refusals of a machine for a reason; `noticed` is UTC.

    `developer`, `host` and `message` are "" for a sender without a valid token.
    """

    connection: int
    reason: str
    count: int  # type: ignore[assignment]  # not the tuple's
    noticed: str
    developer: str = ""
    host: str = ""
    address: str = ""
    message: str = ""


Event = Union[Arrived, Refused]


class Watch:
    """The reports in the raw layer and the refused machines, from its creation on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = reading(engine)
        self._seen: set[int] = set()
        with self._engine.connect() as connection:
            newest = connection.exec_driver_sql(f"SELECT MAX(id) FROM {RAW_TABLE}").scalar() or 0
            self._above = max(0, newest - ROWS_ANEW)
            self._arrived(connection)
            self._refusals = {machine.id: machine.count for machine in self._refused(connection)}

    def read_events(self) -> list[Event]:
        """Return the events since the last call, reports first."""
        with self._engine.connect() as connection:
            arrived = self._arrived(connection)
            machines = self._refused(connection)
        noticed = format_timestamp(now_us())
        refused = []
        for machine in machines:
            before = self._refusals.get(machine.id, 0)
            if machine.count != before:
                # A row that was deleted meanwhile begins anew.
                count = machine.count - before if machine.count > before else machine.count
                refused.append(_refused_event(machine, count, noticed))
            self._refusals[machine.id] = machine.count
        return [*arrived, *refused]

    def _arrived(self, connection: SqlConnection) -> list[Arrived]:
        rows = connection.exec_driver_sql(
            "SELECT id, connection_id, developer_id, hostname, date, created_at"
            f" FROM {RAW_TABLE} WHERE id > {dialect_of(connection).placeholder}"
            f" ORDER BY id LIMIT {ROWS_ANEW + ROWS_AT_ONCE}",
            (self._above,),
        ).fetchall()
        new = [row for row in rows if row[0] not in self._seen]
        if rows:
            self._above = max(self._above, rows[-1][0] - ROWS_ANEW)
        self._seen = {row[0] for row in rows if row[0] > self._above}
        return [
            Arrived(row[0], row[1], row[2], row[3], str(row[4]), text_of_moment(row[5]))
            for row in new
        ]

    def _refused(self, connection: SqlConnection) -> list[RefusedMachine]:
        """Return the machines refused within an hour, by connection and reason."""
        # They are written some seconds later.
        machines = read_refused_machines(connection, RefusedMachineFilter(now_us() - HOUR_US))
        return sorted(machines, key=lambda machine: (machine.connection_id, machine.reason))


def _refused_event(machine: RefusedMachine, count: int, noticed: str) -> Refused:
    sender = machine.details
    return Refused(
        machine.connection_id,
        machine.reason,
        count,
        noticed,
        *(sender.developer_id, sender.hostname, sender.address, sender.message),
    )
