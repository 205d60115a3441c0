"""The facts that `doctor` judges, collected once, without judging them.

They are read from the operator's machine: DevLake through its API, receivers through the address
that machines use, the database with our own settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple, Optional

from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.config import Settings
from developer_telemetry.connections.backend import StoredConnection
from developer_telemetry.connections.database_backend import list_newer_secrets
from developer_telemetry.connections.devlake_backend import DevLakeBackend
from developer_telemetry.connections.devlake_refusals import PLUGIN, AccessDenied, ServerError
from developer_telemetry.connections.registry import Connection, Connections
from developer_telemetry.constants import SCOPE_ID
from developer_telemetry.database.domain_texts import find_inexact_tables
from developer_telemetry.database.engine import (
    address_of,
    clock_offset_us,
    list_risks,
    now_us,
    open_engine,
    reading,
)
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.database.migrate import list_pending
from developer_telemetry.database.schema_owner import SchemaOwner
from developer_telemetry.diagnostics.connection_status import ConnectionStatus, connection_statuses
from developer_telemetry.diagnostics.conversion_status import (
    ConversionStatus,
    Ownership,
    read_conversion_statuses,
    read_ownership,
)
from developer_telemetry.diagnostics.probe import new_nonce, stored_nonce
from developer_telemetry.diagnostics.receiver_survey import Survey, survey
from developer_telemetry.errors import TelemetryError
from developer_telemetry.storage.devlake_schema import (
    TABLES_OF_PEOPLE,
    LinkCounts,
    count_links,
    is_devlake_database,
    read_blueprint_connections,
    read_newest_pipeline,
)
from developer_telemetry.storage.project_mapping import list_projects, read_members


class DatabaseFacts(NamedTuple):
    """The database of DB_URL. What follows `is_devlakes` is empty unless `is_usable`."""

    is_set: bool = False
    address: str = ""  # without the password
    error: str = ""  # the reason why it can't be used
    pending: Sequence[str] = ()  # migrations
    ownership: Optional[Ownership] = None  # None unless the database answered
    wants_standalone: bool = False  # by TELEMETRY_STANDALONE
    is_devlakes: bool = False
    inexact_tables: Mapping[str, str] = {}  # DevLake's, with their collation
    durability_risks: Sequence[str] = ()
    connections: Mapping[int, Connection] = {}
    newer_secrets: Sequence[int] = ()  # connections whose secret is in AES-GCM
    newest_pipeline: int = -1  # -1 where the database is not DevLake's
    clock_ahead_seconds: float = 0.0
    statuses: Sequence[ConnectionStatus] = ()
    in_blueprint: Optional[frozenset[int]] = None  # None where the database is not DevLake's
    people: Optional[LinkCounts] = None  # None where the database is not DevLake's
    conversions: Sequence[ConversionStatus] = ()  # empty where DevLake owns the schema
    has_projects: bool = False  # DevLake has some in this database
    in_project: frozenset[int] = frozenset()  # connections, by our own record

    @property
    def owner(self) -> Optional[SchemaOwner]:
        """Return the owner of the schema; None unless the database answered."""
        return self.ownership.owner if self.ownership else None

    @property
    def is_usable(self) -> bool:
        """Return true if the database answers and is migrated."""
        return self.is_set and not self.error and not self.pending


class DevLakeFacts(NamedTuple):
    """DevLake's server, through its API."""

    is_set: bool = False
    address: str = ""
    version: str = ""
    error: str = ""  # the reason why it answers nothing
    plugins: Optional[Sequence[str]] = None  # the plugins it loads; None unless it listed them
    plugin_error: str = ""  # the reason why it does not list its connections
    has_failed: bool = False  # it answered with an error of its own
    connections: Optional[Mapping[int, StoredConnection]] = None  # None unless it listed them
    newest_pipeline: int = 0
    pipelines_error: str = ""
    in_blueprint: frozenset[int] = frozenset()
    blueprints_error: str = ""

    @property
    def loads_plugin(self) -> Optional[bool]:
        """Return true if DevLake loads our plugin; None if that is unknown."""
        if self.connections is not None:
            return True
        return None if self.plugins is None else PLUGIN in self.plugins


class Facts(NamedTuple):
    """The facts of one installation."""

    database: DatabaseFacts = DatabaseFacts()
    devlake: DevLakeFacts = DevLakeFacts()
    receivers: Survey = Survey()
    has_left_nonce: bool = False  # receivers could look for it in the database
    collected_us: int = 0  # the time in UTC

    @property
    def connection_names(self) -> dict[int, str]:
        """Return the names of the connections that DevLake or the database has."""
        listed = self.devlake.connections or {}
        names = {number: connection.name for number, connection in listed.items()}
        names.update((number, stored.name) for number, stored in self.database.connections.items())
        return dict(sorted(names.items()))


def collect(
    settings: Settings, report_url: Callable[[int], str], devlake: Optional[DevLakeBackend]
) -> Facts:
    """Collect the facts of one installation.

    Args:
        settings: Those of this command; without a database, its facts are empty.
        report_url: The address to which machines send the reports of a connection.
        devlake: The client of DevLake's server; None leaves its facts empty.
    """
    at_devlake = DevLakeFacts() if devlake is None else _ask_devlake(devlake)
    database = DatabaseFacts(is_set=bool(settings.db_url))
    with ExitStack() as stack:
        engine = None
        if database.is_set:
            try:
                engine = open_engine(settings.db_url)
                stack.callback(engine.dispose)
                database = read_database(engine, settings)
            except (SQLAlchemyError, ValueError) as error:
                database = database._replace(error=describe_error(error))
        tokens = _tokens(database, at_devlake)
        receivers, has_left_nonce = _ask_receivers(
            engine if database.is_usable else None, report_url, tokens
        )
    return Facts(database, at_devlake, receivers, has_left_nonce, now_us())


def _tokens(database: DatabaseFacts, devlake: DevLakeFacts) -> dict[int, str]:
    """Return the token of each connection that has one, as the database or DevLake has it."""
    listed = (devlake.connections or {}).items()
    tokens = {number: connection.token for number, connection in listed if connection.token}
    for number, stored in database.connections.items():
        if stored.token:
            tokens[number] = stored.token
    return dict(sorted(tokens.items()))


def _ask_receivers(
    engine: Optional[Engine], report_url: Callable[[int], str], tokens: Mapping[int, str]
) -> tuple[Survey, bool]:
    """Return the survey, and true if its nonce was in the database meanwhile."""
    if not tokens:
        return Survey(), False
    nonce = new_nonce()
    if engine is not None:
        try:
            with stored_nonce(engine, nonce):
                return survey(report_url, tokens, nonce), True
        except SQLAlchemyError:
            pass  # the user of DB_URL may only read
    return survey(report_url, tokens, nonce), False


# The database.


def read_database(engine: Engine, settings: Settings) -> DatabaseFacts:
    """Read the facts of the database.

    Raises:
        SQLAlchemyError: if the database does not answer.
    """
    missing = tuple(list_pending(engine))
    facts = DatabaseFacts(
        is_set=True,
        address=address_of(engine),
        pending=missing,
        ownership=read_ownership(engine),
        wants_standalone=settings.standalone and not settings.embedded,
        is_devlakes=is_devlake_database(engine),
    )
    if missing:
        return facts
    with reading(engine).connect() as connection:
        facts = facts._replace(
            newest_pipeline=read_newest_pipeline(connection),
            inexact_tables=find_inexact_tables(connection, TABLES_OF_PEOPLE),
            in_blueprint=read_blueprint_connections(connection),
            people=count_links(connection),
            has_projects=bool(list_projects(connection)),
            in_project=frozenset(member.connection_id for member in read_members(connection)),
        )
    return facts._replace(
        durability_risks=tuple(list_risks(engine)),
        connections=_connections_here(engine, settings),
        newer_secrets=tuple(list_newer_secrets(engine, settings.encryption_secret)),
        clock_ahead_seconds=clock_offset_us(engine) / 1e6,
        statuses=tuple(connection_statuses(engine)),
        conversions=tuple(read_conversion_statuses(engine)),
    )


def _connections_here(engine: Engine, settings: Settings) -> dict[int, Connection]:
    connections = Connections(engine, settings.encryption_secret)
    connections.reload()
    if settings.devlake is not None and settings.devlake.api_key:
        # If its hash is in the database, the secret here is DevLake's.
        connections.api_key(settings.devlake.api_key.encode())
        connections.reload()
    return {connection.id: connection for connection in connections.all()}


# DevLake's server.


def _ask_devlake(devlake: DevLakeBackend) -> DevLakeFacts:
    facts = DevLakeFacts(is_set=True)
    try:
        version = devlake.call("GET", "/version").get("version", "")
        facts = facts._replace(address=devlake.base, version=version)
        facts = facts._replace(plugins=_plugins(devlake))
        listed = {connection.id: connection for connection in devlake.connections()}
    except AccessDenied as error:  # its version needs no access
        return facts._replace(error=str(error))
    except TelemetryError as error:
        if not facts.address:
            return facts._replace(error=str(error))
        facts = facts._replace(plugin_error=str(error), has_failed=isinstance(error, ServerError))
        return facts if facts.loads_plugin is not False else _with_newest_pipeline(facts, devlake)
    facts = facts._replace(connections=listed)
    try:
        facts = facts._replace(in_blueprint=frozenset(_in_blueprint(devlake)))
    except TelemetryError as error:
        facts = facts._replace(blueprints_error=str(error))
    # Last, shortly before the same query of the database: a pipeline may start in between.
    return _with_newest_pipeline(facts, devlake)


def _plugins(devlake: DevLakeBackend) -> Optional[tuple[str, ...]]:
    """Return the plugins that DevLake loads; None if it does not list them."""
    try:
        return tuple(devlake.plugins())
    except AccessDenied:
        raise
    except TelemetryError:
        return None  # until a pending migration is confirmed, DevLake answers no other request


def _with_newest_pipeline(facts: DevLakeFacts, devlake: DevLakeBackend) -> DevLakeFacts:
    try:
        return facts._replace(newest_pipeline=_newest_pipeline(devlake))
    except TelemetryError as error:
        return facts._replace(pipelines_error=str(error))


def _newest_pipeline(devlake: DevLakeBackend) -> int:
    newest = devlake.call("GET", "/pipelines?page=1&pageSize=1")["pipelines"] or []
    return max((int(pipeline["id"]) for pipeline in newest), default=0)


def _in_blueprint(devlake: DevLakeBackend) -> Iterator[int]:
    """Yield our connections whose scope is in one of DevLake's blueprints."""
    for blueprint in devlake.blueprints():
        if blueprint.advanced:
            yield from blueprint.connection_ids  # its owner has written its plan
        elif blueprint.connection_ids:
            entries = devlake.call("GET", f"/blueprints/{blueprint.id}")["connections"] or []
            for entry in entries:
                scopes = [scope["scopeId"] for scope in entry["scopes"] or []]
                if entry["pluginName"] == PLUGIN and SCOPE_ID in scopes:
                    yield int(entry["connectionId"])
