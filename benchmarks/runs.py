"""Measure how fast a run rewrites what is stored, and how fast each verb starts.

python -m benchmarks.runs --databases mariadb --rows 100000

DEVLAKE_PYTHON names a Python that has DevLake's own SDK; without it, it is compared with ours.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

from benchmarks.concurrent_pushes import (
    CONNECTIONS,
    SECONDS,
    ConcurrentPushes,
    measure_concurrent_pushes,
)
from benchmarks.databases import NAMES, Fresh, database, describe
from benchmarks.load import ROOT
from benchmarks.page import PAGE, put, table
from benchmarks.subtasks import (
    CONFIG,
    FLEET,
    MOST,
    NEW,
    OURS,
    PART,
    ROUNDS,
    SCOPE,
    Run,
    call,
    context,
    full,
    incremental,
    row_by_row,
)
from tests.support.servers import ServerMissing

DATABASES = ("mariadb", "postgresql")
ROWS = (100_000, 1_000_000)
REPEATS = 9
TITLE = "Blueprint runs"


class Figures(NamedTuple):
    """The measurements on one database."""

    described: str
    full: Sequence[Run]
    row_by_row: Sequence[Run]
    rows: int
    incremental: Sequence[Run]
    pushes: ConcurrentPushes


def run_database(fresh: Fresh, sizes: Sequence[int], python: Path, seconds: float) -> Figures:
    """Measure full runs of all sizes, one of unique keys, an incremental and a disturbed one."""
    smallest, largest = min(sizes), max(sizes)
    theirs = row_by_row(fresh, min(MOST, max(2, smallest // PART)), python)
    _, runs = full(fresh, smallest, item=1)
    for rows in sorted(sizes):
        url, more = full(fresh, rows)
        runs += more
    scheduled = incremental(url, largest)
    return Figures(
        describe(url),
        runs,
        theirs,
        largest,
        scheduled,
        measure_concurrent_pushes(fresh, smallest, seconds),
    )


def start_ups(url: str, repeats: int, devlake: Optional[Path]) -> dict[str, float]:
    """Return the median seconds of `run.sh VERB` for each verb, and of commands for comparison.

    All take turns, so that a slow moment of the machine affects all.
    """
    calls: dict[str, list[Any]] = {
        "plugin-info": [],
        "test-connection": [FLEET],
        "remote-scopes": [FLEET, SCOPE["id"]],
        "make-pipeline": [[[SCOPE, None]], FLEET],
        "collect": [context(url), "reports"],
        "extract": [context(url), "reports"],
        "convert": [context(url), "reports"],
    }
    commands = {
        f"`./run.sh {verb}`": call([*OURS, verb], CONFIG, *documents)
        for verb, documents in calls.items()
    }
    if devlake:
        theirs = [str(devlake), "-m", "developer_telemetry.main", "plugin-info"]
        commands["`plugin-info` on DevLake's own SDK"] = call(theirs, CONFIG)
    commands['`python -c "import sqlmodel"`'] = [sys.executable, "-c", "import sqlmodel"]
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, cwd=ROOT, check=True)
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(item) for name, item in times.items()}


def report(databases: dict[str, Figures], starts: dict[str, float], sdk: str) -> str:
    """Return the section of the page."""
    described = "; ".join(f"{name} {item.described}" for name, item in databases.items())
    return f"""
A full run handles everything: `extract` reads raw rows, of which one or two are of each developer's
day, `convert` reads tool rows. Beside it the same mapping on {sdk}'s own `Extractor` and
`Convertor`, which take row by row, on a part of the same rows, two of each day. Each is a process
from its start to its end. {described}.

{_full_table(databases)}

A scheduled run after {NEW:,} new reports, on raw rows of which all was done before (medians of
{ROUNDS} such runs, one after the other):

{_incremental_table(databases)}

{CONNECTIONS} machines that send without a pause, alone and while everything is extracted again and
again (what is stored is spoilt each time, so that all of it is written):

{_pushes_table(databases)}

How long a call takes that has nothing to do (on an empty SQLite database), median:

{table(("call", "ms"), [(name, f"{item * 1000:.0f}") for name, item in starts.items()])}
"""


def _full_table(databases: dict[str, Figures]) -> str:
    lines = []
    for name, figures in databases.items():
        theirs = {run.what.partition(",")[0]: run for run in figures.row_by_row}
        for run in (*figures.full, *figures.row_by_row):
            times = run.rate / theirs[run.what.partition(",")[0]].rate
            lines.append((f"{name}, {run.what}", *_figures(run), f"{times:.1f}"))
    head = ("database, subtask", "rows", "rows/s", "peak memory MiB", "times row by row")
    return table(head, lines)


def _figures(run: Run) -> tuple[str, str, str]:
    return f"{run.rows:,}", f"{run.rate:,.0f}", f"{run.memory_mib:.0f}"


def _incremental_table(databases: dict[str, Figures]) -> str:
    lines = []
    for name, figures in databases.items():
        seconds = [run.seconds for run in figures.incremental]
        item = [f"{one:.2f}" for one in (*seconds, sum(seconds))]
        lines.append((name, f"{figures.rows:,}", *item))
    return table(
        ("database", "raw rows", "collect s", "extract s", "convert s", "together s"), lines
    )


def _pushes_table(databases: dict[str, Figures]) -> str:
    lines = []
    for name, figures in databases.items():
        item = figures.pushes
        times = [
            f"{one:.0f}"
            for run in (item.alone, item.during_extracts)
            for one in (run.p50_ms, run.p99_ms)
        ]
        failed = sum(run.refused + run.broken for run in (item.alone, item.during_extracts))
        counts = (item.extracts, failed, item.counts, item.missing, item.wrong)
        lines.append((name, *times, *(f"{one:,}" for one in counts)))
    head = (
        *("database", "p50 ms alone", "p99 ms alone", "p50 ms beside", "p99 ms beside", "extracts"),
        *("pushes not acknowledged", "looks for missing rows", "missing", "wrong in the end"),
    )
    return table(head, lines)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Run it all and renew the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--databases", nargs="+", choices=NAMES, default=DATABASES)
    parser.add_argument("--rows", nargs="+", type=int, default=ROWS, help="raw rows of full runs")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="calls of each verb")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="of reports, alone and beside extracts"
    )
    parser.add_argument("--output", type=Path, default=PAGE, help="the page to renew")
    options = parser.parse_args(arguments)
    devlake = os.environ.get("DEVLAKE_PYTHON")
    python = Path(devlake or sys.executable)
    databases: dict[str, Figures] = {}
    for name in options.databases:
        try:
            with database(name) as fresh:
                databases[name] = run_database(fresh, options.rows, python, options.seconds)
        except ServerMissing as error:
            print(f"{name} is left out: {error}")
        else:
            print(f"{name}: {databases[name]}", flush=True)
    with database("sqlite") as fresh:
        starts = start_ups(fresh(), options.repeats, python if devlake else None)
    text = report(databases, starts, "DevLake's SDK" if devlake else "our SDK")
    put(options.output, TITLE, text)
    print(text)


if __name__ == "__main__":
    main()
