"""Contents of the overview: figures from the database, seconds old, and the receiver's state."""

from __future__ import annotations

import datetime
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Optional

import msgspec
from sqlalchemy.engine import Connection as SqlConnection

from developer_telemetry.connections.registry import Connection
from developer_telemetry.diagnostics.conversion_status import (
    describe_conversions,
    read_conversion_statuses,
    read_ownership,
)
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.receiver.jobs.monitor import Monitor
from developer_telemetry.receiver.web import charts
from developer_telemetry.receiver.web.client_setup import describe_token, instructions
from developer_telemetry.receiver.web.data import (
    day_queries,
    fleet_queries,
    queries,
    refusal_queries,
)
from developer_telemetry.receiver.web.data.cached_query import CachedQuery, refresh
from developer_telemetry.receiver.web.data.day_queries import Hours, Period
from developer_telemetry.receiver.web.data.fleet_queries import add_up
from developer_telemetry.receiver.web.data.reader import Reader
from developer_telemetry.receiver.web.data.refusal_queries import RefusalCount
from developer_telemetry.receiver.web.lists import list_machines
from developer_telemetry.receiver.web.problems import REMEDIES, FleetFacts, find_problems
from developer_telemetry.receiver.web.selection import Selection
from developer_telemetry.receiver.web.self_test import SelfTest
from developer_telemetry.receiver.web.templating import render
from developer_telemetry.reports.collectors import find_outdated
from developer_telemetry.reports.refusal_reasons import TITLES, WITHOUT_TOKEN, describe_reason

# The time that a request waits for new figures; then it shows older ones, or none.
WAIT_SECONDS = 0.12
# The time between two reads of the same figures, for any number of browsers.
REFRESH_SECONDS = 4.0
# Browsers with the same selection share an answer for this time.
ANSWER_SECONDS = 0.5
# Selections whose figures stay cached.
CACHED_SELECTIONS = 32
QUERIES_A_PAGE = 4

# The days of figures that are compared with those of the week before.
TREND_DAYS = 7
# More of them would make the page useless; `status` lists all.
MOST_CONNECTIONS = 100
# The most frequent reasons of refusals on the overview; a list has all.
SHOWN_REASONS = 4

Values = dict[str, Any]
Sections = dict[str, str]


class Presenter:
    """Reads and renders the page on its own threads, so that reports never wait for the page."""

    def __init__(self, reader: Reader, monitor: Monitor, spool: Spool, self_test: SelfTest) -> None:
        self._reader = reader
        self._connections = reader.connections
        self._monitor = monitor
        self._spool = spool
        self._self_test = self_test
        self._empty = False
        self._queries: OrderedDict[tuple[str, Selection], CachedQuery[Sections]] = OrderedDict()
        self._answers: dict[Selection, tuple[float, bytes]] = {}

    async def page(self, selection: Selection, base_url: str) -> Values:
        """Return the values of the overview's template.

        Args:
            selection: The figures and machines to show.
            base_url: The address under which the browser opened the receiver.
        """
        page_queries = await self._renewed(selection)
        return {
            **self._parts(page_queries),
            **self.set_up(selection.connection_id, base_url),
            "selection": selection,
            "today": queries.today(),
        }

    def set_up(self, connection_id: int, base_url: str) -> Values:
        """Return the values of the instructions for a connection, or for the first one."""
        connections = self._connections.all()
        selected = next((c for c in connections if c.id == connection_id), None)
        selected = selected or (connections[0] if connections else None)
        return {
            "connections": connections[:MOST_CONNECTIONS],
            "selected": selected,
            "hint": describe_token(selected) if selected else "",
            "instructions": instructions(base_url, selected) if selected else None,
        }

    async def live(self, selection: Selection) -> bytes:
        """Return the parts of the overview that change, as JSON.

        Returns:
            An object with `sections` (the HTML of each part by its id), `empty` (no machine has
            reported yet) and `pending` (a part has no figures yet).
        """
        page_queries = await self._renewed(selection)
        made_at, answer = self._answers.pop(selection, (float("-inf"), b""))
        if time.monotonic() - made_at >= ANSWER_SECONDS:
            made_at, answer = time.monotonic(), msgspec.json.encode(self._parts(page_queries))
        if len(self._answers) >= CACHED_SELECTIONS:
            self._answers.clear()
        self._answers[selection] = made_at, answer
        return answer

    async def self_test(self, connection_id: int) -> Optional[Values]:
        """Return the outcome of a test report; None if there is no such connection."""
        connection = self._connections.get(connection_id)
        if connection is None:
            return None
        steps = await self._reader.run(partial(self._self_test.run, connection))
        return {"connection": connection, "steps": steps}

    async def _renewed(self, selection: Selection) -> list[CachedQuery[Sections]]:
        """Return the queries of the page, renewed as far as WAIT_SECONDS allow."""
        base = selection.base
        page_queries = [
            self._query("fleet", base, self._read_fleet),
            self._query("history", base, self._read_history),
            self._query("tools", base, self._read_tools),
            self._query("machines", selection, self._read_machines),
        ]
        await refresh(page_queries, WAIT_SECONDS)
        return page_queries

    def _query(
        self, name: str, selection: Selection, read: Callable[[Selection], Sections]
    ) -> CachedQuery[Sections]:
        """Return the cached query of a selection; the least recently used ones are forgotten."""
        query = self._queries.pop((name, selection), None)
        if query is None:
            query = CachedQuery(partial(read, selection), REFRESH_SECONDS, self._reader.threads)
        self._queries[name, selection] = query
        if len(self._queries) > CACHED_SELECTIONS * QUERIES_A_PAGE:
            self._queries.popitem(last=False)
        return query

    def _parts(self, page_queries: Sequence[CachedQuery[Sections]]) -> Values:
        faults = sorted({query.fault for query in page_queries if query.fault})
        sections = self._receiver_state(faults)
        for query in page_queries:
            sections.update(query.value or {})
        pending = any(query.value is None and not query.fault for query in page_queries)
        return {"sections": sections, "empty": self._empty, "pending": pending}

    def _receiver_state(self, faults: list[str]) -> Sections:
        oldest = self._spool.oldest_arrival_us() if self._spool.depth else None
        values = {
            "problem": self._monitor.problem(),
            "note": self._monitor.note(),
            "faults": faults,
            "spool": self._spool,
            "oldest": None if oldest is None else queries.moment_of(oldest),
        }
        return {"state": render("state.html", values), "spool": render("spool.html", values)}

    def _read_fleet(self, selection: Selection) -> Sections:
        last = queries.today()
        since = last - datetime.timedelta(days=selection.days - 1)
        week = Period(last - datetime.timedelta(days=TREND_DAYS - 1), last, selection.connection_id)
        with self._reader.engine.connect() as connection:
            fleets = fleet_queries.fleets(connection)
            refused = refusal_queries.refusals(connection, since, selection.connection_id)
            trend = [
                refusal_queries.count_refusals(connection, *period)
                for period in (week, week.before())
            ]
            refused_machines = refusal_queries.count_refused_machines(
                connection, selection.connection_id, sorted(WITHOUT_TOKEN)
            )
        conversions = describe_conversions(
            read_ownership(self._reader.engine), read_conversion_statuses(self._reader.engine)
        )
        self._empty = not fleets
        fleet = add_up(fleets, selection.connection_id)
        outdated = find_outdated(add_up(fleets).agents)
        facts = FleetFacts(
            sum(fleet.ages[3:]),
            fleet.newly_quiet,
            refused_machines,
            trend[0],
            _main_reason(refused, refused_machines > 0),
            sum(fleet.agents[user_agent] for user_agent in outdated),
        )
        values: Values = {
            **self._describe_connections(selection),
            "ages": list(zip(fleet_queries.AGE_CLASSES, fleet.ages, charts.shares(fleet.ages))),
            "machines": sum(fleet.ages),
            "fleet": fleet,
            "fleets": fleets,
            "facts": facts,
            "problems": find_problems(facts, selection),
            "conversions": conversions,
            "refused": refused,
            "shown": SHOWN_REASONS,
            "trend": trend,
            "days": selection.days,
            "names": self._reader.names(),
            "titles": TITLES,
            "remedies": REMEDIES,
            "selection": selection,
        }
        parts = ("attention", "overview", "freshness", "refused", "connections")
        return {part: render(f"{part}.html", values) for part in parts}

    def _describe_connections(self, selection: Selection) -> Values:
        """Return the values of the list of connections."""
        connections = [
            connection
            for connection in self._connections.all()
            if selection.connection_id in (0, connection.id)
        ]
        listed: list[tuple[Connection, str]] = [
            (connection, describe_token(connection))
            for connection in connections[:MOST_CONNECTIONS]
        ]
        return {"connections": listed, "hidden": max(0, len(connections) - MOST_CONNECTIONS)}

    def _read_history(self, selection: Selection) -> Sections:
        last = queries.today()
        days = queries.days_before(last, selection.days)
        period = Period(charts.monday(days[0]), last, selection.connection_id)
        yesterday = last - datetime.timedelta(days=1)
        first = last - datetime.timedelta(days=TREND_DAYS)
        week = Period(first, yesterday, selection.connection_id)
        with self._reader.engine.connect() as connection:
            hours = day_queries.hours(connection, period)
            hidden = self._weeks_of_few(connection, period, hours)
            work = [day_queries.count_work(connection, part) for part in (week, week.before())]
        since_monday = queries.days_before(last, (last - period.first).days + 1)
        return {
            "work": render("work.html", {"work": work, "week": week, "selection": selection}),
            "reports": _chart("reports", charts.reports_by_day(days, hours), selection),
            "hours": _chart("hours", charts.hours_by_week(since_monday, hours, hidden), selection),
        }

    def _weeks_of_few(
        self, connection: SqlConnection, period: Period, hours: Hours
    ) -> set[datetime.date]:
        """Return the weeks in which so few people have active hours that no hours are shown."""
        connections = len(self._connections.all())
        weeks = set()
        for week in charts.weeks_of(hours):
            part = period._replace(first=week, last=week + datetime.timedelta(days=6))
            spread = charts.spread(hours, week)
            # More days than these are of more people, without a look at each of them.
            if (
                spread
                and spread.days <= day_queries.most_rows(part, connections)
                and day_queries.has_few_people(connection, part, connections)
            ):
                weeks.add(week)
        return weeks

    def _read_tools(self, selection: Selection) -> Sections:
        last = queries.today()
        first = last - datetime.timedelta(days=selection.days - 1)
        with self._reader.engine.connect() as connection:
            tools = day_queries.tools(connection, Period(first, last, selection.connection_id))
        return {"tools": render("tools.html", {"tools": tools, "selection": selection})}

    def _read_machines(self, selection: Selection) -> Sections:
        with self._reader.engine.connect() as connection:
            listing = list_machines(connection, selection, self._reader.names())
        return {"machines": render("machines.html", {"listing": listing})}


def _main_reason(refused: Sequence[RefusalCount], with_token: bool) -> str:
    """Return the most frequent reason in words, of senders with a valid token if there are any."""
    reasons = [
        count.reason for count in refused if not (with_token and count.reason in WITHOUT_TOKEN)
    ]
    return describe_reason(reasons[0]) if reasons else ""


def _chart(name: str, chart: charts.Chart, selection: Selection) -> str:
    return render("chart.html", {"name": name, "chart": chart, "selection": selection})
