"""Sending: to the real receiver, and to servers that refuse, hang and lie."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Optional

import pytest

from collector import sender
from collector.sender import retry_after_seconds
from tests.support.developers import Developer, seconds

DAY = "2026-11-02"
NEXT = "2026-11-03"
START = f"{DAY} 08:00"
STORED: Any = (200, {}, b'{"success": true, "message": "report stored"}')


class Server:
    """Answers the day of a body by `answers`, else as the receiver does; notes what it got."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.bodies.append(body)
                owner.headers.append(dict(self.headers))
                answer = owner.answers.get(body["date"], owner.answers.get("all", STORED))
                status, headers, content = answer
                if status == 0:
                    return  # it closes the connection without an answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = (
            f"http://127.0.0.1:{self._server.server_port}/plugins/developer-telemetry/1/report"
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def days(self) -> list[str]:
        return [body["date"] for body in self.bodies]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def sending(ann: Developer, server: Server) -> Developer:
    """A developer with a day of work that is not sent yet."""
    ann.settings = ann.settings._replace(url=server.url, token="the-token")
    ann.run(START)
    ann.type("git push", f"{DAY} 09:00")
    return ann


def waiting(ann: Developer) -> list[str]:
    return [day.day for day in ann.store.waiting()]


def refusal(status: int, message: str = "no", **headers: str) -> Any:
    content = json.dumps({"success": False, "message": message}).encode()
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, content


def test_a_day_is_sent_with_token_and_version(sending: Developer, server: Server) -> None:
    sending.run(f"{DAY} 09:15")
    assert server.bodies == [sending.report(DAY)]
    assert server.headers[0]["Authorization"] == "Bearer the-token"
    assert server.headers[0]["User-Agent"].startswith("developer-telemetry-collector/")
    assert waiting(sending) == []
    assert json.loads(sending.store.sent_body(DAY) or b"") == sending.report(DAY)


def test_today_is_sent_hourly_and_the_finished_day_after_midnight(
    sending: Developer, server: Server
) -> None:
    sending.run(f"{DAY} 09:15")
    sending.type("make", f"{DAY} 09:20")
    sending.run(f"{DAY} 09:30")
    assert len(server.bodies) == 1
    sending.run(f"{DAY} 10:30")
    sending.type("make", f"{DAY} 23:50")
    sending.run(f"{NEXT} 00:05")
    assert [body["metrics"]["commands"] for body in server.bodies] == [
        {"git": 1},
        {"git": 1, "make": 1},
        {"git": 1, "make": 2},
    ]
    sending.run(f"{NEXT} 00:20")
    assert len(server.bodies) == 3


def test_a_refused_day_stops_no_other_and_is_tried_once_a_day(
    sending: Developer, server: Server
) -> None:
    server.answers[DAY] = refusal(400, "date: not a day")
    sending.type("make", f"{NEXT} 09:00")
    sending.run(f"{NEXT} 09:15")
    assert sorted(server.days) == [DAY, NEXT]
    assert waiting(sending) == [DAY]
    sending.run(f"{NEXT} 12:00")
    assert server.days.count(DAY) == 1
    server.answers.clear()
    sending.run("2026-11-04 09:30")
    assert waiting(sending) == []


@pytest.mark.parametrize("status", [401, 403, 404, 405, 302])
def test_an_answer_about_the_connection_is_asked_for_once_a_day(
    sending: Developer, server: Server, status: int
) -> None:
    server.answers["all"] = refusal(status, Location="http://127.0.0.1:9/")
    sending.type("make", f"{NEXT} 09:00")
    sending.run(f"{NEXT} 09:15")
    sending.run(f"{NEXT} 12:15")
    assert len(server.bodies) == 1
    assert waiting(sending) == [DAY, NEXT]
    server.answers.clear()
    sending.run("2026-11-04 09:30")
    assert waiting(sending) == []


def test_one_accepted_report_releases_the_days_of_a_replaced_token(
    sending: Developer, server: Server
) -> None:
    server.answers["all"] = refusal(401)
    sending.run(f"{DAY} 09:15")
    server.answers.clear()
    sending.type("make", f"{NEXT} 00:10")
    sending.run(f"{NEXT} 00:15")
    sending.run(f"{NEXT} 00:30")
    assert waiting(sending) == []


@pytest.mark.parametrize(
    "answer",
    [
        *(refusal(status) for status in (408, 425, 429, 500, 502, 503)),
        (0, {}, b""),
        (200, {"Content-Type": "text/html"}, b"<html>Welcome to our hotel</html>"),
        (204, {}, b""),
    ],
    ids=lambda answer: str(answer[0]),
)
def test_a_temporary_failure_is_tried_again_by_the_next_run(
    sending: Developer, server: Server, answer: Any
) -> None:
    server.answers["all"] = answer
    sending.run(f"{DAY} 09:15")
    assert waiting(sending) == [DAY]
    server.answers.clear()
    sending.run(f"{DAY} 09:30")
    assert waiting(sending) == []


def test_a_day_that_always_fails_does_not_hold_up_the_others(
    sending: Developer, server: Server
) -> None:
    server.answers[DAY] = (0, {}, b"")
    sending.type("make", f"{NEXT} 09:00")
    sending.run(f"{NEXT} 09:15")
    sending.run(f"{NEXT} 09:30")
    assert waiting(sending) == [DAY]


@pytest.mark.parametrize(("status", "after"), [(503, "7200"), (429, "7200"), (503, "10000000")])
def test_retry_after_is_obeyed(sending: Developer, server: Server, status: int, after: str) -> None:
    server.answers["all"] = refusal(status, Retry_After=after)
    sending.run(f"{DAY} 09:15")
    server.answers.clear()
    sending.run(f"{DAY} 11:00")
    assert len(server.bodies) == 1
    sending.run(f"{NEXT} 09:30" if after != "7200" else f"{DAY} 11:30")
    assert waiting(sending) == []


def test_a_clock_that_was_ahead_holds_nothing_back(sending: Developer, server: Server) -> None:
    server.answers["all"] = refusal(503, Retry_After="7200")
    sending.run("2031-01-01 09:15")
    server.answers["all"] = refusal(400)
    sending.run("2031-01-01 12:15")
    server.answers.clear()
    sending.run(f"{DAY} 10:00")
    assert waiting(sending) == []


def test_a_server_that_hangs_holds_up_one_request(
    sending: Developer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "TIMEOUT_SECONDS", 0.3)
    sending.type("make", f"{NEXT} 09:00")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"http://127.0.0.1:{port}/plugins/developer-telemetry/1/report"
        sending.settings = sending.settings._replace(url=url)
        sending.run(f"{NEXT} 09:15")
    assert waiting(sending) == [DAY, NEXT]
    assert [day.attempts for day in sending.store.days()] == [1, 0]


def test_nothing_is_read_or_sent_in_a_pause(sending: Developer, server: Server) -> None:
    sending.type("ls", f"{DAY} 08:10", "bash")
    sending.run(f"{DAY} 09:15")
    with sending.store as store, store.transaction():
        store.pause(seconds(f"{DAY} 09:30"), seconds(f"{DAY} 12:30"))
    sending.type("make", f"{DAY} 10:00")
    sending.type("make", f"{DAY} 10:00", "bash")
    sending.commit("shop", f"{DAY} 11:00")
    sending.run(f"{DAY} 11:15")
    assert len(server.bodies) == 1
    sending.type("go test", f"{DAY} 13:00")
    sending.run(f"{DAY} 13:15")
    metrics = sending.metrics(DAY)
    assert metrics["commands"] == {"git": 1, "go test": 1}
    assert metrics["git_activity"]["total_commits"] == 0
    assert metrics["active_hours"] == 2


def test_a_day_of_the_future_waits_for_it(sending: Developer, server: Server) -> None:
    sending.type("make", "2026-12-24 10:00")
    sending.run(f"{DAY} 09:15")
    assert (server.days, waiting(sending)) == ([DAY], ["2026-12-24"])


def test_an_excluded_repository_is_taken_out_of_sent_days(
    sending: Developer, server: Server
) -> None:
    sending.commit("code/secret", f"{DAY} 10:00")
    sending.commit("code/shop", f"{DAY} 11:00")
    sending.run(f"{DAY} 11:15")
    assert server.bodies[-1]["metrics"]["projects"] == ["secret", "shop"]
    sending.settings = sending.settings._replace(excluded=["secret"])
    with sending.store as store, store.transaction():
        store.touch_days_of([str(sending.home / "code/secret/.git")])
    sending.run(f"{DAY} 12:30")
    metrics = server.bodies[-1]["metrics"]
    assert (metrics["projects"], metrics["active_hours"]) == (["shop"], 2)
    assert metrics["git_activity"]["total_commits"] == 1


def test_a_hidden_name_is_replaced_everywhere(sending: Developer, server: Server) -> None:
    sending.settings = sending.settings._replace(hidden=[str(sending.home / "code")])
    sending.commit("code/secret", f"{DAY} 10:00")
    sending.run(f"{DAY} 11:15")
    [body] = server.bodies
    [name] = body["metrics"]["projects"]
    assert name.startswith("hidden-")
    assert "secret" not in json.dumps(body)
    [repository] = body["metrics"]["git_activity"]["repositories"]
    assert (repository["name"], repository["branches_worked"]) == (name, [])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("120", 120.0),
        ("Mon, 02 Nov 2026 10:00:00 GMT", 600.0),
        ("Mon, 02 Nov 2020 10:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: Optional[str], expected: Optional[float]) -> None:
    now = 1793613000.0  # 2026-11-02 09:50 UTC
    assert retry_after_seconds(value, now) == expected


def test_a_private_authority_is_trusted_where_it_is_named(tmp_path: Path) -> None:
    from collector.settings import Settings

    with pytest.raises(FileNotFoundError):
        sender.poster(Settings("https://127.0.0.1:9/x", ca_file=str(tmp_path / "none.pem")))
