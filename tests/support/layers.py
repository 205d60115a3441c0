"""Fill the raw and the tool layer, and compute the expected tool layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from random import Random

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.constants import OVERWRITE, SUM, TOOL_TABLE
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.pipeline.extract import reextract
from developer_telemetry.reports.daily_metrics import TOOL_COLUMNS, ReceivedReport, build_tool_row
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.rows import Row, raw_rows, tool_rows
from tests.support.threads import run_simultaneously

STRATEGIES = {1: OVERWRITE, 2: SUM}
BOTH = pytest.mark.parametrize("strategy", [OVERWRITE, SUM])


def rewritten(engine: Engine, strategies: dict[int, str] = STRATEGIES) -> list[Row]:
    """Extract all rows of each connection; return the tool rows."""
    for connection_id, strategy in strategies.items():
        for _ in reextract(engine, connection_id, strategy):
            pass
    return tool_rows(engine)


def expected(
    engine: Engine, arrivals: Iterable[ReceivedReport], strategies: dict[int, str] = STRATEGIES
) -> list[Row]:
    """Return the tool rows expected from these arrivals, computed without SQL."""
    ids = {row["report_id"]: row["id"] for row in raw_rows(engine)}
    days: dict[tuple[int, str, str], list[ReceivedReport]] = {}
    for each in arrivals:
        days.setdefault(each.key, []).append(each._replace(raw_id=ids[each.report_id]))
    result = []
    for key, day in sorted(days.items()):
        day.sort(key=lambda each: (each.arrived_us, each.raw_id))
        newest = {each.report.hostname: each for each in day}
        counted = list(newest.values()) if strategies[key[0]] == SUM else day[-1:]
        result.append(dict(zip(TOOL_COLUMNS, build_tool_row(counted, day[0].arrived_us))))
    return result


def traffic(seed: int, count: int) -> list[ReceivedReport]:
    """Return reports of two connections, few developers, days and hosts: many for the same row."""
    random = Random(seed)
    return [
        arrival(
            connection_id=random.choice([1, 2]),
            after=random.choice([0, 1, random.uniform(0, 3600)]),
            developer=random.choice(["ann.lee", "Ann.Lee", "zoë", "DESKTOP-7\\bob"]),
            date=random.choice(["2026-11-22", "2026-11-23"]),
            hostname=random.choice(["laptop", "Laptop", "tower", ""]),
            email=random.choice(["", "a@example.com", "b@example.com"]),
            name=random.choice(["", "Ann", "Zoë 🐙"]),
            metrics={
                "active_hours": random.choice([-1, 0, 3.5, 8, 30]),
                "tools_used": random.sample(["git", "vim", "go", "é"], random.randint(0, 4)),
                "projects": random.sample(["billing", "web-shop"], random.randint(0, 2)),
                "commands": {"git": random.randint(0, 9), "make": random.uniform(0, 2)},
                "git_activity": random.choice(
                    [
                        None,
                        {"total_commits": random.randint(0, 9)},
                        {"repositories": [{"name": "billing", "lines_added": 0.1}]},
                    ]
                ),
                "development_activity": {"test_runs_detected": random.randint(0, 9)},
            },
        )
        for _ in range(count)
    ]


def push_in_batches(engine: Engine, arrivals: Iterable[ReceivedReport], random: Random) -> None:
    waiting = iter(arrivals)
    while batch := list(islice(waiting, random.randint(1, 12))):
        store(engine, batch, STRATEGIES)


def senders(
    engines: Sequence[Engine], batches: Sequence[Sequence[ReceivedReport]], strategy: str
) -> None:
    """Store each batch from a thread of its own, through one of the engines."""
    run_simultaneously(
        [
            partial(store, engines[n % len(engines)], batch, {1: strategy})
            for n, batch in enumerate(batches)
        ]
    )


def insert_go_plugin_row(engine: Engine, developer: str = "ann.lee") -> None:
    """Insert a tool row as the Go plugin did: without an arrival and a raw row."""
    values = {
        "connection_id": 1,
        "developer_id": developer,
        "date": "2026-11-23",
        "email": "ann@example.com",
        "name": "Ann",
        "hostname": "tower",
        "active_hours": 6,
        "tools_used": '["vim"]',
        "os_info": None,
        "commits": 3,
        "created_at": "2025-01-01 00:00:00.000",
        "updated_at": "2027-01-01 00:00:00.000",
    }
    with engine.begin() as connection:
        insert(connection, TOOL_TABLE, list(values), [tuple(values.values())], "")
