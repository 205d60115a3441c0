"""A developer at work, for the tests of the collector."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.sources import processes, system
from tests.support.developers import Developer


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Sets TZ; call `time.tzset()` after another change."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield monkeypatch
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def ann(tmp_path: Path, zone: pytest.MonkeyPatch) -> Developer:
    """A developer whose machine has no other settings than those of the test."""
    for name in list(os.environ):
        if name.startswith(("XDG_", "GIT_")) or name in ("ZDOTDIR", "HISTFILE"):
            zone.delenv(name)
    developer = Developer(tmp_path)
    zone.setenv("HOME", str(developer.home))
    zone.setenv("GIT_CONFIG_NOSYSTEM", "1")
    # What runs on the machine of the test is not the developer's work.
    zone.setattr(processes, "_process_names", list)
    zone.setattr(system, "hostname", lambda: "anns-laptop")
    zone.setattr(system, "os_info", lambda: "Debian GNU/Linux 12 (bookworm)")
    return developer
