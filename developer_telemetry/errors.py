"""What went wrong, grouped by what the caller should do about it."""


class TelemetryError(Exception):
    """Base of every error that this project raises on purpose; its text is fit to be shown."""


class ReportRefused(TelemetryError):
    """A report that can't be kept as it is: the sender has to change it (HTTP 400).

    `field` names the part of the body at fault (`"body"` for the whole of it).
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


class Unavailable(TelemetryError):
    """We can't promise to keep a report now: the sender should repeat it (HTTP 503).

    `retry_after` is in seconds.
    """

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ConfigurationError(TelemetryError):
    """An error that the operator has to fix; the message says how."""


class SpoolInUse(ConfigurationError):
    """Another process has the spool."""


class StatementTooLarge(TelemetryError):
    """A single row is larger than what the database takes at once."""
