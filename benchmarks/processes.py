"""Figures of a running process, from the system."""

from __future__ import annotations

import os
import re
from pathlib import Path


def peak_memory_mib(pid: int) -> float:
    """Return the most memory that a process has had since its program began, in MiB.

    :raises ProcessLookupError: it has ended.
    """
    status = _read(pid, "status")
    results = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    if results is None:  # a process that ended and was not waited for has no memory
        raise ProcessLookupError(pid)
    return int(results[1]) / 1024


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, of all its threads."""
    fields = _read(pid, "stat").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
