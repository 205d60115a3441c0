"""Threads: prefetched items, concurrent calls, periodic work."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Callable, Optional, TypeVar

S = TypeVar("S")
T = TypeVar("T")

# A database that waits for its disk answers three queries in little more time than one.
MAX_CALLS = 3


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """Yield the same items (none of them None); a thread prepares the next one meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def map_concurrently(call: Callable[[S], T], items: Iterator[S]) -> Iterator[T]:
    """Yield `call(item)` for each item, in order; MAX_CALLS calls run at once."""
    with ThreadPoolExecutor(MAX_CALLS) as threads:
        coming: deque[Future[T]] = deque()
        for item in items:
            coming.append(threads.submit(call, item))
            if len(coming) == MAX_CALLS:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


class DaemonThreads:
    """A few threads for calls that wait for the database.

    They are daemons, unlike those of an executor: a database that hangs must not keep the process
    from ending.
    """

    def __init__(self, number: int, name: str) -> None:
        self._queue: queue.SimpleQueue[Optional[Callable[[], None]]] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name} {index}", daemon=True)
            for index in range(number)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` on one of the threads; return or raise its outcome."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def set_unless_done(set_outcome: Callable[[Any], None], outcome: Any) -> None:
            if not future.done():
                set_outcome(outcome)

        def run() -> None:
            try:
                ended = partial(set_unless_done, future.set_result, work())
            except Exception as error:
                ended = partial(set_unless_done, future.set_exception, error)
            with suppress(RuntimeError):  # no caller waits once the loop is closed
                loop.call_soon_threadsafe(ended)

        self._queue.put(run)
        return await future

    def stop(self) -> None:
        """Start no more work; do not wait for running work."""
        for _ in self._threads:
            self._queue.put(None)

    def _run(self) -> None:
        while True:
            work = self._queue.get()
            if work is None:
                return
            work()


class PeriodicThread:
    """A thread that repeats its work, defined by `_run`, until `stop`."""

    def __init__(self, name: str) -> None:
        self._ending = threading.Event()
        # A daemon, since a database that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End after the current round; wait for it up to `seconds`."""
        self._ending.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        """Work until `_ending` is set; a wait for it is the pause between two rounds."""
        raise NotImplementedError
