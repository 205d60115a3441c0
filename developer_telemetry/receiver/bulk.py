"""Many reports in one body, a JSON array or one a line, taken apart without holding all of it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

from developer_telemetry.connections import Connection
from developer_telemetry.errors import ReportRefused, TelemetryError
from developer_telemetry.receiver.answers import Result
from developer_telemetry.receiver.bodies import TooLarge
from developer_telemetry.receiver.ingest import BATCH_REPORTS, Ingest
from developer_telemetry.reports import Report, parse

MAX_REPORTS = 10_000

# What decides where an element of an array ends: a text, whole or cut off, or a bracket or comma.
_MARK = re.compile(r'"(?:[^"\\]|\\.)*"|"|[\[\]{},]', re.DOTALL)
# An element that doesn't end within this is refused anyway, for its size.
MAX_ITEM = 4 << 20


def items(pieces: Iterable[bytes]) -> Iterator[str]:
    """The texts of the reports in a body that comes in pieces, in their order.

    Raises `ReportRefused` where the body as a whole can't be read any further.
    """
    texts = _decoded(pieces)
    first = ""
    for text in texts:
        first += text
        start = first.lstrip("\ufeff \t\r\n")
        if start:
            split = _elements if start[0] == "[" else _lines
            return split(_chained(start[1:] if start[0] == "[" else start, texts))
    return iter(())


def _chained(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _decoded(pieces: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for piece in pieces:
            yield decoder.decode(piece)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise ReportRefused("body", "not UTF-8; send the JSON in UTF-8") from None


def _lines(texts: Iterable[str]) -> Iterator[str]:
    rest = ""
    for text in texts:
        *whole, rest = (rest + text).split("\n")
        yield from (line for line in whole if line.strip())
        _check_size(rest)
    if rest.strip():
        yield rest


def _elements(texts: Iterable[str]) -> Iterator[str]:
    depth = 0
    rest = ""  # from the start of the element at hand
    seen = 0  # how much of it was scanned
    for text in texts:
        rest += text
        start = 0
        while True:
            mark = _MARK.search(rest, seen)
            if mark is None:
                seen = len(rest)
                break
            if mark.group() == '"':  # a text that is not all here yet
                seen = mark.start()
                break
            seen = mark.end()
            ended = _closes(mark.group(), depth)
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(mark.group()[0], 0)
            if not ended:
                continue
            element = rest[start : mark.start()].strip()
            if element or mark.group() == ",":
                yield element
            start = seen
            if depth < 0:
                if rest[seen:].strip() or any(later.strip() for later in texts):
                    raise ReportRefused("body", "something follows the array; send one array")
                return
        rest = rest[start:]
        seen -= start
        _check_size(rest)
    raise ReportRefused("body", "the array has no end; send all of it")


def _closes(mark: str, depth: int) -> bool:
    """Whether an element of the outer array ends at this mark."""
    return depth == 0 and mark in (",", "]")


def _check_size(rest: str) -> None:
    if len(rest) > MAX_ITEM:
        raise ReportRefused("body", f"a report is above {MAX_ITEM} characters; leave it out")


class Bulk:
    """Keeps the reports of one body, in batches; `results` tells what became of each."""

    def __init__(self, ingest: Ingest, connection: Connection) -> None:
        self.results: list[Result] = []
        self.errors: list[TelemetryError] = []
        self._ingest = ingest
        self._connection = connection

    async def take(self, pieces: Iterable[bytes]) -> None:
        """Keep every valid report; raise what is wrong with the body where it can't go on."""
        batch: list[Report] = []
        positions: list[int] = []
        try:
            for text in items(pieces):
                if len(self.results) == MAX_REPORTS:
                    raise TooLarge(f"more than {MAX_REPORTS} reports; send the rest in another")
                try:
                    batch.append(parse(text))
                    positions.append(len(self.results))
                    self._add(200, "stored")
                except ReportRefused as error:
                    self._refuse(error)
                if len(batch) == BATCH_REPORTS:
                    await self._keep(batch, positions)
                    batch, positions = [], []
        finally:
            await self._keep(batch, positions)

    def refuse_rest(self, error: TelemetryError) -> None:
        """Say of what follows the last report read that it was not taken."""
        self._refuse(error)

    async def _keep(self, batch: list[Report], positions: list[int]) -> None:
        if not batch:
            return
        failures = await self._ingest.keep_all(self._connection, batch)
        for position, failure in zip(positions, failures):
            if failure is not None:
                self.errors.append(failure)
                self.results[position] = Result(position, 503, str(failure))

    def _refuse(self, error: TelemetryError) -> None:
        self.errors.append(error)
        self._add(
            413 if isinstance(error, TooLarge) else 400,
            str(error),
            error.field if isinstance(error, ReportRefused) else "body",
        )

    def _add(self, status: int, message: str, field: str = "") -> None:
        self.results.append(Result(len(self.results), status, message, field))
