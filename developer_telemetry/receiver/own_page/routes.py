"""Routes of a person's own page: what is stored about them, and who looked at it.

A link opens it. The link's token is in the query of one address, which answers with a redirect and
a cookie, so that no address of the page itself has it.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import Any, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.privacy.access_log import ERASE, EXPORT, OWN_PAGE, PAGE, Look, record_look
from developer_telemetry.privacy.own_data import OwnData, shorten, write_csv, write_json
from developer_telemetry.privacy.personal_links import (
    LINK_FIELD,
    PAGE_PATH,
    SESSION_SECONDS,
    LinkExpired,
    LinkInvalid,
    PersonalLinks,
    PersonalView,
)
from developer_telemetry.receiver.http.report_endpoint import PREFIXES
from developer_telemetry.receiver.web.data.queries import moment_of
from developer_telemetry.receiver.web.data.reader import Reader
from developer_telemetry.receiver.web.routes import HEADERS, Page
from developer_telemetry.receiver.web.selection import parse_number
from developer_telemetry.receiver.web.sessions import scheme_of
from developer_telemetry.receiver.web.templating import render

COOKIE = "telemetry_own_page"
DAYS_A_PAGE = 28
SHORT_PATH = "/me/"
# The pieces of a file are joined to parts of about this size.
PART_BYTES = 256 << 10
# Fields of a row that only programs need.
_OMITTED = ("connection_id", "arrived_us")
# The means of a look, in words.
_MEANS = {
    PAGE: "page of operators",
    EXPORT: "export",
    ERASE: "erasure, before it",
    OWN_PAGE: "here",
}

Values = dict[str, Any]


class OwnPage:
    """The page at `/me/`, also below the path that a front proxy hands on."""

    def __init__(
        self, reader: Reader, writing: Engine, links: PersonalLinks, page: Page, contact: str
    ) -> None:
        """Take also the engine that writes, to record looks.

        Args:
            page: The page of operators, whose styles this one has.
            contact: The name, address or URL of who answers questions about stored data.
        """
        self._reader = reader
        self._writing = writing
        self._links = links
        self._page = page
        self._contact = contact

    def routes(self) -> list[Route]:
        """Return the routes for the receiver's application."""
        paths = [SHORT_PATH, *(prefix + PAGE_PATH for prefix in PREFIXES)]
        handlers = {
            "": self.index,
            "open": self.open,
            "day": self.day,
            "data.json": self.json_file,
            "days.csv": self.csv_file,
            "static/{name}": self._page.static,
        }
        routes = [
            Route(path + name, handler, methods=["GET"])
            for path in paths
            for name, handler in handlers.items()
        ]
        return routes + [Route(path[:-1], self.add_slash, methods=["GET"]) for path in paths]

    async def add_slash(self, request: Request) -> Response:
        """Redirect to the page, whose links are relative to the path with a slash at its end."""
        return _redirect("me/")

    async def open(self, request: Request) -> Response:
        """Exchange a link for a cookie of this browser."""
        try:
            cookie = self._links.open_link(request.query_params.get(LINK_FIELD, ""))
        except (LinkExpired, LinkInvalid) as error:
            return self._refuse(error)
        response = _redirect("./")
        response.set_cookie(
            COOKIE,
            cookie,
            SESSION_SECONDS,
            path=None,
            secure=scheme_of(request) == "https",
            httponly=True,
            # A stricter cookie would not be sent on the way from a mail or a chat.
            samesite="lax",
        )
        return response

    async def index(self, request: Request) -> Response:
        """Return the page with the list of days."""
        page = max(1, parse_number(request.query_params.get("page", "")))
        return await self._answer(
            request, "own page", "me.html", lambda data, view: partial(_read_page, data, page)
        )

    async def day(self, request: Request) -> Response:
        """Return one day with its reports."""
        date = _parse_date(request.query_params.get("date", ""))
        if date is None:
            return _redirect("./")
        return await self._answer(
            request, f"day {date}", "me-day.html", lambda data, view: partial(_read_day, data, date)
        )

    async def json_file(self, request: Request) -> Response:
        """Return all that is stored as JSON."""
        return await self._file(request, "json")

    async def csv_file(self, request: Request) -> Response:
        """Return the days as CSV."""
        return await self._file(request, "csv")

    async def _answer(self, request: Request, what: str, template: str, reading: Any) -> Response:
        """Record the look, then read and return a part of the page."""
        try:
            view = self._links.read_session(request.cookies.get(COOKIE, ""))
        except (LinkExpired, LinkInvalid) as error:
            return self._refuse(error)
        data = _data_of(view)
        try:
            await self._record(view, what)
            values = await self._reader.run(partial(reading(data, view), self._reader.engine))
        except SQLAlchemyError as error:
            return self._html("me-fault.html", {"fault": describe_error(error)}, 503)
        return self._html(template, {"view": view, "contact": self._contact, **values})

    async def _file(self, request: Request, kind: str) -> Response:
        try:
            view = self._links.read_session(request.cookies.get(COOKIE, ""))
        except (LinkExpired, LinkInvalid) as error:
            return self._refuse(error)
        data = _data_of(view)
        try:
            await self._record(view, f"download as {kind.upper()}")
            rules = await self._reader.read(data.read_rules)
        except SQLAlchemyError as error:
            return self._html("me-fault.html", {"fault": describe_error(error)}, 503)
        if kind == "json":
            about = {
                "connection": view.connection_id,
                "developer": view.developer_id,
                "settings": rules and rules._asdict(),
                "is_limited_to_this_machine": bool(view.page_key),
            }
            pieces = write_json(self._reader.engine, data, about)
        else:
            pieces = write_csv(self._reader.engine, data)
        day = datetime.datetime.now(datetime.timezone.utc).date()
        headers = {
            **_headers(),
            "Content-Disposition": f'attachment; filename="my-telemetry-{day}.{kind}"',
        }
        media_type = "application/json" if kind == "json" else "text/csv; charset=utf-8"
        return StreamingResponse(self._parts(pieces), 200, headers, media_type)

    async def _parts(self, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
        """Yield pieces in larger parts, read on the page's threads."""
        while part := await self._reader.run(partial(_next_part, pieces)):
            yield part

    async def _record(self, view: PersonalView, what: str) -> None:
        who = f"a link that {view.maker} made" if view.maker else "yourself"
        people = [(view.connection_id, view.developer_id)]
        look = Look(who, OWN_PAGE, what)
        await self._reader.run(partial(record_look, self._writing, people, look))

    def _refuse(self, error: Exception) -> Response:
        is_old = isinstance(error, LinkExpired)
        return self._html("me-refused.html", {"is_old": is_old, "contact": self._contact}, 403)

    def _html(self, name: str, values: Mapping[str, Any], status: int = 200) -> Response:
        content = render(name, {"version": self._page.version, **values})
        return HTMLResponse(content, status, _headers())


def _data_of(view: PersonalView) -> OwnData:
    return OwnData(view.connection_id, view.developer_id, view.page_key)


def _read_page(data: OwnData, page: int, engine: Engine) -> Values:
    def read(connection: SqlConnection) -> Values:
        days = data.read_days(connection)
        shown = [day for day in days if day.is_shown]
        pages = max(1, -(-len(shown) // DAYS_A_PAGE))
        number = min(page, pages)
        part = shown[(number - 1) * DAYS_A_PAGE : number * DAYS_A_PAGE]
        rows = data.read_rows(connection, part)
        return {
            "days": [(day, _describe(rows.get(day.date))) for day in part],
            "total": len(shown),
            "hidden": sum(not day.is_complete for day in days),
            "page": number,
            "pages": pages,
            "rules": data.read_rules(connection),
            "looks": [
                (moment_of(look.looked_us), look) for look in data.read_looks(connection, days)
            ],
            "means": _MEANS,
        }

    with engine.connect() as connection:
        return read(connection)


def _read_day(data: OwnData, date: str, engine: Engine) -> Values:
    with engine.connect() as connection:
        days = [day for day in data.read_days(connection) if day.date == date]
        row = data.read_rows(connection, days).get(date)
    reports, count = data.read_day(engine.connect, date)
    return {
        "date": date,
        "day": days[0] if days and days[0].is_shown else None,
        "row": _list_fields(row) if row else [],
        "reports": [(moment_of(report.arrived_us), report) for report in reports],
        "count": count,
    }


def _describe(row: Optional[Values]) -> Optional[Values]:
    """Return what the list of days shows of a row."""
    if row is None:
        return None
    values = shorten(row)
    return {
        "hours": values["active_hours"],
        "commits": values["commits"],
        "tools": _names(values["tools_used"]),
        "projects": _names(values["project_context"]),
    }


def _names(value: Any) -> list[str]:
    """Return the names in a list of names or of objects with one."""
    items = value if isinstance(value, list) else []
    names = [item.get("name") if isinstance(item, dict) else item for item in items]
    return [str(name) for name in names if name]


def _list_fields(row: Values) -> list[tuple[str, str]]:
    """Return the fields of a row that have a value, as texts."""
    fields = []
    for name, value in shorten(row).items():
        if isinstance(value, list):
            value = ", ".join(_names(value)) or ""
        elif isinstance(value, dict):
            value = ", ".join(f"{key}: {part}" for key, part in value.items())
        if value not in ("", None) and name not in _OMITTED:
            fields.append((name.replace("_", " "), str(value)))
    return fields


def _next_part(pieces: Iterator[bytes]) -> bytes:
    part = bytearray()
    for piece in pieces:
        part += piece
        if len(part) >= PART_BYTES:
            break
    return bytes(part)


def _parse_date(text: str) -> Optional[str]:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        return None


def _headers() -> dict[str, str]:
    # No other page learns an address of this one.
    return {**HEADERS, "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}


def _redirect(address: str) -> Response:
    return RedirectResponse(address, 303, _headers())
