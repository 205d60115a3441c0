"""One request and its answer, as an application of ASGI sees them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any, Protocol

from starlette.types import ASGIApp, Scope

from developer_telemetry.receiver.http.message_parser import Head
from developer_telemetry.receiver.http.responses import CLOSE, Answer, answer, head_lines

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]


class Wire(Protocol):
    """What carries an exchange."""

    def write(self, data: bytes) -> None:
        """Send a part of the answer."""

    async def writable(self) -> None:
        """Return when the sender has read enough of what was sent before, or is gone."""

    def body_taken(self) -> None:
        """More of the body may come."""

    def finished(self, exchange: Exchange) -> None:
        """The answer is complete."""

    def abort(self) -> None:
        """End without a word."""


class Exchange:
    """A request, whose body comes in pieces, and the state of its answer."""

    def __init__(self, wire: Wire, head: Head, scope: Scope, default_headers: Any) -> None:
        self.scope = scope
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
        self._start: Message = {}
        self._chunked = False
        self._delivered = False
        self._news = asyncio.Event()

    def tell(self) -> None:
        """Wake whoever waits for more of the body, or for the end."""
        self._news.set()

    async def run(self, app: ASGIApp) -> None:
        """Have it answered, whatever happens."""
        try:
            await app(self.scope, self.receive, self.send)
        except Exception as error:
            # Its text may hold the body.
            logger.error("a request failed: %s", type(error).__name__)
        if self.answered or self.disconnected:
            return
        if self.started:
            self._wire.abort()  # half an answer must not look like a whole one
        else:
            self.respond(answer(500, "the receiver failed; send this again"))

    def respond(self, given: Answer) -> None:
        """Answer at once, by one who doesn't need `send`."""
        if self.answered or self.disconnected:
            return
        self.started = True
        self.status = given.status
        content = given if self._has_content else given._replace(body=b"")
        self._finish(content.http(self._own_headers()))

    async def receive(self) -> Message:
        """The next part of the body, or the news that the sender is gone."""
        if self.awaits_continue and not self.started and not self.body_complete:
            self.awaits_continue = False
            self._wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self._has_more() or self.disconnected or self.answered):
            self._news.clear()
            await self._news.wait()
        if self.disconnected or self.answered:
            return {"type": "http.disconnect"}
        piece = bytes(self.body)
        self.body.clear()
        self._wire.body_taken()
        self._delivered = self.body_complete
        return {"type": "http.request", "body": piece, "more_body": not self.body_complete}

    def _has_more(self) -> bool:
        return bool(self.body) or (self.body_complete and not self._delivered)

    async def send(self, message: Message) -> None:
        """Take a part of the answer."""
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
        # Not joined: of a page that many ask for, all of them get the same bytes.
        for part in filter(None, parts[:-1]):
            self._wire.write(part)
        if ends:
            self._finish(parts[-1])
            await self._wire.writable()  # until most of it is read: what made it may be scarce
        elif parts[-1]:
            self._wire.write(parts[-1])

    def _head(self, ends: bool, length: int) -> bytes:
        status = self._start["status"]
        headers = list(self._start.get("headers", ()))
        if not any(name.lower() == b"content-length" for name, _ in headers):
            if ends:
                headers.append((b"content-length", b"%d" % length))
            elif self.scope["http_version"] == "1.0":
                self.keep_alive = False
            elif self._has_content:
                self._chunked = True
                headers.append((b"transfer-encoding", b"chunked"))
        return head_lines(status, [*self._own_headers(), *headers])

    def _own_headers(self) -> list[tuple[bytes, bytes]]:
        if self.awaits_continue and not self.body_complete:
            # Who was never told to go on may send the body or not: what comes next is anything.
            self.keep_alive = False
        return [*self._default_headers, *([] if self.keep_alive else [CLOSE])]

    def _finish(self, last: bytes) -> None:
        self.answered = True
        self.tell()
        if last:
            self._wire.write(last)
        self._wire.finished(self)
