"""Logging for DevLake's server, which reads lines of stdout as info and stderr as errors."""

import logging
import sys
from typing import Any

logger = logging.getLogger("pydevlake")

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
# The server stops reading at a line of 5 MiB; this is the most that people read.
_LONGEST_RECORD = 64 * 1024


def configure(config: Any) -> None:
    """Set up the process's log from the remote config, `{"log_level": "info"}`, "" or null."""
    name = config.get("log_level") if isinstance(config, dict) else None
    formatter = _Formatter("%(levelname)s: %(message)s")
    output = logging.StreamHandler(sys.stdout)
    output.addFilter(lambda record: record.levelno < logging.ERROR)
    errors = logging.StreamHandler(sys.stderr)
    errors.setLevel(logging.ERROR)
    for handler in (output, errors):
        handler.setFormatter(formatter)
    level = _LEVELS.get(str(name).lower(), logging.INFO)
    logging.basicConfig(level=level, handlers=[output, errors], force=True)
    # A warning on stderr would be an error for the server.
    logging.captureWarnings(True)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return super().format(record)[:_LONGEST_RECORD]
