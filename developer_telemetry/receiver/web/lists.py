"""The rows behind the figures of the page: machines, days of work, refused machines."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from functools import partial
from typing import Any, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.privacy.access_log import PAGE, Look, record_look
from developer_telemetry.receiver.web import charts
from developer_telemetry.receiver.web.data import (
    day_queries,
    fleet_queries,
    queries,
    refusal_queries,
)
from developer_telemetry.receiver.web.data.day_queries import Period
from developer_telemetry.receiver.web.data.queries import FILE_ROWS, ROWS_A_PAGE, Slice
from developer_telemetry.receiver.web.data.reader import Reader
from developer_telemetry.receiver.web.listing import (
    Column,
    Listing,
    Names,
    day_columns,
    machine_columns,
    make_file,
    refused_columns,
)
from developer_telemetry.receiver.web.problems import REMEDIES
from developer_telemetry.receiver.web.selection import DEFAULT_DAYS, Selection
from developer_telemetry.reports.collectors import find_outdated
from developer_telemetry.reports.refusal_reasons import TITLES
from developer_telemetry.storage.fleet.machines import MachineKey, restore_machines, retire_machines

Values = dict[str, Any]

# A machine's page shows its reports of this many days.
MACHINE_DAYS = 91
# What the files have, in words.
_TITLES = {"machines": "machines", "days": "days of work", "refused": "refused machines"}


class Lists:
    """Reads lists and the page of one machine whenever they are asked for."""

    def __init__(self, reader: Reader, writing: Engine) -> None:
        """Take also the engine that writes, to retire machines and to record looks."""
        self._reader = reader
        self._writing = writing

    async def days(self, selection: Selection) -> Values:
        """Return the values of the list of days of work."""
        listing, period = await self._reader.read(
            partial(list_days, selection=selection, names=self._reader.names())
        )
        return {"listing": listing, "period": period, **self._frame(selection)}

    async def refused(self, selection: Selection) -> Values:
        """Return the values of the list of refused machines."""
        names = self._reader.names()

        def read(connection: SqlConnection) -> Values:
            since = queries.today() - datetime.timedelta(days=selection.days - 1)
            refused = refusal_queries.refusals(connection, since, selection.connection_id)
            listing = list_refused(connection, selection, names)
            return {"listing": listing, "refused": refused, "shown": len(refused)}

        return {**await self._reader.read(read), **self._frame(selection)}

    async def file(self, name: str, selection: Selection, viewer: str) -> bytes:
        """Return all rows of a list as CSV, `name` being machines, days or refused.

        A look of the viewer at each person in it is recorded.
        """
        names = self._reader.names()
        part = Slice(selection.sort, 0, FILE_ROWS)

        def read(connection: SqlConnection) -> Listing:
            if name == "machines":
                listing = list_machines(connection, selection, names, part)
            elif name == "days":
                listing, _ = list_days(connection, selection, names, part)
            else:
                listing = list_refused(connection, selection, names, part)
            return listing

        listing = await self._reader.read(read)
        people = {(row.connection_id, row.developer_id) for row in listing.rows}
        await self._record(people, Look(viewer, PAGE, f"list of {_TITLES[name]} as CSV"))
        return make_file(listing.columns, listing.rows)

    async def machine(self, key: MachineKey, any_host: bool, viewer: str) -> Optional[Values]:
        """Return the values of a machine's page; None if there is no such machine.

        Args:
            key: The machine.
            any_host: True if the address names no host: the developer's newest machine then.
            viewer: The user whose look is recorded.
        """
        names = self._reader.names()
        values = await self._reader.read(
            partial(read_machine, key=key, any_host=any_host, names=names)
        )
        if values is not None:
            look = Look(viewer, PAGE, "page of a machine, with its reports by day")
            await self._record([(key.connection_id, key.developer_id)], look)
        return values

    async def _record(self, people: Collection[tuple[int, str]], look: Look) -> None:
        named = [person for person in people if person[1]]  # some senders are unknown
        await self._reader.run(partial(record_look, self._writing, named, look))

    async def retire(self, key: MachineKey, is_retired: bool) -> None:
        """Retire a machine, or restore it."""
        change = retire_machines if is_retired else restore_machines
        await self._reader.run(partial(change, self._writing, [key]))

    def _frame(self, selection: Selection) -> Values:
        return {
            "selection": selection,
            "connections": self._reader.connections.all(),
            "names": self._reader.names(),
            "titles": TITLES,
            "remedies": REMEDIES,
        }


def slice_of(selection: Selection) -> Slice:
    """Return the part of a list on the page of a selection."""
    return Slice(selection.sort, (selection.page - 1) * ROWS_A_PAGE)


def list_machines(
    connection: SqlConnection, selection: Selection, names: Names, part: Optional[Slice] = None
) -> Listing:
    """Return machines: those of a part, or of the page of the selection."""
    outdated = _outdated_agents(connection) if selection.state == "outdated" else ()
    total, rows = fleet_queries.list_machines(
        connection, selection, outdated, part or slice_of(selection)
    )
    columns = [
        column
        for column in machine_columns(names)
        if (column.key != "retired" or selection.state == "retired")
    ]
    return Listing("machines", "./", _for_fleet(columns, names), rows, total, selection, "-seen")


def _outdated_agents(connection: SqlConnection) -> Collection[str]:
    """Return the User-Agents of old collectors, as the figures of the whole fleet have them."""
    return find_outdated(fleet_queries.add_up(fleet_queries.fleets(connection)).agents)


def list_days(
    connection: SqlConnection, selection: Selection, names: Names, part: Optional[Slice] = None
) -> tuple[Listing, Period]:
    """Return days of work, and the period that they are of."""
    first, last = selection.listed_days(queries.today())
    period = Period(first, last, selection.connection_id)
    total, rows = day_queries.list_days(
        connection, period, selection.tool, part or slice_of(selection)
    )
    columns = _for_fleet(day_columns(names), names)
    return Listing("days", "days", columns, rows, total, selection, "-day"), period


def list_refused(
    connection: SqlConnection, selection: Selection, names: Names, part: Optional[Slice] = None
) -> Listing:
    """Return refused machines."""
    total, rows = refusal_queries.list_refused_machines(
        connection, selection, part or slice_of(selection)
    )
    columns = _for_fleet(refused_columns(names, TITLES), names)
    return Listing("refused", "refused", columns, rows, total, selection, "-seen")


def _for_fleet(columns: list[Column], names: Names) -> list[Column]:
    """Return columns without that of connections if there is only one."""
    return [column for column in columns if column.key != "connection" or len(names) > 1]


def read_machine(
    connection: SqlConnection, key: MachineKey, any_host: bool, names: Names
) -> Optional[Values]:
    """Return the values of a machine's page; None if there is no such machine."""
    machines = fleet_queries.machines_of(connection, key.connection_id, key.developer_id)
    machine = next(
        (machine for machine in machines if any_host or machine.hostname == key.hostname), None
    )
    if machine is None:
        return None
    last = queries.today()
    days = queries.days_before(last, MACHINE_DAYS)
    reported = fleet_queries.machine_days(connection, machine.key, days[0], last)
    refused = refusal_queries.refusals_of(connection, machine.key)
    columns = [
        column
        for column in refused_columns(names, TITLES)
        if column.key not in ("developer", "connection")
    ]
    return {
        "machine": machine,
        "others": [other for other in machines if other != machine],
        "connection_name": names.get(machine.connection_id, ""),
        "chart": charts.reports_of_machine(days, reported),
        "days": MACHINE_DAYS,
        "refused": Listing(
            "refused", "", columns, refused, len(refused), Selection(days=DEFAULT_DAYS), "-seen"
        ),
    }
