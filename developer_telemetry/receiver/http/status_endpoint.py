"""Answers those who look at the receiver through a report URL; `probing` says how they ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Optional

from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry import __version__
from developer_telemetry.concurrency import DaemonThreads
from developer_telemetry.database.engine import now_us
from developer_telemetry.diagnostics.probe import HEADER, Question, State, read_header, was_left
from developer_telemetry.errors import TelemetryError
from developer_telemetry.receiver.http.authenticator import Doorkeeper
from developer_telemetry.receiver.http.responses import Answer, answer, refusal
from developer_telemetry.receiver.ingest.ingestor import Ingest, Outage
from developer_telemetry.receiver.ingest.spool import Spool

NO_REPORT = answer(405, "send a report with POST").with_header("Allow", "POST")
# Whoever asked waits for an answer longer than this.
DATABASE_SECONDS = 5.0

_HEADER = HEADER.lower().encode()


class Probe:
    """The receiver's state for whoever proves to know the token, 405 for anybody else."""

    def __init__(
        self,
        engine: Engine,
        doorkeeper: Doorkeeper,
        ingest: Ingest,
        spool: Spool,
        outage: Outage,
        problem: Callable[[], str],
        name: str,
    ) -> None:
        self._engine = engine
        self._doorkeeper = doorkeeper
        self._ingest = ingest
        self._spool = spool
        self._outage = outage
        self._problem = problem
        self._name = name
        # A thread of its own: the database may hang, and reports must not wait for that.
        self._threads = DaemonThreads(1, "probe")

    def close(self) -> None:
        """Let go of the thread."""
        self._threads.stop()

    async def answer(
        self, method: str, connection_id: str, headers: Sequence[tuple[bytes, bytes]]
    ) -> Answer:
        """What a request for a report URL is answered with that brings no report."""
        asked = read_header(dict(headers).get(_HEADER, b"").decode("latin-1"))
        if method != "GET" or asked is None:
            return NO_REPORT
        nonce, proof = asked

        def proves(number: int, token: str) -> bool:
            return Question(number, token, nonce).proved_by(proof)

        try:
            connection, token = await self._doorkeeper.admit_by(connection_id, proves)
            state = await self._state(nonce)
        except TelemetryError as error:
            return refusal(error).with_header(HEADER, "refused")
        sealed = Question(connection.id, token, nonce).seal(state)
        return answer(200, "probe answered", {"sealed": sealed}).with_header(HEADER, "answered")

    async def _state(self, nonce: str) -> State:
        same_database: Optional[bool] = None
        with suppress(SQLAlchemyError, asyncio.TimeoutError):
            asking = self._threads.run(lambda: was_left(self._engine, nonce))
            same_database = await asyncio.wait_for(asking, DATABASE_SECONDS)
        spool = self._spool
        clock_us = now_us()
        oldest_us = spool.oldest_arrival_us() if spool.depth else None
        waited_us = 0 if oldest_us is None else clock_us + self._ingest.clock_offset_us - oldest_us
        return State(
            receiver=self._name,
            version=__version__,
            clock_us=clock_us,
            database_ahead_us=self._ingest.clock_offset_us,
            same_database=same_database,
            problem=self._problem(),
            outage=str(self._outage),
            waiting=spool.depth,
            oldest_seconds=max(0.0, waited_us / 1_000_000),
            set_aside=spool.dead,
            spool_full=spool.full,
            spool_bytes=spool.bytes,
            spool_max_bytes=spool.max_bytes,
            disk_free_bytes=spool.disk_free_bytes,
            damaged_spools=spool.corruptions,
            orphans=sum(spool.orphans.values()),
            conflicting=spool.conflicting,
        )
