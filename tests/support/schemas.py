"""Run migrations as DevLake's server does, and read the resulting schema."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from sqlalchemy import event, inspect
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from developer_telemetry.database.migrations import SCRIPTS
from pydevlake.database import create_db_engine
from tests.support.servers import create_database, drop_database

# DevLake's own server sets none of these, and fails with other values.
WORKABLE = {
    "completion_type": "0",
    "sql_select_limit": "18446744073709551615",
    "sql_big_selects": "ON",
    "sql_safe_updates": "OFF",
    "default_storage_engine": "InnoDB",
    "sql_mode": "REPLACE(@@sql_mode, 'NO_BACKSLASH_ESCAPES', '')",  # for rows of tests themselves
}


def operations_for(dialect: str, scripts: Sequence[Any] = SCRIPTS) -> list[Any]:
    """Return the operations of scripts on `mysql` or `postgres`, in order."""
    return [
        operation
        for script in scripts
        for operation in script.operations
        if operation.type != "execute"
        or operation.dialect is None
        or operation.dialect.value == dialect
    ]


class Database:
    """A database of a server, in sessions as that server gives them, if DevLake could live in them.

    Statements commit one by one, as those of DevLake's server do.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.dialect = "mysql" if url.startswith("mysql") else "postgres"
        self._schema = "DATABASE()" if self.dialect == "mysql" else "current_schema()"
        engine = create_db_engine(url)
        if self.dialect == "mysql":
            event.listen(engine, "connect", _reset_session_settings, insert=True)
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    def close(self) -> None:
        self._engine.dispose()

    def execute(self, statement: str) -> list[Any]:
        return fetch(self._engine, statement)

    def empty(self) -> None:
        """Drop all tables; the defaults stay those of the server."""
        if self.dialect == "postgres":  # where making a database takes long
            self.execute("DROP SCHEMA public CASCADE")
            self.execute("CREATE SCHEMA public")
            return
        self.close()
        drop_database(self.url)
        create_database(self.url)

    def migrate(self, operations: list[Any]) -> None:
        """Run operations as DevLake's server does."""
        for operation in operations:
            if operation.type == "execute":
                self._try(operation.sql, operation.ignore_error)
            elif not self._has_column(operation.table, operation.column):
                added = f"{operation.column} {operation.column_type}"
                self.execute(f"ALTER TABLE {operation.table} ADD {added}")

    def _try(self, statement: str, ignore_error: bool) -> None:
        try:
            self.execute(statement)
        except DBAPIError:
            if not ignore_error:
                raise

    def _has_column(self, table: str, column: str) -> bool:
        found = self.execute(
            f"SELECT 1 FROM information_schema.columns WHERE table_schema = {self._schema}"
            f" AND table_name = '{table}' AND column_name = '{column}'"
        )
        return bool(found)

    def structure(self) -> dict[str, list[Any]]:
        """Each table's columns and indexes as the catalogue has them, in no order of theirs."""
        if self.dialect == "mysql":
            more = "column_type, extra, collation_name"
            indexes = (
                "SELECT table_name, GROUP_CONCAT(column_name ORDER BY seq_in_index), non_unique"
                f" FROM information_schema.statistics WHERE table_schema = {self._schema}"
                " GROUP BY table_name, index_name, non_unique"
            )
        else:
            more = "data_type, character_maximum_length, datetime_precision, is_identity"
            indexes = (
                "SELECT tablename, regexp_replace(indexdef, '.* USING', '')"
                f" FROM pg_indexes WHERE schemaname = {self._schema}"
            )
        columns = (
            f"SELECT table_name, column_name, is_nullable, column_default, {more}"
            f" FROM information_schema.columns WHERE table_schema = {self._schema}"
        )
        found: dict[str, list[Any]] = {}
        for statement in (columns, indexes):
            for row in sorted(self.execute(statement), key=str):
                found.setdefault(row[0], []).append(row[1:])
        return found


def _reset_session_settings(connection: Any, record: Any) -> None:
    """Reset the settings with which DevLake's own server would not start."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("SET SESSION TRANSACTION READ WRITE")  # the variable's name depends
        for name, value in WORKABLE.items():
            cursor.execute(f"SET SESSION {name} = {value}")


def fetch(engine: Engine, statement: str) -> list[Any]:
    """Run one statement and commit; its rows as tuples, if it has any."""
    with engine.begin() as connection:
        result = connection.exec_driver_sql(statement)
        return [tuple(row) for row in result] if result.returns_rows else []


def columns_of(engine: Engine, table: str) -> dict[str, str]:
    """The types of a table's columns by their names, for instance `VARCHAR(255)`."""
    return {
        column["name"]: column["type"].compile(engine.dialect).partition(" ")[0]
        for column in inspect(engine).get_columns(table)
    }
