"""Everything that we assume of DevLake's own tables.

Tested with DevLake's main branch of 2026-05-05 and of 2026-06-12 (docs/conformance.md). A release
that changes a column below needs a change here, and perhaps in queries of `deploy/` and
`dashboards/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import (
    ACCOUNT_TABLE,
    CONNECTION_TABLE,
    DEVLAKE_MIGRATION_TABLE,
    LINK_TABLE,
    SCOPE_ID,
    TASK_TABLE,
)
from developer_telemetry.database.domain_texts import EXACTLY, TableTexts, hash_developer
from developer_telemetry.database.engine import address_of
from developer_telemetry.errors import ConfigurationError

PLUGIN = "developer_telemetry"
MAX_ID = 255
API_KEY_TABLE = "_devlake_api_keys"
USER_TABLE = "users"
PROJECTS_TABLE = "projects"
PULL_REQUEST_TABLE = "pull_requests"
METRIC_TABLE = "project_pr_metrics"  # of the dora plugin
PIPELINE_TABLE = "cicd_pipelines"
DEPLOYMENT_TABLE = "cicd_deployments"
DEPLOYMENT_COMMIT_TABLE = "cicd_deployment_commits"
ISSUE_TABLE = "issues"
INCIDENT_TABLE = "incidents"
INCIDENT_LINK_TABLE = "project_incident_deployment_relationships"
TEAM_TABLE = "teams"
TEAM_USER_TABLE = "team_users"
MAPPING_TABLE = "project_mapping"  # of DevLake's scopes to its projects
CICD_SCOPE_TABLE = "cicd_scopes"
BLUEPRINT_CONNECTION_TABLE = "_devlake_blueprint_connections"
BLUEPRINT_SCOPE_TABLE = "_devlake_blueprint_scopes"

# The columns that we read or write.
COLUMNS = {
    # Written by Convert. `migrate` makes these two where DevLake's server does not.
    ACCOUNT_TABLE: ("id", "email", "full_name", "user_name"),
    TASK_TABLE: (
        "id",
        "name",
        "pipeline_id",
        "cicd_scope_id",
        "result",
        "status",
        "original_status",
        "original_result",
        "type",
        "environment",
        "duration_sec",
        "created_date",
        "started_date",
        "finished_date",
    ),
    # Written by DevLake's org plugin; an erasure deletes from the second.
    USER_TABLE: ("id", "email", "name"),
    LINK_TABLE: ("user_id", "account_id"),
    # Written by DevLake's project runs; without the plugin by us, too.
    PROJECTS_TABLE: ("name",),
    MAPPING_TABLE: ("project_name", "table", "row_id"),
    CICD_SCOPE_TABLE: ("id", "name", "description", "url"),
    # Read for figures about delivery, the last five by the dashboard's own queries.
    TEAM_USER_TABLE: ("team_id", "user_id"),
    PULL_REQUEST_TABLE: ("id", "author_id", "created_date", "merged_date"),
    METRIC_TABLE: ("id", "pr_coding_time", "pr_pickup_time", "pr_review_time", "pr_cycle_time"),
    TEAM_TABLE: ("id", "name"),
    PIPELINE_TABLE: ("id", "result", "status", "type", "finished_date", "cicd_scope_id"),
    DEPLOYMENT_COMMIT_TABLE: (
        "cicd_deployment_id",
        "result",
        "environment",
        "finished_date",
        "cicd_scope_id",
    ),
    INCIDENT_LINK_TABLE: ("id", "deployment_id"),
    INCIDENT_TABLE: ("id",),
    # Its presence means that DevLake's server migrates this database.
    DEVLAKE_MIGRATION_TABLE: ("script_version", "script_name"),
    API_KEY_TABLE: ("id", "name", "api_key", "allowed_path", "expired_at"),
    # These distinguish re-transforms and full syncs from scheduled runs.
    "_devlake_tasks": ("pipeline_id", "plugin", "status"),
    "_devlake_pipelines": ("id", "skip_collectors", "full_sync"),
    "_devlake_blueprints": ("id", "project_name"),
    BLUEPRINT_CONNECTION_TABLE: ("blueprint_id", "plugin_name", "connection_id"),
    BLUEPRINT_SCOPE_TABLE: ("blueprint_id", "plugin_name", "connection_id", "scope_id"),
}
# The columns of links that we write.
LINK_COLUMNS = (
    "account_id",
    "user_id",
    "created_at",
    "updated_at",
    "_raw_data_params",
    "_raw_data_table",
    "_raw_data_id",
    "_raw_data_remark",
)
# The tables that must exist before we can work in DevLake's database without the plugin.
DOMAIN_TABLES = (
    ACCOUNT_TABLE,
    USER_TABLE,
    LINK_TABLE,
    TASK_TABLE,
    PROJECTS_TABLE,
    MAPPING_TABLE,
    CICD_SCOPE_TABLE,
)
# The tables without which there are no figures about delivery.
DELIVERY_TABLES = (
    ACCOUNT_TABLE,
    USER_TABLE,
    LINK_TABLE,
    TEAM_USER_TABLE,
    MAPPING_TABLE,
    PULL_REQUEST_TABLE,
    METRIC_TABLE,
)
# Tables whose collation decides whether two people can be equal in them.
TABLES_OF_PEOPLE = (
    ACCOUNT_TABLE,
    USER_TABLE,
    LINK_TABLE,
    TEAM_TABLE,
    TEAM_USER_TABLE,
    TASK_TABLE,
)


def is_devlake_database(database: Union[Engine, SqlConnection]) -> bool:
    """Return true if DevLake's server uses this database, whoever owns its schema."""
    return bool(inspect(database).has_table(DEVLAKE_MIGRATION_TABLE))


def require_tables(engine: Engine) -> None:
    """Raise `ConfigurationError` if a database has none of our tables."""
    if inspect(engine).has_table(CONNECTION_TABLE):
        return
    if is_devlake_database(engine):
        raise ConfigurationError(
            f"DevLake's database {address_of(engine)} has none of our tables: install the plugin in"
            " DevLake, or run `developer-telemetry migrate --standalone`"
        )
    raise ConfigurationError(
        f"the database {address_of(engine)} has none of our tables; `developer-telemetry migrate`"
        " makes them"
    )


def read_api_keys(connection: SqlConnection) -> Sequence[Sequence[Any]]:
    """Return the hash, allowed path, end and name of each API key; none outside of DevLake."""
    if not inspect(connection).has_table(API_KEY_TABLE):
        return []
    return connection.exec_driver_sql(
        f"SELECT api_key, allowed_path, expired_at, name FROM {API_KEY_TABLE} ORDER BY id"
    ).fetchall()


def read_running_flags(connection: SqlConnection) -> Sequence[Sequence[Any]]:
    """Return `skip_collectors` and `full_sync` of each pipeline that runs a task of ours.

    Raises:
        DBAPIError: The database is not DevLake's, or of a version without these columns.
    """
    return connection.exec_driver_sql(
        "SELECT p.skip_collectors, p.full_sync FROM _devlake_tasks t"
        " JOIN _devlake_pipelines p ON p.id = t.pipeline_id"
        f" WHERE t.plugin = '{PLUGIN}' AND t.status = 'TASK_RUNNING'"
    ).fetchall()


def read_newest_pipeline(connection: SqlConnection) -> int:
    """Return the id of the newest pipeline, 0 without any, -1 outside of DevLake."""
    if not inspect(connection).has_table("_devlake_pipelines"):
        return -1
    return int(connection.exec_driver_sql("SELECT MAX(id) FROM _devlake_pipelines").scalar() or 0)


def read_blueprint_connections(connection: SqlConnection) -> Optional[frozenset[int]]:
    """Return the connections whose scope is in a blueprint; None outside of DevLake."""
    if not inspect(connection).has_table(BLUEPRINT_SCOPE_TABLE):
        return None
    rows = connection.exec_driver_sql(
        f"SELECT connection_id FROM {BLUEPRINT_SCOPE_TABLE}"
        f" WHERE plugin_name = '{PLUGIN}' AND scope_id = '{SCOPE_ID}'"
    )
    return frozenset(int(row[0]) for row in rows)


def has_users(connection: SqlConnection) -> bool:
    """Return true if the database has DevLake's tables of users and of their accounts."""
    schema = inspect(connection)
    return schema.has_table(USER_TABLE) and schema.has_table(LINK_TABLE)


def read_users_version(connection: SqlConnection) -> tuple[Any, ...]:
    """Return a value that changes when DevLake's users change; () outside of DevLake."""
    if not has_users(connection):
        return ()
    query = f"SELECT COUNT(*), MAX(updated_at) FROM {USER_TABLE}"
    return tuple(connection.exec_driver_sql(query).one())


class LinkCounts(NamedTuple):
    """Numbers of DevLake's users, of our accounts, and of accounts that have a user."""

    users: int
    accounts: int
    linked: int


def count_links(connection: SqlConnection) -> Optional[LinkCounts]:
    """Count users and our accounts; None outside of DevLake."""
    if not inspect(connection).has_table(LINK_TABLE):
        return None
    users = connection.exec_driver_sql(f"SELECT COUNT(*) FROM {USER_TABLE}").scalar() or 0
    accounts, linked = connection.exec_driver_sql(
        f"SELECT COUNT(DISTINCT a.id), COUNT(DISTINCT u.account_id) FROM {ACCOUNT_TABLE} a"
        f" LEFT JOIN {LINK_TABLE} u ON u.account_id = a.id"
        f" WHERE a.id LIKE '{PLUGIN}:Account:%%'",
        (),
    ).one()
    return LinkCounts(users, accounts, linked)


def make_scope_id(connection_id: int) -> str:
    """Return the id that a connection's one scope has in DevLake's domain layer."""
    return f"{PLUGIN}:TelemetryScope:{connection_id}:{SCOPE_ID}"


def make_account_id(connection_id: int, developer_id: str, texts: TableTexts = EXACTLY) -> str:
    """Return the account's id; a developer's id that the table can't hold exactly is hashed."""
    prefix = f"{PLUGIN}:Account:{connection_id}:"
    key = texts.key(developer_id)
    return prefix + (key if len(prefix) + len(key) <= MAX_ID else hash_developer(developer_id))


class TaskKind(NamedTuple):
    """A kind of task: the column of its number, DevLake's type, and words for its id and name."""

    column: str
    type: str
    identity: str
    noun: str


TASK_KINDS = (
    TaskKind("test_runs", "TEST", "TestRuns", "test run"),
    TaskKind("builds", "BUILD", "Builds", "build"),
)


def make_task_id(
    kind: TaskKind,
    connection_id: int,
    developer_id: str,
    date: str,
    texts: TableTexts = EXACTLY,
) -> str:
    """Return the task's id; a developer's id that the table can't hold exactly is hashed."""
    prefix = f"{PLUGIN}:{kind.identity}:{connection_id}"
    key = texts.key(developer_id)
    if len(prefix) + len(key) + len(date) + 2 > MAX_ID:
        key = hash_developer(developer_id)
    return f"{prefix}:{key}:{date}"
