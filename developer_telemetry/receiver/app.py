"""The routes: HTTP in, HTTP out. What becomes of a report is decided elsewhere."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Optional

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from developer_telemetry.connections import Connection
from developer_telemetry.errors import ReportRefused, TelemetryError
from developer_telemetry.receiver import metrics
from developer_telemetry.receiver.answers import answer, bulk_answer, refusal, status_of
from developer_telemetry.receiver.bodies import (
    MANY_REPORTS,
    ONE_REPORT,
    Bodies,
    TooLarge,
    inflate,
)
from developer_telemetry.receiver.bulk import Bulk
from developer_telemetry.receiver.doorkeeper import Doorkeeper, Unauthorized
from developer_telemetry.receiver.drain import Drain
from developer_telemetry.receiver.health import Health
from developer_telemetry.receiver.ingest import Ingest
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.receiver.spool import Spool
from developer_telemetry.receiver.tallies import Tallies
from developer_telemetry.reports import parse

REPORT_PATHS = (
    "/plugins/developer-telemetry/{connection_id}/report",
    "/plugins/developer_telemetry/connections/{connection_id}/report",
    "/rest/plugins/developer_telemetry/connections/{connection_id}/report",
)
BULK_PATH = "/plugins/developer-telemetry/{connection_id}/reports"
# The front proxy takes the prefix away, a receiver that is asked directly gets it.
PREFIXES = ("", "/api")
# What is left of the time to stop is shared by the threads that end one after another.
THREAD_SECONDS = 4.0

# What a refusal is counted under; a fixed few, since every word becomes a row a day.
REASONS = {401: "token", 413: "size", 415: "encoding", 503: "unavailable"}

logger = logging.getLogger(__name__)


class Receiver:
    """The routes' handlers, with what they need."""

    def __init__(
        self,
        ingest: Ingest,
        drain: Drain,
        spool: Spool,
        doorkeeper: Doorkeeper,
        health: Health,
        tallies: Tallies,
        figures: Metrics,
    ) -> None:
        self._ingest = ingest
        self._drain = drain
        self._spool = spool
        self._doorkeeper = doorkeeper
        self._health = health
        self._tallies = tallies
        self._metrics = figures
        self._bodies = Bodies()

    def app(self) -> Starlette:
        """The ASGI application; its lifespan starts and stops the threads behind it."""
        routes = [
            Route(prefix + path, handler, methods=["POST"])
            for path, handler in [
                *((path, self.report) for path in REPORT_PATHS),
                (BULK_PATH, self.reports),
            ]
            for prefix in PREFIXES
        ]
        looks = {
            "/health/live": self.live,
            "/health/ready": self.ready,
            "/metrics": self.metrics,
        }
        routes += [Route(path, handler, methods=["GET"]) for path, handler in looks.items()]
        app = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _http_error, Exception: _server_error},
        )
        app.router.redirect_slashes = False  # a collector takes a redirect as a refusal
        return app

    def stop(self) -> None:
        """Take nothing more; what was accepted is still written and answered."""
        self._health.stopping = True
        self._bodies.stop()

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._ingest.start()
        await asyncio.to_thread(self._health.start)
        self._drain.start()
        yield
        await asyncio.to_thread(self._drain.stop, THREAD_SECONDS)
        await asyncio.to_thread(self._ingest.stop, THREAD_SECONDS)
        await asyncio.to_thread(self._health.stop, THREAD_SECONDS)
        self._spool.close()

    async def report(self, request: Request) -> Response:
        """Take one report: 200 means that it is on disk."""
        return await self._guarded(request, self._take_one)

    async def reports(self, request: Request) -> Response:
        """Take many reports: 200 means that every valid one is on disk."""
        return await self._guarded(request, self._take_many)

    async def live(self, request: Request) -> Response:
        """Whether the process answers at all."""
        return answer(200, "alive")

    async def ready(self, request: Request) -> Response:
        """Whether a report sent now could be kept, and if not, why."""
        problem = self._health.problem()
        return answer(503 if problem else 200, problem or self._health.note() or "ready")

    async def metrics(self, request: Request) -> Response:
        """Figures for Prometheus."""
        return Response(self._metrics.page(), media_type=metrics.CONTENT_TYPE)

    async def _guarded(
        self, request: Request, take: Callable[[Request, Connection], Awaitable[Response]]
    ) -> Response:
        started = time.monotonic()
        connection: Optional[Connection] = None
        try:
            connection = await self._doorkeeper.admit(
                request.path_params["connection_id"],
                request.headers.get("authorization", ""),
                must_have_token="/rest/" in request.url.path,
            )
            response = await take(request, connection)
        except TelemetryError as error:
            self._count(error, connection)
            response = refusal(error)
        if response.status_code != 200:
            _log_refusal(request, response)
        self._metrics.answered(response.status_code, time.monotonic() - started)
        return response

    async def _take_one(self, request: Request, connection: Connection) -> Response:
        encoding = request.headers.get("content-encoding", "")
        body = await self._bodies.read(request.stream(), encoding, ONE_REPORT)
        report = parse(b"".join(inflate(body, encoding, ONE_REPORT)))
        await self._ingest.keep(connection, report)
        return answer(200, "report stored")

    async def _take_many(self, request: Request, connection: Connection) -> Response:
        encoding = request.headers.get("content-encoding", "")
        body = await self._bodies.read(request.stream(), encoding, MANY_REPORTS)
        bulk = Bulk(self._ingest, connection)
        try:
            await bulk.take(inflate(body, encoding, MANY_REPORTS))
        except (ReportRefused, TooLarge) as error:
            bulk.refuse_rest(error)
        for failure in bulk.errors:
            self._count(failure, connection)
        return bulk_answer(bulk.results)

    def _count(self, error: TelemetryError, connection: Optional[Connection]) -> None:
        if isinstance(error, Unauthorized):
            connection_id = error.connection_id
        elif connection is not None:
            connection_id = connection.id
        else:
            return
        status = status_of(error)
        reason = error.field if isinstance(error, ReportRefused) else REASONS[status]
        self._metrics.refused(connection_id, reason)
        if status < 500:
            self._tallies.refused(connection_id, reason)


def _log_refusal(request: Request, response: Response) -> None:
    request_id = uuid.uuid4().hex
    response.headers["X-Request-ID"] = request_id
    logger.info(
        "refused %s with %d, request %s", request.url.path, response.status_code, request_id
    )


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        response = answer(405, "send a report with POST")
    elif error.status_code == 404:
        response = answer(404, f"nothing here; send reports to {REPORT_PATHS[0]}")
    else:
        response = answer(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response


async def _server_error(request: Request, error: Exception) -> Response:
    logger.error("a request failed: %r", error)
    return answer(503, "the receiver failed; send this again", retry_after=30)
