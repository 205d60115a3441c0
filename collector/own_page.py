"""Open the page where a developer sees what this machine's reports have left with the receiver.

All machines of a connection have one token, so the token does not prove whose machine this is. The
page key of each report does: it is a hash of a secret that only this machine has. The secret is
sent to the receiver alone, when its user asks for the page.
"""

from __future__ import annotations

import http.client
import http.server
import json
import secrets
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from contextlib import suppress
from typing import Any, Dict
from urllib.parse import urlsplit, urlunsplit

from collector.errors import CollectorError
from collector.sender import make_opener, request_headers
from collector.settings import REPORT_PATH, Settings

TIMEOUT_SECONDS = 30.0
ANSWER_BYTES = 1 << 16
BROWSER_SECONDS = 20.0

ADVICE = {
    401: "the token is wrong or was replaced; install again with the new one",
    404: "the receiver has no report of this machine with its key so far; type `send`, then again",
    405: "the receiver is older than this collector; ask who runs it",
}


def request_page(settings: Settings, developer: str) -> str:
    """Return the URL of a link to the developer's own page.

    Raises:
        CollectorError: the receiver does not give one, or there is no answer.
    """
    if not settings.page_secret:
        raise CollectorError("this installation has no key for the page; run `install` again")
    base, number = _split(settings.url)
    body = json.dumps({"developer": developer, "page_secret": settings.page_secret})
    url = f"{base}/plugins/developer-telemetry/{number}/me-link"
    path = _ask(settings, url, body.encode("utf-8")).get("path")
    if not isinstance(path, str) or not path.startswith("/plugins/developer-telemetry/me/"):
        raise CollectorError("the answer is not that of a receiver; something between answered")
    return base + path


def _split(url: str) -> tuple[str, str]:
    """Return the receiver's address and the connection's number of a report URL."""
    parts = urlsplit(url)
    match = REPORT_PATH.search(parts.path)
    if match is None:
        raise CollectorError("the report URL is not valid; run `install` again")
    path = parts.path[: match.start()]
    if path.endswith("/rest"):  # of the path under which DevLake's API takes reports
        path = path[: -len("/rest")]
    number = match[0].split("/")[-2]
    return urlunsplit((parts.scheme, parts.netloc, path, "", "")), number


def _ask(settings: Settings, url: str, body: bytes) -> Dict[str, Any]:
    request = urllib.request.Request(url, body, request_headers(settings), method="POST")
    try:
        with make_opener(settings).open(request, timeout=TIMEOUT_SECONDS) as answer:
            content = json.loads(answer.read(ANSWER_BYTES).decode("utf-8"))
    except urllib.error.HTTPError as error:
        with error:
            advice = ADVICE.get(error.code, "try again later, or ask who runs the receiver")
            raise CollectorError(f"no link: {error.code} {error.reason}; {advice}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CollectorError(f"no link: {error}; try again later") from None
    return content if isinstance(content, dict) else {}


def open_in_browser(url: str) -> bool:
    """Open a URL in this user's browser; return False if no browser fetched it.

    The command line of a browser, which every user of the machine can read, has an address of this
    process in place of the URL. It leads there once.
    """
    with _Redirect(url) as server:
        # Beside the browser: one for the terminal ends only when its user leaves it.
        visit = threading.Thread(target=server.await_visit, daemon=True)
        visit.start()
        if webbrowser.open(f"http://127.0.0.1:{server.server_port}/{server.word}"):
            visit.join(BROWSER_SECONDS)
        return server.is_used


class _Redirect(http.server.HTTPServer):
    """A server on this machine that redirects its first visitor with the right word."""

    timeout = 0.5

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _RedirectHandler)
        self.url = url
        self.word = secrets.token_urlsafe(16)
        self.is_used = False

    def await_visit(self) -> None:
        """Answer requests until the URL was given away, or nobody came."""
        end = time.monotonic() + BROWSER_SECONDS
        while not self.is_used and time.monotonic() < end:
            with suppress(OSError, ValueError):  # closed meanwhile
                self.handle_request()


class _RedirectHandler(http.server.BaseHTTPRequestHandler):
    server: _Redirect

    def do_GET(self) -> None:
        if not secrets.compare_digest(self.path, f"/{self.server.word}"):
            self.send_error(404)
            return
        self.send_response(303)
        self.send_header("Location", self.server.url)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.is_used = True

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
