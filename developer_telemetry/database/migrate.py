"""Bring a database to today's schema, or list what is pending.

While DevLake's server loads the plugin, it runs the migrations of its own database; on any other
database, and on DevLake's without the plugin, `migrate` runs the same scripts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from developer_telemetry.constants import (
    ACCOUNT_TABLE,
    DEVLAKE_MIGRATION_TABLE,
    MIGRATION_TABLE,
    TASK_TABLE,
)
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.dialects.mysql import TABLE_OPTIONS, MySQL
from developer_telemetry.database.engine import open_engine, reading
from developer_telemetry.database.rights import require_schema
from developer_telemetry.database.schema_owner import SchemaOwner, read_owner
from developer_telemetry.database.schema_versions import NAMES, title_of
from developer_telemetry.errors import ConfigurationError, Unavailable

# The time for which a process waits for another that migrates the same database.
LOCK_SECONDS = 60
LOCK_NAME = "developer_telemetry migrations"

_HISTORY_COLUMNS = "script_version BIGINT NOT NULL PRIMARY KEY, script_name VARCHAR(255) NOT NULL"
# DevLake's domain tables, made with the same columns where DevLake does not make them.
_ACCOUNTS_COLUMNS = """
    id VARCHAR(255){exact} NOT NULL PRIMARY KEY,
    created_at {time},
    updated_at {time},
    _raw_data_params VARCHAR(255),
    _raw_data_table VARCHAR(255),
    _raw_data_id BIGINT,
    _raw_data_remark {text},
    email VARCHAR(255),
    full_name VARCHAR(255),
    user_name VARCHAR(255),
    avatar_url VARCHAR(255),
    organization VARCHAR(255),
    created_date {time},
    status BIGINT"""
_TASKS_COLUMNS = """
    id VARCHAR(255){exact} NOT NULL PRIMARY KEY,
    created_at {time},
    updated_at {time},
    _raw_data_params VARCHAR(255),
    _raw_data_table VARCHAR(255),
    _raw_data_id BIGINT,
    _raw_data_remark {text},
    name VARCHAR(255),
    pipeline_id VARCHAR(255),
    result VARCHAR(100),
    status VARCHAR(100),
    original_status VARCHAR(100),
    original_result VARCHAR(100),
    type VARCHAR(100),
    environment VARCHAR(255),
    duration_sec FLOAT(53),
    queued_duration_sec FLOAT(53),
    created_date {time},
    queued_date {time},
    started_date {time},
    finished_date {time},
    cicd_scope_id VARCHAR(255)"""
DOMAIN_COLUMNS = {ACCOUNT_TABLE: _ACCOUNTS_COLUMNS, TASK_TABLE: _TASKS_COLUMNS}
DOMAIN_WORDS = {
    "mysql": {"exact": "", "time": "DATETIME(3)", "text": "LONGTEXT"},
    "postgres": {"exact": ' COLLATE "C"', "time": "TIMESTAMPTZ(3)", "text": "TEXT"},
    "sqlite": {"exact": "", "time": "DATETIME", "text": "TEXT"},
}


def migrate(engine: Engine, takes_over: bool = False) -> list[str]:
    """Apply what is pending and return its versions and names; `engine` is of `open_engine`.

    Processes that do so at once wait for each other. With `takes_over`, DevLake's database is
    migrated whoever owns its schema; the caller records the new owner.

    :raises ConfigurationError: DevLake owns the schema and something is pending there, or we lack
        a right that this takes.
    :raises Unavailable: another process kept the database locked all the time.
    """
    try:
        with _lock_migrations(engine) as connection:
            if not takes_over and read_owner(connection) is SchemaOwner.DEVLAKE:
                _refuse_pending(connection)
                return []
            missing = _list_missing(connection)
            if missing:
                require_schema(connection)
            create_table(connection, MIGRATION_TABLE, _HISTORY_COLUMNS)
            _run(connection, missing)
            words = DOMAIN_WORDS[dialect_of(connection).name]
            for table, columns in DOMAIN_COLUMNS.items():
                create_table(connection, table, columns.format_map(words))
            return list(map(title_of, missing))
    except DBAPIError as error:
        if dialect_of(engine).is_conflict(error):
            raise _make_busy_error() from error
        raise


def list_pending(engine: Engine) -> list[str]:
    """Return versions and names of the scripts that are not completed on this database.

    Two or three small queries. A version counts from the moment its last statement is through,
    so that nothing is written to a table in the middle of its change.
    """
    with reading(engine).connect() as connection:
        return list(map(title_of, _list_missing(connection)))


def is_migrated(engine: Engine) -> bool:
    """Return true if DevLake's server or `migrate` has completed every script."""
    return not list_pending(engine)


class TableSchema(NamedTuple):
    """A table as our migrations make it."""

    columns: Sequence[str]
    keys: Sequence[str]
    has_own_ids: bool  # assigned by the database


def read_schemas() -> dict[str, TableSchema]:
    """Return our tables by name, as the migrations make them in an empty database in memory."""
    engine = open_engine("sqlite://")
    try:
        migrate(engine)
        schema = inspect(engine)
        return {table: _read_schema(schema, table) for table in schema.get_table_names()}
    finally:
        engine.dispose()


def _read_schema(schema: Any, table: str) -> TableSchema:
    types = {column["name"]: str(column["type"]) for column in schema.get_columns(table)}
    keys = schema.get_pk_constraint(table)["constrained_columns"]
    # Of whole numbers, only ids that SQLite assigns have this type.
    return TableSchema(tuple(types), keys, types.get("id") == "INTEGER")


def read_schema_version(engine: Engine) -> int:
    """Return the version of the newest migration that is applied; 0 if there is none."""
    with reading(engine).connect() as connection:
        missing = _list_missing(connection)
    return max(NAMES.keys() - missing, default=0)


def apply_operation(connection: SqlConnection, operation: Any) -> None:
    """Do one operation of a script as DevLake's server does it, on MySQL or PostgreSQL."""
    if operation.type == "execute":
        if operation.dialect is None or operation.dialect.value == dialect_of(connection).name:
            _execute(connection, operation.sql, operation.ignore_error)
    elif operation.type == "add_column":
        table, column = operation.table, operation.column
        columns = connection.exec_driver_sql(f"SELECT * FROM {table} WHERE 1 = 0").keys()
        if column not in columns:
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD {column} {operation.column_type}")
    else:
        raise NotImplementedError(f"{operation.type}: no script has used it so far")


def _execute(connection: SqlConnection, statement: str, ignore_error: bool) -> None:
    try:
        connection.exec_driver_sql(statement)
    except DBAPIError:
        if not ignore_error:
            raise


def _run(connection: SqlConnection, versions: Sequence[int]) -> None:
    """Run the scripts of versions, and add each to the history."""
    if not versions:
        return
    # Most processes find that nothing is missing, and need no script.
    from developer_telemetry.database.migrations import SCRIPTS, SQLITE_STATEMENTS

    is_sqlite = dialect_of(connection).name == "sqlite"
    scripts = {script.version: script for script in SCRIPTS}
    for version in versions:
        if is_sqlite:
            for statement in SQLITE_STATEMENTS[version]:
                connection.exec_driver_sql(statement)
        else:
            for operation in scripts[version].operations:
                apply_operation(connection, operation)
        # The values are our own constants: a number, and a name without quotes.
        connection.exec_driver_sql(
            f"INSERT INTO {MIGRATION_TABLE} (script_version, script_name)"
            f" VALUES ({version}, '{NAMES[version]}')"
        )


def list_applied_by_devlake(engine: Engine) -> list[str]:
    """Return versions and names of our scripts that DevLake's server has completed."""
    with reading(engine).connect() as connection:
        applied = _read_applied(connection, DEVLAKE_MIGRATION_TABLE)
    return [title_of(version) for version, name in NAMES.items() if (version, name) in applied]


def _list_missing(connection: SqlConnection) -> list[int]:
    # A database may have been ours alone before DevLake took it over, or the other way round.
    histories = (MIGRATION_TABLE, DEVLAKE_MIGRATION_TABLE)
    applied = set().union(*(_read_applied(connection, history) for history in histories))
    return [version for version, name in NAMES.items() if (version, name) not in applied]


def _read_applied(connection: SqlConnection, history: str) -> set[tuple[int, str]]:
    if not inspect(connection).has_table(history):
        return set()
    rows = connection.exec_driver_sql(f"SELECT script_version, script_name FROM {history}")
    return {(int(row[0]), row[1]) for row in rows}


def _refuse_pending(connection: SqlConnection) -> None:
    missing = _list_missing(connection)
    if missing:
        raise ConfigurationError(
            f"this database is DevLake's, so its server has to run {len(missing)} pending"
            " migration(s) of developer_telemetry: add the plugin to DevLake, restart the server"
            " and confirm in its web page (or GET /api/proceed-db-migration); with"
            " FORCE_MIGRATION=true the server does not ask; where DevLake loads no Python plugins,"
            " run `developer-telemetry migrate --standalone`"
        )


def create_table(connection: SqlConnection, table: str, columns: str) -> None:
    """Create a table unless it is there."""
    options = TABLE_OPTIONS if dialect_of(connection).name == "mysql" else ""
    if not inspect(connection).has_table(table):
        connection.exec_driver_sql(f"CREATE TABLE {table} ({columns}){options}")


@contextmanager
def _lock_migrations(engine: Engine) -> Iterator[SqlConnection]:
    """Yield a transaction, committed at the end, during which no other process migrates."""
    name = dialect_of(engine).name
    if name == "mysql":
        with _mysql_lock(engine), engine.begin() as connection:
            yield connection
        return
    # On SQLite our engines begin each transaction as the only writer, which is lock enough.
    with engine.begin() as connection:
        if name == "postgres":
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock(hashtext('{LOCK_NAME}'))")
        yield connection


@contextmanager
def _mysql_lock(engine: Engine) -> Iterator[None]:
    """Hold a lock of the server, which DDL does not release although it commits."""
    name = MySQL.lock_name(LOCK_NAME)
    with engine.connect() as connection:
        if connection.exec_driver_sql(f"SELECT GET_LOCK({name}, {LOCK_SECONDS})").scalar() != 1:
            raise _make_busy_error()
        try:
            yield
        finally:
            connection.exec_driver_sql(f"SELECT RELEASE_LOCK({name})")


def _make_busy_error() -> Unavailable:
    return Unavailable(
        "the schema can't be changed while another process keeps this database locked;"
        " wait until that has ended (is a migration running elsewhere?) and try again"
    )
