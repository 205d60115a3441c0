"""A durable queue on local disk for reports that the database can't accept now."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from developer_telemetry.errors import ConfigurationError
from developer_telemetry.receiver.ingest.spool_file import (
    ALL_COLUMNS,
    COLUMNS,
    ERASURE_COLUMNS,
    FILE_NAME,
    RESERVE_REPORTS,
    Change,
    SpoolFile,
    SpoolFull,
    read_boot_id,
)
from developer_telemetry.receiver.ingest.spool_recovery import list_moved_aside
from developer_telemetry.receiver.ingest.spooled_report import SpooledReport
from developer_telemetry.storage.tombstones import Tombstone

# The characters of bodies in one read; one report may exceed them.
READ_CHARACTERS = 1 << 20
# A report that was being stored when the process crashed is tried once more, alone and after all
# others. Two crashes may be chance; a third attempt could delay all reports.
MAX_CRASHES = 2
DAMAGED = "damaged on the spool's disk"
# The rows that an erasure reads at once, while other threads wait.
EXPUNGED_PAGE_ROWS = 256


# The prefix of bundles of reports whose connection is not in the database.
_ORPHANS = "connection "

Position = tuple[int, int]
# The position before all reports.
START: Position = (-(1 << 63), 0)

logger = logging.getLogger(__name__)


class DeadLetter(NamedTuple):
    """A report that the database refuses for good, and the reason."""

    report: SpooledReport
    reason: str


class Spool(SpoolFile):
    """The queue in `folder`.

    Every method may be called from any thread; when `put` returns, its reports are on disk.
    `conflicting` counts the reports that wait by themselves; `orphans` counts, by connection id,
    the reports whose connection is not in the database.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        super().__init__(folder, max_bytes)
        # The ids that this process passed to `begin`.
        self._marked: set[str] = set()
        self.conflicting = 0
        self.orphans: dict[int, int] = {}

    @property
    def is_empty(self) -> bool:
        """Return true if the spool holds no report."""
        return not (self._depth or self._dead or list_moved_aside(self._path))

    def oldest_arrival_us(self) -> Optional[int]:
        """Return the arrival time of the oldest waiting report."""
        row = self._read(
            lambda database: database.execute("SELECT MIN(arrived_us) FROM waiting").fetchone()
        )
        return None if row[0] is None else int(row[0])

    def put(self, reports: Sequence[SpooledReport]) -> None:
        """Store reports; those of the same id stay unchanged. The disk is synced at the end."""

        def work(database: sqlite3.Connection) -> Change:
            before = database.total_changes
            database.executemany(
                f"INSERT INTO waiting ({ALL_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (report_id) DO NOTHING",
                [_values(report) for report in reports],
            )
            return database.total_changes - before, 0

        self._write(work)

    def next(
        self, count: int, after: Position = START
    ) -> tuple[list[SpooledReport], list[SpooledReport], Optional[Position]]:
        """Return the next reports after a position, in order of arrival.

        Parked reports and those of `next_suspect` are left out.

        Returns:
            The intact reports, those damaged on disk, and the position of the last one or None.
            At most `count` reports, and only one may exceed `READ_CHARACTERS`.
        """
        others = " AND report_id NOT IN (SELECT report_id FROM handling)"
        rows = self._read(
            lambda database: _bounded_rows(
                database.execute(
                    f"SELECT {ALL_COLUMNS}, position FROM waiting"
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
            report = _report_of_row(row)
            (intact if report.checksum == row[4] else damaged).append(report)
        return intact, damaged, (rows[-1][2], rows[-1][6]) if rows else None

    def next_suspect(self) -> Optional[tuple[SpooledReport, str]]:
        """Return a report that was being stored when a process crashed.

        The second value is the reason not to try it again, "" if it may be tried.
        """
        if not self._has_suspects:
            return None
        row = self._read(
            lambda database: database.execute(
                f"SELECT {ALL_COLUMNS.replace('report_id', 'w.report_id')}, h.times"
                " FROM handling h JOIN waiting w ON w.report_id = h.report_id"
                " WHERE w.position NOT IN (SELECT position FROM parked)"
                " ORDER BY h.times, w.arrived_us, w.position LIMIT 1"
            ).fetchone()
        )
        if row is None:
            self._has_suspects = False
            return None
        report = _report_of_row(row)
        if report.checksum != row[4]:
            return report, DAMAGED
        crashed = f"the receiver crashed {row[6]} times while it stored this report"
        return report, crashed if row[6] >= MAX_CRASHES else ""

    def begin(self, reports: Sequence[SpooledReport]) -> None:
        """Record that reports are about to be stored, until `end` or their removal.

        After a crash in between, the next process treats them as suspects.
        """
        boot = read_boot_id()

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
        """Record that the process has survived the reports passed to `begin`."""
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
        """Exclude reports from `next` until their bundle is unparked."""
        rows = [(bundle, report.report_id) for report in reports]
        self._read(
            lambda database: database.executemany(
                "INSERT OR REPLACE INTO temp.parked"
                " SELECT position, ? FROM waiting WHERE report_id = ?",
                rows,
            )
        )

    def park_orphans(self, reports: Iterable[SpooledReport], connection_id: int) -> None:
        """Park reports whose connection is not in the database."""
        self.park(reports, f"{_ORPHANS}{connection_id}")

    def unpark(self, bundle: str) -> None:
        """Let `next` return a bundle's reports again."""
        self._read(
            lambda database: database.execute("DELETE FROM temp.parked WHERE bundle = ?", (bundle,))
        )

    def unpark_orphans(self, connection_id: int) -> None:
        """Let `next` return the reports of a connection again."""
        self.unpark(f"{_ORPHANS}{connection_id}")

    def count_parked(self) -> None:
        """Update `conflicting` and `orphans`."""
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
        """Delete reports that the database has stored."""
        ids = [(report.report_id,) for report in reports]
        try:
            self._delete(ids)
        except SpoolFull:
            self._reserve.unlink(missing_ok=True)
            for first in range(0, len(ids), RESERVE_REPORTS):
                self._delete(ids[first : first + RESERVE_REPORTS])
        self._shrink()

    def _shrink(self) -> None:
        """Return the space of deleted reports to the disk, if there are no others."""
        if not self._depth and not self._dead:
            self._read(lambda database: database.execute("VACUUM"))
        if not self._depth:
            self._make_reserve()

    def drop_orphans(self, connection_id: int) -> int:
        """Delete the reports that wait for a deleted connection; return their number."""

        def work(database: sqlite3.Connection) -> Change:
            gone = database.execute(
                "DELETE FROM waiting WHERE connection_id = ?", (connection_id,)
            ).rowcount
            return -gone, 0

        return -self._write(work)[0]

    def retry_letters(self, report_ids: Sequence[str]) -> None:
        """Let dead letters wait as reports that were never tried."""

        def work(ids: Sequence[tuple[str]], database: sqlite3.Connection) -> Change:
            added = database.executemany(
                f"INSERT INTO waiting ({ALL_COLUMNS}) SELECT {ALL_COLUMNS} FROM dead"
                " WHERE report_id = ? ON CONFLICT (report_id) DO NOTHING",
                ids,
            ).rowcount
            return added, -_delete_letters(database, ids)

        self._write_in_parts(report_ids, work)

    def drop_letters(self, report_ids: Sequence[str]) -> None:
        """Delete dead letters."""
        self._write_in_parts(report_ids, lambda ids, database: (0, -_delete_letters(database, ids)))
        self._shrink()

    def _write_in_parts(
        self,
        report_ids: Sequence[str],
        work: Callable[[Sequence[tuple[str]], sqlite3.Connection], Change],
    ) -> None:
        """Do something with reports, a few at a time, for which a full disk has a reserve."""
        for first in range(0, len(report_ids), RESERVE_REPORTS):
            ids = [(report_id,) for report_id in report_ids[first : first + RESERVE_REPORTS]]
            try:
                self._write(partial(work, ids))
            except SpoolFull:
                self._reserve.unlink(missing_ok=True)
                self._write(partial(work, ids))

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
                f"INSERT INTO dead ({ALL_COLUMNS}, reason) VALUES (?, ?, ?, ?, ?, ?, ?)"
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
        """Delete reports and dead letters without a trace on disk; return their number.

        With `damaged`, files that were moved aside are deleted, too: they may hold any report.
        """
        expunged = self._expunge_table("waiting", unwanted) + self._expunge_table("dead", unwanted)
        for path in list_moved_aside(self._path) if damaged else ():
            logger.warning("%s is removed: it may hold reports of an erased person", path)
            path.unlink(missing_ok=True)
        # Bytes of rows that were deleted or moved earlier are still in the file.
        self._read(lambda database: database.execute("VACUUM"))
        return expunged

    def _expunge_table(self, table: str, unwanted: Callable[[SpooledReport], bool]) -> int:
        last = gone = 0
        while rows := self._read_page(table, last):
            last = rows[-1][-1]
            if positions := [(row[-1],) for row in rows if unwanted(_report_of_row(row))]:
                gone += self._delete_from(table, positions)
        return gone

    def _read_page(self, table: str, after: int) -> list[Any]:
        return self._read(
            lambda database: _bounded_rows(
                database.execute(
                    f"SELECT {ALL_COLUMNS}, position FROM {table} WHERE position > ?"
                    " ORDER BY position LIMIT ?",
                    (after, EXPUNGED_PAGE_ROWS),
                )
            )
        )

    def _delete_from(self, table: str, positions: Sequence[tuple[int]]) -> int:
        def work(database: sqlite3.Connection) -> Change:
            query = f"DELETE FROM {table} WHERE position = ?"
            gone = database.executemany(query, positions).rowcount
            return (-gone, 0) if table == "waiting" else (0, -gone)

        return -sum(self._write(work))

    def erasures(self, fingerprint: str) -> list[Tombstone]:
        """Return the tombstones stored under this key, also by an earlier process."""
        rows = self._read(
            lambda database: database.execute(
                "SELECT connection_id, subject, erased_us, blocked, epoch FROM erasures"
                " WHERE fingerprint = ?",
                (fingerprint,),
            ).fetchall()
        )
        return [Tombstone(row[0], row[1], row[2], bool(row[3]), row[4]) for row in rows]

    def replace_erasures(self, fingerprint: str, stones: Sequence[Tombstone]) -> None:
        """Replace the tombstones stored under this key."""

        def work(database: sqlite3.Connection) -> Change:
            database.execute("DELETE FROM erasures WHERE fingerprint = ?", (fingerprint,))
            database.executemany(
                f"INSERT INTO erasures ({ERASURE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
                [(fingerprint, *stone) for stone in stones],
            )
            return 0, 0

        self._write(work)


def _values(report: SpooledReport) -> tuple[Any, ...]:
    """Return the values of `ALL_COLUMNS`."""
    return (*report[:4], report.checksum, report.epoch)


def _delete_letters(database: sqlite3.Connection, ids: Sequence[tuple[str]]) -> int:
    """Delete dead letters; return their number."""
    return database.executemany("DELETE FROM dead WHERE report_id = ?", ids).rowcount


def _report_of_row(row: Sequence[Any]) -> SpooledReport:
    """Return the report in a row of `ALL_COLUMNS`."""
    return SpooledReport(row[0], row[1], row[2], row[3], row[5])


def _bounded_rows(cursor: sqlite3.Cursor) -> list[tuple[Any, ...]]:
    """Return the next rows (`COLUMNS`, and more), up to `READ_CHARACTERS` of their bodies."""
    rows: list[tuple[Any, ...]] = []
    characters = 0
    for row in cursor:
        rows.append(row)
        characters += len(row[3])
        if characters >= READ_CHARACTERS:
            break
    cursor.close()
    return rows


class WaitingReports(NamedTuple):
    """The reports that wait for a connection, and the arrival of the oldest."""

    connection_id: int
    reports: int
    oldest_us: int


def waiting_by_connection(folder: Path) -> list[WaitingReports]:
    """Count the reports in the spool of `folder` by connection, also beside a running receiver."""
    rows = _query_file(
        folder,
        "SELECT connection_id, COUNT(*), MIN(arrived_us) FROM waiting"
        " GROUP BY connection_id ORDER BY connection_id",
    )
    return [WaitingReports(*row) for row in rows]


def dead_letters(folder: Path) -> list[DeadLetter]:
    """Return the dead letters in the spool of `folder`, also beside a running receiver."""
    rows = _query_file(folder, f"SELECT {COLUMNS}, reason FROM dead ORDER BY position")
    return [DeadLetter(SpooledReport(*row[:4]), row[5]) for row in rows]


def find_reports(folder: Path, report_ids: Sequence[str]) -> tuple[list[DeadLetter], int]:
    """Return those of some reports that are dead letters, and the number of those that wait."""
    chosen = "report_id IN (SELECT value FROM json_each(?))"
    rows = _query_file(
        folder,
        f"SELECT {COLUMNS}, reason FROM dead WHERE {chosen}"
        f" UNION ALL SELECT {COLUMNS}, NULL FROM waiting WHERE {chosen}",
        [json.dumps(report_ids)] * 2,
    )
    letters = [DeadLetter(SpooledReport(*row[:4]), row[5]) for row in rows if row[5] is not None]
    return letters, len(rows) - len(letters)


def _query_file(folder: Path, query: str, parameters: Sequence[str] = ()) -> list[tuple[Any, ...]]:
    path = folder / FILE_NAME
    if not path.exists():
        return []
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=10)) as database:
            return database.execute(query, parameters).fetchall()
    except sqlite3.DatabaseError as error:
        raise ConfigurationError(
            f"can't read {path} ({error}); a receiver fixes its spool when it starts"
        ) from None
