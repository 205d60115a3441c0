"""An HTTP client for the source of a plugin that fetches its data.

    class ShopAPI(API):
        base_url = "https://shop.example.com/api"
        paginator = TokenPaginator("items", "next", "page_token")

        @request_hook
        def authenticate(self, request):
            request.headers["Authorization"] = "Bearer " + self.connection.token.get_secret_value()

        def orders(self, shop):
            return self.get("shops", shop, "orders", state="paid")

    for order in ShopAPI(connection).orders("berlin"):
        ...

Needs `requests`: install `pydevlake[api]`.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import cached_property
from http import HTTPStatus
from typing import Any, Callable, Optional
from urllib.parse import urlencode

from pydevlake.logger import logger

try:
    import requests
except ImportError:  # its own message would name a module that plugins don't use directly
    raise ImportError("pydevlake.api needs requests: install pydevlake[api].") from None

# Returned by a hook, it ends the request, and `send` returns it.
ABORT: Any = object()

# A source that is silent for so long fails the run, which would hang otherwise.
_TIMEOUT_SECONDS = 300.0
# The pause where a source asks for one without its length.
_PAUSE_SECONDS = 60.0


class Request:
    """A GET request. Hooks change it, or return another in its place."""

    def __init__(
        self,
        url: str,
        query_args: Optional[dict[str, Any]] = None,
        headers: Optional[dict[str, str]] = None,
    ) -> None:
        self.url = url
        self.query_args = dict(query_args or {})
        self.headers = dict(headers or {})

    def copy(self) -> "Request":
        return Request(self.url, self.query_args, self.headers)

    def __str__(self) -> str:
        return f"{self.url}?{urlencode(self.query_args)}" if self.query_args else self.url


class Response:
    """A source's answer. The names of `headers` match in any case."""

    def __init__(
        self,
        request: Request,
        status: int,
        body: Optional[bytes] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> None:
        self.request = request
        self.status = status
        self.body = body or b""
        self.headers = headers or {}

    @cached_property
    def json(self) -> Any:
        """Return the body as JSON. ValueError if it is something else."""
        return json.loads(self.body)

    def get_url_with_query_string(self) -> str:
        return str(self.request)

    def __str__(self) -> str:
        return f"{self.request}: {self.status}"


class APIException(Exception):
    """The source refused the request; `response` is its answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        body = self.response.body.decode(errors="replace") or "(empty)"
        return f"{self.response}, body: {body}"


class RequestHook:
    """A hook that changes each request before it is sent, declared on an API."""

    def apply(self, request: Request, api: "APIBase") -> Any:
        """Return None to keep the request, another one to send instead, or ABORT."""
        raise NotImplementedError


class ResponseHook:
    """A hook that inspects each response before it is returned, declared on an API."""

    def apply(self, response: Response, api: "APIBase") -> Any:
        """Return None to keep the response, another one to return instead, or ABORT."""
        raise NotImplementedError


class CustomRequestHook(RequestHook):
    """A method of an API as a hook."""

    def __init__(self, method: Callable[[Any, Request], Any]) -> None:
        self._method = method

    def apply(self, request: Request, api: "APIBase") -> Any:
        return self._method(api, request)


class CustomResponseHook(ResponseHook):
    """A method of an API as a hook."""

    def __init__(self, method: Callable[[Any, Response], Any]) -> None:
        self._method = method

    def apply(self, response: Response, api: "APIBase") -> Any:
        return self._method(api, response)


# As decorators of methods.
request_hook = CustomRequestHook
response_hook = CustomResponseHook


class APIBase:
    """A client that sends requests through hooks, in order, those of base classes first."""

    # A plugin may declare it as a property as well.
    base_url: Any = None  # Optional[str]

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    @cached_property
    def session(self) -> requests.Session:
        return requests.Session()

    @property
    def proxy(self) -> Optional[str]:
        """Return the proxy for all requests, the connection's unless overridden."""
        return str(self.connection.proxy) if self.connection.proxy else None

    def get(self, *path_args: Any, **query_args: Any) -> Any:
        """GET the path under `base_url`, or a whole URL where there is none."""
        parts = [self.base_url, *path_args] if self.base_url else path_args
        return self.send(Request("/".join(str(part).strip("/") for part in parts), query_args))

    def send(self, request: Request) -> Any:
        """Return the response, as the hooks leave it, or ABORT.

        :raises requests.RequestException: the source can't be reached or doesn't answer.
        """
        prepared = self._apply(self.request_hooks(), request)
        if prepared is ABORT:
            return ABORT
        answer = self.session.get(
            prepared.url,
            headers=prepared.headers,
            params=prepared.query_args,
            proxies={"http": self.proxy, "https": self.proxy} if self.proxy else None,
            timeout=_TIMEOUT_SECONDS,
        )
        response = Response(prepared, answer.status_code, answer.content, answer.headers)
        logger.debug("GET %s", response)
        return self._apply(self.response_hooks(), response)

    def request_hooks(self) -> list[RequestHook]:
        return [item for item in self._list_declared_hooks() if isinstance(item, RequestHook)]

    def response_hooks(self) -> list[ResponseHook]:
        return [item for item in self._list_declared_hooks() if isinstance(item, ResponseHook)]

    def _list_declared_hooks(self) -> Iterator[Any]:
        for cls in reversed(type(self).__mro__):
            yield from vars(cls).values()

    def _apply(self, hooks: Sequence[Any], message: Any) -> Any:
        for hook in hooks:
            result = hook.apply(message, self)
            if result is ABORT:
                return ABORT
            # Any other result than a message means that the hook is done.
            if isinstance(result, (Request, Response)):
                message = result
        return message


class Paginator:
    """The way a source splits a list into pages."""

    def get_items(self, response: Response) -> Any:  # Optional[Iterable]
        """Return the items of a page; None if the response is no page."""
        raise NotImplementedError

    def get_next_page_id(self, response: Response) -> Any:  # Optional[Union[int, str]]
        """Return the value for `set_next_page_param`; None on the last page."""
        raise NotImplementedError

    def set_next_page_param(self, request: Request, next_page_id: Any) -> None:
        """Turn the request for a page into the one for the next."""
        raise NotImplementedError


class TokenPaginator(Paginator):
    """Pages whose JSON has the token of the next one, for its query."""

    def __init__(
        self, items_attr: str, next_page_token_attr: str, next_page_token_param: str
    ) -> None:
        self.items_attr = items_attr
        self.next_page_token_attr = next_page_token_attr
        self.next_page_token_param = next_page_token_param

    def get_items(self, response: Response) -> Any:
        return response.json[self.items_attr]

    def get_next_page_id(self, response: Response) -> Any:
        return response.json.get(self.next_page_token_attr)

    def set_next_page_param(self, request: Request, next_page_id: Any) -> None:
        request.query_args[self.next_page_token_param] = next_page_id


class PagedResponse(Response):
    """A response that yields its items, and then those of the next pages."""

    def __init__(self, response: Response, paginator: Paginator, api: APIBase) -> None:
        super().__init__(response.request, response.status, response.body, response.headers)
        self.response = response
        self.paginator = paginator
        self.api = api

    @property
    def items(self) -> Any:
        return self.paginator.get_items(self)

    @property
    def next_page_request(self) -> Optional[Request]:
        next_page_id = self.paginator.get_next_page_id(self)
        if not next_page_id:
            return None
        request = self.request.copy()
        self.paginator.set_next_page_param(request, next_page_id)
        return request

    def __iter__(self) -> Iterator[Any]:
        page = self
        while True:
            yield from page.items or ()
            request = page.next_page_request
            if request is None:
                return
            page = self.api.send(request)
            if page is ABORT:
                return


class API(APIBase):
    """An API that obeys `Retry-After`, raises on refusals, and iterates over pages."""

    # A plugin may declare it as a property as well.
    paginator: Any = None  # Optional[Paginator]

    @response_hook
    def pause_if_too_many_requests(self, response: Response) -> Optional[Response]:
        """Wait after a 429, for as long as `Retry-After` demands, and send the request again."""
        if response.status != HTTPStatus.TOO_MANY_REQUESTS:
            return None
        seconds = _retry_after(response.headers.get("Retry-After", ""))
        logger.warning("%s: the source asks to wait for %d seconds", response, seconds)
        time.sleep(seconds)
        again: Optional[Response] = self.send(response.request)
        return again

    @response_hook
    def handle_error(self, response: Response) -> None:
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise APIException(response)

    @response_hook
    def paginate(self, response: Response) -> Optional[Response]:
        # A response after a pause has passed all hooks already.
        if not self.paginator or isinstance(response, PagedResponse):
            return None
        return PagedResponse(response, self.paginator, self)


def _retry_after(value: str) -> float:
    """Return the seconds to wait, from a header that has seconds or a date."""
    if value.strip().isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return _PAUSE_SECONDS
    if until.tzinfo is None:
        until = until.replace(tzinfo=timezone.utc)
    return max(0.0, (until - datetime.now(timezone.utc)).total_seconds())
