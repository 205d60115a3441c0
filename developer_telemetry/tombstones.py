"""Who was erased: every writer obeys this, so that nothing of them comes back.

A tombstone holds no name, only a hash under a key that is not in the database. It covers what
arrived until a time, one that blocks whatever arrives. A writer leaves out what it knows to be
covered and asks, before it commits, whether it still knows them all. By then it holds a lock on the
raw layer that `erasing` waits for, so no report is written behind an erasure's back.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy.engine import Connection, Engine

from developer_telemetry.database import reading
from developer_telemetry.merging import Arrival

TOMBSTONE_TABLE = "_tool_developer_telemetry_tombstones"
RECEIVER_TABLE = "_tool_developer_telemetry_receivers"
# What a tombstone has for its connection when it counts for all of them.
ALL_CONNECTIONS = 0
FOR_EVER = 1 << 63
# How long after a reading of the tombstones reports may be stored without another one.
LEASE_SECONDS = 3.0

_DEVELOPER = b"developer"
_EMAIL = b"email"


class Tombstone(NamedTuple):
    """One row of the table; `erased_us` is UTC in microseconds, by the database's clock."""

    connection_id: int
    subject: str
    erased_us: int
    blocked: bool


class Version(NamedTuple):
    """Tells one state of the table from any other, also from one that a backup brought back."""

    stones: int
    last_id: int
    newest_us: int


NONE = Version(0, 0, 0)


class Outdated(Exception):
    """Somebody was erased since the tombstones were read: nothing may be committed by them."""


class Key:
    """Hashes people; whoever has the database alone can't try out names."""

    def __init__(self, encryption_secret: str) -> None:
        secret = encryption_secret.strip().encode()
        self._key = hmac.new(secret, b"developer_telemetry tombstones", hashlib.sha256).digest()

    @property
    def fingerprint(self) -> str:
        """Equal for those who have the same key, and of no use to others."""
        return _hash(self._key, b"fingerprint", "")[:16]

    def developer(self, developer_id: str) -> str:
        """The subject of a tombstone for a developer, spelled exactly so."""
        return _hash(self._key, _DEVELOPER, developer_id)

    def email(self, email: str) -> str:
        """The subject of a tombstone for an e-mail address, in whatever case."""
        return _hash(self._key, _EMAIL, email.lower())


# The same few people report every hour, and a receiver looks at all of them.
@lru_cache(maxsize=16_384)
def _hash(key: bytes, kind: bytes, text: str) -> str:
    # Takes a third of the time of an HMAC.
    return hashlib.blake2b(text.encode(), key=key, person=kind, digest_size=32).hexdigest()


class Tombstones:
    """All that there were at one moment."""

    def __init__(self, key: Key, version: Version = NONE, rows: Iterable[Tombstone] = ()) -> None:
        self.version = version
        self._key = key
        self._until: dict[str, dict[int, int]] = {}  # by subject and connection
        self._newest_us: dict[int, int] = {}
        for row in rows:
            until = FOR_EVER if row.blocked else row.erased_us
            self._until.setdefault(row.subject, {})[row.connection_id] = until
            newest_us = self._newest_us.get(row.connection_id, row.erased_us)
            self._newest_us[row.connection_id] = max(newest_us, row.erased_us)

    def __bool__(self) -> bool:
        return bool(self._until)

    def spare(self, arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
        """The arrivals of whom nobody was erased."""
        if not self._until:
            return arrivals
        return [each for each in arrivals if not self.cover(each)]

    def cover(self, arrival: Arrival) -> bool:
        """Whether whoever a report is about was erased after it had arrived, or is blocked."""
        report = arrival.report
        return self.cover_person(
            arrival.connection_id, arrival.arrived_us, report.developer_id, report.email
        )

    def cover_person(
        self, connection_id: int, arrived_us: int, developer_id: str, email: str
    ) -> bool:
        """The same of a report, or of the row of a day, that is of this person."""
        return self._covers(connection_id, arrived_us, self._key.developer(developer_id)) or (
            bool(email) and self._covers(connection_id, arrived_us, self._key.email(email))
        )

    def _covers(self, connection_id: int, arrived_us: int, subject: str) -> bool:
        places = self._until.get(subject)
        return places is not None and arrived_us <= max(
            places.get(ALL_CONNECTIONS, -1), places.get(connection_id, -1)
        )

    def may_cover(self, connection_id: int, arrived_us: int) -> bool:
        """Whether anybody at all was erased after a report had arrived that nobody can read."""
        return any(
            arrived_us <= self._newest_us.get(place, -1)
            for place in (ALL_CONNECTIONS, connection_id)
        )


class Erased:
    """What a writer knows of the erased, by asking the database in each of its transactions."""

    def __init__(self, engine: Engine, key: Key) -> None:
        self._engine = engine
        self._key = key
        # None before the first reading, which `check` finds out.
        self._known = Tombstones(key)

    def known(self) -> Tombstones:
        """The tombstones as last read."""
        return self._known

    def check(self, known: Tombstones, connection: Connection) -> None:
        """Raise `Outdated` unless `known` is all there is; the last thing in a transaction."""
        if version(connection) != known.version:
            raise Outdated

    def reload(self) -> Tombstones:
        """Read them again."""
        with reading(self._engine).connect() as connection:
            self._known = read(connection, self._key)
        return self._known


def version(connection: Connection) -> Version:
    """The version of the table as it is."""
    count, last_id, newest_us = connection.exec_driver_sql(
        f"SELECT COUNT(*), MAX(id), MAX(erased_us) FROM {TOMBSTONE_TABLE}"
    ).one()
    return Version(count, last_id or 0, newest_us or 0)


def read(connection: Connection, key: Key) -> Tombstones:
    """All tombstones."""
    rows = connection.exec_driver_sql(
        f"SELECT id, connection_id, subject, erased_us, blocked FROM {TOMBSTONE_TABLE}"
    ).fetchall()
    # Counted here, since another statement might meet another state.
    last_id = max((row[0] for row in rows), default=0)
    newest_us = max((row[3] for row in rows), default=0)
    stones = [Tombstone(row[1], row[2], row[3], bool(row[4])) for row in rows]
    return Tombstones(key, Version(len(rows), last_id, newest_us), stones)
