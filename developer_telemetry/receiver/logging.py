"""Log lines for people or for machines.

They never hold a body, a token or a home path. Text from elsewhere is made printable here, whatever
wrote the line, and of an error only our own words about it are taken: what a driver says may quote
a row.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from datetime import datetime, timezone

from developer_telemetry.database.engine import reason
from developer_telemetry.printable import printable, printable_json, printable_lines

# What strangers can have written: so many lines of one kind a minute, and then how many more.
LINES_A_MINUTE = 120
PROVOKED = (
    "asyncio",
    "uvicorn",
    "developer_telemetry.receiver.app",
    "developer_telemetry.receiver.http.exchange",
    "developer_telemetry.receiver.http.report_endpoint",
    "developer_telemetry.receiver.http.parser_pool",
)

# Before each line of a traceback, so that no text in it passes for a line of the log.
INDENT = "    "


class Bounded(logging.Filter):
    """Lets through so many lines of one kind a minute of what strangers can have written."""

    def __init__(self) -> None:
        super().__init__()
        self._since = float("-inf")
        self._counts: dict[tuple[str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is to be written, which then may tell of others that were not."""
        if not record.name.startswith(PROVOKED):
            return True
        dropped = 0
        if record.created - self._since > 60 or record.created < self._since:
            dropped = sum(max(0, count - LINES_A_MINUTE) for count in self._counts.values())
            self._since, self._counts = record.created, {}
        kind = (record.name, str(record.msg)[:100])
        # Kinds are few, unless somebody makes them up.
        kind = kind if kind in self._counts or len(self._counts) < 100 else ("", "")
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if dropped:
            record.msg = f"{record.msg} ({dropped} more lines were left out before this one)"
        return self._counts[kind] <= LINES_A_MINUTE


class TextLines(logging.Formatter):
    """A line for people, and below it the traceback if there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s ")

    def format(self, record: logging.LogRecord) -> str:
        record.asctime = self.formatTime(record)
        lines = [self.formatMessage(record) + _message(record)]
        lines += [INDENT + line for line in _traceback(record)]
        return "\n".join(lines)


class PlainLines(logging.Formatter):
    """A remark of a command, such as `warning: ...`, without time and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {_message(record)}"


class JsonLines(logging.Formatter):
    """One JSON object a line."""

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
        values = tuple(reason(each) if isinstance(each, Exception) else each for each in values)
    return printable(message % values if values else message)


def _traceback(record: logging.LogRecord) -> Iterator[str]:
    """Return where an error was raised, and each error that led to it, the first one first."""
    chain: list[BaseException] = []
    error = record.exc_info[1] if record.exc_info else None
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for each in reversed(chain):
        for frame in traceback.format_tb(each.__traceback__):
            yield from printable_lines(frame.rstrip("\n")).split("\n")
        why = reason(each) if isinstance(each, Exception) else str(each)
        yield printable(f"{type(each).__name__}: {why}")


def set_up_logs(level: str, log_format: str) -> None:
    """Log to stderr at a level, as `text` or `json`."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    handler.addFilter(Bounded())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # A line that can't be written would show its raw parts on stderr otherwise.
    logging.raiseExceptions = False
    # The libraries below say on these levels what we say ourselves, or what holds parameters.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("sqlalchemy").setLevel(logging.CRITICAL)
