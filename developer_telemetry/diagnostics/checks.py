"""The checks of `doctor`: pure functions from facts to what is wrong, where, and what to type."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Optional

from developer_telemetry.connections.crypto import UNKNOWN_FORMAT, remedy_of
from developer_telemetry.constants import QUIET_US
from developer_telemetry.database.schema_owner import SchemaOwner
from developer_telemetry.diagnostics.connection_status import ConnectionStatus
from developer_telemetry.diagnostics.conversion_status import ConversionStatus
from developer_telemetry.diagnostics.facts import Facts
from developer_telemetry.diagnostics.probe import ReceiverState
from developer_telemetry.diagnostics.receiver_survey import (
    CONNECTION,
    ROUTE,
    SECRET,
    TOKEN,
    UNREADY,
    Survey,
)
from developer_telemetry.reports.daily_metrics import format_timestamp

OK = "ok"
FAILED = "failed"
SKIPPED = "skipped"

# Clocks that differ by less make no report older than one that was sent before it.
CLOCK_SECONDS = 5.0
# A disk with less free space can't hold the reports of an outage.
MIN_FREE_BYTES = 64 << 20

# Part of the message of a DevLake server whose ENCRYPTION_SECRET is not that of its rows.
OTHER_SECRET = "invalid encryptionSecret"

SET_DATABASE = "set DB_URL and ENCRYPTION_SECRET to the values that DevLake's server has"
SET_DEVLAKE = "set DEVLAKE_URL (or --devlake-url), and DEVLAKE_API_KEY if DevLake asks for one"
SEE_DATABASE = "see `database` and `schema` above"
SEE_DEVLAKE = "see `devlake` and `plugin` above"
SEE_RECEIVER = "see `receiver` above"
SEE_SECRET = "see `encryption secret` below"
MAKE_CONNECTION = "make one: `developer-telemetry connect NAME`"
CONFIRM = "then confirm the migration that DevLake announces"
HAND_OVER = "docs/operate.md#hand-over-from-the-plugin"
TAKE_OVER = f"run `developer-telemetry migrate --standalone` ({HAND_OVER})"
# DevLake's own plugins in Python, which it loads where it loads ours.
PYTHON_PLUGINS = ("azuredevops",)
GIVE_SECRET = "give it the ENCRYPTION_SECRET of DevLake's server"


class Check(NamedTuple):
    """The result of one check: OK, FAILED or SKIPPED, what was seen, and what to do about it."""

    name: str
    state: str
    message: str
    remedy: str = ""


# The database.


def database(facts: Facts) -> Iterator[Check]:
    """Judge whether the database answers."""
    name = "database"
    if not facts.database.is_set:
        yield _without_database(facts, name)
    elif facts.database.error:
        yield Check(name, FAILED, facts.database.error, "check DB_URL and the server")
    else:
        yield Check(name, OK, f"{facts.database.address} answers")


def schema(facts: Facts) -> Iterator[Check]:
    """Judge whether it is migrated."""
    missing = facts.database.pending
    if missing:
        message = f"{len(missing)} migrations are pending: {', '.join(missing)}"
        yield Check("schema", FAILED, message, _how_to_migrate(facts))
    elif facts.database.is_usable:
        yield Check("schema", OK, "no migration is pending")
    else:
        yield _without_database(facts, "schema")


def _how_to_migrate(facts: Facts) -> str:
    if facts.database.owner is SchemaOwner.STANDALONE:
        return "`developer-telemetry migrate`"
    if facts.devlake.loads_plugin is False:
        return TAKE_OVER
    confirm = "confirm them in DevLake's web UI"
    if facts.devlake.loads_plugin:
        return confirm
    return f"{confirm}; where DevLake loads no Python plugins, {TAKE_OVER}"


def character_sets(facts: Facts) -> Iterator[Check]:
    """Judge whether DevLake's own tables tell people apart as ours do."""
    name = "character sets"
    inexact = facts.database.inexact_tables
    if not facts.database.is_usable:
        yield _without_database(facts, name)
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
        yield _without_database(facts, name)
        return
    for risk in facts.database.durability_risks:
        yield _failed(name, risk, "set it to the default")
    if not facts.database.durability_risks:
        yield Check(name, OK, "the database keeps what it has committed")


# DevLake, through its API.


def devlake(facts: Facts) -> Iterator[Check]:
    """Judge whether DevLake's API answers."""
    server = facts.devlake
    if not server.is_set:
        yield _without_devlake(facts, "devlake")
    elif server.error:
        yield _failed("devlake", server.error, SET_DEVLAKE)
    else:
        yield Check("devlake", OK, f"{server.address} answers ({server.version})")


def plugin(facts: Facts) -> Iterator[Check]:
    """Judge whether DevLake has loaded and migrated our plugin."""
    server = facts.devlake
    if not server.is_set or server.error:
        yield _without_devlake(facts, "plugin")
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
    elif _reads_no_secret(facts) or _may_be_older(facts):
        yield Check("plugin", OK, "loaded and migrated; it can't read its connections")
    else:
        yield _failed("plugin", server.plugin_error, CONFIRM)


def _without_plugin(facts: Facts) -> Check:
    """Return whether DevLake may be without our plugin, as it is."""
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
    """Judge whether one program alone, which is there, owns the schema."""
    name = "owner"
    database = facts.database
    if database.ownership is None or database.pending:
        yield _without_database(facts, name)
    elif (
        database.owner is SchemaOwner.STANDALONE
        and database.is_devlakes
        and facts.devlake.loads_plugin
    ):
        yield Check(
            name,
            FAILED,
            f"{database.ownership}, but DevLake loads the plugin: the next run of a blueprint with"
            " one of our connections makes DevLake the owner, and receivers stop to convert",
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
    """Judge whether DevLake has the same database; a copy has older pipelines before long."""
    name = "devlake database"
    server = facts.devlake
    if server.connections is None and server.loads_plugin is not False:
        yield _without_devlake(facts, name)
        return
    if not facts.database.is_usable:
        yield _without_database(facts, name)
        return
    listed = server.connections
    theirs = {number: connection.name for number, connection in (listed or {}).items()}
    ours = {number: stored.name for number, stored in facts.database.connections.items()}
    if listed is not None and theirs != ours:
        message = f"DevLake has {_listed(theirs)}, the database here {_listed(ours)}"
        yield Check(name, FAILED, message, SET_DATABASE)
    elif server.pipelines_error:
        yield _failed(name, server.pipelines_error, SEE_DEVLAKE)
    elif server.newest_pipeline != facts.database.newest_pipeline:
        message = "DevLake's newest pipeline is not the newest in the database here: is it a copy?"
        yield Check(name, FAILED, message, SET_DATABASE)
    else:
        yield Check(name, OK, f"DevLake has the database that is used here: {_listed(ours)}")


# Receivers, through the address that machines use.


def receiver(facts: Facts) -> Iterator[Check]:
    """Judge whether the address leads to receivers that can keep reports."""
    survey = facts.receivers
    if not survey.findings:
        yield _without_token(facts, "receiver")
        return
    for finding in [*survey.faults(ROUTE), *survey.faults(UNREADY)]:
        yield Check("receiver", FAILED, finding.message, finding.remedy)
        return
    for state in survey.states.values():
        if state.problem:
            message = f"{state.receiver} can't keep reports: {state.problem}"
            yield Check("receiver", FAILED, message, "see its log, and its database")
            return
    names = ", ".join(f"{state.receiver} ({state.version})" for state in survey.states.values())
    yield Check("receiver", OK, f"{survey.url} leads to {names or 'a receiver'}")


def token(facts: Facts) -> Iterator[Check]:
    """Judge whether receivers accept each connection's token, and need one."""
    name = "token"
    survey = facts.receivers
    if not survey.findings:
        yield _without_token(facts, name)
        return
    for finding in survey.faults(TOKEN):
        yield Check(name, FAILED, finding.message, finding.remedy)
        return
    if not survey.states:
        yield _not_reached(name)
        return
    tried = {finding.connection_id for finding in survey.findings}
    accepted = {finding.connection_id for finding in survey.findings if finding.state}
    message = f"accepted for {len(accepted)} of {len(tried)} connections"
    for connection in facts.database.connections.values():
        if connection.is_open:
            yield Check(
                name,
                FAILED,
                f"{message}; connection {connection.id} needs none, so anybody who reaches the"
                " receiver can send to it",
                f"`developer-telemetry token rotate {connection.id}` gives it a token",
            )
            return
    yield Check(name, OK, message)


def receiver_database(facts: Facts) -> Iterator[Check]:
    """Judge whether receivers have the database in which the nonce was left."""
    name = "receiver database"
    survey = facts.receivers
    if not survey.findings:
        yield _without_token(facts, name)
    elif not facts.database.is_usable:
        yield _without_database(facts, name)
    elif not facts.has_left_nonce:
        message = "this command can't write to the database, so receivers can't be compared"
        yield Check(name, SKIPPED, message, "let the user of DB_URL write to our tables")
    else:
        yield _receiver_database(name, survey)


def _receiver_database(name: str, survey: Survey) -> Check:
    for finding in survey.faults(CONNECTION):
        return Check(name, FAILED, finding.message, finding.remedy)
    if not survey.states:
        return _not_reached(name)
    for state in survey.states.values():
        if state.same_database is None or state.outage:
            message = f"{state.receiver} stores nothing now: {state.outage or 'it did not answer'}"
            remedy = "correct its DB_URL, or let it reach the database's server"
            return Check(name, FAILED, message, remedy)
        if not state.same_database:
            message = f"{state.receiver} has another database than this command"
            return Check(name, FAILED, message, "give both the DB_URL of DevLake's server")
    return Check(name, OK, "the same as here")


# Agreement between all sides.


def encryption_secret(facts: Facts) -> Iterator[Check]:
    """Judge whether all sides have the same ENCRYPTION_SECRET."""
    fault = _secret_fault(facts)
    yield fault or _sides_that_agree(facts)


def _secret_fault(facts: Facts) -> Optional[Check]:
    name = "encryption secret"
    for connection in facts.database.connections.values():
        if fault := connection.fault:
            message = f"{_kind_of(fault)} here: connection {connection.id}, {fault}"
            return Check(name, FAILED, message, remedy_of(fault))
    for finding in facts.receivers.faults(SECRET):
        message = f"{_kind_of(finding.message)} at the receiver: {finding.message}"
        return Check(name, FAILED, message, finding.remedy)
    if _may_be_older(facts):
        # Servers from before AES-GCM and newer ones with another secret answer the same.
        number = facts.database.newer_secrets[0]
        return Check(
            name,
            FAILED,
            f"DevLake can't read connection {number}, but this command can: it is encrypted as"
            " from June 2026 on (AES-GCM). DevLake is an older release, or its ENCRYPTION_SECRET"
            " is another one",
            "compare its ENCRYPTION_SECRET with the one here; if they are equal,"
            " `developer-telemetry token rewrite` lets the older release read it",
        )
    if _reads_no_secret(facts):
        message = (
            "DevLake's server can't decrypt what is in its database: its ENCRYPTION_SECRET was"
            " changed"
        )
        remedy = "give that server its former ENCRYPTION_SECRET, and the receiver the same"
        return Check(name, FAILED, message, remedy)
    for number, listed in (facts.devlake.connections or {}).items():
        stored = facts.database.connections.get(number)
        if stored is not None and (stored.token or "") != listed.token:
            message = f"DevLake reads another token of connection {number} than this command"
            return Check(name, FAILED, message, GIVE_SECRET)
    return None


def _sides_that_agree(facts: Facts) -> Check:
    name = "encryption secret"
    here = facts.database.connections.values()
    listed = (facts.devlake.connections or {}).values()
    is_compared = {
        "here": any(connection.token for connection in here),
        "at the receiver": bool(facts.receivers.states),
        "at DevLake": any(connection.token for connection in listed),
    }
    sides = [side for side, has_token in is_compared.items() if has_token]
    if len(sides) < 2:
        remedy = SEE_RECEIVER if facts.receivers.findings else SET_DATABASE
        return Check(name, SKIPPED, "only one side can be read, or none", remedy)
    return Check(name, OK, f"the same {' and '.join(sides)}")


def clocks(facts: Facts) -> Iterator[Check]:
    """Judge how far apart the clocks are."""
    ahead = facts.receivers.clocks
    if facts.database.is_usable:
        ahead["database"] = facts.database.clock_ahead_seconds
    yield check_clocks(ahead)


def check_clocks(ahead: Mapping[str, float]) -> Check:
    """Judge clocks, by the name of their owner, in seconds ahead of the one here."""
    if not ahead:
        return Check("clocks", SKIPPED, "there is none to compare with", SET_DATABASE)
    message = "compared with the clock here: " + ", ".join(
        f"{name} {seconds:+.1f} s" for name, seconds in ahead.items()
    )
    all_clocks = [0.0, *ahead.values()]
    if max(all_clocks) - min(all_clocks) > CLOCK_SECONDS:
        remedy = "set the clocks of this machine, the receiver and the database by NTP"
        return Check("clocks", FAILED, message, remedy)
    return Check("clocks", OK, message)


def spool(facts: Facts) -> Iterator[Check]:
    """Judge the spool of each receiver."""
    if not facts.receivers.states:
        yield _not_reached("spool")
    yield from map(check_spool, facts.receivers.states.values())


def check_spool(state: ReceiverState) -> Check:
    """Judge the spool of one receiver, and its disk."""
    message, remedy = _spool_fault(state)
    if message:
        return Check("spool", FAILED, f"receiver {state.receiver}: {message}", remedy)
    waiting = f"storing {state.waiting} reports from it now" if state.waiting else "empty"
    return Check("spool", OK, f"receiver {state.receiver}: {waiting}")


def _spool_fault(state: ReceiverState) -> tuple[str, str]:
    """Return what is wrong with a spool, and the remedy; `""` twice if nothing is."""
    if state.spool_full:
        size = f"{state.spool_bytes >> 20} of {state.spool_max_bytes >> 20} MiB"
        return (
            f"full ({size}, {state.disk_free_bytes >> 20} MiB free on its disk)",
            "make room on that disk, or raise TELEMETRY_SPOOL_MAX_MB; then fix the database",
        )
    if state.disk_free_bytes < MIN_FREE_BYTES:
        return (
            f"only {state.disk_free_bytes >> 20} MiB are free on its disk",
            "make room there, for reports that arrive while the database is away",
        )
    if state.outage:
        return (
            f"{state.waiting} reports wait, the oldest for {state.oldest_seconds:.0f} s",
            f"fix the database: {state.outage}",
        )
    if state.set_aside:
        return (
            f"{state.set_aside} reports are set aside, which the database refuses for good",
            "`developer-telemetry dead-letters` on its machine prints the reasons",
        )
    if state.orphans:
        return (
            f"{state.orphans} reports wait for a connection that is not in the database",
            "restore it, or see `developer-telemetry spool list` on its machine",
        )
    if state.conflicting:
        return (
            f"{state.conflicting} reports wait by themselves ({state.oldest_seconds:.0f} s)",
            "see its log for what blocks them, such as a transaction that locks their rows",
        )
    if state.damaged_spools:
        return (
            f"its disk has damaged the spool {state.damaged_spools} times",
            "see its log for what was recovered; check the disk",
        )
    return "", ""


# Reports, and what became of them.


def last_report(facts: Facts) -> Iterator[Check]:
    """Judge whether each connection is in use."""
    if not facts.database.is_usable:
        yield _without_database(facts, "last report")
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
        yield _without_database(facts, name)
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
        yield _failed(name, facts.devlake.blueprints_error, SET_DEVLAKE)
        return
    is_listed = facts.devlake.connections is not None
    in_blueprint = facts.devlake.in_blueprint if is_listed else facts.database.in_blueprint
    if in_blueprint is None:
        yield _without_devlake(facts, name)
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
        yield _without_database(facts, name)
        return
    if counts is None:
        yield Check(name, SKIPPED, "this database has no users of DevLake", SET_DATABASE)
        return
    converts = _converter(facts)
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


def _converter(facts: Facts) -> str:
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
    receiver,
    token,
    receiver_database,
    encryption_secret,
    clocks,
    spool,
    last_report,
    conversions,
    blueprint,
    people,
)


def _failed(name: str, message: str, otherwise: str) -> Check:
    """Return a fault whose message has its remedy after the last semicolon, or else `otherwise`."""
    fault, separator, remedy = message.rpartition("; ")
    return Check(name, FAILED, fault if separator else message, remedy if separator else otherwise)


def _without_database(facts: Facts, name: str) -> Check:
    if facts.database.is_set:
        return Check(name, SKIPPED, "the database can't be used from here", SEE_DATABASE)
    return Check(name, SKIPPED, "no database is set here", SET_DATABASE)


def _without_devlake(facts: Facts, name: str) -> Check:
    if facts.devlake.is_set:
        return Check(name, SKIPPED, "DevLake did not answer", SEE_DEVLAKE)
    return Check(name, SKIPPED, "no DevLake is set here", SET_DEVLAKE)


def _without_token(facts: Facts, name: str) -> Check:
    """Return why no receiver was asked."""
    if any(connection.fault for connection in facts.database.connections.values()):
        return Check(name, SKIPPED, "no connection's token can be read here", SEE_SECRET)
    if facts.database.is_usable or facts.devlake.connections is not None:
        return Check(name, SKIPPED, "there is no connection with a token", MAKE_CONNECTION)
    return _without_database(facts, name)


def _not_reached(name: str) -> Check:
    return Check(name, SKIPPED, "no receiver was reached", SEE_RECEIVER)


def _reads_no_secret(facts: Facts) -> bool:
    """Tell whether DevLake's server has another secret than its database."""
    return OTHER_SECRET in facts.devlake.plugin_error


def _may_be_older(facts: Facts) -> bool:
    """Tell whether DevLake's server failed where an older release can't read a newer secret."""
    return facts.devlake.has_failed and bool(facts.database.newer_secrets)


def _kind_of(fault: str) -> str:
    """Return in a word or two what a fault means for the secret."""
    return "not readable" if UNKNOWN_FORMAT in fault else "not DevLake's"


def _listed(connections: Mapping[int, str]) -> str:
    """Return connections by id and name, for a message."""
    if not connections:
        return "no connections"
    return ", ".join(f"{number} {name!r}" for number, name in sorted(connections.items()))
