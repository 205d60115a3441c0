"""Connections in a database that we open, which is DevLake's or one of our own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from developer_telemetry.connections.backend import OPTIONS, Backend, StoredConnection
from developer_telemetry.connections.crypto import SecretReader, encrypt, is_cbc
from developer_telemetry.connections.registry import add_scope, create, make_name_conflict
from developer_telemetry.constants import (
    CONNECTION_TABLE,
    RAW_TABLE,
    SCOPE_ID,
    SCOPE_TABLE,
)
from developer_telemetry.database.advisory_lock import hold_connection
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import address_of, now_us, reading, transact
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.reports.daily_metrics import build_raw_params, format_timestamp
from developer_telemetry.storage.devlake_schema import is_devlake_database
from developer_telemetry.storage.tables import CONNECTION_TABLES, DEVELOPER_TABLES, PARAMS

# Developers whose rows one transaction deletes, so that none takes long.
DEVELOPERS_AT_ONCE = 10
# DevLake's server encrypts these, too.
SECRETS = ("secret_token", "previous_secret_token")


class Counts(NamedTuple):
    """Counts of a connection's reports, and of the days, developers and machines in them."""

    reports: int
    days: int
    developers: int
    machines: int


def list_newer_secrets(engine: Engine, encryption_secret: str) -> list[int]:
    """Return the connections with a secret that DevLake from before AES-GCM can't read."""
    secrets = SecretReader(encryption_secret)
    with reading(engine).connect() as connection:
        rows = connection.exec_driver_sql(
            f"SELECT id, {', '.join(SECRETS)} FROM {CONNECTION_TABLE} ORDER BY id"
        ).fetchall()
    return [
        int(connection_id)
        for connection_id, *texts in rows
        if any(
            text and not secrets.read(text)[1] and not is_cbc(text, encryption_secret)
            for text in texts
        )
    ]


def count_rows(engine: Engine, connection_id: int) -> Counts:
    """Count a connection's rows, which takes a while if there are millions."""
    placeholder = dialect_of(engine).placeholder
    with reading(engine).connect() as connection:
        rows = [
            connection.exec_driver_sql(
                f"SELECT COUNT(*), COUNT(DISTINCT developer_id) FROM {table}"
                f" WHERE connection_id = {placeholder}",
                (connection_id,),
            ).one()
            for table in DEVELOPER_TABLES
        ]
    (reports, _), (days, developers), (machines, _) = rows
    return Counts(reports, days, developers, machines)


class DatabaseBackend(Backend):
    """The table of connections, in DevLake's database or in one of our own."""

    def __init__(self, engine: Engine, encryption_secret: str) -> None:
        self._engine = engine
        self._secret = encryption_secret
        self._placeholder = dialect_of(engine).placeholder

    @property
    def address(self) -> str:
        return f"the database {address_of(self._engine)}"

    def connections(self) -> list[StoredConnection]:
        with reading(self._engine).connect() as connection:
            result = connection.exec_driver_sql(f"SELECT * FROM {CONNECTION_TABLE} ORDER BY id")
            rows = [row._asdict() for row in result]
        secrets = SecretReader(self._secret)
        secrets.learn(row[name] for row in rows for name in SECRETS)
        return [self._stored_connection(row, secrets) for row in rows]

    def _stored_connection(self, row: Mapping[str, Any], secrets: SecretReader) -> StoredConnection:
        token, reason = secrets.read(row["secret_token"])
        fault = f"it can't be decrypted: {reason}" if reason else ""
        previous, _ = secrets.read(row["previous_secret_token"])
        until = row["previous_token_until"] or 0
        options = {name: row[name] for name in OPTIONS if name in row}
        return StoredConnection(row["id"], row["name"], token, previous, until, options, fault)

    def add(self, name: str, token: str) -> int:
        return create(self._engine, self._secret, name, token)

    def change(self, connection_id: int, fields: Mapping[str, Any]) -> None:
        values = {name: self._stored(name, value) for name, value in fields.items()}
        values["updated_at"] = format_timestamp(now_us())
        try:
            transact(self._engine, partial(self._update, connection_id, values))
        except IntegrityError:  # the name is what has to be unique
            raise make_name_conflict(str(fields.get("name"))) from None

    def rewrite_secrets(self, connection_id: int) -> list[str]:
        """Encrypt a connection's secrets as every release of DevLake reads them.

        Return the columns that were changed; one that can't be read stays as it is.
        """
        return transact(self._engine, partial(self._rewrite, connection_id))

    def _update(
        self, connection_id: int, values: Mapping[str, Any], connection: SqlConnection
    ) -> None:
        # Where one secret is in AES-GCM, a release of DevLake from before that lists nothing.
        self._rewrite(connection_id, connection)
        assignments = ", ".join(f"{name} = {self._placeholder}" for name in values)
        connection.exec_driver_sql(
            f"UPDATE {CONNECTION_TABLE} SET {assignments} WHERE id = {self._placeholder}",
            (*values.values(), connection_id),
        )

    def _rewrite(self, connection_id: int, connection: SqlConnection) -> list[str]:
        row = connection.exec_driver_sql(
            f"SELECT {', '.join(SECRETS)} FROM {CONNECTION_TABLE} WHERE id = {self._placeholder}",
            (connection_id,),
        ).first()
        secrets = SecretReader(self._secret)
        changed = []
        for name, text in zip(SECRETS, row or ()):
            value, reason = secrets.read(text)
            if text and not reason and not is_cbc(text, self._secret):
                # DevLake may have saved another in the meantime.
                connection.exec_driver_sql(
                    f"UPDATE {CONNECTION_TABLE} SET {name} = {self._placeholder}"
                    f" WHERE id = {self._placeholder} AND {name} = {self._placeholder}",
                    (self._stored(name, value), connection_id, text),
                )
                changed.append(name)
        return changed

    def _stored(self, name: str, value: Any) -> Any:
        if name in SECRETS:
            return encrypt(value, self._secret) if value else None
        return value

    def make_scope(self, connection_id: int) -> bool:
        def work(connection: SqlConnection) -> bool:
            row = connection.exec_driver_sql(
                f"SELECT 1 FROM {SCOPE_TABLE} WHERE connection_id = {self._placeholder}"
                f" AND id = {self._placeholder}",
                (connection_id, SCOPE_ID),
            ).first()
            if row is None:
                add_scope(connection, connection_id)
            return row is None

        return transact(self._engine, work)

    def delete(self, connection_id: int) -> None:
        """Delete the connection last, so that an interrupted deletion can be repeated.

        :raises ConfigurationError: the database is DevLake's, whose blueprints may use it.
        """
        if is_devlake_database(self._engine):
            raise ConfigurationError(
                "this database is DevLake's, whose blueprints may use the connection: delete it"
                " through DevLake, with --devlake-url or DEVLAKE_URL"
            )
        with hold_connection(self._engine, connection_id):
            for table in DEVELOPER_TABLES:
                while transact(self._engine, partial(self._delete_some, connection_id, table)):
                    pass
            transact(self._engine, partial(self._delete_remaining, connection_id))

    def _delete_some(self, connection_id: int, table: str, connection: SqlConnection) -> bool:
        """Delete the rows of some developers; return False if there were none."""
        rows = connection.exec_driver_sql(
            f"SELECT DISTINCT developer_id FROM {table} WHERE connection_id = {self._placeholder}"
            f" LIMIT {DEVELOPERS_AT_ONCE}",
            (connection_id,),
        )
        developers = [row[0] for row in rows]
        if developers:
            placeholders = ", ".join([self._placeholder] * len(developers))
            connection.exec_driver_sql(
                f"DELETE FROM {table} WHERE connection_id = {self._placeholder}"
                f" AND developer_id IN ({placeholders})",
                (connection_id, *developers),
            )
        return bool(developers)

    def _delete_remaining(self, connection_id: int, connection: SqlConnection) -> None:
        """Delete all other rows, and those that arrived in the meantime."""
        for table in CONNECTION_TABLES:
            column = table.connection_column
            value = build_raw_params(connection_id) if column == PARAMS else connection_id
            statement = f"DELETE FROM {table.name} WHERE {column} = {self._placeholder}"
            if column == PARAMS:
                statement += f" AND _raw_data_table = '{RAW_TABLE}'"
            connection.exec_driver_sql(statement, (value,))
