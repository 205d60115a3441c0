"""The checks of `doctor`: pure functions from facts to faults and their remedies.

Those of receivers are in `receiver_checks`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping

from developer_telemetry.constants import QUIET_US
from developer_telemetry.database.schema_owner import SchemaOwner
from developer_telemetry.diagnostics import receiver_checks
from developer_telemetry.diagnostics.check import (
    FAILED,
    MAKE_CONNECTION,
    OK,
    SEE_DEVLAKE,
    SET_DATABASE,
    SET_DEVLAKE,
    SKIPPED,
    Check,
    failed_with_remedy,
    has_other_secret,
    may_be_older_release,
    without_database,
    without_devlake,
)
from developer_telemetry.diagnostics.connection_status import ConnectionStatus
from developer_telemetry.diagnostics.conversion_status import ConversionStatus
from developer_telemetry.diagnostics.facts import Facts
from developer_telemetry.reports.daily_metrics import format_timestamp

CONFIRM = "then confirm the migration that DevLake announces"
HAND_OVER = "docs/operate.md#hand-over-from-the-plugin"
TAKE_OVER = f"run `developer-telemetry migrate --standalone` ({HAND_OVER})"
# DevLake's own plugins in Python, which it loads where it loads ours.
PYTHON_PLUGINS = ("azuredevops",)


# The database.


def database(facts: Facts) -> Iterator[Check]:
    """Judge whether the database answers."""
    name = "database"
    if not facts.database.is_set:
        yield without_database(facts, name)
    elif facts.database.error:
        yield Check(name, FAILED, facts.database.error, "check DB_URL and the server")
    else:
        yield Check(name, OK, f"{facts.database.address} answers")


def schema(facts: Facts) -> Iterator[Check]:
    """Judge whether the database is migrated."""
    missing = facts.database.pending
    if missing:
        message = f"{len(missing)} migrations are pending: {', '.join(missing)}"
        yield Check("schema", FAILED, message, _migration_remedy(facts))
    elif facts.database.is_usable:
        yield Check("schema", OK, "no migration is pending")
    else:
        yield without_database(facts, "schema")


def _migration_remedy(facts: Facts) -> str:
    if facts.database.owner is SchemaOwner.STANDALONE:
        return "`developer-telemetry migrate`"
    if facts.devlake.loads_plugin is False:
        return TAKE_OVER
    confirm = "confirm them in DevLake's web UI"
    if facts.devlake.loads_plugin:
        return confirm
    return f"{confirm}; where DevLake loads no Python plugins, {TAKE_OVER}"


def character_sets(facts: Facts) -> Iterator[Check]:
    """Judge whether DevLake's tables distinguish people as ours do."""
    name = "character sets"
    inexact = facts.database.inexact_tables
    if not facts.database.is_usable:
        yield without_database(facts, name)
    elif not inexact:
        yield Check(name, OK, "DevLake's tables of people compare exactly")
    else:
        tables = ", ".join(f"{table} ({collation})" for table, collation in inexact.items())
        yield Check(
            name,
            OK,
            f"{tables} ignore case, accents or characters: people whose ids differ by these alone"
            " get a hash as their id, and DevLake's own matching by name may take two for one",
            f"`ALTER TABLE {next(iter(inexact))} CONVERT TO CHARACTER SET utf8mb4 COLLATE"
            " utf8mb4_bin` for each of them, as DevLake's documentation sets up its database",
        )


def durability(facts: Facts) -> Iterator[Check]:
    """Judge whether the database keeps what it has committed."""
    name = "durability"
    if not facts.database.is_usable:
        yield without_database(facts, name)
        return
    for risk in facts.database.durability_risks:
        yield failed_with_remedy(name, risk, "set it to the default")
    if not facts.database.durability_risks:
        yield Check(name, OK, "the database keeps what it has committed")


# DevLake, through its API.


def devlake(facts: Facts) -> Iterator[Check]:
    """Judge whether DevLake's API answers."""
    server = facts.devlake
    if not server.is_set:
        yield without_devlake(facts, "devlake")
    elif server.error:
        yield failed_with_remedy("devlake", server.error, SET_DEVLAKE)
    else:
        yield Check("devlake", OK, f"{server.address} answers ({server.version})")


def plugin(facts: Facts) -> Iterator[Check]:
    """Judge whether DevLake has loaded and migrated our plugin."""
    server = facts.devlake
    if not server.is_set or server.error:
        yield without_devlake(facts, "plugin")
    elif server.connections is not None:
        count = len(server.connections)
        yield Check(
            "plugin",
            OK,
            f"loaded and migrated; {count} connections; DevLake has deprecated plugins in Python",
            f"before an upgrade to a DevLake without them, see {HAND_OVER}",
        )
    elif server.loads_plugin is False:
        yield _without_plugin(facts)
    elif has_other_secret(facts) or may_be_older_release(facts):
        yield Check("plugin", OK, "loaded and migrated; it can't read its connections")
    else:
        yield failed_with_remedy("plugin", server.plugin_error, CONFIRM)


def _without_plugin(facts: Facts) -> Check:
    """Judge a DevLake that does not load our plugin."""
    python = [name for name in facts.devlake.plugins or () if name in PYTHON_PLUGINS]
    others = f"; it loads others in Python: {', '.join(python)}" if python else ""
    message = f"DevLake does not load it{others}"
    if facts.database.owner is SchemaOwner.STANDALONE:
        return Check("plugin", OK, f"{message}, and need not: the receiver converts reports")
    remedy = f"{TAKE_OVER}, or put it into DevLake's plugins folder and restart (docs/install.md)"
    if facts.database.owner is SchemaOwner.DEVLAKE:
        message += ", so nothing migrates our tables or converts reports"
    return Check("plugin", FAILED, message, remedy)


def owner(facts: Facts) -> Iterator[Check]:
    """Judge whether exactly one installed program owns the schema."""
    name = "owner"
    database = facts.database
    if database.ownership is None or database.pending:
        yield without_database(facts, name)
    elif (
        database.owner is SchemaOwner.STANDALONE
        and database.is_devlakes
        and facts.devlake.loads_plugin
    ):
        yield Check(
            name,
            FAILED,
            f"{database.ownership}, but DevLake loads the plugin: the next run of a blueprint with"
            " one of our connections makes DevLake the owner, and receivers stop converting",
            "`developer-telemetry migrate --hand-back` records DevLake at once; or remove the"
            " plugin from DevLake",
        )
    elif database.owner is SchemaOwner.DEVLAKE and database.wants_standalone:
        yield Check(
            name,
            FAILED,
            f"{database.ownership}, although TELEMETRY_STANDALONE is set: it has no effect while"
            " DevLake may load the plugin",
            f"hand over ({HAND_OVER}), or set TELEMETRY_STANDALONE=false",
        )
    else:
        yield Check(name, OK, str(database.ownership))


def devlake_database(facts: Facts) -> Iterator[Check]:
    """Judge whether DevLake has the same database; a copy soon has older pipelines only."""
    name = "devlake database"
    server = facts.devlake
    if server.connections is None and server.loads_plugin is not False:
        yield without_devlake(facts, name)
        return
    if not facts.database.is_usable:
        yield without_database(facts, name)
        return
    listed = server.connections
    theirs = {number: connection.name for number, connection in (listed or {}).items()}
    ours = {number: stored.name for number, stored in facts.database.connections.items()}
    if listed is not None and theirs != ours:
        message = (
            f"DevLake has {_list_connections(theirs)}, the database here {_list_connections(ours)}"
        )
        yield Check(name, FAILED, message, SET_DATABASE)
    elif server.pipelines_error:
        yield failed_with_remedy(name, server.pipelines_error, SEE_DEVLAKE)
    elif server.newest_pipeline != facts.database.newest_pipeline:
        message = "DevLake's newest pipeline is not the newest in the database here: is it a copy?"
        yield Check(name, FAILED, message, SET_DATABASE)
    else:
        yield Check(
            name, OK, f"DevLake has the database that is used here: {_list_connections(ours)}"
        )


# Reports and their conversion.


def last_report(facts: Facts) -> Iterator[Check]:
    """Judge whether each connection is in use."""
    if not facts.database.is_usable:
        yield without_database(facts, "last report")
    elif not facts.database.statuses:
        yield Check("last report", FAILED, "there is no connection", MAKE_CONNECTION)
    limit = format_timestamp(facts.collected_us - QUIET_US)
    for status in facts.database.statuses:
        yield check_last_report(status, limit)


def check_last_report(status: ConnectionStatus, limit: str) -> Check:
    """Judge whether a connection's newest report arrived after the timestamp `limit`."""
    name = f"connection {status.id} ({status.name})"
    reasons = ", ".join(f"{reason} {count}" for reason, count in status.refused.items())
    refused = f"; refused in the last days: {reasons}" if reasons else ""
    if not status.newest:
        remedy = f"send one: `developer-telemetry send-test --connection {status.id}`"
        return Check("last report", FAILED, f"{name} has had no report{refused}", remedy)
    message = f"{name} had it at {status.newest} UTC{refused}"
    if status.newest < limit:
        remedy = (
            "read the collector's log on a machine; `developer-telemetry status` lists the machines"
        )
        return Check("last report", FAILED, message, remedy)
    return Check("last report", OK, message)


def conversions(facts: Facts) -> Iterator[Check]:
    """Judge whether receivers convert reports, where DevLake does not."""
    name = "conversions"
    if not facts.database.is_usable:
        yield without_database(facts, name)
    elif facts.database.owner is SchemaOwner.DEVLAKE:
        yield Check(name, OK, "DevLake's blueprints convert reports")
    elif not facts.database.conversions:
        yield Check(name, SKIPPED, "there is no connection", MAKE_CONNECTION)
    yield from map(check_conversion, facts.database.conversions)


def check_conversion(status: ConversionStatus) -> Check:
    """Judge the last conversion of one connection."""
    message = f"connection {status.connection_id} ({status.name}): {status}"
    if status.last is not None and status.last.error:
        remedy = (
            "correct what the error names; a receiver tries again every minute, and its log has"
            " the details"
        )
        return Check("conversions", FAILED, message, remedy)
    if status.is_overdue:
        return Check(
            "conversions",
            FAILED,
            f"{message}; reports have been waiting for more than five minutes",
            "check that a receiver of this release runs on this database; its log names the reason",
        )
    return Check("conversions", OK, message)


def blueprint(facts: Facts) -> Iterator[Check]:
    """Judge whether blueprints make accounts of each connection's developers."""
    name = "blueprint"
    if facts.database.is_usable and facts.database.owner is SchemaOwner.STANDALONE:
        yield _without_blueprints(facts)
        return
    if facts.devlake.blueprints_error:
        yield failed_with_remedy(name, facts.devlake.blueprints_error, SET_DEVLAKE)
        return
    is_listed = facts.devlake.connections is not None
    in_blueprint = facts.devlake.in_blueprint if is_listed else facts.database.in_blueprint
    if in_blueprint is None:
        yield without_devlake(facts, name)
        return
    names = facts.connection_names
    if not names:
        yield Check(name, SKIPPED, "there is no connection", MAKE_CONNECTION)
        return
    missing = [names[number] for number in names if number not in in_blueprint]
    if missing:
        yield Check(
            name,
            FAILED,
            f"none runs the scope of {', '.join(map(repr, missing))}: DevLake makes no accounts"
            " of its developers",
            f"`developer-telemetry connect {shlex.quote(missing[0])} --project PROJECT`",
        )
    else:
        yield Check(name, OK, f"the scopes of all {len(names)} connections are in one")


def _without_blueprints(facts: Facts) -> Check:
    """Return a remark about connections in no project, which DevLake's dashboards select by."""
    message = "none is needed: the receiver converts reports"
    names = facts.connection_names
    outside = [names[number] for number in names if number not in facts.database.in_project]
    if not facts.database.has_projects or not outside:
        return Check("blueprint", OK, message)
    return Check(
        "blueprint",
        OK,
        f"{message}; {', '.join(map(repr, outside))} in no project of DevLake, so dashboards that"
        " select a project do not show it",
        f"`developer-telemetry connect {shlex.quote(outside[0])} --project PROJECT`",
    )


def people(facts: Facts) -> Iterator[Check]:
    """Judge whether developers are linked to DevLake's users."""
    name = "people"
    counts = facts.database.people
    if not facts.database.is_usable:
        yield without_database(facts, name)
        return
    if counts is None:
        yield Check(name, SKIPPED, "this database has no users of DevLake", SET_DATABASE)
        return
    converts = _conversion_remedy(facts)
    message = f"{counts.linked} of {counts.accounts} developers have a user"
    if not counts.users:
        remedy = "import users and teams on DevLake's page for them (plugin `org`)"
        yield Check(name, SKIPPED, f"DevLake has no users; {message}", remedy)
    elif not counts.accounts:
        remedy = f"after the first reports {converts}"
        yield Check(name, SKIPPED, "reports have not been converted to accounts yet", remedy)
    elif not counts.linked:
        remedy = f"give users the e-mail addresses or names that reports have, then {converts}"
        yield Check(name, FAILED, message, remedy)
    else:
        yield Check(name, OK, message)


def _conversion_remedy(facts: Facts) -> str:
    """Return what to do for the next conversion."""
    if facts.database.owner is SchemaOwner.STANDALONE:
        return "wait a minute for the receiver"
    return "run the blueprint"


# In the order of docs/doctor.md.
CHECKS: tuple[Callable[[Facts], Iterable[Check]], ...] = (
    database,
    schema,
    character_sets,
    durability,
    devlake,
    plugin,
    owner,
    devlake_database,
    receiver_checks.receiver,
    receiver_checks.token,
    receiver_checks.receiver_database,
    receiver_checks.encryption_secret,
    receiver_checks.clocks,
    receiver_checks.spool,
    receiver_checks.collector,
    last_report,
    conversions,
    blueprint,
    people,
)


def run_checks(facts: Facts) -> list[Check]:
    """Return all checks of these facts."""
    return [check for check_of in CHECKS for check in check_of(facts)]


def _list_connections(connections: Mapping[int, str]) -> str:
    """Return connections by id and name, for a message."""
    if not connections:
        return "no connections"
    return ", ".join(f"{number} {name!r}" for number, name in sorted(connections.items()))
