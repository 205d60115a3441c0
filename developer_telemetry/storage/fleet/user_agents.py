"""The User-Agent of each machine's last report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import NamedTuple

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import MACHINE_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import transact
from developer_telemetry.reports.hosts import machine_name
from developer_telemetry.reports.parser import TEXT_LIMIT

# The machines whose User-Agent is remembered, so that it is written only when it changes.
MAX_REMEMBERED = 50_000
# Updates in one transaction, so that it is short.
UPDATES_AT_ONCE = 200
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
        if len(self._noted) < MAX_REMEMBERED:
            self._noted[machine] = user_agent

    def flush(self, engine: Engine) -> None:
        """Write the User-Agents that have changed to machines that have been counted.

        Those of other machines are written by a later call, as all are after an error.
        """
        changed = self._take_changed()
        machines = sorted(changed)
        try:
            for start in range(0, len(machines), UPDATES_AT_ONCE):
                batch = {
                    machine: changed[machine].user_agent
                    for machine in machines[start:][:UPDATES_AT_ONCE]
                }
                present = transact(engine, partial(_update, user_agents=batch), awaits_locks=False)
                self._remember({machine: batch[machine] for machine in present})
                for machine in present:
                    del changed[machine]
        finally:
            self._absent.update(changed)

    def _take_changed(self) -> dict[SenderKey, Absent]:
        """Return what is to be written now, the newest of each machine."""
        now = time.monotonic()
        noted, self._noted = self._noted, {}
        changed = {}
        for machine in list(islice(self._absent, ABSENT_AT_ONCE)):
            absent = self._absent.pop(machine)
            if now - absent.since < ABSENT_SECONDS:
                changed[machine] = absent
        for machine, user_agent in list(noted.items()):
            self._absent.pop(machine, None)
            changed.pop(machine, None)
            if self._written.get(machine) != user_agent:
                changed[machine] = Absent(user_agent, now)
        return changed

    def _remember(self, written: Mapping[SenderKey, bytes]) -> None:
        if len(self._written) + len(written) > MAX_REMEMBERED:
            self._written.clear()
        self._written.update(written)


def decode_user_agent(user_agent: bytes) -> str:
    """Return the header as a text of ASCII that fits its column."""
    return user_agent.decode("ascii", "backslashreplace")[:TEXT_LIMIT]


def _update(connection: SqlConnection, user_agents: Mapping[SenderKey, bytes]) -> list[SenderKey]:
    """Write User-Agents that differ; return the machines that have a row."""
    param = dialect_of(connection).placeholder
    key_is = f"connection_id = {param} AND developer_id = {param} AND hostname = {param}"
    present = []
    for (connection_id, developer, hostname), header in user_agents.items():
        user_agent = decode_user_agent(header)
        key = (connection_id, developer, machine_name(hostname))
        row = connection.exec_driver_sql(
            f"SELECT user_agent FROM {MACHINE_TABLE} WHERE {key_is}", key
        ).first()
        if row is None:
            continue
        present.append((connection_id, developer, hostname))
        if row[0] != user_agent:
            connection.exec_driver_sql(
                f"UPDATE {MACHINE_TABLE} SET user_agent = {param} WHERE {key_is}",
                (user_agent, *key),
            )
    return present
