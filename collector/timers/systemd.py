"""A timer of the user's systemd."""

from __future__ import annotations

import os
from typing import List, Tuple

from collector.timers.base import DELAY_SECONDS, MINUTES, Program, Timer, call, call_or_fail
from collector.version import NAME

SERVICE = """\
[Unit]
Description=Report this developer's day to DevLake
ConditionUser=!root

[Service]
Type=oneshot
ExecStart={command}
Nice=19
IOSchedulingClass=idle
CPUSchedulingPolicy=batch
NoNewPrivileges=yes
TimeoutStartSec=15min
# 75: it could not finish, and the next run repeats it.
SuccessExitStatus=75
"""

TIMER = """\
[Unit]
Description=Report this developer's day to DevLake every {minutes} minutes

[Timer]
OnCalendar=*:0/{minutes}
RandomizedDelaySec={delay}
Persistent=true

[Install]
WantedBy=timers.target
"""


def quote(word: str) -> str:
    """Return a word as systemd reads it back, with none of it expanded."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


class SystemdTimer(Timer):
    """Two unit files in the user's folder."""

    description = "systemd user timer"

    def __init__(self, config_home: str, data_home: str) -> None:
        self._folder = os.path.join(config_home, "systemd", "user")
        # Where systemd notes when a persistent timer ran.
        self._stamp = os.path.join(data_home, "systemd", "timers", f"stamp-{NAME}.timer")

    def is_available(self) -> bool:
        return call("systemctl", "--user", "show-environment").returncode == 0

    def files(self, program: Program) -> List[Tuple[str, bytes]]:
        command = " ".join(map(quote, program.arguments))
        texts = {
            ".service": SERVICE.format(command=command),
            ".timer": TIMER.format(minutes=MINUTES, delay=DELAY_SECONDS),
        }
        return [
            (os.path.join(self._folder, NAME + suffix), text.encode("utf-8", "surrogateescape"))
            for suffix, text in texts.items()
        ]

    def turn_on(self, program: Program) -> None:
        call_or_fail(["systemctl", "--user", "daemon-reload"])
        call_or_fail(["systemctl", "--user", "enable", "--now", NAME + ".timer"])

    def turn_off(self) -> None:
        if os.path.exists(os.path.join(self._folder, NAME + ".timer")):
            call("systemctl", "--user", "disable", "--now", NAME + ".timer")
        if os.path.exists(self._stamp):
            os.unlink(self._stamp)

    def is_on(self) -> bool:
        return call("systemctl", "--user", "is-active", "--quiet", NAME + ".timer").returncode == 0
