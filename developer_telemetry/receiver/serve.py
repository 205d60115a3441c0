"""Put the receiver together and run it."""

from __future__ import annotations

import logging
import signal
from types import FrameType
from typing import Optional

import uvicorn
from sqlalchemy.engine import Engine

from developer_telemetry.connections import Connections
from developer_telemetry.receiver.app import Receiver
from developer_telemetry.receiver.doorkeeper import Doorkeeper
from developer_telemetry.receiver.health import Health
from developer_telemetry.receiver.ingest import Ingest
from developer_telemetry.receiver.settings import Settings
from developer_telemetry.receiver.tallies import Tallies

# nginx keeps its connections to an upstream for 60 s; being the first to close loses requests.
KEEP_ALIVE_SECONDS = 75
# How long a stop may take: what was accepted gets written first.
STOP_SECONDS = 10


def receiver(engine: Engine, settings: Settings) -> Receiver:
    """The receiver of one database."""
    connections = Connections(engine, settings.encryption_secret)
    tallies = Tallies()
    ingest = Ingest(engine, tallies)
    health = Health(engine, connections, ingest, tallies)
    doorkeeper = Doorkeeper(connections, settings.require_token)
    return Receiver(ingest, doorkeeper, health, tallies)


def serve(engine: Engine, settings: Settings) -> None:
    """Take reports until SIGTERM or SIGINT."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s"
    )
    # uvicorn stops in good order and then repeats the signal, which would end us as if killed.
    signal.signal(signal.SIGTERM, _leave)
    uvicorn.run(
        receiver(engine, settings).app(),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


def _leave(number: int, frame: Optional[FrameType]) -> None:
    raise SystemExit(0)
