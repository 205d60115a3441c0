"""Routes of the page."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Optional
from urllib.parse import parse_qsl

from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.receiver.web.data.queries import today
from developer_telemetry.receiver.web.data.reader import Reader
from developer_telemetry.receiver.web.listing import machine_address
from developer_telemetry.receiver.web.lists import Lists, Values
from developer_telemetry.receiver.web.presenter import Presenter
from developer_telemetry.receiver.web.selection import (
    MAX_NAME,
    Selection,
    parse_number,
    parse_selection,
    parse_text,
)
from developer_telemetry.receiver.web.sessions import (
    COOKIE,
    SESSION_SECONDS,
    Sessions,
    host_of,
    is_same_origin,
    scheme_of,
)
from developer_telemetry.receiver.web.templating import render
from developer_telemetry.storage.fleet.machines import MachineKey

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
MAX_FORM_BYTES = 8 << 10
MAX_FORM_FIELDS = 20
# The lists that can be had as files.
FILES = ("machines", "days", "refused")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With a stricter policy, browsers would not state the origin of a form.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Form = dict[str, str]


class Page:
    """The page at `/` and its parts. All links are relative, so that it can be below any path."""

    def __init__(
        self, reader: Reader, presenter: Presenter, lists: Lists, sessions: Sessions
    ) -> None:
        self._reader = reader
        self._presenter = presenter
        self._lists = lists
        self._sessions = sessions
        self._files = {path.name: path.read_bytes() for path in STATIC.iterdir()}
        # Part of each file's address, so that browsers can cache it forever.
        everything = b"".join(self._files[name] for name in sorted(self._files))
        self.version = hashlib.sha256(everything).hexdigest()[:12]

    def routes(self) -> list[Route]:
        """Return the routes for the receiver's application."""
        return [
            Route("/", self.index, methods=["GET"]),
            Route("/live", self.live, methods=["GET"]),
            Route("/days", self.days, methods=["GET"]),
            Route("/refused", self.refused, methods=["GET"]),
            Route("/machine", self.machine, methods=["GET", "POST"]),
            Route("/{name:str}.csv", self.file, methods=["GET"]),
            Route("/set-up", self.set_up, methods=["GET"]),
            Route("/login", self.login, methods=["GET", "POST"]),
            Route("/logout", self.logout, methods=["POST"]),
            Route("/test-report", self.test_report, methods=["POST"]),
            Route("/static/{name}", self.static, methods=["GET"]),
        ]

    def close(self) -> None:
        """Close the page's database connections."""
        self._reader.close()

    async def index(self, request: Request) -> Response:
        """Return the page."""
        if not self._sessions.allows(request):
            return self._denied(request)
        selection = parse_selection(request.query_params)
        values = await self._presenter.page(selection, _base_url(request))
        return self._html("page.html", request, values)

    async def live(self, request: Request) -> Response:
        """Return the parts of the overview that change, as JSON."""
        if not self._sessions.allows(request):
            return self._plain("sign in again", 403)
        answer = await self._presenter.live(parse_selection(request.query_params))
        return Response(answer, headers=_uncached_headers(), media_type="application/json")

    async def days(self, request: Request) -> Response:
        """Return the list of days of work behind a figure."""
        if not self._sessions.allows(request):
            return self._denied(request)
        return await self._read("days.html", request, self._lists.days)

    async def refused(self, request: Request) -> Response:
        """Return the list of refused machines."""
        if not self._sessions.allows(request):
            return self._denied(request)
        return await self._read("refused-machines.html", request, self._lists.refused)

    async def file(self, request: Request) -> Response:
        """Return all rows of a list as CSV."""
        if not self._sessions.allows(request):
            return self._denied(request)
        name = request.path_params["name"]
        if name not in FILES:
            return self._plain("no such file", 404)
        try:
            content = await self._lists.file(
                name, parse_selection(request.query_params), self._sessions.name_viewer(request)
            )
        except SQLAlchemyError as error:
            return self._plain(f"the database reports: {describe_error(error)}", 503)
        headers = {
            **_uncached_headers(),
            "Content-Disposition": f'attachment; filename="{name}-{today()}.csv"',
        }
        return Response(content, headers=headers, media_type="text/csv; charset=utf-8")

    async def machine(self, request: Request) -> Response:
        """Return the page of a machine (GET), or retire or restore it (POST)."""
        if request.method == "POST":
            return await self._retire(request)
        if not self._sessions.allows(request):
            return self._denied(request)
        query = request.query_params
        try:
            values = await self._lists.machine(
                _machine_key(query), "host" not in query, self._sessions.name_viewer(request)
            )
        except SQLAlchemyError as error:
            return self._html("fault.html", request, {"fault": describe_error(error)}, 503)
        if values is None:
            return self._html("no-machine.html", request, {}, 404)
        return self._html("machine.html", request, values)

    async def _retire(self, request: Request) -> Response:
        refusal, form = await self._trusted_form(request)
        if refusal is not None:
            return refusal
        key = _machine_key(form)
        try:
            await self._lists.retire(key, form.get("action") == "retire")
        except SQLAlchemyError as error:
            return self._html("fault.html", request, {"fault": describe_error(error)}, 503)
        return _redirect(machine_address(key))

    async def set_up(self, request: Request) -> Response:
        """Return the instructions to set up a machine."""
        if not self._sessions.allows(request):
            return self._denied(request)
        selection = parse_selection(request.query_params)
        values = self._presenter.set_up(selection.connection_id, _base_url(request))
        return self._html("set-up-page.html", request, {**values, "selection": selection})

    async def login(self, request: Request) -> Response:
        """Return the sign-in form (GET), or sign in (POST)."""
        if not self._sessions.has_token:
            return _redirect("./")
        if request.method != "POST":
            return self._html("login.html", request, {"fault": ""})
        form = await _form(request)
        if form is None or not is_same_origin(request):
            return self._plain(
                "this form was not sent from this page; open the page and sign in there"
            )
        if not self._sessions.is_token(form.get("token", "")):
            fault = "This is not the admin token, which is the value of TELEMETRY_ADMIN_TOKEN."
            return self._html("login.html", request, {"fault": fault}, 403)
        response = _redirect("./")
        secure = scheme_of(request) == "https"
        # Without a path, a browser sends it to the page's own folder on this host alone.
        response.set_cookie(
            COOKIE,
            self._sessions.new_session(),
            SESSION_SECONDS,
            path=None,
            secure=secure,
            httponly=True,
            samesite="strict",
        )
        return response

    async def logout(self, request: Request) -> Response:
        """Sign out."""
        refusal, _ = await self._trusted_form(request)
        if refusal is not None:
            return refusal
        response = _redirect("login")
        response.set_cookie(COOKIE, "", 0, path=None, httponly=True, samesite="strict")
        return response

    async def test_report(self, request: Request) -> Response:
        """Run a test report and return its outcome."""
        refusal, form = await self._trusted_form(request)
        if refusal is not None:
            return refusal
        outcome = await self._presenter.self_test(parse_number(form.get("connection", "")))
        if outcome is None:
            return self._plain("this connection no longer exists; reload the page", 404)
        if request.headers.get("x-part") == "1":  # the page's script inserts it
            return HTMLResponse(render("outcome.html", outcome), headers=_uncached_headers())
        return self._html("tested.html", request, outcome)

    async def static(self, request: Request) -> Response:
        """Return the style, the script or the icon; they need no sign-in."""
        name = request.path_params["name"]
        if name not in self._files:
            return self._plain("no such file", 404)
        is_current = request.query_params.get("v") == self.version
        cache = "public, max-age=31536000, immutable" if is_current else "no-cache"
        return Response(
            self._files[name],
            headers={**HEADERS, "Cache-Control": cache},
            media_type=MEDIA_TYPES[Path(name).suffix],
        )

    async def _read(
        self, name: str, request: Request, read: Callable[[Selection], Awaitable[Values]]
    ) -> Response:
        """Return a list, or the database's error."""
        try:
            values = await read(parse_selection(request.query_params))
        except SQLAlchemyError as error:
            return self._html("fault.html", request, {"fault": describe_error(error)}, 503)
        return self._html(name, request, values)

    async def _trusted_form(self, request: Request) -> tuple[Optional[Response], Form]:
        if not self._sessions.allows(request):
            return self._plain("sign in again"), {}
        form = await _form(request)
        if form is None or not self._sessions.accepts_form(request, form):
            return self._plain(
                "this form is too old or was not sent from this page; reload the page"
            ), {}
        return None, form

    def _denied(self, request: Request) -> Response:
        if self._sessions.has_token:
            return _redirect("login")
        return self._html("closed.html", request, {}, 403)

    def _html(
        self, name: str, request: Request, values: Mapping[str, Any], status: int = 200
    ) -> Response:
        values = {
            "version": self.version,
            "csrf_token": self._sessions.csrf_token(request),
            "can_sign_out": self._sessions.has_token,
            "empty": False,
            "pending": False,
            **values,
        }
        return HTMLResponse(render(name, values), status, _uncached_headers())

    def _plain(self, text: str, status: int = 403) -> Response:
        return Response(text, status, _uncached_headers(), "text/plain")


def _redirect(address: str) -> Response:
    return RedirectResponse(address, 303, _uncached_headers())


def _uncached_headers() -> dict[str, str]:
    return {**HEADERS, "Cache-Control": "no-store"}


async def _form(request: Request) -> Optional[Form]:
    """Return the fields of a form; None if it is longer than MAX_FORM_BYTES."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return None
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=MAX_FORM_FIELDS))
    except ValueError:
        raise HTTPException(
            400, f"the form has more than {MAX_FORM_FIELDS} fields; send the form of the page"
        ) from None


def _machine_key(fields: Mapping[str, str]) -> MachineKey:
    """Return the machine that the fields of an address or a form name."""
    return MachineKey(
        parse_number(fields.get("connection", "")),
        parse_text(fields.get("developer", ""), MAX_NAME),
        parse_text(fields.get("host", ""), MAX_NAME),
    )


def _base_url(request: Request) -> str:
    return f"{scheme_of(request)}://{host_of(request) or 'localhost'}"
