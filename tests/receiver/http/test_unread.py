"""Test that clients that read no answer, or open connections without end, cost others nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import NamedTuple

import httpx
import pytest

from tests.support.lines import Line
from tests.support.receivers import (
    TOKEN,
    Altered,
    Receiver,
    add_connection,
    eventually,
    report,
)
from tests.support.servers import HOST
from tests.support.threads import run_simultaneously

CONNECTION = 2  # the first one is made by the receiver
ROUTE = f"/plugins/developer-telemetry/{CONNECTION}/report"
BULK_ROUTE = f"/plugins/developer-telemetry/{CONNECTION}/reports"
OPEN_FILES = 256


class ImpatientWriter(Altered):
    """Waits half a minute for no reader; what is tested is that there is an end."""

    constants = {
        "receiver.http.protocol.WRITE_SECONDS": 1.0,
        "receiver.http.protocol.WRITE_BYTES_A_SECOND": 1 << 20,
    }


class Lake(NamedTuple):
    receiver: Receiver
    url: str


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("unread")
    url = f"sqlite:///{folder}/telemetry.db"
    with ImpatientWriter(url, folder, TELEMETRY_ADMIN_TOKEN="x" * 16) as receiver:
        assert add_connection(url) == CONNECTION
        assert receiver.send(report("first"), CONNECTION).status_code == 200
        yield Lake(receiver, url)
    assert "ERROR" not in receiver.log
    assert "Traceback" not in receiver.log


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def refused() -> bytes:
    return f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode()


def bad_report() -> bytes:
    head = f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    return f"{head}Content-Length: 2\r\n\r\n{{}}".encode()


class Deaf:
    """A connection that sends as much as is taken, and reads nothing."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(10)
        self.socket.connect((HOST, port))
        self.socket.setblocking(False)
        self.sent = 0
        self.gone = False

    def push(self, data: bytes) -> None:
        try:
            self.sent += self.socket.send(data)
        except BlockingIOError:
            pass
        except OSError:
            self.gone = True

    def close(self) -> None:
        self.socket.close()


def press(deaf: list[Deaf], data: bytes, seconds: float) -> None:
    """Send for so long wherever anything is taken."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for each in deaf:
            each.push(data)
        time.sleep(0.002)


@pytest.mark.parametrize(
    "request_",
    [get("/health/live"), get("/openapi.json"), get("/login"), get("/metrics"), bad_report()],
    ids=["live", "openapi", "page", "metrics", "report"],
)
def test_who_pipelines_and_reads_nothing_is_held_in_flat_memory_and_cut_off(
    lake: Lake, request_: bytes
) -> None:
    before = lake.receiver.memory()
    with ExitStack() as stack:
        deaf = [Deaf(lake.receiver.port) for _ in range(8)]
        for each in deaf:
            stack.callback(each.close)
        press(deaf, request_ * (65536 // len(request_)), 1.0)
        # Nobody else notices.
        assert lake.receiver.send(report("beside the deaf"), CONNECTION).status_code == 200

        def all_gone() -> bool:
            press(deaf, request_, 0.05)
            return all(each.gone for each in deaf)

        eventually(all_gone, 20)
    assert lake.receiver.peak() - before < 30


def test_answers_behind_each_other_all_come_to_who_reads_late(lake: Lake) -> None:
    count = 200
    with Line(lake.receiver) as line:
        line.send(get("/openapi.json") * count)
        assert [line.answer().status for _ in range(count)] == [200] * count


def test_a_slow_reader_gets_all_of_a_large_answer(lake: Lake) -> None:
    lines = b"".join(b'{"x": %d}\n' % number for number in range(10_000))
    head = f"POST {BULK_ROUTE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    with Line(lake.receiver) as line:
        line.send(head + f"Content-Length: {len(lines)}\r\n\r\n")
        line.send(lines)
        time.sleep(0.5)
        answer = line.answer()
    assert answer.status == 400
    assert len(answer.content["results"]) == 10_000  # type: ignore[arg-type]


class Cramped(ImpatientWriter):
    """A receiver that may open few files."""

    def command(self) -> list[str]:
        command = ["bash", "-c", f'ulimit -n {OPEN_FILES} && exec "$@"', "bash"]
        return [*command, *super().command()]


@pytest.fixture(scope="module")
def cramped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    folder = tmp_path_factory.mktemp("cramped")
    url = f"sqlite:///{folder}/telemetry.db"
    with Cramped(url, folder) as receiver:
        assert add_connection(url) == CONNECTION
        assert receiver.send(report("first"), CONNECTION).status_code == 200
        yield receiver
    assert "Traceback" not in receiver.log


CROWDS = {
    "silent": b"",
    "deaf": get("/openapi.json") * 1000,
    "half a body": f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode(),
}


@pytest.mark.parametrize("crowd", CROWDS)
def test_machines_get_in_while_strangers_hold_all_the_connections_there_may_be(
    cramped: Receiver, crowd: str
) -> None:
    def arrive() -> int:
        with httpx.Client(base_url=cramped.url, timeout=20, trust_env=False) as client:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            return client.post(ROUTE, json=report("new machine"), headers=headers).status_code

    with ExitStack() as stack:
        known = stack.enter_context(Line(cramped))
        known.send(bad_report().replace(b"Content-Length: 2\r\n\r\n{}", b"") + whole("known"))
        assert known.answer().status == 200
        strangers = []
        for _ in range(OPEN_FILES):
            stranger = Deaf(cramped.port)
            stack.callback(stranger.close)
            stranger.push(CROWDS[crowd])
            strangers.append(stranger)

        started = time.monotonic()
        assert run_simultaneously([arrive] * 8) == [200] * 8
        assert time.monotonic() - started < 10
        # Who was known before them is still there.
        known.send(bad_report().replace(b"Content-Length: 2\r\n\r\n{}", b"") + whole("known"))
        assert known.answer().status == 200
    assert cramped.status("/health/live") == 200


def whole(developer: str) -> bytes:
    content = f'{{"developer": "{developer}", "date": "2026-11-23"}}'.encode()
    return b"Content-Length: %d\r\n\r\n%b" % (len(content), content)


def test_a_burst_beyond_all_files_leaves_the_receiver_listening(cramped: Receiver) -> None:
    with ExitStack() as stack:
        for _ in range(3 * OPEN_FILES):
            each = socket.socket()
            stack.callback(each.close)
            each.setblocking(False)
            with suppress(BlockingIOError):
                each.connect((HOST, cramped.port))
        assert cramped.send(report("behind the burst"), CONNECTION).status_code == 200
    assert cramped.send(report("after the burst"), CONNECTION).status_code == 200
