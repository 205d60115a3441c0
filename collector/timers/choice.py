"""Choose the timer of this system."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import List

from collector.errors import CollectorError
from collector.paths import MACOS, WINDOWS, Folders
from collector.timers.base import Timer
from collector.timers.cron import CronTimer
from collector.timers.launchd import LaunchdTimer
from collector.timers.systemd import SystemdTimer
from collector.timers.windows import WindowsTimer


def timers(system: str, home: str, folders: Folders, environment: Mapping[str, str]) -> List[Timer]:
    """Return the timers that a system may have, the best first."""
    if system == WINDOWS:
        return [WindowsTimer(folders.config)]
    if system == MACOS:
        return [LaunchdTimer(home)]
    config_home = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    data_home = environment.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    return [SystemdTimer(config_home, data_home), CronTimer()]


def choose_timer(candidates: List[Timer]) -> Timer:
    """Return the first timer that works here.

    Raises:
        CollectorError: none does.
    """
    for timer in candidates:
        if timer.is_available():
            return timer
    raise CollectorError(
        "this user has neither a systemd nor a crontab; install with --no-timer, and have"
        " `run` started every 15 minutes in another way"
    )
