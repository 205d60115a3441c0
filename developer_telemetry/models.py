"""The models that DevLake's server is told about: connection, scope, scope config, tool tables.

DevLake ignores a schema's defaults and fills fields that are not set with zero values, so `""`,
`0` and `false` always mean the default. Table names and ids are spelled out; the SDK would derive
them from the name of the plugin's folder.
"""

import datetime
from typing import Optional

from pydantic import SecretStr

from developer_telemetry.constants import (
    CONNECTION_TABLE,
    MACHINE_TABLE,
    SCOPE_CONFIG_TABLE,
    SCOPE_ID,
    SCOPE_NAME,
    SCOPE_TABLE,
    TOOL_TABLE,
)
from pydevlake import Connection, Field, ScopeConfig, ToolModel, ToolScope


class TelemetryConnection(Connection):
    """A fleet of machines that send with one secret token."""

    __tablename__ = CONNECTION_TABLE

    # Unused, since the plugin fetches nothing; the specification has the field.
    endpoint: Optional[str] = None
    secret_token: Optional[SecretStr] = None
    # The token before the current one, still valid until this time in epoch seconds.
    previous_secret_token: Optional[SecretStr] = None
    previous_token_until: Optional[int] = None
    # "overwrite" (also ""): a day's newest report is its row; "sum": each host's newest, added.
    duplicate_strategy: Optional[str] = None
    # True removes paths from a report before it is stored anywhere.
    strip_paths: Optional[bool] = None
    # True replaces developer, e-mail, name and host by keyed hashes, as early.
    pseudonyms: Optional[bool] = None
    # For how many days reports, and the rows made of them, are stored; 0 is for ever. Reports are
    # deleted with their rows at the latest.
    raw_retention_days: Optional[int] = None
    tool_retention_days: Optional[int] = None
    # The fewest developers that a figure of the dashboards is over; 0 is 5, and 1 switches it off.
    smallest_group: Optional[int] = None


class TelemetryScope(ToolScope, table=True):
    """All reports of a connection; there is one scope, its id is `all`."""

    __tablename__ = SCOPE_TABLE

    def domain_id(self) -> str:
        return f"developer_telemetry:TelemetryScope:{self.connection_id}:{self.id}"


class TelemetryScopeConfig(ScopeConfig):
    """The options of a blueprint for the reports."""

    __tablename__ = SCOPE_CONFIG_TABLE

    # True leaves out the blueprint's last stage, which links accounts to users.
    keep_accounts_unlinked: Optional[bool] = None
    # True makes test runs and builds tasks of DevLake's domain layer.
    test_and_build_tasks: Optional[bool] = None


class DeveloperMetrics(ToolModel, table=True):
    """One developer's day. The JSON columns hold text with sorted keys."""

    __tablename__ = TOOL_TABLE

    developer_id: str = Field(primary_key=True, max_length=255)
    date: datetime.date = Field(primary_key=True)
    email: Optional[str] = Field(default=None, max_length=255)
    name: Optional[str] = Field(default=None, max_length=255)
    hostname: Optional[str] = Field(default=None, max_length=255)
    active_hours: int = 0
    tools_used: Optional[str] = None
    project_context: Optional[str] = None
    command_counts: Optional[str] = None
    os_info: Optional[str] = None
    git_activity: Optional[str] = None
    development_activity: Optional[str] = None
    commits: int = 0
    lines_added: int = 0
    lines_deleted: int = 0
    files_changed: int = 0
    test_runs: int = 0
    builds: int = 0
    arrived_us: int = 0


class Machine(ToolModel, table=True):
    """A host of a developer: its first and last report, and how many there were."""

    __tablename__ = MACHINE_TABLE

    developer_id: str = Field(primary_key=True, max_length=255)
    hostname: str = Field(primary_key=True, max_length=255)
    first_seen: Optional[datetime.datetime] = None
    last_seen: Optional[datetime.datetime] = None
    reports: int = 0
    # The time since which it is retired, in microseconds since 1970; 0 if it is not.
    retired_us: int = 0
    user_agent: str = Field(default="", max_length=255)


def make_scope() -> TelemetryScope:
    """Return the one scope that every connection has."""
    return TelemetryScope(id=SCOPE_ID, name=SCOPE_NAME)
