"""DevLake's own tables in a test's database, with the columns of its server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy.engine import Engine

from developer_telemetry.connections.handover import take_over
from developer_telemetry.constants import DEVLAKE_MIGRATION_TABLE, MIGRATION_TABLE, OWNER_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.migrate import DOMAIN_COLUMNS, DOMAIN_WORDS, create_table
from developer_telemetry.database.schema_versions import NAMES
from developer_telemetry.storage.devlake_schema import PLUGIN

_STAMPS = "created_at {time}, updated_at {time}"
_ORIGIN = (
    "_raw_data_params VARCHAR(255), _raw_data_table VARCHAR(255), _raw_data_id BIGINT,"
    " _raw_data_remark {text}"
)
_COLUMNS = {
    DEVLAKE_MIGRATION_TABLE: "created_at {time}, script_version BIGINT NOT NULL,"
    " script_name VARCHAR(255) NOT NULL, comment VARCHAR(255),"
    " PRIMARY KEY (script_version, script_name)",
    "users": f"id VARCHAR(255) NOT NULL PRIMARY KEY, {_STAMPS}, {_ORIGIN}, email VARCHAR(255),"
    " name VARCHAR(255)",
    "user_accounts": f"user_id VARCHAR(255), account_id VARCHAR(255) NOT NULL PRIMARY KEY,"
    f" {_STAMPS}, {_ORIGIN}",
    "projects": f"name VARCHAR(255) NOT NULL PRIMARY KEY, description {{text}}, {_STAMPS},"
    f" {_ORIGIN}",
    "project_mapping": "project_name VARCHAR(255) NOT NULL, {table} VARCHAR(255) NOT NULL,"
    f" row_id VARCHAR(255) NOT NULL, {_STAMPS}, {_ORIGIN},"
    " PRIMARY KEY (project_name, {table}, row_id)",
    "cicd_scopes": f"id VARCHAR(255) NOT NULL PRIMARY KEY, {_STAMPS}, {_ORIGIN},"
    " name VARCHAR(255), description {text}, url VARCHAR(255), created_date {time},"
    " updated_date {time}",
    "_devlake_blueprints": "id BIGINT NOT NULL PRIMARY KEY, name VARCHAR(255),"
    " project_name VARCHAR(255), mode VARCHAR(20), plan {text}",
    "_devlake_blueprint_connections": "blueprint_id BIGINT NOT NULL,"
    " plugin_name VARCHAR(255) NOT NULL, connection_id BIGINT NOT NULL,"
    " PRIMARY KEY (blueprint_id, plugin_name, connection_id)",
    "_devlake_blueprint_scopes": "blueprint_id BIGINT NOT NULL,"
    " plugin_name VARCHAR(255) NOT NULL, connection_id BIGINT NOT NULL,"
    " scope_id VARCHAR(255) NOT NULL,"
    " PRIMARY KEY (blueprint_id, plugin_name, connection_id, scope_id)",
    "_devlake_pipelines": "id BIGINT NOT NULL PRIMARY KEY, skip_collectors BOOLEAN,"
    " full_sync BOOLEAN",
    "_devlake_tasks": "id BIGINT NOT NULL PRIMARY KEY, plugin VARCHAR(255), status VARCHAR(255),"
    " pipeline_id BIGINT",
}
_TIMES = (
    "created_date {time}, queued_date {time}, started_date {time}, finished_date {time},"
    " duration_sec {real}, queued_duration_sec {real}"
)
_RESULTS = (
    "result VARCHAR(100), status VARCHAR(100), original_result VARCHAR(100),"
    " original_status VARCHAR(100), environment VARCHAR(255)"
)
_TICKET = (
    "title {text}, status VARCHAR(100), created_date {time}, updated_date {time},"
    " resolution_date {time}, lead_time_minutes BIGINT, assignee_id VARCHAR(255)"
)
# What is read or written for figures about delivery; these tables have more columns.
_DELIVERY_COLUMNS = {
    "teams": f"id VARCHAR(255) NOT NULL PRIMARY KEY, {_STAMPS}, {_ORIGIN}, name VARCHAR(255),"
    " alias VARCHAR(255), parent_id VARCHAR(255), sorting_index BIGINT",
    "team_users": "team_id VARCHAR(255) NOT NULL, user_id VARCHAR(255) NOT NULL,"
    f" {_STAMPS}, {_ORIGIN}, PRIMARY KEY (team_id, user_id)",
    "pull_requests": f"id VARCHAR(255) NOT NULL PRIMARY KEY, {_STAMPS}, {_ORIGIN},"
    " base_repo_id VARCHAR(191), status VARCHAR(100), title {text}, author_name VARCHAR(100),"
    " author_id VARCHAR(100), pull_request_key BIGINT, created_date {time}, merged_date {time},"
    " closed_date {time}, additions BIGINT, deletions BIGINT, is_draft BOOLEAN",
    "project_pr_metrics": f"id VARCHAR(255) NOT NULL, {_STAMPS}, {_ORIGIN},"
    " project_name VARCHAR(100) NOT NULL, pr_coding_time BIGINT, pr_pickup_time BIGINT,"
    " pr_review_time BIGINT, pr_deploy_time BIGINT, pr_cycle_time BIGINT, pr_created_date {time},"
    " pr_merged_date {time}, PRIMARY KEY (id, project_name)",
    "cicd_pipelines": f"id VARCHAR(255) NOT NULL PRIMARY KEY, {_STAMPS}, {_ORIGIN}, {_RESULTS},"
    f" {_TIMES}, type VARCHAR(100), cicd_scope_id {{text}}, name {{text}}",
    "cicd_deployments": f"id VARCHAR(255) NOT NULL PRIMARY KEY, {_STAMPS}, {_ORIGIN}, {_RESULTS},"
    f" {_TIMES}, cicd_scope_id VARCHAR(255), name {{text}}",
    "cicd_deployment_commits": f"id VARCHAR(255) NOT NULL, {_STAMPS}, {_ORIGIN}, {_RESULTS},"
    f" {_TIMES}, cicd_scope_id VARCHAR(255), cicd_deployment_id VARCHAR(255), name VARCHAR(255),"
    " commit_sha VARCHAR(255) NOT NULL, PRIMARY KEY (id, commit_sha)",
    "issues": f"id VARCHAR(255) NOT NULL PRIMARY KEY, {_STAMPS}, {_ORIGIN}, {_TICKET},"
    " type VARCHAR(100)",
    "incidents": f"id VARCHAR(255) NOT NULL PRIMARY KEY, {_STAMPS}, {_ORIGIN}, {_TICKET}",
    "project_incident_deployment_relationships": f"id VARCHAR(255) NOT NULL, {_STAMPS}, {_ORIGIN},"
    " project_name VARCHAR(100) NOT NULL, deployment_id {text}, PRIMARY KEY (id, project_name)",
}
_REAL = {"mysql": "DOUBLE", "postgres": "NUMERIC", "sqlite": "REAL"}


@contextmanager
def devlake_tables(engine: Engine) -> Iterator[None]:
    """Make the tables that DevLake's server makes without the plugin; drop them at the end."""
    make_devlake_tables(engine)
    yield
    _drop_tables(engine, _COLUMNS)


@contextmanager
def delivery_tables(engine: Engine) -> Iterator[None]:
    """Make these, and those of teams, pull requests, builds and incidents; drop them at the end."""
    with devlake_tables(engine):
        make_delivery_tables(engine)
        yield
        _drop_tables(engine, _DELIVERY_COLUMNS)


def _drop_tables(engine: Engine, tables: Iterable[str]) -> None:
    with engine.begin() as connection:
        for table in tables:
            connection.exec_driver_sql(f"DROP TABLE {table}")


def make_devlake_tables(engine: Engine) -> None:
    """Make the tables that DevLake's server makes without the plugin."""
    _make_tables(engine, {**_COLUMNS, **DOMAIN_COLUMNS})


def make_delivery_tables(engine: Engine) -> None:
    """Make DevLake's tables of teams, pull requests, builds, deployments and incidents."""
    _make_tables(engine, _DELIVERY_COLUMNS)


def _make_tables(engine: Engine, tables: Mapping[str, str]) -> None:
    name = dialect_of(engine).name
    words = {**DOMAIN_WORDS[name], "real": _REAL[name]}
    words["table"] = engine.dialect.identifier_preparer.quote("table")
    with engine.begin() as connection:
        for table, columns in tables.items():
            create_table(connection, table, columns.format_map(words))


def make_projects(engine: Engine, *names: str) -> None:
    """Make projects as DevLake's API does."""
    param = dialect_of(engine).placeholder
    with engine.begin() as connection:
        for name in names:
            connection.exec_driver_sql(f"INSERT INTO projects (name) VALUES ({param})", (name,))


def run_project(engine: Engine, project: str, scopes: Iterable[tuple[str, str]]) -> None:
    """Write `project_mapping` as a run of a project's blueprint; scopes are table and id."""
    param = dialect_of(engine).placeholder
    table = engine.dialect.identifier_preparer.quote("table")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"DELETE FROM project_mapping WHERE project_name = {param}", (project,)
        )
        for scope in scopes:
            connection.exec_driver_sql(
                f"INSERT INTO project_mapping (project_name, {table}, row_id, _raw_data_params)"
                f" VALUES ({param}, {param}, {param}, {param})",
                (project, *scope, project),
            )


def use_in_blueprint(engine: Engine, blueprint_id: int, project: str, connection_id: int) -> None:
    """Add one of our connections to a project's blueprint."""
    param = dialect_of(engine).placeholder
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO _devlake_blueprints (id, name, project_name, mode)"
            f" VALUES ({blueprint_id}, 'b', {param}, 'NORMAL')",
            (project,),
        )
        of_blueprint = f"{blueprint_id}, '{PLUGIN}', {connection_id}"
        connection.exec_driver_sql(
            f"INSERT INTO _devlake_blueprint_connections VALUES ({of_blueprint})"
        )
        connection.exec_driver_sql(
            f"INSERT INTO _devlake_blueprint_scopes VALUES ({of_blueprint}, 'all')"
        )


def load_plugin(engine: Engine) -> None:
    """Migrate as DevLake's server does after the confirmation of a migration of the plugin."""
    taken = take_over(engine, None, plugin_is_removed=True)
    assert taken.is_new
    with engine.begin() as connection:
        for table in (MIGRATION_TABLE, OWNER_TABLE):
            connection.exec_driver_sql(f"DELETE FROM {table}")
        for version, name in NAMES.items():
            connection.exec_driver_sql(
                f"INSERT INTO {DEVLAKE_MIGRATION_TABLE} (script_version, script_name)"
                f" VALUES ({version}, '{name}')"
            )
