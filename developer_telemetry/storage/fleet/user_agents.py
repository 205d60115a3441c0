"""The User-Agent of each machine's last report."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import MACHINE_TABLE
from developer_telemetry.database.bulk_insert import MAX_KEYS
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import transact
from developer_telemetry.reports.hosts import machine_name
from developer_telemetry.reports.parser import TEXT_LIMIT
from developer_telemetry.storage.fleet.machines import MACHINE_KEY

# The machines whose User-Agent is remembered, so that it is written only when it changes.
MAX_REMEMBERED = 10_000
# The machines that are noted between two writes; beyond it some wait for their next report.
MAX_NOTED = 50_000
# The machines not counted yet that one flush looks for. A report in the spool has none until it is
# stored; one that is set aside never has.
ABSENT_AT_ONCE = 1_000
ABSENT_SECONDS = 86_400.0

# A connection, a developer and a host, as a report names them.
SenderKey = tuple[int, str, str]


class Absent(NamedTuple):
    """The User-Agent of a machine that has not been counted yet."""

    user_agent: bytes
    since: float  # of the monotonic clock


class UserAgents:
    """The User-Agents of reports, noted by one thread and written by another."""

    def __init__(self) -> None:
        self._noted: dict[SenderKey, bytes] = {}
        self._written: dict[SenderKey, bytes] = {}
        self._absent: dict[SenderKey, Absent] = {}

    def note(self, machine: SenderKey, user_agent: bytes) -> None:
        """Note the User-Agent of a report, in the bytes of its header."""
        if len(self._noted) < MAX_NOTED:
            self._noted[machine] = user_agent

    def flush(self, engine: Engine) -> None:
        """Write the User-Agents that have changed to machines that have been counted.

        Those of other machines are written by a later call, as all are after an error.
        """
        now = time.monotonic()
        retried = self._take_absent(now)
        changed = self._take_changed(retried)

        def retry_later(user_agent: bytes, machines: Iterable[SenderKey]) -> None:
            for machine in machines:
                self._absent[machine] = retried.get(machine) or Absent(user_agent, now)

        try:
            for user_agent, machines in changed.items():
                machines.sort(reverse=True)
                while machines:
                    batch = machines[-MAX_KEYS:]
                    update = partial(_update, user_agent=user_agent, machines=batch)
                    counted = transact(engine, update, awaits_locks=False)
                    del machines[-MAX_KEYS:]
                    self._remember(dict.fromkeys(counted, user_agent))
                    retry_later(user_agent, set(batch).difference(counted))
        finally:
            for user_agent, machines in changed.items():
                retry_later(user_agent, machines)

    def _take_absent(self, now: float) -> dict[SenderKey, Absent]:
        """Return some machines that were not counted before, without the oldest."""
        taken = {}
        for machine in list(islice(self._absent, ABSENT_AT_ONCE)):
            absent = self._absent.pop(machine)
            if now - absent.since < ABSENT_SECONDS:
                taken[machine] = absent
        return taken

    def _take_changed(self, retried: dict[SenderKey, Absent]) -> dict[bytes, list[SenderKey]]:
        """Return the machines to write by their newest User-Agent; leave these in `retried`."""
        noted, self._noted = self._noted, {}
        changed: dict[bytes, list[SenderKey]] = {}
        while noted:  # a burst of reports has many, so each is freed at once
            machine, user_agent = noted.popitem()
            self._absent.pop(machine, None)
            retried.pop(machine, None)
            if self._written.get(machine) != user_agent:
                changed.setdefault(user_agent, []).append(machine)
        for machine, absent in retried.items():
            changed.setdefault(absent.user_agent, []).append(machine)
        return changed

    def _remember(self, written: Mapping[SenderKey, bytes]) -> None:
        if len(self._written) + len(written) > MAX_REMEMBERED:
            self._written.clear()
        self._written.update(written)


def decode_user_agent(user_agent: bytes) -> str:
    """Return the header as a text of ASCII that fits its column."""
    return user_agent.decode("ascii", "backslashreplace")[:TEXT_LIMIT]


def _update(
    connection: SqlConnection, user_agent: bytes, machines: Sequence[SenderKey]
) -> Sequence[SenderKey]:
    """Write the User-Agent of machines that have another one; return those that have a row."""
    dialect = dialect_of(connection)
    rows = {machine: (*machine[:2], machine_name(machine[2])) for machine in machines}
    keys = sorted(set(rows.values()))
    are_these = dialect.keys_condition(MACHINE_TABLE, MACHINE_KEY, len(keys))
    parameters = dialect.parameters(MACHINE_KEY, keys)
    text = decode_user_agent(user_agent)
    param = dialect.placeholder
    updated = connection.exec_driver_sql(
        f"UPDATE {MACHINE_TABLE} SET user_agent = {param}"
        f" WHERE user_agent <> {param} AND {are_these}",
        (text, text, *parameters),
    ).rowcount
    if updated == len(keys):  # as for nearly all machines that are new or have been updated
        return machines
    present = connection.exec_driver_sql(
        f"SELECT {', '.join(MACHINE_KEY)} FROM {MACHINE_TABLE} WHERE {are_these}", parameters
    )
    counted = {tuple(row) for row in present}
    return [machine for machine in machines if rows[machine] in counted]
