"""Whether everything that a report needs is there and fits together, and what mends what isn't.

It is asked from where an operator sits: DevLake through its API, the receiver through the address
that machines have, the database with our own settings. What can't be asked is skipped, and says
what to set.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Optional

from sqlalchemy import inspect
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.config import Settings
from developer_telemetry.connections.crypto import UNKNOWN_FORMAT, remedy_of
from developer_telemetry.connections.database_backend import newer_secrets
from developer_telemetry.connections.devlake_backend import DevLake
from developer_telemetry.connections.devlake_refusals import PLUGIN, NotLetIn, ServerFailed
from developer_telemetry.connections.onboarding import Kept
from developer_telemetry.connections.registry import Connection, Connections
from developer_telemetry.constants import SCOPE_ID
from developer_telemetry.database.domain_texts import inexact_tables
from developer_telemetry.database.engine import (
    address_of,
    clock_offset_us,
    losses,
    open_engine,
    reading,
    reason,
)
from developer_telemetry.database.migrate import pending
from developer_telemetry.diagnostics import checks
from developer_telemetry.diagnostics.checks import (
    FAILED,
    MAKE_CONNECTION,
    OK,
    SEE_DATABASE,
    SEE_DEVLAKE,
    SEE_RECEIVER,
    SEE_SECRET,
    SET_DATABASE,
    SET_DEVLAKE,
    SKIPPED,
    Check,
)
from developer_telemetry.diagnostics.connection_status import connection_statuses
from developer_telemetry.diagnostics.looking import SECRET
from developer_telemetry.diagnostics.probe import left_behind, new_nonce
from developer_telemetry.diagnostics.receiver_survey import Reach, reach
from developer_telemetry.errors import TelemetryError

# DevLake's, where people are.
DOMAIN_TABLES = ("accounts", "users", "user_accounts", "teams", "team_users", "cicd_tasks")
CONFIRM = "then confirm the migration that DevLake announces"
GIVE_SECRET = "give it the ENCRYPTION_SECRET of DevLake's server"
# What DevLake's server says of rows that were written with another one.
OTHER_SECRET = "invalid encryptionSecret"
LINKED = (
    "SELECT COUNT(DISTINCT a.id), COUNT(DISTINCT u.account_id) FROM accounts a"
    " LEFT JOIN user_accounts u ON u.account_id = a.id"
    " WHERE a.id LIKE 'developer_telemetry:Account:%%'"
)


class Doctor:
    """Looks at one site. `report_url` says where machines send a connection's reports."""

    def __init__(
        self, settings: Settings, report_url: Callable[[int], str], devlake: Optional[DevLake]
    ) -> None:
        self._settings = settings
        self._report_url = report_url
        self._devlake = devlake
        self._opened: Optional[Engine] = None
        # The same, once it is known to be migrated.
        self._engine: Optional[Engine] = None
        self._here: dict[int, Connection] = {}
        # None unless DevLake has told.
        self._kept: Optional[dict[int, Kept]] = None
        self._devlake_reads_nothing = False
        # The connections that DevLake is too old to read.
        self._too_new: list[int] = []
        self._reach = Reach("", [])

    def checks(self) -> Iterator[Check]:
        """Everything, one after the other; each is done when it is asked for."""
        try:
            yield from self._database()
            yield from self._devlake_side()
            yield from self._receiver()
            yield self._secret()
            yield self._clocks()
            yield from self._reach.spools()
            yield from self._reports()
            yield self._blueprints()
            yield self._people()
        finally:
            if self._opened is not None:
                self._opened.dispose()

    def _without_database(self, name: str) -> Check:
        if self._settings.db_url:
            return Check(name, SKIPPED, "the database can't be used from here", SEE_DATABASE)
        return Check(name, SKIPPED, "no database is set here", SET_DATABASE)

    def _without_devlake(self, name: str) -> Check:
        if self._devlake is not None:
            return Check(name, SKIPPED, "DevLake could not be asked", SEE_DEVLAKE)
        return Check(name, SKIPPED, "no DevLake is set here", SET_DEVLAKE)

    # The database, as we reach it.

    def _database(self) -> Iterator[Check]:
        if not self._settings.db_url:
            yield from map(
                self._without_database, ("database", "schema", "character sets", "durability")
            )
            return
        try:
            engine = self._opened = open_engine(self._settings.db_url)
            missing = pending(engine)
        except (SQLAlchemyError, ValueError) as error:
            yield Check("database", FAILED, reason(error), "check DB_URL and the server")
            yield from map(self._without_database, ("schema", "character sets", "durability"))
            return
        yield Check("database", OK, f"{address_of(engine)} answers")
        if missing:
            said = f"{len(missing)} migrations are pending: {', '.join(missing)}"
            mend = "confirm them in DevLake's web UI (a database of your own: `migrate`)"
            yield Check("schema", FAILED, said, mend)
            yield from map(self._without_database, ("character sets", "durability"))
            return
        yield Check("schema", OK, "no migration is pending")
        self._engine = engine
        yield _character_sets(engine)
        risks = losses(engine)
        for risk in risks:
            yield checks.failed("durability", risk, "set it to the default")
        if not risks:
            yield Check("durability", OK, "what was committed lasts")
        connections = Connections(engine, self._settings.encryption_secret)
        connections.reload()
        if self._settings.devlake is not None and self._settings.devlake.api_key:
            # One that is found under its hash proves the secret here, and so tells of the others.
            connections.api_key(self._settings.devlake.api_key.encode())
            connections.reload()
        self._here = {each.id: each for each in connections.all()}

    # DevLake, through its API.

    def _devlake_side(self) -> Iterator[Check]:
        if self._devlake is None:
            yield from map(self._without_devlake, ("devlake", "plugin", "devlake database"))
            return
        try:
            version = self._devlake.call("GET", "/version").get("version", "")
        except TelemetryError as error:
            yield checks.failed("devlake", str(error), SET_DEVLAKE)
            yield from map(self._without_devlake, ("plugin", "devlake database"))
            return
        answers = Check("devlake", OK, f"{self._devlake.base} answers ({version})")
        try:
            self._kept = {each.id: each for each in self._devlake.connections()}
        except NotLetIn as error:  # its version it tells everybody
            yield checks.failed("devlake", str(error), SET_DEVLAKE)
            yield from map(self._without_devlake, ("plugin", "devlake database"))
            return
        except TelemetryError as error:
            yield answers
            self._devlake_reads_nothing = OTHER_SECRET in str(error)
            if isinstance(error, ServerFailed) and self._engine is not None:
                secret = self._settings.encryption_secret
                self._too_new = newer_secrets(self._engine, secret)
            if self._devlake_reads_nothing or self._too_new:
                yield Check("plugin", OK, "loaded and migrated; it can't read its connections")
            else:
                yield checks.failed("plugin", str(error), CONFIRM)
            yield self._without_devlake("devlake database")
            return
        yield answers
        yield Check("plugin", OK, f"loaded and migrated; {len(self._kept)} connections")
        yield self._same_database(self._devlake, self._kept)

    def _same_database(self, devlake: DevLake, kept: Mapping[int, Kept]) -> Check:
        name = "devlake database"
        if self._engine is None:
            return self._without_database(name)
        theirs = {each.id: each.name for each in kept.values()}
        ours = {each.id: each.name for each in self._here.values()}
        if theirs != ours:
            said = f"DevLake has {_named(theirs)}, the database here {_named(ours)}"
            return Check(name, FAILED, said, SET_DATABASE)
        # A copy has the same connections, but not the same pipelines for long.
        try:
            same = _newest_pipeline(devlake) == _newest_pipeline_here(self._engine)
        except TelemetryError as error:
            return checks.failed(name, str(error), SEE_DEVLAKE)
        if not same:
            said = "DevLake's newest pipeline is not the newest in the database here: a copy of it?"
            return Check(name, FAILED, said, SET_DATABASE)
        return Check(name, OK, f"DevLake's is the one here: {_named(ours)}")

    # The receiver, through the address that machines have.

    def _receiver(self) -> Iterator[Check]:
        tokens = self._tokens()
        if not tokens:
            known = self._engine is not None or self._kept is not None
            unreadable = any(each.fault for each in self._here.values())
            for name in ("receiver", "token", "receiver database"):
                if unreadable:
                    yield Check(name, SKIPPED, "no connection's token can be read here", SEE_SECRET)
                elif known:
                    said = "there is no connection with a token"
                    yield Check(name, SKIPPED, said, MAKE_CONNECTION)
                else:
                    yield self._without_database(name)
            return
        nonce = new_nonce()
        compared = self._engine is not None
        try:
            if self._engine is None:
                self._reach = reach(self._report_url, tokens, nonce)
            else:
                with left_behind(self._engine, nonce):
                    self._reach = reach(self._report_url, tokens, nonce)
        except SQLAlchemyError:  # whoever we are there may not write
            compared = False
            self._reach = reach(self._report_url, tokens, nonce)
        yield self._reach.receiver()
        open_to_all = [each.id for each in self._here.values() if each.is_open]
        yield self._reach.token(open_to_all)
        name = "receiver database"
        if compared:
            yield self._reach.database()
        elif self._engine is None:
            yield self._without_database(name)
        else:
            said = "nothing can be left in the database here for the receiver to find"
            yield Check(name, SKIPPED, said, "let the user of DB_URL write to our tables")

    def _tokens(self) -> dict[int, str]:
        """The token of each connection that has one, from wherever it can be known."""
        found = {number: each.token for number, each in (self._kept or {}).items() if each.token}
        found.update({number: each.token for number, each in self._here.items() if each.token})
        return dict(sorted(found.items()))

    # What all sides have to agree on.

    def _secret(self) -> Check:
        name = "encryption secret"
        for each in self._here.values():
            if each.fault:
                said = f"{_whose(each.fault)} here: connection {each.id}, {each.fault}"
                return Check(name, FAILED, said, remedy_of(each.fault))
        for seen in self._reach.faults(SECRET):
            return Check(
                name, FAILED, f"{_whose(seen.said)} at the receiver: {seen.said}", seen.remedy
            )
        if self._too_new:
            # Servers from before AES-GCM and newer ones with another secret say the very same.
            said = (
                f"DevLake can't read connection {self._too_new[0]}, which this command can and"
                " which is encrypted as from June 2026 on (AES-GCM): it is an older release, or its"
                " ENCRYPTION_SECRET is another one"
            )
            mend = (
                "compare its ENCRYPTION_SECRET with the one here; if they are equal,"
                " `developer-telemetry token rewrite` lets the older release read it"
            )
            return Check(name, FAILED, said, mend)
        if self._devlake_reads_nothing:
            said = "DevLake's server can't decrypt what is in its database: its secret is another"
            mend = "give that the ENCRYPTION_SECRET back that it had, and everybody else the same"
            return Check(name, FAILED, said, mend)
        for number, kept in (self._kept or {}).items():
            ours = self._here.get(number)
            if ours is not None and not ours.fault and (ours.token or "") != kept.token:
                said = f"DevLake reads another token of connection {number} than this command"
                return Check(name, FAILED, said, GIVE_SECRET)
        sides = {
            "here": any(each.token for each in self._here.values()),
            "at the receiver": bool(self._reach.states),
            "at DevLake": any(each.token for each in (self._kept or {}).values()),
        }
        if sum(sides.values()) < 2:
            mend = SEE_RECEIVER if self._reach.looks else SET_DATABASE
            return Check(name, SKIPPED, "fewer than two sides are known", mend)
        known = " and ".join(side for side, is_known in sides.items() if is_known)
        return Check(name, OK, f"the same {known}")

    def _clocks(self) -> Check:
        ahead = self._reach.clocks
        if self._engine is not None:
            ahead["database"] = clock_offset_us(self._engine) / 1e6
        return checks.clocks(ahead)

    # What came of it.

    def _reports(self) -> Iterator[Check]:
        if self._engine is None:
            yield self._without_database("last report")
            return
        statuses = connection_statuses(self._engine)
        if not statuses:
            yield Check("last report", FAILED, "there is no connection", MAKE_CONNECTION)
        yield from map(checks.last_report, statuses)

    def _blueprints(self) -> Check:
        try:
            used = self._used()
        except TelemetryError as error:
            return checks.failed("blueprint", str(error), SET_DEVLAKE)
        if used is None:
            return self._without_devlake("blueprint")
        known = {number: each.name for number, each in (self._kept or {}).items()}
        known.update({number: each.name for number, each in self._here.items()})
        if not known:
            return Check("blueprint", SKIPPED, "there is no connection", MAKE_CONNECTION)
        missing = [name for number, name in sorted(known.items()) if number not in used]
        if missing:
            return Check(
                "blueprint",
                FAILED,
                f"none runs the scope of {', '.join(map(repr, missing))}: DevLake makes no"
                " accounts of its developers",
                f"`developer-telemetry connect {shlex.quote(missing[0])} --project PROJECT`",
            )
        return Check("blueprint", OK, f"the scope of each of {len(known)} connections is in one")

    def _used(self) -> Optional[set[int]]:
        """The connections whose scope is in a blueprint; None where there is no DevLake."""
        if self._kept is not None and self._devlake is not None:
            return set(_scoped(self._devlake))
        if self._engine is None:
            return None
        with reading(self._engine).connect() as connection:
            if not inspect(connection).has_table("_devlake_blueprint_scopes"):
                return None
            rows = connection.exec_driver_sql(
                "SELECT connection_id FROM _devlake_blueprint_scopes"
                f" WHERE plugin_name = 'developer_telemetry' AND scope_id = '{SCOPE_ID}'"
            )
            return {int(row[0]) for row in rows}

    def _people(self) -> Check:
        name = "people"
        if self._engine is None:
            return self._without_database(name)
        with reading(self._engine).connect() as connection:
            if not inspect(connection).has_table("user_accounts"):
                return Check(name, SKIPPED, "this database has no users of DevLake", SET_DATABASE)
            users = connection.exec_driver_sql("SELECT COUNT(*) FROM users").scalar() or 0
            accounts, linked = connection.exec_driver_sql(LINKED, ()).one()
        said = f"{linked} of {accounts} developers have a user"
        if not users:
            mend = "import users and teams on DevLake's page for them (plugin `org`)"
            return Check(name, SKIPPED, f"DevLake knows no users; {said}", mend)
        if not accounts:
            mend = "run the blueprint once reports have come"
            return Check(name, SKIPPED, "no blueprint has made accounts yet", mend)
        if not linked:
            mend = "give users the e-mail addresses or names that reports have, run the blueprint"
            return Check(name, FAILED, said, mend)
        return Check(name, OK, said)


def _whose(fault: str) -> str:
    """What a fault says of the secret, in a word or two."""
    return "not readable" if UNKNOWN_FORMAT in fault else "not DevLake's"


def _character_sets(engine: Engine) -> Check:
    """Whether DevLake's own tables tell people apart as ours do."""
    name = "character sets"
    with reading(engine).connect() as connection:
        found = inexact_tables(connection, DOMAIN_TABLES)
    if not found:
        return Check(name, OK, "DevLake's tables of people compare exactly")
    tables = ", ".join(f"{table} ({collation})" for table, collation in found.items())
    return Check(
        name,
        OK,
        f"{tables} ignore case, accents or characters: people whose ids have such get a hash in"
        " place of it, and DevLake's own matching by name may take two for one",
        f"`ALTER TABLE {next(iter(found))} CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`"
        " for each, as DevLake's documentation sets up its database",
    )


def _newest_pipeline(devlake: DevLake) -> int:
    newest = devlake.call("GET", "/pipelines?page=1&pageSize=1")["pipelines"] or []
    return max((int(each["id"]) for each in newest), default=0)


def _newest_pipeline_here(engine: Engine) -> int:
    """-1 in a database that is none of DevLake's."""
    with reading(engine).connect() as connection:
        if not inspect(connection).has_table("_devlake_pipelines"):
            return -1
        newest = connection.exec_driver_sql("SELECT MAX(id) FROM _devlake_pipelines").scalar()
    return int(newest or 0)


def _scoped(devlake: DevLake) -> Iterator[int]:
    """The connections of ours whose scope a blueprint of DevLake's has."""
    for blueprint in devlake.blueprints():
        if blueprint.advanced:
            yield from blueprint.connection_ids  # its plan, written by hand, is its owner's
        elif blueprint.connection_ids:
            used = devlake.call("GET", f"/blueprints/{blueprint.id}")["connections"] or []
            for each in used:
                scopes = [scope["scopeId"] for scope in each["scopes"] or []]
                if each["pluginName"] == PLUGIN and SCOPE_ID in scopes:
                    yield int(each["connectionId"])


def _named(connections: Mapping[int, str]) -> str:
    """Which connections there are, in words."""
    if not connections:
        return "no connections"
    return ", ".join(f"{number} {name!r}" for number, name in sorted(connections.items()))
