"""The parts of a receiver, and the ASGI application that answers every request but a report."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from developer_telemetry.errors import Unavailable
from developer_telemetry.receiver import metrics
from developer_telemetry.receiver.http import openapi
from developer_telemetry.receiver.http.authenticator import Authenticator
from developer_telemetry.receiver.http.report_endpoint import (
    BULK_PATH,
    PREFIXES,
    REPORT_PATHS,
    ReportEndpoint,
)
from developer_telemetry.receiver.http.responses import Answer, answer, refusal
from developer_telemetry.receiver.http.status_endpoint import StatusEndpoint
from developer_telemetry.receiver.ingest.ingestor import Ingestor
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.receiver.jobs.erasure_watcher import ErasureWatcher
from developer_telemetry.receiver.jobs.monitor import Monitor
from developer_telemetry.receiver.jobs.retention_job import RetentionJob
from developer_telemetry.receiver.jobs.spool_drainer import SpoolDrainer
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.receiver.web.routes import Page
from developer_telemetry.storage.statistics import Tallies

# What is left of the time to stop is shared by the threads that end one after another.
THREAD_SECONDS = 2.0

logger = logging.getLogger(__name__)


class Receiver:
    """The whole of it: what takes reports, what answers looks, and the threads behind."""

    def __init__(
        self,
        ingest: Ingestor,
        drainer: SpoolDrainer,
        erasure_watcher: ErasureWatcher,
        retention_job: RetentionJob,
        spool: Spool,
        authenticator: Authenticator,
        monitor: Monitor,
        tallies: Tallies,
        figures: Metrics,
        status_endpoint: StatusEndpoint,
        page: Page,
    ) -> None:
        self._status_endpoint = status_endpoint
        self._page = page
        self._ingest = ingest
        self._drainer = drainer
        self._erasure_watcher = erasure_watcher
        self._retention_job = retention_job
        self._spool = spool
        self._monitor = monitor
        self._metrics = figures
        self.reports = ReportEndpoint(ingest, authenticator, tallies, figures)
        self.app = self._make_app()

    def stop(self) -> None:
        """Take nothing more; what was accepted is still written and answered."""
        self._monitor.stopping = True
        self.reports.stop()

    def _make_app(self) -> Starlette:
        handlers = {
            "/health/live": self.live,
            "/health/ready": self.ready,
            "/metrics": self.metrics,
            "/openapi.json": self.openapi,
        }
        errors: dict[Any, Any] = {HTTPException: _http_error, Exception: _server_error}
        routes = [Route(path, handler, methods=["GET"]) for path, handler in handlers.items()]
        report_paths = [prefix + path for prefix in PREFIXES for path in (*REPORT_PATHS, BULK_PATH)]
        routes += [Route(path, self._status_endpoint) for path in report_paths]
        app = Starlette(
            routes=[*routes, *self._page.routes()],
            lifespan=self._lifespan,
            exception_handlers=errors,
        )
        app.router.redirect_slashes = False  # a collector takes a redirect as a refusal
        return app

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._ingest.start()
        await asyncio.to_thread(self._monitor.start)
        self._erasure_watcher.start()
        self._drainer.start()
        self._retention_job.start()
        yield
        self._page.close()
        self._status_endpoint.close()
        await asyncio.to_thread(self._retention_job.stop, THREAD_SECONDS)
        await asyncio.to_thread(self._drainer.stop, THREAD_SECONDS)
        await asyncio.to_thread(self._ingest.stop, THREAD_SECONDS)
        await asyncio.to_thread(self._monitor.stop, THREAD_SECONDS)
        await asyncio.to_thread(self._erasure_watcher.stop, THREAD_SECONDS)
        self._spool.close()

    async def live(self, request: Request) -> Answer:
        """Whether the process answers at all."""
        return answer(200, "alive")

    async def ready(self, request: Request) -> Answer:
        """Whether a report sent now could be kept, and what anybody may know of why not."""
        return answer(503 if self._monitor.problem() else 200, self._monitor.public_status())

    async def metrics(self, request: Request) -> Response:
        """Figures for Prometheus."""
        return Response(self._metrics.page(), media_type=metrics.CONTENT_TYPE)

    async def openapi(self, request: Request) -> Response:
        """What there is to ask, for programs."""
        return Response(openapi.DOCUMENT, media_type="application/json")


async def _http_error(request: Request, error: HTTPException) -> Answer:
    if error.status_code == 405:
        given = answer(405, "look at it with GET")
    elif error.status_code == 404:
        given = answer(404, f"nothing here; send reports to {REPORT_PATHS[0]}")
    else:
        given = answer(error.status_code, error.detail)
    for name, value in (error.headers or {}).items():
        given = given.with_header(name, value)
    return given


async def _server_error(request: Request, error: Exception) -> Answer:
    logger.error("a request failed: %r", error)
    return refusal(Unavailable("the receiver failed; ask again", 30))
