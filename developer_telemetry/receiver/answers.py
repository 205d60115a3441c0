"""What senders are told, in the shape of DevLake's own answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import msgspec
from starlette.responses import Response

from developer_telemetry.errors import ReportRefused, TelemetryError, Unavailable
from developer_telemetry.receiver.bodies import TooLarge, UnknownEncoding
from developer_telemetry.receiver.doorkeeper import NoSuchConnection, Unauthorized

# Never 429, 410 or a redirect: collectors take them as final, as they do any 4xx.
STATUS: dict[type[TelemetryError], int] = {
    ReportRefused: 400,
    Unauthorized: 401,
    NoSuchConnection: 404,
    TooLarge: 413,
    UnknownEncoding: 415,
    Unavailable: 503,
}


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one report of many; `field` is the part at fault, "" if none is."""

    index: int
    status: int
    message: str
    field: str = ""


def status_of(error: TelemetryError) -> int:
    """The HTTP status that tells a sender of an error."""
    return next(status for kind, status in STATUS.items() if isinstance(error, kind))


def answer(
    status: int,
    message: str,
    more: Optional[dict[str, object]] = None,
    retry_after: Optional[int] = None,
) -> Response:
    """An answer; `more` is added to its JSON."""
    content = {"success": status == 200, "message": message, **(more or {})}
    response = Response(msgspec.json.encode(content), status, media_type="application/json")
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


def refusal(error: TelemetryError) -> Response:
    """The answer to a request that failed with `error`."""
    status = status_of(error)
    if isinstance(error, ReportRefused):
        faults = [{"field": error.field, "message": error.message}]
        return answer(status, f"{error.field}: {error.message}", {"errors": faults})
    retry_after = error.retry_after if isinstance(error, Unavailable) else None
    response = answer(status, str(error), retry_after=retry_after)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    if status in (413, 503):
        response.headers["Connection"] = "close"  # what is still being sent is not read
    return response


def bulk_answer(results: Sequence[Result]) -> Response:
    """200 if every valid report is kept, 503 if one is not, 400 if none was valid.

    413 if the body went on after what may be sent at once; what came before is kept.
    """
    stored = sum(result.status == 200 for result in results)
    lost = sum(result.status == 503 for result in results)
    refused = len(results) - stored - lost
    more: dict[str, object] = {
        "stored": stored,
        "refused": refused,
        "results": list(results),
    }
    if any(result.status == 413 for result in results):
        return answer(413, f"{stored} reports stored, the rest is too much at once", more)
    if lost:
        return answer(503, f"{lost} reports could not be kept; send all of it again", more, 5)
    if not stored:
        return answer(400, "no report of it is valid; see results", more)
    return answer(200, f"{stored} reports stored, {refused} refused", more)
