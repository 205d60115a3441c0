"""Connections in a database that we open, which is DevLake's or one of our own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, Optional

from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from developer_telemetry.connections.backend import OPTIONS, Backend, Blueprint, StoredConnection
from developer_telemetry.connections.crypto import SecretReader, encrypt, is_cbc
from developer_telemetry.connections.registry import add_scope, create, make_name_conflict
from developer_telemetry.constants import (
    ACCOUNT_TABLE,
    CONNECTION_TABLE,
    LINK_TABLE,
    MACHINE_TABLE,
    PROJECT_TABLE,
    RAW_TABLE,
    SCOPE_CONFIG_TABLE,
    SCOPE_ID,
    SCOPE_TABLE,
    TOOL_TABLE,
)
from developer_telemetry.database.advisory_lock import hold_connection
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import address_of, now_us, reading, transact
from developer_telemetry.database.schema_owner import SchemaOwner, read_owner
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.reports.daily_metrics import build_raw_params, format_timestamp
from developer_telemetry.storage import project_mapping
from developer_telemetry.storage.devlake_schema import is_devlake_database
from developer_telemetry.storage.tables import CONNECTION_TABLES, DEVELOPER_TABLES, PARAMS, Table

# Developers whose rows one transaction deletes, so that none takes long.
DEVELOPERS_AT_ONCE = 10
# DevLake's server encrypts these, too.
SECRETS = ("secret_token", "previous_secret_token")
# The longest list of projects in a message.
MAX_LISTED = 10


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
            for table in (RAW_TABLE, TOOL_TABLE, MACHINE_TABLE)
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
        secrets.decrypt_all(row[name] for row in rows for name in SECRETS)
        return [self._stored_connection(row, secrets) for row in rows]

    def _stored_connection(self, row: Mapping[str, Any], secrets: SecretReader) -> StoredConnection:
        token, reason = secrets.read(row["secret_token"])
        fault = f"it can't be decrypted: {reason}" if reason else ""
        previous, _ = secrets.read(row["previous_secret_token"])
        until = row["previous_token_until"] or 0
        options = {name: row[name] for name in OPTIONS if name in row}
        return StoredConnection(row["id"], row["name"], token, previous, until, options, fault)

    def add(self, name: str, token: str, options: Mapping[str, Any]) -> int:
        return create(self._engine, self._secret, name, token, options=options)

    def change(self, connection_id: int, fields: Mapping[str, Any]) -> None:
        values = {name: self._to_stored_value(name, value) for name, value in fields.items()}
        values["updated_at"] = format_timestamp(now_us())
        try:
            transact(self._engine, partial(self._update, connection_id, values))
        except IntegrityError:  # the name is what has to be unique
            raise make_name_conflict(str(fields.get("name"))) from None

    def rewrite_secrets(self, connection_id: int) -> list[str]:
        """Encrypt a connection's secrets in the format that every release of DevLake reads.

        Return the columns that were changed; a secret that can't be read is not changed.
        """
        return transact(self._engine, partial(self._encrypt_again, connection_id))

    def _update(
        self, connection_id: int, values: Mapping[str, Any], connection: SqlConnection
    ) -> None:
        # With one secret in AES-GCM, an older release of DevLake lists no connection at all.
        self._encrypt_again(connection_id, connection)
        assignments = ", ".join(f"{name} = {self._placeholder}" for name in values)
        connection.exec_driver_sql(
            f"UPDATE {CONNECTION_TABLE} SET {assignments} WHERE id = {self._placeholder}",
            (*values.values(), connection_id),
        )

    def _encrypt_again(self, connection_id: int, connection: SqlConnection) -> list[str]:
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
                    (self._to_stored_value(name, value), connection_id, text),
                )
                changed.append(name)
        return changed

    def _to_stored_value(self, name: str, value: Any) -> Any:
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

    def blueprints(self) -> list[Blueprint]:
        """Return projects with our connections, in place of blueprints, with the id 0."""
        with reading(self._engine).connect() as connection:
            if not self._is_standalone(connection):
                return []
            members = project_mapping.read_members(connection)
        projects = sorted({member.project for member in members})
        return [_make_blueprint(project, members) for project in projects]

    def _is_standalone(self, connection: SqlConnection) -> bool:
        """Return true if we look after projects here, instead of DevLake's blueprints."""
        owner = read_owner(connection)
        return owner is SchemaOwner.STANDALONE and inspect(connection).has_table(PROJECT_TABLE)

    def find_project(self, name: str) -> Optional[Blueprint]:
        with reading(self._engine).connect() as connection:
            if not (is_devlake_database(connection) and self._is_standalone(connection)):
                return super().find_project(name)
            project = project_mapping.find_project(connection, name)
            if project is None:
                names = project_mapping.list_projects(connection)
                listed = ", ".join(map(repr, names[:MAX_LISTED]))
                more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
                others = f", or name an existing one: {listed}{more}" if names else ""
                raise ConfigurationError(
                    f"DevLake has no project {name!r}; make it in DevLake{others}"
                )
            return _make_blueprint(project, project_mapping.read_members(connection))

    def attach(self, blueprint: Blueprint, connection_id: int) -> bool:
        def work(connection: SqlConnection) -> bool:
            return project_mapping.attach(connection, connection_id, blueprint.project)

        return transact(self._engine, work)

    def read_switches(self, connection: StoredConnection) -> Optional[Mapping[str, bool]]:
        with reading(self._engine).connect() as sql_connection:
            if read_owner(sql_connection) is SchemaOwner.DEVLAKE:
                return super().read_switches(connection)
            return self._read_config(connection.id, sql_connection)

    def configure(self, connection: StoredConnection, switches: Mapping[str, bool]) -> str:
        with reading(self._engine).connect() as sql_connection:
            if read_owner(sql_connection) is SchemaOwner.DEVLAKE:
                return super().configure(connection, switches)
        return transact(self._engine, partial(self._configure, connection, switches))

    def _configure(
        self,
        stored: StoredConnection,
        switches: Mapping[str, bool],
        connection: SqlConnection,
    ) -> str:
        param = self._placeholder
        config = self._read_config(stored.id, connection)
        now = format_timestamp(now_us())
        if config is None:
            return self._add_config(stored, switches, now, connection)
        if all(bool(config[name]) == value for name, value in switches.items()):
            return ""
        assignments = ", ".join(f"{name} = {param}" for name in switches)
        connection.exec_driver_sql(
            f"UPDATE {SCOPE_CONFIG_TABLE} SET {assignments}, updated_at = {param}"
            f" WHERE id = {param}",
            (*switches.values(), now, config["id"]),
        )
        return f"{config['name']}, changed"

    def _read_config(
        self, connection_id: int, connection: SqlConnection
    ) -> Optional[dict[str, Any]]:
        """Return the row of a connection's scope config; None if it has none."""
        row = connection.exec_driver_sql(
            f"SELECT c.* FROM {SCOPE_TABLE} s JOIN {SCOPE_CONFIG_TABLE} c"
            f" ON c.id = s.scope_config_id WHERE s.connection_id = {self._placeholder}",
            (connection_id,),
        ).first()
        return row._asdict() if row else None

    def _add_config(
        self,
        stored: StoredConnection,
        switches: Mapping[str, bool],
        now: str,
        connection: SqlConnection,
    ) -> str:
        param = self._placeholder
        columns = ("connection_id", "name", "created_at", "updated_at", *switches)
        connection.exec_driver_sql(
            f"INSERT INTO {SCOPE_CONFIG_TABLE} (entities, {', '.join(columns)})"
            f" VALUES ('[\"CROSS\"]', {', '.join([param] * len(columns))})",
            (stored.id, stored.name, now, now, *switches.values()),
        )
        config_id = connection.exec_driver_sql(
            f"SELECT MAX(id) FROM {SCOPE_CONFIG_TABLE} WHERE connection_id = {param}",
            (stored.id,),
        ).scalar_one()
        connection.exec_driver_sql(
            f"UPDATE {SCOPE_TABLE} SET scope_config_id = {param} WHERE connection_id = {param}",
            (config_id, stored.id),
        )
        return f"{stored.name}, made"

    def delete(self, connection_id: int) -> None:
        """Delete the connection last, so that an interrupted deletion can be repeated.

        :raises ConfigurationError: DevLake owns the schema, and its blueprints may use it.
        """
        with reading(self._engine).connect() as connection:
            owner = read_owner(connection)
        if owner is SchemaOwner.DEVLAKE:
            raise ConfigurationError(
                "this database is DevLake's, whose blueprints may use the connection: delete it"
                " through DevLake, with --devlake-url or DEVLAKE_URL; where DevLake does not load"
                " the plugin, run `developer-telemetry migrate --standalone` first"
            )
        with hold_connection(self._engine, connection_id):
            for table in DEVELOPER_TABLES:
                while transact(
                    self._engine, partial(self._delete_developers, connection_id, table)
                ):
                    pass
            transact(self._engine, partial(self._delete_remaining, connection_id))
            transact(self._engine, partial(self._delete_last, connection_id))

    def _delete_developers(self, connection_id: int, table: str, connection: SqlConnection) -> bool:
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
        """Delete all other rows, except those that `_delete_last` deletes in less time."""
        origin = build_raw_params(connection_id)
        where = f"{PARAMS} = {self._placeholder} AND _raw_data_table = '{RAW_TABLE}'"
        if is_devlake_database(connection):
            # Links that an operator made have another origin, and are deleted as well.
            connection.exec_driver_sql(
                f"DELETE FROM {LINK_TABLE} WHERE account_id IN"
                f" (SELECT id FROM {ACCOUNT_TABLE} WHERE {where})",
                (origin,),
            )
        for table in CONNECTION_TABLES:
            if table.connection_column == PARAMS:
                connection.exec_driver_sql(f"DELETE FROM {table.name} WHERE {where}", (origin,))
            elif table.name != CONNECTION_TABLE:
                self._delete_by_id(connection_id, table, connection)

    def _delete_last(self, connection_id: int, connection: SqlConnection) -> None:
        """Delete the connection, and rows of it that receivers have written in the meantime.

        This waits for the transactions that have locked the connection; later ones find it gone.
        Accounts and tasks need no second look: conversions have the lock that the caller has.
        """
        for table in reversed(CONNECTION_TABLES):
            if table.connection_column != PARAMS:
                self._delete_by_id(connection_id, table, connection)
        if is_devlake_database(connection):
            project_mapping.detach(connection, connection_id)

    def _delete_by_id(self, connection_id: int, table: Table, connection: SqlConnection) -> None:
        connection.exec_driver_sql(
            f"DELETE FROM {table.name} WHERE {table.connection_column} = {self._placeholder}",
            (connection_id,),
        )


def _make_blueprint(project: str, members: Iterable[project_mapping.Member]) -> Blueprint:
    ours = frozenset(member.connection_id for member in members if member.project == project)
    return Blueprint(0, project, project, ours)
