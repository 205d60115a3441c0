"""A strict parser of HTTP/1.1: it accepts one form only, so that no proxy reads it differently.

A request that two programs may parse differently is `Malformed`: two lengths, line ends without CR,
folded or padded headers, targets that are no path. A request to change the protocol is ignored, as
other headers are, and its body is read as declared.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple, Optional
from urllib.parse import unquote

# Limits of a request besides its body: of the start line and the headers; then of the sizes and
# ends of chunks, and of trailers. Browsers and proxies send a fraction of either.
MAX_HEAD_BYTES = 32 << 10
MAX_HEADERS = 100
MAX_FRAMING_BYTES = 1 << 20
MAX_LINE_BYTES = 4 << 10
# The longest Content-Length; no body has more bytes.
MAX_LENGTH_DIGITS = 15
# The chunks that are read before other connections get their turn.
CHUNKS_A_TURN = 500

HEAD_END = b"\r\n\r\n"
_LINE_END = b"\r\n"
_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = rb"[^\x00-\x08\x0a-\x1f\x7f]*"
_REQUEST_LINE = re.compile(rb"([A-Z]{1,24}) (/[!\"$-~]*) HTTP/1\.([01])")
# A header or a trailer.
_FIELD = re.compile(_NAME + rb":" + _VALUE)
_LONE_LF = re.compile(rb"(?<!\r)\n")
_EXTENSION = rb";" + _NAME + rb"(?:=(?:" + _NAME + rb'|"[^"\\\x00-\x1f\x7f]*"))?'
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,12})(?:" + _EXTENSION + rb")*")
# Of two of one of these, one program may use the first and the next one the last.
_SINGLE = frozenset(
    [b"host", b"content-length", b"transfer-encoding", b"authorization", b"content-encoding"]
)

Headers = list[tuple[bytes, bytes]]


class Malformed(Exception):
    """A request that two programs may read differently; the message is the reason."""


class Head(NamedTuple):
    """The start line and the headers of a request; `length` is None if the body is chunked."""

    method: str
    path: str
    raw_path: bytes
    query: bytes
    version: str
    headers: Headers
    fields: dict[bytes, bytes]  # the same headers by name, the last of each
    length: Optional[int]
    keep_alive: bool
    awaits_continue: bool


def check_start(received: bytes | bytearray) -> None:
    """Raise `Malformed` if the received part of a head can't become a complete one."""
    if received and not received[:1].isupper():
        raise Malformed("it begins with no method")
    if _LONE_LF.search(received):
        raise Malformed("a line doesn't end with CR and LF")
    line, end, _ = received.partition(_LINE_END)
    if end and not _REQUEST_LINE.fullmatch(line):
        raise Malformed("its first line is not `METHOD /path HTTP/1.1`")


def parse_head(received: bytes) -> Head:
    """Read a head, its empty line included; raise `Malformed` if it is not one."""
    first, *lines = received.removesuffix(HEAD_END).split(_LINE_END)
    match = _REQUEST_LINE.fullmatch(first)
    headers = [header for header in map(_read_header, lines) if header is not None]
    if match is None or len(headers) < len(lines):
        check_start(received)
        raise Malformed("a header is not `Name: value`")
    method, target, minor = match.groups()
    if len(headers) > MAX_HEADERS:
        raise Malformed(f"it has more than {MAX_HEADERS} headers")
    fields = dict(headers)
    if len(fields) != len(headers):
        fields[b"connection"] = _join_connection_values(headers)
    if method == b"CONNECT":
        raise Malformed("this is no proxy")
    modern = minor == b"1"
    if modern and b"host" not in fields:
        raise Malformed("it has no Host header")
    path, _, query = target.partition(b"?")
    text = path.decode("ascii")
    return Head(
        method.decode("ascii"),
        unquote(text) if "%" in text else text,
        path,
        query,
        "1.1" if modern else "1.0",
        headers,
        fields,
        _body_length(fields, modern),
        modern and not (b"connection" in fields and _closes(fields[b"connection"])),
        modern and b"expect" in fields and fields[b"expect"].lower() == b"100-continue",
    )


# The machines of a fleet send the same headers, except for one or two of each.
@lru_cache(maxsize=64)
def _read_header(line: bytes) -> Optional[tuple[bytes, bytes]]:
    """Return the name, in lower case, and the value of a header; None if the line is not one."""
    if not _FIELD.fullmatch(line):
        return None
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" \t")


def _join_connection_values(headers: Headers) -> bytes:
    """Return all values of Connection; raise `Malformed` if a header of `_SINGLE` is repeated."""
    names = [name for name, _ in headers]
    for name in _SINGLE:
        if names.count(name) > 1:
            raise Malformed(f"it has two headers called {name.decode()}")
    return b",".join(value for name, value in headers if name == b"connection")


def _closes(connection: bytes) -> bool:
    return b"close" in [token.strip(b" \t") for token in connection.lower().split(b",")]


def _body_length(headers: dict[bytes, bytes], modern: bool) -> Optional[int]:
    length = headers.get(b"content-length")
    coding = headers.get(b"transfer-encoding")
    if coding is None:
        if length is None:
            return 0
        if not length.isdigit() or len(length) > MAX_LENGTH_DIGITS:
            raise Malformed("its Content-Length is no number of bytes")
        return int(length)
    if length is not None:
        raise Malformed("it has both Content-Length and Transfer-Encoding")
    if coding.lower() != b"chunked":
        raise Malformed("its Transfer-Encoding is not `chunked`")
    if not modern:
        raise Malformed("HTTP/1.0 has no Transfer-Encoding")
    return None


class Sized:
    """Separates a body of known length from the received bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete = length == 0

    def take(self, received: bytearray) -> bytes:
        """Remove and return the bytes of the body."""
        if len(received) <= self._left:
            piece = bytes(received)
            received.clear()
        else:
            piece = bytes(received[: self._left])
            del received[: self._left]
        self._left -= len(piece)
        self.complete = not self._left
        return piece


class Chunked:
    """Separates a chunked body and its trailers from the received bytes."""

    def __init__(self) -> None:
        self.complete = False
        self.paused = False
        self._left = 0  # bytes of the current chunk
        self._ends = False  # only the line end of the current chunk is missing
        self._in_trailers = False
        self._framing = 0

    def take(self, received: bytearray) -> bytes:
        """Remove and return the bytes of the body; `paused` is True if there may be more.

        Raises:
            Malformed: if the chunks violate the protocol.
        """
        pieces: list[bytes | bytearray] = []
        at = 0
        for _ in range(CHUNKS_A_TURN):
            before = at
            if self._left:
                piece = received[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._ends = not self._left
            else:
                at = self._take_line(received, at)
                self._framing += at - before
            if at == before or self.complete:
                break
        self.paused = at != before and not self.complete
        del received[:at]
        if self._framing > MAX_FRAMING_BYTES:
            raise Malformed("there is too much between its chunks")
        return b"".join(pieces)

    def _take_line(self, received: bytearray, at: int) -> int:
        """Read a line between chunks; return its end, or `at` if it is incomplete."""
        end = received.find(_LINE_END, at, at + MAX_LINE_BYTES)
        if end < 0:
            if len(received) - at >= MAX_LINE_BYTES:
                raise Malformed("a line between its chunks is too long")
            if received.find(b"\n", at) >= 0:
                raise Malformed("a line between its chunks doesn't end with CR and LF")
            return at
        line = bytes(received[at:end])
        if self._ends:
            if line:
                raise Malformed("a chunk is longer than its declared size")
            self._ends = False
        elif self._in_trailers:
            if not line:
                self.complete = True
            elif not _FIELD.fullmatch(line):
                raise Malformed("a trailer is not `Name: value`")
        else:
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise Malformed("a chunk doesn't begin with its size")
            self._left = int(match[1], 16)
            self._in_trailers = not self._left
        return end + 2
