"""One request and its answer, for the report endpoint and for an ASGI application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, MutableMapping
from typing import Any, Optional, Protocol

from starlette.types import ASGIApp, Scope

from developer_telemetry.receiver.http.body_reader import BodyAborted
from developer_telemetry.receiver.http.message_parser import Head, Headers
from developer_telemetry.receiver.http.responses import CLOSE, Answer, answer, head_lines

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]


class Wire(Protocol):
    """The connection that carries an exchange."""

    @property
    def peer(self) -> str:
        """Return the IP address at its other end, "" if it has none."""

    def write(self, data: bytes) -> None:
        """Send a part of the answer."""

    async def writable(self) -> None:
        """Return when the sender has read most of the bytes sent before, or has disconnected."""

    def body_taken(self) -> None:
        """Read more of the body."""

    def finished(self, exchange: Exchange) -> None:
        """Note that the answer is complete."""

    def abort(self) -> None:
        """Close without an answer."""


class Exchange:
    """A request, whose body arrives in pieces, and the state of its answer."""

    def __init__(self, wire: Wire, head: Head, default_headers: Headers) -> None:
        self.head = head
        self.body = bytearray()
        self.body_complete = False
        self.started = False  # the answer
        self.answered = False
        self.status = 0
        self.keep_alive = head.keep_alive
        self.awaits_continue = head.awaits_continue
        self.disconnected = False
        self._wire = wire
        self._default_headers = default_headers
        self._has_content = head.method != "HEAD"
        self._is_taken = False  # all of the body
        self._change: Optional[asyncio.Event] = None  # made when a reader has to wait

    @property
    def peer(self) -> str:
        """Return the IP address from which the request was received, perhaps a proxy's."""
        return self._wire.peer

    def wake_reader(self) -> None:
        """Wake a reader that waits for more of the body, or for the end."""
        if self._change is not None:
            self._change.set()

    async def wait_for_body(self) -> bool:
        """Wait for more of the body; return False if the sender disconnected or has its answer."""
        if self.awaits_continue and not self.started and not self.body_complete:
            self.awaits_continue = False
            self._wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self._has_more() or self.disconnected or self.answered):
            if self._change is None:
                self._change = asyncio.Event()
            self._change.clear()
            await self._change.wait()
        return not (self.disconnected or self.answered)

    def take_body(self) -> bytes:
        """Remove and return the part of the body received so far."""
        piece = bytes(self.body)
        self.body.clear()
        self._is_taken = self.body_complete
        if not self._is_taken:
            self._wire.body_taken()
        return piece

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body in pieces; raise `BodyAborted` if the sender disconnects."""
        while not self._is_taken:
            if not await self.wait_for_body():
                raise BodyAborted
            yield self.take_body()

    def _has_more(self) -> bool:
        return bool(self.body) or (self.body_complete and not self._is_taken)

    def respond(self, content: Answer) -> None:
        """Send the complete answer, without waiting."""
        if self.answered or self.disconnected:
            return
        self.started = True
        self.status = content.status
        if not self._has_content:
            content = content._replace(body=b"")
        self._finish(content.http(self._own_headers()))

    async def sent(self) -> None:
        """Return when the sender has read most of the answer, or has disconnected."""
        await self._wire.writable()

    def _own_headers(self) -> Headers:
        if self.awaits_continue and not self.body_complete:
            # Without the permission to continue, a sender may or may not send the body, so the next
            # bytes are ambiguous.
            self.keep_alive = False
        return self._default_headers if self.keep_alive else [*self._default_headers, CLOSE]

    def _finish(self, last: bytes) -> None:
        self.answered = True
        self.wake_reader()
        if last:
            self._wire.write(last)
        self._wire.finished(self)


class AppExchange(Exchange):
    """An exchange that an ASGI application answers."""

    def __init__(self, wire: Wire, head: Head, default_headers: Headers, scope: Scope) -> None:
        super().__init__(wire, head, default_headers)
        self._scope = scope
        self._start: Message = {}
        self._chunked = False

    async def run(self, app: ASGIApp) -> None:
        """Run the application; if it fails, send the answer here."""
        try:
            await app(self._scope, self._receive, self._send)
        except Exception as error:
            # Its text may contain the body.
            logger.error("a request failed: %s", type(error).__name__)
        if self.answered or self.disconnected:
            return
        if self.started:
            self._wire.abort()  # a part of an answer must not look like a complete one
        else:
            self.respond(answer(500, "the receiver failed; send this again"))

    async def _receive(self) -> Message:
        """Return the next part of the body, or the message that the sender disconnected."""
        if not await self.wait_for_body():
            return {"type": "http.disconnect"}
        piece = self.take_body()
        return {"type": "http.request", "body": piece, "more_body": not self._is_taken}

    async def _send(self, message: Message) -> None:
        """Send a part of the answer."""
        await self._wire.writable()
        if self.disconnected or self.answered:
            return
        if message["type"] == "http.response.start":
            self._start = message
            self.status = message["status"]
            return
        body = message.get("body", b"") if self._has_content else b""
        ends = not message.get("more_body", False)
        parts = [] if self.started else [self._head(ends, len(body))]
        parts.append(b"%x\r\n%b\r\n" % (len(body), body) if self._chunked and body else body)
        if ends and self._chunked:
            parts.append(b"0\r\n\r\n")
        self.started = True
        # Not joined: answers with one page share its bytes.
        for part in filter(None, parts[:-1]):
            self._wire.write(part)
        if ends:
            self._finish(parts[-1])
            await self.sent()  # the application holds scarce resources until then
        elif parts[-1]:
            self._wire.write(parts[-1])

    def _head(self, ends: bool, length: int) -> bytes:
        status = self._start["status"]
        headers = list(self._start.get("headers", ()))
        if not any(name == b"content-length" for name, _ in headers):
            if ends:
                headers.append((b"content-length", b"%d" % length))
            elif self.head.version == "1.0":
                self.keep_alive = False
            elif self._has_content:
                self._chunked = True
                headers.append((b"transfer-encoding", b"chunked"))
        return head_lines(status, [*self._own_headers(), *headers])
