"""Measure pushes while everything is extracted again."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.databases import Fresh, count, opened
from benchmarks.fleet import CONNECTION
from benchmarks.load import Outcome, measure
from benchmarks.subtasks import load, run
from developer_telemetry.constants import OVERWRITE, RAW_TABLE, TOOL_TABLE
from developer_telemetry.pipeline.extract import reextract
from developer_telemetry.reports.daily_metrics import KEY_COLUMNS, TOOL_COLUMNS
from tests.support.receivers import TOKEN, Receiver, add_connection

CONNECTIONS = 64
SECONDS = 15.0
PAUSE_SECONDS = 0.05


class ConcurrentPushes(NamedTuple):
    """The outcome of pushing, first alone and then during extracts of everything."""

    alone: Outcome
    during_extracts: Outcome
    extracts: int
    counts: int  # number of counts of the initial rows
    missing: int  # the most rows that a count missed
    wrong: int  # rows that differ from their raw rows in the end


def measure_concurrent_pushes(
    fresh: Fresh, rows: int, seconds: float = SECONDS
) -> ConcurrentPushes:
    """Extract `rows` raw rows, two a day, repeatedly while machines send."""
    url = fresh()
    connection_id = add_connection(url)
    assert connection_id == CONNECTION, "the fleet's rows are of this one"
    with opened(url) as engine:
        load(engine, range(rows), rows // 2)
    run("", rows, url, "extract")
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
        Receiver(url, Path(folder), TELEMETRY_LOG_LEVEL="warning") as receiver,
    ):
        send = (receiver.port, connection_id, TOKEN, CONNECTIONS, seconds / 10, seconds)
        alone = measure(*send)
        with _extracting(url, rows) as tally:
            together = measure(*send)
    extracts, counts, missing = tally
    return ConcurrentPushes(alone, together, extracts, counts, missing, _wrong(url))


@contextmanager
def _extracting(url: str, rows: int) -> Iterator[list[int]]:
    """Extract and count until the end; yield both numbers of rounds and the most missing rows."""
    tally = [0, 0, 0]
    ended = threading.Event()

    def extract() -> None:
        while not (ended.is_set() and tally[0]):
            with opened(url) as engine, engine.begin() as connection:
                # Correct rows would be read without a write.
                connection.exec_driver_sql(
                    f"UPDATE {TOOL_TABLE} SET builds = builds + 1 WHERE _raw_data_id <= {rows}"
                )
            run("", rows, url, "extract")
            tally[0] += 1

    def count_rows() -> None:
        while not (ended.is_set() and tally[1]):
            tally[2] = max(tally[2], rows // 2 - count(url, TOOL_TABLE))
            tally[1] += 1
            ended.wait(PAUSE_SECONDS)

    with ThreadPoolExecutor(2) as threads:
        working = [threads.submit(extract), threads.submit(count_rows)]
        try:
            yield tally
        finally:
            ended.set()
        for item in working:
            item.result()


def _wrong(url: str) -> int:
    """Return the number of tool rows that differ from an extract into an empty tool layer."""
    with opened(url) as engine:

        def stored() -> set[tuple[Any, ...]]:
            with engine.connect() as connection:
                query = f"SELECT {', '.join(TOOL_COLUMNS)} FROM {TOOL_TABLE}"
                return {tuple(row) for row in connection.exec_driver_sql(query)}

        before = stored()
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DELETE FROM {TOOL_TABLE}")
        for _ in reextract(engine, CONNECTION, OVERWRITE):
            pass
        days = f"(SELECT DISTINCT {', '.join(KEY_COLUMNS)} FROM {RAW_TABLE}) days"
        return len(before ^ stored()) + abs(len(before) - count(url, days))
