"""The file of the spool: its layout, its lock, and its recovery from damage and removal.

One SQLite file, used by one process through one connection: SQLite's recovery from a crash or a
power cut is older and better tested than a file format of our own.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Callable, Optional, TypeVar

from developer_telemetry.errors import ConfigurationError, SpoolInUse, Unavailable
from developer_telemetry.private_files import make_file, make_folder, replace_file
from developer_telemetry.receiver.ingest.spool_recovery import find_fault, move_aside, salvage
from developer_telemetry.receiver.ingest.spooled_report import SpooledReport

FILE_NAME = "spool.db"
SCHEMA_VERSION = 1
PAGE_BYTES = 4096
# Deletions need space for the journal. On a full disk this file is removed to provide it; the
# journal of so many reports fits into it.
RESERVE_NAME = "reserve"
RESERVE_BYTES = 1 << 18
RESERVE_REPORTS = 8
LOCK_NAME = "lock"
# The prefixes of the names of files in the spool's folder.
OWN_NAMES = (FILE_NAME, LOCK_NAME, RESERVE_NAME, "connections.json", "receiver-id")
# The number of files in a row that may prove to be damaged.
MAX_ATTEMPTS = 3

COLUMNS = "report_id, connection_id, arrived_us, payload, checksum"
# A file of a release without epochs, or a damaged one, is read by `COLUMNS` alone.
ALL_COLUMNS = f"{COLUMNS}, epoch"
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
# Added after the first release. Older releases read and write such a file, so the layout's
# version is the same.
_NEWER_TABLES = """
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
ERASURE_COLUMNS = "fingerprint, connection_id, subject, erased_us, blocked, epoch"
_EPOCH_ADDED = "ALTER TABLE {} ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0"

_TABLES = {"waiting": COLUMNS, "dead": f"{COLUMNS}, reason"}
# The reports that wait by themselves, each with its reason. A new process finds them anew.
_PARKED = """
PRAGMA temp_store = MEMORY;
CREATE TEMP TABLE parked (position INTEGER PRIMARY KEY, bundle TEXT NOT NULL);
CREATE INDEX temp.parked_by_bundle ON parked (bundle);
CREATE TEMP TRIGGER unparked AFTER DELETE ON main.waiting
BEGIN DELETE FROM parked WHERE position = OLD.position; END;
"""

# The changes that a transaction makes to the numbers of waiting reports and of dead letters.
Change = tuple[int, int]

T = TypeVar("T")

logger = logging.getLogger(__name__)


class SpoolFull(Unavailable):
    """The spool has reached its size limit, or its disk is full."""


class SpoolFile:
    """The file and its lock in `folder`; no other process may use the folder meanwhile.

    Every method may be called from any thread. `corruptions` counts the files that were damaged or
    removed; `full` is true if the last write did not fit.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._path = folder / FILE_NAME
        self._reserve = folder / RESERVE_NAME
        self._max_pages = max(16, max_bytes // PAGE_BYTES)
        self._mutex = threading.Lock()
        self._has_suspects = False
        self.corruptions = 0
        self.full = False
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
        """The free bytes of the disk."""
        return shutil.disk_usage(self._path.parent).free

    def check_file(self) -> None:
        """Save the reports to a new file if this one was removed or replaced."""
        with self._mutex:
            self._follow_file()

    def close(self) -> None:
        """Close the file and release the lock."""
        with self._mutex:
            self._database.close()
        self._lock_file.close()

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` without a transaction: it reads, or changes temporary tables alone."""
        with self._mutex:
            return self._retry_on_new_file(lambda: work(self._database))

    def _write(self, work: Callable[[sqlite3.Connection], Change]) -> Change:
        """Run `work` in a synced transaction; it returns by how many it changes the counts."""

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
                waiting, dead = self._retry_on_new_file(transaction)
            except SpoolFull:
                self.full = True
                raise
            self._depth += waiting
            self._dead += dead
            self.full = False
        return waiting, dead

    def _retry_on_new_file(self, work: Callable[[], T]) -> T:
        """Run `work`; again on a new file if this one is damaged or was removed."""
        for _ in range(MAX_ATTEMPTS):
            self._follow_file()
            try:
                return work()
            except sqlite3.DatabaseError as error:
                if _identity(self._path) != self._file:
                    continue
                if not self._is_damaged(error):
                    raise SpoolFull(
                        f"the spool can't accept more ({error}); send it again", 30
                    ) from None
            self._database.close()
            try:
                self._reopen()
            except (OSError, sqlite3.DatabaseError) as error:
                raise Unavailable(f"the spool was damaged ({error}); send it again") from None
        raise Unavailable("the spool is damaged again and again; send it again")

    def _is_damaged(self, error: sqlite3.DatabaseError) -> bool:
        # SQLite reports a truncated file as one without tables, or as a disk that fails.
        if not isinstance(error, sqlite3.OperationalError):
            return True
        harmless = any(word in str(error) for word in ("full", "locked"))
        return not harmless and bool(find_fault(self._path, SCHEMA_VERSION))

    def _follow_file(self) -> None:
        """Open a new file if this one was removed or replaced, and copy its reports there.

        The system keeps an open file without a name until it is closed.
        """
        if _identity(self._path) == self._file:
            return
        old, old_file = self._database, self._file
        with suppress(sqlite3.DatabaseError):
            # In a read transaction it ignores the journal of the new file.
            old.execute("BEGIN")
            old.execute("SELECT COUNT(*) FROM waiting").fetchone()
        try:
            make_folder(self._path.parent, OWN_NAMES)
            self._follow_lock()
            self._database = self._open()
            saved = _copy_reports(old, self._database)
        except (OSError, sqlite3.DatabaseError, ConfigurationError) as error:
            if self._database is not old:
                self._database.close()
            self._database, self._file = old, old_file  # for the next attempt
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
        """Lock the folder again if the file of the lock was replaced."""
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
        # No report is the cause when the machine was switched off.
        if self._count("handling"):
            with suppress(sqlite3.OperationalError):  # on a full disk
                self._database.execute("DELETE FROM handling WHERE boot <> ?", (read_boot_id(),))
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
            # `_retry_on_new_file` replaces a damaged file.
            with suppress(sqlite3.DatabaseError):
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
            _insert_intact(database, table, columns, salvage(aside, table, columns))
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
        # A rollback journal, deleted and synced at each commit. Write-ahead logging would save a
        # sync, but two connections can corrupt its file.
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("PRAGMA synchronous = EXTRA")
        if fresh:
            database.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        try:
            _add_newer_tables(database)
        except sqlite3.OperationalError:  # the disk is full
            self._reserve.unlink(missing_ok=True)
            _add_newer_tables(database)
        database.execute(f"PRAGMA max_page_count = {self._max_pages}")
        database.executescript(_PARKED)
        self._file = _identity(self._path)
        return database


def _add_newer_tables(database: sqlite3.Connection) -> None:
    for table in _TABLES:
        columns = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        if "epoch" not in columns:
            database.execute(_EPOCH_ADDED.format(table))
    database.executescript(_NEWER_TABLES)


def read_boot_id() -> str:
    """Return an id that differs after each start of the machine; "" if there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _copy_reports(old: sqlite3.Connection, database: sqlite3.Connection) -> int:
    """Copy the intact reports that another file still yields; return their number."""

    def rows_of(table: str, columns: str) -> Iterator[tuple[Any, ...]]:
        with suppress(sqlite3.DatabaseError):
            yield from old.execute(f"SELECT {columns} FROM {table} ORDER BY position")

    database.execute("BEGIN IMMEDIATE")
    rows = sum(
        _insert_intact(database, table, f"{columns}, epoch", rows_of(table, f"{columns}, epoch"))
        for table, columns in _TABLES.items()
    )
    with suppress(sqlite3.DatabaseError):
        database.executemany(
            f"INSERT INTO erasures ({ERASURE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
            old.execute(f"SELECT {ERASURE_COLUMNS} FROM erasures").fetchall(),
        )
    database.execute("COMMIT")
    return rows


def _insert_intact(
    database: sqlite3.Connection, table: str, columns: str, rows: Iterable[tuple[Any, ...]]
) -> int:
    """Insert the rows with a correct checksum, without duplicates; return their number."""
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


def _lock(folder: Path) -> IO[str]:
    make_file(folder / LOCK_NAME)
    lock_file = open(folder / LOCK_NAME, "a")  # noqa: SIM115  (held until `close`)
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock_file.close()
        raise SpoolInUse(
            f"the spool in {folder} belongs to another running receiver;"
            " set a TELEMETRY_SPOOL_DIR of its own for each receiver"
        ) from None
    return lock_file
