"""DevLake's own API keys, as far as they let machines report."""

from __future__ import annotations

import re
import time
from typing import Any, NamedTuple, Optional

import re2

from developer_telemetry.connections.report_url import devlake_path

# What a pattern may take, compiled and while it is searched for: no allowed path that someone
# typed comes near, and one that would is searched in milliseconds at most.
MAX_PATTERN_BYTES = 512 << 10

# The one thing that RE2 takes and Go's engine refuses: a single byte, even within a character.
_SINGLE_BYTE = re.compile(r"(?<!\\)(?:\\\\)*\\C")


class ApiKey(NamedTuple):
    """One of DevLake's own API keys.

    `pattern` is what its allowed path compiled to, None where it allows nothing; `fault` tells
    why, if it can't be compiled. `expires_at` is in epoch seconds, None where it never ends.
    """

    name: str
    pattern: Any  # the library's own type has no name
    fault: str
    expires_at: Optional[float]

    def allows(self, connection_id: int) -> bool:
        """Tell if it may report to a connection now, whichever of the report URLs was used."""
        if self.pattern is None or self.has_expired:
            return False
        return self.pattern.search(devlake_path(connection_id)) is not None

    @property
    def has_expired(self) -> bool:
        """Tell if its time is over."""
        return self.expires_at is not None and self.expires_at <= time.time()

    @property
    def remark(self) -> str:
        """Tell an operator what is wrong with a key that counts; `""` if nothing is."""
        if not self.fault or self.has_expired:
            return ""
        return (
            f"DevLake's API key {self.name!r} lets nobody in: its allowed path {self.fault};"
            " make a new key on DevLake's page API Keys"
        )


def read_api_key(
    allowed_path: Optional[str], expires_at: Optional[float] = None, name: str = ""
) -> ApiKey:
    """Return a key as DevLake's table has it.

    Its pattern runs in RE2, whose syntax and meaning are those of Go's engine, which DevLake uses,
    and whose time is bounded for any pattern.
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
        return ApiKey(name, None, f"is no pattern that can be used ({_reason(error)})", expires_at)


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "not UTF-8"
    reason = error.args[0] if error.args else ""
    text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    return repr(text)[1:-1]  # it repeats a part of the pattern, which may hold anything
