"""The User-Agent of each machine's last report."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

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

# A connection, a developer and a host, as a report names them.
SenderKey = tuple[int, str, str]


class UserAgents:
    """The User-Agents of reports, noted by one thread and written by another."""

    def __init__(self) -> None:
        self._noted: dict[SenderKey, bytes] = {}
        self._written: dict[SenderKey, bytes] = {}

    def note(self, machine: SenderKey, user_agent: bytes) -> None:
        """Note the User-Agent of a report, in the bytes of its header."""
        if len(self._noted) < MAX_REMEMBERED:
            self._noted[machine] = user_agent

    def flush(self, engine: Engine) -> None:
        """Write the User-Agents that have changed to machines that have been counted."""
        noted, self._noted = self._noted, {}
        changed = {
            machine: user_agent
            for machine, user_agent in list(noted.items())
            if self._written.get(machine) != user_agent
        }
        machines = sorted(changed)
        for start in range(0, len(machines), UPDATES_AT_ONCE):
            batch = {machine: changed[machine] for machine in machines[start:][:UPDATES_AT_ONCE]}
            transact(engine, partial(_update, user_agents=batch), awaits_locks=False)
            if len(self._written) + len(batch) > MAX_REMEMBERED:
                self._written.clear()
            self._written.update(batch)


def decode_user_agent(user_agent: bytes) -> str:
    """Return the header as a text of ASCII that fits its column."""
    return user_agent.decode("ascii", "backslashreplace")[:TEXT_LIMIT]


def _update(connection: SqlConnection, user_agents: Mapping[SenderKey, bytes]) -> None:
    param = dialect_of(connection).placeholder
    statement = (
        f"UPDATE {MACHINE_TABLE} SET user_agent = {param} WHERE connection_id = {param}"
        f" AND developer_id = {param} AND hostname = {param} AND user_agent <> {param}"
    )
    for (connection_id, developer, hostname), header in user_agents.items():
        user_agent = decode_user_agent(header)
        key = (connection_id, developer, machine_name(hostname))
        connection.exec_driver_sql(statement, (user_agent, *key, user_agent))
