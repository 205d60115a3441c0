"""Figures of the page: read seldom, and waited for by nobody."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from developer_telemetry.concurrency import DaemonThreads
from developer_telemetry.receiver.web.data import cached_query as figures
from developer_telemetry.receiver.web.data.cached_query import CachedQuery, refresh


def test_figures_that_take_their_time_keep_nobody_waiting() -> None:
    go_on = threading.Event()
    reads: list[int] = []

    def read() -> int:
        reads.append(1)
        assert go_on.wait(60)
        return len(reads)

    async def look() -> None:
        threads = DaemonThreads(1, "test")
        figure = CachedQuery(read, 3600, threads)
        await refresh([figure], 0.01)
        await refresh([figure], 0.01)
        assert (figure.value, len(reads)) == (None, 1)
        go_on.set()
        await refresh([figure], 30)
        assert figure.value == 1
        assert figure.renew() is None
        threads.stop()

    asyncio.run(look())


def test_figures_that_took_long_are_not_asked_for_again_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(figures, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def read() -> float:
        now[0] += 0.5
        return now[0]

    async def look() -> None:
        threads = DaemonThreads(1, "test")
        figure = CachedQuery(read, 4, threads)
        await refresh([figure], 30)
        seen = {}
        for later in (4.6, 49, 51):
            now[0] = later
            await refresh([figure], 30)
            seen[later] = figure.value
        threads.stop()
        assert seen == {4.6: 0.5, 49: 0.5, 51: 51.5}

    asyncio.run(look())


def test_figures_stay_when_they_can_not_be_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "PAUSE_FACTOR", 0)
    outcomes: list[Any] = [
        "first",
        OperationalError("SELECT secret", {}, Exception("server has gone away")),
        ValueError("a bug"),
        "last",
    ]

    def read() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return str(outcome)

    async def look() -> None:
        threads = DaemonThreads(1, "test")
        figure = CachedQuery(read, 0, threads)
        seen = []
        for _ in range(4):
            await refresh([figure], 30)
            seen.append((figure.value, figure.fault))
        threads.stop()
        assert seen == [
            ("first", ""),
            ("first", "the database reports: server has gone away"),
            ("first", "the receiver failed to read them; see its log"),
            ("last", ""),
        ]

    asyncio.run(look())
