"""A sign-on in front of DevLake or a receiver, recognized by its answers to programs.

It redirects to its own page, or answers with that page; programs can't sign on there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit, urlunsplit

# Parts of the addresses of oauth2-proxy, Keycloak, Entra, Okta, Google and other sign-ons.
_WORDS = re.compile(
    r"oauth|openid|saml|\bsso\b|sign[-_]?in|log[-_]?in|authori[sz]e|/auth\b|/realms/", re.I
)
_MOST_TITLE = 60
# The part of a page in which its title is searched.
_HEAD = 20_000


class HttpAnswer(NamedTuple):
    """An answer that may come from a sign-on: the URL asked for, status, headers and body."""

    url: str
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def target(self) -> str:
        """Return the address of its redirect without the query, which may hold a secret."""
        parts = urlsplit(urljoin(self.url, self.headers.get("location", "")))
        return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))

    @property
    def is_redirect(self) -> bool:
        """Return true if it redirects."""
        return 300 <= self.status < 400 and bool(self.headers.get("location"))

    @property
    def is_redirect_to_same_path(self) -> bool:
        """Return true if it redirects to the same path, as from http to https."""
        return self.is_redirect and _path(self.target) == _path(self.url)

    @property
    def is_page(self) -> bool:
        """Return true if it is a page for people."""
        kind = self.headers.get("content-type", "").lower()
        return "html" in kind or self.text.lstrip()[:15].lower().startswith(("<!doctype", "<html"))

    @property
    def asks_for_password(self) -> bool:
        """Return true if it asks for HTTP's basic auth."""
        return self.headers.get("www-authenticate", "").lower().startswith("basic")

    @property
    def is_sign_on(self) -> bool:
        """Return true if a sign-on must have answered."""
        if self.is_redirect:
            return not self.is_redirect_to_same_path and bool(
                _WORDS.search(self.headers["location"])
            )
        return self.is_page and self.status == 403

    @property
    def title(self) -> str:
        """Return the page's title, quoted and shortened; `""` if it has none."""
        head = self.text[:_HEAD] if self.is_page else ""
        start = head.lower().find("<title")
        words = head[start:].partition(">")[2].partition("<")[0] if start >= 0 else ""
        words = " ".join(words.split())[:_MOST_TITLE]
        return repr(words) if words else ""


def _path(url: str) -> str:
    return urlsplit(url).path.rstrip("/")
