"""The job that applies erasures to this receiver, and confirms them to the `erase` command.

It reads the tombstones every second. For `LEASE_SECONDS` after a read, reports are stored without
a query for tombstones; a transaction that ends later queries them itself. `erase` waits until each
receiver has confirmed, or until the lease of a receiver that does not answer has ended.
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

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.concurrency import PeriodicThread
from developer_telemetry.constants import RECEIVER_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import (
    reading,
    transact,
)
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.errors import ConfigurationError, Unavailable
from developer_telemetry.private_files import replace_file
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.receiver.ingest.spooled_report import (
    SpooledReport,
    is_erased,
    parse_spooled,
)
from developer_telemetry.receiver.ingest.tombstone_lease import TombstoneLease
from developer_telemetry.storage.tombstones import (
    Tombstone,
    Tombstones,
    write_tombstones,
)

POLL_SECONDS = 1.0
# The time between two signs of life while there is nothing to confirm.
SEEN_SECONDS = 10.0
IDENTITY_NAME = "receiver-id"

logger = logging.getLogger(__name__)


class ReceiverIdentity:
    """The id and the name of a receiver, which `erase` shows to its operator.

    The id is stored in the spool's folder, so that it survives a restart.

    Raises:
        ConfigurationError: if the folder is not writable.
    """

    def __init__(self, folder: Path, port: int, embedded: bool) -> None:
        path = folder / IDENTITY_NAME
        try:
            try:
                self.id = str(uuid.UUID(path.read_text(encoding="ascii")))
            except (FileNotFoundError, ValueError):  # the first time, or cut off by a crash
                self.id = str(uuid.uuid4())
                with replace_file(path) as file:
                    file.write(self.id.encode())
        except OSError as error:
            raise ConfigurationError(
                f"can't store this receiver's id in {path} ({error.strerror});"
                " make the folder writable for the receiver's user"
            ) from None
        # An embedded database is on a person's own machine, whose name may contain theirs.
        self.name = f"{'localhost' if embedded else socket.gethostname()}:{port}"[:255]

    @property
    def label(self) -> str:
        """Return the name and the start of the id, since two receivers may have the same name."""
        return f"{self.name} {self.id[:8]}"


class ErasureWatcher(PeriodicThread):
    """Renews the lease, deletes the reports of erased people from the spool, and confirms that."""

    def __init__(
        self,
        engine: Engine,
        lease: TombstoneLease,
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
        self._logged_problem = ""

    def _run(self) -> None:
        while True:
            try:
                self._work()
                self._logged_problem = ""
            except SQLAlchemyError:
                pass  # the monitor reports an outage of the database
            except Unavailable as error:
                self._log_problem(
                    f"can't delete the reports of erased people from the spool: {error}"
                )
            except Exception as error:  # no error may end this thread
                kind = type(error).__name__
                self._log_problem(f"applying erasures failed: {kind}: {describe_error(error)}")
            if self._ending.wait(POLL_SECONDS):
                break
        with suppress(SQLAlchemyError):
            self._sign_off()

    def _log_problem(self, problem: str) -> None:
        if problem != self._logged_problem:
            logger.error("%s; will try again", problem)
        self._logged_problem = problem

    def _work(self) -> None:
        tombstones = self._lease.reload()
        missing = self._lease.missing()
        if missing:
            self._write_back(missing)
            tombstones = self._lease.reload()
        if tombstones is not self._cleared:
            if self._confirmed is None:
                self._confirmed = self._read_confirmed()
            if tombstones:
                self._write_state()  # a sign of life for `erase`, since clearing may take long
                tombstones = self._clear_all(tombstones)
            self._cleared = tombstones
            self._confirmed = tombstones.version.last_id
            self._write_state()
        elif time.monotonic() - self._seen_at >= SEEN_SECONDS:
            self._write_state()

    def _read_confirmed(self) -> int:
        """Read the id of the last tombstone confirmed for this spool, perhaps before a restart."""
        placeholder = dialect_of(self._engine).placeholder
        with reading(self._engine).connect() as connection:
            confirmed: Optional[int] = connection.exec_driver_sql(
                f"SELECT confirmed FROM {RECEIVER_TABLE}"
                f" WHERE id = {placeholder} AND fingerprint = {placeholder}",
                (self._identity.id, self._fingerprint),
            ).scalar()
        return confirmed or 0

    def _write_back(self, missing: Sequence[Tombstone]) -> None:
        """Write tombstones back that the database has lost by a restore or a failover."""
        transact(self._engine, partial(write_tombstones, stones=missing))
        logger.error(
            "the database had lost the erasures of %d people or addresses, perhaps by a restore;"
            " they are in force again. Run `developer-telemetry erase --again --yes` to delete the"
            " restored data of these people",
            len(missing),
        )

    def _clear_all(self, tombstones: Tombstones) -> Tombstones:
        """Delete all spooled reports of erased people; return the tombstones, new ones included.

        A report may contain the erased e-mail address of a developer whose other reports don't
        contain it. The developer then gets a tombstone, too, and the spool is searched again.
        """
        removed = 0
        while True:
            new_tombstones = self._clear(tombstones)
            removed += self._removed
            if not new_tombstones:
                self._removed = removed
                return tombstones
            transact(self._engine, partial(write_tombstones, stones=new_tombstones))
            tombstones = self._lease.reload()

    def _clear(self, tombstones: Tombstones) -> Sequence[Tombstone]:
        """Delete the reports that tombstones cover from the spool.

        Returns:
            Tombstones for developers whose reports only an e-mail address covers.
        """
        new_tombstones: dict[tuple[int, str], Tombstone] = {}

        def is_unwanted(report: SpooledReport) -> bool:
            arrival = parse_spooled(report)
            if arrival is None:
                return is_erased(tombstones, report)
            stone = tombstones.find_by_address(arrival)
            if stone is not None:
                subject = self._lease.key.developer(arrival.report.developer_id)
                new_tombstones[arrival.connection_id, subject] = Tombstone(
                    arrival.connection_id, subject, stone.erased_us, stone.blocked
                )
            return tombstones.covers(arrival)

        # Once all tombstones are confirmed, damaged files contain only what was cleared before.
        damaged = self._confirmed != tombstones.version.last_id
        self._removed = self._spool.expunge(is_unwanted, damaged)
        if self._removed:
            logger.info("deleted %d reports of erased people from the spool", self._removed)
        return list(new_tombstones.values())

    def _write_state(self) -> None:
        values = {
            "id": self._identity.id,
            "name": self._identity.name,
            "fingerprint": self._fingerprint,
            "confirmed": self._confirmed,
            "removed": self._removed,
        }
        transact(self._engine, partial(_write_state, values=values))
        self._seen_at = time.monotonic()

    def _sign_off(self) -> None:
        """Delete this receiver's row if the spool is empty: `erase` need not wait for it then."""
        if self._spool.is_empty:
            placeholder = dialect_of(self._engine).placeholder
            statement = f"DELETE FROM {RECEIVER_TABLE} WHERE id = {placeholder}"
            transact(self._engine, lambda to: to.exec_driver_sql(statement, (self._identity.id,)))


def _write_state(connection: SqlConnection, values: Mapping[str, Any]) -> None:
    """Insert or update a receiver's row; `values` begin with its id."""
    dialect = dialect_of(connection)
    columns = [*list(values)[1:], "seen"]
    connection.exec_driver_sql(
        f"INSERT INTO {RECEIVER_TABLE} ({', '.join(values)}, seen)"
        f" VALUES ({', '.join([dialect.placeholder] * len(values))}, {dialect.ago(0)}) "
        + dialect.on_conflict(("id",), [(column, dialect.new(column)) for column in columns]),
        tuple(values.values()),
    )
