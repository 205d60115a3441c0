"""Fleets of any size, inserted into the tables that the page reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, timedelta

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import (
    MACHINE_TABLE,
    REFUSAL_TABLE,
    REFUSED_MACHINE_TABLE,
    TOOL_TABLE,
)
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.database.engine import now_us, transact
from developer_telemetry.reports.daily_metrics import build_raw_params, format_timestamp

HOUR_US = 3_600_000_000
MACHINE_COLUMNS = (
    "connection_id",
    "developer_id",
    "hostname",
    "first_seen",
    "last_seen",
    "reports",
    "user_agent",
    "_raw_data_params",
)
REFUSED_COLUMNS = (
    *("id", "connection_id", "developer_id", "hostname", "address", "user_agent", "reason"),
    *("message", "first_us", "last_us", "count"),
)
DAY_COLUMNS = ("connection_id", "developer_id", "date", "active_hours", "tools_used")


def add_machines(
    engine: Engine,
    machines: Sequence[tuple[str, str, float]],
    connection_id: int = 1,
    user_agent: str = "",
) -> None:
    """Machines as (developer, host, hours since they were last heard from); each sent 7 reports."""
    now = now_us()
    rows = [
        (
            connection_id,
            developer,
            host,
            format_timestamp(now - 10_000 * HOUR_US),
            format_timestamp(now - round(hours * HOUR_US)),
            7,
            user_agent,
            build_raw_params(connection_id),
        )
        for developer, host, hours in machines
    ]
    _add(engine, MACHINE_TABLE, MACHINE_COLUMNS, rows)


def add_days(
    engine: Engine,
    days: Sequence[tuple[str, date, int, Sequence[str]]],
    connection_id: int = 1,
) -> None:
    """Days of work as (developer, day, active hours, tools)."""
    rows = [
        (connection_id, developer, day.isoformat(), hours, json.dumps(sorted(tools)))
        for developer, day, hours, tools in days
    ]
    _add(engine, TOOL_TABLE, DAY_COLUMNS, rows)


def add_refusals(
    engine: Engine, refusals: Sequence[tuple[date, str, int]], connection_id: int = 1
) -> None:
    """Refusals as (day, reason, count)."""
    rows = [(connection_id, day.isoformat(), reason, count) for day, reason, count in refusals]
    _add(engine, REFUSAL_TABLE, ("connection_id", "day", "reason", "count"), rows)


def add_refused_machines(
    engine: Engine, machines: Sequence[tuple[str, str, str, float, int]], connection_id: int = 1
) -> None:
    """Refused machines as (developer, host, reason, hours since the last refusal, refusals)."""
    now = now_us()
    rows = [
        (
            *(f"{connection_id}-{number}", connection_id, developer, host),
            *(f"192.0.2.{number}", "collector/1.0", reason, f"the {reason} of {developer}"),
            *(now - 200 * HOUR_US, now - round(hours * HOUR_US), count),
        )
        for number, (developer, host, reason, hours, count) in enumerate(machines)
    ]
    _add(engine, REFUSED_MACHINE_TABLE, REFUSED_COLUMNS, rows)


def fill(engine: Engine, machines: int, today: date, days: int = 5) -> None:
    """So many machines, one a developer, heard from some hours or weeks ago, with days of work."""
    names = [f"developer.{number:04}" for number in range(machines)]
    ages = [(number % 60) ** 2 / 2 for number in range(machines)]
    add_machines(engine, [(name, f"{name}.local", age) for name, age in zip(names, ages)])
    tools = (["git", "vscode"], ["git", "docker", "goland"], ["git", "vim"])
    worked = [
        (name, today - timedelta(days=back), (number + back) % 11, tools[number % 3])
        for number, name in enumerate(names)
        for back in range(days)
    ]
    add_days(engine, worked)
    add_refusals(engine, [(today, "token", 3), (today - timedelta(days=2), "date", 1)])


def _add(
    engine: Engine, table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]
) -> None:
    def work(connection: SqlConnection) -> None:
        insert(connection, table, columns, rows, "")

    transact(engine, work)
