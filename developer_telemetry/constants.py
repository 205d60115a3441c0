"""The names of tables, scope and strategies that DevLake and its operators know.

Most calls of the plugin need no other module of ours, and each call is a process of its own.
"""

from __future__ import annotations

from typing import Optional

from developer_telemetry.errors import ConfigurationError

# Our tables in DevLake's database.
RAW_TABLE = "_raw_developer_telemetry"
TOOL_TABLE = "_tool_developer_metrics"
CONNECTION_TABLE = "_tool_developer_telemetry_connections"
SCOPE_TABLE = "_tool_developer_telemetry_scopes"
MACHINE_TABLE = "_tool_developer_telemetry_machines"
REFUSAL_TABLE = "_tool_developer_telemetry_refusals"
REFUSED_MACHINE_TABLE = "_tool_developer_telemetry_refused_machines"
TOKEN_TABLE = "_tool_developer_telemetry_tokens"
TOKEN_USE_TABLE = "_tool_developer_telemetry_token_uses"
RUN_TABLE = "_tool_developer_telemetry_runs"
HORIZON_TABLE = "_tool_developer_telemetry_horizons"
ACCESS_TABLE = "_tool_developer_telemetry_accesses"
TOMBSTONE_TABLE = "_tool_developer_telemetry_tombstones"
RECEIVER_TABLE = "_tool_developer_telemetry_receivers"
PROBE_TABLE = "_tool_developer_telemetry_probes"
OWNER_TABLE = "_tool_developer_telemetry_schema_owner"
PROJECT_TABLE = "_tool_developer_telemetry_projects"
MADE_LINK_TABLE = "_tool_developer_telemetry_made_links"
CONVERSION_TABLE = "_tool_developer_telemetry_conversions"
FIGURE_TABLE = "_tool_developer_telemetry_figures"
# The views of it that dashboards read.
FIGURE_VIEWS = ("telemetry_days", "telemetry_weeks", "telemetry_periods", "telemetry_computed")
SCOPE_CONFIG_TABLE = "_tool_developer_telemetry_scope_configs"
MIGRATION_TABLE = "_tool_developer_telemetry_migrations"  # of a database that is not DevLake's

SDK_RUN_TABLE = "_pydevlake_subtask_runs"  # in which DevLake's SDK records its runs

# DevLake's tables; `storage/devlake_schema` has what we assume of them.
ACCOUNT_TABLE = "accounts"
LINK_TABLE = "user_accounts"  # the person of an organization to whom an account belongs
TASK_TABLE = "cicd_tasks"
DEVLAKE_MIGRATION_TABLE = "_devlake_migration_history"

# The one scope of each connection.
SCOPE_ID = "all"
SCOPE_NAME = "All reports"

OVERWRITE = "overwrite"
SUM = "sum"

# How many different developers a figure about people has to be over, unless a connection sets it.
DEFAULT_SMALLEST_GROUP = 5

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
# A machine is quiet after this time: longer than a weekend with a holiday after it.
QUIET_US = 7 * DAY_US


def strategy_of(text: Optional[str]) -> str:
    """Return the strategy that a connection's field names; an empty one means the default."""
    strategy = (text or "").strip().lower() or OVERWRITE
    if strategy not in (OVERWRITE, SUM):
        raise ConfigurationError(
            f"duplicateStrategy is {text!r}; set it to {OVERWRITE!r} or {SUM!r}"
        )
    return strategy


def smallest_group_of(number: Optional[int]) -> int:
    """Return the smallest group that a connection's field sets; 0 and none mean the default."""
    return number if number is not None and number > 0 else DEFAULT_SMALLEST_GROUP
