"""Work that goes on while other work waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, TypeVar

S = TypeVar("S")
T = TypeVar("T")

# A database that waits for its disk answers two questions in little more time than one.
QUESTIONS = 3


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items (none of them None), each made in another thread while the last is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def asked(ask: Callable[[S], T], questions: Iterator[S]) -> Iterator[T]:
    """What `ask` gives for each of `questions`, in their order; a few are asked at once."""
    with ThreadPoolExecutor(QUESTIONS) as threads:
        coming: deque[Future[T]] = deque()
        for question in questions:
            coming.append(threads.submit(ask, question))
            if len(coming) == QUESTIONS:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
