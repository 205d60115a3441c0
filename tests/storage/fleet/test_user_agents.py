"""Test the User-Agents of machines, on every database."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from sqlalchemy.engine import Connection, Engine

from developer_telemetry.connections.registry import create
from developer_telemetry.constants import OVERWRITE
from developer_telemetry.database.bulk_insert import MAX_KEYS
from developer_telemetry.database.engine import reading, transact
from developer_telemetry.storage.fleet import user_agents
from developer_telemetry.storage.fleet.machines import MachineSelection, read_machines
from developer_telemetry.storage.fleet.user_agents import UserAgents
from developer_telemetry.storage.statistics import ReportCounts, count_machines
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.receivers import SECRET


def test_the_user_agent_of_the_last_report_is_kept(engine: Engine) -> None:
    fleet = create(engine, SECRET, "fleet", "token")
    counts = ReportCounts()

    def send(user_agent: bytes, developer: str = "ann") -> str:
        sent = arrival(developer=developer, hostname="Laptop.local", connection_id=fleet)
        store(engine, [sent], {fleet: OVERWRITE})
        counts.sent_by((fleet, developer, "Laptop.local"), user_agent)
        counts.stored()
        counts.flush(engine)
        with reading(engine).connect() as connection:
            [machine] = read_machines(connection, MachineSelection(developer_id=developer))
        return machine.user_agent

    assert send(b"developer-telemetry-collector/1.0") == "developer-telemetry-collector/1.0"
    assert send(b"developer-telemetry-collector/1.1") == "developer-telemetry-collector/1.1"
    assert send(b"\xff\x80" + b"x" * 300) == "\\xff\\x80" + "x" * 247
    assert send(b"", "bob") == ""


def test_the_user_agent_of_a_spooled_report_is_written_once_it_is_stored(engine: Engine) -> None:
    fleet = create(engine, SECRET, "fleet", "token")
    counts = ReportCounts()
    reports = {
        name: arrival(developer=name, hostname="laptop", connection_id=fleet)
        for name in ("ann", "bob")
    }
    counts.sent_by((fleet, "ann", "laptop"), b"collector/2")  # its report is in the spool
    store(engine, [reports["bob"]], {fleet: OVERWRITE})
    counts.sent_by((fleet, "bob", "laptop"), b"collector/1")
    for spooled in ("", "ann"):
        if spooled:
            store(engine, [reports[spooled]], {fleet: OVERWRITE})
        counts.stored()
        counts.flush(engine)
    with reading(engine).connect() as connection:
        machines = read_machines(connection, MachineSelection(fleet))
    agents = {machine.key.developer_id: machine.user_agent for machine in machines}
    assert agents == {"ann": "collector/2", "bob": "collector/1"}


def test_user_agents_of_many_machines_are_written_together(engine: Engine) -> None:
    fleet = create(engine, SECRET, "fleet", "token")
    counts = ReportCounts()
    agents = {f"dev {number}": f"collector/{number % 3}" for number in range(2 * MAX_KEYS + 1)}
    arrivals = [arrival(developer=name, hostname="pc", connection_id=fleet) for name in agents]
    store(engine, arrivals, {fleet: OVERWRITE})

    def read_agents() -> dict[str, str]:
        counts.stored()
        counts.flush(engine)
        with reading(engine).connect() as connection:
            machines = read_machines(connection, MachineSelection(fleet))
        return {machine.key.developer_id: machine.user_agent for machine in machines}

    for name, agent in agents.items():
        counts.sent_by((fleet, name, "pc"), agent.encode())
    counts.sent_by((fleet, "dev 0", "PC.local"), b"collector/0")  # another name of its machine
    counts.sent_by((fleet, "nobody", "pc"), b"collector/0")
    assert read_agents() == agents

    for name in ("dev 0", "dev 7"):  # the others still have theirs
        counts.sent_by((fleet, name, "pc"), b"collector/9")
        agents[name] = "collector/9"
    assert read_agents() == agents


def test_an_error_loses_no_user_agent(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = create(engine, SECRET, "fleet", "token")
    names = [f"dev {number}" for number in range(2 * MAX_KEYS + 1)]
    arrivals = [arrival(developer=name, hostname="pc", connection_id=fleet) for name in names]
    store(engine, arrivals, {fleet: OVERWRITE})
    count_machines(engine, None)
    noted = UserAgents()
    for name in names:
        noted.note((fleet, name, "pc"), b"collector/1")
    fails = count(1)

    def transact_or_fail(engine: Engine, work: Callable[[Connection], Any], **options: Any) -> Any:
        if next(fails) == 2:
            raise OSError("the database is away")
        return transact(engine, work, **options)

    monkeypatch.setattr(user_agents, "transact", transact_or_fail)
    with pytest.raises(OSError, match="away"):
        noted.flush(engine)
    noted.flush(engine)

    with reading(engine).connect() as connection:
        machines = read_machines(connection, MachineSelection(fleet))
    assert {machine.user_agent for machine in machines} == {"collector/1"}
