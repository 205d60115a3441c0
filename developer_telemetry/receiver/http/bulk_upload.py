"""Many reports in one body, a JSON array or one a line, taken apart without holding all of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Union

import msgspec

from developer_telemetry.errors import ReportRefused
from developer_telemetry.receiver.http.body_reader import PIECE, TooLarge
from developer_telemetry.reports.json_splitter import MAX_CHARACTERS, split_reports
from developer_telemetry.reports.limits import BATCH_CHARACTERS, BATCH_REPORTS
from developer_telemetry.reports.parser import Report
from developer_telemetry.reports.sender import Sender

MAX_REPORTS = 10_000
# The characters of one report's fault, since the answer contains those of all reports.
MAX_MESSAGE = 300
_NOT_UTF_8 = re.compile("[\udc80-\udcff]")


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of one report of many; `field` is the part at fault, "" if none is."""

    index: int
    status: int
    message: str
    field: str = ""


class Batch(msgspec.Struct, tag=True):
    """The next reports of a body: the valid ones, their positions, and the results of all.

    The last batch of a body has `ended`. `senders` has those of refused reports by position, as far
    as the reports name them.
    """

    reports: list[Report]
    positions: list[int]
    results: list[Result]
    ended: bool
    senders: dict[int, Sender] = {}


def batches(pieces: Iterable[bytes], parse: Callable[[str], Report]) -> Iterator[Batch]:
    """Parse the reports of a body; if it can't be read to its end, the last result is a fault."""
    texts = split_reports(_in_small_pieces(pieces))
    count = 0
    ended = False
    while not ended:
        batch = _read(texts, parse, count)
        count += len(batch.results)
        ended = batch.ended
        yield batch


def _in_small_pieces(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        for start in range(0, len(piece), PIECE):
            yield piece[start : start + PIECE]


def _read(texts: Iterator[str], parse: Callable[[str], Report], count: int) -> Batch:
    batch = Batch([], [], [], ended=False)
    characters = 0
    try:
        for text in texts:
            index = count + len(batch.results)
            if index == MAX_REPORTS:
                raise TooLarge(f"more than {MAX_REPORTS} reports; send the rest in another")
            try:
                batch.reports.append(_parse_one(text, parse))
            except ReportRefused as error:
                batch.results.append(_refused(index, error))
                if error.developer or error.hostname:
                    batch.senders[index] = Sender(error.developer, error.hostname)
            else:
                batch.positions.append(index)
                batch.results.append(Result(index, 200, "stored"))
                characters += len(text)
            if len(batch.results) >= BATCH_REPORTS or characters >= BATCH_CHARACTERS:
                return batch
    except (ReportRefused, TooLarge) as error:
        batch.results.append(_refused(count + len(batch.results), error))
    batch.ended = True
    return batch


def _refused(index: int, error: Union[ReportRefused, TooLarge]) -> Result:
    if isinstance(error, ReportRefused):
        return Result(index, 400, str(error)[:MAX_MESSAGE], error.field)
    return Result(index, 413, str(error), "body")


def _parse_one(text: str, parse: Callable[[str], Report]) -> Report:
    if len(text) > MAX_CHARACTERS:
        raise ReportRefused("body", f"above {MAX_CHARACTERS} characters; leave it out")
    if _NOT_UTF_8.search(text):
        raise ReportRefused("body", "not UTF-8; send the JSON in UTF-8")
    return parse(text)
