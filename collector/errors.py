"""The exceptions of the collector."""


class CollectorError(Exception):
    """A command can't do what it was told to; the message ends with what to type next."""


class AnotherRun(CollectorError):
    """Another run of this user is under way."""


class ReportUnsent(Exception):
    """A report had no answer that a receiver gives."""
