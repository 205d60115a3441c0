"""Many reports in one body, a JSON array or one a line, taken apart without holding all of it."""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from developer_telemetry.connections import Connection
from developer_telemetry.errors import ReportRefused, TelemetryError, Unavailable
from developer_telemetry.receiver.answers import Result, status_of
from developer_telemetry.receiver.bodies import ONE_REPORT, PIECE, TooLarge
from developer_telemetry.receiver.ingest import Ingest
from developer_telemetry.receiver.waiting import BATCH_CHARACTERS, BATCH_REPORTS
from developer_telemetry.reports import Report

MAX_REPORTS = 10_000

# A longer one is refused for its length, as it is when it is sent alone.
MAX_CHARACTERS = ONE_REPORT.inflated

# What decides where an element of an array ends: a plain text as a whole, the start of any other
# text, a bracket, and outside of brackets a comma.
_INSIDE = re.compile(r'"[^"\\]*"|["\[\]{}]')
_OUTSIDE = re.compile(r'"[^"\\]*"|["\[\]{},]')
# As much of a text as one match can take in little memory, which grows with its escapes.
_OF_TEXT = re.compile(r'[^"\\]*(?:\\.[^"\\]*){0,1000}', re.DOTALL)
_NOT_UTF_8 = re.compile("[\udc80-\udcff]")
_DEEPER = {"[": 1, "{": 1, "]": -1, "}": -1}


def items(pieces: Iterable[bytes]) -> Iterator[str]:
    """The texts of the reports in a body that comes in pieces, in their order.

    One of more than `MAX_CHARACTERS` is cut, but never to so few. Raises `ReportRefused` where
    the body as a whole can't be read any further.
    """
    texts = _decoded(pieces)
    for text in texts:
        start = text.lstrip("\ufeff \t\r\n")
        if start:
            split = _elements if start[0] == "[" else _lines
            yield from split(chain([start[1:] if start[0] == "[" else start], texts))
            return


def _decoded(pieces: Iterable[bytes]) -> Iterator[str]:
    # What isn't UTF-8 comes as `_NOT_UTF_8`, so that only the report is refused that it is in.
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for piece in pieces:
        yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)


def _lines(texts: Iterable[str]) -> Iterator[str]:
    rest = ""
    for text in texts:
        *whole, rest = (rest + text).split("\n")
        yield from filter(None, map(str.strip, whole))
        rest = rest.lstrip()[: MAX_CHARACTERS + 1]
    if rest:
        yield rest.strip()


def _elements(texts: Iterable[str]) -> Iterator[str]:
    depth = 0
    in_text = False
    rest = ""  # from the start of the element at hand
    seen = 0  # how much of it was scanned
    for text in texts:
        rest += text
        start = 0
        while True:
            if in_text:
                seen, in_text = _text_end(rest, seen)
                if in_text:
                    break
            mark = (_INSIDE if depth else _OUTSIDE).search(rest, seen)
            if mark is None:
                seen = len(rest)
                break
            seen = mark.end()
            in_text = mark.group() == '"'
            if depth or mark.group() not in (",", "]"):
                depth += _DEEPER.get(mark.group(), 0)
                continue
            element = rest[start : mark.start()].strip()
            start = seen
            if mark.group() == ",":
                yield element
                continue
            if element:
                yield element
            if rest[seen:].strip() or any(later.strip() for later in texts):
                raise ReportRefused("body", "something follows the array; send one array")
            return
        unseen = rest[seen:]
        rest = rest[start:seen].lstrip()[: MAX_CHARACTERS + 1]
        seen = len(rest)
        rest += unseen
    raise ReportRefused("body", "the array has no end; send all of it")


def _text_end(rest: str, seen: int) -> tuple[int, bool]:
    """Where scanning a text from `seen` ends, and whether the text goes on after it."""
    while True:
        match = _OF_TEXT.match(rest, seen)
        seen = match.end() if match else seen
        if rest[seen : seen + 1] == '"':
            return seen + 1, False
        if len(rest) - seen < 2:  # nothing, or a backslash without what it escapes
            return seen, True


class Bulk:
    """Keeps the reports of one body, in batches; `results` tells what became of each."""

    def __init__(
        self, ingest: Ingest, connection: Connection, stopping: Callable[[], bool]
    ) -> None:
        self.results: list[Result] = []
        self.errors: list[TelemetryError] = []
        self._ingest = ingest
        self._connection = connection
        self._stopping = stopping

    async def take(self, pieces: Iterable[bytes]) -> None:
        """Keep every valid report; the last result tells if the body can't be read to its end."""
        texts = items(self._until_stopped(pieces))
        ended = False
        while not ended:
            # In a thread, since reading 64 MiB would keep others waiting.
            batch, positions, ended = await asyncio.to_thread(self._read, texts)
            failures = await self._ingest.keep_all(self._connection, batch) if batch else []
            for position, failure in zip(positions, failures):
                if failure is not None:
                    self.errors.append(failure)
                    self.results[position] = Result(position, 503, str(failure))

    def _until_stopped(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            for start in range(0, len(piece), PIECE):
                if self._stopping():
                    raise Unavailable("the receiver is stopping; send this again")
                yield piece[start : start + PIECE]

    def _read(self, texts: Iterator[str]) -> tuple[list[Report], list[int], bool]:
        """The next valid reports, their positions, and whether the body ends with them."""
        batch: list[Report] = []
        positions: list[int] = []
        characters = 0
        try:
            for text in texts:
                if len(self.results) == MAX_REPORTS:
                    raise TooLarge(f"more than {MAX_REPORTS} reports; send the rest in another")
                try:
                    batch.append(self._parse(text))
                except ReportRefused as error:
                    self._refuse(error)
                    continue
                positions.append(len(self.results))
                self._add(200, "stored")
                characters += len(text)
                if len(batch) == BATCH_REPORTS or characters >= BATCH_CHARACTERS:
                    return batch, positions, False
        except (ReportRefused, TooLarge, Unavailable) as error:
            self._refuse(error)
        return batch, positions, True

    def _parse(self, text: str) -> Report:
        if len(text) > MAX_CHARACTERS:
            raise ReportRefused("body", f"above {MAX_CHARACTERS} characters; leave it out")
        if _NOT_UTF_8.search(text):
            raise ReportRefused("body", "not UTF-8; send the JSON in UTF-8")
        return self._connection.parse(text)

    def _refuse(self, error: TelemetryError) -> None:
        self.errors.append(error)
        field = error.field if isinstance(error, ReportRefused) else "body"
        self._add(status_of(error), str(error), field)

    def _add(self, status: int, message: str, field: str = "") -> None:
        self.results.append(Result(len(self.results), status, message, field))
