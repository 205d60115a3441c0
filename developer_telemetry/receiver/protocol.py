"""HTTP as uvicorn reads it, within bounds of time and size for whatever comes before a body, and
with a short cut for reports that come whole."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Optional

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from developer_telemetry.receiver.answers import Answer, answer
from developer_telemetry.receiver.intake import Intake

# From the start of a connection or a request to the end of its headers.
HEADER_SECONDS = 10.0
# From there to the end of its body, also where the answer did not wait for it. Those who read a
# body give up earlier, with an answer.
REQUEST_SECONDS = 30.0
# What a request may have besides its body: headers, then marks between chunks, and trailers.
MAX_HEADER_BYTES = 64 << 10
MAX_FRAMING_BYTES = 1 << 20
CLOSE = (b"connection", b"close")


class Protocol(HttpToolsProtocol):
    """Cuts off who takes his time with a request, or sends one without end.

    A connection that is cut off says nothing: a collector takes any 4xx as final.
    """

    _headers_awaited = True
    _body_awaited = False
    _timer: Optional[asyncio.TimerHandle] = None
    # Bytes of the request at hand that are no body, without those that came with its start.
    _overhead = 0
    _began = False

    # A request whose body may have come with its headers, until all that came is parsed.
    _receiving = False
    _held: Optional[tuple[RequestResponseCycle, ASGI3Application]] = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._relax()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._began = False
        self._receiving = True
        super().data_received(data)
        self._receiving = False
        if self._held is not None:
            cycle, app = self._held
            self._held = None
            if not self._taken_at_once(cycle):
                super()._start_asgi_task(cycle, app)
        if not self._began:
            self._overhead += len(data)
        if self._overhead > (MAX_HEADER_BYTES if self._headers_awaited else MAX_FRAMING_BYTES):
            self._cut_off()
        elif self._headers_awaited or self._body_awaited or self._idle:
            self._watch()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._began = True
        self._overhead = 0
        self._headers_awaited = True

    def on_headers_complete(self) -> None:
        self._relax()
        self._headers_awaited = False
        self._body_awaited = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._began:
            self._overhead -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._relax()
        self._body_awaited = False
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if self._receiving:
            self._held = cycle, app
        else:
            super()._start_asgi_task(cycle, app)

    def _taken_at_once(self, cycle: RequestResponseCycle) -> bool:
        """Spare a whole request the task, the events and the messages of an application."""
        intake = self.config.loaded_app
        if cycle.more_body or self.flow.write_paused or not isinstance(intake, Intake):
            return False
        respond = partial(self._respond, cycle)
        return intake.take_at_once(dict(cycle.scope), bytes(cycle.body), respond)

    def _respond(self, cycle: RequestResponseCycle, given: Answer) -> None:
        cycle.response_started = cycle.response_complete = True
        if self.transport.is_closing():
            return
        closing = [] if cycle.keep_alive else [CLOSE]
        self.transport.write(given.http([*self.server_state.default_headers, *closing]))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Say that what came is not HTTP, once everything before it has its answer."""
        if self.cycle is not None and not (self.cycle.response_complete or self.cycle.more_body):
            self.cycle.keep_alive = False
            return
        given = answer(400, "not a valid HTTP request; the connection is closed")
        self.transport.write(given.http([CLOSE]))
        self.transport.close()

    @property
    def _idle(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def _watch(self) -> None:
        if self._timer is None and not self.transport.is_closing():
            seconds = HEADER_SECONDS if self._headers_awaited else REQUEST_SECONDS
            self._timer = self.loop.call_later(seconds, self._cut_off)

    def _relax(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut_off(self) -> None:
        self._relax()
        self.transport.close()
