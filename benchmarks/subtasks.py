"""The subtasks of a blueprint's run on one database: full, row by row, and after a few reports."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy.engine import Engine

from benchmarks import sample
from benchmarks.databases import Fresh, count, opened
from benchmarks.fleet import CONNECTION, DEVELOPERS, body, raw_row
from benchmarks.load import ROOT
from benchmarks.processes import peak_memory_mib
from developer_telemetry.constants import ACCOUNT_TABLE, RAW_TABLE, SCOPE_ID, TOOL_TABLE
from developer_telemetry.database.bulk_insert import MAX_ROWS, insert
from developer_telemetry.storage.writer import RAW_COLUMNS
from tests.support.plugin_folder import plugin_folder

CONFIG: dict[str, Any] = {"log_level": "error"}
FLEET: dict[str, Any] = {"id": CONNECTION, "name": "fleet", "endpoint": ""}
SCOPE: dict[str, Any] = {"id": SCOPE_ID, "connectionId": CONNECTION, "name": "All reports"}
OURS = (str(plugin_folder() / "run.sh"),)

NEW = 1_000
ROUNDS = 5  # odd, so that one of them is the median
# Row by row is slow, and its rate doesn't depend on the number of rows.
PART, MOST = 5, 20_000

# Long ago, so that no run treats these rows as part of an open transaction.
_STORED_AT = "2026-01-01 00:00:00.000"
_INSERTS = 10  # statements in a transaction

# The parts of DevLake's tables that define a run as scheduled.
_SCHEDULED = (
    "CREATE TABLE _devlake_pipelines (id BIGINT, skip_collectors SMALLINT, full_sync SMALLINT)",
    "CREATE TABLE _devlake_tasks (pipeline_id BIGINT, plugin VARCHAR(99), status VARCHAR(99))",
    "INSERT INTO _devlake_pipelines VALUES (1, 0, 0)",
    "INSERT INTO _devlake_tasks VALUES (1, 'developer_telemetry', 'TASK_RUNNING')",
)


class Run(NamedTuple):
    """One process, from its start to its end."""

    what: str
    rows: int
    seconds: float
    memory_mib: float

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


def context(url: str) -> dict[str, Any]:
    """Return what DevLake's server passes to a subtask."""
    return {"db_url": url, "connection": FLEET, "scope": SCOPE, "scope_config": None}


def call(command: Sequence[str], *documents: Any) -> list[str]:
    """Return the command of a call of the plugin that discards its answers."""
    arguments = [*command, *map(json.dumps, documents)]
    return ["sh", "-c", 'exec "$@" 3>/dev/null', "sh", *arguments]


def run(
    what: str,
    rows: int,
    url: str,
    verb: str,
    command: Sequence[str] = OURS,
    stream: str = "reports",
) -> Run:
    """Run a verb, which handles `rows` rows, as DevLake's server does."""
    started = time.perf_counter()
    process = subprocess.Popen(call([*command, verb], CONFIG, context(url), stream), cwd=ROOT)
    memory = 0.0
    while process.poll() is None:
        with suppress(ProcessLookupError):
            memory = max(memory, peak_memory_mib(process.pid))
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, f"{command} {verb}")
    return Run(what, rows, seconds, memory)


def full(fresh: Fresh, rows: int, item: int = 2) -> tuple[str, list[Run]]:
    """Measure full runs of raw rows, `item` of each key; return the database's URL, too."""
    url, keys = fresh(), rows // item
    with opened(url) as engine:
        load(engine, range(rows), keys)
    runs = [
        run(f"extract, {item} a day, no row there", rows, url, "extract"),
        run(f"extract, {item} a day, every row there", rows, url, "extract"),
        run(f"convert, {item} a day", keys, url, "convert"),
    ]
    _check(url, TOOL_TABLE, keys)
    _check(url, ACCOUNT_TABLE, min(keys, DEVELOPERS))
    return url, runs


def row_by_row(fresh: Fresh, rows: int, python: Path) -> list[Run]:
    """Measure the same mapping on the subtasks of the SDK of `python`, with two raw rows a key."""
    url, keys = fresh(), rows // 2
    with opened(url) as engine:
        sample.seed(engine, CONNECTION, (body(number % keys).decode() for number in range(rows)))
    command = (str(python), "-m", "benchmarks.sample")
    runs = [
        run("extract, row by row", rows, url, "extract", command, "rows"),
        run("convert, row by row", keys, url, "convert", command, "rows"),
    ]
    _check(url, TOOL_TABLE, keys)
    _check(url, ACCOUNT_TABLE, keys)
    return runs


def incremental(url: str, rows: int) -> list[Run]:
    """Measure scheduled runs after `NEW` reports, beside `rows` raw rows that are done.

    Returns:
        The median run of each subtask.
    """
    with opened(url) as engine, engine.begin() as connection:
        for statement in _SCHEDULED:
            connection.exec_driver_sql(statement)
    rounds = [_scheduled(url, first) for first in range(rows, rows + ROUNDS * NEW, NEW)]
    by_subtask = [sorted(runs, key=lambda one: one.seconds) for runs in zip(*rounds)]
    return [runs[ROUNDS // 2] for runs in by_subtask]


def _scheduled(url: str, first: int) -> list[Run]:
    with opened(url) as engine:
        load(engine, range(first, first + NEW), first + NEW)
    before = count(url, TOOL_TABLE)
    verbs = ("collect", "extract", "convert")
    runs = [run(f"{verb}, {NEW:,} new", NEW, url, verb) for verb in verbs]
    _check(url, TOOL_TABLE, before + NEW)
    return runs


def load(engine: Engine, numbers: range, keys: int) -> None:
    """Store the fleet's raw rows of these numbers, with about `keys` keys."""
    columns = (*RAW_COLUMNS, "stored_at")
    step = MAX_ROWS * _INSERTS
    for first in range(numbers.start, numbers.stop, step):
        part = range(first, min(first + step, numbers.stop))
        values = [(*raw_row(number, number % keys), _STORED_AT) for number in part]
        with engine.begin() as connection:
            insert(connection, RAW_TABLE, columns, values, "")


def _check(url: str, table: str, expected: int) -> None:
    results = count(url, table)
    assert results == expected, f"{table} has {results} rows, not {expected}"
