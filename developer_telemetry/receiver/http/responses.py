"""Answers to senders, in the format of DevLake's answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from http import HTTPStatus
from typing import NamedTuple, Optional

import msgspec
from starlette.types import Receive, Scope, Send

from developer_telemetry.errors import ReportRefused, TelemetryError, Unavailable
from developer_telemetry.receiver.http.authenticator import NoSuchConnection, Unauthorized
from developer_telemetry.receiver.http.body_reader import TooLarge, UnknownEncoding
from developer_telemetry.receiver.http.bulk_upload import Result

# Never 429, 410 or a redirect: collectors treat them as final, as any 4xx.
STATUS: dict[type[TelemetryError], int] = {
    ReportRefused: 400,
    Unauthorized: 401,
    NoSuchConnection: 404,
    TooLarge: 413,
    UnknownEncoding: 415,
    Unavailable: 503,
}


CLOSE = (b"connection", b"close")


def status_of(error: TelemetryError) -> int:
    """Return the HTTP status of an error."""
    return next(status for kind, status in STATUS.items() if isinstance(error, kind))


class Answer(NamedTuple):
    """A complete answer, which is an ASGI application as well."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]

    def with_header(self, name: str, value: str) -> Answer:
        """Return a copy with one more header."""
        return self._replace(headers=(*self.headers, (name.lower().encode(), value.encode())))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})

    def http(self, more: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the bytes of the answer in HTTP/1.1, with `more` headers."""
        return _cached_head_lines(self.status, (*more, *self.headers)) + self.body


def head_lines(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the head of an answer, up to and including the empty line."""
    lines = [b"%b: %b\r\n" % header for header in headers]
    return b"%b\r\n%b\r\n" % (_status_line(status), b"".join(lines))


# Nearly all answers of a second are the same.
_cached_head_lines = lru_cache(maxsize=64)(head_lines)


@cache
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()


def answer(status: int, message: str, more: Optional[dict[str, object]] = None) -> Answer:
    """Return an answer; `more` is added to its JSON."""
    content = {"success": status == 200, "message": message, **(more or {})}
    body = msgspec.json.encode(content)
    length = (b"content-length", b"%d" % len(body))
    return Answer(status, body, ((b"content-type", b"application/json"), length))


def refusal(error: TelemetryError) -> Answer:
    """Return the answer to a request that failed with `error`."""
    status = status_of(error)
    if isinstance(error, ReportRefused):
        faults = [{"field": error.field, "message": error.message}]
        return answer(status, f"{error.field}: {error.message}", {"errors": faults})
    response = answer(status, str(error))
    if isinstance(error, Unavailable):
        response = response.with_header("Retry-After", str(error.retry_after))
    if isinstance(error, Unauthorized):
        response = response.with_header("WWW-Authenticate", "Bearer")
    return response


def bulk_answer(results: Sequence[Result]) -> Answer:
    """Return the answer to a bulk upload.

    503 if a valid report could not be stored; 413 if the body exceeds the limit (the reports before
    it are stored); 400 if none was valid; else 200.
    """
    stored = sum(result.status == 200 for result in results)
    lost = sum(result.status == 503 for result in results)
    refused = len(results) - stored - lost
    more: dict[str, object] = {
        "stored": stored,
        "refused": refused,
        "results": list(results),
    }
    if lost:
        response = answer(503, f"{lost} reports could not be kept; send all of it again", more)
        return response.with_header("Retry-After", "5")
    if any(result.status == 413 for result in results):
        return answer(413, f"{stored} reports stored, the rest is too much at once", more)
    if not stored:
        return answer(400, "no report of it is valid; see results", more)
    return answer(200, f"{stored} reports stored, {refused} refused", more)
