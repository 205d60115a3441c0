"""What the page shows: figures of the database, which may be seconds old, and the receiver's own
state as it is."""

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
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.receiver.jobs.monitor import Monitor
from developer_telemetry.receiver.web import charts, queries
from developer_telemetry.receiver.web.cached_query import CachedQuery, refresh
from developer_telemetry.receiver.web.client_setup import instructions, token_hint
from developer_telemetry.receiver.web.queries import Choice
from developer_telemetry.receiver.web.self_test import SelfTest
from developer_telemetry.receiver.web.templating import render

# How long a request waits for figures before it shows what is there, older or none.
PATIENCE_SECONDS = 0.12
# How long figures are taken as they are, however many look at them.
KEPT_SECONDS = 4.0
# All who look at the same get the same answer, made as seldom.
ANSWER_SECONDS = 0.5
# Choices of machines that are kept; an older one is read again.
KEPT_CHOICES = 32

CHART_DAYS = 91
TOOL_DAYS = 14
REFUSAL_DAYS = 30
# A page with more of them is no help; `status` lists all.
MOST_CONNECTIONS = 100

WHAT_TO_DO = {
    "token": "No token, or one of another connection: compare it with the hint below.",
    "secret": "The connection's own token can't be read here: `doctor` says why, and what to do.",
    "body": "The body is no JSON object: look at what the machine sends.",
    "developer": "The report names no developer, or one longer than 255 characters.",
    "date": "The report has no usable date: it has to be YYYY-MM-DD.",
    "size": "The body is larger than 1 MiB, or 4 MiB inflated: send less at once.",
    "encoding": "Compressed in a way we don't know: send gzip or plain.",
}

Values = dict[str, Any]
Sections = dict[str, str]


class Presenter:
    """Reads and renders on threads of its own, so that reports never wait for the page."""

    def __init__(
        self,
        engine: Engine,
        connections: Connections,
        health: Monitor,
        spool: Spool,
        rehearsal: SelfTest,
    ) -> None:
        self._engine = reading(engine)
        self._connections = connections
        self._health = health
        self._spool = spool
        self._rehearsal = rehearsal
        self._threads = DaemonThreads(queries.CONNECTIONS, "page")
        self._empty = False
        self._fleet = CachedQuery(self._read_fleet, KEPT_SECONDS, self._threads)
        self._history = CachedQuery(self._read_history, KEPT_SECONDS, self._threads)
        self._tools = CachedQuery(self._read_tools, KEPT_SECONDS, self._threads)
        self._machines: OrderedDict[Choice, CachedQuery[Sections]] = OrderedDict()
        self._answers: dict[Choice, tuple[float, bytes]] = {}

    def close(self) -> None:
        """Let go of the database; what is being read is not waited for."""
        self._threads.stop()
        self._engine.dispose()

    async def page(self, choice: Choice, base_url: str) -> Values:
        """What the page's template needs."""
        figures = await self._renewed(choice)
        known = self._connections.all()
        chosen = next((each for each in known if each.id == choice.connection_id), None)
        chosen = chosen or (known[0] if known else None)
        return {
            **self._parts(figures),
            "choice": choice,
            "connections": known[:MOST_CONNECTIONS],
            "chosen": chosen,
            "hint": token_hint(chosen) if chosen else "",
            "instructions": instructions(base_url, chosen) if chosen else None,
        }

    async def live(self, choice: Choice) -> bytes:
        """The parts that change as JSON: their HTML by id, and whether some are still to come."""
        figures = await self._renewed(choice)
        made_at, answer = self._answers.pop(choice, (float("-inf"), b""))
        if time.monotonic() - made_at >= ANSWER_SECONDS:
            made_at, answer = time.monotonic(), msgspec.json.encode(self._parts(figures))
        if len(self._answers) >= KEPT_CHOICES:
            self._answers.clear()
        self._answers[choice] = made_at, answer
        return answer

    async def rehearse(self, connection_id: int) -> Optional[Values]:
        """What a test report to a connection meets; None if there is no such connection."""
        connection = self._connections.get(connection_id)
        if connection is None:
            return None
        steps = await self._threads.run(partial(self._rehearsal.run, connection))
        return {"connection": connection, "steps": steps}

    async def _renewed(self, choice: Choice) -> list[CachedQuery[Sections]]:
        figures = [self._fleet, self._history, self._tools, self._machines_of(choice)]
        await refresh(figures, PATIENCE_SECONDS)
        return figures

    def _parts(self, figures: Sequence[CachedQuery[Sections]]) -> Values:
        faults = sorted({each.fault for each in figures if each.fault})
        sections = self._own_state(faults)
        for each in figures:
            sections.update(each.value or {})
        pending = any(each.value is None and not each.fault for each in figures)
        return {"sections": sections, "empty": self._empty, "pending": pending}

    def _machines_of(self, choice: Choice) -> CachedQuery[Sections]:
        figure = self._machines.pop(choice, None)
        if figure is None:
            read = partial(self._read_machines, choice)
            figure = CachedQuery(read, KEPT_SECONDS, self._threads)
        self._machines[choice] = figure
        if len(self._machines) > KEPT_CHOICES:
            self._machines.popitem(last=False)
        return figure

    def _own_state(self, faults: list[str]) -> Sections:
        oldest = self._spool.oldest_arrival_us() if self._spool.depth else None
        values = {
            "problem": self._health.problem(),
            "note": self._health.note(),
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
        known = self._connections.all()
        names = {each.id: each.name for each in known}
        ages = [sum(fleet.ages[place] for fleet in fleets.values()) for place in range(5)]
        values: Values = {
            "ages": list(zip(queries.AGES, ages, charts.shares(ages))),
            "machines": sum(ages),
            "heard": ages[0],
            "quiet": sum(ages[3:]),
            "fleets": fleets,
            "connections": [(each, token_hint(each)) for each in known[:MOST_CONNECTIONS]],
            "hidden": max(0, len(known) - MOST_CONNECTIONS),
            "reports": sum(fleet.reports for fleet in fleets.values()),
            "newest": max((f.last_seen for f in fleets.values() if f.last_seen), default=None),
            "refused": refused,
            "refusals": sum(each.reports for each in refused),
            "days": REFUSAL_DAYS,
            "names": names,
            "what_to_do": WHAT_TO_DO,
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

    def _read_machines(self, choice: Choice) -> Sections:
        with self._engine.connect() as connection:
            total, rows = queries.machines(connection, choice)
        names = {each.id: each.name for each in self._connections.all()}
        pages = max(1, -(-total // queries.MACHINES_A_PAGE))
        values = {
            "rows": rows,
            "total": total,
            "names": names,
            "choice": choice,
            "pages": min(pages, queries.MAX_PAGES),
            "first": (choice.page - 1) * queries.MACHINES_A_PAGE + 1,
            "freshness": _freshness,
            "link": partial(_link, choice),
        }
        return {"machines": render("machines.html", values)}


def _chart(name: str, chart: charts.Chart) -> str:
    return render("chart.html", {"name": name, "chart": chart})


def _freshness(machine: queries.Machine) -> queries.Age:
    """The class of age that a machine is in."""
    seen = machine.last_seen
    passed = now_us() - round(seen.timestamp() * 1e6) if seen else None
    for age in queries.AGES[:-1]:
        if passed is not None and age.until_us is not None and passed <= age.until_us:
            return age
    return queries.AGES[-1]


def _link(choice: Choice, page: int) -> str:
    """The address of another page of the same choice."""
    fields = {"connection": choice.connection_id, "state": choice.state, "q": choice.text}
    given = {name: value for name, value in fields.items() if value}
    return "?" + urlencode({**given, "page": page}) + "#machines"


def _moment(epoch_us: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(epoch_us / 1e6, datetime.timezone.utc)
