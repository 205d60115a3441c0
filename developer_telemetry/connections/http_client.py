"""The HTTP client of the commands: requests as a machine sends them, and reasons why one fails."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple, Optional
from urllib.parse import urlsplit

import httpx

from developer_telemetry.errors import ConfigurationError, TelemetryError

CONNECT_SECONDS = 5.0
# Somewhat longer than a receiver takes with a report while its database hangs.
ANSWER_SECONDS = 25.0
MAX_MESSAGE_CHARACTERS = 240

# In the order of precedence; the names in lower case are first.
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class NoAnswer(TelemetryError):
    """A request got no answer, or none in HTTP; the message tells the reason."""


class Reply(NamedTuple):
    """An answer of any status; the names of `headers` are in lower case.

    `content` is the JSON object in it, empty if it has none.
    """

    status: int
    headers: Mapping[str, str]
    text: str
    content: Mapping[str, Any]

    @property
    def message(self) -> str:
        """Return its message in one short line: the title of a page, or its text."""
        title, end, _ = self.text.partition("<title>")[2].partition("</title>")
        text = str(self.content.get("message") or (title if end else self.text) or "nothing")
        return " ".join(text.split())[:MAX_MESSAGE_CHARACTERS]


def ask(
    url: str,
    headers: Mapping[str, str],
    report: Optional[Mapping[str, Any]] = None,
    query: Optional[Mapping[str, str]] = None,
) -> Reply:
    """GET `url`, or POST a report to it. Redirects are not followed: collectors don't, either.

    Raises:
        NoAnswer: There was no answer.
    """
    method = "GET" if report is None else "POST"
    # curl also sends letters beyond ASCII in UTF-8.
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    try:
        answer = _client().request(method, url, headers=sent, json=report, params=query)
    except httpx.TimeoutException:
        raise NoAnswer(f"no answer in time{proxy_remark(url)}") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswer(f"{str(error) or type(error).__name__}{proxy_remark(url)}") from None
    return Reply(answer.status_code, dict(answer.headers), answer.text, _json_object(answer))


@cache
def _client() -> httpx.Client:
    # A new connection for each request, so that a balancer may give it to another receiver.
    return make_client(
        timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
        limits=httpx.Limits(max_keepalive_connections=0),
    )


def _json_object(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def make_client(**options: Any) -> httpx.Client:
    """Make a client that takes proxies and certificates from the environment.

    Raises:
        ConfigurationError: One of its variables can't be used; the message names it.
    """
    for name in _CERTIFICATES:
        if os.environ.get(name):
            _check_certificates(name, os.environ[name])
    for name in _list_proxies():
        _check_proxy(name, os.environ[name])
    try:
        return httpx.Client(**options)
    except (ValueError, OSError, ImportError, httpx.InvalidURL) as error:
        raise ConfigurationError(
            f"the environment's proxies can't be used ({error}); correct or unset"
            f" {', '.join([*_list_proxies(), 'NO_PROXY'])}"
        ) from None


def proxy_remark(url: str) -> str:
    """Return a remark about a URL's proxy, such as `, through the proxy in HTTP_PROXY`."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return ""
    proxies = getproxies()
    for scheme in (parts.scheme, "all"):
        if scheme in proxies:
            name = f"{scheme}_proxy"
            shown = name if os.environ.get(name) else name.upper()
            return f", through the proxy in {shown} (NO_PROXY={parts.hostname} goes without)"
    return ""


def _list_proxies() -> Iterator[str]:
    for name in _PROXIES:
        yield from (variable for variable in (name.lower(), name) if os.environ.get(variable))


def _check_proxy(name: str, value: str) -> None:
    try:
        httpx.Client(proxy=value if "://" in value else f"http://{value}", trust_env=False).close()
    except ImportError:
        raise ConfigurationError(
            f"{name} is a SOCKS proxy, for which a library is missing; install `httpx[socks]`,"
            " name an HTTP proxy, or unset it"
        ) from None
    except (ValueError, httpx.InvalidURL):
        # It may hold a password, so it is not repeated.
        raise ConfigurationError(
            f"{name} is no address of a proxy; set it to one such as http://proxy.example.com:3128,"
            " or unset it"
        ) from None


def _check_certificates(name: str, path: str) -> None:
    kind = "cafile" if name == "SSL_CERT_FILE" else "capath"
    try:
        if kind == "capath" and not os.path.isdir(path):
            raise NotADirectoryError(0, "there is no such folder")
        ssl.create_default_context(**{kind: path})  # type: ignore[arg-type]
    except (OSError, ValueError) as error:
        why = "no certificates" if isinstance(error, ssl.SSLError) else None
        raise ConfigurationError(
            f"{name}: can't read {path} ({why or getattr(error, 'strerror', None) or error});"
            " name a file of certificates, or unset it"
        ) from None
