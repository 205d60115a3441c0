"""A terminal, for commands that ask, or that show a person more than they write into a file."""

from __future__ import annotations

import os
import pty
import select
import time
from contextlib import suppress
from pathlib import Path
from typing import Optional

from tests.support import warm_starts
from tests.support.receivers import environment
from tests.support.warm_starts import COMMAND

INTERRUPT = "\x03"  # as Ctrl+C types


class Terminal:
    """A command on a terminal; `with` ends it.

    Attributes:
        output: The text on the screen so far, of standard output and standard error.
    """

    def __init__(self, command: list[str], folder: Path, variables: dict[str, str]) -> None:
        self.output = ""
        self._own, theirs = pty.openpty()
        try:
            self._process = warm_starts.start(command, folder, variables, theirs, theirs, theirs)
        finally:
            os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._own)

    @property
    def pid(self) -> int:
        return self._process.pid

    def type(self, keys: str) -> None:
        os.write(self._own, keys.encode())

    def read_until(self, text: Optional[str], seconds: float = 30) -> None:
        """Read until the screen has a text; None reads to the command's end."""
        deadline = time.monotonic() + seconds
        while text is None or text not in self.output:
            assert select.select([self._own], [], [], deadline - time.monotonic())[0], self.output
            try:
                piece = os.read(self._own, 65536)
            except OSError:  # as Linux reports the end
                piece = b""
            if not piece:
                assert text is None, self.output
                return
            self.output += piece.decode().replace("\r\n", "\n")

    def end(self) -> int:
        """Read to the command's end, and return its exit status."""
        self.read_until(None)
        return self._process.wait(30)

    def interrupt(self) -> int:
        """Type Ctrl+C until the command ends, and return its exit status.

        Python does not notice one that arrives right before it begins to wait for a key.
        """
        for _ in range(6):
            self.type(INTERRUPT)
            with suppress(AssertionError):
                self.read_until(None, seconds=5)
                break
        return self._process.wait(1)


def open_terminal(folder: Path, *arguments: str, **settings: str) -> Terminal:
    """Start `developer-telemetry` on a terminal, in `folder`."""
    return Terminal([str(COMMAND), *arguments], folder, environment(**settings))


def answer(folder: Path, arguments: list[str], keys: str, **settings: str) -> tuple[int, str]:
    """Type keys at a command's first question; return its exit status and its output."""
    with open_terminal(folder, *arguments, **settings) as terminal:
        terminal.read_until("[y/N]: ")
        if keys == INTERRUPT:
            return terminal.interrupt(), terminal.output
        terminal.type(keys)
        return terminal.end(), terminal.output
