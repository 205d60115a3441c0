"""A durable queue on local disk for reports that the database can't take now.

One SQLite file, used by one process through one connection: SQLite's recovery from a crash or a
power cut is older and better tested than any file format of our own could be.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Any, Callable, NamedTuple, Optional, TypeVar

from developer_telemetry.errors import ConfigurationError, SpoolInUse, Unavailable
from developer_telemetry.private_files import make_file, make_folder, replace_file
from developer_telemetry.receiver.ingest.spool_recovery import (
    find_fault,
    list_moved_aside,
    move_aside,
    salvage,
)
from developer_telemetry.receiver.ingest.spooled_report import SpooledReport
from developer_telemetry.storage.tombstones import Tombstone

FILE_NAME = "spool.db"
SCHEMA_VERSION = 1
PAGE_BYTES = 4096
# Even to delete takes space, for the journal. Where others have filled the disk, this file gives
# it, and so many reports at a time fit into it.
RESERVE_NAME = "reserve"
RESERVE_BYTES = 1 << 18
RESERVE_REPORTS = 8
# Characters of bodies that are read in one go, whatever there is: as many as of those that arrive.
READ_CHARACTERS = 1 << 20
LOCK_NAME = "lock"
# What names of files in the spool's folder begin with.
OWN_NAMES = (FILE_NAME, LOCK_NAME, RESERVE_NAME, "connections.json", "receiver-id")
# A report that was being brought in when the process ended is tried once more, behind all others
# and alone. Twice may be chance still; but if it is not, a third time keeps all of them waiting.
MAX_CRASHES = 2
DAMAGED = "damaged on the spool's disk"
# What is looked at in one go when somebody is erased, while others wait.
EXPUNGED_AT_ONCE = 256

_COLUMNS = "report_id, connection_id, arrived_us, payload, checksum"
# Where a file may be of a release that had no epochs, or damaged, only the others are asked for.
_ALL_COLUMNS = f"{_COLUMNS}, epoch"
_SCHEMA = f"""
CREATE TABLE waiting (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    report_id TEXT NOT NULL UNIQUE,
    connection_id INTEGER NOT NULL,
    arrived_us INTEGER NOT NULL,
    payload TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE INDEX waiting_by_arrival ON waiting (arrived_us, position);
CREATE TABLE dead (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    report_id TEXT NOT NULL UNIQUE,
    connection_id INTEGER NOT NULL,
    arrived_us INTEGER NOT NULL,
    payload TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    reason TEXT NOT NULL
);
PRAGMA user_version = {SCHEMA_VERSION};
"""
# What came later. An older release reads and writes a file that has it, so it is no new layout.
_TABLES_ADDED = """
CREATE TABLE IF NOT EXISTS erasures (
    fingerprint TEXT NOT NULL,
    connection_id INTEGER NOT NULL,
    subject TEXT NOT NULL,
    erased_us INTEGER NOT NULL,
    blocked INTEGER NOT NULL,
    epoch INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS handling (
    report_id TEXT NOT NULL PRIMARY KEY,
    times INTEGER NOT NULL,
    boot TEXT NOT NULL
);
"""
_ERASURE_COLUMNS = "fingerprint, connection_id, subject, erased_us, blocked, epoch"
_EPOCH_ADDED = "ALTER TABLE {} ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0"

_TABLES = {"waiting": _COLUMNS, "dead": f"{_COLUMNS}, reason"}
# Which reports wait by themselves, and why: known to this process alone, which finds out anew.
_PARKED = """
PRAGMA temp_store = MEMORY;
CREATE TEMP TABLE parked (position INTEGER PRIMARY KEY, bundle TEXT NOT NULL);
CREATE INDEX temp.parked_by_bundle ON parked (bundle);
CREATE TEMP TRIGGER unparked AFTER DELETE ON main.waiting
BEGIN DELETE FROM parked WHERE position = OLD.position; END;
"""
# The bundle of reports whose connection the database has not.
_ORPHANS = "connection "

Position = tuple[int, int]
# Before all that waits.
START: Position = (-(1 << 63), 0)

# By how many a transaction changes those that wait, and the dead letters.
Change = tuple[int, int]
# How many files in a row may prove to be damaged.
OPENED_ANEW = 3

T = TypeVar("T")

logger = logging.getLogger(__name__)


class DeadLetter(NamedTuple):
    """A report that the database refuses for good, and why."""

    report: SpooledReport
    reason: str


class SpoolFull(Unavailable):
    """The spool has reached its bound, or the disk its end."""


class Spool:
    """The queue in `folder`, which no other process may use meanwhile.

    Every method may be called from any thread; when `put` returns, its reports are on disk.
    `corruptions` counts the files found damaged or gone; `full` says that the last write did not
    fit; `conflicting` counts reports that wait by themselves, and `orphans` those of connections
    that the database has not, by their id.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._path = folder / FILE_NAME
        self._reserve = folder / RESERVE_NAME
        self._max_pages = max(16, max_bytes // PAGE_BYTES)
        self._mutex = threading.Lock()
        # What was marked by `begin` in this process.
        self._marked: set[str] = set()
        self._has_suspects = False
        self.corruptions = 0
        self.full = False
        self.conflicting = 0
        self.orphans: dict[int, int] = {}
        self._file: Optional[tuple[int, int]] = None
        self._database: sqlite3.Connection
        try:
            make_folder(folder, OWN_NAMES)
            self._lock_file = _lock(folder)
            self._reopen()
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(
                f"can't keep a spool in {folder} ({error});"
                " set TELEMETRY_SPOOL_DIR to a folder that can be written and has room"
            ) from None
        self._make_reserve()

    @property
    def depth(self) -> int:
        """The number of reports that wait."""
        return self._depth

    @property
    def dead(self) -> int:
        """The number of reports that were set aside for good."""
        return self._dead

    @property
    def is_empty(self) -> bool:
        """Return true if the spool holds no report."""
        return not (self._depth or self._dead or list_moved_aside(self._path))

    @property
    def bytes(self) -> int:
        """The size of the file on disk, in bytes."""
        with suppress(FileNotFoundError):
            return self._path.stat().st_size
        return 0

    @property
    def max_bytes(self) -> int:
        """The largest size that the file may have, in bytes."""
        return self._max_pages * PAGE_BYTES

    @property
    def disk_free_bytes(self) -> int:
        """The free bytes of its disk."""
        return shutil.disk_usage(self._path.parent).free

    def oldest_arrival_us(self) -> Optional[int]:
        """Arrival time of the report that waits longest."""
        row = self._read(
            lambda database: database.execute("SELECT MIN(arrived_us) FROM waiting").fetchone()
        )
        return None if row[0] is None else int(row[0])

    def put(self, reports: Sequence[SpooledReport]) -> None:
        """Keep reports, those that are there already left as they are; synced when it returns."""

        def work(database: sqlite3.Connection) -> Change:
            before = database.total_changes
            database.executemany(
                f"INSERT INTO waiting ({_ALL_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (report_id) DO NOTHING",
                [_values(report) for report in reports],
            )
            return database.total_changes - before, 0

        self._write(work)

    def next(
        self, count: int, after: Position = START
    ) -> tuple[list[SpooledReport], list[SpooledReport], Optional[Position]]:
        """Return the next reports after a place, in order of arrival, but for those parked.

        Nor are those among them that `next_suspect` gives.

        Those that are whole come first, then those damaged on disk; then the place of the last one,
        None when there was none. At most `count` of them, and no more than fit in
        `READ_CHARACTERS`, but one.
        """
        others = " AND report_id NOT IN (SELECT report_id FROM handling)"
        rows = self._read(
            lambda database: _bounded_rows(
                database.execute(
                    f"SELECT {_ALL_COLUMNS}, position FROM waiting"
                    " WHERE (arrived_us, position) > (?, ?)"
                    " AND position NOT IN (SELECT position FROM parked)"
                    f"{others if self._has_suspects else ''}"
                    " ORDER BY arrived_us, position LIMIT ?",
                    (*after, count),
                )
            )
        )
        intact: list[SpooledReport] = []
        damaged: list[SpooledReport] = []
        for row in rows:
            report = _spooled(row)
            (intact if report.checksum == row[4] else damaged).append(report)
        return intact, damaged, (rows[-1][2], rows[-1][6]) if rows else None

    def next_suspect(self) -> Optional[tuple[SpooledReport, str]]:
        """Return a report that was being brought in when a process ended without saying so.

        And why it is not to be tried again, "" if it is.
        """
        if not self._has_suspects:
            return None
        row = self._read(
            lambda database: database.execute(
                f"SELECT {_ALL_COLUMNS.replace('report_id', 'w.report_id')}, h.times"
                " FROM handling h JOIN waiting w ON w.report_id = h.report_id"
                " WHERE w.position NOT IN (SELECT position FROM parked)"
                " ORDER BY h.times, w.arrived_us, w.position LIMIT 1"
            ).fetchone()
        )
        if row is None:
            self._has_suspects = False
            return None
        report = _spooled(row)
        if report.checksum != row[4]:
            return report, DAMAGED
        crashed = f"the receiver ended without a word {row[6]} times while it stored this report"
        return report, crashed if row[6] >= MAX_CRASHES else ""

    def begin(self, reports: Sequence[SpooledReport]) -> None:
        """Note that reports are about to be brought in, until `end` or until they are removed.

        If the process ends in between, the next one knows which they were.
        """
        boot = _boot_id()

        def work(database: sqlite3.Connection) -> Change:
            database.executemany(
                "INSERT INTO handling (report_id, times, boot) VALUES (?, 1, ?)"
                " ON CONFLICT (report_id) DO UPDATE SET times = times + 1, boot = excluded.boot",
                [(report.report_id, boot) for report in reports],
            )
            return 0, 0

        with suppress(SpoolFull):
            self._write(work)
            self._marked.update(report.report_id for report in reports)

    def end(self) -> None:
        """Note that the process has outlived what it did with the reports since `begin`."""
        ids = [(report_id,) for report_id in list(self._marked)]
        if not ids:
            return

        def work(database: sqlite3.Connection) -> Change:
            database.executemany("DELETE FROM handling WHERE report_id = ?", ids)
            return 0, 0

        with suppress(SpoolFull):
            self._write(work)
            self._marked.clear()

    def park(self, reports: Iterable[SpooledReport], bundle: str) -> None:
        """Have `next` pass reports over until their bundle is unparked."""
        rows = [(bundle, report.report_id) for report in reports]
        self._read(
            lambda database: database.executemany(
                "INSERT OR REPLACE INTO temp.parked"
                " SELECT position, ? FROM waiting WHERE report_id = ?",
                rows,
            )
        )

    def park_orphans(self, reports: Iterable[SpooledReport], connection_id: int) -> None:
        """Park reports whose connection the database has not."""
        self.park(reports, f"{_ORPHANS}{connection_id}")

    def unpark(self, bundle: str) -> None:
        """Have `next` give a bundle's reports again."""
        self._read(
            lambda database: database.execute("DELETE FROM temp.parked WHERE bundle = ?", (bundle,))
        )

    def unpark_orphans(self, connection_id: int) -> None:
        """Have `next` give the reports of a connection again."""
        self.unpark(f"{_ORPHANS}{connection_id}")

    def count_parked(self) -> None:
        """Count anew what `conflicting` and `orphans` tell."""
        rows = self._read(
            lambda database: database.execute(
                "SELECT bundle, COUNT(*) FROM temp.parked GROUP BY bundle"
            ).fetchall()
        )
        orphans = {
            int(bundle[len(_ORPHANS) :]): count
            for bundle, count in rows
            if bundle.startswith(_ORPHANS)
        }
        self.conflicting = sum(count for _, count in rows) - sum(orphans.values())
        self.orphans = orphans

    def remove(self, reports: Iterable[SpooledReport]) -> None:
        """Forget reports that the database has."""
        ids = [(report.report_id,) for report in reports]
        try:
            self._delete(ids)
        except SpoolFull:
            self._reserve.unlink(missing_ok=True)
            for first in range(0, len(ids), RESERVE_REPORTS):
                self._delete(ids[first : first + RESERVE_REPORTS])
        if not self._depth and not self._dead:
            # Gives the space back to the disk.
            self._read(lambda database: database.execute("VACUUM"))
        if not self._depth:
            self._make_reserve()

    def drop_orphans(self, connection_id: int) -> int:
        """Delete what waits for a connection that is gone, and return how many reports it was."""

        def work(database: sqlite3.Connection) -> Change:
            gone = database.execute(
                "DELETE FROM waiting WHERE connection_id = ?", (connection_id,)
            ).rowcount
            return -gone, 0

        return -self._write(work)[0]

    def _delete(self, ids: Sequence[tuple[str]]) -> None:
        def work(database: sqlite3.Connection) -> Change:
            gone = database.executemany("DELETE FROM waiting WHERE report_id = ?", ids).rowcount
            database.executemany("DELETE FROM handling WHERE report_id = ?", ids)
            return -gone, 0

        self._write(work)
        self._marked.difference_update(report_id for (report_id,) in ids)

    def set_aside(self, report: SpooledReport, reason: str) -> None:
        """Move a report that the database refuses for good to the dead letters."""

        def work(database: sqlite3.Connection) -> Change:
            added = database.execute(
                f"INSERT INTO dead ({_ALL_COLUMNS}, reason) VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (report_id) DO NOTHING",
                (*_values(report), reason),
            ).rowcount
            gone = database.execute(
                "DELETE FROM waiting WHERE report_id = ?", (report.report_id,)
            ).rowcount
            database.execute("DELETE FROM handling WHERE report_id = ?", (report.report_id,))
            return -gone, added

        self._write(work)

    def expunge(self, unwanted: Callable[[SpooledReport], bool], damaged: bool) -> int:
        """Delete reports, dead letters as well, so that no byte of them stays; return how many.

        With `damaged`, files that were moved aside go, too: nobody can tell what is in them.
        """
        expunged = self._expunge("waiting", unwanted) + self._expunge("dead", unwanted)
        for path in list_moved_aside(self._path) if damaged else ():
            logger.warning("%s is removed: it may hold reports of somebody who was erased", path)
            path.unlink(missing_ok=True)
        # What was deleted earlier, or moved within the file, lies in it still.
        self._read(lambda database: database.execute("VACUUM"))
        return expunged

    def _expunge(self, table: str, unwanted: Callable[[SpooledReport], bool]) -> int:
        last = gone = 0
        while rows := self._page(table, last):
            last = rows[-1][-1]
            if positions := [(row[-1],) for row in rows if unwanted(_spooled(row))]:
                gone += self._delete_from(table, positions)
        return gone

    def _page(self, table: str, after: int) -> list[Any]:
        return self._read(
            lambda database: _bounded_rows(
                database.execute(
                    f"SELECT {_ALL_COLUMNS}, position FROM {table} WHERE position > ?"
                    " ORDER BY position LIMIT ?",
                    (after, EXPUNGED_AT_ONCE),
                )
            )
        )

    def _delete_from(self, table: str, positions: Sequence[tuple[int]]) -> int:
        def work(database: sqlite3.Connection) -> Change:
            query = f"DELETE FROM {table} WHERE position = ?"
            gone = database.executemany(query, positions).rowcount
            return (-gone, 0) if table == "waiting" else (0, -gone)

        return -sum(self._write(work))

    def look_after_file(self) -> None:
        """Save what was put, if the file was removed or another one lies in its place."""
        with self._mutex:
            self._follow_file()

    def erasures(self, fingerprint: str) -> list[Tombstone]:
        """Return the tombstones that were learned under this key, also by an earlier process."""
        rows = self._read(
            lambda database: database.execute(
                "SELECT connection_id, subject, erased_us, blocked, epoch FROM erasures"
                " WHERE fingerprint = ?",
                (fingerprint,),
            ).fetchall()
        )
        return [Tombstone(row[0], row[1], row[2], bool(row[3]), row[4]) for row in rows]

    def remember(self, fingerprint: str, stones: Sequence[Tombstone]) -> None:
        """Keep these tombstones in place of those that were learned under this key before."""

        def work(database: sqlite3.Connection) -> Change:
            database.execute("DELETE FROM erasures WHERE fingerprint = ?", (fingerprint,))
            database.executemany(
                f"INSERT INTO erasures ({_ERASURE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
                [(fingerprint, *stone) for stone in stones],
            )
            return 0, 0

        self._write(work)

    def close(self) -> None:
        """Let go of the file and the lock."""
        with self._mutex:
            self._database.close()
        self._lock_file.close()

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do what syncs nothing: read, or note what is known to this process alone."""
        with self._mutex:
            return self._surely(lambda: work(self._database))

    def _write(self, work: Callable[[sqlite3.Connection], Change]) -> Change:
        """Do and sync what changes the numbers of waiting and dead reports as it returns."""

        def transaction() -> Change:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                change = work(self._database)
                self._database.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            return change

        with self._mutex:
            try:
                waiting, dead = self._surely(transaction)
            except SpoolFull:
                self.full = True
                raise
            self._depth += waiting
            self._dead += dead
            self.full = False
        return waiting, dead

    def _surely(self, work: Callable[[], T]) -> T:
        """Do something with the file; again on a new one if this one is damaged or gone."""
        for _ in range(OPENED_ANEW):
            self._follow_file()
            try:
                return work()
            except sqlite3.DatabaseError as error:
                if _identity(self._path) != self._file:
                    continue
                if not self._is_damaged(error):
                    raise SpoolFull(
                        f"the spool can't take more ({error}); send it again", 30
                    ) from None
            self._database.close()
            try:
                self._reopen()
            except (OSError, sqlite3.DatabaseError) as error:
                raise Unavailable(f"the spool was damaged ({error}); send it again") from None
        raise Unavailable("the spool is damaged again and again; send it again")

    def _is_damaged(self, error: sqlite3.DatabaseError) -> bool:
        # A file that was cut off reads as one without tables, or as a disk that fails.
        if not isinstance(error, sqlite3.OperationalError):
            return True
        harmless = any(word in str(error) for word in ("full", "locked"))
        return not harmless and bool(find_fault(self._path, SCHEMA_VERSION))

    def _follow_file(self) -> None:
        """Open the file anew if its name leads elsewhere; take along what the old one has.

        The system keeps a file that is open, also without a name, until it is closed.
        """
        if _identity(self._path) == self._file:
            return
        old, old_file = self._database, self._file
        with suppress(sqlite3.DatabaseError):
            # Once it reads, it takes no journal of the new file's for its own.
            old.execute("BEGIN")
            old.execute("SELECT COUNT(*) FROM waiting").fetchone()
        try:
            make_folder(self._path.parent, OWN_NAMES)
            self._follow_lock()
            self._database = self._open()
            saved = _bring_over(old, self._database)
        except (OSError, sqlite3.DatabaseError, ConfigurationError) as error:
            if self._database is not old:
                self._database.close()
            self._database, self._file = old, old_file  # to try again with
            self._roll_back()
            raise Unavailable(f"the spool's file is gone ({error}); send it again", 30) from None
        old.close()
        self.corruptions += 1
        self._count_all()
        self._make_reserve()
        logger.error(
            "%s was removed or replaced while in use: %d reports were saved into a new one;"
            " leave the spool's folder to the receiver",
            self._path,
            saved,
        )

    def _follow_lock(self) -> None:
        """Lock the folder again if its lock's file is another one by now."""
        path = self._path.parent / LOCK_NAME
        status = os.fstat(self._lock_file.fileno())
        if _identity(path) != (status.st_dev, status.st_ino):
            lock_file = _lock(self._path.parent)
            self._lock_file.close()
            self._lock_file = lock_file

    def _reopen(self) -> None:
        self._database = self._open()
        self._count_all()

    def _count_all(self) -> None:
        self._depth = self._count("waiting")
        self._dead = self._count("dead")
        # A machine that was switched off is nothing that a report has done.
        if self._count("handling"):
            with suppress(sqlite3.OperationalError):  # on a full disk
                self._database.execute("DELETE FROM handling WHERE boot <> ?", (_boot_id(),))
        self._has_suspects = self._count("handling") > 0

    def _make_reserve(self) -> None:
        if self._reserve.exists():
            return
        try:
            with replace_file(self._reserve) as file:
                file.write(b"\0" * RESERVE_BYTES)
        except OSError:  # the disk is full already
            self._reserve.unlink(missing_ok=True)

    def _roll_back(self) -> None:
        if self._database.in_transaction:
            with suppress(sqlite3.DatabaseError):  # of a damaged file, which `_surely` looks after
                self._database.execute("ROLLBACK")

    def _count(self, table: str) -> int:
        return int(self._database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])

    def _open(self) -> sqlite3.Connection:
        problem = find_fault(self._path, SCHEMA_VERSION)
        if not problem:
            return self._connect()
        self.corruptions += 1
        aside = move_aside(self._path)
        database = self._connect()
        rows = sum(
            _keep_whole(database, table, columns, salvage(aside, table, columns))
            for table, columns in _TABLES.items()
        )
        logger.error(
            "the spool was damaged (%s): %d reports were salvaged; the rest stays in %s",
            problem,
            rows,
            aside,
        )
        return database

    def _connect(self) -> sqlite3.Connection:
        make_file(self._path)
        fresh = not self._path.stat().st_size
        database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        # A rollback journal, deleted and synced at each commit: one that write-ahead logging
        # would save is not worth a file that two connections can corrupt.
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("PRAGMA synchronous = EXTRA")
        if fresh:
            database.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        try:
            _add_what_came_later(database)
        except sqlite3.OperationalError:  # others have filled the disk
            self._reserve.unlink(missing_ok=True)
            _add_what_came_later(database)
        database.execute(f"PRAGMA max_page_count = {self._max_pages}")
        database.executescript(_PARKED)
        self._file = _identity(self._path)
        return database


def _add_what_came_later(database: sqlite3.Connection) -> None:
    for table in _TABLES:
        columns = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        if "epoch" not in columns:
            database.execute(_EPOCH_ADDED.format(table))
    database.executescript(_TABLES_ADDED)


def _values(report: SpooledReport) -> tuple[Any, ...]:
    """Return the values of `_ALL_COLUMNS`."""
    return (*report[:4], report.checksum, report.epoch)


def _spooled(row: Sequence[Any]) -> SpooledReport:
    """Return the report in a row of `_ALL_COLUMNS`."""
    return SpooledReport(row[0], row[1], row[2], row[3], row[5])


def _boot_id() -> str:
    """Return what differs each time that the machine starts; "" where it can't be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _bounded_rows(cursor: sqlite3.Cursor) -> list[tuple[Any, ...]]:
    """Return the next rows (`_COLUMNS`, and more), up to `READ_CHARACTERS` of their bodies."""
    rows: list[tuple[Any, ...]] = []
    characters = 0
    for row in cursor:
        rows.append(row)
        characters += len(row[3])
        if characters >= READ_CHARACTERS:
            break
    cursor.close()
    return rows


def _bring_over(old: sqlite3.Connection, database: sqlite3.Connection) -> int:
    """Copy what is whole and can be read of another file; return how many reports it was."""

    def rows_of(table: str, columns: str) -> Iterator[tuple[Any, ...]]:
        with suppress(sqlite3.DatabaseError):
            yield from old.execute(f"SELECT {columns} FROM {table} ORDER BY position")

    database.execute("BEGIN IMMEDIATE")
    rows = sum(
        _keep_whole(database, table, f"{columns}, epoch", rows_of(table, f"{columns}, epoch"))
        for table, columns in _TABLES.items()
    )
    with suppress(sqlite3.DatabaseError):
        database.executemany(
            f"INSERT INTO erasures ({_ERASURE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
            old.execute(f"SELECT {_ERASURE_COLUMNS} FROM erasures").fetchall(),
        )
    database.execute("COMMIT")
    return rows


def _keep_whole(
    database: sqlite3.Connection, table: str, columns: str, rows: Iterable[tuple[Any, ...]]
) -> int:
    """Insert those rows whose checksum is right and that are not there; return how many."""
    marks = ", ".join("?" * (columns.count(",") + 1))
    insert = f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})"
    return sum(
        database.execute(insert, row).rowcount
        for row in rows
        if SpooledReport(*row[:4]).checksum == row[4]
    )


def _identity(path: Path) -> Optional[tuple[int, int]]:
    """Return an identity that differs between two files of one name; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class WaitingReports(NamedTuple):
    """The reports that wait for a connection, and the arrival of the oldest."""

    connection_id: int
    reports: int
    oldest_us: int


def waiting_by_connection(folder: Path) -> list[WaitingReports]:
    """Return what waits in the spool of `folder`, read beside a running receiver."""
    rows = _look_at(
        folder,
        "SELECT connection_id, COUNT(*), MIN(arrived_us) FROM waiting"
        " GROUP BY connection_id ORDER BY connection_id",
    )
    return [WaitingReports(*row) for row in rows]


def dead_letters(folder: Path) -> list[DeadLetter]:
    """Return the reports set aside in the spool of `folder`, beside a running receiver."""
    rows = _look_at(folder, f"SELECT {_COLUMNS}, reason FROM dead ORDER BY position")
    return [DeadLetter(SpooledReport(*row[:4]), row[5]) for row in rows]


def _look_at(folder: Path, query: str) -> list[tuple[Any, ...]]:
    path = folder / FILE_NAME
    if not path.exists():
        return []
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=10)) as database:
            return database.execute(query).fetchall()
    except sqlite3.DatabaseError as error:
        raise ConfigurationError(
            f"can't read {path} ({error}); a receiver fixes its spool when it starts"
        ) from None


def _lock(folder: Path) -> IO[str]:
    make_file(folder / LOCK_NAME)
    lock_file = open(folder / LOCK_NAME, "a")  # noqa: SIM115  (held until `close`)
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock_file.close()
        raise SpoolInUse(
            f"the spool in {folder} belongs to another running receiver;"
            " give each its own TELEMETRY_SPOOL_DIR"
        ) from None
    return lock_file
