"""The page's requests and what they are answered with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from developer_telemetry.receiver.web.presenter import Presenter
from developer_telemetry.receiver.web.queries import MAX_PAGES, Choice
from developer_telemetry.receiver.web.sessions import (
    COOKIE,
    SESSION_SECONDS,
    Sessions,
    host_of,
    is_same_origin,
    scheme_of,
)
from developer_telemetry.receiver.web.templating import render

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
MAX_FORM_BYTES = 8 << 10
MAX_FORM_FIELDS = 20
MAX_TEXT = 100

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Anything stricter would keep browsers from saying where a form comes from.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Form = dict[str, str]


class Page:
    """`/` and what belongs to it. All its links are relative: a proxy may put it anywhere."""

    def __init__(self, view: Presenter, access: Sessions) -> None:
        self._view = view
        self._access = access
        self._files = {path.name: path.read_bytes() for path in STATIC.iterdir()}
        # Part of each file's address, so that browsers may keep it for good.
        everything = b"".join(self._files[name] for name in sorted(self._files))
        self._version = hashlib.sha256(everything).hexdigest()[:12]

    def routes(self) -> list[Route]:
        """For the receiver's application."""
        return [
            Route("/", self.index, methods=["GET"]),
            Route("/live", self.live, methods=["GET"]),
            Route("/login", self.login, methods=["GET", "POST"]),
            Route("/logout", self.logout, methods=["POST"]),
            Route("/test-report", self.test_report, methods=["POST"]),
            Route("/static/{name}", self.static, methods=["GET"]),
        ]

    def close(self) -> None:
        """Let go of the database."""
        self._view.close()

    async def index(self, request: Request) -> Response:
        """The page."""
        if not self._access.allows(request):
            return self._turn_away(request)
        choice = _choice(request.query_params)
        return self._html("page.html", request, await self._view.page(choice, _base_url(request)))

    async def live(self, request: Request) -> Response:
        """What may have changed on the page since it was shown."""
        if not self._access.allows(request):
            return self._plain("sign in again", 403)
        answer = await self._view.live(_choice(request.query_params))
        return Response(answer, headers=_never_kept(), media_type="application/json")

    async def login(self, request: Request) -> Response:
        """The form that asks for the admin token, and what it sends."""
        if not self._access.has_token:
            return _go("./")
        if request.method != "POST":
            return self._html("login.html", request, {"fault": ""})
        form = await _form(request)
        if form is None or not is_same_origin(request):
            return self._plain("this form came from elsewhere; open the page and sign in there")
        if not self._access.is_token(form.get("token", "")):
            fault = "That is not the admin token. It is the value of TELEMETRY_ADMIN_TOKEN."
            return self._html("login.html", request, {"fault": fault}, 403)
        response = _go("./")
        secure = scheme_of(request) == "https"
        # Without a path it is sent to where the page is and nowhere else on this host.
        response.set_cookie(
            COOKIE,
            self._access.new_session(),
            SESSION_SECONDS,
            path=None,
            secure=secure,
            httponly=True,
            samesite="strict",
        )
        return response

    async def logout(self, request: Request) -> Response:
        """Forget who was signed in."""
        refusal, _ = await self._trusted_form(request)
        if refusal is not None:
            return refusal
        response = _go("login")
        response.set_cookie(COOKIE, "", 0, path=None, httponly=True, samesite="strict")
        return response

    async def test_report(self, request: Request) -> Response:
        """Try what a report to a connection would meet."""
        refusal, form = await self._trusted_form(request)
        if refusal is not None:
            return refusal
        outcome = await self._view.rehearse(_number(form.get("connection", "")))
        if outcome is None:
            return self._plain("there is no such connection any more; reload the page", 404)
        if request.headers.get("x-part") == "1":  # the page's script puts it where it belongs
            return HTMLResponse(render("outcome.html", outcome), headers=_never_kept())
        return self._html("tested.html", request, outcome)

    async def static(self, request: Request) -> Response:
        """Style, script and icon, which are no secret."""
        name = request.path_params["name"]
        if name not in self._files:
            return self._plain("no such file", 404)
        kept = request.query_params.get("v") == self._version
        cache = "public, max-age=31536000, immutable" if kept else "no-cache"
        return Response(
            self._files[name],
            headers={**HEADERS, "Cache-Control": cache},
            media_type=MEDIA_TYPES[Path(name).suffix],
        )

    async def _trusted_form(self, request: Request) -> tuple[Optional[Response], Form]:
        if not self._access.allows(request):
            return self._plain("sign in again"), {}
        form = await _form(request)
        if form is None or not self._access.trusts(request, form):
            return self._plain("this form is too old or from elsewhere; reload the page"), {}
        return None, form

    def _turn_away(self, request: Request) -> Response:
        if self._access.has_token:
            return _go("login")
        return self._html("closed.html", request, {}, 403)

    def _html(
        self, name: str, request: Request, values: Mapping[str, Any], status: int = 200
    ) -> Response:
        values = {
            "version": self._version,
            "mark": self._access.form_mark(request),
            "can_sign_out": self._access.has_token,
            **values,
        }
        return HTMLResponse(render(name, values), status, _never_kept())

    def _plain(self, text: str, status: int = 403) -> Response:
        return Response(text, status, _never_kept(), "text/plain")


def _go(address: str) -> Response:
    return RedirectResponse(address, 303, _never_kept())


def _never_kept() -> dict[str, str]:
    return {**HEADERS, "Cache-Control": "no-store"}


async def _form(request: Request) -> Optional[Form]:
    """The fields of a form; None if there are too many bytes of them."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return None
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=MAX_FORM_FIELDS))
    except ValueError:
        raise HTTPException(
            400, f"the form has more than {MAX_FORM_FIELDS} fields; send the page's own"
        ) from None


def _choice(query: Mapping[str, str]) -> Choice:
    state = query.get("state", "")
    return Choice(
        connection_id=_number(query.get("connection", "")),
        text=query.get("q", "").replace("\x00", "").strip()[:MAX_TEXT],
        state=state if state in ("heard", "quiet") else "",
        page=min(max(1, _number(query.get("page", ""))), MAX_PAGES),
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _base_url(request: Request) -> str:
    return f"{scheme_of(request)}://{host_of(request) or 'localhost'}"
