"""The hand-over of DevLake's database: from DevLake's server to us, and back.

The owner of the schema applies migrations and converts reports. A hand-over changes no report, no
derived row, and no watermark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Optional

from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import CONNECTION_TABLE, DEVLAKE_MIGRATION_TABLE, PROJECT_TABLE
from developer_telemetry.database.engine import address_of, reading, transact
from developer_telemetry.database.migrate import list_applied_by_devlake, migrate
from developer_telemetry.database.schema_owner import SchemaOwner, read_owner, record_owner
from developer_telemetry.database.schema_versions import NAMES
from developer_telemetry.errors import ConfigurationError, NotDevLakeYet, Unavailable
from developer_telemetry.storage.devlake_schema import DOMAIN_TABLES, PLUGIN, is_devlake_database
from developer_telemetry.storage.project_mapping import (
    Member,
    leave_blueprints,
    record_blueprints,
)

if TYPE_CHECKING:  # a receiver does not call DevLake, and saves httpx's megabytes of memory
    from developer_telemetry.connections.devlake_backend import DevLakeBackend

HOW_TO_HAND_OVER = (
    "(1) set DISABLED_REMOTE_PLUGINS=true for DevLake's server, or take the plugin out of its"
    " plugins folder, and restart it; (2) run this again with DEVLAKE_URL set, so that DevLake is"
    " asked, or with --plugin-is-removed; (3) restart the receiver"
)


class TakenOver(NamedTuple):
    """The result of a hand-over to us: the migrations applied, and connections in projects."""

    migrations: list[str]
    members: list[Member]
    is_new: bool  # we did not own the schema before


def take_over(
    engine: Engine, devlake: Optional[DevLakeBackend], plugin_is_removed: bool = False
) -> TakenOver:
    """Apply our migrations to DevLake's database, and record that we own its schema.

    Args:
        devlake: DevLake's API, which is asked whether it loads the plugin; None if not set.
        plugin_is_removed: The operator's confirmation, if DevLake has loaded the plugin before.

    Raises:
        NotDevLakeYet: DevLake's server has not made its tables so far.
        ConfigurationError: DevLake loads the plugin, or may do so.
    """
    _require_devlake(engine)
    is_removed = _is_without_plugin(devlake, plugin_is_removed)
    with reading(engine).connect() as connection:
        is_new = read_owner(connection) is SchemaOwner.DEVLAKE
    if is_new and list_applied_by_devlake(engine) and not (is_removed or plugin_is_removed):
        raise ConfigurationError(
            "DevLake's server has loaded the plugin before, and may load it still. To hand over: "
            + HOW_TO_HAND_OVER
        )
    applied = migrate(engine, takes_over=True)
    members = transact(engine, _record_takeover) if is_new else []
    return TakenOver(applied, members, is_new)


def hand_back(engine: Engine, devlake: Optional[DevLakeBackend]) -> list[tuple[str, str]]:
    """Record that DevLake owns the schema of its database.

    Returns:
        The names of connections with their projects, whose blueprints may lack them.

    Raises:
        ConfigurationError: The database is not DevLake's, or DevLake does not load the plugin.
    """
    if not is_devlake_database(engine):
        raise ConfigurationError(
            f"{address_of(engine)} is not DevLake's database, so it can't be handed back"
        )
    pending = len(NAMES) - len(list_applied_by_devlake(engine))
    if pending or (devlake is not None and PLUGIN not in devlake.plugins()):
        why = f"has not run {pending} of our migrations" if pending else "does not load the plugin"
        raise ConfigurationError(
            f"DevLake's server {why}: install the plugin there (docs/install.md), restart the"
            " server, confirm its migration, then run this again"
        )
    transact(engine, lambda connection: record_owner(connection, SchemaOwner.DEVLAKE))
    with reading(engine).connect() as connection:
        rows = connection.exec_driver_sql(
            f"SELECT c.name, p.project_name FROM {PROJECT_TABLE} p"
            f" JOIN {CONNECTION_TABLE} c ON c.id = p.connection_id ORDER BY c.id, p.project_name"
        )
        return [(row[0], row[1]) for row in rows]


def _require_devlake(engine: Engine) -> None:
    schema = inspect(engine)
    tables = (DEVLAKE_MIGRATION_TABLE, *DOMAIN_TABLES)
    missing = [table for table in tables if not schema.has_table(table)]
    if missing:
        raise NotDevLakeYet(
            f"{address_of(engine)} is not (yet) DevLake's database: it has no table"
            f" {', '.join(missing)}. Start DevLake once and confirm its migration, then run this"
            " again; for a database of your own leave out --standalone"
        )


def _is_without_plugin(devlake: Optional[DevLakeBackend], plugin_is_removed: bool) -> bool:
    """Return true if DevLake's API shows that it does not load the plugin; False if unknown."""
    if devlake is None:
        return False
    try:
        loaded = PLUGIN in devlake.plugins()
    except Unavailable:
        return False  # it may be down for its upgrade
    except ConfigurationError as error:
        if plugin_is_removed:
            return False
        raise ConfigurationError(
            f"DevLake can't be asked whether it loads the plugin: {error}; or confirm that it does"
            " not, with --plugin-is-removed"
        ) from None
    if loaded:
        raise ConfigurationError(
            f"{devlake.address} loads the plugin, so it owns the schema. To hand over: "
            + HOW_TO_HAND_OVER
        )
    return True


def _record_takeover(connection: SqlConnection) -> list[Member]:
    members = record_blueprints(connection)
    leave_blueprints(connection)
    record_owner(connection, SchemaOwner.STANDALONE)
    return members
