"""What this receiver knows of people who were erased, and that it does, for `erase` to see.

Tombstones are read every second. As long as the last reading is no older than `LEASE_SECONDS`, no
report costs a question; a transaction that ends later asks the database itself. `erase` waits
until each receiver has confirmed, or until the lease of those that don't answer is over.
"""

from __future__ import annotations

import logging
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Optional

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.concurrency import PeriodicThread
from developer_telemetry.constants import RECEIVER_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import (
    reading,
    reason,
    transact,
)
from developer_telemetry.errors import ConfigurationError, Unavailable
from developer_telemetry.private_files import replacing
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.receiver.ingest.spooled_report import Spooled, is_erased, parse_spooled
from developer_telemetry.receiver.ingest.tombstone_lease import Lease
from developer_telemetry.storage.tombstones import (
    Tombstone,
    Tombstones,
    write,
)

POLL_SECONDS = 1.0
# How often a receiver says that it is there when there is nothing else to say.
SEEN_SECONDS = 10.0
IDENTITY_NAME = "receiver-id"


logger = logging.getLogger(__name__)


class ReceiverIdentity:
    """By what `erase` and its operator know a receiver: its spool's id, and where it runs."""

    def __init__(self, folder: Path, port: int, embedded: bool) -> None:
        path = folder / IDENTITY_NAME
        try:
            try:
                self.id = str(uuid.UUID(path.read_text(encoding="ascii")))
            except (FileNotFoundError, ValueError):  # the first time, or cut off by a crash
                self.id = str(uuid.uuid4())
                with replacing(path) as file:
                    file.write(self.id.encode())
        except OSError as error:
            raise ConfigurationError(
                f"can't keep this receiver's id in {path} ({error.strerror}); let it be written"
            ) from None
        # The machine of an embedded database is somebody's own, and its name says whose.
        self.name = f"{'localhost' if embedded else socket.gethostname()}:{port}"[:255]

    @property
    def label(self) -> str:
        """Name and the start of the id, which tells apart those behind one name."""
        return f"{self.name} {self.id[:8]}"


class ErasureWatcher(PeriodicThread):
    """Keeps a lease, clears the spool of who was erased, and confirms that."""

    def __init__(
        self,
        engine: Engine,
        lease: Lease,
        spool: Spool,
        identity: ReceiverIdentity,
        fingerprint: str,
    ) -> None:
        super().__init__("tombstones")
        self._engine = engine
        self._lease = lease
        self._spool = spool
        self._identity = identity
        self._fingerprint = fingerprint
        self._cleared: Optional[Tombstones] = None
        self._confirmed: Optional[int] = None
        self._removed = 0
        self._seen_at = float("-inf")
        self._said = ""

    def _run(self) -> None:
        while True:
            try:
                self._look()
                self._said = ""
            except SQLAlchemyError:
                pass  # whoever wants to store reports finds out, too, and says so
            except Unavailable as error:
                self._complain(f"the spool can't be cleared of people who were erased: {error}")
            except Exception as error:  # nothing may end the rounds
                kind = type(error).__name__
                self._complain(f"looking for erased people failed: {kind}: {reason(error)}")
            if self._ending.wait(POLL_SECONDS):
                break
        with suppress(SQLAlchemyError):
            self._leave()

    def _complain(self, problem: str) -> None:
        if problem != self._said:
            logger.error("%s; will try again", problem)
        self._said = problem

    def _look(self) -> None:
        known = self._lease.reload()
        missing = self._lease.missing()
        if missing:
            self._write_back(missing)
            known = self._lease.reload()
        if known is not self._cleared:
            if self._confirmed is None:
                self._confirmed = self._recall()
            if known:
                self._say_seen()  # whoever waits has to know that somebody is at it
                known = self._clear_all(known)
            self._cleared = known
            self._confirmed = known.version.last_id
            self._say_seen()
        elif time.monotonic() - self._seen_at >= SEEN_SECONDS:
            self._say_seen()

    def _recall(self) -> int:
        """The last tombstone that the spool was cleared for, perhaps by another process."""
        mark = dialect_of(self._engine).placeholder
        with reading(self._engine).connect() as connection:
            confirmed: Optional[int] = connection.exec_driver_sql(
                f"SELECT confirmed FROM {RECEIVER_TABLE}"
                f" WHERE id = {mark} AND fingerprint = {mark}",
                (self._identity.id, self._fingerprint),
            ).scalar()
        return confirmed or 0

    def _write_back(self, missing: Sequence[Tombstone]) -> None:
        """Put tombstones back that a restored database, or a replica in its place, has lost."""
        transact(self._engine, partial(write, stones=missing))
        logger.error(
            "the database had lost the erasures of %d people or addresses, as one that was restored"
            " has; they are in force again. Run `developer-telemetry erase --again --yes` to remove"
            " what has come back of these people",
            len(missing),
        )

    def _clear_all(self, known: Tombstones) -> Tombstones:
        """Clear the spool; also of those who are known by an address in another report there."""
        removed = 0
        while True:
            named = self._clear(known)
            removed += self._removed
            if not named:
                self._removed = removed
                return known
            transact(self._engine, partial(write, stones=named))
            known = self._lease.reload()

    def _clear(self, known: Tombstones) -> Sequence[Tombstone]:
        """Return tombstones for developers who were found by their addresses alone."""
        named: dict[tuple[int, str], Tombstone] = {}

        def is_unwanted(report: Spooled) -> bool:
            arrival = parse_spooled(report)
            if arrival is None:
                return is_erased(known, report)
            stone = known.by_address(arrival)
            if stone is not None:
                subject = self._lease.key.developer(arrival.report.developer_id)
                named[arrival.connection_id, subject] = Tombstone(
                    arrival.connection_id, subject, stone.erased_us, stone.blocked
                )
            return known.cover(arrival)

        # A file that was damaged since then can't hold more than what was cleared.
        damaged = self._confirmed != known.version.last_id
        self._removed = self._spool.expunge(is_unwanted, damaged)
        if self._removed:
            logger.info("%d reports of people who were erased left the spool", self._removed)
        return list(named.values())

    def _say_seen(self) -> None:
        values = {
            "id": self._identity.id,
            "name": self._identity.name,
            "fingerprint": self._fingerprint,
            "confirmed": self._confirmed,
            "removed": self._removed,
        }
        transact(self._engine, partial(_say_seen, values=values))
        self._seen_at = time.monotonic()

    def _leave(self) -> None:
        """With nothing in the spool there is nothing that anybody would have to ask about."""
        if self._spool.is_empty:
            mark = dialect_of(self._engine).placeholder
            forget = f"DELETE FROM {RECEIVER_TABLE} WHERE id = {mark}"
            transact(self._engine, lambda to: to.exec_driver_sql(forget, (self._identity.id,)))


def _say_seen(connection: Connection, values: Mapping[str, Any]) -> None:
    dialect = dialect_of(connection)
    changing = [*list(values)[1:], "seen"]
    connection.exec_driver_sql(
        f"INSERT INTO {RECEIVER_TABLE} ({', '.join(values)}, seen)"
        f" VALUES ({', '.join([dialect.placeholder] * len(values))}, {dialect.ago(0)}) "
        + dialect.on_conflict(("id",), [(each, dialect.new(each)) for each in changing]),
        tuple(values.values()),
    )
