"""Test the rows of refused machines and the states of machines, on every database."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.connections.registry import create
from developer_telemetry.constants import DAY_US, OVERWRITE, REFUSED_MACHINE_TABLE
from developer_telemetry.database.engine import now_us, reading
from developer_telemetry.privacy.erasure import erase
from developer_telemetry.privacy.person_search import Person, PersonSearch
from developer_telemetry.storage.fleet import refused_machines
from developer_telemetry.storage.fleet.machines import (
    QUIET,
    REPORTING,
    RETIRED,
    MachineKey,
    MachineSelection,
    read_machines,
    restore_machines,
    retire_machines,
    retire_silent_machines,
)
from developer_telemetry.storage.fleet.refused_machines import (
    RefusalDetails,
    RefusedMachine,
    RefusedMachineFilter,
    read_refused_machines,
)
from developer_telemetry.storage.statistics import ReportCounts, count_machines
from developer_telemetry.storage.tombstones import (
    Tombstone,
    TombstoneCache,
    TombstoneKey,
    write_tombstones,
)
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.fleets import add_machines
from tests.support.receivers import SECRET

ANN = RefusalDetails("ann", "laptop", "192.0.2.1", "collector/1", "date: missing")
BOB = RefusalDetails("bob", "desk", "192.0.2.2", "collector/1", "date: missing")


def read(engine: Engine, **wanted: Any) -> list[RefusedMachine]:
    with reading(engine).connect() as connection:
        return read_refused_machines(connection, RefusedMachineFilter(**wanted))


def summary(engine: Engine, **wanted: Any) -> set[tuple[str, str, int]]:
    machines = read(engine, **wanted)
    return {(each.details.developer_id, each.reason, each.count) for each in machines}


def states(engine: Engine) -> dict[str, list[str]]:
    with reading(engine).connect() as connection:
        return {
            state: [
                machine.key.developer_id
                for machine in read_machines(connection, MachineSelection(state=state))
            ]
            for state in (REPORTING, QUIET, RETIRED)
        }


def test_refusals_of_a_machine_are_one_row_for_each_reason(engine: Engine) -> None:
    fleet, other = (create(engine, SECRET, name, "token") for name in ("fleet", "other"))
    counts = ReportCounts()
    before = now_us()
    for details in (ANN, BOB, ANN):
        counts.refused(fleet, "date", details)
    counts.refused(fleet, "size", RefusalDetails(address="192.0.2.1", message="too large"))
    counts.flush(engine)
    moved = ANN._replace(address="192.0.2.9", user_agent="collector/2", message="date: no day")
    counts.refused(fleet, "date", moved)
    counts.refused(other, "date", ANN)
    counts.refused(999, "date", ANN)  # a connection that was deleted
    counts.flush(engine)

    assert summary(engine, connection_id=fleet) == {
        ("ann", "date", 3),
        ("bob", "date", 1),
        ("", "size", 1),
    }
    assert summary(engine, connection_id=other) == {("ann", "date", 1)}
    assert summary(engine) == summary(engine, connection_id=fleet) | {("ann", "date", 1)}
    [newest] = [each for each in read(engine, connection_id=fleet) if each.details == moved]
    assert before <= newest.first_us < newest.last_us <= now_us()


def test_strangers_do_not_displace_machines_and_rows_are_bounded(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_machines, "MAX_MACHINES", 3)
    monkeypatch.setattr(refused_machines, "MAX_STRANGERS", 2)
    fleet = create(engine, SECRET, "fleet", "token")
    counts = ReportCounts()
    counts.refused(fleet, "date", ANN)
    counts.flush(engine)
    for number in range(10):
        counts.refused(fleet, "token", RefusalDetails(address=f"192.0.2.{number}"))
    counts.flush(engine)

    # In one flush, those beyond the bound count without an address.
    assert len(read(engine)) == 1 + 2
    assert summary(engine, with_token=True) == {("ann", "date", 1)}
    for developer in "bcd":
        counts.refused(fleet, "date", ANN._replace(developer_id=developer))
        counts.flush(engine)
    assert {name for name, *_ in summary(engine, with_token=True)} == {"b", "c", "d"}


def test_rows_are_deleted_after_two_weeks_also_without_a_refusal(engine: Engine) -> None:
    fleet = create(engine, SECRET, "fleet", "token")
    counts = ReportCounts()
    counts.refused(fleet, "date", ANN)
    counts.refused(fleet, "date", BOB)
    counts.flush(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE {REFUSED_MACHINE_TABLE} SET last_us = {now_us() - 14 * DAY_US}"
            " WHERE developer_id = 'ann'"
        )

    ReportCounts().flush(engine)

    assert summary(engine) == {("bob", "date", 1)}


def test_refusals_of_erased_and_blocked_people_are_counted_without_them(engine: Engine) -> None:
    fleet = create(engine, SECRET, "fleet", "token")
    key = TombstoneKey(SECRET)
    erased = TombstoneCache(engine, key)
    counts = ReportCounts(erased)
    counts.refused(fleet, "date", ANN)
    with engine.begin() as connection:
        stone = Tombstone(fleet, key.developer("ann"), now_us(), False)
        write_tombstones(connection, [stone, Tombstone(fleet, key.developer("bob"), 0, True)])
    erased.reload()
    counts.refused(fleet, "date", BOB)
    counts.flush(engine)
    assert summary(engine) == {("", "date", 2)}

    counts.refused(fleet, "date", ANN)
    counts.flush(engine)
    assert summary(engine) == {("", "date", 2), ("ann", "date", 1)}


def test_a_machine_is_retired_restored_and_restored_by_a_report(engine: Engine) -> None:
    ages = {"ann": 1.0, "bob": 8 * 24.0, "cid": 40 * 24.0, "dan": 40 * 24.0}
    add_machines(engine, [(name, "laptop", age) for name, age in ages.items()])
    assert states(engine)[QUIET] == ["bob", "cid", "dan"]

    assert retire_silent_machines(engine, 30) == 2
    assert retire_silent_machines(engine, 30) == 0
    bob, cid = MachineKey(1, "bob", "laptop"), MachineKey(1, "cid", "laptop")
    assert retire_machines(engine, [bob, cid]) == 1
    assert states(engine) == {REPORTING: ["ann"], QUIET: [], RETIRED: ["bob", "cid", "dan"]}
    assert restore_machines(engine, [bob, cid]) == 2
    assert restore_machines(engine, [bob]) == 0
    assert states(engine) == {REPORTING: ["ann"], QUIET: ["bob", "cid"], RETIRED: ["dan"]}

    retire_machines(engine, [bob])
    old, new = (arrival(developer=name, hostname="laptop") for name in ("bob", "dan"))
    old = old._replace(arrived_us=now_us() - DAY_US)
    new = new._replace(arrived_us=now_us())
    store(engine, [old, new], {1: OVERWRITE})
    count_machines(engine, None)
    # The report of an archive is older than the retirement.
    assert states(engine)[RETIRED] == ["bob"]
    assert states(engine)[REPORTING] == ["dan", "ann"]


def test_an_erasure_deletes_the_refused_machines_of_a_person(engine: Engine) -> None:
    fleet = create(engine, SECRET, "fleet", "token")
    counts = ReportCounts()
    for details in (ANN, BOB):
        counts.refused(fleet, "date", details)
    counts.flush(engine)
    search = PersonSearch(engine, SECRET, "ann")
    people = search.people()
    assert people == [Person(fleet, "ann")]

    outcome = erase(engine, TombstoneKey(SECRET), search, people, block=False)

    assert outcome.removed[REFUSED_MACHINE_TABLE] == 1
    assert summary(engine) == {("bob", "date", 1)}
