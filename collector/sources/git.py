"""Read the commits of the user from a repository, by git.

git is asked for ids, times, e-mail addresses and the numbers of lines, never for a message, a diff
or a remote. Of a reflog, the part before the message is used. A repository's own settings may name
programs; those that these commands could start are turned off.

A commit counts where it was written: where a reflog got its id in the second of its committer. So a
commit that was pulled from another machine of the same person counts on that machine alone. A
repository without reflogs counts all that have an address of the user.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Dict, FrozenSet, List, NamedTuple, Optional, Set, Tuple

from collector.evidence import Commit, Moment, Repository, moment_at_offset

SECONDS = 20.0
OPTIONS = [
    "--no-pager",
    *("-c", "core.fsmonitor=false", "-c", "core.hooksPath=" + os.devnull),
    *("-c", "log.showSignature=false", "-c", "core.quotePath=false"),
    *("-c", "diff.renames=true", "-c", "gc.auto=0", "-c", "maintenance.auto=false"),
]
# Fields of a commit, between bytes that occur in none of them.
FORMAT = "%x01%H%x02%P%x02%ad%x02%ae%x02%cd%x02%ce%x02"
# The part of a reflog's line before the message.
REFLOG_ENTRY = re.compile(rb"[0-9a-f]+ ([0-9a-f]{40,64}) .*> (\d+) [+-]\d{4}(?:\t|$)")
REFLOG_BYTES = 4 * 1024 * 1024
# Between the time of a commit and that of its entry in a reflog.
WRITING_SECONDS = 10


class GitFailed(Exception):
    """git can't read a repository; the message is shown by `status`."""


LogEntry = Tuple[int, str, str]  # second, id, branch or "" for HEAD


class _Entry(NamedTuple):
    id: str
    parents: List[str]
    authored: int
    at: Moment
    author: str
    committed: int
    committed_at: Moment
    committer: str
    numbers: Tuple[int, int, int]


class Work(NamedTuple):
    """The work of the user in one repository."""

    commits: List[Commit]
    # When commits were written, which rewriting moves on.
    written: List[Tuple[int, Moment]]
    branches: List[Tuple[str, str]]  # day, name


def find_git() -> Optional[str]:
    """Return the path of git; None if there is none, or if calling it would open a dialog."""
    path = shutil.which("git")
    if path == "/usr/bin/git" and sys.platform == "darwin":
        done = subprocess.run(["xcode-select", "-p"], capture_output=True, check=False)
        return path if done.returncode == 0 else None
    return path


class Git:
    """One git program, called with a limit of time and without locks, dialogs and helpers."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("GIT_")
        }
        self._environment.update(
            GIT_OPTIONAL_LOCKS="0", GIT_TERMINAL_PROMPT="0", LC_ALL="C", GIT_NO_LAZY_FETCH="1"
        )

    def run(self, folder: str, *arguments: str, text_input: str = "") -> bytes:
        """Return what a git command prints.

        Raises:
            GitFailed: it failed, or took too long.
        """
        command = [self._program, *OPTIONS, "--git-dir", folder, *arguments]
        try:
            done = subprocess.run(
                command,
                input=text_input.encode("ascii", "ignore"),
                capture_output=True,
                env=self._environment,
                cwd=folder,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise GitFailed(f"git took more than {SECONDS:.0f} s") from None
        except OSError as error:
            raise GitFailed(f"git can't be started: {error.strerror}") from None
        if done.returncode:
            raise GitFailed(_reason(done.stderr.decode("utf-8", "replace")))
        return done.stdout

    def email(self, folder: str) -> str:
        """Return the e-mail address with which commits are made here; "" for none."""
        return self._setting(folder, "user.email").lower()

    def user_name(self, folder: str) -> str:
        """Return the name with which commits are made here; "" for none."""
        return self._setting(folder, "user.name")

    def _setting(self, folder: str, name: str) -> str:
        try:
            return self.run(folder, "config", "--get", name).decode("utf-8", "replace").strip()
        except GitFailed:
            return ""

    def global_setting(self, name: str) -> str:
        """Return one of the user's own settings; "" for none."""
        done = subprocess.run(
            [self._program, "config", "--global", "--get", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            check=False,
        )
        return done.stdout.decode("utf-8", "replace").strip()


def _reason(message: str) -> str:
    """Return why git refused, without the paths that its message holds."""
    if "dubious ownership" in message:
        return "it belongs to another user (git's safe.directory)"
    if "not a git repository" in message:
        return "git finds no repository there"
    return "git can't read it"


def signature(git_folder: str) -> Tuple[str, float]:
    """Return a text that changes when commits are added, and the newest time in it.

    Commits change the log of HEAD, or without logs a folder of refs; a linked work tree has a
    HEAD and a log of its own.
    """
    names = ["HEAD", "logs/HEAD", "packed-refs", "refs/heads", "refs/remotes", "reftable"]
    folders = [git_folder, *linked_folders(git_folder)]
    stats = []
    newest = 0.0
    for folder in folders:
        for name in names:
            try:
                status = os.stat(os.path.join(folder, name))
            except OSError:
                continue
            stats.append(f"{status.st_mtime_ns}.{status.st_size}")
            newest = max(newest, status.st_mtime)
    for path in _branch_folders(os.path.join(git_folder, "refs", "heads")):
        try:
            status = os.stat(path)
        except OSError:
            continue
        stats.append(str(status.st_mtime_ns))
        newest = max(newest, status.st_mtime)
    return " ".join(stats), newest


def linked_folders(git_folder: str) -> List[str]:
    """Return the git folders of linked work trees."""
    folder = os.path.join(git_folder, "worktrees")
    try:
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    except OSError:
        return []


def _branch_folders(folder: str, depth: int = 3) -> Iterator[str]:
    """Yield the folders of branches such as feature/x; a new or moved branch changes one."""
    try:
        with os.scandir(folder) as entries:
            folders = sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for path in folders:
        yield path
        if depth:
            yield from _branch_folders(path, depth - 1)


def read_work(git: Git, repository: Repository, emails: FrozenSet[str], since: float) -> Work:
    """Return the work of the owner of these addresses since a time.

    Raises:
        GitFailed: git can't read the repository.
    """
    logs = _read_reflogs(repository.key, since)
    output = git.run(
        repository.key,
        *("log", "--exclude=refs/stash", "--all", "--ignore-missing", "--stdin"),
        *(f"--since={int(since)}", "--date=raw", "--format=" + FORMAT),
        *("--numstat", "-z", "--no-ext-diff", "--no-textconv", "--no-color", "--no-mailmap"),
        text_input="".join(id + "\n" for id in sorted({id for _, id, _ in logs or ()})),
    )
    own = [entry for entry in _entries(output) if entry.author in emails]
    branches = {entry.id: _branches(entry, logs or ()) for entry in own}
    if logs is not None:
        own = [entry for entry in own if branches[entry.id]]
    own.sort(key=lambda entry: (entry.committed, entry.id))
    written = [(one.committed, one.committed_at) for one in own if one.committer in emails]
    worked_on = {(one.at.day, branch) for one in own for branch in branches[one.id] if branch}
    return Work(list(_identified(repository.key, own)), written, sorted(worked_on))


def _branches(entry: _Entry, logs: Iterable[LogEntry]) -> Set[str]:
    """Return the branches whose logs got a commit when it was written, "" for HEAD."""
    return {
        branch
        for second, id, branch in logs
        if id == entry.id and abs(second - entry.committed) <= WRITING_SECONDS
    }


def _entries(output: bytes) -> Iterator[_Entry]:
    for record in output.decode("utf-8", "replace").split("\x01")[1:]:
        fields = record.split("\x02", 6)
        if len(fields) < 7:
            continue  # the name of a file has such bytes
        id, parents, authored, author, committed, committer, numstat = fields
        seconds, at = _time(authored)
        committed_seconds, committed_at = _time(committed)
        yield _Entry(
            *(id, parents.split(), seconds, at, author.lower()),
            *(committed_seconds, committed_at, committer.lower(), _sums(numstat)),
        )


def _time(raw: str) -> Tuple[int, Moment]:
    seconds, _, offset = raw.partition(" ")
    return int(seconds), moment_at_offset(int(seconds), offset)


def _sums(numstat: str) -> Tuple[int, int, int]:
    """Return lines added, lines deleted and files changed; binary files have no lines."""
    added = deleted = files = 0
    for line in numstat.split("\0"):
        numbers = line.lstrip("\n").split("\t")
        # A renamed file is one line of numbers, and two names that have no tabs before them.
        if len(numbers) >= 3 and _is_count(numbers[0]) and _is_count(numbers[1]):
            files += 1
            added += int(numbers[0]) if numbers[0] != "-" else 0
            deleted += int(numbers[1]) if numbers[1] != "-" else 0
    return added, deleted, files


def _is_count(text: str) -> bool:
    return text == "-" or text.isdigit()


def _identified(key: str, entries: List[_Entry]) -> Iterator[Commit]:
    """Yield one commit for each identity, as it was written last."""
    by_id = {entry.id: entry for entry in entries}
    ordinals: Dict[str, int] = {}
    newest: Dict[Tuple[int, int], Commit] = {}
    for entry in entries:
        ordinal = _ordinal(entry, by_id, ordinals)
        newest[entry.authored, ordinal] = Commit(
            key, entry.authored, ordinal, entry.id, entry.at, *entry.numbers
        )
    yield from newest.values()


def _ordinal(entry: _Entry, by_id: Dict[str, _Entry], ordinals: Dict[str, int]) -> int:
    """Return how many ancestors in an unbroken line were authored in the same second."""
    line = []
    current: Optional[_Entry] = entry
    while current is not None and current.id not in ordinals:
        line.append(current)
        parents = (by_id.get(id) for id in current.parents)
        authored = current.authored
        current = next((one for one in parents if one and one.authored == authored), None)
    ordinal = ordinals[current.id] if current is not None else -1
    for one in reversed(line):
        ordinal += 1
        ordinals[one.id] = ordinal
    return ordinal


def _read_reflogs(git_folder: str, since: float) -> Optional[List[LogEntry]]:
    """Return the entries since a time; None for a repository without reflogs."""
    heads = [
        os.path.join(folder, "logs", "HEAD") for folder in (git_folder, *linked_folders(git_folder))
    ]
    heads = [path for path in heads if os.path.exists(path)]
    if not heads:
        return None
    entries = [(second, id, "") for path in heads for second, id in _read_reflog(path, since)]
    branches = os.path.join(git_folder, "logs", "refs", "heads")
    for folder, _, files in os.walk(branches):
        for file in files:
            path = os.path.join(folder, file)
            branch = os.path.relpath(path, branches).replace(os.sep, "/")
            entries += [(second, id, branch) for second, id in _read_reflog(path, since)]
    return entries


def _read_reflog(path: str, since: float) -> Iterator[Tuple[int, str]]:
    """Yield second and id of each entry since a time."""
    try:
        if os.stat(path).st_mtime < since:
            return
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - REFLOG_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return
    for line in lines:
        match = REFLOG_ENTRY.match(line)
        if match and int(match[2]) >= since:
            yield int(match[2]), match[1].decode("ascii")
