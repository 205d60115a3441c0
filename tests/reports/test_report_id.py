"""Ids of reports."""

from __future__ import annotations

import os
import uuid

import pytest

from developer_telemetry.reports.report_id import report_id

ARRIVED_US = 1_764_000_000_000_000


def test_an_id_is_a_uuid_of_version_7_with_the_time_of_arrival() -> None:
    made = uuid.UUID(report_id(ARRIVED_US))

    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == ARRIVED_US // 1000


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
def test_a_forked_process_makes_other_ids() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, report_id(ARRIVED_US).encode())
        os._exit(0)
    os.waitpid(child, 0)
    of_child = os.read(reading, 36).decode()
    os.close(reading)
    os.close(writing)

    assert len(of_child) == 36
    assert of_child != report_id(ARRIVED_US)
