"""The reports that benchmarks send and store, each of another developer and day."""

from __future__ import annotations

import json
import uuid
from datetime import date, timedelta
from typing import Any

from developer_telemetry.reports.daily_metrics import (
    ReceivedReport,
    ToolRow,
    build_raw_params,
    build_tool_row,
    format_timestamp,
)
from developer_telemetry.reports.parser import parse

# 2026-11-23 20:26:40 UTC, and a report a millisecond from then on.
START_US = 1_795_465_600_000_000
REPORT_US = 1_000
# Both are primes, so that developers are in no order, as in an hourly burst.
DEVELOPERS = 10_007
STRIDE = 7_919
DAYS = 3_000
CONNECTION = 1

_DATES = [(date(2026, 11, 23) - timedelta(days=days)).isoformat() for days in range(DAYS)]
_REPOSITORIES = ("billing", "web-shop", "warehouse-api")


def _template() -> bytes:
    """Return a body as the collector's script sends it, with places for developer and date."""
    count = len(_REPOSITORIES)
    body = {
        "date": "%(date)s",
        "developer": "%(developer)s",
        "hostname": "%(developer)s-laptop.local",
        "email": "%(developer)s@example.com",
        "name": "Ann Lee",
        "metrics": {
            "active_hours": 6,
            "tools_used": ["docker", "git", "go", "goland", "node", "pycharm", "python", "vscode"],
            "projects": _REPOSITORIES,
            "git_activity": {
                "total_commits": 2 * count,
                "total_lines_added": 60 * count,
                "total_lines_deleted": 12 * count,
                "total_files_changed": 4 * count,
                "repositories": [
                    {
                        "name": name,
                        "path": f"/Users/%(developer)s/code/{name}",
                        "commits": 2,
                        "lines_added": 60,
                        "lines_deleted": 12,
                        "files_changed": 4,
                        "branches_worked": ["main", f"fix-{name}"],
                    }
                    for name in _REPOSITORIES
                ],
            },
            "development_activity": {"test_runs_detected": 3, "build_commands_detected": 1},
        },
    }
    return json.dumps(body, indent=2).encode()


_TEMPLATE = _template()


def body(number: int) -> bytes:
    """Return the body of report `number`; all are of one length, and no two of the same key."""
    return _TEMPLATE % {
        b"developer": developer_of(number).encode(),
        b"date": date_of(number).encode(),
    }


def developer_of(number: int) -> str:
    """Return the developer of report `number`."""
    return f"developer-{number * STRIDE % DEVELOPERS:05d}"


def date_of(number: int) -> str:
    """Return the day of report `number`."""
    return _DATES[number // DEVELOPERS]


_MODEL = build_tool_row([ReceivedReport("", CONNECTION, START_US, parse(body(0)))], START_US)


def raw_row(number: int, key: int) -> tuple[Any, ...]:
    """Return the raw row of report `number`, for the developer and day of report `key`."""
    arrived_us = START_US + number * REPORT_US
    return (
        build_raw_params(CONNECTION),
        CONNECTION,
        body(key).decode(),
        format_timestamp(arrived_us),
        str(uuid.UUID(int=number + 1)),
        developer_of(key),
        date_of(key),
        f"{developer_of(key)}-laptop.local",
        arrived_us,
    )


def tool_row_of(number: int) -> ToolRow:
    """Return the tool row of report `number`, made without parsing its body."""
    developer = developer_of(number)
    arrived_us = START_US + number * REPORT_US
    return _MODEL._replace(
        developer_id=developer,
        date=date_of(number),
        email=f"{developer}@example.com",
        hostname=f"{developer}-laptop.local",
        arrived_us=arrived_us,
        created_at=format_timestamp(arrived_us),
        updated_at=format_timestamp(arrived_us),
        raw_data_id=number + 1,
    )
