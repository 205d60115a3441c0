"""The parts of a receiver, and the ASGI application for all requests but reports."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from developer_telemetry.config import Network
from developer_telemetry.connections.report_url import (
    BULK_PATH,
    COLLECTOR_HEADER,
    COLLECTOR_PATH,
    REPORT_PATHS,
)
from developer_telemetry.errors import Unavailable
from developer_telemetry.receiver import collector_archive, metrics
from developer_telemetry.receiver.http import openapi
from developer_telemetry.receiver.http.authenticator import Authenticator
from developer_telemetry.receiver.http.report_endpoint import PREFIXES, ReportEndpoint
from developer_telemetry.receiver.http.responses import Answer, answer, refusal
from developer_telemetry.receiver.http.status_endpoint import StatusEndpoint
from developer_telemetry.receiver.ingest.ingestor import Ingestor
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.receiver.jobs.conversion_job import ConversionJob
from developer_telemetry.receiver.jobs.erasure_watcher import ErasureWatcher
from developer_telemetry.receiver.jobs.figure_job import FigureJob
from developer_telemetry.receiver.jobs.fleet_job import FleetJob
from developer_telemetry.receiver.jobs.monitor import Monitor
from developer_telemetry.receiver.jobs.retention_job import RetentionJob
from developer_telemetry.receiver.jobs.spool_drainer import SpoolDrainer
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.receiver.own_page.link_endpoint import LinkEndpoint
from developer_telemetry.receiver.own_page.routes import OwnPage
from developer_telemetry.receiver.web.routes import Page
from developer_telemetry.storage.statistics import ReportCounts

# The longest time to stop one thread; they stop one after the other.
THREAD_SECONDS = 2.0

logger = logging.getLogger(__name__)


class Receiver:
    """The report endpoint, the routes about the receiver, and the threads that they need."""

    def __init__(
        self,
        ingest: Ingestor,
        drainer: SpoolDrainer,
        erasure_watcher: ErasureWatcher,
        retention_job: RetentionJob,
        conversion_job: ConversionJob,
        fleet_job: FleetJob,
        figure_job: FigureJob,
        spool: Spool,
        authenticator: Authenticator,
        monitor: Monitor,
        tallies: ReportCounts,
        metrics: Metrics,
        status_endpoint: StatusEndpoint,
        page: Page,
        own_page: OwnPage,
        link_endpoint: LinkEndpoint,
        trusted_proxies: Sequence[Network],
    ) -> None:
        self._status_endpoint = status_endpoint
        self._page = page
        self._own_page = own_page
        self._link_endpoint = link_endpoint
        self._ingest = ingest
        self._drainer = drainer
        self._erasure_watcher = erasure_watcher
        self._retention_job = retention_job
        self._conversion_job = conversion_job
        self._fleet_job = fleet_job
        self._figure_job = figure_job
        self._spool = spool
        self._monitor = monitor
        self._metrics = metrics
        self.reports = ReportEndpoint(ingest, authenticator, tallies, metrics, trusted_proxies)
        self.app = self._make_app()

    def report_listening(self) -> None:
        """Log that it is ready; it was not before it listened."""
        self._monitor.report_listening()

    def stop(self) -> None:
        """Accept no more reports; those accepted before are still stored and answered."""
        self._monitor.stopping = True
        self.reports.stop()

    def _make_app(self) -> Starlette:
        handlers = {
            "/health/live": self.live,
            "/health/ready": self.ready,
            "/metrics": self.metrics,
            "/openapi.json": self.openapi,
        }
        handlers.update({prefix + COLLECTOR_PATH: self.collector for prefix in PREFIXES})
        errors: dict[Any, Any] = {HTTPException: _http_error, Exception: _server_error}
        routes = [Route(path, handler, methods=["GET"]) for path, handler in handlers.items()]
        report_paths = [prefix + path for prefix in PREFIXES for path in (*REPORT_PATHS, BULK_PATH)]
        routes += [Route(path, self._status_endpoint) for path in report_paths]
        app = Starlette(
            routes=[
                *routes,
                *self._link_endpoint.routes(),
                *self._own_page.routes(),
                *self._page.routes(),
            ],
            lifespan=self._lifespan,
            exception_handlers=errors,
        )
        app.router.redirect_slashes = False  # collectors treat a redirect as a refusal
        return app

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._ingest.start()
        await asyncio.to_thread(self._monitor.start)
        self._erasure_watcher.start()
        self._drainer.start()
        self._retention_job.start()
        self._conversion_job.start()
        self._fleet_job.start()
        self._figure_job.start()
        yield
        self._page.close()
        self._status_endpoint.close()
        await asyncio.to_thread(self._figure_job.stop, THREAD_SECONDS)
        await asyncio.to_thread(self._fleet_job.stop, THREAD_SECONDS)
        await asyncio.to_thread(self._conversion_job.stop, THREAD_SECONDS)
        await asyncio.to_thread(self._retention_job.stop, THREAD_SECONDS)
        await asyncio.to_thread(self._drainer.stop, THREAD_SECONDS)
        await asyncio.to_thread(self._ingest.stop, THREAD_SECONDS)
        await asyncio.to_thread(self._monitor.stop, THREAD_SECONDS)
        await asyncio.to_thread(self._erasure_watcher.stop, THREAD_SECONDS)
        self._spool.close()

    async def live(self, request: Request) -> Answer:
        """Answer that the process is alive."""
        return answer(200, "alive")

    async def ready(self, request: Request) -> Answer:
        """Answer 200 if the receiver can accept a report now, else 503 with the reason."""
        return answer(503 if self._monitor.problem() else 200, self._monitor.public_status())

    async def metrics(self, request: Request) -> Response:
        """Return the metrics in the format of Prometheus."""
        return Response(self._metrics.exposition(), media_type=metrics.CONTENT_TYPE)

    async def collector(self, request: Request) -> Response:
        """Return the collector, which machines fetch before they have a token."""
        archive = await asyncio.to_thread(collector_archive.build_archive)
        headers = {COLLECTOR_HEADER: collector_archive.collector_version()}
        return Response(archive, media_type="application/zip", headers=headers)

    async def openapi(self, request: Request) -> Response:
        """Return the OpenAPI document of the receiver."""
        return Response(openapi.encoded_document(), media_type="application/json")


async def _http_error(request: Request, error: HTTPException) -> Answer:
    if error.status_code == 405:
        response = answer(405, "this path accepts GET only")
    elif error.status_code == 404:
        response = answer(404, f"no such path; send reports to {REPORT_PATHS[0]}")
    else:
        response = answer(error.status_code, error.detail)
    for name, value in (error.headers or {}).items():
        response = response.with_header(name, value)
    return response


async def _server_error(request: Request, error: Exception) -> Answer:
    logger.error("a request failed: %r", error)
    return refusal(Unavailable("the receiver failed; send the request again", 30))
