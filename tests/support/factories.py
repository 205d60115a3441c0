"""Bodies, arrivals and rows for tests, which set the values that matter to them."""

from __future__ import annotations

import itertools
import json
import uuid
from typing import Any

from developer_telemetry.reports.daily_metrics import ReceivedReport, ToolRow, build_tool_row
from developer_telemetry.reports.parser import parse

DEVELOPER = "ann.lee"
DATE = "2026-11-23"
# 2026-11-23 20:26:40.123456 UTC, which the tables store in milliseconds.
START_US = 1_795_465_600_123_456
SECOND_US = 1_000_000

_numbers = itertools.count(1)


def body(**fields: Any) -> bytes:
    """Return a report's body, pretty-printed as by the collector; fields may have any type."""
    document = {"date": DATE, "developer": DEVELOPER, **fields}
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def arrival(
    sent: bytes | None = None,
    *,
    after: float = 0,
    connection_id: int = 1,
    raw_id: int = 0,
    **fields: Any,
) -> ReceivedReport:
    """Return a report (of `fields`, or the body `sent`), arrived `after` seconds from the start."""
    return ReceivedReport(
        report_id=str(uuid.UUID(int=next(_numbers))),
        connection_id=connection_id,
        arrived_us=START_US + round(after * SECOND_US),
        report=parse(body(**fields) if sent is None else sent),
        raw_id=raw_id,
    )


def row_of(*sent: bytes) -> ToolRow:
    """Return the row of these bodies in order of arrival, with their numbers added."""
    arrivals = [arrival(each, after=n, raw_id=n + 1) for n, each in enumerate(sent)]
    return build_tool_row(arrivals, START_US)
