"""File descriptor 3, on which DevLake's server reads a plugin's answers."""

import os
import stat
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from select import POLLERR, poll
from termios import FIONREAD
from typing import BinaryIO

from pydevlake.failure import Failure
from pydevlake.message import Message, RemoteProgress

# The maximum of the server's line scanner, newline included.
LONGEST_LINE = 5 * 1024 * 1024
# The server notices a cancelled pipeline only when it reads a line, so a subtask must write one
# every two seconds.
_LONGEST_SILENCE = 1.5
# That a server which is busy, or stopped, is waited for.
_READ_SECONDS = 5.0


def wait_until_read(*descriptors: int) -> None:
    """Wait for a while until everything is read that was written to pipes.

    As soon as a plugin's process has ended, DevLake's server closes its pipes, and loses what it
    has not read: the answer is then "unexpected end of JSON input", or a failure without a reason.
    """
    deadline = time.monotonic() + _READ_SECONDS
    for descriptor in descriptors:
        while _unread(descriptor) and time.monotonic() < deadline:
            time.sleep(0.001)


def _unread(descriptor: int) -> bool:
    with suppress(OSError):  # not open, or a system that doesn't tell
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return False
        poller = poll()
        poller.register(descriptor, 0)
        if any(event & POLLERR for _, event in poller.poll(0)):  # nobody reads any more
            return False
        (number,) = struct.unpack("i", ioctl(descriptor, FIONREAD, bytes(4)))
        return bool(number)
    return False


class Channel:
    """A writer of compact JSON documents, one a line, each flushed."""

    def __init__(self, descriptor: int = 3) -> None:
        try:
            os.fstat(descriptor)
        except OSError:
            raise Failure(
                f"file descriptor {descriptor}, to which the answer is written, is not open",
                f"Add {descriptor}>&1 to the command.",
            ) from None
        self._file: BinaryIO = os.fdopen(descriptor, "wb", closefd=False)
        self._lock = threading.Lock()
        self._written_at = time.monotonic()
        self._progress = RemoteProgress()

    def send(self, message: Message) -> None:
        line = message.model_dump_json(by_alias=True, exclude_none=True).encode()
        if len(line) + 1 > LONGEST_LINE:
            raise Failure(
                f"the answer ({type(message).__name__}) has {len(line)} bytes, and DevLake's "
                f"server reads no line above {LONGEST_LINE}",
                "Answer with less at a time.",
            )
        if isinstance(message, RemoteProgress):
            self._progress = message
        self._write(line)

    def _write(self, line: bytes) -> None:
        with self._lock:
            try:
                self._file.write(line + b"\n")
                self._file.flush()
            except BrokenPipeError:
                raise Failure(
                    "DevLake's server has closed the channel for answers",
                    "Read the server's log for the reason.",
                ) from None
            self._written_at = time.monotonic()

    @contextmanager
    def repeating_progress(self) -> Iterator[None]:
        """Repeat the last progress, without an increment, while the work in the block is silent."""
        ended = threading.Event()
        thread = threading.Thread(target=self._repeat_progress, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _repeat_progress(self, ended: threading.Event) -> None:
        wait = _LONGEST_SILENCE
        while not ended.wait(wait):
            wait = self._written_at + _LONGEST_SILENCE - time.monotonic()
            if wait <= 0:
                last = self._progress
                try:
                    self.send(RemoteProgress(current=last.current, total=last.total))
                except Failure:
                    # The main thread gets the error when it writes the next time.
                    return
                wait = _LONGEST_SILENCE
