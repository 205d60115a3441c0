"""The report routes, the way that every report takes: plain ASGI, since a framework's request and
response objects would cost as much as all the rest of it, and a short cut for what came whole."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from typing import Optional

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from developer_telemetry.connections.registry import Connection
from developer_telemetry.errors import ReportRefused, TelemetryError, Unavailable
from developer_telemetry.receiver.http.authenticator import (
    Doorkeeper,
    TokenUnreadable,
    Unauthorized,
)
from developer_telemetry.receiver.http.body_reader import Bodies, inflated_within
from developer_telemetry.receiver.http.parser_pool import SMALL_BYTES, Parsers
from developer_telemetry.receiver.http.responses import (
    Answer,
    answer,
    bulk_answer,
    refusal,
    status_of,
)
from developer_telemetry.receiver.http.status_endpoint import StatusEndpoint
from developer_telemetry.receiver.ingest.ingestor import Ingest
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.reports.limits import MANY_REPORTS, ONE_REPORT
from developer_telemetry.storage.statistics import Tallies

REPORT_PATHS = (
    "/plugins/developer-telemetry/{connection_id}/report",
    "/plugins/developer_telemetry/connections/{connection_id}/report",
    "/rest/plugins/developer_telemetry/connections/{connection_id}/report",
)
BULK_PATH = "/plugins/developer-telemetry/{connection_id}/reports"

# The front proxy takes `/api` away, a receiver that is asked directly gets it.
PREFIXES = ("", "/api")

_ROUTE = re.compile(
    f"(?:{'|'.join(PREFIXES)})/(?:"
    + "|".join(
        path[1:].replace("{connection_id}", f"(?P<{name}>[^/]+)")
        for name, path in zip(("first", "second", "rest", "bulk"), (*REPORT_PATHS, BULK_PATH))
    )
    + ")"
)
# Importers are few, and can wait: of these, two are parsed at a time.
BULKS_AT_ONCE = 8
# As much as a few milliseconds are enough to parse, whatever it holds and whatever a connection's
# privacy does to it; a day's report is about 2 kB. More is parsed in a thread.
AT_ONCE_BYTES = 4 << 10
STORED = answer(200, "report stored")

# What a refusal is counted under; a fixed few, since every word becomes a row a day.
REASONS = {401: "token", 413: "size", 415: "encoding", 503: "unavailable"}
UNREADABLE = "secret"

logger = logging.getLogger(__name__)


class Intake:
    """Takes reports at their routes, where `status_endpoint` answers requests without a report;
    all other requests are for `others`."""

    def __init__(
        self,
        ingest: Ingest,
        doorkeeper: Doorkeeper,
        tallies: Tallies,
        metrics: Metrics,
        status_endpoint: StatusEndpoint,
        others: ASGIApp,
    ) -> None:
        self._ingest = ingest
        self._doorkeeper = doorkeeper
        self._tallies = tallies
        self._metrics = metrics
        self._status_endpoint = status_endpoint
        self._others = others
        self._bodies = Bodies()
        self._parsers = Parsers()
        self._bulks = 0

    def stop(self) -> None:
        """Answer those who are still sending that they have to come back."""
        self._bodies.stop()
        self._parsers.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        route = _ROUTE.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if route is None:
            await self._others(scope, receive, send)
        elif scope["method"] != "POST":
            number = route[str(route.lastgroup)]
            given = await self._status_endpoint.answer(scope, number)
            await given(scope, receive, send)
        else:
            with ExitStack() as until_sent:
                given = await self._take(scope, receive, route, until_sent)
                await given(scope, receive, send)

    def take_at_once(self, scope: Scope, body: bytes, respond: Callable[[Answer], None]) -> bool:
        """Take one report whose body is there; `respond` gets the answer, now or later.

        A short cut for what collectors send: False says that it is none for this request, and
        that nothing was done, so it goes the long way.
        """
        started = time.monotonic()
        route = _ROUTE.fullmatch(scope["path"])
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if (
            route is None
            or route.lastgroup == "bulk"
            or scope["method"] != "POST"
            or b"content-encoding" in headers
            or len(body) > AT_ONCE_BYTES
            or self._bodies.stopping
        ):
            return False
        try:
            connection = self._doorkeeper.check(*_credentials(route, headers))
        except TelemetryError:
            return False  # the database has to be asked

        def done(error: Optional[TelemetryError]) -> None:
            given = STORED if error is None else self._refused(error, connection)
            respond(self._noted(given, route, started))

        try:
            self._ingest.put(connection, connection.parse(body), done)
        except TelemetryError as error:
            done(error)
        except Exception as error:
            done(_fault(error))
        return True

    async def _take(
        self, scope: Scope, receive: Receive, route: re.Match[str], until_sent: ExitStack
    ) -> Answer:
        started = time.monotonic()
        connection: Optional[Connection] = None
        headers: dict[bytes, bytes] = dict(scope["headers"])
        encoding = headers.get(b"content-encoding", b"").decode("latin-1")
        try:
            connection = await self._doorkeeper.admit(*_credentials(route, headers))
            if route.lastgroup == "bulk":
                self._begin_bulk(until_sent)
                given = await self._take_many(connection, _chunks(receive), encoding)
            else:
                given = await self._take_one(connection, _chunks(receive), encoding)
        except TelemetryError as error:
            given = self._refused(error, connection)
        except Exception as error:
            given = self._refused(_fault(error), connection)
        return self._noted(given, route, started)

    async def _take_one(
        self, connection: Connection, chunks: AsyncIterator[bytes], encoding: str
    ) -> Answer:
        sent = await self._bodies.read(chunks, encoding, ONE_REPORT)
        body = inflated_within(sent, encoding, SMALL_BYTES)
        if body is None:
            report = await self._parsers.large(connection, sent, encoding)
        elif len(body) > AT_ONCE_BYTES:
            report = await self._parsers.small(connection, body)
        else:
            report = connection.parse(body)
        await self._ingest.keep(connection, report)
        return STORED

    def _begin_bulk(self, until_sent: ExitStack) -> None:
        """Count one of those there may be at a time, until most of its answer is read."""
        if self._bulks >= BULKS_AT_ONCE:
            raise Unavailable("too many large bodies are being read; send this again")
        self._bulks += 1
        until_sent.callback(self._end_bulk)

    def _end_bulk(self) -> None:
        self._bulks -= 1

    async def _take_many(
        self, connection: Connection, chunks: AsyncIterator[bytes], encoding: str
    ) -> Answer:
        body = await self._bodies.read(chunks, encoding, MANY_REPORTS)
        results = await self._parsers.many(connection, body, encoding, self._ingest)
        for result in results:
            if result.status != 200:
                reason = result.field if result.status == 400 else REASONS[result.status]
                self._count_as(reason, result.status, connection.id)
        return bulk_answer(results)

    def _refused(self, error: TelemetryError, connection: Optional[Connection]) -> Answer:
        self._count(error, connection)
        return refusal(error)

    def _noted(self, given: Answer, route: re.Match[str], started: float) -> Answer:
        """Every answer comes by here."""
        self._metrics.answered(given.status, time.monotonic() - started)
        return given if given.status == 200 else _logged(given, route[str(route.lastgroup)])

    def _count(self, error: TelemetryError, connection: Optional[Connection]) -> None:
        if isinstance(error, (Unauthorized, TokenUnreadable)):
            connection_id = error.connection_id
        elif connection is not None:
            connection_id = connection.id
        else:
            return
        status = status_of(error)
        self._count_as(_reason(error, status), status, connection_id)

    def _count_as(self, reason: str, status: int, connection_id: int) -> None:
        self._metrics.refused(connection_id, reason)
        # What ends by itself, such as an outage, is no refusal to an operator.
        if status < 500 or reason == UNREADABLE:
            self._tallies.refused(connection_id, reason)


def _reason(error: TelemetryError, status: int) -> str:
    """What a refusal is counted under."""
    if isinstance(error, TokenUnreadable):
        return UNREADABLE
    return error.field if isinstance(error, ReportRefused) else REASONS[status]


def _credentials(route: re.Match[str], headers: Mapping[bytes, bytes]) -> tuple[str, bytes, bool]:
    """Who asks to report where, as the doorkeeper wants to know it."""
    kind = str(route.lastgroup)
    return route[kind], headers.get(b"authorization", b""), kind == "rest"


def _fault(error: Exception) -> Unavailable:
    # Its text may hold the body.
    logger.error("a request failed: %s", type(error).__name__)
    return Unavailable("the receiver failed; send this again", 30)


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        yield message.get("body", b"")
        more = message.get("more_body", False)


def _logged(given: Answer, connection_id: str) -> Answer:
    request_id = uuid.uuid4().hex
    # What a stranger writes there may be anything: an invented line, a token, a home path.
    logger.info(
        "refused a request for connection %s with %d, request %s",
        connection_id if connection_id.isdigit() and len(connection_id) < 19 else "?",
        given.status,
        request_id,
        extra={"request_id": request_id},
    )
    return given.with_header("X-Request-ID", request_id)
