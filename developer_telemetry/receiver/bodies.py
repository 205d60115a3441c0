"""Read a request's body within bounds, before and after decompression."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

from developer_telemetry.errors import ReportRefused, TelemetryError

# A collector's body is about 2 kB; a long day in a hundred repositories stays below 100.
MAX_SENT = 1 << 20
MAX_INFLATED = 4 << 20

# Accepts the headers of gzip and of zlib alike; "deflate" is sent as either of zlib and bare.
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_BARE = -zlib.MAX_WBITS


class TooLarge(TelemetryError):
    """The body is above a limit (HTTP 413)."""


class UnknownEncoding(TelemetryError):
    """The body is compressed in a way that we don't read (HTTP 415)."""


async def read_body(chunks: AsyncIterator[bytes], encoding: str) -> bytes:
    """The whole body, inflated if `encoding` (the Content-Encoding header) says so."""
    encoding = encoding.strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise UnknownEncoding(f"Content-Encoding {encoding!r}; send gzip, deflate or plain JSON")
    sent: list[bytes] = []
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > MAX_SENT:
            raise TooLarge(f"the body is above {MAX_SENT} bytes; send less at once")
        sent.append(chunk)
    body = b"".join(sent)
    return body if encoding in ("", "identity") else _inflate(body)


def _inflate(body: bytes) -> bytes:
    bare = body[:1] and body[0] & 0x0F != 8 and body[:2] != b"\x1f\x8b"
    inflated = b""
    try:
        while body:  # gzip files may be strung together
            inflater = zlib.decompressobj(_BARE if bare else _GZIP_OR_ZLIB)
            inflated += inflater.decompress(body, MAX_INFLATED + 1 - len(inflated))
            if len(inflated) > MAX_INFLATED:
                raise TooLarge(f"the body inflates above {MAX_INFLATED} bytes; send less at once")
            if not inflater.eof:
                raise ReportRefused("body", "the compressed body ends too early; send all of it")
            body = inflater.unused_data
    except zlib.error:
        raise ReportRefused("body", "the body is not compressed as Content-Encoding says") from None
    return inflated
