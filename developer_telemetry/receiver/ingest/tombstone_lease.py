"""The tombstones that a receiver may use without a query.

They are read every second. For `LEASE_SECONDS` after a reading no report needs a query for them; a
transaction that ends later reads them itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.database.engine import (
    connect_to_primary,
    database_now_us,
)
from developer_telemetry.errors import Unavailable
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.storage.tombstones import (
    LEASE_SECONDS,
    NONE,
    UNREAD,
    Tombstone,
    TombstoneCache,
    TombstoneKey,
    Tombstones,
    TombstoneVersion,
    read_tombstone_rows,
    read_version,
)

logger = logging.getLogger(__name__)

# A lease must end even while the machine sleeps; the monotonic clock may stop then.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _now() -> float:
    return time.clock_gettime(_CLOCK)


class TombstoneLease(TombstoneCache):
    """The tombstones under a lease; `held` and `check` may be called from any thread.

    The spool stores a copy. A receiver that starts during an outage applies it from the first
    report on, and writes it back to a database that was restored to an older state.
    """

    def __init__(self, engine: Engine, key: TombstoneKey, spool: Optional[Spool] = None) -> None:
        super().__init__(engine, key)
        self._spool = spool
        self._until = float("-inf")
        self._changing = threading.Lock()
        # An earlier reading must not replace a later one, which may be confirmed already.
        self._reading = threading.Lock()
        self._learned = [] if spool is None else spool.erasures(key.fingerprint)
        self._is_remembered = True  # in the spool
        epoch = max((stone.epoch for stone in self._learned), default=0)
        read = UNREAD if self._learned else NONE
        self._tombstones = Tombstones(key, read, self._learned, epoch)

    def check(self, before: Tombstones, connection: SqlConnection) -> None:
        # Check the lease first: a lease renewed in between belongs to the newer reading.
        if _now() >= self._until or before is not self._tombstones:
            super().check(before, connection)

    def reload(self) -> Tombstones:
        """Read the tombstones again if they have changed; renew the lease."""
        with self._reading:
            asked_at = _now()
            with connect_to_primary(self._engine) as connection:
                if read_version(connection) != self._tombstones.version:
                    tombstones = self._merge_rows(
                        *read_tombstone_rows(connection), database_now_us(connection)
                    )
                    with self._changing:
                        self._tombstones = tombstones
            if not self._is_remembered:
                self._save()
            self._until = asked_at + LEASE_SECONDS
            return self._tombstones

    def missing(self) -> list[Tombstone]:
        """Return the tombstones that the database has lost without a replacement."""
        return self._tombstones.find_missing(self._learned)

    def _merge_rows(
        self, rows: Sequence[Tombstone], read: TombstoneVersion, now: int
    ) -> Tombstones:
        epochs = {stone[:3]: stone.epoch for stone in self._learned}
        epoch = self._tombstones.epoch
        if any(row[:3] not in epochs for row in rows):
            epoch += 1
        stones = [row._replace(epoch=epochs.get(row[:3], epoch)) for row in rows]
        tombstones = Tombstones(self.key, read, stones, epoch, now)
        learned = [*stones, *tombstones.find_missing(self._learned)]
        self._is_remembered = self._is_remembered and learned == self._learned
        self._learned = learned
        return tombstones

    def _save(self) -> None:
        try:
            if self._spool is not None:
                self._spool.replace_erasures(self.key.fingerprint, self._learned)
            self._is_remembered = True
        except Unavailable as error:
            logger.warning("erasures can't be kept in the spool now: %s", error)

    @contextmanager
    def locked(self) -> Iterator[Tombstones]:
        """Yield the tombstones, to which none is added until the end of the block."""
        with self._changing:
            yield self._tombstones
