"""Measure how a burst of reports is answered while the receiver converts others.

python -m benchmarks.conversions --databases mariadb --repeats 1
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from sqlalchemy.engine import Engine

from benchmarks.databases import NAMES, Fresh, database, describe, opened
from benchmarks.fleet import DEVELOPERS, developer_of
from benchmarks.load import PATIENCE_SECONDS, Outcome, measure
from benchmarks.page import PAGE, put, table
from developer_telemetry.constants import ACCOUNT_TABLE, LINK_TABLE
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.database.engine import transact
from developer_telemetry.database.schema_owner import SchemaOwner, record_owner
from tests.support.devlake_tables import make_devlake_tables
from tests.support.receivers import TOKEN, Receiver, add_connection
from tests.support.servers import ServerMissing

DATABASES = ("mariadb", "postgresql")
CONNECTIONS = 64
REPORTS = 10_000
REPEATS = 5  # odd, so that one of them is the median
# The goals, as texts of the page name them.
MAX_RATIO = 1.3
MAX_RIGHT_SECONDS = 120.0
POLL_SECONDS = 0.05
TITLE = "Conversions beside a burst"


class Burst(NamedTuple):
    """The measurements of one burst."""

    outcome: Outcome
    right_seconds: float = 0.0  # from the last answer until every account and link was there


class Figures(NamedTuple):
    """The measurements on one database."""

    described: str
    without: Sequence[Burst]
    during: Sequence[Burst]


def run_burst(url: str, is_converting: bool) -> Burst:
    """Send a burst to a receiver that has the reports of another connection to convert."""
    with opened(url) as engine:
        make_devlake_tables(engine)
        _add_users(engine)
        transact(engine, lambda to: record_owner(to, SchemaOwner.DEVLAKE))
        earlier, fleet = add_connection(url), add_connection(url)
        with (
            tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
            Receiver(url, Path(folder), TELEMETRY_LOG_LEVEL="warning") as receiver,
        ):
            _send(receiver, earlier)
            if is_converting:  # from now on
                transact(engine, lambda to: record_owner(to, SchemaOwner.STANDALONE))
                _wait(engine, f"SELECT COUNT(*) FROM {ACCOUNT_TABLE}", 1)
            outcome = _send(receiver, fleet)
            if not is_converting:
                return Burst(outcome)
            ended = time.monotonic()
            ours = f"account_id LIKE 'developer_telemetry:Account:{fleet}:%%'"
            developers = len({developer_of(number) for number in range(REPORTS)})
            _wait(engine, f"SELECT COUNT(*) FROM {LINK_TABLE} WHERE {ours}", developers)
            return Burst(outcome, time.monotonic() - ended)


def _send(receiver: Receiver, connection_id: int) -> Outcome:
    return measure(
        receiver.port, connection_id, TOKEN, CONNECTIONS, 0, PATIENCE_SECONDS, reports=REPORTS
    )


def _add_users(engine: Engine) -> None:
    names = [f"developer-{number:05d}" for number in range(DEVELOPERS)]
    users = [(f"user-{name}", f"{name}@example.com", name) for name in names]
    transact(engine, lambda to: insert(to, "users", ("id", "email", "name"), users, ""))


def _wait(engine: Engine, query: str, least: int) -> None:
    deadline = time.monotonic() + 2 * MAX_RIGHT_SECONDS
    while time.monotonic() < deadline:
        with engine.connect() as connection:
            if connection.exec_driver_sql(query, ()).scalar_one() >= least:
                return
        time.sleep(POLL_SECONDS)
    raise TimeoutError(query)


def run_database(name: str, fresh: Fresh, repeats: int) -> Figures:
    """Measure bursts without and with conversions in turn; each has a database of its own."""
    bursts: dict[bool, list[Burst]] = {False: [], True: []}
    for _ in range(repeats):
        for is_converting in bursts:
            bursts[is_converting].append(run_burst(fresh(), is_converting))
            print(f"{name}, converting {is_converting}: {bursts[is_converting][-1]}", flush=True)
    return Figures(describe(fresh()), bursts[False], bursts[True])


def report(databases: dict[str, Figures]) -> str:
    """Return the section of the page."""
    described = "; ".join(f"{name} {figures.described}" for name, figures in databases.items())
    repeats = max(len(figures.during) for figures in databases.values())
    return f"""
{REPORTS:,} reports, sent over {CONNECTIONS} connections without a pause, each of another developer.
With conversions, the receiver makes accounts of {REPORTS:,} earlier reports and links them to
{DEVELOPERS:,} users of DevLake from the moment on at which the burst begins, then those of the
burst. Bursts without and with conversions took turns on empty databases; medians of {repeats} each.
Accounts and links are right when each developer of the burst has one of each. The goals are a p99
within {MAX_RATIO} times that without conversions, and right accounts within
{MAX_RIGHT_SECONDS:.0f} s. {described}.

{_table(databases)}
"""


def _table(databases: dict[str, Figures]) -> str:
    lines = []
    for name, figures in databases.items():
        without = _medians(figures.without)
        during = _medians(figures.during)
        bursts = (*figures.without, *figures.during)
        failed = sum(burst.outcome.refused + burst.outcome.broken for burst in bursts)
        right = [burst.right_seconds for burst in figures.during]
        lines.append(
            (
                *(name, *(f"{item:.1f}" for item in (*without, *during))),
                *(f"{during[1] / without[1]:.2f}", failed),
                *(f"{statistics.median(right):.0f}", f"{max(right):.0f}"),
            )
        )
    head = (
        *("database", "p50 ms without", "p99 ms without", "p50 ms with", "p99 ms with"),
        *("p99 ratio", "pushes not acknowledged", "right after s, median", "at most"),
    )
    return table(head, lines)


def _medians(bursts: Sequence[Burst]) -> tuple[float, float]:
    outcomes = [burst.outcome for burst in bursts]
    return (
        statistics.median(outcome.p50_ms for outcome in outcomes),
        statistics.median(outcome.p99_ms for outcome in outcomes),
    )


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Run it all and renew the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--databases", nargs="+", choices=NAMES[:2], default=DATABASES)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="bursts of each kind")
    parser.add_argument("--output", type=Path, default=PAGE, help="the page to renew")
    options = parser.parse_args(arguments)
    databases: dict[str, Figures] = {}
    for name in options.databases:
        try:
            with database(name) as fresh:
                databases[name] = run_database(name, fresh, options.repeats)
        except ServerMissing as error:
            print(f"{name} is left out: {error}")
    text = report(databases)
    put(options.output, TITLE, text)
    print(text)


if __name__ == "__main__":
    main()
