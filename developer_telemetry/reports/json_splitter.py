"""Split a body of many reports, a JSON array or one a line, without holding all of it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import accumulate, chain

from developer_telemetry.errors import ReportRefused
from developer_telemetry.reports.limits import ONE_REPORT

# A longer report is refused for its length.
MAX_CHARACTERS = ONE_REPORT.inflated
# The tokens that decide the end of an array's element: a complete plain text, the start of any
# other text, a bracket, and outside of brackets a comma.
_INSIDE = re.compile(r'"[^"\\]*"|["\[\]{}]')
_OUTSIDE = re.compile(r'"[^"\\]*"|["\[\]{},]')
# The characters of a text in one match, whose memory grows with its escapes.
_OF_TEXT = re.compile(r'[^"\\]*(?:\\.[^"\\]*){0,1000}', re.DOTALL)
# An element is scanned bracket by bracket up to this length; a longer one is skipped in steps of
# these sizes.
SHORT = 1024
LEAST_SKIPPED = 128
MOST_SKIPPED = 8192
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(sorted(set(range(256)) - set(b"[{]}")))
_DEEPER = {"[": 1, "{": 1, "]": -1, "}": -1}


def split_reports(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the texts of the reports in a body that is read in pieces, in their order.

    A report of more than `MAX_CHARACTERS` is cut, but stays longer than that, so it is refused.

    Raises:
        ReportRefused: The body can't be read any further.
    """
    texts = _decode(pieces)
    for text in texts:
        start = text.lstrip("\ufeff \t\r\n")
        if start:
            split = _split_elements if start[0] == "[" else _split_lines
            yield from split(chain([start[1:] if start[0] == "[" else start], texts))
            return


def _decode(pieces: Iterable[bytes]) -> Iterator[str]:
    # Invalid UTF-8 is replaced by `_NOT_UTF_8`, so that only its own report is refused.
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for piece in pieces:
        yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)


def _split_lines(texts: Iterable[str]) -> Iterator[str]:
    buffer = ""
    for text in texts:
        *complete, buffer = (buffer + text).split("\n")
        yield from filter(None, map(str.strip, complete))
        buffer = buffer.lstrip()[: MAX_CHARACTERS + 1]
    if buffer:
        yield buffer.strip()


def _split_elements(texts: Iterable[str]) -> Iterator[str]:
    depth = 0
    in_text = False
    buffer = ""  # from the start of the current element
    seen = 0  # the scanned characters of it
    for text in texts:
        buffer += text
        start = 0
        slow_until = seen + LEAST_SKIPPED
        while True:
            if in_text:
                seen, in_text = _find_text_end(buffer, seen)
                if in_text:
                    break
            if depth and seen >= slow_until:
                seen, depth = _skip(buffer, seen, depth)
                slow_until = seen + LEAST_SKIPPED
            delimiter = (_INSIDE if depth else _OUTSIDE).search(buffer, seen)
            if delimiter is None:
                seen = len(buffer)
                break
            seen = delimiter.end()
            in_text = delimiter.group() == '"'
            if depth or delimiter.group() not in (",", "]"):
                depth += _DEEPER.get(delimiter.group(), 0)
                continue
            element = buffer[start : delimiter.start()].strip()
            start = seen
            slow_until = seen + SHORT
            if delimiter.group() == ",":
                yield element
                continue
            if element:
                yield element
            if buffer[seen:].strip() or any(later.strip() for later in texts):
                raise ReportRefused("body", "there is text after the array; send one array")
            return
        unseen = buffer[seen:]
        buffer = buffer[start:seen].lstrip()[: MAX_CHARACTERS + 1]
        seen = len(buffer)
        buffer += unseen
    raise ReportRefused("body", "the array has no end; send all of it")


def _skip(buffer: str, seen: int, depth: int) -> tuple[int, int]:
    """Skip characters from `seen` that are surely inside an element; return the end and its depth.

    This takes a tenth of the time of matching each bracket and text.
    """
    size = LEAST_SKIPPED
    while size >= LEAST_SKIPPED:
        block = buffer[seen : seen + size]
        # Up to the first backslash, and not beyond the start of an incomplete text.
        parts = block.partition("\\")[0].split('"')
        outside = "".join(parts[::2] if len(parts) % 2 else parts[:-1:2])
        length = sum(map(len, parts)) + len(parts) - 1
        if len(parts) % 2 == 0:
            length -= len(parts[-1]) + 1
        if length < LEAST_SKIPPED // 2:
            break
        steps = memoryview(outside.encode("ascii", "replace").translate(_STEPS, _NO_BRACKETS))
        deeper = list(accumulate(steps.cast("b")))
        if deeper and depth + min(deeper) <= 0:
            size //= 8  # the element ends within `size`
            continue
        seen += length
        depth += deeper[-1] if deeper else 0
        size = min(2 * size, MOST_SKIPPED)  # a failure then takes less time than the skipped part
    return seen, depth


def _find_text_end(buffer: str, seen: int) -> tuple[int, bool]:
    """Return the end of a text's scan from `seen`, and true if the text continues after it."""
    while True:
        match = _OF_TEXT.match(buffer, seen)
        seen = match.end() if match else seen
        if buffer[seen : seen + 1] == '"':
            return seen + 1, False
        if len(buffer) - seen < 2:  # nothing, or a backslash without the next character
            return seen, True
