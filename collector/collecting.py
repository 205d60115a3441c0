"""One collection: ask all sources what is new, and store it in one transaction.

A collection that is killed, or that can't write, has stored nothing; the next one finds the same.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Iterator
from typing import Callable, Dict, FrozenSet, List, NamedTuple, Optional, Tuple

from collector.errors import AnotherRun
from collector.evidence import Command, Commit, Moment, local_moment
from collector.figures import NameRules
from collector.paths import home_folder, this_system
from collector.settings import Settings
from collector.sources import system
from collector.sources.discovery import find_repositories
from collector.sources.editors import recent_signs
from collector.sources.git import Git, GitFailed, Work, find_git, read_work, signature
from collector.sources.processes import running_tools
from collector.sources.shells import History, Reading, guess_format, read_history, usual_histories
from collector.sources.work_trees import Budget, index_files, work_trees, written_times
from collector.store import EDITORS, RepositoryState, Store

# What git may take in one run; repositories that are left are read by the next.
COMMIT_SECONDS = 60.0
TREE_SECONDS = 0.4
DAY_SECONDS = 86400.0
# Repositories are searched anew after this many times the last search's time, at most a day.
SEARCH_FACTOR = 10000
LONGEST_LOOK_BACK = 60 * DAY_SECONDS


class Evidence(NamedTuple):
    """All that one collection has seen."""

    commits: List[Commit]
    commands: List[Tuple[Command, bool]]
    hours: List[Tuple[float, Moment, str]]
    tools: List[Tuple[str, str]]
    branches: List[Tuple[str, str, str]]
    positions: Dict[str, str]
    # What else is to be stored once the evidence is.
    notes: List[Callable[[Store], None]]


class Collection:
    """A collection at one time."""

    def __init__(self, store: Store, settings: Settings, last_run: float, now: float) -> None:
        self._store = store
        self._settings = settings
        self._now = now
        self._last_run = last_run
        self._today = local_moment(now).day
        self._seen = Evidence([], [], [], [], [], {}, [])
        self._pauses = store.pauses()

    def run(self) -> None:
        """Collect what is new and store it."""
        self.collect()
        self.write()

    def collect(self) -> None:
        """Ask all sources; what they report is in memory alone."""
        self._generation = self._store.meta("generation", "0")
        with self._store.transaction():
            self._store.set_meta("hostname", system.hostname())
            self._store.set_meta("os_info", system.os_info())
            first_day = self._store.first_day(self._today)
        self._since = time.mktime(time.strptime(first_day, "%Y-%m-%d"))
        problems = [
            problem
            for source in (
                self._look_at_repositories,
                self._read_histories,
                self._look_at_editors,
                self._look_at_processes,
            )
            for problem in _problems_of(source)
        ]
        self._seen.notes.append(lambda store: store.set_meta("problems", "\n".join(problems)))

    def write(self) -> None:
        """Store what was collected.

        Raises:
            AnotherRun: another run has stored something since; it was not held back by the lock.
        """
        with self._store.transaction():
            if self._store.meta("generation", "0") != self._generation:
                raise AnotherRun("another run was faster; the next one finds what is left")
            if self._seen.positions:
                self._store.set_meta("generation", str(int(self._generation) + 1))
            self._write()
            self._store.prune()

    # Repositories.

    def _look_at_repositories(self) -> None:
        if self._search_is_due():
            self._search_repositories()
        program = find_git()
        states = self._store.repositories()
        rules = NameRules(self._settings, [state.repository for state in states])
        states = [state for state in states if state.repository.key not in rules.excluded]
        problem = "" if program else "git is not installed, so commits are not counted"
        git = Git(program) if program else None
        emails = self._emails(git)
        if git and not emails and states:
            problem = "git has no user.email, so no commit can be told to be yours"
        self._seen.notes.append(lambda store: store.set_meta("git_problem", problem))
        ages = self._read_commits(git, emails, states)
        self._look_at_indexes(states)
        if git is not None:
            self._look_at_trees(git, states, ages)

    def _search_is_due(self) -> bool:
        at, _, took = self._store.meta("searched").partition(" ")
        if not at:
            return True
        pause = min(float(took) * SEARCH_FACTOR, DAY_SECONDS)
        return not 0 <= self._now - float(at) < pause

    def _search_repositories(self) -> None:
        start = time.monotonic()
        roots = self._settings.roots or [home_folder()]
        repositories = find_repositories(roots, self._settings.depth)
        took = time.monotonic() - start
        with self._store.transaction():
            self._store.set_repositories(repositories)
            self._store.set_meta("searched", f"{self._now!r} {took:.3f}")

    def _emails(self, git: Optional[Git]) -> FrozenSet[str]:
        own = [email.lower() for email in self._settings.emails]
        own.append(git.global_setting("user.email").lower() if git else "")
        return frozenset(filter(None, own))

    def _read_commits(
        self, git: Optional[Git], emails: FrozenSet[str], states: List[RepositoryState]
    ) -> Dict[str, float]:
        """Read the repositories whose folder has changed; return how long ago each did."""
        ages = {}
        budget = Budget(COMMIT_SECONDS)
        for state in states:
            key = state.repository.key
            now_signature, newest = signature(key)
            ages[key] = max(1.0, self._now - newest)
            if now_signature == state.signature or budget.is_spent:
                continue
            if newest < self._since:
                self._note_read(key, now_signature, None)
            elif git is not None:
                self._read_repository(git, emails, state, now_signature)
        return ages

    def _read_repository(
        self, git: Git, emails: FrozenSet[str], state: RepositoryState, now_signature: str
    ) -> None:
        key = state.repository.key
        try:
            if not _is_own(key):
                raise GitFailed("it belongs to another user")
            email = git.email(key)
            own = emails | ({email} if email else frozenset())
            work = read_work(git, state.repository, own, self._look_back(state.read_until))
        except GitFailed as error:
            problem = str(error)
            self._seen.notes.append(lambda store: store.repository_problem(key, problem))
            return
        self._note_read(key, now_signature, work)

    def _look_back(self, read_until: float) -> float:
        """Return since when commits are read: two midnights before the last reading.

        A commit that was read before changes nothing, so that looking far back costs time alone;
        a clock that was ahead has no effect.
        """
        if not read_until:
            return max(self._since, self._now - LONGEST_LOOK_BACK)
        until = min(read_until, self._now) - DAY_SECONDS
        year, month, day = time.localtime(until)[:3]
        midnight = time.mktime((year, month, day, 0, 0, 0, 0, 0, -1))
        return max(midnight, self._since, self._now - LONGEST_LOOK_BACK)

    def _note_read(self, key: str, now_signature: str, work: Optional[Work]) -> None:
        now = self._now
        if work is not None:
            self._seen.commits.extend(work.commits)
            self._seen.hours.extend((second, at, key) for second, at in work.written)
            self._seen.branches.extend((day, key, name) for day, name in work.branches)
        self._seen.notes.append(lambda store: store.repository_read(key, now_signature, now))

    def _look_at_indexes(self, states: List[RepositoryState]) -> None:
        for state in states:
            for path in index_files(state.repository):
                try:
                    written = os.stat(path).st_mtime
                except OSError:
                    continue
                self._see_file(path, written, state.repository.key)

    def _look_at_trees(
        self, git: Git, states: List[RepositoryState], ages: Dict[str, float]
    ) -> None:
        """Look at work trees in turn, those with the newest commits more often."""
        budget = Budget(TREE_SECONDS)
        for state in sorted(states, key=lambda state: random.random() * ages[state.repository.key]):
            for folder in work_trees(state.repository):
                if budget.is_spent:
                    return
                self._look_at_tree(git, state.repository.key, folder)

    def _look_at_tree(self, git: Git, key: str, folder: str) -> None:
        position = "tree:" + folder
        after = float(self._store.position(position) or self._since - 1)
        if after > self._now:  # the clock was ahead
            after = self._now - DAY_SECONDS
        try:
            times = written_times(git, folder, max(after, self._since - 1), self._now)
        except GitFailed:
            return  # reading its commits reports it
        if times:
            self._seen.hours.extend((second, local_moment(second), key) for second in times)
            self._seen.positions[position] = repr(max(times))

    # Files that show activity by their times.

    def _see_file(self, path: str, written: float, source: str, tool: str = "") -> None:
        """Record the hour in which a file was written, once.

        Later the same time may be another hour, if the machine has moved to another time zone.
        """
        if not self._since <= written <= self._now:
            return
        if self._store.position("file:" + path) == repr(written):
            return
        at = local_moment(written)
        self._seen.positions["file:" + path] = repr(written)
        self._seen.hours.append((written, at, source))
        if tool:
            self._seen.tools.append((at.day, tool))

    def _look_at_editors(self) -> None:
        for sign in recent_signs(this_system(), home_folder(), os.environ, self._since):
            self._see_file(sign.path, sign.written, EDITORS, sign.tool)

    def _look_at_processes(self) -> None:
        self._seen.tools.extend((self._today, tool) for tool in sorted(running_tools()))

    # Shells.

    def _read_histories(self) -> None:
        key = bytes.fromhex(self._settings.name_salt)
        histories = usual_histories(home_folder(), dict(os.environ))
        paths = [history.path for history in histories]
        for path in self._settings.histories:
            if path not in paths:
                histories.append(History(path, guess_format(path)))
        untimed = not self._paused_since_last_run()
        for history in histories:
            position = self._store.position(history.path)
            try:
                reading = read_history(history, position, key, self._since, self._now, untimed)
            except OSError:
                continue  # such as a history that the user may not read
            if reading is not None:
                self._add_reading(history.path, reading)

    def _add_reading(self, path: str, reading: Reading) -> None:
        self._seen.commands.extend((command, reading.again) for command in reading.commands)
        self._seen.positions[path] = reading.position

    # Pauses and the writing of it all.

    def _paused_since_last_run(self) -> bool:
        return any(
            since < self._now and (until is None or until > self._last_run)
            for since, until in self._pauses
        )

    def _is_paused(self, second: float) -> bool:
        return any(
            since <= second and (until is None or second < until) for since, until in self._pauses
        )

    def _write(self) -> None:
        store = self._store
        for commit in self._seen.commits:
            if not self._is_paused(commit.authored):
                store.add_commit(commit)
        for command, again in self._seen.commands:
            if not self._is_paused(command.second):
                store.add_command(command, again)
        for second, at, source in self._seen.hours:
            if not self._is_paused(second):
                store.add_hour(at, source)
        for day, tool in self._seen.tools:
            store.add_tool(day, tool)
        for day, key, name in self._seen.branches:
            store.add_branch(day, key, name)
        for path, position in self._seen.positions.items():
            store.set_position(path, position)
        for note in self._seen.notes:
            note(store)


def _problems_of(source: Callable[[], None]) -> Iterator[str]:
    """Ask a source; its failure must not keep the others from being asked."""
    try:
        source()
    except sqlite3.Error:
        raise  # it concerns all of them
    except Exception as error:
        yield "{}: {}".format(source.__name__.strip("_").replace("_", " "), type(error).__name__)


def _is_own(path: str) -> bool:
    return not hasattr(os, "getuid") or os.stat(path).st_uid == os.getuid()
