"""Read a request's body within bounds: of size, before and after decompression, and of time."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Optional

from developer_telemetry.errors import ReportRefused, TelemetryError, Unavailable
from developer_telemetry.reports.limits import KIBIBYTE, MEBIBYTE, ONE_REPORT, Limit

# A collector sends 2 kB at once; a slower sender blocks others.
BODY_SECONDS = 20.0
# The limit of all bodies that are being read at one time.
MAX_READING = 128 * MEBIBYTE
# The bytes of output and of input of one step of decompression.
PIECE = 64 * KIBIBYTE
SIP = 4 * KIBIBYTE
# Starting one takes as long as inflating a report.
MAX_MEMBERS = 10_000

STOPPING = "the receiver is stopping; send this again"
TOO_SLOW = "the body arrived too slowly; send this again"

# Accepts the headers of gzip and zlib. For "deflate", senders use zlib or no header.
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_BARE = -zlib.MAX_WBITS

# The supported values of Content-Encoding.
ENCODINGS = ("", "identity", "gzip", "x-gzip", "deflate")


class TooLarge(TelemetryError):
    """The body is above a limit (HTTP 413)."""


class UnknownEncoding(TelemetryError):
    """The body is compressed in an unsupported way (HTTP 415)."""


class BodyAborted(Exception):
    """The sender disconnected before the end of the body."""


class BodyReader:
    """Reads bodies, bounds the sum of their sizes, and ends all reads at a stop."""

    def __init__(self) -> None:
        self._readers: set[asyncio.Task[object]] = set()
        self._bytes = 0
        self._stopping = False

    def stop(self) -> None:
        """Read no more: bodies that were sent in part are answered with `Unavailable`."""
        self._stopping = True
        for reader in self._readers:
            reader.cancel()

    def check(self, size: int, encoding: str, limit: Limit) -> None:
        """Check a body of this size that was received already; raise as `read` does."""
        check_encoding(encoding)
        if self._stopping:
            raise Unavailable(STOPPING)
        if size > limit.sent:
            raise TooLarge(_too_large(limit))

    async def read(self, chunks: AsyncIterator[bytes], encoding: str, limit: Limit) -> bytes:
        """Return the complete body, as sent.

        Args:
            encoding: the Content-Encoding header, "" if there is none.

        Raises:
            UnknownEncoding: `inflate` can't read the encoding.
            TooLarge: the body is larger than `limit.sent`.
            ReportRefused: the sender disconnected before its end.
            Unavailable: it arrives too slowly, with too many others, or the receiver stops.
        """
        check_encoding(encoding)
        sent: list[bytes] = []
        size = 0
        try:
            with self._interruptible():
                async for chunk in chunks:
                    size += len(chunk)
                    self._bytes += len(chunk)
                    if size > limit.sent:
                        raise TooLarge(_too_large(limit))
                    if self._bytes > MAX_READING:
                        raise Unavailable("too much is being sent at once; send this again")
                    sent.append(chunk)
        except BodyAborted:
            raise ReportRefused("body", "the body ended too early; send all of it") from None
        finally:
            self._bytes -= size
        return b"".join(sent)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        if self._stopping:
            raise Unavailable(STOPPING)
        task = asyncio.current_task()
        assert task is not None, "bodies are read by requests"
        ended_by_us = False

        def end() -> None:
            nonlocal ended_by_us
            ended_by_us = True
            task.cancel()

        timer = asyncio.get_running_loop().call_later(BODY_SECONDS, end)
        self._readers.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not ended_by_us and not self._stopping:
                raise
            if hasattr(task, "uncancel"):  # from Python 3.11 on a cancellation is counted
                task.uncancel()
            raise Unavailable(STOPPING if self._stopping else TOO_SLOW) from None
        finally:
            timer.cancel()
            self._readers.discard(task)


def _too_large(limit: Limit) -> str:
    return f"the body is above {limit.sent} bytes; send less at once"


def check_encoding(encoding: str) -> None:
    """Raise `UnknownEncoding` unless the encoding is supported or empty."""
    if encoding and encoding.strip().lower() not in ENCODINGS:
        raise UnknownEncoding(f"Content-Encoding {encoding!r}; send gzip, deflate or plain JSON")


def inflated_within(body: bytes, encoding: str, size: int) -> Optional[bytes]:
    """Return the body's content, None if that is larger than `size`; raises as `inflate` does."""
    if not encoding:
        return body if len(body) <= size else None
    pieces: list[bytes] = []
    for piece in inflate(body, encoding, ONE_REPORT):
        pieces.append(piece)
        size -= len(piece)
        if size < 0:
            return None
    return b"".join(pieces)


def inflate(body: bytes, encoding: str, limit: Limit) -> Iterator[bytes]:
    """Yield the body's content in pieces; raise `TooLarge` as soon as it is above the limit."""
    if encoding.strip().lower() in ("", "identity"):
        yield body
        return
    try:
        size = 0
        for piece in _inflate_members(body):
            size += len(piece)
            if size > limit.inflated:
                raise TooLarge(f"the body inflates above {limit.inflated} bytes; send less at once")
            yield piece
    except zlib.error:
        raise ReportRefused(
            "body", "the body is not compressed as Content-Encoding declares"
        ) from None


def _inflate_members(body: bytes) -> Iterator[bytes]:
    bare = body[:1] and body[0] & 0x0F != 8 and body[:2] != b"\x1f\x8b"
    members = 0
    inflater = None
    # In small steps, since zlib copies all unread input in each step.
    for start in range(0, len(body), SIP):
        unread = body[start : start + SIP]
        more = True
        while unread or more:
            if inflater is None:  # gzip files may be concatenated
                members += 1
                if members > MAX_MEMBERS:
                    raise TooLarge(f"the body has more than {MAX_MEMBERS} compressed parts")
                inflater = zlib.decompressobj(_BARE if bare else _GZIP_OR_ZLIB)
            piece = inflater.decompress(unread, PIECE)
            more = len(piece) == PIECE  # zlib may have more output
            unread = inflater.unconsumed_tail
            if inflater.eof:
                unread, more, inflater = inflater.unused_data, False, None
            yield piece
    if inflater is not None:
        raise ReportRefused("body", "the compressed body ends too early; send it all")
