"""Measure how fast the receiver's page is in a large fleet, and whether viewers slow reports.

    python -m benchmarks.page_views --databases mariadb --rows 100000 --seconds 2

Machines send without a pause, by turns with and without viewers of the page.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, Optional

import httpx

from benchmarks.databases import database, describe, opened
from benchmarks.large import fill
from benchmarks.load import Outcome, measure
from benchmarks.page import PAGE, put, table
from developer_telemetry.constants import MACHINE_TABLE, TOOL_TABLE
from tests.support.receivers import TOKEN, Receiver, add_connection, query
from tests.support.servers import ServerMissing

DATABASES = ("mariadb", "postgresql")
ROWS = 1_250_000
DAYS = 365
CONNECTIONS = 64
SECONDS = 10.0
ROUNDS = 3
VIEWERS = 10
# The page's own script waits eight times as long.
VIEW_SECONDS = 1.0
VIEWS_ALONE = 20
ADMIN = "the benchmark's admin token"
TITLE = "The page"


class Figures(NamedTuple):
    """The measurements on one database; times in ms."""

    described: str
    rows: int
    machines: int
    first: float  # the first answer after a start
    alone: list[float]  # later ones, while no machine sends
    while_sending: list[float]  # while machines send
    without: list[Outcome]  # the outcomes of sending without viewers
    watched: list[Outcome]  # with viewers


def sign_in(receiver: Receiver) -> httpx.Client:
    """Return a client that may read the page."""
    client = httpx.Client(base_url=receiver.url, timeout=30, trust_env=False)
    client.post("/login", data={"token": ADMIN}, headers={"origin": receiver.url})
    return client


def measure_answer(client: httpx.Client, path: str) -> float:
    """Return the time to an answer in ms.

    Raises:
        httpx.HTTPStatusError: if its status is not 2xx.
    """
    started = time.perf_counter()
    client.get(path).raise_for_status()
    return (time.perf_counter() - started) * 1000


@contextmanager
def open_viewers(receiver: Receiver) -> Iterator[list[float]]:
    """Let people view the page in this context; yield the times to their answers in ms."""
    ended = threading.Event()
    times: list[float] = []

    def person(number: int) -> None:
        with closing(sign_in(receiver)) as client:
            ended.wait(VIEW_SECONDS * number / VIEWERS)
            times.append(measure_answer(client, "/"))
            while not ended.wait(VIEW_SECONDS):
                times.append(measure_answer(client, "/live"))

    with ThreadPoolExecutor(VIEWERS) as threads:
        people = [threads.submit(person, number) for number in range(VIEWERS)]
        try:
            yield times
        finally:
            ended.set()
        for item in people:
            item.result()


def measure_page(url: str, seconds: float, rounds: int) -> Figures:
    """Start a receiver on a filled database, view its page, and send."""
    connection_id = add_connection(url)
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
        Receiver(
            url, Path(folder), TELEMETRY_ADMIN_TOKEN=ADMIN, TELEMETRY_LOG_LEVEL="warning"
        ) as receiver,
    ):
        with closing(sign_in(receiver)) as client:
            first = measure_answer(client, "/")
            time.sleep(VIEW_SECONDS)
            alone = [measure_answer(client, "/") for _ in range(VIEWS_ALONE)]
        send = (receiver.port, connection_id, TOKEN, CONNECTIONS, seconds / 10, seconds)
        measure(*send)  # so that all turns have the same rows
        without, watched, while_sending = [], [], []
        for _ in range(rounds):
            without.append(measure(*send))
            with open_viewers(receiver) as times:
                watched.append(measure(*send))
            while_sending += times
    [(rows,)], [(machines,)] = (
        query(url, f"SELECT COUNT(*) FROM {name}") for name in (TOOL_TABLE, MACHINE_TABLE)
    )
    return Figures(describe(url), rows, machines, first, alone, while_sending, without, watched)


def run_database(name: str, rows: int, days: int, seconds: float, rounds: int) -> Figures:
    """Fill a database of its own and measure."""
    with database(name) as fresh:
        url = fresh()
        with opened(url) as engine:
            fill(engine, rows, days)
        return measure_page(url, seconds, rounds)


def report(databases: dict[str, Figures]) -> str:
    """Return the section of the page."""
    described = "; ".join(f"{name} {item.described}" for name, item in databases.items())
    answers = [
        (
            name,
            f"{item.machines:,}",
            f"{item.rows:,}",
            *(f"{ms:.0f}" for ms in (item.first, statistics.median(item.alone), max(item.alone))),
            *(
                f"{ms:.0f}"
                for ms in (statistics.median(item.while_sending), max(item.while_sending))
            ),
        )
        for name, item in databases.items()
    ]
    pushes = [
        (
            f"{name}, {who}",
            *(
                f"{statistics.median(values):,.0f}"
                for values in zip(*((run.rate, run.p50_ms, run.p99_ms) for run in runs))
            ),
            sum(run.refused + run.broken for run in runs),
        )
        for name, item in databases.items()
        for who, runs in (("nobody looks", item.without), ("people look", item.watched))
    ]
    return f"""
A receiver with a year of a large fleet in its database. {described}.
How long an answer of the page took, in ms: the first after the receiver's start, later ones, and
those while {CONNECTIONS} machines sent without a pause:

{
        table(
            (
                *("database", "machines", "days of work", "first", "median", "longest"),
                *("median beside pushes", "longest beside pushes"),
            ),
            answers,
        )
    }

What these {CONNECTIONS} machines met, by turns while nobody and while {VIEWERS} people looked, each
every {VIEW_SECONDS:g} s (the page's own script asks every 8 s); medians of the turns:

{table(("database", "reports/s", "p50 ms", "p99 ms", "not acknowledged"), pushes)}
"""


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Run it all and renew the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--rows", type=int, default=ROWS, help="tool rows, at least")
    parser.add_argument("--days", type=int, default=DAYS, help="that they are about")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each turn lasts")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns with and without looks")
    parser.add_argument("--output", type=Path, default=PAGE, help="the page to renew")
    options = parser.parse_args(arguments)
    databases: dict[str, Figures] = {}
    for name in options.databases:
        try:
            databases[name] = run_database(
                name, options.rows, options.days, options.seconds, options.rounds
            )
        except ServerMissing as error:
            print(f"{name} is left out: {error}")
    if databases:
        text = report(databases)
        put(options.output, TITLE, text)
        print(text)


if __name__ == "__main__":
    main()
