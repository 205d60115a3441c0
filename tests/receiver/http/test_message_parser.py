"""Our reading of HTTP/1.1 against llhttp, the parser of Node.js, in its strict mode.

Whatever we accept, llhttp accepts too and reads alike: method, target, headers, body, and where the
next request begins. So a proxy that reads as most programs do can't be made to see other requests
than we do. The reverse is not wanted: we refuse more.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from developer_telemetry.receiver.http.message_parser import (
    HEAD_END,
    Chunked,
    Malformed,
    Sized,
    parse_head,
)
from tests.support.examples import examples


class Request(NamedTuple):
    """A request as a parser has read it, and how many bytes it took."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    length: int
    keep_alive: bool


def read_by_us(data: bytes) -> Optional[Request]:
    """Return the first request in `data`, or None if it is refused or not complete."""
    end = data.find(HEAD_END)
    if end < 0:
        return None
    received = bytearray(data[end + len(HEAD_END) :])
    try:
        head = parse_head(data[: end + len(HEAD_END)])
        body = Chunked() if head.length is None else Sized(head.length)
        content = body.take(received)
        while isinstance(body, Chunked) and body.paused:
            content += body.take(received)
    except Malformed:
        return None
    if not body.complete:
        return None
    target = head.raw_path + (b"?" + head.query if head.query else b"")
    taken = len(data) - len(received)
    return Request(head.method, target, head.headers, content, taken, head.keep_alive)


class _Listener:
    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = False
        self.keep_alive = False
        self.method = ""
        self.parser: httptools.HttpRequestParser

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.method:  # the others are trailers
            self.headers.append((name.lower(), value.strip(b" \t")))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_headers_complete(self) -> None:
        self.method = self.parser.get_method().decode()
        self.keep_alive = self.parser.should_keep_alive()

    def on_message_complete(self) -> None:
        self.complete = True


def read_by_llhttp(data: bytes) -> Optional[Request]:
    """Return the first request as llhttp reads it, byte by byte to learn where it ends."""
    listener = _Listener()
    parser = listener.parser = httptools.HttpRequestParser(listener)
    for at in range(len(data)):
        try:
            parser.feed_data(data[at : at + 1])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        if listener.complete:
            return Request(
                listener.method,
                listener.target.removesuffix(b"?"),
                listener.headers,
                listener.body,
                at + 1,
                listener.keep_alive,
            )
    return None


def mostly(usual: list[str], odd: list[str]) -> st.SearchStrategy[str]:
    """Draw something odd one time in forty: a request has about ten parts."""
    return st.sampled_from(usual * (40 * len(odd) // len(usual)) + odd)


ends = mostly(["\r\n"], ["\n", "\r", "\r\r\n", "\r\n ", " \r\n", "\r\n\t"])
colons = mostly([": ", ":", ":\t", ": \t "], [" :", ""])
fields = st.builds(
    "{}{}{}{}".format,
    mostly(
        ["Connection", "X", "Expect"], ["Content-Length", "Transfer-Encoding", "Host", "", "\x00"]
    ),
    colons,
    mostly(
        [
            "",
            "a",
            "close",
            "keep-alive",
            "Upgrade",
            "x, close",
            "100-continue",
            "h2c",
            "\xe9",
            "a\tb",
        ],
        ["\x00", "a\x0b", "\x7f", "chunked", "0"],
    ),
    ends,
)
first_lines = st.builds(
    "{} {} HTTP/{}{}".format,
    mostly(["POST", "GET", "PUT", "DELETE", "OPTIONS"], ["post", "P\tOST", "", "CONNECT"]),
    mostly(["/", "/a", "/a?b=c", "/a?", "/%41"], ["*", "http://x/", "/a b", "/\xe9", "/a#b", ""]),
    mostly(["1.1", "1.1", "1.0"], ["2.0", "1.2", "0.9", "1.10", "1", ""]),
    ends,
)
sizes = mostly(
    ["3", "03", "3;a=b", "3;a", '3;a="b c"'],
    ["3;a=b ", "3; a", "0", "3 ", " 3", "0x3", "-1", "A", "3;", ""],
)
chunks = st.builds("{}{}{}{}".format, sizes, ends, mostly(["abc"], ["ab", "abcd", ""]), ends)
last_chunks = st.builds(
    "{}{}{}{}".format,
    mostly(["0", "000"], ["1", "-0", ""]),
    ends,
    mostly(["", "", "T: v\r\n"], ["T\r\n", " T: v\r\n", "T: v\n"]),
    ends,
)
chunked = st.tuples(
    st.builds(
        "Transfer-Encoding{}{}{}".format,
        colons,
        mostly(
            ["chunked", "Chunked"], ["gzip, chunked", "chunked, chunked", "identity", "chunked;"]
        ),
        ends,
    ),
    st.builds("{}{}".format, st.lists(chunks, max_size=3).map("".join), last_chunks),
)
sized = st.tuples(
    st.builds(
        "Content-Length{}{}{}".format,
        colons,
        mostly(["3", "03", "0"], ["+3", "-3", "3, 3", "0x3", "3 3", "", "9" * 30]),
        ends,
    ),
    st.just("abc"),
)
bare = st.tuples(st.just(""), st.just(""))
requests = st.builds(
    lambda line, host, some, framing, end, more: (
        line + host + "".join(some) + framing[0] + end + framing[1] + more
    ).encode("latin-1"),
    first_lines,
    mostly(["Host: h\r\n"], ["", "Host: h\r\nHost: i\r\n"]),
    st.lists(fields, max_size=3),
    st.one_of(chunked, sized, bare),
    ends,
    st.sampled_from(["", "GET /b HTTP/1.1\r\nHost: h\r\n\r\n", "0\r\n\r\n"]),
)


@examples(2000)
@given(requests)
@example(
    b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET"
)
def test_what_is_accepted_is_read_as_llhttp_reads_it(data: bytes) -> None:
    ours = read_by_us(data)

    if ours is not None:
        theirs = read_by_llhttp(data)
        assert theirs is not None
        assert theirs._replace(keep_alive=ours.keep_alive) == ours
        # We end a connection also where llhttp would not, such as after a request of HTTP/1.0.
        assert theirs.keep_alive or not ours.keep_alive


@pytest.mark.parametrize(
    "data",
    [
        b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /a?b HTTP/1.0\r\nContent-Length: 3\r\n\r\nabcrest",
        b"GET / HTTP/1.1\r\nHost:h\r\nX: \xe9 \t\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\ntransfer-encoding: Chunked\r\n\r\n"
        b"3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n",
    ],
)
def test_what_clients_send_is_accepted(data: bytes) -> None:
    ours, theirs = read_by_us(data), read_by_llhttp(data)

    assert ours is not None
    assert ours == theirs
