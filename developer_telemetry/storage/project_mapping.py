"""Our connections in DevLake's projects, by SQL on DevLake's tables: for work without the plugin.

With the plugin DevLake writes these rows from a blueprint. A run of a project's blueprint deletes
all rows of the project in `project_mapping`, and writes those of its own scopes. So `PROJECT_TABLE`
records the connections of projects, and `restore` writes missing rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Optional

from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import PROJECT_TABLE, RAW_TABLE, SCOPE_NAME
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import now_us, transact
from developer_telemetry.reports.daily_metrics import build_raw_params, format_timestamp
from developer_telemetry.storage.connection_locks import lock_connections, require_connections
from developer_telemetry.storage.devlake_schema import (
    BLUEPRINT_CONNECTION_TABLE,
    BLUEPRINT_SCOPE_TABLE,
    CICD_SCOPE_TABLE,
    MAPPING_TABLE,
    PLUGIN,
    PROJECTS_TABLE,
    make_scope_id,
)

ORIGIN = ("_raw_data_params", "_raw_data_table", "_raw_data_id", "_raw_data_remark")


class Member(NamedTuple):
    """A connection in a project."""

    connection_id: int
    project: str


def find_project(connection: SqlConnection, name: str) -> Optional[str]:
    """Return a project's name as DevLake's table has it; None if there is no such project.

    The table may ignore case.
    """
    if not inspect(connection).has_table(PROJECTS_TABLE):
        return None
    param = dialect_of(connection).placeholder
    project: Optional[str] = connection.exec_driver_sql(
        f"SELECT name FROM {PROJECTS_TABLE} WHERE name = {param}", (name,)
    ).scalar()
    return project


def list_projects(connection: SqlConnection) -> list[str]:
    """Return the names of DevLake's projects in order."""
    if not inspect(connection).has_table(PROJECTS_TABLE):
        return []
    return sorted(
        row[0] for row in connection.exec_driver_sql(f"SELECT name FROM {PROJECTS_TABLE}")
    )


def read_members(connection: SqlConnection) -> list[Member]:
    """Return the recorded connections of projects in order."""
    rows = connection.exec_driver_sql(f"SELECT connection_id, project_name FROM {PROJECT_TABLE}")
    return sorted(Member(int(row[0]), row[1]) for row in rows)


def attach(connection: SqlConnection, connection_id: int, project: str) -> bool:
    """Add a connection to a project of `find_project`; return False if it was added before.

    Raises:
        ConnectionDeleted: There is no such connection.
    """
    require_connections(connection, [connection_id])
    member = Member(connection_id, project)
    if member in _read_mapped(connection) and member in read_members(connection):
        return False
    _write_records(connection, [member])
    _write_scopes(connection, [connection_id])
    _write_mapping(connection, [member])
    return True


def detach(connection: SqlConnection, connection_id: int) -> None:
    """Remove a connection from all projects, and its scope from DevLake's domain layer."""
    param = dialect_of(connection).placeholder
    connection.exec_driver_sql(
        f"DELETE FROM {PROJECT_TABLE} WHERE connection_id = {param}", (connection_id,)
    )
    scope_id = make_scope_id(connection_id)
    for table, column in ((MAPPING_TABLE, "row_id"), (CICD_SCOPE_TABLE, "id")):
        if inspect(connection).has_table(table):
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE {column} = {param}", (scope_id,))


def restore(engine: Engine) -> int:
    """Write the rows of recorded connections that a project's run has deleted; return their number.

    The record of a deleted project is deleted, and that of a renamed project gets the new name.
    """
    return transact(engine, _restore_rows)


def _restore_rows(connection: SqlConnection) -> int:
    if not inspect(connection).has_table(MAPPING_TABLE):
        return 0
    mapped = _read_mapped(connection)
    recorded = set(read_members(connection))
    members = _filter_existing(connection, mapped | recorded)
    _write_records(connection, sorted(members - recorded))
    _delete_records(connection, sorted(recorded - members))
    missing = sorted(members - mapped)
    if missing:
        _write_scopes(connection, sorted({member.connection_id for member in missing}))
        _write_mapping(connection, missing)
    return len(missing)


def record_blueprints(connection: SqlConnection) -> list[Member]:
    """Record the projects that have our connections now, and no other; return them.

    A project has a connection by its blueprint, or by rows that a run of it has written.
    """
    connection.exec_driver_sql(f"DELETE FROM {PROJECT_TABLE}")
    members = _filter_existing(
        connection, _read_mapped(connection) | _read_blueprint_members(connection)
    )
    _write_records(connection, sorted(members))
    return sorted(members)


def leave_blueprints(connection: SqlConnection) -> None:
    """Remove our connections from blueprints, whose runs would not start without the plugin."""
    schema = inspect(connection)
    for table in (BLUEPRINT_SCOPE_TABLE, BLUEPRINT_CONNECTION_TABLE):
        if schema.has_table(table):
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE plugin_name = '{PLUGIN}'")


def _filter_existing(connection: SqlConnection, members: Iterable[Member]) -> set[Member]:
    """Return the members whose connection and project both exist; lock the connections."""
    projects = set(list_projects(connection))
    connection_ids = lock_connections(connection)
    return {
        member
        for member in members
        if member.connection_id in connection_ids and member.project in projects
    }


def _read_blueprint_members(connection: SqlConnection) -> set[Member]:
    if not inspect(connection).has_table(BLUEPRINT_SCOPE_TABLE):
        return set()
    rows = connection.exec_driver_sql(
        f"SELECT s.connection_id, b.project_name FROM {BLUEPRINT_SCOPE_TABLE} s"
        f" JOIN _devlake_blueprints b ON b.id = s.blueprint_id WHERE s.plugin_name = '{PLUGIN}'"
    )
    return {Member(int(row[0]), row[1]) for row in rows if row[1]}


def _read_mapped(connection: SqlConnection) -> set[Member]:
    """Return the connections of projects by DevLake's own table."""
    pattern = make_scope_id(0).replace("0", "%%", 1)
    rows = connection.exec_driver_sql(
        f"SELECT project_name, row_id FROM {MAPPING_TABLE} WHERE row_id LIKE '{pattern}'", ()
    )
    ours = re.compile(re.escape(make_scope_id(0)).replace("0", "([1-9][0-9]*)", 1))
    matches = ((ours.fullmatch(row_id), project) for project, row_id in rows)
    return {Member(int(match[1]), project) for match, project in matches if match}


def _write_records(connection: SqlConnection, members: Sequence[Member]) -> None:
    columns = ("connection_id", "project_name")
    tail = dialect_of(connection).on_conflict(columns, ())
    insert(connection, PROJECT_TABLE, columns, members, tail)


def _delete_records(connection: SqlConnection, members: Iterable[Member]) -> None:
    param = dialect_of(connection).placeholder
    for member in members:
        connection.exec_driver_sql(
            f"DELETE FROM {PROJECT_TABLE} WHERE connection_id = {param} AND project_name = {param}",
            member,
        )


def _write_scopes(connection: SqlConnection, connection_ids: Iterable[int]) -> None:
    """Write the rows that DevLake writes for a domain scope in the plugin's plan."""
    now = format_timestamp(now_us())
    columns = ("id", "created_at", "updated_at", *ORIGIN, "name", "description", "url")
    tail = dialect_of(connection).on_conflict(("id",), ())
    rows = [
        (
            *(make_scope_id(number), now, now),
            *(build_raw_params(number), f"{RAW_TABLE}_scopes", 0, ""),
            *(SCOPE_NAME, "", ""),
        )
        for number in connection_ids
    ]
    insert(connection, CICD_SCOPE_TABLE, columns, rows, tail)


def _write_mapping(connection: SqlConnection, members: Iterable[Member]) -> None:
    """Write rows like those of the org plugin, with the project's name as their origin."""
    dialect, now = dialect_of(connection), format_timestamp(now_us())
    # `table` is a reserved word, and `insert` does not quote columns.
    keys = ("project_name", connection.dialect.identifier_preparer.quote("table"), "row_id")
    columns = (*keys, "created_at", "updated_at", *ORIGIN)
    statement = (
        f"INSERT INTO {MAPPING_TABLE} ({', '.join(columns)})"
        f" VALUES {dialect.rows(len(columns), 1)} {dialect.on_conflict(keys, ())}"
    )
    for number, project in members:
        row = (project, CICD_SCOPE_TABLE, make_scope_id(number), now, now, project, "", 0, "")
        connection.exec_driver_sql(statement, row)
