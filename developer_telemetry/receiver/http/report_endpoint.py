"""The report routes, and the one way that every report takes from its request to its answer.

No framework is involved: its request and response objects would cost as much as everything else.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple, Optional, TypeVar

from developer_telemetry.config import Network
from developer_telemetry.connections.registry import Connection
from developer_telemetry.connections.report_url import BULK_PATH, REPORT_PATHS
from developer_telemetry.errors import ConnectionDeleted, TelemetryError, Unavailable
from developer_telemetry.receiver.http.authenticator import (
    Authenticator,
    TokenUnreadable,
    Unauthorized,
)
from developer_telemetry.receiver.http.body_reader import BodyReader, inflated_within
from developer_telemetry.receiver.http.bulk_upload import Result
from developer_telemetry.receiver.http.exchange import Exchange
from developer_telemetry.receiver.http.message_parser import Head
from developer_telemetry.receiver.http.parser_pool import SMALL_BYTES, Parsers
from developer_telemetry.receiver.http.peer_address import find_sender_address
from developer_telemetry.receiver.http.refusals import (
    log_refusal,
    log_refused_report,
    message_of,
    message_of_result,
    reason_of,
    reason_of_result,
    sender_of,
)
from developer_telemetry.receiver.http.responses import (
    Answer,
    answer,
    bulk_answer,
    refusal,
    status_of,
)
from developer_telemetry.receiver.ingest.ingestor import Ingestor
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.reports.limits import MANY_REPORTS, ONE_REPORT
from developer_telemetry.reports.parser import TEXT_LIMIT, Report
from developer_telemetry.reports.pseudonyms import HOST
from developer_telemetry.reports.refusal_reasons import UNREADABLE
from developer_telemetry.reports.sender import Sender
from developer_telemetry.storage.fleet.refused_machines import RefusalDetails
from developer_telemetry.storage.fleet.user_agents import decode_user_agent
from developer_telemetry.storage.statistics import ReportCounts

T = TypeVar("T")

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
# Importers are few, and can wait: two of these bodies are parsed at a time.
BULKS_AT_ONCE = 8
# A body of this size takes a few milliseconds to parse with any content and privacy settings; a
# day's report is about 2 kB. A larger one is parsed in a thread.
AT_ONCE_BYTES = 4 << 10
STORED = answer(200, "report stored")

logger = logging.getLogger(__name__)


class Route(NamedTuple):
    """One of the report routes, for one connection."""

    connection_id: str
    is_bulk: bool
    must_have_token: bool


@lru_cache(maxsize=64)
def _route_of(path: str) -> Optional[Route]:
    # All machines of a connection send to the same path.
    match = _ROUTE.fullmatch(path)
    if match is None:
        return None
    kind = str(match.lastgroup)
    return Route(match[kind], is_bulk=kind == "bulk", must_have_token=kind == "rest")


class ReportEndpoint:
    """Takes each `POST` of a report route from the connection that it arrives on."""

    def __init__(
        self,
        ingest: Ingestor,
        authenticator: Authenticator,
        tallies: ReportCounts,
        metrics: Metrics,
        trusted_proxies: Sequence[Network] = (),
    ) -> None:
        """Take the networks of the proxies whose X-Forwarded-For is read."""
        self.ingest = ingest
        self.authenticator = authenticator
        self.bodies = BodyReader()
        self.parsers = Parsers()
        self.counts = tallies
        self._metrics = metrics
        self._trusted_proxies = trusted_proxies
        self._bulks = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Refuse the bodies that are still being read or parsed: their senders have to repeat."""
        self.bodies.stop()
        self.parsers.stop()

    def route(self, head: Head) -> Optional[Route]:
        """Return the route of a request that is for this endpoint, None for any other."""
        return _route_of(head.path) if head.method == "POST" else None

    def take(self, exchange: Exchange, route: Route) -> None:
        """Take a request that has a route here; the answer follows, now or later."""
        _Submission(self, exchange, route).begin()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a step that has to wait."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextmanager
    def bulk_upload(self) -> Iterator[None]:
        """Count one of the bulk uploads that there may be at a time."""
        if self._bulks >= BULKS_AT_ONCE:
            raise Unavailable("too many large bodies are being read; send this again")
        self._bulks += 1
        try:
            yield
        finally:
            self._bulks -= 1

    def answered(self, status: int, seconds: float) -> None:
        """Count an answer."""
        self._metrics.answered(status, seconds)

    def find_sender_address(self, exchange: Exchange) -> str:
        """Return the IP address of the machine that sent a request."""
        return find_sender_address(exchange.peer, exchange.head.headers, self._trusted_proxies)

    def refused(
        self, reason: str, status: int, connection_id: int, details: RefusalDetails
    ) -> None:
        """Count a refused report."""
        self._metrics.refused(connection_id, reason)
        # An error that ends by itself, such as an outage, is no refusal to an operator.
        if status < 500 or reason == UNREADABLE:
            self.counts.refused(connection_id, reason, details)


class _Submission:
    """One request on its way, a step at a time: admit, read, parse, store, answer.

    A step calls the next one. Only a step that has to wait becomes a task: an ordinary report, with
    its body in the first packets and its token in memory, needs none until it is stored.
    """

    __slots__ = (
        "_authorization",
        "_connection",
        "_counted_for",
        "_encoding",
        "_endpoint",
        "_exchange",
        "_route",
        "_started",
        "_user_agent",
    )

    def __init__(self, endpoint: ReportEndpoint, exchange: Exchange, route: Route) -> None:
        self._started = time.monotonic()
        self._endpoint = endpoint
        self._exchange = exchange
        self._route = route
        self._connection: Connection
        self._counted_for: Optional[int] = None  # the connection's id, once it is admitted
        headers = exchange.head.fields
        self._authorization = headers.get(b"authorization", b"")
        self._encoding = headers.get(b"content-encoding", b"").decode("latin-1")
        self._user_agent = headers.get(b"user-agent", b"")

    def begin(self) -> None:
        """Take the first step, and as many of the others as need not wait."""
        try:
            self._admit()
        except Exception as error:
            self._fail(error)

    def _admit(self) -> None:
        authenticator, route = self._endpoint.authenticator, self._route
        credentials = (route.connection_id, self._authorization, route.must_have_token)
        try:
            connection = authenticator.check(*credentials)
        except TelemetryError:  # the database may know better
            self._continue_with(authenticator.admit(*credentials), self._read)
        else:
            self._read(connection)

    def _read(self, connection: Connection) -> None:
        self._connection = connection
        self._counted_for = connection.id
        exchange, bodies = self._exchange, self._endpoint.bodies
        if self._route.is_bulk:
            self._run(self._take_many())
        elif exchange.body_complete:
            bodies.check(len(exchange.body), self._encoding, ONE_REPORT)
            self._parse(exchange.take_body())
        else:
            reading = bodies.read(exchange.pieces(), self._encoding, ONE_REPORT)
            self._continue_with(reading, self._parse)

    def _parse(self, sent: bytes) -> None:
        connection, parsers = self._connection, self._endpoint.parsers
        body = inflated_within(sent, self._encoding, SMALL_BYTES)
        if body is None:
            self._continue_with(parsers.parse_large(connection, sent, self._encoding), self._store)
        elif len(body) > AT_ONCE_BYTES:
            self._continue_with(parsers.parse_small(connection, body), self._store)
        else:
            self._store(connection.parse(body))

    def _store(self, report: Report) -> None:
        self._endpoint.ingest.put(self._connection, report, self._stored)
        machine = (self._connection.id, report.developer_id, report.hostname)
        self._endpoint.counts.sent_by(machine, self._user_agent)

    def _stored(self, error: Optional[TelemetryError]) -> None:
        if error is None:
            self._answer(STORED)
        else:
            self._fail(error)

    async def _take_many(self) -> None:
        endpoint, connection = self._endpoint, self._connection
        with endpoint.bulk_upload():
            pieces = self._exchange.pieces()
            body = await endpoint.bodies.read(pieces, self._encoding, MANY_REPORTS)
            results, senders = await endpoint.parsers.ingest_many(
                connection, body, self._encoding, endpoint.ingest
            )
            self._refuse_results(results, senders)
            self._answer(bulk_answer(results))
            await self._exchange.sent()  # a large answer stays in memory until then

    def _refuse_results(self, results: Sequence[Result], senders: Mapping[int, Sender]) -> None:
        endpoint, connection_id = self._endpoint, self._connection.id
        refused = [result for result in results if result.status != 200]
        for result in refused:
            details = self._details(message_of_result(result), senders.get(result.index, Sender()))
            if result is refused[0]:
                log_refused_report(connection_id, details, len(refused) - 1)
            reason = reason_of_result(result)
            endpoint.refused(reason, result.status, connection_id, details)

    def _details(self, message: str, sender: Sender) -> RefusalDetails:
        """Return what is noted of a refused report that was sent with a valid token."""
        exchange, rules = self._exchange, self._connection.privacy
        address = self._endpoint.find_sender_address(exchange)
        pseudonyms = rules.pseudonyms if rules is not None else None
        if pseudonyms is not None and address:
            address = pseudonyms.pseudonymize(HOST, address)
        user_agent = decode_user_agent(self._user_agent)
        return RefusalDetails(*sender, address, user_agent, message[:TEXT_LIMIT])

    def _continue_with(self, awaited: Awaitable[T], step: Callable[[T], None]) -> None:
        """Run `step` with the result of `awaited`."""

        async def run_step() -> None:
            step(await awaited)

        self._run(run_step())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        async def run_work() -> None:
            try:
                await work
            except Exception as error:
                self._fail(error)

        self._endpoint.run(run_work())

    def _fail(self, error: Exception) -> None:
        if isinstance(error, ConnectionDeleted):
            self._counted_for = None  # it would be another row of that connection
            self._run(self._endpoint.authenticator.refuse_deleted(self._route.connection_id))
        else:
            self._refuse(error if isinstance(error, TelemetryError) else _fault(error))

    def _refuse(self, error: TelemetryError) -> None:
        status = status_of(error)
        details: Optional[RefusalDetails] = None
        if isinstance(error, (Unauthorized, TokenUnreadable)):
            address = self._endpoint.find_sender_address(self._exchange)
            stranger = RefusalDetails(address=address)
            self._endpoint.refused(reason_of(error, status), status, error.connection_id, stranger)
        elif self._counted_for is not None:
            details = self._details(message_of(error), sender_of(error))
            self._endpoint.refused(reason_of(error, status), status, self._counted_for, details)
        self._answer(refusal(error), details)

    def _answer(self, content: Answer, refused: Optional[RefusalDetails] = None) -> None:
        self._endpoint.answered(content.status, time.monotonic() - self._started)
        if content.status != 200:
            request_id = log_refusal(self._route.connection_id, content.status, refused)
            content = content.with_header("X-Request-ID", request_id)
        self._exchange.respond(content)


def _fault(error: Exception) -> Unavailable:
    # Its text may hold the body.
    logger.error("a request failed: %s", type(error).__name__)
    return Unavailable("the receiver failed; send this again", 30)
