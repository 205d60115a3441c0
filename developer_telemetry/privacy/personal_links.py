"""Signed links to a person's own page, and the sessions that a browser gets for them.

A link names one developer of one connection and the end of its validity. Its signature has a key
of its own, derived from `ENCRYPTION_SECRET`, so all receivers of a database accept it.

The token of a connection is shared by many machines, so it does not show whose machine asks. A
collector therefore has a secret of its machine, and each of its reports contains the secret's hash,
the *page key*. A link that a collector gets is limited to reports with its page key: it shows
nothing that was sent by another machine.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
import time
from typing import NamedTuple

import msgspec

from developer_telemetry.errors import TelemetryError

# The seconds for which a link can be opened: a collector's, and at most one of an operator.
COLLECTOR_SECONDS = 15 * 60
MOST_SECONDS = 24 * 3600
# The seconds for which a browser shows the page after it has opened a link.
SESSION_SECONDS = 3600

# Below the path of each receiver; the collector and the front proxy know it, too.
PAGE_PATH = "/plugins/developer-telemetry/me/"
LINK_FIELD = "link"
# The field of a report with its machine's page key: numbers, which no privacy setting changes.
KEY_FIELD = "page_key"
# The characters of a machine's secret.
LEAST_SECRET, MOST_SECRET = 32, 255
# Added to each number of a page key: a short one could be a part of another report by chance.
_LEAST_NUMBER = 10**10

_LINK = b"link"
_SESSION = b"session"

PageKey = tuple[int, ...]


class LinkExpired(TelemetryError):
    """A link or a session was valid, and its time is over."""


class LinkInvalid(TelemetryError):
    """A text is no link that a receiver of this database has signed."""


class PersonalView(NamedTuple):
    """The developer whose page is shown.

    Attributes:
        valid_until: Seconds since 1970.
        maker: The operator who made the link; "" if the developer's collector got it.
        page_key: The page key to which the view is limited; empty for all that is stored.
    """

    connection_id: int
    developer_id: str
    valid_until: int
    maker: str = ""
    page_key: PageKey = ()


class PersonalLinks:
    """The links and sessions of one database."""

    def __init__(self, encryption_secret: str) -> None:
        secret = encryption_secret.strip().encode()
        self._key = hmac.new(secret, b"developer_telemetry personal page", hashlib.sha256).digest()

    def make_link(self, view: PersonalView) -> str:
        """Return the token of a link."""
        return self._sign(_LINK, view)

    def open_link(self, token: str) -> str:
        """Return the value of a session's cookie for a link.

        Raises:
            LinkExpired: It was valid.
            LinkInvalid: It was changed, or is of another database or purpose.
        """
        view = self._read(_LINK, token)
        until = int(time.time()) + SESSION_SECONDS
        return self._sign(_SESSION, view._replace(valid_until=until))

    def read_session(self, cookie: str) -> PersonalView:
        """Return the view of a session; raises as `open_link` does."""
        return self._read(_SESSION, cookie)

    def _sign(self, purpose: bytes, view: PersonalView) -> str:
        content = _encode(msgspec.json.encode(view))
        return f"{content}.{self._signature(purpose, content)}"

    def _read(self, purpose: bytes, token: str) -> PersonalView:
        content, _, signature = token.partition(".")
        expected = self._signature(purpose, content)
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            raise LinkInvalid("this is no link to a page of this receiver, or it was changed")
        try:
            view = msgspec.json.decode(_decode(content), type=PersonalView)
        except (msgspec.MsgspecError, binascii.Error):  # of a release with other fields
            raise LinkInvalid("this link was made by another release") from None
        if view.valid_until <= time.time():
            raise LinkExpired("this link is too old")
        return view

    def _signature(self, purpose: bytes, content: str) -> str:
        signed = purpose + b" " + content.encode()
        return _encode(hmac.new(self._key, signed, hashlib.sha256).digest())


def make_page_key(page_secret: str) -> PageKey:
    """Return the page key of a machine's secret: 128 bits of its hash in numbers of 11 digits."""
    parts = struct.unpack(">4I", hashlib.sha256(page_secret.encode()).digest()[:16])
    return tuple(_LEAST_NUMBER + part for part in parts)


def page_path(token: str) -> str:
    """Return the path, below the receiver's address, that opens the page for a link."""
    return f"{PAGE_PATH}open?{LINK_FIELD}={token}"


def is_page_secret(text: str) -> bool:
    """Return true if a text is long enough to be a machine's secret."""
    return LEAST_SECRET <= len(text) <= MOST_SECRET and text.isascii()


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
