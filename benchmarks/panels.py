"""Measure how long the dashboards' panels take on a large fleet.

    python -m benchmarks.panels --databases mariadb --rows 100000

Each panel's queries run over the usual six months, as when the page is opened, but one after the
other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from benchmarks.databases import count, database, describe, opened
from benchmarks.delivery import fill_delivery
from benchmarks.large import NOW, fill
from benchmarks.page import PAGE, put, table
from dashboards.__main__ import PAGES
from dashboards.dialects import DATABASES as DIALECTS
from dashboards.panels import dashboard
from developer_telemetry.constants import TOOL_TABLE
from developer_telemetry.pipeline.figure_refresh import refresh_figures
from tests.support.dashboard_answers import Chosen, expand
from tests.support.servers import ServerMissing

DATABASES = ("mariadb", "postgresql")
ROWS = 1_000_000
# Four years of a fleet, of which six months are shown.
DAYS = 1_460
SHOWN_DAYS = 184
ROWS_OF_A_PULL_REQUEST = 20
REPEATS = 3
TARGET_SECONDS = 1.0
TITLE = "The dashboards"

Panel = tuple[str, str]  # page and title


class Computing(NamedTuple):
    """The seconds of computing the figures of groups, by the clock and of our processor."""

    seconds: float
    processor: float
    figures: int


class Figures(NamedTuple):
    """The measurements on one database."""

    described: str
    rows: int
    developers: int
    seconds: dict[Panel, list[float]]  # of the first query and of later ones
    computing: Sequence[Computing]  # the first time, and again with nothing changed


def queries(name: str) -> Iterator[tuple[Panel, str]]:
    """Return the queries of all panels: for everybody, or for one team."""
    [dialect] = [item for item in DIALECTS if item.name == name]
    chosen = {
        "fleet": Chosen(),
        "groups": Chosen(),
        "delivery": Chosen(team=["1"]),
        "team": Chosen(team=["1"]),
    }
    end = int(NOW.timestamp())
    for page in PAGES:
        for panel in dashboard(page, dialect(page.about))["panels"]:
            if "targets" in panel:
                query = panel["targets"][0]["rawSql"]
                start = end - SHOWN_DAYS * 86_400
                yield (
                    (page.uid, panel["title"]),
                    expand(query, name, start, end, chosen[page.about]),
                )


def measure(engine: Engine, name: str, repeats: int) -> dict[Panel, list[float]]:
    """Return the seconds of each panel's query; all take turns, so that they share caches."""
    with engine.connect() as connection:
        every = list(queries(name))
        seconds: dict[Panel, list[float]] = {panel: [] for panel, _ in every}
        for _ in range(repeats):
            for panel, query in every:
                seconds[panel].append(_seconds(connection, query))
    return seconds


def compute_figures(engine: Engine) -> Computing:
    """Compute the figures of groups as a receiver does, without its pauses."""
    started, processor = time.perf_counter(), time.process_time()
    *_, figures = refresh_figures(engine, NOW.date())
    return Computing(time.perf_counter() - started, time.process_time() - processor, figures)


def _seconds(connection: SqlConnection, query: str) -> float:
    started = time.perf_counter()
    # As text: drivers would treat a % as a placeholder.
    connection.connection.cursor().execute(query)
    return time.perf_counter() - started


def run_database(name: str, rows: int, days: int, repeats: int) -> Figures:
    """Fill a database of its own and ask for all panels."""
    with database(name) as fresh:
        url = fresh()
        with opened(url) as engine:
            developers = fill(engine, rows, days)
            fill_delivery(engine, rows // ROWS_OF_A_PULL_REQUEST)
            computing = [compute_figures(engine) for _ in range(2)]
            dialect = "mysql" if engine.dialect.name in ("mysql", "mariadb") else "postgresql"
            seconds = measure(engine, dialect, repeats)
        return Figures(describe(url), count(url, TOOL_TABLE), developers, seconds, computing)


def report(databases: dict[str, Figures], days: int) -> str:
    """Return the section of the page."""
    part = next(iter(databases.values()))
    described = "; ".join(f"{name} {item.described}" for name, item in databases.items())
    worst = max(
        statistics.median(item) for one in databases.values() for item in one.seconds.values()
    )
    times = [
        (
            f"{page}: {title}",
            *(
                f"{value:.2f}"
                for one in databases.values()
                for value in (
                    one.seconds[page, title][0],
                    statistics.median(one.seconds[page, title]),
                )
            ),
        )
        for page, title in part.seconds
    ]
    computing = [
        (f"{name}, {when}", f"{one.seconds:.1f}", f"{one.processor:.1f}", f"{one.figures:,}")
        for name, figures in databases.items()
        for when, one in zip(("the first time", "again"), figures.computing)
    ]
    head = [f"{name}, {what}" for name in databases for what in ("first s", "median s")]
    return f"""
{part.rows:,} tool rows of {part.developers:,} developers over {days:,} days, twice as many raw
rows, and a pull request for every {ROWS_OF_A_PULL_REQUEST} rows, in databases with the memory that
they take by themselves (128 MB). Each panel shows the {SHOWN_DAYS} days up to the last one, of
everybody (of one team on the pages `delivery` and `team`), one panel after the other; the first
look meets what filling left in memory. The figures of groups, which all pages but `fleet` show,
were computed before. {described}. The slowest median is {worst:.2f} s.

{table(("computing the figures of 53 weeks", "s", "processor s", "figures"), computing)}

{table(("page: panel", *head), times)}
"""


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Run it all and renew the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--rows", type=int, default=ROWS, help="tool rows, at least")
    parser.add_argument("--days", type=int, default=DAYS, help="that they are about")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="looks at each panel")
    parser.add_argument("--output", type=Path, default=PAGE, help="the page to renew")
    options = parser.parse_args(arguments)
    databases: dict[str, Figures] = {}
    for name in options.databases:
        try:
            databases[name] = run_database(name, options.rows, options.days, options.repeats)
        except ServerMissing as error:
            print(f"{name} is left out: {error}")
    if databases:
        text = report(databases, options.days)
        put(options.output, TITLE, text)
        print(text)


if __name__ == "__main__":
    main()
