"""Access to the page: sign-ins, and forms that come from the page itself."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Mapping, Sequence

from starlette.requests import HTTPConnection

from developer_telemetry.config import Network

COOKIE = "telemetry_page"
SESSION_SECONDS = 12 * 3600
# The user who has signed on at a proxy in front of the receiver.
USER_HEADER = "x-forwarded-user"

# Names that only a browser on this machine can use for the receiver. Any other name could belong to
# an attacker who makes it resolve to this machine after the browser has loaded the attacker's page.
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
# Headers that proxies add: the browser may then be on any machine.
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


class Sessions:
    """Sign-ins without state on the server: a cookie holds the end of its session, signed.

    Receivers with the same admin token accept each other's cookies. Without an admin token, the
    page opens for browsers on this machine if `is_open_locally`, else for no browser.
    """

    def __init__(
        self, admin_token: str, is_open_locally: bool, trusted_proxies: Sequence[Network] = ()
    ) -> None:
        """Take the networks of the proxies whose X-Forwarded-User is read."""
        self._trusted_proxies = trusted_proxies
        self._token = admin_token.encode()
        self._is_open_locally = is_open_locally
        derived = hmac.new(self._token, b"sessions of the page", hashlib.sha256).digest()
        self._key = derived if admin_token else secrets.token_bytes(32)

    @property
    def has_token(self) -> bool:
        """Return true if there is an admin token to sign in with."""
        return bool(self._token)

    def allows(self, request: HTTPConnection) -> bool:
        """Return true if this request may see the page."""
        if self._token:
            return self._is_session(request.cookies.get(COOKIE, ""))
        return self._is_open_locally and _is_local(request)

    def name_viewer(self, request: HTTPConnection) -> str:
        """Return the user who sees the page: a sign-on's in front of it, if there is one."""
        user = request.headers.get(USER_HEADER, "").strip()
        if user and self._is_from_proxy(request):
            return user
        return "a holder of the admin token" if self._token else "a user of the receiver's machine"

    def _is_from_proxy(self, request: HTTPConnection) -> bool:
        try:
            peer = ipaddress.ip_address(request.client.host if request.client else "")
        except ValueError:
            return False
        # A socket of both families has the addresses of IPv4 in those of IPv6.
        peer = getattr(peer, "ipv4_mapped", None) or peer
        return any(peer in network for network in self._trusted_proxies)

    def is_token(self, text: str) -> bool:
        """Return true if `text` is the admin token; the comparison takes constant time."""
        return self.has_token and hmac.compare_digest(text.encode(), self._token)

    def new_session(self) -> str:
        """Return the value of a cookie that is valid for SESSION_SECONDS."""
        until = str(int(time.time()) + SESSION_SECONDS)
        return f"{until}.{self._signature('session', until)}"

    def csrf_token(self, request: HTTPConnection) -> str:
        """Return the value that a form has to send back; other sites can't read or guess it."""
        return self._signature("form", request.cookies.get(COOKIE, ""))

    def accepts_form(self, request: HTTPConnection, form: Mapping[str, str]) -> bool:
        """Return true if a form was sent from a page that this browser got from us."""
        token = form.get("csrf_token", "").encode()
        return is_same_origin(request) and hmac.compare_digest(
            token, self.csrf_token(request).encode()
        )

    def _is_session(self, value: str) -> bool:
        until, _, signature = value.partition(".")
        expected = self._signature("session", until)
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            return False
        return int(until) > time.time()

    def _signature(self, kind: str, value: str) -> str:
        return hmac.new(self._key, f"{kind} {value}".encode(), hashlib.sha256).hexdigest()


def is_same_origin(request: HTTPConnection) -> bool:
    """Return true if the browser states that one of our own pages sent this request.

    A request without such a statement counts as one from another site.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin", "")
    return origin.partition("://")[2] == host_of(request) != ""


def host_of(request: HTTPConnection) -> str:
    """Return the host and port of the address that the browser opened; "" if they are invalid."""
    host = request.headers.get("host", "")
    return host if _HOST.fullmatch(host) else ""


def scheme_of(request: HTTPConnection) -> str:
    """Return the scheme, http or https, of the address that the browser opened."""
    forwarded = request.headers.get("x-forwarded-proto", "")
    return forwarded if forwarded in ("http", "https") else request.url.scheme


def _is_local(request: HTTPConnection) -> bool:
    match = _HOST.fullmatch(request.headers.get("host", ""))
    if match is None or match[1].lower() not in _LOCAL_NAMES or request.client is None:
        return False
    try:
        address = ipaddress.ip_address(request.client.host)
    except ValueError:
        return False
    return address.is_loopback and not any(name in request.headers for name in _PROXY_HEADERS)


def is_loopback(host: str) -> bool:
    """Return true if only this machine can reach a receiver that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
