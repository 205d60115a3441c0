"""The parts of a timer: texts for the system, and the commands that turn it on and off."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import List, NamedTuple, Tuple

from collector.errors import CollectorError

MINUTES = 15
# A random part of a period, so that the machines of a fleet send at different times.
DELAY_SECONDS = 600
COMMAND_SECONDS = 60.0


class Program(NamedTuple):
    """The command of a timer: an interpreter, the zipapp, the file of settings."""

    python: str
    program: str
    config: str

    @property
    def arguments(self) -> List[str]:
        """Return the command line; the token is in the file of settings alone."""
        return [self.python, self.program, "--config", self.config, "run"]


class Timer:
    """A timer of one system."""

    description = ""

    def is_available(self) -> bool:
        """Return true if this system has such timers for this user."""
        raise NotImplementedError

    def files(self, program: Program) -> List[Tuple[str, bytes]]:
        """Return the path and content of each file that the timer needs."""
        raise NotImplementedError

    def turn_on(self, program: Program) -> None:
        """Have the system run the collector from now on."""
        raise NotImplementedError

    def turn_off(self) -> None:
        """Have the system forget the timer, if it knows it."""
        raise NotImplementedError

    def is_on(self) -> bool:
        """Return true if the system runs the collector."""
        raise NotImplementedError


def call(*command: str, text_input: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program of the system."""
    try:
        return subprocess.run(
            command,
            input=text_input,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(list(command), 127, "", str(error))


def call_or_fail(command: Sequence[str], text_input: str = "") -> None:
    """Run a program of the system.

    Raises:
        CollectorError: it failed.
    """
    done = call(*command, text_input=text_input)
    if done.returncode:
        raise CollectorError("`{}` failed: {}".format(" ".join(command), done.stderr.strip()[:500]))
