"""Every exception of ours, grouped by what the caller should do about it.

TelemetryError
├── ReportRefused        the sender changes the report (HTTP 400)
├── Unavailable          the sender repeats the report (HTTP 503)
│   └── NotDevLakeYet    a command is run again later
├── ConnectionDeleted    the caller leaves rows of the connection out (HTTP 404)
├── ConfigurationError   the operator changes a setting
│   └── SpoolInUse
└── StatementTooLarge    the caller stores fewer rows at once
"""

from __future__ import annotations

from collections.abc import Collection


class TelemetryError(Exception):
    """Base of every error that this project raises on purpose; its text is fit to be shown."""


class ReportRefused(TelemetryError):
    """A report that can't be stored as it is: the sender has to change it (HTTP 400).

    `field` names the part of the body at fault (`"body"` for the whole of it). `developer` and
    `hostname` are the sender's, as far as the body names them and its reader looked for them.
    """

    def __init__(self, field: str, message: str, developer: str = "", hostname: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.message = message
        self.developer = developer
        self.hostname = hostname


class Unavailable(TelemetryError):
    """No report can be stored durably now: the sender should repeat it (HTTP 503).

    `retry_after` is in seconds.
    """

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotDevLakeYet(Unavailable):
    """DevLake's server has not made its tables in the database so far."""


class ConnectionDeleted(TelemetryError):
    """Connections were deleted meanwhile: a transaction that writes rows of them must not commit.

    `ids` has those of them.
    """

    def __init__(self, ids: Collection[int]) -> None:
        listed = ", ".join(map(str, sorted(ids)))
        super().__init__(f"deleted meanwhile: connection{'' if len(ids) == 1 else 's'} {listed}")
        self.ids = frozenset(ids)


class ConfigurationError(TelemetryError):
    """An error whose cause the operator can fix; the message names the remedy."""


class SpoolInUse(ConfigurationError):
    """Another process uses the spool."""


class StatementTooLarge(TelemetryError):
    """A single row that is larger than the database takes at once."""
