"""Construct the receiver and run it."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Optional

import uvicorn
from sqlalchemy.engine import Engine

from developer_telemetry.config import Settings
from developer_telemetry.connections.handover import take_over
from developer_telemetry.connections.registry import Connections
from developer_telemetry.database.engine import (
    now_us,
    open_engine,
    open_writing_engine,
    with_short_timeouts,
)
from developer_telemetry.privacy.personal_links import PersonalLinks
from developer_telemetry.receiver.app import Receiver
from developer_telemetry.receiver.http.admission import Admission
from developer_telemetry.receiver.http.authenticator import Authenticator
from developer_telemetry.receiver.http.protocol import Protocol
from developer_telemetry.receiver.http.status_endpoint import StatusEndpoint
from developer_telemetry.receiver.ingest.conflicts import Conflicts
from developer_telemetry.receiver.ingest.decisions import Decisions
from developer_telemetry.receiver.ingest.ingestor import Ingestor, Outage
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.receiver.ingest.tombstone_lease import TombstoneLease
from developer_telemetry.receiver.jobs.conversion_job import ConversionJob
from developer_telemetry.receiver.jobs.erasure_watcher import ErasureWatcher, ReceiverIdentity
from developer_telemetry.receiver.jobs.figure_job import FigureJob
from developer_telemetry.receiver.jobs.fleet_job import FleetJob
from developer_telemetry.receiver.jobs.monitor import Monitor
from developer_telemetry.receiver.jobs.retention_job import RetentionJob
from developer_telemetry.receiver.jobs.spool_drainer import SpoolDrainer
from developer_telemetry.receiver.listen_addresses import listen
from developer_telemetry.receiver.logging import set_up_logs
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.receiver.own_page.link_endpoint import LinkEndpoint
from developer_telemetry.receiver.own_page.routes import OwnPage
from developer_telemetry.receiver.web.data.queries import open_reading_engine
from developer_telemetry.receiver.web.data.reader import Reader
from developer_telemetry.receiver.web.lists import Lists
from developer_telemetry.receiver.web.presenter import Presenter
from developer_telemetry.receiver.web.routes import Page
from developer_telemetry.receiver.web.self_test import SelfTest
from developer_telemetry.receiver.web.sessions import Sessions, is_loopback
from developer_telemetry.storage.statistics import ReportCounts
from developer_telemetry.storage.tombstones import TombstoneKey

# Twice the number of connections that a front proxy opens; this many cost little memory.
MAX_OPEN_FILES = 65_536
# The writer thread resumes every few milliseconds, after each statement. With Python's default of
# 5 ms it would wait for as long, and the receiver would store a tenth fewer reports a second.
SWITCH_SECONDS = 0.0005
# The number of new objects that starts a garbage collection. Reports create no cycles; with
# Python's default of 700, collections took a sixth of the receiver's time.
GARBAGE_THRESHOLD = 50_000
# The time for the last answers after SIGTERM; the threads end in the seconds after.
STOP_SECONDS = 5

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """A server that passes SIGTERM and SIGINT on to the receiver at once."""

    def __init__(
        self, config: uvicorn.Config, receiver: Receiver, on_listening: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._receiver = receiver
        self._on_listening = on_listening

    async def startup(self, sockets: Optional[list[socket.socket]] = None) -> None:
        """Listen, and only then report that the receiver is ready."""
        await super().startup(sockets)
        if self.started:
            self._on_listening()
            self._receiver.report_listening()

    def handle_exit(self, sig: int, frame: Optional[FrameType]) -> None:
        super().handle_exit(sig, frame)
        # Not directly: the signal may have interrupted any code.
        asyncio.get_running_loop().call_soon_threadsafe(self._receiver.stop)


def make_receiver(engine: Engine, settings: Settings) -> Receiver:
    """Construct the receiver of one database."""
    spool = Spool(settings.spool_dir, settings.spool_max_bytes)
    memory = settings.spool_dir / "connections.json"
    connections = Connections(engine, settings.encryption_secret, memory)
    outage, conflicts, metrics = Outage(), Conflicts(), Metrics()
    writing = open_writing_engine(settings.db_url)
    key = TombstoneKey(settings.encryption_secret)
    lease = TombstoneLease(engine, key, spool)
    tallies = ReportCounts(lease)
    identity = ReceiverIdentity(settings.spool_dir, settings.port, settings.embedded)
    erasure_watcher = ErasureWatcher(engine, lease, spool, identity, key.fingerprint)
    ingest = Ingestor(writing, spool, outage, conflicts, tallies, metrics, lease)
    decisions = Decisions(settings.spool_dir)
    drainer = SpoolDrainer(
        writing, spool, outage, conflicts, connections, tallies, metrics, lease, decisions
    )
    retention_job = RetentionJob(engine, outage)
    conversion_job = ConversionJob(
        open_engine(settings.db_url), connections, outage, metrics, lambda: ingest.waiting
    )
    fleet_job = FleetJob(engine, outage, settings.retire_days)
    metrics.fleet(lambda: fleet_job.counts)
    is_standalone = settings.standalone and not settings.embedded
    monitor = Monitor(
        engine,
        writing,
        connections,
        ingest,
        spool,
        outage,
        tallies,
        conversion_job.note,
        partial(take_over_schema, open_engine(settings.db_url)) if is_standalone else None,
    )
    authenticator = Authenticator(connections, settings.require_token, tallies.token_used)
    add_gauges(metrics, ingest, outage, spool, connections, conversion_job)
    self_test = SelfTest(engine, authenticator.check_own_token, spool)
    reading = open_reading_engine(settings.db_url)
    status_endpoint = StatusEndpoint(
        reading, authenticator, ingest, spool, outage, monitor.problem, identity.label
    )
    reader = Reader(reading, connections)
    presenter = Presenter(reader, monitor, spool, self_test)
    is_open_locally = settings.embedded and is_loopback(settings.host)
    sessions = Sessions(settings.admin_token, is_open_locally, settings.trusted_proxies)
    page = Page(reader, presenter, Lists(reader, engine), sessions)
    links = PersonalLinks(settings.encryption_secret)
    return Receiver(
        ingest,
        drainer,
        erasure_watcher,
        retention_job,
        conversion_job,
        fleet_job,
        FigureJob(open_engine(settings.db_url), outage),
        spool,
        authenticator,
        monitor,
        tallies,
        metrics,
        status_endpoint,
        page,
        OwnPage(reader, engine, links, page, settings.privacy_contact),
        LinkEndpoint(reader, authenticator, links),
        settings.trusted_proxies,
    )


def take_over_schema(engine: Engine) -> None:
    """Migrate DevLake's database, and record that this project owns its schema.

    Args:
        engine: One without the receiver's timeouts, as migrations may take longer; it has no
            open session afterwards.

    Raises:
        TelemetryError: DevLake has not made its tables so far, or has loaded the plugin before.
    """
    try:
        taken = take_over(engine, None)
    finally:
        engine.dispose()
    for migration in taken.migrations:
        logger.info("applied %s", migration)
    if taken.is_new:
        logger.info("this receiver owns the schema and converts reports from now on")


def add_gauges(
    metrics: Metrics,
    ingest: Ingestor,
    outage: Outage,
    spool: Spool,
    connections: Connections,
    conversion_job: ConversionJob,
) -> None:
    """Add the receiver's present state to its metrics."""
    for name, help_text, read in (
        ("telemetry_queue", "Reports that wait for an answer", lambda: ingest.waiting),
        ("telemetry_database_up", "1 if the database accepts reports, else 0", lambda: not outage),
        ("telemetry_spool_reports", "Reports in the spool", lambda: spool.depth),
        ("telemetry_spool_dead", "Reports that the database will never accept", lambda: spool.dead),
        (
            "telemetry_spool_conflicting",
            "Reports in the spool that a lock or an error of their own delays",
            lambda: spool.conflicting,
        ),
        (
            "telemetry_spool_orphans",
            "Reports in the spool whose connection is not in the database",
            lambda: sum(spool.orphans.values()),
        ),
        ("telemetry_spool_bytes", "The spool's size on disk", lambda: spool.bytes),
        (
            "telemetry_spool_limit_bytes",
            "The spool's largest size on disk",
            lambda: spool.max_bytes,
        ),
        (
            "telemetry_spool_corruptions",
            "Spool files damaged or missing",
            lambda: spool.corruptions,
        ),
        (
            "telemetry_spool_age_seconds",
            "Age of the oldest report in the spool",
            lambda: spool_age(spool),
        ),
        (
            "telemetry_connections_unreadable",
            "Connections that accept no reports because their token can't be read",
            lambda: len(connections.unreadable()),
        ),
        (
            "telemetry_conversion_age_seconds",
            "Time since the last conversion by any receiver, 0 if there was none",
            lambda: conversion_job.age_seconds,
        ),
        (
            "telemetry_conversion_waiting_seconds",
            "Longest time for which a connection has been waiting for a conversion",
            lambda: conversion_job.waiting_seconds,
        ),
    ):
        metrics.gauge(name, help_text, read)


def spool_age(spool: Spool) -> float:
    """Return the age in seconds of the oldest report in the spool, 0 if it is empty."""
    oldest_us = spool.oldest_arrival_us() if spool.depth else None
    return 0.0 if oldest_us is None else max(0.0, (now_us() - oldest_us) / 1_000_000)


def serve(engine: Engine, settings: Settings, on_listening: Callable[[], None]) -> None:
    """Accept reports until SIGTERM or SIGINT.

    Args:
        on_listening: Called once the receiver listens.
    """
    set_up_logs(settings.log_level, settings.log_format)
    sockets = listen(settings.host, settings.port)
    receiver = make_receiver(with_short_timeouts(engine), settings)
    # After its shutdown, uvicorn raises the signal again, which by default would count as a kill.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    admission = Admission(_allow_many_connections())
    config = uvicorn.Config(
        receiver.app,
        http=partial(Protocol, admission, receiver.reports),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=admission.backlog,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()  # all objects so far stay in use
    gc.set_threshold(GARBAGE_THRESHOLD)
    Server(config, receiver, on_listening).run(sockets)


def _allow_many_connections() -> int:
    """Raise the limit of open files as far as allowed, and return it.

    Systems limit them to 1,024 by default, for old programs; a fleet has more machines.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        soft = target
    return MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else min(soft, MAX_OPEN_FILES)


def _exit(number: int, frame: Optional[FrameType]) -> None:
    raise SystemExit(0)
