"""Read what is new in the histories of shells.

A position in a history is a number of bytes, and hashes of the last lines before it. If these lines
still stand there, the file has grown, and only what follows is read. If not, a shell has written it
anew, and it is read from its start: entries with times are then compared with those recorded, and
those without are searched for the last line that was read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

from collector.evidence import Command, local_moment
from collector.sources.history_formats import FORMATS, Entry, fold_uses, without_copies

TAIL_BYTES = 512
TAIL_LINES = 12
FEWEST_LINES = 3
MOST_MARKS = 20
MOST_BYTES = 64 * 1024 * 1024


class History(NamedTuple):
    """A history file, its format, and the history that a shell fills a new one from."""

    path: str
    format: str
    copied_from: str = ""


class Reading(NamedTuple):
    """The new part of a history; `again` if it was read from its start."""

    commands: List[Command]
    again: bool
    position: str


def usual_histories(home: str, environment: Dict[str, str]) -> List[History]:
    """Return the places where shells keep their histories, whether they exist or not."""
    data = environment.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    zsh = environment.get("ZDOTDIR") or home
    bash = os.path.join(home, ".bash_history")
    roaming = environment.get("APPDATA") or os.path.join(home, "AppData", "Roaming")
    console = os.path.join("PSReadLine", "ConsoleHost_history.txt")
    return [
        History(os.path.join(zsh, ".zsh_history"), "zsh"),
        History(os.path.join(zsh, ".zhistory"), "zsh"),
        History(os.path.join(home, ".histfile"), "zsh"),
        History(bash, "bash"),
        History(os.path.join(data, "fish", "fish_history"), "fish", copied_from=bash),
        History(os.path.join(data, "powershell", console), "powershell"),
        History(os.path.join(roaming, "Microsoft", "Windows", "PowerShell", console), "powershell"),
    ]


def guess_format(path: str) -> str:
    """Return the format of a history that a person named, by its name."""
    name = os.path.basename(path).lower()
    for format in ("fish", "zsh", "powershell", "console"):
        if format in name:
            return "powershell" if format == "console" else format
    return "zsh" if name in (".histfile", ".zhistory") else "bash"


def read_history(
    history: History, position: str, key: bytes, since: float, now: float, untimed: bool = True
) -> Optional[Reading]:
    """Return what is new in a history; None if nothing is.

    Args:
        position: What the last reading returned, or "" for the first.
        key: A secret of this machine, with which lines are hashed.
        since: Entries before this time are none of ours.
        untimed: False leaves out entries without times.
    """
    try:
        status = os.stat(history.path)
    except OSError:
        # A file that appears later has nothing from before the first run.
        return None if position else Reading([], False, json.dumps({"end": 0}))
    before: Dict[str, Any] = json.loads(position) if position else {}
    state = [status.st_mtime_ns, status.st_size]
    if before.get("state") == state:
        return None
    with open(history.path, "rb") as file:
        start = _appended_from(file, before, key)
        file.seek(start)
        content = file.read(MOST_BYTES)
    form = FORMATS[history.format]
    length = form.complete(content)
    if not content and status.st_size:
        return None
    parsed = form.parse(content[:length])
    if start == 0 and history.copied_from:
        parsed = without_copies(parsed, _lines(history.copied_from))
    # Most of a long history is from before us.
    entries = [entry for entry in parsed if entry.when is None or entry.when >= since]
    grew_at = min(status.st_mtime, now)
    again = start == 0 and bool(before.get("end"))
    new = _new_entries(entries, before, key, start, grew_at if untimed else None)
    new = [(second, entry) for second, entry in new if second >= since]
    after = {
        "state": state if start + length == status.st_size else [],
        "end": start + length,
        "tail": _tail_hash(history.path, start + length, key),
        "marks": _marks(entries, before, key, start),
    }
    if after == before:
        return None
    return Reading(list(_commands(history, new)), again, json.dumps(after))


def _lines(path: str) -> Set[bytes]:
    try:
        with open(path, "rb") as file:
            return set(file.read(MOST_BYTES).split(b"\n"))
    except OSError:
        return set()


def _appended_from(file: Any, before: Dict[str, Any], key: bytes) -> int:
    """Return where to go on reading; 0 if what was read does not stand there any more."""
    end = int(before.get("end", 0))
    file.seek(max(0, end - TAIL_BYTES))
    tail = file.read(min(end, TAIL_BYTES))
    return end if end and _hash(tail, key) == before.get("tail") else 0


def _tail_hash(path: str, end: int, key: bytes) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, end - TAIL_BYTES))
        return _hash(file.read(min(end, TAIL_BYTES)), key)


def _hash(content: bytes, key: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8, key=key).hexdigest()


def _new_entries(
    entries: List[Entry], before: Dict[str, Any], key: bytes, start: int, grew_at: Optional[float]
) -> List[Tuple[int, Entry]]:
    """Return the entries to record, with their seconds."""
    timed = [(entry.when, entry) for entry in entries if entry.when is not None]
    if grew_at is None or not before:
        return timed  # at first sight, lines without times are from before us
    untimed = [entry for entry in entries if entry.when is None]
    if start == 0 and before.get("end"):
        untimed = _after_marks(untimed, before, key)
    return timed + [(int(grew_at), entry) for entry in untimed]


def _after_marks(entries: List[Entry], before: Dict[str, Any], key: bytes) -> List[Entry]:
    """Return the entries after the newest mark that stands in them.

    A mark is the hashes of the last lines of a reading. Without any of them, a file that has become
    shorter was cleared, so that all its lines are new; in a longer one none can be told from old.
    """
    hashes = [_hash(entry.line, key) for entry in entries]
    for reading_end in reversed(before.get("marks", [])):
        lines = reading_end["lines"]
        for end in range(len(hashes), 0, -1):
            # The beginning of a file that was cut may be in the middle of a mark.
            size = min(end, len(lines))
            is_enough = size == len(lines) or size >= FEWEST_LINES
            if size and is_enough and hashes[end - size : end] == lines[-size:]:
                return entries[end:]
    marks = before.get("marks") or [{"count": 0}]
    return entries if len(entries) < marks[-1]["count"] else []


def _marks(
    entries: List[Entry], before: Dict[str, Any], key: bytes, start: int
) -> List[Dict[str, Any]]:
    untimed = [entry for entry in entries if entry.when is None]
    marks: List[Dict[str, Any]] = list(before.get("marks", []))
    if not untimed:
        return marks
    last: Dict[str, Any] = marks[-1] if marks and start else {"lines": [], "count": 0}
    lines = [*last["lines"], *(_hash(entry.line, key) for entry in untimed[-TAIL_LINES:])]
    reading_end = {"lines": lines[-TAIL_LINES:], "count": last["count"] + len(untimed)}
    return [*marks, reading_end][-MOST_MARKS:]


def _commands(history: History, entries: Sequence[Tuple[int, Entry]]) -> Iterator[Command]:
    counts = fold_uses([(second, entry.uses) for second, entry in entries])
    for (second, use), count in counts.items():
        yield Command(
            *(history.path, second, use.name, count, local_moment(second), use.tool, use.run)
        )
