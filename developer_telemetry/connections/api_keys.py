"""DevLake's API keys, with which machines may report."""

from __future__ import annotations

import re
import time
from typing import Any, NamedTuple, Optional

import re2

from developer_telemetry.connections.report_url import devlake_path

# Memory for a compiled pattern and its search: more than any typed path needs, and little enough
# for a search to take milliseconds.
MAX_PATTERN_BYTES = 512 << 10

# The only syntax that RE2 accepts and Go's engine refuses: a single byte, also within a character.
_SINGLE_BYTE = re.compile(r"(?<!\\)(?:\\\\)*\\C")


class ApiKey(NamedTuple):
    """One of DevLake's own API keys.

    `pattern` is its compiled allowed path, None where it allows nothing; `fault` is the reason if
    it can't be compiled. `expires_at` is in epoch seconds, None if it never ends.
    """

    name: str
    pattern: Any  # the library's own type has no name
    fault: str
    expires_at: Optional[float]

    def allows(self, connection_id: int) -> bool:
        """Return true if it may report to a connection now, by any of the report URLs."""
        if self.pattern is None or self.has_expired:
            return False
        return self.pattern.search(devlake_path(connection_id)) is not None

    @property
    def has_expired(self) -> bool:
        """Return true if its time is over."""
        return self.expires_at is not None and self.expires_at <= time.time()

    @property
    def remark(self) -> str:
        """Return a warning for an operator about a key in use; `""` if it has no fault."""
        if not self.fault or self.has_expired:
            return ""
        return (
            f"DevLake's API key {self.name!r} allows no report: its allowed path {self.fault};"
            " make a new key on DevLake's page API Keys"
        )


def read_api_key(
    allowed_path: Optional[str], expires_at: Optional[float] = None, name: str = ""
) -> ApiKey:
    """Return a key of DevLake's table.

    Its pattern runs in RE2, which equals DevLake's engine (Go's) and has a bounded time.
    """
    if allowed_path is None:
        return ApiKey(name, None, "", expires_at)
    options = re2.Options()
    options.max_mem = MAX_PATTERN_BYTES
    options.never_capture = True
    options.log_errors = False  # we have our own log
    try:
        if _SINGLE_BYTE.search(allowed_path):
            raise re2.error(r"invalid escape sequence: \C")
        return ApiKey(name, re2.compile(allowed_path, options), "", expires_at)
    except (re2.error, UnicodeEncodeError) as error:
        return ApiKey(name, None, f"is no valid pattern ({_reason(error)})", expires_at)


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "not UTF-8"
    reason = error.args[0] if error.args else ""
    text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    return repr(text)[1:-1]  # it repeats a part of the pattern, which may hold anything
