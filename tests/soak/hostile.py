"""Measure what hostile senders cost: the long form of the tests of connections and of heavy bodies.

    python -m tests.soak.hostile [--seconds 8]

prints one line for each attack. The soak runs it, too. With `PYTHONPATH` at another version of the
receiver it says what that one did.
"""

from __future__ import annotations

import argparse
import gzip
import json
import socket
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import httpx

from tests.support.receivers import TOKEN, Receiver, add_connection, report
from tests.support.servers import HOST

PATH = "/plugins/developer-telemetry/{}/report"
ZIPPED = {"Authorization": f"Bearer {TOKEN}", "Content-Encoding": "gzip"}
PATIENCE_SECONDS = 120.0
DEAF_SECONDS = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Attack a receiver, and say what that cost.")
    parser.add_argument("--seconds", type=float, default=8.0)
    attack_all(parser.parse_args().seconds)


def attack_all(seconds: float) -> None:
    """Try each attack on a receiver of its own."""
    attacks: list[Callable[[Receiver, int], str]] = [
        partial(pipeline, seconds=seconds),
        hold_answers,
        inflate,
        occupy_bulks,
    ]
    for attack in attacks:
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/telemetry.db"
            with Receiver(url, Path(folder)) as receiver:
                connection = add_connection(url)
                assert receiver.send(report("first"), connection).status_code == 200
                print(attack(receiver, connection), flush=True)


def pipeline(receiver: Receiver, connection: int, seconds: float) -> str:
    """Ask without end over four connections, and read nothing."""
    request = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    before = receiver.memory()
    sent = 0
    with ExitStack() as stack:
        senders = [_deaf(receiver, stack) for _ in range(4)]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for each in senders:
                with suppress(OSError):
                    sent += each.send(request * 1500)
            time.sleep(0.001)
        peak = receiver.peak()
    return f"pipelining, unread: {sent >> 20} MiB sent, {before:.0f} -> {peak:.0f} MiB"


def hold_answers(receiver: Receiver, connection: int) -> str:
    """Ask for much over a hundred connections, and read nothing."""
    request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
    with ExitStack() as stack:
        senders = [_deaf(receiver, stack) for _ in range(100)]
        for each in senders:
            with suppress(OSError):
                each.send(request)
        until = time.monotonic() + DEAF_SECONDS
        while time.monotonic() < until and _held(receiver):
            time.sleep(1)
        held = _held(receiver)
    return f"unread answers: {held} of 100 connections are held after {DEAF_SECONDS:.0f} s"


def inflate(receiver: Receiver, connection: int) -> str:
    """Send fifty reports of 4 kB that are 4 MiB each."""
    start = json.dumps(report("bomb")).encode()[:-1]
    bomb = gzip.compress(start + b', "x": [' + b"[]," * 1_390_000 + b"[]]}")
    before = receiver.memory()
    slowest = 0.0
    with ThreadPoolExecutor(50) as pool:
        sent = [pool.submit(_post, receiver, PATH.format(connection), bomb) for _ in range(50)]
        while not all(each.done() for each in sent):
            slowest = max(slowest, _time(lambda: receiver.status("/health/live")))
    statuses = sorted(each.result() for each in sent)
    counted = ", ".join(f"{statuses.count(each)} x {each}" for each in sorted(set(statuses)))
    return (
        f"50 bombs of {len(bomb)} B: {counted}; {before:.0f} -> {receiver.peak():.0f} MiB,"
        f" slowest /health/live {slowest:.2f} s"
    )


def occupy_bulks(receiver: Receiver, connection: int) -> str:
    """Send eight bulk bodies of brackets, and single reports beside them and without them."""
    body = gzip.compress(b"[[" + b"[]," * (21 << 20) + b"[]")
    alone = _answer_times(receiver, connection, lambda: False, 10.0)
    with ThreadPoolExecutor(8) as pool:
        path = PATH.format(connection) + "s"
        sent = [pool.submit(_post, receiver, path, body) for _ in range(8)]
        time.sleep(1)
        large = _time(lambda: receiver.send(report("large", x="x" * 100_000), connection))
        beside = _answer_times(
            receiver, connection, lambda: all(each.done() for each in sent), 20.0
        )
        receiver.kill()  # the rest shows nothing more
    return (
        f"8 bulks of {len(body)} B: single reports' p50/p99 {alone}, beside them {beside};"
        f" a report of 100 kB beside them {large:.2f} s"
    )


def _deaf(receiver: Receiver, stack: ExitStack) -> socket.socket:
    made = stack.enter_context(socket.socket())
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect((HOST, receiver.port))
    made.setblocking(False)
    return made


def _held(receiver: Receiver) -> int:
    """Return how many connections the receiver has open, as the system knows it."""
    port = f":{receiver.port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # State 1 is an established connection; one of them is the one that asks.
    return sum(line[1].endswith(port) and line[3] == "01" for line in lines) - 1


def _post(receiver: Receiver, path: str, body: bytes) -> int:
    try:
        return httpx.post(
            receiver.url + path,
            content=body,
            headers=ZIPPED,
            timeout=PATIENCE_SECONDS,
            trust_env=False,
        ).status_code
    except httpx.TransportError:
        return 0


def _time(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def _answer_times(
    receiver: Receiver, connection: int, ended: Callable[[], bool], seconds: float
) -> str:
    until = time.monotonic() + seconds
    times = []
    while time.monotonic() < until and not ended():
        times.append(_time(lambda: receiver.send(report("single"), connection)))
        time.sleep(0.005)
    times.sort()
    return f"{times[len(times) // 2] * 1000:.0f}/{times[len(times) * 99 // 100] * 1000:.0f} ms"


if __name__ == "__main__":
    main()
