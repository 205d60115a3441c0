"""Put the receiver together and run it."""

from __future__ import annotations

import asyncio
import signal
import sys
from types import FrameType
from typing import Optional

import uvicorn
from sqlalchemy.engine import Engine
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from developer_telemetry.connections import Connections
from developer_telemetry.dialects import now_us, open_writing_engine
from developer_telemetry.receiver.app import Receiver
from developer_telemetry.receiver.doorkeeper import Doorkeeper
from developer_telemetry.receiver.drain import Drain
from developer_telemetry.receiver.health import Health
from developer_telemetry.receiver.ingest import Ingest, Outage
from developer_telemetry.receiver.logs import set_up_logs
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.receiver.settings import Settings
from developer_telemetry.receiver.spool import Spool
from developer_telemetry.receiver.tallies import Tallies

# nginx keeps its connections to an upstream for 60 s; being the first to close loses requests.
KEEP_ALIVE_SECONDS = 75
# From the start of a connection or a request to the end of its headers.
HEADER_SECONDS = 10.0
# The thread that writes waits for the database several times in a transaction; after each it would
# wait as long as this for its turn among Python's threads.
SWITCH_SECONDS = 0.0005
# How long answers may take after SIGTERM; the threads behind them end in the seconds after.
STOP_SECONDS = 5


class Protocol(HttpToolsProtocol):
    """Cuts off who opens a connection and then takes his time with the headers."""

    _header_timer: Optional[asyncio.TimerHandle] = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._have_headers()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_headers()

    def on_headers_complete(self) -> None:
        self._have_headers()
        super().on_headers_complete()

    def _expect_headers(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(HEADER_SECONDS, self._cut_off)

    def _have_headers(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _cut_off(self) -> None:
        self._header_timer = None
        self.transport.close()


class Server(uvicorn.Server):
    """Tells the receiver at once when it is asked to stop."""

    def __init__(self, config: uvicorn.Config, receiver: Receiver) -> None:
        super().__init__(config)
        self._receiver = receiver

    def handle_exit(self, sig: int, frame: Optional[FrameType]) -> None:
        super().handle_exit(sig, frame)
        self._receiver.stop()


def make_receiver(engine: Engine, settings: Settings) -> Receiver:
    """The receiver of one database."""
    spool = Spool(settings.spool_dir, settings.spool_max_bytes)
    memory = settings.spool_dir / "connections.json"
    connections = Connections(engine, settings.encryption_secret, memory)
    outage, tallies, metrics = Outage(), Tallies(), Metrics()
    writing = open_writing_engine(settings.db_url)
    ingest = Ingest(writing, spool, outage, tallies, metrics)
    drain = Drain(writing, spool, outage, connections, tallies, metrics)
    health = Health(engine, connections, ingest, spool, outage, tallies)
    doorkeeper = Doorkeeper(connections, settings.require_token)
    metrics.gauge("telemetry_queue", "Reports that wait for an answer", lambda: ingest.waiting)
    metrics.gauge("telemetry_database_up", "1 if it takes reports", lambda: not outage)
    metrics.gauge("telemetry_spool_reports", "Reports in the spool", lambda: spool.depth)
    metrics.gauge("telemetry_spool_dead", "Reports set aside for good", lambda: spool.dead)
    metrics.gauge("telemetry_spool_bytes", "The spool's size on disk", lambda: spool.bytes)
    metrics.gauge(
        "telemetry_spool_corruptions", "Spool files found damaged", lambda: spool.corruptions
    )
    metrics.gauge(
        "telemetry_spool_age_seconds", "Age of what waits longest", lambda: spool_age(spool)
    )
    return Receiver(ingest, drain, spool, doorkeeper, health, tallies, metrics)


def spool_age(spool: Spool) -> float:
    """How long the oldest report has waited in the spool, in seconds; 0 if none does."""
    oldest = spool.oldest_arrival_us() if spool.depth else None
    return 0.0 if oldest is None else max(0.0, (now_us() - oldest) / 1_000_000)


def serve(engine: Engine, settings: Settings) -> None:
    """Take reports until SIGTERM or SIGINT."""
    set_up_logs(settings.log_level, settings.log_format)
    receiver = make_receiver(engine, settings)
    # uvicorn stops in good order and then repeats the signal, which would end us as if killed.
    signal.signal(signal.SIGTERM, _leave)
    config = uvicorn.Config(
        receiver.app,
        host=settings.host,
        port=settings.port,
        http=Protocol,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    sys.setswitchinterval(SWITCH_SECONDS)
    Server(config, receiver).run()


def _leave(number: int, frame: Optional[FrameType]) -> None:
    raise SystemExit(0)
