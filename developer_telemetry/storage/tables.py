"""Every table that we write to, with its personal columns and the coverage of its rows.

Counting, exporting, deleting a connection, pruning and erasing iterate over this declaration. A
test compares it with the real schema: each column of text is listed, personal or not.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, Optional

from developer_telemetry.constants import (
    ACCESS_TABLE,
    ACCOUNT_TABLE,
    CONNECTION_TABLE,
    CONVERSION_TABLE,
    FIGURE_TABLE,
    HORIZON_TABLE,
    LINK_TABLE,
    MACHINE_TABLE,
    MADE_LINK_TABLE,
    MIGRATION_TABLE,
    OWNER_TABLE,
    PROBE_TABLE,
    PROJECT_TABLE,
    RAW_TABLE,
    RECEIVER_TABLE,
    REFUSAL_TABLE,
    REFUSED_MACHINE_TABLE,
    RUN_TABLE,
    SCOPE_CONFIG_TABLE,
    SCOPE_TABLE,
    SDK_RUN_TABLE,
    TASK_TABLE,
    TOKEN_TABLE,
    TOKEN_USE_TABLE,
    TOMBSTONE_TABLE,
    TOOL_TABLE,
)
from developer_telemetry.reports.daily_metrics import LONG_COLUMNS

PARAMS = "_raw_data_params"
PROVENANCE = (PARAMS, "_raw_data_table", "_raw_data_remark")


class PersonKey(Enum):
    """The columns by which rows name a person."""

    DEVELOPER = "connection_id, developer_id"
    ACCOUNT = "an id of DevLake's domain layer, made of connection and developer"
    TASK = "an id of DevLake's domain layer, made of connection, developer and date"


class Table(NamedTuple):
    """One table, and what removes or exports its rows."""

    name: str
    # An operator's word for its rows.
    label: str = ""
    key: Optional[PersonKey] = None
    # The column that identifies a person's rows; for `ACCOUNT` and `TASK` it has their id.
    id_column: str = "id"
    # Rows are a developer's days: they have `date` and `arrived_us`.
    has_days: bool = False
    # Columns of text that may hold a person, and those that never do.
    personal: tuple[str, ...] = ()
    impersonal: tuple[str, ...] = ()
    # The column by which the deletion of a connection finds its rows; empty if they stay.
    connection_column: str = ""
    is_erased: bool = False
    is_pruned: bool = False
    is_exported: bool = False
    # The reason why personal rows are not covered by one of these.
    exemption: str = ""
    # The reason why a backup has none of its rows.
    backup_exemption: str = ""
    # Columns of the type JSON, which some drivers return as text.
    json_columns: tuple[str, ...] = ()


_CONVERTED = "the next conversion writes them, with ids for the collation of the table"
_OF_DATABASE = "a property of the database, not of what is stored in it"

TABLES = (
    Table(
        RAW_TABLE,
        "reports",
        PersonKey.DEVELOPER,
        has_days=True,
        personal=("developer_id", "hostname", "payload"),
        impersonal=("params", "report_id"),
        connection_column="connection_id",
        is_erased=True,
        is_pruned=True,
        is_exported=True,
    ),
    Table(
        TOOL_TABLE,
        "days",
        PersonKey.DEVELOPER,
        has_days=True,
        personal=("developer_id", "email", "name", "hostname", *LONG_COLUMNS),
        impersonal=PROVENANCE,
        connection_column="connection_id",
        is_erased=True,
        is_pruned=True,
        is_exported=True,
    ),
    Table(
        MACHINE_TABLE,
        "machines",
        PersonKey.DEVELOPER,
        "hostname",
        personal=("developer_id", "hostname"),
        impersonal=(*PROVENANCE, "user_agent"),
        connection_column="connection_id",
        is_erased=True,
        is_pruned=True,
        is_exported=True,
    ),
    Table(
        REFUSED_MACHINE_TABLE,
        "refused machines",
        PersonKey.DEVELOPER,
        personal=("developer_id", "hostname", "address", "message"),
        impersonal=("id", "user_agent", "reason"),
        connection_column="connection_id",
        is_erased=True,
        exemption="refused reports are no data of a day: each row is deleted after 14 days",
    ),
    Table(
        ACCOUNT_TABLE,
        "accounts",
        PersonKey.ACCOUNT,
        personal=("id", "email", "full_name", "user_name"),
        impersonal=(*PROVENANCE, "avatar_url", "organization"),
        connection_column=PARAMS,
        is_erased=True,
        is_pruned=True,
        is_exported=True,
        backup_exemption=_CONVERTED,
    ),
    Table(
        LINK_TABLE,
        "user accounts",
        PersonKey.ACCOUNT,
        "account_id",
        personal=("user_id", "account_id"),
        impersonal=PROVENANCE,
        is_erased=True,
        is_pruned=True,
        is_exported=True,
        exemption="where DevLake makes such rows, its server deletes those of a connection",
    ),
    Table(
        TASK_TABLE,
        "tasks",
        PersonKey.TASK,
        personal=("id", "name"),
        impersonal=(
            *PROVENANCE,
            "pipeline_id",
            "result",
            "status",
            "original_status",
            "original_result",
            "type",
            "environment",
            "cicd_scope_id",
        ),
        connection_column=PARAMS,
        is_erased=True,
        is_pruned=True,
        is_exported=True,
        backup_exemption=_CONVERTED,
    ),
    Table(
        MADE_LINK_TABLE,
        "records of links",
        PersonKey.ACCOUNT,
        "account_id",
        personal=("account_id", "user_id", "matched_text"),
        impersonal=("matched_by",),
        connection_column="connection_id",
        is_erased=True,
        is_pruned=True,
        is_exported=True,
    ),
    Table(
        ACCESS_TABLE,
        "accesses",
        PersonKey.DEVELOPER,
        personal=("developer_id", "who", "what"),
        impersonal=("how",),
        connection_column="connection_id",
        is_erased=True,
        is_pruned=True,
        is_exported=True,
    ),
    Table(
        TOMBSTONE_TABLE,
        "erasures",
        personal=("subject",),
        exemption="a keyed hash that keeps reports of an erased person out; spools may have some",
    ),
    Table(
        SCOPE_TABLE,
        "scopes",
        impersonal=("id", "name", *PROVENANCE),
        connection_column="connection_id",
    ),
    Table(
        SCOPE_CONFIG_TABLE,
        "scope configs",
        impersonal=("entities", "name"),
        connection_column="connection_id",
        json_columns=("entities",),
    ),
    Table(
        REFUSAL_TABLE,
        "counts of refusals",
        impersonal=("reason",),
        connection_column="connection_id",
    ),
    Table(
        RUN_TABLE,
        impersonal=("subtask", "settings", "report_id"),
        connection_column="connection_id",
        backup_exemption="after a restore the next run reads all reports",
    ),
    Table(
        TOKEN_TABLE,
        "named tokens",
        impersonal=("name", "secret_token"),
        connection_column="connection_id",
    ),
    Table(
        TOKEN_USE_TABLE,
        "uses of tokens",
        impersonal=("fingerprint",),
        connection_column="connection_id",
    ),
    Table(HORIZON_TABLE, "retention marks", connection_column="connection_id"),
    Table(
        PROJECT_TABLE,
        "projects",
        impersonal=("project_name",),
        connection_column="connection_id",
    ),
    Table(
        CONVERSION_TABLE,
        impersonal=("error",),
        connection_column="connection_id",
        backup_exemption=_OF_DATABASE,
    ),
    # A group is a team or a project of DevLake's; an item is used by a whole group at least.
    Table(
        FIGURE_TABLE,
        impersonal=("figure", "grain", "grouped_by", "group_id", "item"),
        backup_exemption="the receiver computes it anew from what is stored",
    ),
    Table(
        SDK_RUN_TABLE,
        impersonal=("subtask_name", "state"),
        backup_exemption="DevLake's SDK records its runs there, and none of ours reads them",
    ),
    # Last, so that a deletion that was interrupted can be repeated.
    Table(
        CONNECTION_TABLE,
        "connections",
        impersonal=(
            "name",
            "proxy",
            "endpoint",
            "secret_token",
            "duplicate_strategy",
            "previous_secret_token",
        ),
        connection_column="id",
    ),
    # The name of a receiver is its server's.
    Table(
        RECEIVER_TABLE,
        impersonal=("id", "name", "fingerprint"),
        backup_exemption="each receiver writes its row while it runs",
    ),
    Table(PROBE_TABLE, impersonal=("nonce",), backup_exemption="rows of a few seconds"),
    Table(OWNER_TABLE, impersonal=("owner",), backup_exemption=_OF_DATABASE),
    Table(MIGRATION_TABLE, impersonal=("script_name",), backup_exemption=_OF_DATABASE),
)

# Tables whose rows name connection and developer, of which an index begins with both.
DEVELOPER_TABLES = tuple(table.name for table in TABLES if table.key is PersonKey.DEVELOPER)
# Tables with a person's days.
DAY_TABLES = tuple(table.name for table in TABLES if table.has_days)
ERASED_TABLES = tuple(table for table in TABLES if table.is_erased)
PRUNED_TABLES = tuple(table for table in TABLES if table.is_pruned)
EXPORTED_TABLES = tuple(table for table in TABLES if table.is_exported)
BACKUP_TABLES = tuple(table for table in TABLES if not table.backup_exemption)
# In the order in which the deletion of a connection empties them.
CONNECTION_TABLES = tuple(table for table in TABLES if table.connection_column)
