"""The line of the page about the owner of the schema and the conversions."""

from __future__ import annotations

from developer_telemetry.database.schema_owner import SchemaOwner
from developer_telemetry.diagnostics.conversion_status import (
    ConversionStatus,
    Ownership,
    describe_conversions,
)
from developer_telemetry.storage.conversions import Conversion

OURS = Ownership(SchemaOwner.STANDALONE, "")
OWNER = "the receiver (standalone) applies migrations and converts reports"


def test_without_a_conversion_the_line_tells_so() -> None:
    assert describe_conversions(OURS, []) == f"{OWNER}; no report was converted so far"


def test_the_newest_conversion_is_shown_and_all_that_is_wrong() -> None:
    old = Conversion(1, 0, 1_000_000, 5, 0, 2, "no space left")
    new = Conversion(2, 0, 2_000_000, 7, 1, 3, "")
    statuses = [
        ConversionStatus(1, "fleet", old, True),
        ConversionStatus(2, "other", new, False),
    ]

    line = describe_conversions(OURS, statuses)

    assert "connection 2 (other): last converted at 1970-01-01 00:00:02" in line
    assert "wrote 7 accounts, 1 tasks, 3 links; failed for fleet; overdue for fleet: " in line


def test_a_line_names_five_connections_at_most() -> None:
    statuses = [ConversionStatus(number, f"c{number}", None, True) for number in range(7)]

    assert "overdue for c0, c1, c2, c3, c4 and 2 more: " in describe_conversions(OURS, statuses)
