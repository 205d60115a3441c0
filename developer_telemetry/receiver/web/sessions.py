"""Who may see the page, and whose forms count."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Mapping

from starlette.requests import HTTPConnection

COOKIE = "telemetry_page"
SESSION_SECONDS = 12 * 3600

# Names by which nobody but a browser on this machine reaches the receiver. Any other could be a
# stranger's, made to point here after their page was loaded.
_OUR_NAMES = ("localhost", "127.0.0.1", "[::1]")
# What proxies add: then whoever asks may be anywhere.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


class Sessions:
    """Decides by what a request carries; several receivers with one admin token agree.

    Without an admin token the page is shown to browsers on this machine where `open_here` says
    so, and otherwise to nobody.
    """

    def __init__(self, admin_token: str, open_here: bool) -> None:
        self._token = admin_token.encode()
        self._open_here = open_here
        known = hmac.new(self._token, b"sessions of the page", hashlib.sha256).digest()
        self._key = known if admin_token else secrets.token_bytes(32)

    @property
    def has_token(self) -> bool:
        """Whether there is a token to sign in with."""
        return bool(self._token)

    def allows(self, request: HTTPConnection) -> bool:
        """Whether this request may see the page."""
        if self._token:
            return self._is_session(request.cookies.get(COOKIE, ""))
        return self._open_here and _is_from_here(request)

    def is_token(self, text: str) -> bool:
        """Whether `text` is the admin token, compared in constant time."""
        return self.has_token and hmac.compare_digest(text.encode(), self._token)

    def new_session(self) -> str:
        """The value of a cookie that is good for some hours."""
        until = str(int(time.time()) + SESSION_SECONDS)
        return f"{until}.{self._mark('session', until)}"

    def form_mark(self, request: HTTPConnection) -> str:
        """What a form has to send back: other sites can neither read nor guess it."""
        return self._mark("form", request.cookies.get(COOKIE, ""))

    def trusts(self, request: HTTPConnection, form: Mapping[str, str]) -> bool:
        """Whether a form comes from a page that this visitor was shown."""
        mark = form.get("mark", "").encode()
        return is_same_origin(request) and hmac.compare_digest(
            mark, self.form_mark(request).encode()
        )

    def _is_session(self, value: str) -> bool:
        until, _, mark = value.partition(".")
        expected = self._mark("session", until)
        if not hmac.compare_digest(mark.encode(), expected.encode()):
            return False
        return int(until) > time.time()

    def _mark(self, kind: str, value: str) -> str:
        return hmac.new(self._key, f"{kind} {value}".encode(), hashlib.sha256).hexdigest()


def is_same_origin(request: HTTPConnection) -> bool:
    """Whether a browser says that one of our own pages sent this; one that says nothing did not."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin", "")
    return origin.partition("://")[2] == host_of(request) != ""


def host_of(request: HTTPConnection) -> str:
    """The name and port that the visitor asked for; "" if it is none."""
    host = request.headers.get("host", "")
    return host if _HOST.fullmatch(host) else ""


def scheme_of(request: HTTPConnection) -> str:
    """How the visitor reached us or the proxy before us: http or https."""
    forwarded = request.headers.get("x-forwarded-proto", "")
    return forwarded if forwarded in ("http", "https") else request.url.scheme


def _is_from_here(request: HTTPConnection) -> bool:
    match = _HOST.fullmatch(request.headers.get("host", ""))
    if match is None or match[1].lower() not in _OUR_NAMES or request.client is None:
        return False
    try:
        address = ipaddress.ip_address(request.client.host)
    except ValueError:
        return False
    return address.is_loopback and not any(name in request.headers for name in _FORWARDED)


def is_loopback(host: str) -> bool:
    """Whether a receiver that listens on `host` is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
