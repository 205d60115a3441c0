"""Bodies that are small on the wire and large in memory, or slow to read, cost nobody else."""

from __future__ import annotations

import gzip
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.support.receivers import (
    TOKEN,
    Receiver,
    ReloadingReceiver,
    add_connection,
    eventually,
    query,
    report,
)

MEBIBYTE = 1 << 20
PATH = "/plugins/developer-telemetry/{}/report"
BULK = PATH + "s"
BOMB = gzip.compress(
    json.dumps(report("bomb")).encode()[:-1] + b', "x": [' + b"[]," * 1_390_000 + b"[]]}"
)
SLOW = gzip.compress(b"[[" + b"[]," * (20 * MEBIBYTE) + b"[]")


class Lake(NamedTuple):
    receiver: Receiver
    url: str
    connection: int

    def post(self, path: str, body: bytes, **headers: str) -> httpx.Response:
        sent = {"Authorization": f"Bearer {TOKEN}", **headers}
        return httpx.post(
            self.receiver.url + path.format(self.connection),
            content=body,
            headers=sent,
            timeout=110,
            trust_env=False,
            verify=False,
        )

    def children(self) -> list[int]:
        tasks = Path(f"/proc/{self.receiver.pid}/task")
        return [int(pid) for path in tasks.glob("*/children") for pid in path.read_text().split()]

    def kill_children(self) -> bool:
        for child in self.children():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return False


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("heavy")
    url = f"sqlite:///{folder}/telemetry.db"
    with ReloadingReceiver(url, folder) as receiver:
        yield Lake(receiver, url, add_connection(url))
    assert "Traceback" not in receiver.log


def large(developer: str) -> bytes:
    return json.dumps(report(developer, padding="x" * 100_000)).encode()


def test_bombs_at_once_stay_in_flat_memory_and_the_receiver_answers(lake: Lake) -> None:
    assert len(BOMB) < 5000
    assert lake.post(PATH, large("before")).status_code == 200
    before = lake.receiver.memory()
    with ThreadPoolExecutor(6) as pool:
        zipped = {"Content-Encoding": "gzip"}
        sent = [pool.submit(partial(lake.post, PATH, BOMB, **zipped)) for _ in range(6)]
        waited = []
        while not all(each.done() for each in sent):
            started = time.monotonic()
            assert lake.receiver.status("/health/live") == 200
            waited.append(time.monotonic() - started)
    answers = [each.result() for each in sent]
    assert {each.status_code for each in answers} <= {200, 503}
    assert all("retry-after" in each.headers for each in answers if each.status_code == 503)
    assert sorted(waited)[len(waited) // 2] < 1
    # Those that were kept wait for the database as the text that they are.
    assert lake.receiver.peak() - before < 120
    eventually(lambda: lake.post(PATH, large("after")).status_code == 200, 30)


def test_others_are_answered_in_time_beside_eight_bulk_bombs(lake: Lake) -> None:
    with ThreadPoolExecutor(8) as pool:
        zipped = {"Content-Encoding": "gzip"}
        bombs = [pool.submit(partial(lake.post, BULK, SLOW, **zipped)) for _ in range(8)]
        eventually(lambda: len(lake.children()) > 1, 20)
        started = time.monotonic()
        for number in range(20):
            assert lake.receiver.send(report(f"small {number}"), lake.connection).status_code == 200
        assert lake.post(PATH, large("beside bombs")).status_code == 200
        new = add_connection(lake.url)  # which the receiver has not read yet
        assert lake.receiver.send(report("newcomer"), new).status_code == 200
        took = time.monotonic() - started
        # Or this would show nothing.
        assert not all(each.done() for each in bombs)
        eventually(lambda: lake.kill_children() or all(each.done() for each in bombs), 60)
        answers = [each.result() for each in bombs]
    assert took < 20
    assert {each.status_code for each in answers} <= {400, 503}
    # Each is read anew where its process is gone.
    assert lake.post(BULK, json.dumps([report("bulk")]).encode()).status_code == 200


def test_a_process_that_is_killed_costs_the_one_body_it_had(lake: Lake) -> None:
    assert lake.post(PATH, large("first")).status_code == 200
    lake.kill_children()
    assert lake.post(PATH, large("second")).status_code == 200
    stored = query(lake.url, "SELECT developer_id FROM _raw_developer_telemetry")
    assert ("second",) in stored


def test_none_of_its_processes_outlives_the_receiver(lake: Lake, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    with ReloadingReceiver(url, tmp_path) as receiver:
        own = Lake(receiver, url, add_connection(url))
        assert own.post(PATH, large("first")).status_code == 200
        children = own.children()
        assert children
        receiver.kill()
    eventually(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in children), 10)
