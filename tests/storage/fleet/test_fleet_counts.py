"""Test the numbers of machines for metrics, on every database."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.connections.registry import create
from developer_telemetry.constants import MACHINE_TABLE, REFUSED_MACHINE_TABLE
from developer_telemetry.database.engine import now_us, reading
from developer_telemetry.storage.fleet import fleet_counts
from developer_telemetry.storage.fleet.fleet_counts import FleetCounts, read_fleet_counts
from developer_telemetry.storage.fleet.machines import MachineKey, retire_machines
from developer_telemetry.storage.fleet.refused_machines import RefusalDetails
from developer_telemetry.storage.statistics import ReportCounts
from tests.support.fleets import HOUR_US, add_machines
from tests.support.receivers import SECRET


def read(engine: Engine) -> FleetCounts:
    with reading(engine).connect() as connection:
        return read_fleet_counts(connection)


def test_machines_are_counted_by_state_version_and_refusal(engine: Engine) -> None:
    fleet = create(engine, SECRET, "fleet", "token")
    ages = {"ann": 1, "bob": 30, "cid": 200, "dan": 300}
    add_machines(engine, [(name, "desk", hours) for name, hours in ages.items()], fleet)
    retire_machines(engine, [MachineKey(fleet, "dan", "desk")])
    counts = ReportCounts()
    for developer, reason in (("bob", "date"), ("bob", "body"), ("new", "date"), ("", "token")):
        counts.refused(fleet, reason, RefusalDetails(developer, "desk" if developer else ""))
    counts.refused(fleet, "size", RefusalDetails(address="192.0.2.1"))
    counts.flush(engine)
    with engine.begin() as connection:
        for name, agent in (("ann", "developer-telemetry-collector/1.2 (macOS)"), ("bob", "curl")):
            connection.exec_driver_sql(
                f"UPDATE {MACHINE_TABLE} SET user_agent = '{agent}' WHERE developer_id = '{name}'"
            )
        # Refused for longer than since bob's last report, which was stored 30 hours ago.
        connection.exec_driver_sql(
            f"UPDATE {REFUSED_MACHINE_TABLE} SET first_us = {now_us() - 99 * HOUR_US}"
            " WHERE developer_id = 'bob' AND reason = 'date'"
        )

    found = read(engine)

    assert {state: count for (_, state), count in found.states.items()} == {
        "reporting": 2,
        "quiet": 1,
        "retired": 1,
        "refused": 3,
    }
    assert found.versions == {(fleet, "1.2"): 1, (fleet, "other"): 1}
    assert found.refused_seconds[fleet] == pytest.approx(30 * 3600, abs=120)


def test_a_machine_is_no_longer_refused_after_its_next_report(engine: Engine) -> None:
    fleet = create(engine, SECRET, "fleet", "token")
    counts = ReportCounts()
    counts.refused(fleet, "date", RefusalDetails("ann", "desk"))
    counts.flush(engine)
    assert read(engine).states == {(fleet, "refused"): 1}

    add_machines(engine, [("ann", "desk", -0.001)], fleet)

    assert read(engine).states[fleet, "refused"] == 0
    assert read(engine).refused_seconds == {fleet: 0.0}


def test_few_versions_become_labels(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_counts, "MAX_VERSIONS", 2)
    agents = ["1.0", "1.0", "1.1", "1.1", "1.2", 'x"}', "1." + "9" * 99]
    add_machines(engine, [(f"dev{number}", "desk", 1) for number in range(len(agents))])
    with engine.begin() as connection:
        for number, version in enumerate(agents):
            connection.exec_driver_sql(
                f"UPDATE {MACHINE_TABLE} SET user_agent = 'developer-telemetry-collector/{version}'"
                f" WHERE developer_id = 'dev{number}'"
            )

    versions = read(engine).versions

    assert versions == {(1, "1.0"): 2, (1, "1.1"): 2, (1, "other"): 3}
