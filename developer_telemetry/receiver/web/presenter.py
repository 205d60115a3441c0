"""Contents of the page: figures from the database, some seconds old, and the receiver's state."""

from __future__ import annotations

import datetime
import time
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any, Optional
from urllib.parse import urlencode

import msgspec
from sqlalchemy.engine import Engine

from developer_telemetry.concurrency import DaemonThreads
from developer_telemetry.connections.registry import Connections
from developer_telemetry.database.engine import now_us, reading
from developer_telemetry.diagnostics.conversion_status import (
    describe_conversions,
    read_conversion_statuses,
    read_ownership,
)
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.receiver.jobs.monitor import Monitor
from developer_telemetry.receiver.web import charts, queries
from developer_telemetry.receiver.web.cached_query import CachedQuery, refresh
from developer_telemetry.receiver.web.client_setup import describe_token, instructions
from developer_telemetry.receiver.web.queries import MachineFilter
from developer_telemetry.receiver.web.self_test import SelfTest
from developer_telemetry.receiver.web.templating import render

# The time that a request waits for new figures; then it shows older ones, or none.
WAIT_SECONDS = 0.12
# The time between two reads of the same figures, for any number of browsers.
REFRESH_SECONDS = 4.0
# Browsers with the same filter share an answer for this time.
ANSWER_SECONDS = 0.5
# Filters whose machines stay cached.
CACHED_FILTERS = 32

CHART_DAYS = 91
TOOL_DAYS = 14
REFUSAL_DAYS = 30
# More of them would make the page useless; `status` lists all.
MOST_CONNECTIONS = 100

# For each reason of a refusal, what it means and what to do.
REMEDIES = {
    "token": "No token, or the token of another connection: compare it with the hint below.",
    "secret": "The receiver can't read the connection's token: run `developer-telemetry doctor`.",
    "body": "The body is not a JSON object: check what the machine sends.",
    "developer": "The report has no developer, or a name longer than 255 characters.",
    "date": "The report has no valid date: send it as YYYY-MM-DD.",
    "size": "The body is larger than 1 MiB, or 4 MiB after decompression: send smaller reports.",
    "encoding": "The receiver does not support this compression: send gzip or plain text.",
}

Values = dict[str, Any]
Sections = dict[str, str]


class Presenter:
    """Reads and renders the page on its own threads, so that reports never wait for the page."""

    def __init__(
        self,
        engine: Engine,
        connections: Connections,
        monitor: Monitor,
        spool: Spool,
        self_test: SelfTest,
    ) -> None:
        self._engine = reading(engine)
        self._connections = connections
        self._monitor = monitor
        self._spool = spool
        self._self_test = self_test
        self._threads = DaemonThreads(queries.CONNECTIONS, "page")
        self._empty = False
        self._fleet = CachedQuery(self._read_fleet, REFRESH_SECONDS, self._threads)
        self._history = CachedQuery(self._read_history, REFRESH_SECONDS, self._threads)
        self._tools = CachedQuery(self._read_tools, REFRESH_SECONDS, self._threads)
        self._machines: OrderedDict[MachineFilter, CachedQuery[Sections]] = OrderedDict()
        self._answers: dict[MachineFilter, tuple[float, bytes]] = {}

    def close(self) -> None:
        """Close the database connections without waiting for queries that run."""
        self._threads.stop()
        self._engine.dispose()

    async def page(self, machine_filter: MachineFilter, base_url: str) -> Values:
        """Return the values of the page's template.

        Args:
            machine_filter: the machines to list; its connection is the one to set up.
            base_url: the address under which the browser opened the receiver.
        """
        page_queries = await self._renewed(machine_filter)
        connections = self._connections.all()
        selected = next((c for c in connections if c.id == machine_filter.connection_id), None)
        selected = selected or (connections[0] if connections else None)
        return {
            **self._parts(page_queries),
            "filter": machine_filter,
            "connections": connections[:MOST_CONNECTIONS],
            "selected": selected,
            "hint": describe_token(selected) if selected else "",
            "instructions": instructions(base_url, selected) if selected else None,
        }

    async def live(self, machine_filter: MachineFilter) -> bytes:
        """Return the parts of the page that change, as JSON.

        Returns:
            An object with `sections` (the HTML of each part by its id), `empty` (no machine has
            reported yet) and `pending` (a part has no figures yet).
        """
        page_queries = await self._renewed(machine_filter)
        made_at, answer = self._answers.pop(machine_filter, (float("-inf"), b""))
        if time.monotonic() - made_at >= ANSWER_SECONDS:
            made_at, answer = time.monotonic(), msgspec.json.encode(self._parts(page_queries))
        if len(self._answers) >= CACHED_FILTERS:
            self._answers.clear()
        self._answers[machine_filter] = made_at, answer
        return answer

    async def self_test(self, connection_id: int) -> Optional[Values]:
        """Return the outcome of a test report; None if there is no such connection."""
        connection = self._connections.get(connection_id)
        if connection is None:
            return None
        steps = await self._threads.run(partial(self._self_test.run, connection))
        return {"connection": connection, "steps": steps}

    async def _renewed(self, machine_filter: MachineFilter) -> list[CachedQuery[Sections]]:
        """Return the queries of the page, renewed as far as WAIT_SECONDS allow."""
        machines = self._machines_query(machine_filter)
        page_queries = [self._fleet, self._history, self._tools, machines]
        await refresh(page_queries, WAIT_SECONDS)
        return page_queries

    def _parts(self, page_queries: Sequence[CachedQuery[Sections]]) -> Values:
        faults = sorted({query.fault for query in page_queries if query.fault})
        sections = self._receiver_state(faults)
        for query in page_queries:
            sections.update(query.value or {})
        pending = any(query.value is None and not query.fault for query in page_queries)
        return {"sections": sections, "empty": self._empty, "pending": pending}

    def _machines_query(self, machine_filter: MachineFilter) -> CachedQuery[Sections]:
        """Return the cached query of a filter; the least recently used ones are forgotten."""
        query = self._machines.pop(machine_filter, None)
        if query is None:
            read = partial(self._read_machines, machine_filter)
            query = CachedQuery(read, REFRESH_SECONDS, self._threads)
        self._machines[machine_filter] = query
        if len(self._machines) > CACHED_FILTERS:
            self._machines.popitem(last=False)
        return query

    def _receiver_state(self, faults: list[str]) -> Sections:
        oldest = self._spool.oldest_arrival_us() if self._spool.depth else None
        values = {
            "problem": self._monitor.problem(),
            "note": self._monitor.note(),
            "faults": faults,
            "spool": self._spool,
            "oldest": None if oldest is None else _moment(oldest),
        }
        return {"state": render("state.html", values), "spool": render("spool.html", values)}

    def _read_fleet(self) -> Sections:
        now = queries.today()
        with self._engine.connect() as connection:
            fleets = queries.fleets(connection)
            since = now - datetime.timedelta(days=REFUSAL_DAYS - 1)
            refused = queries.refusals(connection, since)
        conversions = describe_conversions(
            read_ownership(self._engine), read_conversion_statuses(self._engine)
        )
        connections = self._connections.all()
        classes = range(len(queries.AGE_CLASSES))
        ages = [sum(fleet.ages[number] for fleet in fleets.values()) for number in classes]
        values: Values = {
            "ages": list(zip(queries.AGE_CLASSES, ages, charts.shares(ages))),
            "machines": sum(ages),
            "heard": ages[0],
            "quiet": sum(ages[3:]),
            "fleets": fleets,
            "connections": [(c, describe_token(c)) for c in connections[:MOST_CONNECTIONS]],
            "conversions": conversions,
            "hidden": max(0, len(connections) - MOST_CONNECTIONS),
            "reports": sum(fleet.reports for fleet in fleets.values()),
            "newest": max((f.last_seen for f in fleets.values() if f.last_seen), default=None),
            "refused": refused,
            "refusals": sum(refusal.reports for refusal in refused),
            "days": REFUSAL_DAYS,
            "names": {connection.id: connection.name for connection in connections},
            "remedies": REMEDIES,
        }
        self._empty = not values["machines"]
        parts = ("overview", "freshness", "refused", "connections")
        return {part: render(f"{part}.html", values) for part in parts}

    def _read_history(self) -> Sections:
        last = queries.today()
        first = charts.monday(last - datetime.timedelta(days=CHART_DAYS - 1))
        days = queries.days_before(last, (last - first).days + 1)
        with self._engine.connect() as connection:
            hours = queries.hours(connection, first, last)
        return {
            "reports": _chart("reports", charts.reports_by_day(days, hours)),
            "hours": _chart("hours", charts.hours_by_week(days, hours)),
        }

    def _read_tools(self) -> Sections:
        last = queries.today()
        first = last - datetime.timedelta(days=TOOL_DAYS - 1)
        with self._engine.connect() as connection:
            tools = queries.tools(connection, first, last)
        return {"tools": render("tools.html", {"tools": tools})}

    def _read_machines(self, machine_filter: MachineFilter) -> Sections:
        with self._engine.connect() as connection:
            total, rows = queries.machines(connection, machine_filter)
        names = {connection.id: connection.name for connection in self._connections.all()}
        pages = max(1, -(-total // queries.MACHINES_A_PAGE))
        values = {
            "rows": rows,
            "total": total,
            "names": names,
            "filter": machine_filter,
            "pages": min(pages, queries.MAX_PAGES),
            "first": (machine_filter.page - 1) * queries.MACHINES_A_PAGE + 1,
            "age_class": _age_class,
            "link": partial(_link, machine_filter),
        }
        return {"machines": render("machines.html", values)}


def _chart(name: str, chart: charts.Chart) -> str:
    return render("chart.html", {"name": name, "chart": chart})


def _age_class(machine: queries.Machine) -> queries.AgeClass:
    """Return the class of a machine by the time since its newest report."""
    seen = machine.last_seen
    age_us = now_us() - round(seen.timestamp() * 1e6) if seen else None
    for age_class in queries.AGE_CLASSES[:-1]:
        limit_us = age_class.until_us
        if age_us is not None and limit_us is not None and age_us <= limit_us:
            return age_class
    return queries.AGE_CLASSES[-1]


def _link(machine_filter: MachineFilter, page: int) -> str:
    """Return the address of another page of the same filter."""
    fields = {
        "connection": machine_filter.connection_id,
        "state": machine_filter.state,
        "q": machine_filter.text,
    }
    query = {name: value for name, value in fields.items() if value}
    return "?" + urlencode({**query, "page": page}) + "#machines"


def _moment(epoch_us: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(epoch_us / 1e6, datetime.timezone.utc)
