"""One machine under several names is one, two machines are two, in sums and in statistics."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.connections.registry import create
from developer_telemetry.constants import DAY_US, MACHINE_TABLE, OVERWRITE, RAW_TABLE, SUM
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import now_us
from developer_telemetry.database.migrations import SCRIPTS, SQLITE_STATEMENTS
from developer_telemetry.database.schema_versions import JOIN_MACHINES
from developer_telemetry.diagnostics.connection_status import connection_statuses
from developer_telemetry.reports.daily_metrics import format_timestamp
from developer_telemetry.reports.hosts import group_machines, machine_name
from developer_telemetry.storage.statistics import count_machines, machine_name_sql
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.layers import expected, rewritten
from tests.support.receivers import SECRET
from tests.support.rows import tool_row_of, tool_rows
from tests.support.schemas import fetch, operations_for

NAMES = {
    "": "",
    "anns-mac": "anns-mac",
    "Anns-Mac": "anns-mac",
    "ANNS-MAC.LOCAL": "anns-mac",
    "anns-mac.local.": "anns-mac",
    "anns-mac..": "anns-mac",
    "anns-mac.lan": "anns-mac",
    "anns-mac.home.arpa": "anns-mac",
    "localhost.localdomain": "localhost",
    "Anns-Mac.corp.example": "anns-mac.corp.example",
    "anns-mac.local.lan": "anns-mac.local",
    ".local": ".local",
    "local": "local",
    "build-2": "build-2",
    "ÉTÉ": "ÉtÉ",
    "50%_off's.local": "50%_off's",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_has_no_capitals_and_no_local_end(name: str) -> None:
    assert machine_name(name) == NAMES[name]


def test_databases_name_machines_alike(engine: Engine) -> None:
    names = [name for name in NAMES if name.isascii()]
    store(engine, [arrival(hostname=name) for name in names], {1: OVERWRITE})
    machine = machine_name_sql(dialect_of(engine), "hostname")

    found = fetch(engine, f"SELECT hostname, {machine} FROM {RAW_TABLE}")

    assert dict(found) == {name: NAMES[name] for name in names}


ONE_MACHINE = {
    "capitals": ["Anns-Mac", "anns-mac", "ANNS-MAC"],
    "a dot at the end": ["anns-mac.corp.example", "anns-mac.corp.example."],
    "local ends": ["anns-mac.local", "anns-mac", "anns-mac.lan", "Anns-Mac.home"],
    "a domain": ["anns-mac", "anns-mac.corp.example", "Anns-Mac.local"],
}
SEVERAL_MACHINES = {
    "numbers": ["build-1", "build-2", "build", "build-1.local", "build-3.local", "build-4.local"],
    "domains": ["dev.a.example", "dev.b.example", "dev"],
    "nothing and something": ["", "local", "mac"],
    "what only starts alike": ["mac", "mac1", "mac-pro", "macs.local"],
}


@pytest.mark.parametrize("case", ONE_MACHINE)
def test_names_of_one_machine_are_one(case: str) -> None:
    assert len(set(group_machines(ONE_MACHINE[case]).values())) == 1


@pytest.mark.parametrize("case", SEVERAL_MACHINES)
def test_names_of_several_machines_are_several(case: str) -> None:
    machines = set(map(machine_name, SEVERAL_MACHINES[case]))
    assert set(group_machines(SEVERAL_MACHINES[case]).values()) == machines


def summed(engine: Engine, reports: list[dict[str, Any]]) -> dict[str, Any]:
    """The day's row under `sum`, the same when pushed and when extracted again."""
    arrivals = [arrival(after=number, **each) for number, each in enumerate(reports)]
    for each in arrivals:
        store(engine, [each], {1: SUM})
    pushed = tool_rows(engine)
    assert pushed == expected(engine, arrivals, {1: SUM})
    assert rewritten(engine, {1: SUM}) == pushed
    return tool_row_of(engine)


@pytest.mark.parametrize("case", ONE_MACHINE)
def test_one_machine_counts_once_under_sum(engine: Engine, case: str) -> None:
    names = ONE_MACHINE[case]
    reports = [
        {"hostname": name, "active_hours": hours, "tools_used": [str(hours)]}
        for hours, name in enumerate([*names, "tower"], 1)
    ]

    row = summed(engine, reports)

    assert row["active_hours"] == len(names) + len(reports)
    assert row["tools_used"] == f'["{len(names)}","{len(reports)}"]'


@pytest.mark.parametrize("case", SEVERAL_MACHINES)
def test_several_machines_are_added_up(engine: Engine, case: str) -> None:
    names = SEVERAL_MACHINES[case]

    row = summed(engine, [{"hostname": name, "active_hours": 1} for name in names])

    assert row["active_hours"] == len(set(map(machine_name, names)))


EARLY = {
    "active_hours": 2,
    "tools_used": ["git"],
    "commands": {"git": 3},
    "git_activity": {"repositories": [{"name": "web", "commits": 1}], "total_commits": 1},
}
LATE = {
    "active_hours": 5,
    "tools_used": ["git", "make"],
    "commands": {"git": 9, "make": 1},
    "git_activity": {
        "repositories": [{"name": "web", "commits": 1}, {"name": "api", "commits": 2}],
        "total_commits": 3,
    },
}
OTHER = {**LATE, "commands": {"make": 1}}  # less git than `EARLY`


@pytest.mark.parametrize(
    ("sent", "hours"),
    [
        ([("anns-mac.local", EARLY), ("Anns-Mac-2.local", LATE)], 5),
        ([("anns-mac-2.local", EARLY), ("anns-mac.local", LATE)], 5),
        ([("anns-mac", EARLY), ("anns-mac-17.local", LATE)], 5),
        ([("anns-mac.local", EARLY), ("anns-mac-2.local", OTHER)], 7),
        ([("anns-mac.local", LATE), ("anns-mac-2.local", EARLY)], 7),
        ([("anns-mac", EARLY), ("anns-mac-2", LATE)], 7),
        ([("anns-mac.corp.example", EARLY), ("anns-mac-2.corp.example", LATE)], 7),
        ([("build-2.local", EARLY), ("build-3.local", LATE)], 7),
        ([("build.local", EARLY), ("build-1.local", LATE)], 7),
        ([("mac.local", {"active_hours": 2}), ("mac-2.local", LATE)], 7),
        ([("tower.local", EARLY), ("anns-mac-2.local", LATE)], 7),
    ],
    ids=lambda value: " ".join(name for name, _ in value) if isinstance(value, list) else "",
)
def test_what_bonjour_renamed_counts_once_if_its_report_goes_on(
    engine: Engine, sent: list[tuple[str, dict[str, Any]]], hours: int
) -> None:
    row = summed(engine, [{"hostname": name, **fields} for name, fields in sent])

    assert row["active_hours"] == hours


def test_statistics_know_one_machine_by_one_name(engine: Engine) -> None:
    connection = create(engine, SECRET, "fleet", "token")
    now = now_us()
    names = ["Anns-Mac.local", "anns-mac", "ANNS-MAC.local.", "anns-mac-2.local"]
    for days, name in zip((30, 20, 0, 0), names):
        sent = arrival(connection_id=connection, hostname=name)
        store(engine, [sent._replace(arrived_us=now - days * DAY_US)], {connection: SUM})
        if days == 20:
            [uncounted] = connection_statuses(engine)
            count_machines(engine, None)
            assert connection_statuses(engine) == [uncounted]
    for _ in range(2):
        [status] = connection_statuses(engine)
        assert (status.machines, status.reports, status.quiet) == (2, 4, ())
        count_machines(engine, None)
    found = fetch(engine, f"SELECT hostname, reports FROM {MACHINE_TABLE} ORDER BY hostname")
    assert found == [("anns-mac", 3), ("anns-mac-2", 1)]


def test_a_day_to_come_makes_no_machine_look_fresh(engine: Engine) -> None:
    connection = create(engine, SECRET, "fleet", "token")
    before = format_timestamp(now_us() - 60_000_000)
    archived = arrival(connection_id=connection, hostname="desk", date="2999-01-01")
    ahead = arrival(connection_id=connection, hostname="desk")
    store(engine, [archived._replace(arrived_us=0)], {connection: OVERWRITE})
    store(engine, [ahead._replace(arrived_us=now_us() + 90 * DAY_US)], {connection: OVERWRITE})

    for _ in range(2):
        [status] = connection_statuses(engine)
        assert before < status.newest <= format_timestamp(now_us() + 60_000_000)
        count_machines(engine, None)


def test_machines_counted_under_several_names_are_joined(engine: Engine) -> None:
    rows = [
        ("ann", "Anns-Mac.local", "2026-01-01", "2026-02-01", 5, 7),
        ("ann", "anns-mac", "2026-01-05", "2026-03-01", 6, 9),
        ("ann", "ANNS-MAC.lan", "2026-01-02", "2999-01-01", 1, 8),
        ("ann", "Tower", "2026-01-03", "2026-01-04", 2, 3),
        ("bob", "anns-mac.local", "2026-01-03", "2026-01-04", 4, 4),
    ]
    for developer, host, first, last, reports, raw_id in rows:
        fetch(
            engine,
            f"INSERT INTO {MACHINE_TABLE} (connection_id, developer_id, hostname, first_seen,"
            f" last_seen, reports, _raw_data_id) VALUES (1, '{developer}', '{host}', '{first}',"
            f" '{last}', {reports}, {raw_id})",
        )
    if engine.dialect.name == "sqlite":
        statements = SQLITE_STATEMENTS[JOIN_MACHINES]
    else:
        name = dialect_of(engine).name
        scripts = [script for script in SCRIPTS if script.version == JOIN_MACHINES]
        statements = [operation.sql for operation in operations_for(name, scripts)]

    # A run may end after any of the statements, and begins anew.
    for end in (2, 3, 4, 4):
        for statement in statements[:end]:
            fetch(engine, statement)

    found = fetch(
        engine,
        f"SELECT developer_id, hostname, reports, _raw_data_id, _raw_data_remark FROM"
        f" {MACHINE_TABLE} ORDER BY developer_id, hostname",
    )
    assert found == [
        ("ann", "anns-mac", 12, 9, None),
        ("ann", "tower", 2, 3, None),
        ("bob", "anns-mac", 4, 4, None),
    ]
    [(first, last)] = fetch(
        engine,
        f"SELECT MIN(first_seen), MAX(last_seen) FROM {MACHINE_TABLE}"
        " WHERE developer_id = 'ann' AND hostname = 'anns-mac'",
    )
    assert str(first)[:10] == "2026-01-01"
    assert str(last)[:19] <= format_timestamp(now_us() + 60_000_000)
