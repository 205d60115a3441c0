"""How fast a full run rewrites what is stored, and how fast each verb starts.

python -m benchmarks.runs --databases mariadb --rows 1000000
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Optional

from benchmarks import sample
from benchmarks.databases import NAMES, Fresh, count, database, describe, opened
from benchmarks.fleet import CONNECTION, DEVELOPERS, body, raw_row
from benchmarks.load import ROOT
from benchmarks.page import PAGE, put, table
from benchmarks.processes import peak_memory_mib
from developer_telemetry.accounts import ACCOUNT_TABLE
from developer_telemetry.dialects import MAX_ROWS, insert
from developer_telemetry.merging import RAW_TABLE, SCOPE_ID
from developer_telemetry.storage import RAW_COLUMNS, TOOL_TABLE
from tests.servers import ServerMissing

DATABASES = ("mariadb", "postgresql")
ROWS = 100_000
REPEATS = 5
TITLE = "Blueprint runs"
# Row by row takes long, and its rate doesn't depend on how many there are.
SAMPLE_PART, SAMPLE_MOST = 10, 20_000

_CONFIG: dict[str, Any] = {"log_level": "error"}
_CONNECTION: dict[str, Any] = {"id": CONNECTION, "name": "fleet", "endpoint": ""}
_SCOPE: dict[str, Any] = {"id": SCOPE_ID, "connectionId": CONNECTION, "name": "All reports"}

_PYTHON = ROOT / ".venv" / "bin" / "python"  # what run.sh takes


class Run(NamedTuple):
    """One process, from its start to its end."""

    rows: int
    seconds: float
    memory_mib: float

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


class Step(NamedTuple):
    """One verb on one database, by us and by the SDK's own subtask."""

    verb: str
    ours: Run
    theirs: Run


def context(url: str) -> dict[str, Any]:
    """What DevLake's server passes to a subtask."""
    return {"db_url": url, "connection": _CONNECTION, "scope": _SCOPE, "scope_config": None}


def run_module(module: str, rows: int, verb: str, url: str, stream: str) -> Run:
    """Run a plugin's verb as a process, as run.sh does; it handles `rows` rows."""
    documents = [json.dumps(each) for each in (_CONFIG, context(url), stream)]
    started = time.perf_counter()
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$@" 3>/dev/null', "sh", sys.executable, "-m", module, verb, *documents],
        cwd=ROOT,
    )
    memory = 0.0
    while process.poll() is None:
        with suppress(ProcessLookupError):
            memory = max(memory, peak_memory_mib(process.pid))
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, f"{module} {verb}")
    return Run(rows, seconds, memory)


def run_database(fresh: Fresh, rows: int) -> list[Step]:
    """Extract and convert `rows` raw rows, two of each key; and a part of them row by row."""
    keys = rows // 2
    part = min(SAMPLE_MOST, max(2, rows // SAMPLE_PART))
    ours, theirs = fresh(), fresh()
    with opened(ours) as engine:
        for first in range(0, rows, MAX_ROWS):
            numbers = range(first, min(first + MAX_ROWS, rows))
            values = [raw_row(number, number % keys) for number in numbers]
            with engine.begin() as connection:
                insert(connection, RAW_TABLE, RAW_COLUMNS, values, "")
    with opened(theirs) as engine:
        bodies = [body(number % (part // 2)).decode() for number in range(part)]
        sample.seed(engine, CONNECTION, bodies)
    steps: list[Step] = []
    for verb, ours_in, theirs_in in (("extract", rows, part), ("convert", keys, part // 2)):
        step = Step(
            verb,
            run_module("developer_telemetry.main", ours_in, verb, ours, "reports"),
            run_module("benchmarks.sample", theirs_in, verb, theirs, "rows"),
        )
        steps.append(step)
    for url, name, expected in (
        (ours, TOOL_TABLE, keys),
        (theirs, TOOL_TABLE, part // 2),
        (ours, ACCOUNT_TABLE, min(keys, DEVELOPERS)),
        (theirs, ACCOUNT_TABLE, part // 2),
    ):
        assert count(url, name) == expected, f"{name} has {count(url, name)}, not {expected} rows"
    return steps


def start_ups(url: str, repeats: int) -> dict[str, float]:
    """Median seconds of `run.sh VERB` for each verb, and of merely importing sqlmodel.

    All of them take turns, so that a slow moment of the machine hits them alike.
    """
    calls: dict[str, list[Any]] = {
        "plugin-info": [],
        "test-connection": [_CONNECTION],
        "remote-scopes": [_CONNECTION, SCOPE_ID],
        "make-pipeline": [[[_SCOPE, None]], _CONNECTION],
        "collect": [context(url), "reports"],
        "extract": [context(url), "reports"],
        "convert": [context(url), "reports"],
    }
    commands = {
        f"./run.sh {verb}": ["./run.sh", verb, *map(json.dumps, [_CONFIG, *documents])]
        for verb, documents in calls.items()
    }
    commands['python -c "import sqlmodel"'] = [str(_PYTHON), "-c", "import sqlmodel"]
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(
                ["sh", "-c", 'exec "$@" 3>/dev/null', "sh", *command], cwd=ROOT, check=True
            )
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(each) for name, each in times.items()}


def report(
    databases: dict[str, list[Step]], described: dict[str, str], starts: dict[str, float]
) -> str:
    """The section of the page."""
    steps = table(
        (
            "database, verb",
            "rows",
            "rows/s",
            "peak memory MiB",
            "the SDK's own: rows",
            "rows/s",
            "peak memory MiB",
            "times faster",
        ),
        [
            (
                f"{name}, {step.verb}",
                f"{step.ours.rows:,}",
                f"{step.ours.rate:,.0f}",
                f"{step.ours.memory_mib:.0f}",
                f"{step.theirs.rows:,}",
                f"{step.theirs.rate:,.0f}",
                f"{step.theirs.memory_mib:.0f}",
                f"{step.ours.rate / step.theirs.rate:.1f}",
            )
            for name, each in databases.items()
            for step in each
        ],
    )
    names = "; ".join(f"{name} {version}" for name, version in described.items())
    times = table(
        ("call", "ms"), [(f"`{name}`", f"{each * 1000:.0f}") for name, each in starts.items()]
    )
    return f"""
A full run over raw rows of which two are of each developer's day: `extract` reads raw rows,
`convert` reads tool rows. Beside it the same mapping on the SDK's own `Extractor` and
`Convertor`, which take row by row, on a part of the same rows. Each is a process from its start
to its end. {names}.

{steps}

How long a call takes that has nothing to do (on an empty SQLite database), median:

{times}
"""


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Run it all and renew the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--databases", nargs="+", choices=NAMES, default=DATABASES)
    parser.add_argument("--rows", type=int, default=ROWS, help="raw rows, for instance 1000000")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="calls of each verb")
    parser.add_argument("--output", type=Path, default=PAGE, help="the page to renew")
    options = parser.parse_args(arguments)
    databases: dict[str, list[Step]] = {}
    described: dict[str, str] = {}
    for name in options.databases:
        try:
            with database(name) as fresh:
                described[name] = describe(fresh())
                databases[name] = run_database(fresh, options.rows)
        except ServerMissing as error:
            print(f"{name} is left out: {error}")
        else:
            print(f"{name}: {databases[name]}", flush=True)
    with database("sqlite") as fresh:
        starts = start_ups(fresh(), options.repeats)
    text = report(databases, described, starts)
    put(options.output, TITLE, text)
    print(text)


if __name__ == "__main__":
    main()
