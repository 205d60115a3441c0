"""What `doctor` finds, and how it judges figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from developer_telemetry.constants import QUIET_US
from developer_telemetry.database.engine import now_us
from developer_telemetry.diagnostics.connection_status import ConnectionStatus
from developer_telemetry.diagnostics.probe import State
from developer_telemetry.reports.daily_metrics import timestamp

OK = "ok"
FAILED = "failed"
SKIPPED = "skipped"

# Clocks that differ by less make no report older than another that came after it.
CLOCK_SECONDS = 5.0
# Less room on its disk won't hold what comes in an outage.
LEAST_FREE_BYTES = 64 << 20

SET_DATABASE = "set DB_URL and ENCRYPTION_SECRET to the values that DevLake's server has"
SET_DEVLAKE = "set DEVLAKE_URL (or --devlake-url), and DEVLAKE_API_KEY if DevLake asks for one"
SEE_DATABASE = "see `database` and `schema` above"
SEE_DEVLAKE = "see `devlake` and `plugin` above"
SEE_RECEIVER = "see `receiver` above"
SEE_SECRET = "see `encryption secret` below"
MAKE_CONNECTION = "make one: `developer-telemetry connect NAME`"


class Check(NamedTuple):
    """What was looked at, how that went (OK, FAILED or SKIPPED), what was seen, what mends it."""

    name: str
    state: str
    said: str
    remedy: str = ""


def failed(name: str, message: str, otherwise: str) -> Check:
    """A fault whose message says after its last semicolon what to do, or else `otherwise`."""
    said, separator, remedy = message.rpartition("; ")
    return Check(name, FAILED, said if separator else message, remedy if separator else otherwise)


def clocks(ahead: Mapping[str, float]) -> Check:
    """Clocks by whose they are, in seconds ahead of the one here."""
    if not ahead:
        return Check("clocks", SKIPPED, "there is none to compare with", SET_DATABASE)
    said = ", ".join(f"{name} {seconds:+.1f} s" for name, seconds in ahead.items())
    all_of_them = [0.0, *ahead.values()]
    if max(all_of_them) - min(all_of_them) > CLOCK_SECONDS:
        mend = "let this machine, the receiver's and the database's keep time by NTP"
        return Check("clocks", FAILED, f"beside the one here: {said}", mend)
    return Check("clocks", OK, f"beside the one here: {said}")


def spool(state: State) -> Check:
    """What waits on the disk of one receiver."""
    who = f"receiver {state.receiver}:"
    if state.spool_full:
        size = f"{state.spool_bytes >> 20} of {state.spool_max_bytes >> 20} MiB"
        return Check(
            "spool",
            FAILED,
            f"{who} full ({size}, {state.disk_free_bytes >> 20} MiB free on its disk)",
            "make room on that disk, or raise TELEMETRY_SPOOL_MAX_MB; then mend the database",
        )
    if state.disk_free_bytes < LEAST_FREE_BYTES:
        said = f"{who} only {state.disk_free_bytes >> 20} MiB are free on its disk"
        return Check("spool", FAILED, said, "make room there, for when the database is away")
    if state.outage:
        said = f"{who} {state.waiting} reports wait, for {state.oldest_seconds:.0f} s so far"
        return Check("spool", FAILED, said, f"mend the database: {state.outage}")
    if state.set_aside:
        return Check(
            "spool",
            FAILED,
            f"{who} {state.set_aside} reports are set aside, which the database refuses for good",
            "`developer-telemetry dead-letters` on its machine says why",
        )
    if state.orphans:
        return Check(
            "spool",
            FAILED,
            f"{who} {state.orphans} reports wait for a connection that the database has not",
            "bring it back, or see `developer-telemetry spool list` on its machine",
        )
    if state.conflicting:
        return Check(
            "spool",
            FAILED,
            f"{who} {state.conflicting} reports wait by themselves ({state.oldest_seconds:.0f} s)",
            "see its log for what is in their way, such as a transaction that holds their rows",
        )
    if state.damaged_spools:
        said = f"{who} its disk has damaged the spool {state.damaged_spools} times"
        return Check("spool", FAILED, said, "see its log for what was salvaged; check the disk")
    waiting = f"{state.waiting} reports come into the database now" if state.waiting else "empty"
    return Check("spool", OK, f"{who} {waiting}")


def last_report(status: ConnectionStatus) -> Check:
    """Whether a connection is in use."""
    name = f"connection {status.id} ({status.name})"
    reasons = ", ".join(f"{reason} {count}" for reason, count in status.refused.items())
    refused = f"; refused in the last days: {reasons}" if reasons else ""
    if not status.newest:
        mend = f"send one: `developer-telemetry send-test --connection {status.id}` tries the way"
        return Check("last report", FAILED, f"{name} never had one{refused}", mend)
    if status.newest < timestamp(now_us() - QUIET_US):
        mend = "see on a machine what its collector says; `developer-telemetry status` lists them"
        return Check("last report", FAILED, f"{name} had it at {status.newest}{refused}", mend)
    return Check("last report", OK, f"{name} had it at {status.newest} UTC{refused}")
