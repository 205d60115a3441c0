"""Read what is new in the histories of shells.

A position in a history is a number of bytes, and hashes of the last lines before it. If these lines
still stand there, the file has grown, and only what follows is read. If not, a shell has written it
anew, and it is read from its start: entries with times are then compared with those recorded, and
those without are searched for the last commands that were read.

Commands are searched for by their text alone, since shells drop times and make up new ones. zsh
with Debian's settings appends with times while it is open; when it ends, it writes the whole file
without times, and each command once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Set, Tuple

from collector.evidence import Command, local_moment
from collector.sources.history_formats import FORMATS, Entry, Format, fold_uses, without_copies

TAIL_BYTES = 512
TAIL_LINES = 12
FEWEST_LINES = 3
MOST_MARKS = 20
MOST_KNOWN = 200
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
    if before.get("end") and "known" not in before:
        renewed = _renewed(history, before, key)
        if renewed:
            later = read_history(history, renewed, key, since, now, untimed)
            return later or Reading([], False, renewed)
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
    passed = _Passed()
    entries = passed.through(parsed)
    again = start == 0 and bool(before.get("end"))
    new = _without_old(list(entries), before, key, form) if again else entries
    # At first sight, lines without times are from before us.
    grew_at = min(status.st_mtime, now) if before and untimed else None
    dated = [(second, entry) for second, entry in _dated(new, grew_at) if second >= since]
    after = {
        "state": state if start + length == status.st_size else [],
        "end": start + length,
        "tail": _tail_hash(history.path, start + length, key),
        **_memory(passed, before, key, start),
    }
    if after == before:
        return None
    return Reading(list(_commands(history, dated)), again, json.dumps(after))


def _renewed(history: History, before: Dict[str, Any], key: bytes) -> str:
    """Return a position of earlier versions, which remembered only commands without times, anew.

    It is "" if what was read does not stand there any more.
    """
    with open(history.path, "rb") as file:
        end = _appended_from(file, before, key)
        file.seek(0)
        content = file.read(end)
    passed = _Passed()
    for _ in passed.through(FORMATS[history.format].parse(content)):
        pass
    return json.dumps({**before, **_memory(passed, before, key, start=0)}) if end else ""


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


class _Passed:
    """The number of entries that were read, and the last commands: a long history is not kept."""

    def __init__(self) -> None:
        self.count = 0
        self.commands: Deque[bytes] = deque(maxlen=MOST_KNOWN)

    def through(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield the entries."""
        for entry in entries:
            self.count += 1
            self.commands.append(entry.command)
            yield entry


def _dated(entries: Iterable[Entry], grew_at: Optional[float]) -> Iterator[Tuple[int, Entry]]:
    """Yield entries with their seconds; those without a time have that of the file, if any."""
    for entry in entries:
        if entry.when is not None:
            yield entry.when, entry
        elif grew_at is not None:
            yield int(grew_at), entry


def _without_old(
    entries: List[Entry], before: Dict[str, Any], key: bytes, form: Format
) -> List[Entry]:
    """Leave out what was read before of a history that was written anew.

    Entries with times stay, since the store has those that are recorded; but old lines to which a
    shell that overwrites gave one time, that of its start, are none of them.
    """
    if not form.overwrites and all(entry.when is not None for entry in entries):
        return entries  # the usual case, in which nothing needs hashing
    begin = _first_new(entries, before, key, form)
    if begin is None:
        return [entry for entry in entries if entry.when is not None]
    old = [(entry.when, entry) for entry in entries[:begin] if entry.when is not None]
    at = Counter(second for second, _ in old)
    timed = [entry for second, entry in old if at[second] == 1 or not form.overwrites]
    return timed + entries[begin:]


def _first_new(
    entries: List[Entry], before: Dict[str, Any], key: bytes, form: Format
) -> Optional[int]:
    """Return where new entries begin; None if they can't be told from old ones.

    A file that has become shorter, and has little of what was read, was cleared: all of it is new.
    """
    hashes = [_hash(entry.command, key) for entry in entries]
    marks: List[Dict[str, Any]] = before.get("marks", [])
    known_hashes: List[str] = before.get("known", [])
    has_most = 2 * len(set(known_hashes).intersection(hashes)) >= max(1, len(set(known_hashes)))
    newest, older = _after_mark(hashes, marks[-1:]), _after_mark(hashes, marks[:-1])
    by_order = _after_known(entries, hashes, known_hashes) if has_most else None
    # Where sessions overwrite each other, an older mark stands when the newest was overwritten;
    # elsewhere it stands below what was read later, and the order says more.
    candidates = [newest, older, by_order] if form.overwrites else [newest, by_order, older]
    is_cleared = not has_most and bool(marks) and len(entries) < marks[-1]["count"]
    return next((begin for begin in candidates if begin is not None), 0 if is_cleared else None)


def _after_mark(hashes: List[str], marks: List[Dict[str, Any]]) -> Optional[int]:
    """Return the place after the newest mark, the hashes of the last commands of a reading."""
    for reading_end in reversed(marks):
        lines = reading_end["lines"]
        for end in range(len(hashes), 0, -1):
            # The beginning of a file that was cut may be in the middle of a mark.
            size = min(end, len(lines))
            is_enough = size == len(lines) or size >= FEWEST_LINES
            if size and is_enough and hashes[end - size : end] == lines[-size:]:
                return end
    return None


def _after_known(entries: List[Entry], hashes: List[str], known_hashes: List[str]) -> Optional[int]:
    """Return the place after what is known where a shell keeps each command once; None elsewhere.

    Such a shell moves a repeated command to the end, and leaves the order of the others as it was:
    new is what follows the first command that is unknown, or that comes after a later one.
    """
    indexes = [index for index, entry in enumerate(entries) if entry.when is None]
    if not indexes or len({hashes[index] for index in indexes}) < len(indexes):
        return None
    ranks = {hash: rank for rank, hash in enumerate(known_hashes)}
    last = -1
    for index in indexes:
        rank = ranks.get(hashes[index], -1)
        if rank < last:
            return index
        last = rank  # -1 as long as the commands are older than those that are known
    return indexes[-1] + 1


def _memory(passed: _Passed, before: Dict[str, Any], key: bytes, start: int) -> Dict[str, Any]:
    """Return what a position remembers of commands: the last ones, and where readings ended."""
    known_hashes: List[str] = list(before.get("known", [])) if start else []
    marks: List[Dict[str, Any]] = list(before.get("marks", []))
    if passed.count:
        hashes = [_hash(command, key) for command in passed.commands]
        last: Dict[str, Any] = marks[-1] if marks and start else {"lines": [], "count": 0}
        lines = [*last["lines"], *hashes][-TAIL_LINES:]
        marks.append({"lines": lines, "count": last["count"] + passed.count})
        known_hashes += hashes
    return {"marks": marks[-MOST_MARKS:], "known": known_hashes[-MOST_KNOWN:]}


def _commands(history: History, entries: Sequence[Tuple[int, Entry]]) -> Iterator[Command]:
    counts = fold_uses([(second, entry.uses) for second, entry in entries])
    for (second, use), count in counts.items():
        yield Command(
            *(history.path, second, use.name, count, local_moment(second), use.tool, use.run)
        )
