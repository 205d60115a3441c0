"""A line in the user's crontab, where there is no systemd."""

from __future__ import annotations

import random
import shlex
import shutil
from typing import List, Tuple

from collector.errors import CollectorError
from collector.timers.base import MINUTES, Program, Timer, call, call_or_fail
from collector.version import NAME

MARKER = "# " + NAME


def cron_line(program: Program, first_minute: int) -> str:
    """Return the line; cron makes a new line of a % that has no backslash."""
    minutes = ",".join(str(minute) for minute in range(first_minute % MINUTES, 60, MINUTES))
    command = " ".join(shlex.quote(word) for word in ["nice", "-n", "19", *program.arguments])
    return "{} * * * * {} >/dev/null 2>&1 {}".format(minutes, command.replace("%", "\\%"), MARKER)


def without_our_lines(crontab: str) -> str:
    """Return a crontab without the lines that end with our marker."""
    lines = [line for line in crontab.splitlines() if not line.endswith(MARKER)]
    return "".join(line + "\n" for line in lines)


class CronTimer(Timer):
    """The crontab, of which only our own line is ever changed."""

    description = "crontab"

    def is_available(self) -> bool:
        return shutil.which("crontab") is not None

    def files(self, program: Program) -> List[Tuple[str, bytes]]:
        return []

    def turn_on(self, program: Program) -> None:
        line = cron_line(program, random.randrange(MINUTES))
        self._write(without_our_lines(self._read()) + line + "\n")

    def turn_off(self) -> None:
        crontab = self._read()
        if MARKER in crontab:
            self._write(without_our_lines(crontab))

    def is_on(self) -> bool:
        return self.is_available() and MARKER in self._read()

    def _read(self) -> str:
        if not self.is_available():
            return ""
        done = call("crontab", "-l")
        if done.returncode and "no crontab" not in done.stderr:
            raise CollectorError(f"`crontab -l` failed: {done.stderr.strip()[:500]}")
        return done.stdout if done.returncode == 0 else ""

    def _write(self, crontab: str) -> None:
        if crontab.strip():
            call_or_fail(["crontab", "-"], text_input=crontab)
        else:
            call_or_fail(["crontab", "-r"])
