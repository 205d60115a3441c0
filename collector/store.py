"""The durable store of days: a small SQLite file in the user's state folder.

Figures are stored as sets of facts that have an identity, not as sums: the same commit, command or
hour recorded twice, by a repeated or an interrupted run, changes nothing. How far a source has been
read is stored in the transaction that stores what was read. So a run that is killed at any moment,
or that finds the disk full, is repeated by the next one.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from collector.evidence import Command, Commit, Moment, Repository

STORE_FILE = "days.sqlite3"
# Days with figures, so that no jump of the clock makes a day old.
KEPT_DAYS = 60
KEPT_UNSENT_DAYS = 400
BUSY_SECONDS = 30.0
SHELLS, EDITORS = "shells", "editors"

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (path TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS repositories (
    key TEXT PRIMARY KEY, name TEXT NOT NULL, path TEXT NOT NULL,
    signature TEXT NOT NULL DEFAULT '', read_until REAL NOT NULL DEFAULT 0,
    problem TEXT NOT NULL DEFAULT '', present INT NOT NULL DEFAULT 1
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hours (
    day TEXT, hour INT, source TEXT, PRIMARY KEY (day, hour, source)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS commands (
    day TEXT, source TEXT, second INT, name TEXT, count INT NOT NULL, run TEXT NOT NULL,
    PRIMARY KEY (source, second, name, run)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS commands_of_day ON commands (day);
CREATE TABLE IF NOT EXISTS commits (
    repository TEXT, authored INT, ordinal INT, day TEXT NOT NULL, id TEXT NOT NULL,
    lines_added INT NOT NULL, lines_deleted INT NOT NULL, files_changed INT NOT NULL,
    PRIMARY KEY (repository, authored, ordinal)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS commits_of_day ON commits (day);
CREATE TABLE IF NOT EXISTS branches (
    day TEXT, repository TEXT, name TEXT, PRIMARY KEY (day, repository, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tools (day TEXT, name TEXT, PRIMARY KEY (day, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS days (
    day TEXT PRIMARY KEY, hostname TEXT NOT NULL, os_info TEXT NOT NULL,
    revision INT NOT NULL DEFAULT 0, delivered INT NOT NULL DEFAULT 0,
    delivered_at REAL, body BLOB,
    attempts INT NOT NULL DEFAULT 0, tried_at REAL, next_try REAL NOT NULL DEFAULT 0,
    status INT NOT NULL DEFAULT 0, answer TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pauses (since REAL PRIMARY KEY, until REAL) WITHOUT ROWID;
"""

# Since version 2 the kind of run is in the key of `commands`: `make` and `make clean` can share a
# second. Two processes may do this one after the other; the second changes nothing.
RENEWAL = f"""
ALTER TABLE commands RENAME TO commands_1;
DROP INDEX commands_of_day;
{SCHEMA}
INSERT INTO commands SELECT * FROM commands_1;
DROP TABLE commands_1;
"""
VERSION = 2


class Day(NamedTuple):
    """A day of the store, and how its last attempt ended."""

    day: str
    hostname: str
    os_info: str
    revision: int
    delivered: int
    delivered_at: Optional[float]
    attempts: int
    tried_at: Optional[float]
    next_try: float
    status: int
    answer: str


class RepositoryState(NamedTuple):
    """A repository as the last run left it."""

    repository: Repository
    signature: str
    read_until: float
    problem: str


class Store:
    """The file, open; `with store.transaction():` around whatever writes."""

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.path = os.path.join(folder, STORE_FILE)
        self._database = _open_or_replace(self.path)
        self._first_day = self.meta("first_day")

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end, or change nothing."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _rows(self, statement: str, *values: Any) -> List[Tuple[Any, ...]]:
        return self._database.execute(statement, values).fetchall()

    def _change(self, statement: str, *values: Any) -> bool:
        return self._database.execute(statement, values).rowcount > 0

    # Facts about the store itself.

    def meta(self, name: str, usual: str = "") -> str:
        """Return a value that `set_meta` stored."""
        rows = self._rows("SELECT value FROM meta WHERE name = ?", name)
        return str(rows[0][0]) if rows else usual

    def set_meta(self, name: str, value: str) -> None:
        """Store a value; an unchanged one writes nothing to the disk."""
        if self.meta(name) != value:
            self._change("REPLACE INTO meta (name, value) VALUES (?, ?)", name, value)

    def position(self, path: str) -> str:
        """Return how far a history was read, as its source wrote it; "" at first sight."""
        rows = self._rows("SELECT position FROM positions WHERE path = ?", path)
        return str(rows[0][0]) if rows else ""

    def set_position(self, path: str, position: str) -> None:
        """Store how far a history was read."""
        self._change("REPLACE INTO positions (path, position) VALUES (?, ?)", path, position)

    # Pauses.

    def pause(self, since: float, until: Optional[float]) -> None:
        """Begin a pause; without `until` it lasts until `resume`.

        Histories have full seconds: what was done in the first one belongs to the pause.
        """
        since = math.floor(since)
        self.resume(since)
        self._change("REPLACE INTO pauses (since, until) VALUES (?, ?)", since, until)

    def resume(self, now: float) -> None:
        """End the pause that lasts at `now`, if there is one."""
        self._change(
            "UPDATE pauses SET until = ? WHERE since <= ? AND (until IS NULL OR until > ?)",
            *(now, now, now),
        )

    def pauses(self) -> List[Tuple[float, Optional[float]]]:
        """Return the begin and end of every pause."""
        return [(since, until) for since, until in self._rows("SELECT since, until FROM pauses")]

    def paused_until(self, now: float) -> Optional[float]:
        """Return when the pause that lasts at `now` ends, infinity for open; None for no pause."""
        for since, until in self.pauses():
            if since <= now and (until is None or now < until):
                return float("inf") if until is None else until
        return None

    # Figures.

    def first_day(self, today: str) -> str:
        """Return the day of the first run, before which nothing is measured.

        While a clock is behind, the day that it shows counts as the first, so that it is measured.
        That is not stored: histories have entries from before the first run.
        """
        stored = self.meta("first_day")
        if not stored:
            self.set_meta("first_day", today)
        self._first_day = min(stored or today, today)
        return self._first_day

    def accepts(self, day: str) -> bool:
        """Return true if figures of a day may change: it is neither before us nor pruned."""
        return day >= self._first_day and day > self.meta("pruned_until")

    def touch_day(self, day: str, hostname: str = "", os_info: str = "") -> None:
        """Give a day that has changed its next revision; make it if there is none."""
        host = hostname or self.meta("hostname")
        system = os_info or self.meta("os_info")
        self._change(
            "INSERT OR IGNORE INTO days (day, hostname, os_info) VALUES (?, ?, ?)",
            *(day, host, system),
        )
        self._change("UPDATE days SET revision = revision + 1 WHERE day = ?", day)

    def add_hour(self, at: Moment, source: str) -> None:
        """Record an active hour and its evidence: a repository's key, or shells, or editors."""
        if self.accepts(at.day) and self._change(
            "INSERT OR IGNORE INTO hours (day, hour, source) VALUES (?, ?, ?)", *at, source
        ):
            self.touch_day(at.day)

    def add_tool(self, day: str, tool: str) -> None:
        """Record that a tool was used on a day; alone it makes no day."""
        if self.accepts(day) and self._change(
            "INSERT OR IGNORE INTO tools (day, name) VALUES (?, ?)", day, tool
        ):
            self._change("UPDATE days SET revision = revision + 1 WHERE day = ?", day)

    def add_command(self, command: Command, again: bool) -> None:
        """Record uses of a command.

        Args:
            again: The history was read from its start, so uses recorded before are among these.
        """
        if not self.accepts(command.at.day):
            return
        total = "max(count, excluded.count)" if again else "count + excluded.count"
        before = self._database.total_changes
        self._change(
            "INSERT INTO commands (day, source, second, name, count, run) VALUES (?, ?, ?, ?, ?, ?)"
            f" ON CONFLICT (source, second, name, run) DO UPDATE SET count = {total}"
            f" WHERE count <> {total}",
            *(command.at.day, command.source, command.second, command.name),
            *(command.uses, command.run),
        )
        if self._database.total_changes > before:
            # The day is the one of the first reading, in whichever time zone the machine is now.
            self.touch_day(command.at.day)
            self.add_hour(command.at, SHELLS)
            self.add_tool(command.at.day, command.tool)

    def add_commit(self, commit: Commit) -> None:
        """Record a commit; a rewritten one takes the row of the one that it replaces."""
        if not self.accepts(commit.at.day):
            return
        before = self._database.total_changes
        self._change(
            "INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (repository, authored, ordinal) DO UPDATE SET id = excluded.id,"
            " lines_added = excluded.lines_added, lines_deleted = excluded.lines_deleted,"
            " files_changed = excluded.files_changed WHERE id <> excluded.id",
            *(commit.repository, commit.authored, commit.ordinal, commit.at.day, commit.id),
            *(commit.lines_added, commit.lines_deleted, commit.files_changed),
        )
        if self._database.total_changes > before:
            self.touch_day(commit.at.day)
        self.add_hour(commit.at, commit.repository)

    def add_branch(self, day: str, repository: str, name: str) -> None:
        """Record that a branch got commits of the user on a day."""
        if self.accepts(day) and self._change(
            "INSERT OR IGNORE INTO branches (day, repository, name) VALUES (?, ?, ?)",
            *(day, repository, name),
        ):
            self.touch_day(day)

    # Repositories.

    def set_repositories(self, repositories: Iterable[Repository]) -> None:
        """Replace the list of repositories; what is recorded of one that is gone stays."""
        self._change("UPDATE repositories SET present = 0")
        for repository in repositories:
            self._change(
                "INSERT INTO repositories (key, name, path) VALUES (?, ?, ?) ON CONFLICT (key)"
                " DO UPDATE SET name = excluded.name, path = excluded.path, present = 1",
                *repository,
            )

    def repositories(self, with_gone: bool = False) -> List[RepositoryState]:
        """Return the repositories that the last discovery has seen, or all."""
        rows = self._rows(
            "SELECT key, name, path, signature, read_until, problem FROM repositories"
            " WHERE present OR ? ORDER BY key",
            with_gone,
        )
        return [RepositoryState(Repository(*row[:3]), *row[3:]) for row in rows]

    def repository_read(self, key: str, signature: str, until: float) -> None:
        """Record that the commits of a repository were read, at this state of its folder."""
        self._change(
            "UPDATE repositories SET signature = ?, read_until = ?, problem = '' WHERE key = ?",
            *(signature, until, key),
        )

    def repository_problem(self, key: str, problem: str) -> None:
        """Record why a repository could not be read."""
        self._change(
            "UPDATE repositories SET problem = ? WHERE key = ? AND problem <> ?",
            *(problem, key, problem),
        )

    def touch_days_of(self, keys: Iterable[str]) -> None:
        """Have the days with work in these repositories sent again."""
        for key in keys:
            days = self._rows(
                "SELECT day FROM hours WHERE source = ? UNION SELECT day FROM commits"
                " WHERE repository = ?",
                *(key, key),
            )
            for (day,) in days:
                self.touch_day(day)

    # What a day's body is made of.

    def day_hours(self, day: str) -> List[Tuple[int, str]]:
        """Return each active hour with a source."""
        return self._rows("SELECT hour, source FROM hours WHERE day = ?", day)

    def day_tools(self, day: str) -> List[str]:
        """Return the tools of a day."""
        return [name for (name,) in self._rows("SELECT name FROM tools WHERE day = ?", day)]

    def day_commands(self, day: str) -> List[Tuple[str, str, int]]:
        """Return name, kind of run and count of each command."""
        return self._rows(
            "SELECT name, run, sum(count) FROM commands WHERE day = ? GROUP BY name, run", day
        )

    def day_commits(self, day: str) -> List[Tuple[str, str, int, int, int]]:
        """Return repository, id, lines added, lines deleted and files changed of each commit."""
        return self._rows(
            "SELECT repository, id, lines_added, lines_deleted, files_changed FROM commits"
            " WHERE day = ? ORDER BY repository, authored, ordinal",
            day,
        )

    def day_branches(self, day: str) -> List[Tuple[str, str]]:
        """Return repository and name of each branch."""
        return self._rows("SELECT repository, name FROM branches WHERE day = ? ORDER BY 1, 2", day)

    # Delivery.

    _DAY = ", ".join(Day._fields)

    def days(self) -> List[Day]:
        """Return all days, the oldest first."""
        return [Day(*row) for row in self._rows(f"SELECT {self._DAY} FROM days ORDER BY day")]

    def waiting(self) -> List[Day]:
        """Return the days whose newest figures had no 2xx, the oldest first."""
        return [day for day in self.days() if day.revision > day.delivered]

    def sent_body(self, day: str) -> Optional[bytes]:
        """Return the body of a day that the server acknowledged last."""
        rows = self._rows("SELECT body FROM days WHERE day = ?", day)
        return bytes(rows[0][0]) if rows and rows[0][0] is not None else None

    def delivered(self, day: Day, body: bytes, status: int, now: float) -> None:
        """Record a 2xx for the figures that `day` has."""
        self._change(
            "UPDATE days SET delivered = ?, delivered_at = ?, body = ?, attempts = 0, tried_at = ?,"
            " next_try = 0, status = ?, answer = '' WHERE day = ?",
            *(day.revision, now, body, now, status, day.day),
        )

    def nothing_to_send(self, day: Day) -> None:
        """Record that a day needs no report at this revision."""
        self._change("UPDATE days SET delivered = ? WHERE day = ?", day.revision, day.day)

    def undelivered(self, day: str, status: int, answer: str, now: float, next_try: float) -> None:
        """Record an attempt without a 2xx, and when the next one is due."""
        self._change(
            "UPDATE days SET attempts = attempts + 1, tried_at = ?, next_try = ?, status = ?,"
            " answer = ? WHERE day = ?",
            *(now, next_try, status, answer, day),
        )

    def allow_retries(self, statuses: Iterable[int] = ()) -> None:
        """Let days that were refused be tried at once; with `statuses`, those of these alone."""
        chosen = list(statuses)
        marks = ", ".join("?" * len(chosen))
        where = f" WHERE status IN ({marks})" if chosen else ""
        self._change("UPDATE days SET next_try = 0" + where, *chosen)

    def prune(self) -> None:
        """Delete days that are older than the 60 newest and delivered, or than the 400 newest."""
        days = self.days()
        unsent_from, sent_from = len(days) - KEPT_UNSENT_DAYS, len(days) - KEPT_DAYS
        for number, day in enumerate(days):
            is_sent = day.delivered >= day.revision
            if number >= (sent_from if is_sent else unsent_from):
                return  # days are deleted from the oldest on, so that none is measured again
            for table in ("hours", "commands", "commits", "branches", "tools", "days"):
                self._change(f"DELETE FROM {table} WHERE day = ?", day.day)
            self.set_meta("pruned_until", day.day)

    def counts(self) -> Dict[str, int]:
        """Return the number of rows of each table."""
        tables = ("days", "hours", "commands", "commits", "repositories")
        return {name: self._rows("SELECT count(*) FROM " + name)[0][0] for name in tables}


def _open_or_replace(path: str) -> sqlite3.Connection:
    """Open the file; one that is no database is set aside, so that new days can be stored."""
    try:
        return _open(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # locked, no rights, disk full: all pass
            raise
        os.replace(path, f"{path}.damaged-{int(time.time())}")
        return _open(path)


def _open(path: str) -> sqlite3.Connection:
    if not os.path.exists(path):
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        database.execute("PRAGMA synchronous = FULL")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version < VERSION:
            script = RENEWAL if version else SCHEMA
            # One transaction, or a run killed here would leave half of the tables.
            database.executescript(
                f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {VERSION}; COMMIT;"
            )
    except BaseException:
        database.close()
        raise
    return database
