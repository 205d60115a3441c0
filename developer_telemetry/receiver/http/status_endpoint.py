"""Answer a `GET` of a report URL with the receiver's state, if the connection's token is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Optional

from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import Receive, Scope, Send

from developer_telemetry import __version__
from developer_telemetry.concurrency import DaemonThreads
from developer_telemetry.database.engine import now_us
from developer_telemetry.diagnostics.probe import (
    ANSWERED,
    HEADER,
    REFUSED,
    ReceiverState,
    has_nonce,
    parse_nonce,
)
from developer_telemetry.errors import TelemetryError
from developer_telemetry.receiver.http.authenticator import (
    NO_BEARER,
    OTHER_TOKEN,
    Authenticator,
    Unauthorized,
)
from developer_telemetry.receiver.http.responses import Answer, answer, refusal
from developer_telemetry.receiver.ingest.ingestor import Ingestor, Outage
from developer_telemetry.receiver.ingest.spool import Spool

NEVER_STORED = ("Cache-Control", "no-store")
NOT_ALLOWED = (
    answer(405, "send a report with POST")
    .with_header("Allow", "GET, POST")
    .with_header(*NEVER_STORED)
)
# Less than the timeout of clients.
DATABASE_SECONDS = 5.0


class StatusEndpoint:
    """Answers with the receiver's state if the request has the connection's token."""

    def __init__(
        self,
        engine: Engine,
        authenticator: Authenticator,
        ingest: Ingestor,
        spool: Spool,
        outage: Outage,
        problem: Callable[[], str],
        name: str,
    ) -> None:
        self._engine = engine
        self._authenticator = authenticator
        self._ingest = ingest
        self._spool = spool
        self._outage = outage
        self._problem = problem
        self._name = name
        # A thread of its own: the database may hang, and reports must not wait for that.
        self._threads = DaemonThreads(1, "status endpoint")

    def close(self) -> None:
        """Stop the thread."""
        self._threads.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as an ASGI application."""
        response = await self.answer(scope, scope["path_params"]["connection_id"])
        await response(scope, receive, send)

    async def answer(self, scope: Scope, connection_id: str) -> Answer:
        """Return the answer to a request for a report URL that is not a POST."""
        if scope["method"] != "GET":
            return NOT_ALLOWED
        authorization = dict(scope["headers"]).get(b"authorization", b"")
        try:
            await self._admit(connection_id, authorization)
        except TelemetryError as error:
            response = refusal(error).with_header(HEADER, REFUSED)
        else:
            nonce = parse_nonce(scope["query_string"])
            content = {"nonce": nonce, "receiver": await self._state(nonce)}
            response = answer(200, "the state of this receiver", content)
            response = response.with_header(HEADER, ANSWERED)
        return response.with_header(*NEVER_STORED)

    async def _admit(self, connection_id: str, authorization: bytes) -> None:
        """Raise the errors of `Authenticator.admit`.

        A connection without a token refuses all requests, with the same message as any other: a
        stranger can't find open connections by a GET.
        """
        try:
            await self._authenticator.admit(connection_id, authorization, must_have_token=True)
        except Unauthorized as error:
            message = OTHER_TOKEN if authorization else NO_BEARER
            raise Unauthorized(message, error.connection_id) from None

    async def _state(self, nonce: str) -> ReceiverState:
        same_database: Optional[bool] = None
        if nonce:
            with suppress(SQLAlchemyError, asyncio.TimeoutError):
                query = self._threads.run(lambda: has_nonce(self._engine, nonce))
                same_database = await asyncio.wait_for(query, DATABASE_SECONDS)
        spool = self._spool
        clock_us = now_us()
        oldest_us = spool.oldest_arrival_us() if spool.depth else None
        waited_us = 0 if oldest_us is None else clock_us + self._ingest.clock_offset_us - oldest_us
        return ReceiverState(
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
