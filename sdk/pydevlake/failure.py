"""A failed call as one line that an operator can act on."""

from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from pydevlake.driver_options import DatabaseUrlError

_SEE_TRACEBACK = "Log level debug shows where."
_LONGEST_CAUSE = 2000


class Failure(Exception):
    """A failure: its reason, and what to do next (a sentence)."""

    def __init__(self, cause: str, advice: str) -> None:
        super().__init__(cause)
        self.advice = advice


def describe(subject: str, error: BaseException) -> str:
    """Return one line: the failed `subject`, the reason, and a remedy.

    A statement's parameters and a model's input are left out: both may hold secrets.
    """
    cause, advice = _cause_and_advice(error)
    cause = " ".join(cause.split())[:_LONGEST_CAUSE]
    return f"{subject} failed: {cause.rstrip('.')}. {advice}".rstrip()


def _cause_and_advice(error: BaseException) -> tuple[str, str]:
    if isinstance(error, Failure):
        return str(error), error.advice
    if isinstance(error, DatabaseUrlError):
        return str(error), ""
    if isinstance(error, ValidationError):
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'value'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        return f"{error.title} is not valid: {'; '.join(faults)}", "Correct these fields."
    if isinstance(error, OperationalError):
        return (
            f"the database refuses: {error.orig}",
            "Check that it runs, that DB_URL names it and that the user may do this.",
        )
    if isinstance(error, DBAPIError):
        return f"{type(error.orig).__name__}: {error.orig}", _SEE_TRACEBACK
    if isinstance(error, SQLAlchemyError):
        # The first argument, without the statement and parameters that str() adds.
        return f"{type(error).__name__}: {error.args[0] if error.args else ''}", _SEE_TRACEBACK
    return f"{type(error).__name__}: {error}", _SEE_TRACEBACK
