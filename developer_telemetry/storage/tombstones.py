"""Tombstones of erased people, which every writer obeys, so that no erased row returns.

A tombstone holds no name, only a hash under a key that is not in the database. It covers reports
that arrived until a time; one that blocks a person covers all of them. A writer leaves out covered
reports, and before it commits it checks that it has read all tombstones. By then it holds a lock on
the raw layer for which `erasure` waits, so an erasure never misses a report.

No clock decides alone. A receiver counts how often it has read new tombstones, its *epoch*, and
stores with each report the epoch in which it arrived. A report from before the receiver read a
tombstone is covered even if its time is later, by up to `DOUBT_US`. A report that the receiver
accepts afterwards gets a time later than the tombstone's, so other writers need no epoch.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import TOMBSTONE_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import reading
from developer_telemetry.reports.daily_metrics import NO_EPOCH, ReceivedReport
from developer_telemetry.reports.parser import Report

# The connection of a tombstone that holds for all connections.
ALL_CONNECTIONS = 0
# The maximum by which a receiver's clock may be fast while it does not know of an erasure. A report
# that arrived more than this after the tombstone was sent after it.
DOUBT_US = 86_400_000_000
# No report can have arrived at a time so far ahead of the database's.
FUTURE_US = 60_000_000
# The time after a reading of the tombstones in which reports may be stored without another one.
LEASE_SECONDS = 3.0

_DEVELOPER = b"developer"
_EMAIL = b"email"


class Tombstone(NamedTuple):
    """One row of the table; `erased_us` is UTC in microseconds, by the database's clock."""

    connection_id: int
    subject: str
    erased_us: int
    blocked: bool
    epoch: int = 0  # in which a receiver has read it

    def replaces(self, other: Tombstone) -> bool:
        """Return true if this one is no older, and the other one has no further effect."""
        return (
            self.subject == other.subject
            and self.connection_id in (ALL_CONNECTIONS, other.connection_id)
            and self.erased_us >= other.erased_us
        )


class TombstoneVersion(NamedTuple):
    """Identity of one state of the table, also different from states restored from a backup."""

    stones: int
    last_id: int
    newest_us: int


NONE = TombstoneVersion(0, 0, 0)
# The version of tombstones from a file; the table never has it.
UNREAD = TombstoneVersion(-1, 0, 0)


class OutdatedTombstones(Exception):
    """A person was erased after the tombstones were read: the transaction must not commit."""


class TombstoneKey:
    """The key by which people are hashed; without it, no name can be compared with the hashes."""

    def __init__(self, encryption_secret: str) -> None:
        secret = encryption_secret.strip().encode()
        self._key = hmac.new(secret, b"developer_telemetry tombstones", hashlib.sha256).digest()

    @property
    def fingerprint(self) -> str:
        """Return a text that is equal for equal keys and does not reveal the key."""
        return _hash(self._key, b"fingerprint", "")[:16]

    def developer(self, developer_id: str) -> str:
        """Return the subject of a tombstone for a developer's exact id."""
        return _hash(self._key, _DEVELOPER, developer_id)

    def email(self, email: str) -> str:
        """Return the subject of a tombstone for an e-mail address, in any case."""
        return _hash(self._key, _EMAIL, email.lower())


# The same people report every hour, and a receiver checks all of them.
@lru_cache(maxsize=16_384)
def _hash(key: bytes, kind: bytes, text: str) -> str:
    # A keyed hash takes a third of the time of an HMAC.
    return hashlib.blake2b(text.encode(), key=key, person=kind, digest_size=32).hexdigest()


class Tombstones:
    """All tombstones at the time `read_us`, in a receiver's `epoch`."""

    def __init__(
        self,
        key: TombstoneKey,
        version: TombstoneVersion = NONE,
        rows: Iterable[Tombstone] = (),
        epoch: int = 0,
        read_us: int = 0,
    ) -> None:
        self.version = version
        self.epoch = epoch
        self._key = key
        self._read_us = read_us
        self._stones: dict[str, dict[int, Tombstone]] = {}  # by subject and connection
        self._newest_us = -1
        for row in rows:
            places = self._stones.setdefault(row.subject, {})
            if row.connection_id not in places or row.replaces(places[row.connection_id]):
                places[row.connection_id] = row
            self._newest_us = max(self._newest_us, row.erased_us)

    def __bool__(self) -> bool:
        return bool(self._stones)

    def without_erased(self, arrivals: Sequence[ReceivedReport]) -> Sequence[ReceivedReport]:
        """Return the arrivals of people who were not erased."""
        if not self._stones:
            return arrivals
        return [arrival for arrival in arrivals if not self.covers(arrival)]

    def covers(self, arrival: ReceivedReport) -> bool:
        """Return true if the person of a report was erased after it had arrived, or is blocked."""
        report = arrival.report
        return self.cover_person(
            arrival.connection_id,
            arrival.arrived_us,
            report.developer_id,
            report.email,
            arrival.epoch,
        )

    def cover_person(
        self,
        connection_id: int,
        arrived_us: int,
        developer_id: str,
        email: str,
        epoch: int = NO_EPOCH,
    ) -> bool:
        """Return true if a report or a day's row of this person is covered; see `covers`."""
        return any(
            self._is_covered(stone, arrived_us, epoch)
            for stone in self._find_stones(connection_id, developer_id, email)
        )

    def find_by_address(self, arrival: ReceivedReport) -> Optional[Tombstone]:
        """Return the tombstone that covers a report only by its address, not its developer."""
        report = arrival.report
        own = list(self._find_stones(arrival.connection_id, report.developer_id, ""))
        for stone in self._find_stones(arrival.connection_id, report.developer_id, report.email):
            is_new = not any(
                other.erased_us >= stone.erased_us and other.blocked >= stone.blocked
                for other in own
            )
            if is_new and self._is_covered(stone, arrival.arrived_us, arrival.epoch):
                return stone
        return None

    def next_arrival_us(self, connection_id: int, arrived_us: int, report: Report) -> int:
        """Return a time for a new report that is later than its person's tombstones."""
        if arrived_us > self._newest_us:  # as nearly always
            return arrived_us
        stones = self._find_stones(connection_id, report.developer_id, report.email)
        return max([arrived_us, *(stone.erased_us + 1 for stone in stones)])

    def find_by_developer(self, connection_id: int, developer_id: str) -> Optional[Tombstone]:
        """Return the newest tombstone for a developer's exact id."""
        stones = self._find_stones(connection_id, developer_id, "")
        return max(stones, key=lambda stone: (stone.blocked, stone.erased_us), default=None)

    def find_missing(self, stones: Iterable[Tombstone]) -> list[Tombstone]:
        """Return the tombstones of `stones` that are neither here nor replaced by one here."""
        return [
            stone
            for stone in stones
            if not any(
                ours.replaces(stone) for ours in self._stones.get(stone.subject, {}).values()
            )
        ]

    def _find_stones(
        self, connection_id: int, developer_id: str, email: str
    ) -> Iterator[Tombstone]:
        """Yield the tombstones of a person; `email` may be "", which matches none."""
        subjects = [self._key.developer(developer_id)]
        if email:
            subjects.append(self._key.email(email))
        for subject in subjects:
            by_scope = self._stones.get(subject)
            if by_scope is not None:
                for scope_id in (ALL_CONNECTIONS, connection_id):
                    if scope_id in by_scope:
                        yield by_scope[scope_id]

    def _is_covered(self, stone: Tombstone, arrived_us: int, epoch: int) -> bool:
        if stone.blocked or arrived_us <= stone.erased_us:
            return True
        # The receiver had not read the tombstone yet, so the time may be wrong.
        return epoch < stone.epoch and (
            arrived_us <= stone.erased_us + DOUBT_US or arrived_us > self._read_us + FUTURE_US
        )

    def may_be_covered(self, connection_id: int, arrived_us: int, epoch: int = NO_EPOCH) -> bool:
        """Return true if any person was erased after the arrival of an unreadable report."""
        return any(
            self._is_covered(stone._replace(blocked=False), arrived_us, epoch)
            for places in self._stones.values()
            for stone in places.values()
            if stone.connection_id in (ALL_CONNECTIONS, connection_id)
        )


class TombstoneCache:
    """The tombstones that a writer has read, checked against the database in each transaction."""

    def __init__(self, engine: Engine, key: TombstoneKey) -> None:
        self._engine = engine
        self.key = key
        # None before the first reading; `check` then raises.
        self._tombstones = Tombstones(key)

    def tombstones(self) -> Tombstones:
        """Return the tombstones as last read."""
        return self._tombstones

    def check(self, before: Tombstones, connection: SqlConnection) -> None:
        """Raise `OutdatedTombstones` unless `before` has all tombstones, right before a commit."""
        if read_version(connection) != before.version:
            raise OutdatedTombstones

    def reload(self) -> Tombstones:
        """Read the tombstones again and return them."""
        with reading(self._engine).connect() as connection:
            self._tombstones = read_tombstones(connection, self.key)
        return self._tombstones


def read_version(connection: SqlConnection) -> TombstoneVersion:
    """Return the table's current version."""
    count, last_id, newest_us = connection.exec_driver_sql(
        f"SELECT COUNT(*), MAX(id), MAX(erased_us) FROM {TOMBSTONE_TABLE}"
    ).one()
    return TombstoneVersion(count, last_id or 0, newest_us or 0)


def read_tombstones(connection: SqlConnection, key: TombstoneKey) -> Tombstones:
    """Return all tombstones."""
    stones, table_version = read_tombstone_rows(connection)
    return Tombstones(key, table_version, stones)


def read_tombstone_rows(connection: SqlConnection) -> tuple[list[Tombstone], TombstoneVersion]:
    """Return the rows of the table, and its version."""
    rows = connection.exec_driver_sql(
        f"SELECT id, connection_id, subject, erased_us, blocked FROM {TOMBSTONE_TABLE}"
    ).fetchall()
    # Counted here, since another statement might read another state.
    last_id = max((row[0] for row in rows), default=0)
    newest_us = max((row[3] for row in rows), default=0)
    stones = [Tombstone(row[1], row[2], row[3], bool(row[4])) for row in rows]
    return stones, TombstoneVersion(len(rows), last_id, newest_us)


def write_tombstones(connection: SqlConnection, stones: Iterable[Tombstone]) -> None:
    """Add tombstones; a duplicate is harmless."""
    marks = ", ".join([dialect_of(connection).placeholder] * 4)
    for stone in stones:
        connection.exec_driver_sql(
            f"INSERT INTO {TOMBSTONE_TABLE} (connection_id, subject, erased_us, blocked)"
            f" VALUES ({marks})",
            stone[:4],
        )
