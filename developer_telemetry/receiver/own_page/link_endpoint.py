"""Give a collector a link to its developer's own page.

The token of a connection is shared by its machines, so the collector also has to show the secret of
its machine. The link is limited to the reports with that secret's page key.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from developer_telemetry.connections.registry import Connection
from developer_telemetry.errors import ReportRefused, TelemetryError, Unavailable
from developer_telemetry.privacy.own_data import OwnData
from developer_telemetry.privacy.personal_links import (
    COLLECTOR_SECONDS,
    LEAST_SECRET,
    MOST_SECRET,
    PersonalLinks,
    PersonalView,
    is_page_secret,
    make_page_key,
    page_path,
)
from developer_telemetry.receiver.http.authenticator import Authenticator
from developer_telemetry.receiver.http.report_endpoint import PREFIXES
from developer_telemetry.receiver.http.responses import Answer, answer, refusal
from developer_telemetry.receiver.web.data.reader import Reader
from developer_telemetry.reports.sender import find_sender

LINK_PATH = "/plugins/developer-telemetry/{connection_id}/me-link"
MAX_BODY_BYTES = 4 << 10

NOT_REPORTED = answer(
    404, "no report of this machine with its page key is stored; send a report first"
)
NOT_ALLOWED = answer(405, "ask for a link with POST").with_header("Allow", "POST")


class LinkEndpoint:
    """Answers a collector's request for a link."""

    def __init__(self, reader: Reader, authenticator: Authenticator, links: PersonalLinks) -> None:
        self._reader = reader
        self._authenticator = authenticator
        self._links = links

    def routes(self) -> list[Route]:
        """Return the routes for the receiver's application."""
        return [Route(prefix + LINK_PATH, self) for prefix in PREFIXES]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as an ASGI application."""
        request = Request(scope, receive)
        try:
            response = await self._answer(request) if request.method == "POST" else NOT_ALLOWED
        except TelemetryError as error:
            response = refusal(error)
        except SQLAlchemyError:
            response = refusal(Unavailable("the database can't be asked now"))
        await response.with_header("Cache-Control", "no-store")(scope, receive, send)

    async def _answer(self, request: Request) -> Answer:
        authorization = request.headers.get("authorization", "").encode("latin-1", "replace")
        connection = await self._authenticator.admit(
            request.path_params["connection_id"], authorization, must_have_token=True
        )
        view = _read_view(connection, await _read_body(request))
        data = OwnData(view.connection_id, view.developer_id, view.page_key)
        if not await self._reader.read(data.has_key):
            return NOT_REPORTED
        token = self._links.make_link(view)
        content = {"path": page_path(token), "valid_until": view.valid_until}
        return answer(200, "a link to what this machine has reported", content)


async def _read_body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ReportRefused("body", f"has more than {MAX_BODY_BYTES} bytes")
    return body


def _read_view(connection: Connection, body: bytes) -> PersonalView:
    """Return the view that a collector may have; raise `ReportRefused` if a field is wrong."""
    try:
        document: Any = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        document = None
    if not isinstance(document, dict):
        raise ReportRefused("body", "is not a JSON object")
    secret = document.get("page_secret")
    if not isinstance(secret, str) or not is_page_secret(secret):
        raise ReportRefused("page_secret", f"is no text of {LEAST_SECRET} to {MOST_SECRET} letters")
    developer = find_sender(connection.privacy, body).developer
    if not developer:
        raise ReportRefused("developer", "is missing")
    until = int(time.time()) + COLLECTOR_SECONDS
    return PersonalView(connection.id, developer, until, "", make_page_key(secret))
