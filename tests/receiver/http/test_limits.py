"""Limits: who sends too slowly, too much or nonsense is cut off, and nobody else notices.

Over raw sockets, since clients that are well brought up can't do these things.
"""

from __future__ import annotations

import gzip
import json
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.lines import Line
from tests.support.receivers import (
    TOKEN,
    Altered,
    Receiver,
    add_connection,
    query,
    report,
)
from tests.support.threads import run_simultaneously

MEBIBYTE = 1 << 20
# The first one is made by the receiver.
CONNECTION = 2
ROUTE = "/plugins/developer-telemetry/2/report"
BULK_ROUTE = "/plugins/developer-telemetry/2/reports"
HEAD = f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
LENGTH = HEAD + "Content-Length: {}\r\n\r\n"
CHUNKED = HEAD + "Transfer-Encoding: chunked\r\n\r\n"
WRONG = "/plugins/developer-telemetry/999/report"


class ImpatientReader(Altered):
    """Waits half a minute for no sender; what is tested is that there is an end."""

    constants = {
        "connections.registry.RELOAD_SECONDS": 0.05,
        "receiver.http.body_reader.BODY_SECONDS": 0.7,
        "receiver.http.protocol.HEADER_SECONDS": 1.0,
        "receiver.http.protocol.REQUEST_SECONDS": 1.5,
    }


class Lake(NamedTuple):
    receiver: Receiver
    url: str

    def line(self) -> Line:
        return Line(self.receiver)

    def developers(self) -> set[str]:
        rows = query(self.url, "SELECT developer_id FROM _raw_developer_telemetry")
        return {developer for (developer,) in rows}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("limits")
    url = f"sqlite:///{folder}/telemetry.db"
    with ImpatientReader(url, folder) as receiver:
        assert add_connection(url) == CONNECTION
        assert receiver.send(report("first"), CONNECTION).status_code == 200
        yield Lake(receiver, url)
    assert "ERROR" not in receiver.log
    assert "Traceback" not in receiver.log


def body(developer: str) -> bytes:
    return json.dumps(report(developer)).encode()


def drip(line: Line, piece: str, seconds: float) -> bool:
    """Return true if the connection is gone at the end of sending a piece each tenth of a
    second."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            line.send(piece)
        except OSError:
            return True
        time.sleep(0.1)
    return False


def is_cut_off(line: Line) -> bool:
    """Return true if 64 MiB more can't be sent."""
    try:
        for _ in range(1000):
            line.send("z" * 65536)
    except OSError:
        return True
    return False


def test_slow_headers_are_cut_off_without_an_answer(lake: Lake) -> None:
    first = ["", "P", "\r\n", HEAD, "GET /health/live HTTP/1.1\r\nHost: x\r\n"]
    with ExitStack() as stack:
        lines = [stack.enter_context(lake.line()) for _ in range(len(first) + 3)]
        for line, start in zip(lines, first):
            line.send(start)
        dripping = lines[len(first)]
        for later, start in zip(lines[-2:], (HEAD, "\r\n")):
            later.send(LENGTH.format(2) + "{}")
            assert later.answer().status == 400
            later.send(start)
        dripping.send(HEAD)
        assert drip(dripping, "X-More: y\r\n", 5)
        for line in lines[: len(first)] + lines[-2:]:
            assert line.ended_within(5)


def test_a_slow_body_is_answered_503_and_then_cut_off(lake: Lake) -> None:
    whole = body("slow sender")
    with lake.line() as stopping, lake.line() as dripping:
        stopping.send(LENGTH.format(len(whole)).encode() + whole[:-1])
        dripping.send(CHUNKED)
        assert drip(dripping, "1\r\n \r\n", 5)
        for line in (stopping, dripping):
            answer = line.answer()
            assert answer.status == 503
            assert "retry-after: " in answer.head
            assert "too slowly" in str(answer.content["message"])
            assert line.ended_within(5)
    assert "slow sender" not in lake.developers()


def test_a_body_that_nobody_waits_for_may_not_drip_for_ever(lake: Lake) -> None:
    heads = {
        HEAD.replace(TOKEN, "wrong"): 401,
        HEAD.replace(ROUTE, WRONG): 404,
        HEAD + "Content-Encoding: br\r\n": 415,
        HEAD.replace("POST", "PUT"): 405,
    }

    def drips(head: str) -> bool:
        with lake.line() as line:
            line.send(head + "Transfer-Encoding: chunked\r\n\r\n")
            assert line.answer().status == heads[head]
            return drip(line, "1\r\n \r\n", 6)

    assert run_simultaneously([partial(drips, head) for head in heads]) == [True] * 4


def test_reports_go_through_beside_2000_idle_connections(lake: Lake) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2500:
        pytest.skip(f"this machine allows only {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2500), hard))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        before = lake.receiver.memory()
        # Opened with a request each, since a connection that says nothing is soon cut off.
        lines = []
        for _ in range(2000):
            lines.append(stack.enter_context(lake.line()))
            lines[-1].send("GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        for line in lines:
            assert line.answer().status == 200

        seconds = []
        for number in range(20):
            started = time.monotonic()
            assert lake.receiver.send(report(f"beside {number}"), CONNECTION).status_code == 200
            seconds.append(time.monotonic() - started)

        assert sorted(seconds)[10] < 0.2, seconds
        assert lake.receiver.memory() - before < 100
        # They are all still there: nobody was thrown out for it.
        for line in lines[::100]:
            line.send("GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert line.answer().status == 200


def test_idle_connections_that_never_spoke_are_closed(lake: Lake) -> None:
    with ExitStack() as stack:
        lines = [stack.enter_context(lake.line()) for _ in range(200)]
        assert lake.receiver.send(report("beside the silent"), CONNECTION).status_code == 200
        assert all(line.ended_within(5) for line in lines)


def test_a_content_length_that_is_too_long_leaves_nothing(lake: Lake) -> None:
    whole = body("long length")
    with lake.line() as line:
        line.send(LENGTH.format(len(whole) + 1).encode() + whole)
        line.end()
        assert line.ended_within(5)
    assert "long length" not in lake.developers()


def test_a_content_length_that_is_too_short_is_a_body_cut_short(lake: Lake) -> None:
    whole = body("short length")
    with lake.line() as line:
        line.send(LENGTH.format(len(whole) - 1).encode() + whole)
        answer = line.answer()
        assert answer.status == 400
        assert "not JSON" in str(answer.content["message"])
    assert "short length" not in lake.developers()


def test_what_follows_a_whole_report_does_not_cost_its_answer(lake: Lake) -> None:
    whole = body("with a tail")
    with lake.line() as line:
        line.send(LENGTH.format(len(whole)).encode() + whole + b"}}} nonsense\r\n\r\n")
        assert line.answer().status == 200
        assert line.ended_within(5)
    assert "with a tail" in lake.developers()


@pytest.mark.parametrize(
    "sent",
    [
        "nonsense\r\n\r\n",
        HEAD + "Content-Length: -5\r\n\r\n",
        HEAD + "Content-Length: many\r\n\r\n",
        HEAD + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        HEAD + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        CHUNKED + "zz\r\n{}\r\n",
        HEAD + "X-\x01: y\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_not_http_is_answered_in_the_same_shape_and_closed(lake: Lake, sent: str) -> None:
    with lake.line() as line:
        line.send(sent.encode("latin-1"))
        answer = line.answer()
        assert answer.status == 400
        assert answer.content["success"] is False
        assert line.ended_within(5)


def test_a_chunked_body_of_100_mebibytes_is_refused_in_flat_memory(lake: Lake) -> None:
    before = lake.receiver.memory()
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with lake.line() as line:
        line.send(CHUNKED)
        for _ in range(20):
            line.send(chunk)
        # The answer is there long before the end, for whoever looks.
        assert line.answer().status == 413
        for _ in range(1580):
            line.send(chunk)
        line.send("0\r\n\r\n")
        # Who sends it all the same may go on with another report.
        line.send(LENGTH.format(len(body("after it"))).encode() + body("after it"))
        assert line.answer().status == 200
    assert lake.receiver.peak() - before < 20


def test_32_senders_of_too_much_at_once_stay_in_flat_memory(lake: Lake) -> None:
    def send_too_much() -> int:
        with lake.line() as line:
            line.send(CHUNKED)
            for _ in range(160):
                line.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
            return line.answer().status

    before = lake.receiver.memory()
    assert run_simultaneously([send_too_much] * 32) == [413] * 32
    assert lake.receiver.peak() - before < 100


@pytest.mark.parametrize(
    "start",
    [
        f"GET {'/x' * 32_000}",
        f"{HEAD}X-Long: {'y' * 64_000}",
        f"{HEAD}{'X-Many: y' * 7_000}",
    ],
)
def test_headers_without_end_are_cut_off_in_flat_memory(lake: Lake, start: str) -> None:
    before = lake.receiver.memory()
    with lake.line() as line:
        line.send(start)
        assert is_cut_off(line)
    assert lake.receiver.peak() - before < 20


def test_trailers_without_end_are_cut_off_in_flat_memory(lake: Lake) -> None:
    before = lake.receiver.memory()
    with lake.line() as line:
        line.send(CHUNKED + "2\r\n{}\r\n0\r\nX-Trailer: ")
        assert is_cut_off(line)
    assert lake.receiver.peak() - before < 20


def test_a_gzip_bomb_is_refused_soon_and_in_flat_memory(lake: Lake) -> None:
    bombs = {
        "one member": gzip.compress(b" " * (200 * MEBIBYTE)),
        "many members": gzip.compress(b" " * MEBIBYTE) * 200,
        "empty members": gzip.compress(b"") * 50_000,
    }
    before = lake.receiver.memory()
    for name, bomb in bombs.items():
        assert len(bomb) < MEBIBYTE
        started = time.monotonic()
        for route in (ROUTE, BULK_ROUTE):
            answer = lake.receiver.send(bomb, CONNECTION, path=route, content_encoding="gzip")
            assert answer.status_code == 413, name
        assert time.monotonic() - started < 60, name
    assert lake.receiver.peak() - before < 40


@pytest.mark.parametrize("opening", ["[", '{"x":'])
def test_10000_levels_of_nesting_are_refused(lake: Lake, opening: str) -> None:
    closing = {"[": "]", '{"x":': "}"}[opening]
    deep = opening * 10_000 + "1" + closing * 10_000
    whole = json.dumps(report("deep", x=0)).replace('"x": 0', f'"x": {deep}').encode()

    for sent in (whole, deep.encode()):
        answer = lake.receiver.send(sent, CONNECTION)
        assert answer.status_code == 400
        assert "nested deeper than 64 levels" in answer.json()["message"]
    assert "deep" not in lake.developers()


def test_bodies_half_sent_at_sigterm_are_answered_503(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    receiver = Receiver(url, tmp_path)
    with receiver, ExitStack() as stack:
        assert add_connection(url) == CONNECTION
        assert receiver.send(report("whole"), CONNECTION).status_code == 200
        half = LENGTH.format(len(body("half"))).encode() + body("half")[:20]
        lines = [stack.enter_context(Line(receiver)) for _ in range(20)]
        for line in lines:
            line.send(half)
        silent = stack.enter_context(Line(receiver))
        # Answered after the others have begun: the receiver reads in order of arrival.
        assert receiver.send(report("last"), CONNECTION).status_code == 200
        started = time.monotonic()

        receiver.terminate()

        for line in lines:
            answer = line.answer()
            assert answer.status == 503
            assert "retry-after: " in answer.head
            assert "stopping" in str(answer.content["message"])
            assert line.ended_within(5)
        assert silent.ended_within(15)
        assert receiver.stop() == 0
        assert time.monotonic() - started < 15
    stored = query(url, "SELECT developer_id FROM _raw_developer_telemetry ORDER BY id")
    assert stored == [("whole",), ("last",)]
    assert "Traceback" not in receiver.log
