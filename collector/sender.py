"""Send the days that wait, until their newest figures have had a 2xx.

What becomes of a day depends on the answer:

- 2xx with the receiver's `"success": true`: delivered.
- 408, 425, 429, 5xx, no answer, or a 2xx of something else, such as the page of a hotel's network:
  tried again by the next run, or after the answer's `Retry-After`.
- 401, 403, 404, 405 and redirects concern the connection: all waiting days are tried again in a
  day, or as soon as one is accepted.
- Any other 4xx concerns this day's body: the day is tried again in a day, and the others are sent.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from collector.evidence import local_moment
from collector.figures import Identity, NameRules, build_report, encode_report
from collector.settings import Settings
from collector.store import Day, Store
from collector.version import USER_AGENT

TIMEOUT_SECONDS = 30.0
REFUSED_SECONDS = 86400.0
LONGEST_HOLD_SECONDS = 86400.0
# Today's figures grow all day; each report of them is a row of the raw layer.
TODAY_SECONDS = 3600.0
MOST_FAILURES = 2
ANSWER_BYTES = 4096

OF_THE_CONNECTION = frozenset([301, 302, 303, 307, 308, 401, 403, 404, 405])
TEMPORARY = frozenset([408, 425, 429])


class Reply(NamedTuple):
    """An answer: status 0 for none, and what it says in words."""

    status: int
    message: str
    retry_after: Optional[float] = None
    is_from_receiver: bool = False

    @property
    def delivers(self) -> bool:
        """Return true if the report is kept by a receiver."""
        return 200 <= self.status < 300 and self.is_from_receiver

    @property
    def refuses(self) -> bool:
        """Return true if the same report will be refused again."""
        return 300 <= self.status < 500 and self.status not in TEMPORARY


Post = Callable[[bytes], Reply]


class Sender:
    """The sending of one run."""

    def __init__(
        self, store: Store, settings: Settings, identity: Identity, post: Post, now: float
    ) -> None:
        self._store = store
        self._identity = identity
        self._post = post
        self._now = now
        states = store.repositories(with_gone=True)
        self._rules = NameRules(settings, [state.repository for state in states])
        self._today = local_moment(now).day

    def due(self, at_once: bool = False) -> List[Day]:
        """Return the days to send now, those that failed least often first.

        Args:
            at_once: Days are sent whatever they wait for.
        """
        days = [day for day in self._store.waiting() if day.day <= self._today]
        if not at_once:
            if is_ahead(read_hold(self._store), self._now):
                return []
            days = [day for day in days if not self._waits(day)]
        return sorted(days, key=lambda day: (day.attempts, day.day))

    def _waits(self, day: Day) -> bool:
        if day.tried_at is not None and day.tried_at > self._now:
            return False  # the clock was ahead
        if day.next_try > self._now:
            return True
        delivered_at = day.delivered_at
        return (
            day.day == self._today
            and delivered_at is not None
            and 0 <= self._now - delivered_at < TODAY_SECONDS
        )

    def run(self, at_once: bool = False) -> None:
        """Send what is due; end after two temporary failures, or when told to wait."""
        failures = 0
        for day in self.due(at_once):
            reply = self._send(day)
            if reply is None or reply.delivers:
                continue
            if reply.status in OF_THE_CONNECTION:
                self._refuse_all(reply)
                return
            if not reply.refuses:
                failures += 1
                if reply.retry_after is not None or reply.status == 0 or failures == MOST_FAILURES:
                    return

    def _send(self, day: Day) -> Optional[Reply]:
        """Send a day and record the answer; None if there is nothing to send."""
        report = build_report(self._store, day, self._identity, self._rules)
        if report is None:
            with self._store.transaction():
                self._store.nothing_to_send(day)
            return None
        body = encode_report(report)
        reply = self._post(body)
        with self._store.transaction():
            if reply.delivers:
                self._store.delivered(day, body, reply.status, self._now)
                self._store.allow_retries(OF_THE_CONNECTION)
                self._store.set_meta("hold", "")
            else:
                later = self._now + REFUSED_SECONDS if reply.refuses else 0.0
                self._store.undelivered(day.day, reply.status, reply.message, self._now, later)
                self._hold(reply)
        return reply

    def _hold(self, reply: Reply) -> None:
        if reply.retry_after is not None and not reply.refuses:
            seconds = min(reply.retry_after, LONGEST_HOLD_SECONDS)
            self._store.set_meta("hold", f"{self._now!r} {self._now + seconds!r}")

    def _refuse_all(self, reply: Reply) -> None:
        """Let the answer to one day stand for all: they have the connection in common."""
        with self._store.transaction():
            for day in self._store.waiting():
                later = self._now + REFUSED_SECONDS
                self._store.undelivered(day.day, reply.status, reply.message, self._now, later)

    def next_bodies(self) -> Dict[str, bytes]:
        """Return the exact body of each day that waits."""
        bodies = {}
        for day in self._store.waiting():
            report = build_report(self._store, day, self._identity, self._rules)
            if report is not None:
                bodies[day.day] = encode_report(report)
        return bodies


class Hold(NamedTuple):
    """A time until which the server asked not to be called, and when it did."""

    since: float
    until: float


def read_hold(store: Store) -> Hold:
    """Return the hold that the last `Retry-After` began."""
    since, _, until = store.meta("hold").partition(" ")
    return Hold(float(since), float(until)) if until else Hold(0.0, 0.0)


def is_ahead(hold: Hold, now: float) -> bool:
    """Return true while a hold lasts; one from the future was made by a wrong clock."""
    return hold.since <= now < hold.until


# The network.


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Make a redirect an error: following it would show the token to another server."""

    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        return None


def poster(settings: Settings) -> Post:
    """Return a function that posts a body to the report URL and never raises."""
    opener, headers = make_opener(settings), request_headers(settings)

    def post(body: bytes) -> Reply:
        request = urllib.request.Request(settings.url, body, headers, method="POST")
        try:
            with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                return _accepted(answer.status, answer.read(ANSWER_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                return _refused(error)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Reply(0, f"no answer: {_describe(error)}")

    return post


def make_opener(settings: Settings) -> urllib.request.OpenerDirector:
    """Return what opens the receiver's URLs, by the settings for proxy and certificates."""
    handlers: List[urllib.request.BaseHandler] = [_NoRedirects()]
    if settings.url.startswith("https:"):
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        handlers.append(urllib.request.HTTPSHandler(context=context))
    if settings.proxy:
        proxies = {"http": settings.proxy, "https": settings.proxy}
        handlers.append(urllib.request.ProxyHandler(proxies))
    return urllib.request.build_opener(*handlers)


def request_headers(settings: Settings) -> Dict[str, str]:
    """Return the headers of a request to the receiver."""
    headers = {"Content-Type": "application/json", "User-Agent": USER_AGENT}
    if settings.token:
        headers["Authorization"] = "Bearer " + settings.token
    return headers


def _accepted(status: int, content: bytes) -> Reply:
    try:
        success = json.loads(content.decode("utf-8")).get("success")
    except (ValueError, AttributeError):
        success = None
    if success is True:
        return Reply(status, "", is_from_receiver=True)
    return Reply(status, "the answer is not that of a receiver; something between answered")


def _refused(error: urllib.error.HTTPError) -> Reply:
    try:
        content = error.read(ANSWER_BYTES)
    except (OSError, http.client.HTTPException):
        content = b""
    message = _message(content) or str(error.reason)
    if 300 <= error.code < 400:
        message = "the server redirects; install again with the URL that it redirects to"
    return Reply(error.code, message[:300], retry_after_seconds(error.headers.get("Retry-After")))


def _message(content: bytes) -> str:
    """Return the `message` of an answer in the receiver's shape; "" for any other."""
    try:
        message = json.loads(content.decode("utf-8")).get("message")
    except (ValueError, AttributeError):
        return ""
    return " ".join(message.split()) if isinstance(message, str) else ""


def retry_after_seconds(value: Optional[str], now: Optional[float] = None) -> Optional[float]:
    """Return the seconds of a `Retry-After`, which holds seconds or a date; None for neither."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        when = parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, IndexError):
        return None
    return max(0.0, when - (time.time() if now is None else now))


def _describe(error: BaseException) -> str:
    reason = getattr(error, "reason", error)
    return str(reason) or type(error).__name__
