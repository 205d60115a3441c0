"""A durable queue on local disk for reports that the database can't take now.

One SQLite file, used by one process through one connection: SQLite's recovery from a crash or a
power cut is older and better tested than any file format of our own could be.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Callable, NamedTuple, Optional

from developer_telemetry.errors import ConfigurationError, Unavailable
from developer_telemetry.private_files import make_file, make_folder, replacing
from developer_telemetry.receiver.salvage import fault, move_aside, moved_aside, salvage

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
# What is looked at in one go when somebody is erased, while others wait.
EXPUNGED_AT_ONCE = 256

_COLUMNS = "report_id, connection_id, arrived_us, payload, checksum"
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

logger = logging.getLogger(__name__)


class Spooled(NamedTuple):
    """A report as it lies in the spool: what the raw layer needs, and nothing read from it."""

    report_id: str
    connection_id: int
    arrived_us: int
    payload: str

    @property
    def checksum(self) -> int:
        """Guards against what the disk did to the row; SQLite doesn't look."""
        fields = f"{self.report_id}\n{self.connection_id}\n{self.arrived_us}\n{self.payload}"
        return zlib.crc32(fields.encode())


class DeadLetter(NamedTuple):
    """A report that the database refuses for good, and why."""

    report: Spooled
    reason: str


class SpoolFull(Unavailable):
    """The spool has reached its bound, or the disk its end."""


class Spool:
    """The queue in `folder`, which no other process may use meanwhile.

    Every method may be called from any thread; when `put` returns, its reports are on disk.
    `corruptions` counts the files found damaged; `full` says that the last write did not fit.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._path = folder / FILE_NAME
        self._reserve = folder / RESERVE_NAME
        self._max_pages = max(16, max_bytes // PAGE_BYTES)
        self._mutex = threading.Lock()
        self.corruptions = 0
        self.full = False
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
        """How many reports wait."""
        return self._depth

    @property
    def dead(self) -> int:
        """How many were set aside for good."""
        return self._dead

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing left of any report."""
        return not (self._depth or self._dead or moved_aside(self._path))

    @property
    def bytes(self) -> int:
        """What the file takes on disk."""
        with suppress(FileNotFoundError):
            return self._path.stat().st_size
        return 0

    @property
    def max_bytes(self) -> int:
        """What the file may take."""
        return self._max_pages * PAGE_BYTES

    @property
    def disk_free_bytes(self) -> int:
        """What its disk has left for anybody."""
        return shutil.disk_usage(self._path.parent).free

    def oldest_arrival_us(self) -> Optional[int]:
        """When the report that waits longest arrived."""
        with self._held() as database:
            row = database.execute("SELECT MIN(arrived_us) FROM waiting").fetchone()
        return None if row[0] is None else int(row[0])

    def put(self, reports: Sequence[Spooled]) -> None:
        """Keep reports, those that are there already left as they are; synced when it returns."""
        with self._transaction() as database:
            before = database.total_changes
            database.executemany(
                f"INSERT INTO waiting ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (report_id) DO NOTHING",
                [(*report, report.checksum) for report in reports],
            )
            added = database.total_changes - before
        self._depth += added

    def oldest(self, count: int) -> tuple[list[Spooled], list[Spooled]]:
        """The next reports in order of arrival: those whole, and those damaged on disk.

        At most `count` of them, and no more than fit in `READ_CHARACTERS`, but one.
        """
        with self._held() as database:
            rows = _some(
                database.execute(
                    f"SELECT {_COLUMNS} FROM waiting ORDER BY arrived_us, position LIMIT ?",
                    (count,),
                )
            )
        whole: list[Spooled] = []
        damaged: list[Spooled] = []
        for row in rows:
            report = Spooled(*row[:4])
            (whole if report.checksum == row[4] else damaged).append(report)
        return whole, damaged

    def remove(self, reports: Iterable[Spooled]) -> None:
        """Forget reports that the database has."""
        ids = [(report.report_id,) for report in reports]
        try:
            self._delete(ids)
        except SpoolFull:
            self._reserve.unlink(missing_ok=True)
            for first in range(0, len(ids), RESERVE_REPORTS):
                self._delete(ids[first : first + RESERVE_REPORTS])
        if not self._depth and not self._dead:
            with self._mutex:
                self._database.execute("VACUUM")  # gives the space back to the disk
        if not self._depth:
            self._make_reserve()

    def _delete(self, ids: Sequence[tuple[str]]) -> None:
        with self._transaction() as database:
            before = database.total_changes
            database.executemany("DELETE FROM waiting WHERE report_id = ?", ids)
            removed = database.total_changes - before
        self._depth -= removed

    def set_aside(self, report: Spooled, reason: str) -> None:
        """Move a report that the database refuses for good to the dead letters."""
        with self._transaction() as database:
            added = database.execute(
                f"INSERT INTO dead ({_COLUMNS}, reason) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (report_id) DO NOTHING",
                (*report, report.checksum, reason),
            ).rowcount
            gone = database.execute(
                "DELETE FROM waiting WHERE report_id = ?", (report.report_id,)
            ).rowcount
        self._depth -= gone
        self._dead += added

    def expunge(self, unwanted: Callable[[Spooled], bool], damaged: bool) -> int:
        """Delete reports, dead letters as well, so that no byte of them stays; return how many.

        With `damaged`, files that were moved aside go, too: nobody can tell what is in them.
        """
        waiting = self._expunge("waiting", unwanted)
        self._depth -= waiting
        dead = self._expunge("dead", unwanted)
        self._dead -= dead
        for path in moved_aside(self._path) if damaged else ():
            logger.warning("%s is removed: it may hold reports of somebody who was erased", path)
            path.unlink(missing_ok=True)
        with self._held() as database:
            try:
                # What was deleted earlier, or moved within the file, lies in it still.
                database.execute("VACUUM")
            except sqlite3.OperationalError as error:
                raise SpoolFull(f"{self._path} can't be written anew ({error})") from None
        return waiting + dead

    def _expunge(self, table: str, unwanted: Callable[[Spooled], bool]) -> int:
        last = gone = 0
        while True:
            with self._held() as database:
                rows = _some(
                    database.execute(
                        f"SELECT {_COLUMNS}, position FROM {table} WHERE position > ?"
                        " ORDER BY position LIMIT ?",
                        (last, EXPUNGED_AT_ONCE),
                    )
                )
            if not rows:
                return gone
            last = rows[-1][-1]
            found = [(row[-1],) for row in rows if unwanted(Spooled(*row[:4]))]
            if found:
                with self._transaction() as database:
                    before = database.total_changes
                    database.executemany(f"DELETE FROM {table} WHERE position = ?", found)
                    gone += database.total_changes - before

    def close(self) -> None:
        """Let go of the file and the lock."""
        with self._mutex:
            self._database.close()
        self._lock_file.close()

    @contextmanager
    def _held(self) -> Iterator[sqlite3.Connection]:
        """The file for one thread alone; opened anew when it proves to be damaged."""
        with self._mutex:
            try:
                yield self._database
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._database.close()
                self._reopen()
                raise Unavailable(f"the spool was damaged ({error}); send it again") from None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._held() as database:
            try:
                database.execute("BEGIN IMMEDIATE")
                yield database
                database.execute("COMMIT")
                self.full = False
            except sqlite3.OperationalError as error:
                self._roll_back()
                self.full = True
                raise SpoolFull(f"the spool can't take more ({error}); send it again", 30) from None
            except BaseException:
                self._roll_back()
                raise

    def _reopen(self) -> None:
        self._database = self._open()
        self._depth = self._count("waiting")
        self._dead = self._count("dead")

    def _make_reserve(self) -> None:
        if self._reserve.exists():
            return
        try:
            with replacing(self._reserve) as file:
                file.write(b"\0" * RESERVE_BYTES)
        except OSError:  # the disk is full already
            self._reserve.unlink(missing_ok=True)

    def _roll_back(self) -> None:
        if self._database.in_transaction:
            with suppress(sqlite3.DatabaseError):  # of a damaged file, which `_held` looks after
                self._database.execute("ROLLBACK")

    def _count(self, table: str) -> int:
        return int(self._database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])

    def _open(self) -> sqlite3.Connection:
        problem = fault(self._path, SCHEMA_VERSION)
        if not problem:
            return self._connect()
        self.corruptions += 1
        aside = move_aside(self._path)
        database = self._connect()
        rows = 0
        for table, columns in (("waiting", _COLUMNS), ("dead", f"{_COLUMNS}, reason")):
            marks = ", ".join("?" * (columns.count(",") + 1))
            for row in salvage(aside, table, columns):
                if Spooled(*row[:4]).checksum == row[4]:
                    database.execute(
                        f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})", row
                    )
                    rows += 1
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
        database.execute(f"PRAGMA max_page_count = {self._max_pages}")
        if fresh:
            database.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        return database


def _some(cursor: sqlite3.Cursor) -> list[tuple[Any, ...]]:
    """The next rows (`_COLUMNS`, and more), up to `READ_CHARACTERS` of their bodies."""
    rows: list[tuple[Any, ...]] = []
    characters = 0
    for row in cursor:
        rows.append(row)
        characters += len(row[3])
        if characters >= READ_CHARACTERS:
            break
    cursor.close()
    return rows


def dead_letters(folder: Path) -> list[DeadLetter]:
    """What was set aside in the spool of `folder`, read beside a running receiver."""
    path = folder / FILE_NAME
    if not path.exists():
        return []
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=10)) as database:
            rows = database.execute(f"SELECT {_COLUMNS}, reason FROM dead ORDER BY position")
            return [DeadLetter(Spooled(*row[:4]), row[5]) for row in rows]
    except sqlite3.DatabaseError as error:
        raise ConfigurationError(
            f"can't read {path} ({error}); a receiver mends its spool when it starts"
        ) from None


def _lock(folder: Path) -> IO[str]:
    make_file(folder / LOCK_NAME)
    lock_file = open(folder / LOCK_NAME, "a")  # noqa: SIM115  (held until `close`)
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock_file.close()
        raise ConfigurationError(
            f"the spool in {folder} belongs to another running receiver;"
            " give each its own TELEMETRY_SPOOL_DIR"
        ) from None
    return lock_file
