"""Formats of log lines, as text or as JSON.

A line never contains a body, a token or a home path. All text is made printable here. Of an error
it contains only `describe_error(error)`, since a driver's message may quote a row.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from datetime import datetime, timezone

from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.printable import printable, printable_json, printable_lines

# Any client can cause lines of these loggers. More lines of one kind are only counted.
LINES_A_MINUTE = 120
PROVOKED = (
    "asyncio",
    "uvicorn",
    "developer_telemetry.receiver.app",
    "developer_telemetry.receiver.http.exchange",
    "developer_telemetry.receiver.http.report_endpoint",
    "developer_telemetry.receiver.http.parser_pool",
    "developer_telemetry.receiver.http.refusals",
)

# Precedes each line of a traceback, so that no text in it looks like a line of the log.
INDENT = "    "


class Bounded(logging.Filter):
    """A filter that allows LINES_A_MINUTE of one kind from the loggers in PROVOKED."""

    def __init__(self) -> None:
        super().__init__()
        self._since = float("-inf")
        self._counts: dict[tuple[str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return true for a line to write; append the number dropped in the minute before."""
        if not record.name.startswith(PROVOKED):
            return True
        dropped = 0
        if record.created - self._since > 60 or record.created < self._since:
            dropped = sum(max(0, count - LINES_A_MINUTE) for count in self._counts.values())
            self._since, self._counts = record.created, {}
        kind = (record.name, str(record.msg)[:100])
        # There are few kinds, unless a sender invents them.
        kind = kind if kind in self._counts or len(self._counts) < 100 else ("", "")
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if dropped:
            record.msg = f"{record.msg} ({dropped} more lines were left out before this one)"
        return self._counts[kind] <= LINES_A_MINUTE


class TextLines(logging.Formatter):
    """A formatter of lines for people, each followed by the traceback if there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s ")

    def format(self, record: logging.LogRecord) -> str:
        record.asctime = self.formatTime(record)
        lines = [self.formatMessage(record) + _message(record)]
        lines += [INDENT + line for line in _traceback(record)]
        return "\n".join(lines)


class PlainLines(logging.Formatter):
    """A formatter of a command's remarks, as in `warning: ...`, without time and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {_message(record)}"


class JsonLines(logging.Formatter):
    """A formatter of lines that are JSON objects."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        line = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if hasattr(record, "request_id"):
            line["request_id"] = printable(record.request_id)
        if record.exc_info:
            line["traceback"] = "\n".join(_traceback(record))
        return printable_json(line)


def _message(record: logging.LogRecord) -> str:
    message, values = str(record.msg), record.args
    if isinstance(values, tuple):
        values = tuple(
            describe_error(value) if isinstance(value, Exception) else value for value in values
        )
    return printable(message % values if values else message)


def _traceback(record: logging.LogRecord) -> Iterator[str]:
    """Yield the frames and the text of an error, after those of the errors that caused it."""
    chain: list[BaseException] = []
    error = record.exc_info[1] if record.exc_info else None
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for error in reversed(chain):
        for frame in traceback.format_tb(error.__traceback__):
            yield from printable_lines(frame.rstrip("\n")).split("\n")
        text = describe_error(error) if isinstance(error, Exception) else str(error)
        yield printable(f"{type(error).__name__}: {text}")


def set_up_logs(level: str, log_format: str) -> None:
    """Log to stderr.

    Args:
        level: the name of the lowest level, as in `info`.
        log_format: `text` or `json`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    handler.addFilter(Bounded())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Otherwise a line that can't be written would show its raw parts on stderr.
    logging.raiseExceptions = False
    # Below these levels, the libraries repeat our own lines, or log parameters of statements.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("sqlalchemy").setLevel(logging.CRITICAL)
