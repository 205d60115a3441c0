"""The HTTP client of plugins that fetch, against a source on this machine."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pydevlake import Connection, TestConnectionResult
from pydevlake.api import (
    ABORT,
    API,
    APIBase,
    APIException,
    PagedResponse,
    Paginator,
    Request,
    RequestHook,
    Response,
    TokenPaginator,
    request_hook,
    response_hook,
)


class Source(ThreadingHTTPServer):
    """Answers with what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.answers: list[tuple[int, Any, dict[str, str]]] = []
        self.asked: list[tuple[str, dict[str, list[str]], dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def will_answer(self, status: int = 200, body: Any = None, **headers: str) -> None:
        self.answers.append(
            (status, body, {name.replace("_", "-"): value for name, value in headers.items()})
        )


class Asked(BaseHTTPRequestHandler):
    server: Source

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = f"{url.scheme}://{url.netloc}{url.path}" if url.scheme else url.path
        self.server.asked.append((path, parse_qs(url.query), dict(self.headers.items())))
        status, body, headers = self.server.answers.pop(0)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def source() -> Iterator[Source]:
    with Source() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, without making them."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def connected(cls: Any, source: Source, **fields: Any) -> Any:
    made = cls(Connection(id=1, name="shop", **fields))
    made.base_url = source.url
    return made


@pytest.fixture
def shop(source: Source) -> Iterator[Any]:
    made = connected(API, source)
    yield made
    made.session.close()


def test_a_response_has_status_body_and_headers_in_any_case(shop: Any, source: Source) -> None:
    source.will_answer(200, {"name": "Ann"}, X_Shelf="7")
    response = shop.get("/people/", 5)
    assert (response.status, response.json) == (200, {"name": "Ann"})
    assert json.loads(response.body) == {"name": "Ann"}
    assert response.headers.get("x-shelf") == "7"
    assert source.asked[0][0] == "/people/5"


def test_a_query_goes_along_and_is_told_with_the_url(shop: Any, source: Source) -> None:
    source.will_answer()
    response = shop.get("orders", state="paid & sent", page=2)
    assert source.asked[0][1] == {"state": ["paid & sent"], "page": ["2"]}
    assert response.get_url_with_query_string() == (
        f"{source.url}/orders?state=paid+%26+sent&page=2"
    )


def test_a_whole_url_is_taken_where_there_is_no_base(source: Source) -> None:
    source.will_answer(200, "here")
    bare = APIBase(Connection(id=1, name="shop"))
    assert bare.get(f"{source.url}/elsewhere").json == "here"
    bare.session.close()


def test_a_request_goes_through_the_connections_proxy(source: Source) -> None:
    through = connected(API, source, proxy=source.url)
    through.base_url = "http://shop.invalid"
    source.will_answer(200, "proxied")
    assert through.get("orders").json == "proxied"
    assert source.asked[0][0] == "http://shop.invalid/orders"
    through.session.close()


class Marker(RequestHook):
    def apply(self, request: Request, api: APIBase) -> None:
        request.headers["X-Steps"] = request.headers.get("X-Steps", "") + "d"


class Base(API):
    @request_hook
    def base(self, request: Request) -> None:
        request.headers["X-Steps"] = request.headers.get("X-Steps", "") + "a"


class Hooked(Base):
    @request_hook
    def zulu(self, request: Request) -> Request:
        request = request.copy()
        request.headers["X-Steps"] += "b"
        request.query_args["v"] = "7"
        return request

    @request_hook
    def alpha(self, request: Request) -> str:
        request.headers["X-Steps"] += "c"
        return "not a request, so it changes nothing"

    marker = Marker()


def test_hooks_run_base_first_and_then_as_declared(source: Source) -> None:
    hooked = connected(Hooked, source)
    source.will_answer()
    hooked.get("orders")
    _, query, headers = source.asked[0]
    assert (headers["X-Steps"], query) == ("abcd", {"v": ["7"]})
    hooked.session.close()


class Stopping(API):
    @request_hook
    def stop(self, request: Request) -> Any:
        return ABORT if request.query_args.get("stop") else None

    @response_hook
    def drop(self, response: Response) -> Any:
        return ABORT if response.json == "drop" else None


def test_a_hook_ends_a_request_before_and_after_it_is_sent(source: Source) -> None:
    stopping = connected(Stopping, source)
    assert stopping.get("orders", stop=1) is ABORT
    assert source.asked == []
    source.will_answer(200, "drop")
    assert stopping.get("orders") is ABORT
    stopping.session.close()


class Rewriting(API):
    @response_hook
    def sign_in_page(self, response: Response) -> None:
        if response.status == 203:
            response.status = 401
            raise APIException(response)


@pytest.mark.parametrize("status", [203, 401, 404, 500])
def test_a_refusal_is_raised_with_its_response(source: Source, status: int) -> None:
    rewriting = connected(Rewriting, source)
    source.will_answer(status, {"why": "no"})
    with pytest.raises(APIException, match=f"{401 if status == 203 else status}.*no") as error:
        rewriting.get("orders")
    assert error.value.response.json == {"why": "no"}
    result = TestConnectionResult.from_api_response(error.value.response, "Invalid token")
    assert (result.success, result.status) == (False, 401 if status == 203 else status)
    rewriting.session.close()


def test_after_too_many_requests_it_waits_and_asks_again(
    shop: Any, source: Source, waited: list[float]
) -> None:
    source.will_answer(429, Retry_After="7")
    source.will_answer(429)
    source.will_answer(429, Retry_After=format_datetime(datetime(2020, 1, 1, tzinfo=timezone.utc)))
    source.will_answer(429, Retry_After="soon")
    source.will_answer(200, "at last")
    assert shop.get("orders").json == "at last"
    assert waited == [7, 60, 0, 60]
    assert len(source.asked) == 5


class Numbered(Paginator):
    def get_items(self, response: Response) -> Any:
        return response.json["items"]

    def get_next_page_id(self, response: Response) -> Any:
        return response.headers.get("x-next")

    def set_next_page_param(self, request: Request, next_page_id: Any) -> None:
        request.query_args["page"] = next_page_id


@pytest.mark.parametrize(
    "paginator", [Numbered(), TokenPaginator("items", "next", "page")], ids=["own", "token"]
)
def test_iterating_gives_the_items_of_every_page(
    shop: Any, source: Source, waited: list[float], paginator: Paginator
) -> None:
    shop.paginator = paginator
    source.will_answer(200, {"items": [1, 2], "next": "b"}, X_Next="b")
    source.will_answer(429, {}, Retry_After="1")
    source.will_answer(200, {"items": [], "next": "c"}, X_Next="c")
    source.will_answer(200, {"items": [3]})
    assert list(shop.get("orders", state="paid")) == [1, 2, 3]
    assert [query.get("page") for _, query, _ in source.asked] == [None, ["b"], ["b"], ["c"]]
    assert all(query["state"] == ["paid"] for _, query, _ in source.asked)
    assert waited == [1]


def test_a_page_is_a_response_too(shop: Any, source: Source) -> None:
    shop.paginator = Numbered()
    source.will_answer(200, {"items": [1], "total": 1})
    page = shop.get("orders")
    assert isinstance(page, PagedResponse)
    assert (page.status, page.json["total"]) == (200, 1)
    assert (list(page.items), page.next_page_request) == ([1], None)
    assert page.get_url_with_query_string() == f"{source.url}/orders"
