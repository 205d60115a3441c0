"""The routes: HTTP in, HTTP out. What becomes of a report is decided elsewhere."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Optional

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from developer_telemetry.connections import Connection
from developer_telemetry.errors import ReportRefused, TelemetryError, Unavailable
from developer_telemetry.receiver.bodies import TooLarge, UnknownEncoding, read_body
from developer_telemetry.receiver.doorkeeper import Doorkeeper, NoSuchConnection, Unauthorized
from developer_telemetry.receiver.health import Health
from developer_telemetry.receiver.ingest import Ingest
from developer_telemetry.receiver.tallies import Tallies
from developer_telemetry.reports import parse

REPORT_PATHS = (
    "/plugins/developer-telemetry/{connection_id}/report",
    "/plugins/developer_telemetry/connections/{connection_id}/report",
    "/rest/plugins/developer_telemetry/connections/{connection_id}/report",
)
# The front proxy takes the prefix away, a receiver that is asked directly gets it.
PREFIXES = ("", "/api")

STATUS = {
    ReportRefused: 400,
    Unauthorized: 401,
    NoSuchConnection: 404,
    TooLarge: 413,
    UnknownEncoding: 415,
    Unavailable: 503,
}
# What a refusal is counted under; a fixed few, since every word becomes a row a day.
REASONS = {401: "token", 413: "size", 415: "encoding"}

logger = logging.getLogger(__name__)


class Receiver:
    """The routes' handlers, with what they need."""

    def __init__(
        self, ingest: Ingest, doorkeeper: Doorkeeper, health: Health, tallies: Tallies
    ) -> None:
        self._ingest = ingest
        self._doorkeeper = doorkeeper
        self._health = health
        self._tallies = tallies

    def app(self) -> Starlette:
        """The ASGI application; its lifespan starts and stops the threads behind it."""
        report = [
            Route(prefix + path, self.report, methods=["POST"])
            for path in REPORT_PATHS
            for prefix in PREFIXES
        ]
        health = [
            Route("/health/live", self.live, methods=["GET"]),
            Route("/health/ready", self.ready, methods=["GET"]),
        ]
        app = Starlette(
            routes=[*report, *health],
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _http_error, Exception: _server_error},
        )
        app.router.redirect_slashes = False  # a collector takes a redirect as a refusal
        return app

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._ingest.start()
        await asyncio.to_thread(self._health.start)
        yield
        await asyncio.to_thread(self._ingest.stop)
        await asyncio.to_thread(self._health.stop)

    async def report(self, request: Request) -> Response:
        """Take one report: 200 means that it is stored."""
        connection: Optional[Connection] = None
        try:
            connection = await self._doorkeeper.admit(
                request.path_params["connection_id"],
                request.headers.get("authorization", ""),
                must_have_token="/rest/" in request.url.path,
            )
            encoding = request.headers.get("content-encoding", "")
            report = parse(await read_body(request.stream(), encoding))
            await self._ingest.keep(connection, report)
        except TelemetryError as error:
            return self._refuse(error, connection)
        except ClientDisconnect:
            return _answer(400, "the body ended too early")
        return _answer(200, "report stored")

    async def live(self, request: Request) -> Response:
        """Whether the process answers at all."""
        return _answer(200, "alive")

    async def ready(self, request: Request) -> Response:
        """Whether a report sent now could be kept, and if not, why."""
        problem = self._health.problem
        return _answer(503 if problem else 200, problem or "ready")

    def _refuse(self, error: TelemetryError, connection: Optional[Connection]) -> Response:
        status = STATUS[type(error)]
        if isinstance(error, Unauthorized):
            self._tallies.refused(error.connection_id, REASONS[status])
        elif connection is not None and status < 500:
            reason = error.field if isinstance(error, ReportRefused) else REASONS[status]
            self._tallies.refused(connection.id, reason)
        return _answer(status, str(error), error)


def _answer(status: int, message: str, error: Optional[TelemetryError] = None) -> Response:
    """An answer in the shape of DevLake's own."""
    content: dict[str, object] = {"success": status == 200, "message": message}
    headers: dict[str, str] = {}
    if isinstance(error, ReportRefused):
        faults: list[dict[str, str]] = [{"field": error.field, "message": error.message}]
        content["message"] = f"{error.field}: {error.message}"
        content["errors"] = faults
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return Response(msgspec.json.encode(content), status, headers, "application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        response = _answer(405, "send a report with POST")
    elif error.status_code == 404:
        response = _answer(404, f"nothing here; send reports to {REPORT_PATHS[0]}")
    else:
        response = _answer(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response


async def _server_error(request: Request, error: Exception) -> Response:
    logger.error("a request failed: %r", error)
    return _answer(503, "the receiver failed; send this again", Unavailable("", 30))
