"""A report takes one way: with its body at hand or in pieces, straight from its connection."""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.lines import Answer, Line
from tests.support.receivers import TOKEN, Receiver, add_connection, eventually, query, report

CONNECTION = 2  # the first one is made by the receiver
ROUTE = "/plugins/developer-telemetry/2/report"
RAW = "_raw_developer_telemetry"


class Lake(NamedTuple):
    """A receiver and its database."""

    receiver: Receiver
    url: str

    def line(self) -> Line:
        return Line(self.receiver)

    def stored(self, developer: str) -> list[str]:
        """The bodies stored of a developer, in the order of their arrival."""
        statement = (
            f"SELECT payload FROM {RAW} WHERE developer_id = '{developer}' ORDER BY arrived_us"
        )
        return [row[0] for row in query(self.url, statement)]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("whole")
    url = f"sqlite:///{folder}/lake.db"
    with Receiver(url, folder) as receiver:
        assert add_connection(url) == CONNECTION
        yield Lake(receiver, url)


def request(
    content: object,
    route: str = ROUTE,
    method: str = "POST",
    token: str = TOKEN,
    version: str = "1.1",
    **headers: str,
) -> bytes:
    """All of a request; `content` is JSON, or bytes as they stand."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = [f"{method} {route} HTTP/{version}", "Host: x", f"Authorization: Bearer {token}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def ask(lake: Lake, sent: bytes, whole: bool) -> Answer:
    """The answer to a request, sent in one go, or its body after the receiver waits for it."""
    with lake.line() as line:
        if whole:
            line.send(sent)
            return line.answer()
        head, end, body = sent.partition(b"\r\n\r\n")
        line.send(head.replace(b"\r\n", b"\r\nExpect: 100-continue\r\n", 1) + end)
        answer = line.answer()
        if answer.status != 100:  # refused by its headers
            return answer
        line.send(body)
        return line.answer()


CASES = {
    "stored": (request(report("alike")), 200),
    "with-api-before": (request(report("alike"), route=f"/api{ROUTE}"), 200),
    "rest": (
        request(report("alike"), route="/rest/plugins/developer_telemetry/connections/2/report"),
        200,
    ),
    "gzip": (
        request(gzip.compress(json.dumps(report("alike")).encode()), Content_Encoding="gzip"),
        200,
    ),
    "not-json": (request(b"{"), 400),
    "no-developer": (request({"date": "2026-11-23"}), 400),
    "wrong-token": (request(report("alike"), token="guessed"), 401),
    "no-such-connection": (request(report("alike"), route=ROUTE.replace("2", "999")), 404),
    "unknown-encoding": (request(report("alike"), Content_Encoding="br"), 415),
    "larger-than-at-once": (request({**report("alike"), "more": "x" * 100_000}), 200),
}


@pytest.mark.parametrize(("sent", "status"), CASES.values(), ids=CASES)
def test_whole_or_in_pieces_makes_no_difference(lake: Lake, sent: bytes, status: int) -> None:
    before = len(lake.stored("alike"))

    whole, pieces = ask(lake, sent, whole=True), ask(lake, sent, whole=False)

    assert (whole.status, whole.content) == (pieces.status, pieces.content)
    # Who was not told to go on may leave the body out, and so nothing that follows can be trusted.
    closes = {"connection: close"} if whole.status in (401, 404, 415) else set()
    assert _without_what_varies(whole.head) | closes == _without_what_varies(pieces.head)
    assert whole.status == status
    assert len(lake.stored("alike")) == before + (2 if status == 200 else 0)


def _without_what_varies(head: str) -> set[str]:
    """Header lines of an answer, without the time and the request's own id."""
    lines = re.sub(r"(?im)^(date|x-request-id): .*$", r"\1", head).splitlines()
    return {line.lower() for line in lines}


def test_requests_behind_each_other_are_answered_in_order(lake: Lake) -> None:
    sent = [
        request(report("first in line")),
        request(b"{"),
        request(b"", route="/health/live", method="GET"),
        request(report("first in line", hostname="other")),
        request(report("guest"), token="guessed"),
    ]
    with lake.line() as line:
        line.send(b"".join(sent))
        assert [line.answer().status for _ in sent] == [200, 400, 200, 200, 401]
    hosts = [json.loads(payload)["hostname"] for payload in lake.stored("first in line")]
    assert hosts == ["laptop", "other"]


@pytest.mark.parametrize(
    "last",
    [
        request(report("leaving"), Connection="close"),
        request(report("leaving"), version="1.0"),
    ],
    ids=["close", "http-1.0"],
)
def test_who_wants_no_more_is_let_go_after_the_answer(lake: Lake, last: bytes) -> None:
    before = len(lake.stored("leaving"))
    with lake.line() as line:
        line.send(request(report("leaving")))
        assert "connection: close" not in line.answer().head
        line.send(last)
        answer = line.answer()
        assert (answer.status, "connection: close" in answer.head) == (200, True)
        assert line.ended_within(5)
    assert len(lake.stored("leaving")) == before + 2


def test_who_hangs_up_before_the_answer_is_heard_all_the_same(lake: Lake) -> None:
    with lake.line() as line:
        line.send(request(report("in a hurry")))
    eventually(lambda: lake.stored("in a hurry"), seconds=10)
    assert lake.receiver.status("/health/ready") == 200


class Crippled(Receiver):
    """A receiver whose report endpoint lacks a part of itself."""

    method: str
    replacement: str

    def command(self) -> list[str]:
        lines = [
            "from developer_telemetry.cli.main import app",
            "from developer_telemetry.receiver.http.report_endpoint import ReportEndpoint",
            f"ReportEndpoint.{self.method}  # fails if it has another name by now",
            f"ReportEndpoint.{self.method} = {self.replacement}",
            "app(['serve'])",
        ]
        return [sys.executable, "-c", "\n".join(lines)]


class WithoutTasks(Crippled):
    """No step of a report can become a task."""

    method, replacement = "run", "None"


class WithoutDispatch(Crippled):
    """The endpoint accepts no request, so all of them reach the application."""

    method, replacement = "route", "lambda self, head: None"


def test_an_ordinary_report_needs_no_task(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/lake.db"
    with WithoutTasks(url, tmp_path) as receiver:
        lake = Lake(receiver, url)
        add_connection(url)
        # The token of a new connection is read by a task; a token in memory is not.
        eventually(lambda: ask(lake, request(report("direct")), whole=True).status == 200, 20)
        answers = {
            "at hand": ask(lake, request(report("direct")), whole=True),
            "not JSON": ask(lake, request(b"{"), whole=True),
            "in pieces": ask_in_pieces(lake, request(report("direct"))),
            "wrong token": ask(lake, request(report("direct"), token="guessed"), whole=True),
        }
    assert {name: answer.status for name, answer in answers.items()} == {
        "at hand": 200,
        "not JSON": 400,
        # So the receiver above really has no other way.
        "in pieces": 503,
        "wrong token": 503,
    }


def ask_in_pieces(lake: Lake, sent: bytes) -> Answer:
    with lake.line() as line:
        line.send(sent[:-1])
        return line.answer()


def test_the_application_takes_no_reports(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/lake.db"
    with WithoutDispatch(url, tmp_path) as receiver:
        lake = Lake(receiver, url)
        add_connection(url)
        answers = [ask(lake, sent, whole=True).status for sent, _ in CASES.values()]
        assert receiver.status("/health/live") == 200
    assert answers == [405] * len(CASES)


def test_refusals_of_both_kinds_are_counted_and_logged(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/lake.db"
    with Receiver(url, tmp_path, TELEMETRY_LOG_LEVEL="info") as receiver:
        lake = Lake(receiver, url)
        assert add_connection(url) == CONNECTION
        answers = [ask(lake, request(b"{"), whole) for whole in (True, False)]
        figures = receiver.client.get("/metrics").text

        assert 'telemetry_refusals_total{connection="2",reason="body"} 2.0' in figures
        assert 'telemetry_request_seconds_count{status="400"} 2.0' in figures
        for answer in answers:
            found = re.search(r"(?i)^x-request-id: (\w+)$", answer.head, re.MULTILINE)
            assert found is not None
            assert found[1] in receiver.log
