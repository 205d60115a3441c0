"""A connection, which reads one request at a time within bounds of time and size.

It passes reports to the report endpoint and all other requests to the ASGI application.
"""

from __future__ import annotations

import asyncio
from typing import Any, Optional, Union

from uvicorn.config import Config
from uvicorn.server import ServerState

from developer_telemetry.receiver.http.admission import Admission
from developer_telemetry.receiver.http.exchange import AppExchange, Exchange
from developer_telemetry.receiver.http.message_parser import (
    HEAD_END,
    MAX_HEAD_BYTES,
    Chunked,
    Head,
    Malformed,
    Sized,
    check_start,
    parse_head,
)
from developer_telemetry.receiver.http.report_endpoint import ReportEndpoint
from developer_telemetry.receiver.http.responses import CLOSE, answer

# From the start of a connection or a request to the end of its head.
HEADER_SECONDS = 10.0
# From there to the end of its body, also where the answer did not wait for it. Those who read a
# body give up earlier, with an answer.
REQUEST_SECONDS = 30.0
# How long the sender may leave an answer unread, and how many bytes a second are no leaving.
WRITE_SECONDS = 20.0
WRITE_BYTES_A_SECOND = 64 << 10
# Between two requests. nginx keeps its connections to an upstream for 60 s; being the first to
# close loses requests.
IDLE_SECONDS = 75.0
# Between the last answer and the end, since who still sends would lose an answer by it.
LINGER_SECONDS = 1.0
LINGER_BYTES = 1 << 20
# Of a body, until it is asked for; of answers, until no further request is read.
BODY_BYTES = 64 << 10
UNREAD_BYTES = 64 << 10

NEVER = float("inf")


class Protocol(asyncio.Protocol):
    """A connection that closes when its sender exceeds a bound of time or size.

    Input stays unparsed until the request before it has its answer, and reading from the network
    pauses meanwhile: a connection holds one request, one answer and the result of one read. An
    aborted connection gets no response, since a collector treats any 4xx as final.
    """

    def __init__(
        self,
        admission: Admission,
        reports: ReportEndpoint,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: Optional[asyncio.AbstractEventLoop] = None,
    ) -> None:
        self._admission = admission
        self._reports = reports
        self._app: Any = config.loaded_app
        self._server = server_state
        self._state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._held = 0  # as the admission counts it
        self._received = bytearray()
        self._scanned = 0  # the bytes of it that were searched for the end of a head
        self._body: Union[Sized, Chunked, None] = None
        self._exchange: Optional[Exchange] = None  # until its answer and its body are complete
        self._turn: Optional[asyncio.Handle] = None
        self._ending = False  # input is discarded
        self._discarded = 0  # the bytes discarded
        self._unasked = False  # the input arrived before the answer to the last request
        self._leaving = False  # the answer at hand is the last one
        self._reading = True
        self._writable = asyncio.Event()
        self._writable.set()
        self._read_until = NEVER
        self._write_until = NEVER
        self._timer: Optional[asyncio.TimerHandle] = None

    # What the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        transport.set_write_buffer_limits(high=UNREAD_BYTES)
        self._base = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "server": _address(transport.get_extra_info("sockname")),
            "client": _address(transport.get_extra_info("peername")),
            "scheme": "http",
            "root_path": "",
        }
        self._server.connections.add(self)  # type: ignore[arg-type]
        self._admission.add(self)
        self._set_read_deadline(HEADER_SECONDS)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._ending = True
        self._received.clear()
        self._count_held_bytes()
        self._admission.remove(self)
        self._server.connections.discard(self)
        for handle in (self._timer, self._turn):
            if handle is not None:
                handle.cancel()
        self._writable.set()
        if self._exchange is not None:
            self._exchange.disconnected = not self._exchange.answered
            self._exchange.wake_reader()
            self._exchange = None

    def data_received(self, data: bytes) -> None:
        if self._ending:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.abort()
            return
        self._received += data
        if self._turn is None:
            self._advance()

    def eof_received(self) -> bool:
        exchange = self._exchange
        if exchange is None or exchange.answered or not exchange.body_complete:
            return False
        self._leaving = True  # who sends no more may still read
        exchange.keep_alive = False
        return True

    def pause_writing(self) -> None:
        self._writable.clear()
        seconds = self._transport.get_write_buffer_size() / WRITE_BYTES_A_SECOND
        self._write_until = self._loop.time() + WRITE_SECONDS + seconds
        self._schedule_time_check()

    def resume_writing(self) -> None:
        if not self._ending:
            self._write_until = NEVER
        self._writable.set()
        self._schedule_advance()

    # What uvicorn calls

    def shutdown(self) -> None:
        """Take no further request."""
        self._leaving = True
        if self._exchange is None:
            self._transport.close()
        elif self._exchange.answered:
            self._close_gracefully()
        else:
            self._exchange.keep_alive = False

    # What an admission calls

    @property
    def idle(self) -> bool:
        """Return true if no request is being read or answered."""
        return self._exchange is None and not self._received

    def abort(self) -> None:
        """Close the connection without a response."""
        self._ending = True
        self._transport.abort()

    # What an exchange calls

    @property
    def peer(self) -> str:
        """Return the IP address at the other end, "" if it has none."""
        address = _address(self._transport.get_extra_info("peername"))
        return address[0] if address else ""

    def write(self, data: bytes) -> None:
        """Send a part of the answer."""
        if not self._transport.is_closing():
            self._transport.write(data)

    async def writable(self) -> None:
        """Return when little of what was sent is unread, or the sender is gone."""
        await self._writable.wait()

    def body_taken(self) -> None:
        """More of the body may come."""
        if self._received or not self._reading:
            self._schedule_advance()

    def finished(self, exchange: Exchange) -> None:
        """Note that the answer is complete."""
        self._server.total_requests += 1
        if exchange.status == 200 and exchange.head.method == "POST":
            self._admission.record_stored_report(self)
        if self._ending:
            return
        if not exchange.keep_alive:
            self._close_gracefully()
        elif exchange.body_complete:
            self._await_next_request()
        else:
            exchange.body.clear()
            self._schedule_advance()

    # One request after the other

    def _schedule_advance(self) -> None:
        """Process the received bytes in the next turn of the event loop."""
        if self._turn is None and not self._ending:
            self._turn = self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        self._turn = None
        if self._ending:
            return
        try:
            if self._body is not None:
                self._read_body()
            elif self._exchange is None and self._writable.is_set():
                self._read_head()
        except Malformed as error:
            self._refuse(error)
        self._count_held_bytes()
        self._control_reading()

    def _read_head(self) -> None:
        received = self._received
        start = 2 if received[:2] == b"\r\n" else 0  # some clients send an empty line after a body
        end = received.find(HEAD_END, max(start, self._scanned), MAX_HEAD_BYTES)
        if end >= 0:
            end += len(HEAD_END)
            head = parse_head(bytes(received[start:end]))
            del received[:end]
            self._scanned = 0
            self._unasked = False
            self._begin(head)
        elif len(received) >= MAX_HEAD_BYTES:
            self.abort()
        elif received:
            if not self._scanned:
                self._set_read_deadline(HEADER_SECONDS)
            self._scanned = max(1, len(received) - len(HEAD_END) + 1)
            if received != b"\r":
                check_start(bytes(received[start:]))

    def _begin(self, head: Head) -> None:
        route = self._reports.route(head)
        exchange = self._new_exchange(head, is_report=route is not None)
        exchange.keep_alive &= not self._leaving
        self._exchange = exchange
        self._body = Chunked() if head.length is None else Sized(head.length)
        try:
            self._read_body()
        except Malformed:
            self._exchange = None  # neither the endpoint nor the application has it yet
            raise
        if not exchange.body_complete:
            self._set_read_deadline(REQUEST_SECONDS)
        if route is not None:
            self._reports.take(exchange, route)
        elif isinstance(exchange, AppExchange):
            task = self._loop.create_task(exchange.run(self._app))
            task.add_done_callback(self._server.tasks.discard)
            self._server.tasks.add(task)

    def _new_exchange(self, head: Head, is_report: bool) -> Exchange:
        if is_report:
            return Exchange(self, head, self._server.default_headers)
        scope = {
            **self._base,
            "http_version": head.version,
            "method": head.method,
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
            "headers": head.headers,
            "state": self._state.copy(),
        }
        return AppExchange(self, head, self._server.default_headers, scope)

    def _read_body(self) -> None:
        body, exchange = self._body, self._exchange
        assert body is not None
        assert exchange is not None
        if len(exchange.body) >= BODY_BYTES and not exchange.answered:
            return  # until the reader asks for more
        piece = body.take(self._received)
        if piece and not exchange.answered:  # the remainder of a refused body is dropped
            exchange.body += piece
            exchange.wake_reader()
        if body.complete:
            self._body = None
            exchange.body_complete = True
            exchange.wake_reader()
            self._set_read_deadline(NEVER)
            if exchange.answered:
                self._await_next_request()
        elif isinstance(body, Chunked) and body.paused:
            self._schedule_advance()

    def _await_next_request(self) -> None:
        self._exchange = None
        self._count_held_bytes()
        self._set_read_deadline(IDLE_SECONDS)
        self._unasked = bool(self._received)
        if self._received:
            self._schedule_advance()

    def _refuse(self, error: Malformed) -> None:
        """Say that what came is not HTTP, unless the request has an answer already.

        Nor where it came in one go with a request before it: a proxy could take two answers for
        those of two senders.
        """
        exchange = self._exchange
        if not self._unasked if exchange is None else not exchange.started:
            told = answer(400, f"not a valid HTTP request: {error}; the connection is closed")
            self.write(told.http([CLOSE]))
        self._close_gracefully()

    def _close_gracefully(self) -> None:
        """Send all pending output, and close the connection when the client has read it."""
        self._ending = True
        self._received.clear()
        exchange, self._exchange, self._body = self._exchange, None, None
        if exchange is not None and not exchange.answered:
            exchange.disconnected = True
            exchange.wake_reader()
        if not self._transport.is_closing():
            self._transport.write_eof()
            self._control_reading()
            self._set_read_deadline(LINGER_SECONDS)

    # Bounds

    def _count_held_bytes(self) -> None:
        """Update the number of held bytes; abort if all connections hold too many."""
        exchange = self._exchange
        held = len(self._received) + (len(exchange.body) if exchange is not None else 0)
        self._admission.held_bytes += held - self._held
        self._held = held
        if self._admission.exceeds(held) and not self._ending:
            self.abort()

    def _control_reading(self) -> None:
        """Pause or resume reading from the network, by what can be processed now."""
        exchange = self._exchange
        if exchange is None:
            wanted = self._writable.is_set()
        elif self._body is None:
            wanted = not self._received
        else:
            wanted = exchange.answered or len(exchange.body) < BODY_BYTES
        # A closing connection reads on until the client closes it, too.
        wanted = (wanted and self._turn is None) or self._ending
        if wanted != self._reading and not self._transport.is_closing():
            self._reading = wanted
            self._transport.resume_reading() if wanted else self._transport.pause_reading()

    def _set_read_deadline(self, seconds: float) -> None:
        """Expect the next input within so many seconds."""
        self._read_until = self._loop.time() + seconds
        self._schedule_time_check()

    def _schedule_time_check(self) -> None:
        # A timer that fires early checks again, which is cheaper than a new one a request.
        until = min(self._read_until, self._write_until)
        if self._timer is not None:
            if self._timer.when() <= until:
                return
            self._timer.cancel()
            self._timer = None
        if until < NEVER:
            self._timer = self._loop.call_at(until, self._check_time)

    def _check_time(self) -> None:
        self._timer = None
        now = self._loop.time()
        unsent = self._transport.get_write_buffer_size()
        if now >= self._write_until:
            self.abort()
        elif now < self._read_until:
            self._schedule_time_check()
        elif self._ending and unsent:
            if self._write_until == NEVER:
                self._write_until = now + WRITE_SECONDS
            self._set_read_deadline(LINGER_SECONDS)
        else:
            self.abort()


def _address(name: object) -> Optional[tuple[str, int]]:
    """Host and port, of either family."""
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None
