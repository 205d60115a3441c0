"""Lets in who shows a connection's secret token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Optional

from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.connections.registry import Connection, Connections
from developer_telemetry.errors import TelemetryError, Unavailable

# How long a sender waits for the database to say who it is.
RELOAD_PATIENCE = 5.0
# An operator has to do something first.
UNREADABLE_SECONDS = 60

NO_BEARER = "token is missing; send `Authorization: Bearer TOKEN`"
NO_TOKEN = "the connection has no secret token; set one first"
OTHER_TOKEN = "the token is not this connection's"


class NoSuchConnection(TelemetryError):
    """There is no connection of that id (HTTP 404)."""


class Unauthorized(TelemetryError):
    """The token is missing or wrong (HTTP 401). The message never repeats it."""

    def __init__(self, message: str, connection_id: int) -> None:
        super().__init__(message)
        self.connection_id = connection_id


class TokenUnreadable(Unavailable):
    """The stored token can't be read, so the sent one can't be compared with it (HTTP 503)."""

    def __init__(self, connection_id: int, fault: str) -> None:
        super().__init__(f"connection {connection_id} can't be used: {fault}", UNREADABLE_SECONDS)
        self.connection_id = connection_id


class Authenticator:
    """Decides from memory; asks the database once more before it turns anyone away."""

    def __init__(
        self,
        connections: Connections,
        require_token: bool,
        note_use: Callable[[int, str], None],
    ) -> None:
        """Take what notes the fingerprint of each token that is accepted."""
        self._connections = connections
        self._require_token = require_token
        self._note_use = note_use
        self._reload: Optional[asyncio.Task[None]] = None
        self._reload_started = False

    async def admit(
        self, connection_id: str, authorization: bytes, must_have_token: bool
    ) -> Connection:
        """Return the connection that a request may send to.

        `authorization` is the header as it came. Raises `NoSuchConnection`, `Unauthorized` or
        `Unavailable`.
        """
        try:
            return self.check(connection_id, authorization, must_have_token)
        except TelemetryError:
            # A connection or a token that was set just now would be refused for seconds.
            await self._read_again()
        return self.check(connection_id, authorization, must_have_token)

    async def refuse_deleted(self, connection_id: str) -> None:
        """Raise as for an unknown connection, after the database turned out not to have it."""
        await self._read_again()
        self._connection_of(connection_id)
        raise Unavailable("the connection has just been restored; send this again")

    def check_own_token(self, connection: Connection) -> None:
        """Check a connection's own token as a collector sends it; raises as `check` does."""
        self.check(str(connection.id), b"Bearer " + (connection.token or "").encode(), False)

    def check(self, connection_id: str, authorization: bytes, must_have_token: bool) -> Connection:
        """As `admit`, by what is known already."""
        connection = self._connection_of(connection_id)
        number = connection.id
        if connection.is_open and not (must_have_token or self._require_token):
            return connection
        scheme, _, token = authorization.strip().partition(b" ")
        token = token.strip()
        sent = scheme.lower() == b"bearer" and bool(token)
        if sent:
            if fingerprint := connection.match(token):
                self._note_use(number, fingerprint)
                return connection
            if self._key_allows(token, number):
                return connection
        if fault := connection.token_fault:
            raise TokenUnreadable(number, fault)
        if connection.is_open:
            raise Unauthorized(NO_TOKEN, number)
        if not sent:
            raise Unauthorized(NO_BEARER, number)
        raise Unauthorized(OTHER_TOKEN, number)

    def _connection_of(self, connection_id: str) -> Connection:
        digits = connection_id.isascii() and connection_id.isdigit() and len(connection_id) < 19
        number = int(connection_id) if digits else 0
        connection = self._connections.get(number)
        if connection is None and self._connections.is_recently_emptied():
            raise Unavailable("all connections are gone from the database for the moment", 60)
        if connection is None:
            raise NoSuchConnection(
                "no such connection; take the URL from DevLake's connection or `status`"
            )
        return connection

    def _key_allows(self, key: bytes, connection_id: int) -> bool:
        api_key = self._connections.api_key(key)
        return api_key is not None and api_key.allows(connection_id)

    async def _read_again(self) -> None:
        """Wait for a reload that starts from now on; all who wait share one, a second apart."""
        if self._reload is None or self._reload.done() or self._reload_started:
            self._reload_started = False
            self._reload = asyncio.ensure_future(self._read_when_due())
        try:
            await asyncio.wait_for(asyncio.shield(self._reload), RELOAD_PATIENCE)
        except (SQLAlchemyError, asyncio.TimeoutError):
            # It may be a connection or a token that the database has and we don't know yet.
            raise Unavailable("the database can't be asked for the connection now") from None

    async def _read_when_due(self) -> None:
        await asyncio.sleep(self._connections.reload_due_in())
        self._reload_started = True
        await asyncio.to_thread(self._connections.reload)
