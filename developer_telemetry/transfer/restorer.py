"""Restore a backup into a database without rows of ours, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from developer_telemetry.constants import (
    LINK_TABLE,
    MADE_LINK_TABLE,
    REFUSAL_TABLE,
    REFUSED_MACHINE_TABLE,
    TOMBSTONE_TABLE,
)
from developer_telemetry.database.bulk_insert import insert_typed
from developer_telemetry.database.dialects.base import count_characters, cut
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import address_of
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.database.schema_versions import LATEST
from developer_telemetry.errors import ConfigurationError, Unavailable
from developer_telemetry.storage.devlake_schema import USER_TABLE, has_users
from developer_telemetry.storage.tombstones import Tombstone, TombstoneKey, read_tombstone_rows
from developer_telemetry.transfer.backup import BackupTable, list_tables
from developer_telemetry.transfer.backup_file import BackupHeader, BackupReader

# Rows in memory at once, and their characters.
_ROWS = 500
_CHARACTERS = 4 << 20
# Receivers write these also while there is no connection: erasures that they remember, and counts.
_RECEIVERS_TABLES = (TOMBSTONE_TABLE, REFUSAL_TABLE, REFUSED_MACHINE_TABLE)


def require_compatible(header: BackupHeader, encryption_secret: str) -> None:
    """Check that a backup can be restored here, before anything is made.

    Raises:
        ConfigurationError: It is of a newer release, or was made under another ENCRYPTION_SECRET.
    """
    if header.schema > LATEST:
        raise ConfigurationError(
            f"the backup is of release {header.release}, which has newer tables; update"
            " developer-telemetry"
        )
    if header.secret != TombstoneKey(encryption_secret).fingerprint:
        raise ConfigurationError(
            "the backup was made under another ENCRYPTION_SECRET, without which its tokens,"
            " pseudonyms and erasures can't be read; set it to the value of that time"
        )


def require_empty(connection: SqlConnection) -> None:
    """Check that a database has no rows that a restore could overwrite.

    Raises:
        ConfigurationError: It has some; the message counts them.
    """
    names = set(inspect(connection).get_table_names())
    counts = {
        source.table.label: connection.exec_driver_sql(
            f"SELECT COUNT(*) FROM {source.table.name}"
        ).scalar_one()
        for source in list_tables()
        if source.table.name in names.difference(_RECEIVERS_TABLES, (LINK_TABLE,))
    }
    filled = ", ".join(f"{count} {label}" for label, count in counts.items() if count)
    if filled:
        raise ConfigurationError(
            f"the database {address_of(connection.engine)} is not empty, it has {filled}; restore"
            " into a new one, or delete its connections with `developer-telemetry connections"
            " delete`"
        )


class Restorer:
    """Restores one backup. `links_left_out` counts links to users that this database lacks."""

    def __init__(self, engine: Engine, reader: BackupReader) -> None:
        self._engine = engine
        self._reader = reader
        self._targets = {target.table.name: target for target in list_tables()}
        self._users: frozenset[str] = frozenset()
        self.links_left_out = 0

    def restore(self) -> Iterator[int]:
        """Write all rows and commit; yields the number of rows so far.

        Raises:
            ConfigurationError: The database is not empty, or the backup is damaged.
            Unavailable: Another process has written the same rows.
        """
        rows = 0
        try:
            with self._engine.connect() as connection, connection.begin():
                require_empty(connection)
                self._users = _read_users(connection)
                for table, group in groupby(self._reader.rows(), key=itemgetter(0)):
                    for count in self._write(connection, table, map(itemgetter(1), group)):
                        rows += count
                        yield rows
                _continue_ids(connection, self._targets.values())
        except IntegrityError as error:
            raise Unavailable(
                f"another process writes to this database ({describe_error(error)}), for example"
                " another restore; nothing was restored: wait until it has ended, and try again"
            ) from None

    def _write(
        self, connection: SqlConnection, name: str, rows: Iterator[dict[str, Any]]
    ) -> Iterator[int]:
        """Write rows of a table; yields the size of each statement's batch."""
        target = self._targets.get(name)
        if target is None:
            raise self._reader.make_error(f"it has a table {name!r}")
        if name == TOMBSTONE_TABLE:
            rows = _merge_tombstones(connection, rows)
        first = next(rows, None)
        if first is None:
            return
        # An older release had fewer columns; newer ones get their default.
        columns = [column for column in target.columns if column in first]
        values = self._values(target, columns, chain([first], rows))
        for batch in cut(values, _ROWS, _CHARACTERS, count_characters):
            tail = dialect_of(connection).on_conflict(target.keys, ())
            is_shared = name == LINK_TABLE or name in _RECEIVERS_TABLES
            insert_typed(connection, name, columns, batch, tail if is_shared else "")
            yield len(batch)

    def _values(
        self, target: BackupTable, columns: Sequence[str], rows: Iterable[dict[str, Any]]
    ) -> Iterator[list[Any]]:
        is_link = target.table.name in (LINK_TABLE, MADE_LINK_TABLE)
        for row in rows:
            if row.keys() != set(columns):
                raise self._reader.make_error(f"columns differ in {target.table.name}")
            if is_link and row["user_id"] not in self._users:
                self.links_left_out += target.table.name == MADE_LINK_TABLE
            else:
                yield [row[column] for column in columns]


def _read_users(connection: SqlConnection) -> frozenset[str]:
    """Return the ids of DevLake's users; none outside of DevLake."""
    if not has_users(connection):
        return frozenset()
    return frozenset(row[0] for row in connection.exec_driver_sql(f"SELECT id FROM {USER_TABLE}"))


def _merge_tombstones(
    connection: SqlConnection, rows: Iterator[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Leave out the tombstones that are here already, and then the ids, which may be taken."""
    here = {stone[:4] for stone in read_tombstone_rows(connection)[0]}
    for row in rows:
        if here:
            del row["id"]
        if tuple(row[field] for field in Tombstone._fields[:4]) not in here:
            yield row


def _continue_ids(connection: SqlConnection, targets: Iterable[BackupTable]) -> None:
    """Let the database assign ids after those that were restored."""
    for target in targets:
        statement = dialect_of(connection).continue_ids(target.table.name)
        if target.has_own_ids and statement:
            connection.exec_driver_sql(statement)
