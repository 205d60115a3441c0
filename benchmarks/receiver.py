"""Measure the rate of the receiver, and that of the plain driver for comparison.

    python -m benchmarks.receiver --databases mariadb --connections 1 64 --seconds 10

The receiver runs as in production: a token, metrics, logs at level info, its database with the
durability that it has by default.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from benchmarks.baseline_server import BaselineServer
from benchmarks.databases import BATCH, NAMES, Fresh, count, database, describe, own_rate
from benchmarks.load import Outcome, measure
from benchmarks.page import PAGE, put, table
from benchmarks.processes import cpu_seconds, peak_memory_mib
from developer_telemetry.constants import RAW_TABLE, TOOL_TABLE
from tests.support.receivers import TOKEN, Receiver, add_connection
from tests.support.servers import ServerMissing

CONNECTIONS = (1, 16, 64, 256)
# The levels that have targets.
ALONE, MANY = 1, 64
SECONDS = 10.0
WARM_UP_PART = 0.1
TITLE = "The receiver"


class Lost(Exception):
    """Rows and acknowledgements don't match, so the figures are invalid."""


class Level(NamedTuple):
    """One run of the load tool."""

    outcome: Outcome
    memory_mib: float
    cpu_us: float  # of the receiver, for each report


def run_level(url: str, connections: int, seconds: float) -> Level:
    """Send to a new receiver over `connections`, and check that all reports were stored."""
    connection_id = add_connection(url)
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
        Receiver(url, Path(folder), TELEMETRY_LOG_LEVEL="info") as receiver,
    ):
        cpu_before = cpu_seconds(receiver.pid)
        outcome = measure(
            receiver.port, connection_id, TOKEN, connections, seconds * WARM_UP_PART, seconds
        )
        cpu = cpu_seconds(receiver.pid) - cpu_before
        memory = peak_memory_mib(receiver.pid)
        receiver.stop()  # acknowledged reports may be in the spool still
    for name in (RAW_TABLE, TOOL_TABLE):
        stored = count(url, name)
        # A request without an answer may have been stored.
        if not outcome.acknowledged <= stored <= outcome.acknowledged + outcome.broken:
            raise Lost(f"{outcome.acknowledged} acknowledged, {stored} rows in {name}")
    return Level(outcome, memory, cpu / max(1, outcome.acknowledged) * 1_000_000)


class Result(NamedTuple):
    """The figures of one database."""

    name: str
    described: str
    levels: dict[int, Level]
    own: float  # rows a second in batches, before and after the run at MANY
    alone_ms: float  # the one-row transaction, before and after the run at ALONE

    @property
    def rate_ratio(self) -> float:
        """Return the ratio of the receiver's rate at MANY connections to the plain driver's."""
        return self.levels[MANY].outcome.rate / self.own

    @property
    def time_ratio(self) -> float:
        """Return the ratio of the receiver's median at one connection to that of one row."""
        return self.levels[ALONE].outcome.p50_ms / self.alone_ms


def run_database(name: str, fresh: Fresh, connections: Sequence[int], seconds: float) -> Result:
    """Measure all levels on one server; each run has an empty database."""
    levels: dict[int, Level] = {}
    own: list[float] = []
    alone: list[float] = []

    def compare(level: int) -> None:
        if level == ALONE:
            alone.append(own_rate(fresh(), 1, seconds / 2).p50_ms)
        if level == MANY:
            own.append(own_rate(fresh(), BATCH, seconds / 2).rows_a_second)

    for level in connections:
        compare(level)
        levels[level] = run_level(fresh(), level, seconds)
        compare(level)
        print(f"{name}, {level} connections: {levels[level].outcome}", flush=True)
    return Result(name, describe(fresh()), levels, statistics.fmean(own), statistics.fmean(alone))


def report(results: Sequence[Result], tool_rate: float, tool_busy: float, seconds: float) -> str:
    """Return the section of the page."""
    levels = table(
        (
            "database, connections",
            "reports/s",
            "p50 ms",
            "p99 ms",
            "refused",
            "no answer",
            "peak memory MiB",
            "receiver's CPU µs/report",
            "load tool's CPU",
        ),
        [
            (
                f"{result.name}, {connections}",
                f"{outcome.rate:,.0f}",
                f"{outcome.p50_ms:.2f}",
                f"{outcome.p99_ms:.2f}",
                outcome.refused,
                outcome.broken,
                f"{level.memory_mib:.0f}",
                f"{level.cpu_us:.0f}",
                f"{outcome.busy:.0%}",
            )
            for result in results
            for connections, level in result.levels.items()
            for outcome in [level.outcome]
        ],
    )
    ratios = table(
        (
            "database",
            "its own rows/s",
            f"receiver at {MANY} / own",
            "one-row transaction, p50 ms",
            f"receiver's p50 at {ALONE} / that",
        ),
        [
            (
                f"{result.name} {result.described}",
                f"{result.own:,.0f}",
                f"{result.rate_ratio:.2f}",
                f"{result.alone_ms:.2f}",
                f"{result.time_ratio:.2f}",
            )
            for result in results
        ],
    )
    return f"""
Each run lasted {seconds:g} s on an empty database: token, metrics and logs (level info) on,
databases with their default durability, every report another developer's day, over connections
that stay open. After each, both layers held every report acknowledged, and none but those sent.

{levels}

"Its own" is the plain driver over one connection: the same raw and tool rows with our indexes,
{BATCH} of each in a transaction, statements and parameters made beforehand. The one-row transaction
is the same with one of each. Both are means of a run before and a run after the receiver's.

{ratios}

The load tool by itself, with {MANY} connections to a server that answers at once: {tool_rate:,.0f}
requests/s, taking {tool_busy:.0%} of a core.
"""


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Run it all and renew the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--databases", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--connections", nargs="+", type=int, default=CONNECTIONS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each run lasts")
    parser.add_argument("--output", type=Path, default=PAGE, help="the page to renew")
    options = parser.parse_args(arguments)
    levels = sorted({*options.connections, ALONE, MANY})
    with BaselineServer() as port:
        tool = measure(port, 1, TOKEN, MANY, options.seconds * WARM_UP_PART, options.seconds / 2)
    results: list[Result] = []
    for name in options.databases:
        try:
            with database(name) as fresh:
                results.append(run_database(name, fresh, levels, options.seconds))
        except ServerMissing as error:
            print(f"{name} is left out: {error}")
    text = report(results, tool.rate, tool.busy, options.seconds)
    put(options.output, TITLE, text)
    print(text)


if __name__ == "__main__":
    main()
