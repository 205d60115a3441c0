"""A request as a machine sends it, and in words why there is no answer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple, Optional

import httpx

from developer_telemetry.connections.http_client import make_client, proxy_remark
from developer_telemetry.errors import TelemetryError

CONNECT_SECONDS = 5.0
# Somewhat longer than a receiver takes with a report while its database hangs.
ANSWER_SECONDS = 25.0
SHOWN_CHARACTERS = 240


class NoAnswer(TelemetryError):
    """Nothing, or no HTTP, came back; the message says what happened."""


class Reply(NamedTuple):
    """An answer, whatever its status; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    text: str
    said: Mapping[str, Any]  # the JSON object that it is, else empty

    @property
    def message(self) -> str:
        """What it says, in one short line: of a page its title."""
        title, end, _ = self.text.partition("<title>")[2].partition("</title>")
        text = str(self.said.get("message") or (title if end else self.text) or "nothing")
        return " ".join(text.split())[:SHOWN_CHARACTERS]


def ask(url: str, headers: Mapping[str, str], report: Optional[Mapping[str, Any]] = None) -> Reply:
    """GET `url`, or POST a report to it. Redirects are not followed: collectors don't, either.

    :raises NoAnswer: there was none.
    """
    method = "GET" if report is None else "POST"
    try:
        answer = _client().request(method, url, headers=headers, json=report)
    except httpx.TimeoutException:
        raise NoAnswer(f"no answer in time{proxy_remark(url)}") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswer(f"{str(error) or type(error).__name__}{proxy_remark(url)}") from None
    return Reply(answer.status_code, dict(answer.headers), answer.text, _object(answer))


@cache
def _client() -> httpx.Client:
    # A new connection each time, so that a balancer may give it to another receiver.
    return make_client(
        timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
        limits=httpx.Limits(max_keepalive_connections=0),
    )


def _object(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
