"""The record that DevLake owns its schema again, made when it loads the plugin again."""

from __future__ import annotations

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from developer_telemetry.database.engine import prepare, reading, transact
from developer_telemetry.database.schema_owner import SchemaOwner, read_owner, record_owner
from developer_telemetry.storage.devlake_schema import read_running_flags


def record_devlake(engine: Engine) -> None:
    """Record DevLake as the owner if one of its pipelines runs a task of ours now.

    After that blueprints convert reports, and the receiver does not.
    """
    prepare(engine)
    with reading(engine).connect() as connection:
        if read_owner(connection) is SchemaOwner.STANDALONE and _runs_a_task(connection):
            connection.rollback()
            transact(engine, lambda writing: record_owner(writing, SchemaOwner.DEVLAKE))


def _runs_a_task(connection: SqlConnection) -> bool:
    try:
        return bool(read_running_flags(connection))
    except DBAPIError:  # not DevLake's database
        return False
