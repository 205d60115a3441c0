"""A launch agent of macOS."""

from __future__ import annotations

import os
import plistlib
from typing import List, Tuple

from collector.timers.base import MINUTES, Program, Timer, call, call_or_fail

LABEL = "org.devlake.developer-telemetry-collector"


def property_list(program: Program) -> bytes:
    """Return the agent; its period begins when the user signs in, so that a fleet is spread."""
    return plistlib.dumps(
        {
            "Label": LABEL,
            "ProgramArguments": program.arguments,
            "StartInterval": MINUTES * 60,
            "RunAtLoad": True,
            "ProcessType": "Background",
            "LowPriorityIO": True,
            "Nice": 19,
            "ExitTimeOut": 30,
        }
    )


class LaunchdTimer(Timer):
    """A file in the user's LaunchAgents, loaded into the session of the user."""

    description = "launch agent"

    def __init__(self, home: str) -> None:
        self._path = os.path.join(home, "Library", "LaunchAgents", LABEL + ".plist")

    @property
    def _session(self) -> str:
        return f"gui/{os.getuid()}"

    def is_available(self) -> bool:
        return True

    def files(self, program: Program) -> List[Tuple[str, bytes]]:
        return [(self._path, property_list(program))]

    def turn_on(self, program: Program) -> None:
        call("launchctl", "bootout", self._session + "/" + LABEL)
        call_or_fail(["launchctl", "bootstrap", self._session, self._path])

    def turn_off(self) -> None:
        call("launchctl", "bootout", self._session + "/" + LABEL)

    def is_on(self) -> bool:
        return call("launchctl", "print", self._session + "/" + LABEL).returncode == 0
