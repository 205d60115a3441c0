"""Refused requests: the reason by which each is counted, and its line in the log."""

from __future__ import annotations

import logging
import uuid
from typing import Optional

from developer_telemetry.errors import ReportRefused, TelemetryError
from developer_telemetry.receiver.http.authenticator import TokenUnreadable
from developer_telemetry.receiver.http.body_reader import UnknownEncoding
from developer_telemetry.receiver.http.bulk_upload import Result
from developer_telemetry.reports.parser import without_path
from developer_telemetry.reports.refusal_reasons import TOKEN, UNREADABLE
from developer_telemetry.reports.sender import Sender
from developer_telemetry.storage.fleet.refused_machines import RefusalDetails

# The reasons by which refusals are counted; few, since each of them becomes a row a day.
REASONS = {401: TOKEN, 413: "size", 415: "encoding", 503: "unavailable"}

logger = logging.getLogger(__name__)


def reason_of(error: TelemetryError, status: int) -> str:
    """Return the reason under which a refusal is counted."""
    if isinstance(error, TokenUnreadable):
        return UNREADABLE
    return error.field if isinstance(error, ReportRefused) else REASONS[status]


def reason_of_result(result: Result) -> str:
    """Return the reason under which a refused report of a bulk upload is counted."""
    return result.field if result.status == 400 else REASONS[result.status]


def message_of(error: TelemetryError) -> str:
    """Return the fault without anything from the request's headers."""
    if isinstance(error, UnknownEncoding):
        return "the Content-Encoding is unknown; send gzip, deflate or plain JSON"
    return f"{error.field}: {error}" if isinstance(error, ReportRefused) else str(error)


def message_of_result(result: Result) -> str:
    """Return the fault of a refused report of a bulk upload, as `message_of` does."""
    return f"{result.field}: {result.message}" if result.status == 400 else result.message


def sender_of(error: TelemetryError) -> Sender:
    """Return the sender of a refused report, as far as its body names it."""
    if isinstance(error, ReportRefused):
        return Sender(error.developer, error.hostname)
    return Sender()


def log_refusal(connection_id: str, status: int, details: Optional[RefusalDetails]) -> str:
    """Log a refused request; return its id.

    Args:
        connection_id: As the path has it, which may be anything.
        status: That of the answer.
        details: None for a sender without a valid token, of whom nothing is logged.
    """
    request_id = uuid.uuid4().hex
    # The path may contain anything: a forged log line, a token, a home directory.
    number = connection_id if connection_id.isdigit() and len(connection_id) < 19 else "?"
    extra = {"request_id": request_id}
    if details is None:
        logger.info(
            "refused a request for connection %s with %d, request %s",
            *(number, status, request_id),
            extra=extra,
        )
    else:
        logger.info(
            "refused a request for connection %s with %d: %s, request %s",
            *(number, status, describe_details(details), request_id),
            extra=extra,
        )
    return request_id


def log_refused_report(connection_id: int, details: RefusalDetails, others: int) -> None:
    """Log the first refused report of a bulk upload, and the number of its others."""
    logger.info(
        "refused a report in an upload for connection %d: %s, and %d others",
        *(connection_id, describe_details(details), others),
    )


def describe_details(details: RefusalDetails) -> str:
    """Return the fault and the sender of a refused report, the names in quotes."""
    names = {"developer": details.developer_id, "host": details.hostname}
    quoted = [f"{label} {without_path(name)!r}" for label, name in names.items() if name]
    address = [f"address {details.address}"] if details.address else []
    return ", ".join([details.message, *quoted, *address])
