"""The checks of receivers: address, tokens, database, secret, clocks, spools, the collector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Optional

from developer_telemetry.connections.crypto import UNKNOWN_FORMAT, remedy_of
from developer_telemetry.diagnostics.check import (
    FAILED,
    MAKE_CONNECTION,
    OK,
    SET_DATABASE,
    SKIPPED,
    Check,
    has_other_secret,
    may_be_older_release,
    without_database,
)
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

# Clocks that differ by less make no report older than one that was sent before it.
CLOCK_SECONDS = 5.0
# A disk with less free space can't hold the reports of an outage.
MIN_FREE_BYTES = 64 << 20

SEE_RECEIVER = "see `receiver` above"
SEE_SECRET = "see `encryption secret` below"
PASS_COLLECTOR = (
    "let the front proxy pass this path to the receiver, as deploy/nginx/developer-telemetry.conf"
    " does, and update a receiver of an older release"
)
GIVE_SECRET = "give it the ENCRYPTION_SECRET of DevLake's server"


def receiver(facts: Facts) -> Iterator[Check]:
    """Judge whether the address belongs to receivers that can store reports."""
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
    """Judge whether receivers have the database in which the nonce was stored."""
    name = "receiver database"
    survey = facts.receivers
    if not survey.findings:
        yield _without_token(facts, name)
    elif not facts.database.is_usable:
        yield without_database(facts, name)
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


def encryption_secret(facts: Facts) -> Iterator[Check]:
    """Judge whether all sides have the same ENCRYPTION_SECRET."""
    fault = _secret_fault(facts)
    yield fault or _compare_sides(facts)


def _secret_fault(facts: Facts) -> Optional[Check]:
    name = "encryption secret"
    for connection in facts.database.connections.values():
        if fault := connection.token_fault:
            message = f"{_describe_kind(fault)} here: connection {connection.id}, {fault}"
            return Check(name, FAILED, message, remedy_of(fault))
    for finding in facts.receivers.faults(SECRET):
        message = f"{_describe_kind(finding.message)} at the receiver: {finding.message}"
        return Check(name, FAILED, message, finding.remedy)
    if may_be_older_release(facts):
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
    if has_other_secret(facts):
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


def _compare_sides(facts: Facts) -> Check:
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
    """Judge clocks, by the name of their owner, in seconds ahead of the local one."""
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
    """Return the fault of a spool and the remedy; `""` twice if it has none."""
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
            "`developer-telemetry dead-letters list` on its machine prints the reasons",
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


def collector(facts: Facts) -> Iterator[Check]:
    """Judge whether machines can fetch the collector from the address that they report to."""
    name = "collector"
    answer = facts.receivers.collector
    if not facts.receivers.findings:
        yield _without_token(facts, name)
    elif answer is None:
        yield _not_reached(name)
    elif answer.fault:
        yield Check(name, FAILED, f"{answer.url} {answer.fault}", PASS_COLLECTOR)
    else:
        yield Check(name, OK, f"{answer.url} has version {answer.version}")


def _without_token(facts: Facts, name: str) -> Check:
    """Return the reason why no receiver was asked."""
    if any(connection.fault for connection in facts.database.connections.values()):
        return Check(name, SKIPPED, "no connection's token can be read here", SEE_SECRET)
    if facts.database.is_usable or facts.devlake.connections is not None:
        return Check(name, SKIPPED, "there is no connection with a token", MAKE_CONNECTION)
    return without_database(facts, name)


def _not_reached(name: str) -> Check:
    return Check(name, SKIPPED, "no receiver was reached", SEE_RECEIVER)


def _describe_kind(fault: str) -> str:
    """Describe in two words what a fault means for the secret."""
    return "not readable" if UNKNOWN_FORMAT in fault else "not DevLake's"
