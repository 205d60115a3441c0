"""Put the receiver together and run it."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import sys
from functools import partial
from types import FrameType
from typing import Optional

import uvicorn
from sqlalchemy.engine import Engine

from developer_telemetry.config import Settings
from developer_telemetry.connections.registry import Connections
from developer_telemetry.database.engine import hurried, now_us, open_writing_engine
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
from developer_telemetry.receiver.jobs.erasure_watcher import ErasureWatcher, ReceiverIdentity
from developer_telemetry.receiver.jobs.monitor import Monitor
from developer_telemetry.receiver.jobs.retention_job import RetentionJob
from developer_telemetry.receiver.jobs.spool_drainer import SpoolDrainer
from developer_telemetry.receiver.listen_addresses import listen
from developer_telemetry.receiver.logging import set_up_logs
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.receiver.web.presenter import Presenter
from developer_telemetry.receiver.web.queries import open_reading_engine
from developer_telemetry.receiver.web.routes import Page
from developer_telemetry.receiver.web.self_test import SelfTest
from developer_telemetry.receiver.web.sessions import Sessions, is_loopback
from developer_telemetry.storage.statistics import Tallies
from developer_telemetry.storage.tombstones import Key

# Twice what a front proxy opens to us, and little memory.
MAX_OPEN_FILES = 65_536
# The writer comes back from the database every few milliseconds and must not wait as long for its
# turn: Python's own 5 ms cost a tenth of the reports a second.
SWITCH_SECONDS = 0.0005
# New objects until Python looks for cycles among them. Reports make none, and with its own 700 the
# search took a sixth of the receiver's time.
GARBAGE_THRESHOLD = 50_000
# How long answers may take after SIGTERM; the threads behind them end in the seconds after.
STOP_SECONDS = 5


class Server(uvicorn.Server):
    """Tells the receiver at once when it is asked to stop."""

    def __init__(self, config: uvicorn.Config, receiver: Receiver) -> None:
        super().__init__(config)
        self._receiver = receiver

    def handle_exit(self, sig: int, frame: Optional[FrameType]) -> None:
        super().handle_exit(sig, frame)
        # Not from here, in the middle of whatever the signal interrupted.
        asyncio.get_running_loop().call_soon_threadsafe(self._receiver.stop)


def make_receiver(engine: Engine, settings: Settings) -> Receiver:
    """The receiver of one database."""
    spool = Spool(settings.spool_dir, settings.spool_max_bytes)
    memory = settings.spool_dir / "connections.json"
    connections = Connections(engine, settings.encryption_secret, memory)
    outage, conflicts, tallies, metrics = Outage(), Conflicts(), Tallies(), Metrics()
    writing = open_writing_engine(settings.db_url)
    key = Key(settings.encryption_secret)
    erased = TombstoneLease(engine, key, spool)
    identity = ReceiverIdentity(settings.spool_dir, settings.port, settings.embedded)
    erasure_watcher = ErasureWatcher(engine, erased, spool, identity, key.fingerprint)
    ingest = Ingestor(writing, spool, outage, conflicts, tallies, metrics, erased)
    decisions = Decisions(settings.spool_dir)
    drainer = SpoolDrainer(
        writing, spool, outage, conflicts, connections, tallies, metrics, erased, decisions
    )
    retention_job = RetentionJob(engine, outage)
    monitor = Monitor(engine, writing, connections, ingest, spool, outage, tallies)
    authenticator = Authenticator(connections, settings.require_token)
    metrics.gauge("telemetry_queue", "Reports that wait for an answer", lambda: ingest.waiting)
    metrics.gauge("telemetry_database_up", "1 if it takes reports", lambda: not outage)
    metrics.gauge("telemetry_spool_reports", "Reports in the spool", lambda: spool.depth)
    metrics.gauge("telemetry_spool_dead", "Reports set aside for good", lambda: spool.dead)
    metrics.gauge(
        "telemetry_spool_conflicting",
        "Reports in the spool that wait by themselves, for a lock on their day or the like",
        lambda: spool.conflicting,
    )
    metrics.gauge(
        "telemetry_spool_orphans",
        "Reports in the spool whose connection is not in the database",
        lambda: sum(spool.orphans.values()),
    )
    metrics.gauge("telemetry_spool_bytes", "The spool's size on disk", lambda: spool.bytes)
    metrics.gauge("telemetry_spool_limit_bytes", "What the spool may take", lambda: spool.max_bytes)
    metrics.gauge(
        "telemetry_spool_corruptions",
        "Spool files damaged or gone",
        lambda: spool.corruptions,
    )
    metrics.gauge(
        "telemetry_spool_age_seconds", "Age of what waits longest", lambda: spool_age(spool)
    )
    metrics.gauge(
        "telemetry_connections_unreadable",
        "Connections that take no reports, since their token can't be read",
        lambda: len(connections.unreadable()),
    )
    self_test = SelfTest(engine, authenticator.check_own_token, spool)
    looking = open_reading_engine(settings.db_url)
    status_endpoint = StatusEndpoint(
        looking, authenticator, ingest, spool, outage, monitor.problem, identity.label
    )
    presenter = Presenter(looking, connections, monitor, spool, self_test)
    is_open_locally = settings.embedded and is_loopback(settings.host)
    page = Page(presenter, Sessions(settings.admin_token, is_open_locally))
    return Receiver(
        ingest,
        drainer,
        erasure_watcher,
        retention_job,
        spool,
        authenticator,
        monitor,
        tallies,
        metrics,
        status_endpoint,
        page,
    )


def spool_age(spool: Spool) -> float:
    """How long the oldest report has waited in the spool, in seconds; 0 if none does."""
    oldest = spool.oldest_arrival_us() if spool.depth else None
    return 0.0 if oldest is None else max(0.0, (now_us() - oldest) / 1_000_000)


def serve(engine: Engine, settings: Settings) -> None:
    """Take reports until SIGTERM or SIGINT."""
    set_up_logs(settings.log_level, settings.log_format)
    sockets = listen(settings.host, settings.port)
    receiver = make_receiver(hurried(engine), settings)
    # uvicorn stops in good order and then repeats the signal, which would end us as if killed.
    signal.signal(signal.SIGTERM, _leave)
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
    gc.freeze()  # what is loaded by now stays
    gc.set_threshold(GARBAGE_THRESHOLD)
    Server(config, receiver).run(sockets)


def _allow_many_connections() -> int:
    """Have as many open files as we may, and return how many.

    They are limited to 1,024 for old programs' sake; a fleet has more machines.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else min(soft, MAX_OPEN_FILES)


def _leave(number: int, frame: Optional[FrameType]) -> None:
    raise SystemExit(0)
