"""A lock that lets one run of a user work at a time; the system frees it with the process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from collector.errors import AnotherRun


@contextmanager
def run_lock(path: str) -> Iterator[None]:
    """Hold the lock.

    Raises:
        AnotherRun: another process holds it.
    """
    number = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _lock(number):
            raise AnotherRun("another run is under way; it does what this one would have done")
        yield
    finally:
        os.close(number)


def _lock(number: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return (
            True  # a file system without locks; the store's transactions still exclude each other
        )
    return True
