"""See which tools of the fixed list run, by the names of the user's own processes.

Command lines, window titles and the processes of others are not read.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Set

from collector.catalogue import recognize_process

SECONDS = 10.0


def running_tools() -> Set[str]:
    """Return the tools of the list that run now; none where they can't be listed."""
    try:
        return recognize(_process_names())
    except (OSError, subprocess.SubprocessError):
        return set()


def recognize(names: Iterable[str]) -> Set[str]:
    """Return the tools of the list among names of processes."""
    return {tool for tool in map(recognize_process, names) if tool}


def _process_names() -> Iterable[str]:
    if sys.platform == "win32":
        return tasklist_names(_output("tasklist", "/fo", "csv", "/nh", "/fi", _own_filter()))
    if os.path.isdir("/proc/self"):
        return _proc_names()
    return ps_names(_output("ps", "-x", "-U", str(os.getuid()), "-o", "comm="))


def _own_filter() -> str:
    return "USERNAME eq {}\\{}".format(
        os.environ.get("USERDOMAIN", "."),
        os.environ.get("USERNAME", ""),
    )


def _output(*command: str) -> str:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=SECONDS,
        check=False,
    )
    return done.stdout.decode("utf-8", "replace")


def _proc_names() -> Iterator[str]:
    """Yield the short name of each process, and the name of the program that it runs."""
    user = os.getuid()
    for number in os.listdir("/proc"):
        if not number.isdigit():
            continue
        folder = "/proc/" + number
        try:
            if os.stat(folder).st_uid != user:
                continue
            with open(folder + "/comm", encoding="utf-8", errors="replace") as file:
                yield file.read().strip()
            yield os.readlink(folder + "/exe")
        except OSError:
            continue  # it has ended, or it is not to be looked at


def ps_names(output: str) -> Iterator[str]:
    """Yield the names in what `ps -o comm=` prints; on macOS they are paths of programs."""
    for line in output.splitlines():
        if line.strip():
            yield line.strip()


def tasklist_names(output: str) -> Iterator[str]:
    """Yield the names in what `tasklist /fo csv /nh` prints."""
    for row in csv.reader(output.splitlines()):
        if len(row) > 1:
            yield row[0]
