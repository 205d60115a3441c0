"""Problems of a fleet for an operator, the most urgent first, from the figures of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from developer_telemetry.receiver.web.selection import Selection
from developer_telemetry.receiver.web.templating import format_count

# The meaning of each reason of a refusal, and what to do.
REMEDIES = {
    "token": "No token, or another connection's: compare it with the hint under Connections.",
    "secret": "The receiver can't read the connection's token: run `developer-telemetry doctor`.",
    "body": "The body is not a JSON object: check what the machine sends.",
    "developer": "The report has no developer, or a name longer than 255 characters.",
    "date": "The report has no valid date: send it as YYYY-MM-DD.",
    "size": "The body is larger than 1 MiB, or 4 MiB after decompression: send smaller reports.",
    "encoding": "The receiver does not support this compression: send gzip or plain text.",
}


class FleetFacts(NamedTuple):
    """The figures that problems of a fleet are recognized by.

    Attributes:
        quiet: The machines in use that are quiet.
        newly_quiet: Those of them that became quiet in the last 7 days.
        refused_machines: The machines with a valid token that were refused in the last 14 days.
        refusals: The reports that were refused in the last 7 days.
        reason: The most frequent reason of refusals, in words.
        outdated: The machines with an old collector.
    """

    quiet: int
    newly_quiet: int
    refused_machines: int
    refusals: int
    reason: str
    outdated: int


class Problem(NamedTuple):
    """A problem, a sentence about it, and the address of the rows behind it."""

    title: str
    detail: str
    address: str
    action: str


def find_problems(facts: FleetFacts, selection: Selection) -> Sequence[Problem]:
    """Return the problems of a fleet, the most urgent first.

    Args:
        facts: The figures of the fleet.
        selection: The fleet, for the addresses of rows.
    """
    problems = []
    reason = f"Most frequent reason: {facts.reason}." if facts.reason else ""
    if facts.refused_machines:
        title = f"{format_count(facts.refused_machines, 'machine')} refused in the last 14 days"
        problems.append(Problem(title, reason, selection.address("refused"), "Why"))
    elif facts.refusals:
        title = f"{format_count(facts.refusals, 'report')} refused in the last 7 days"
        problems.append(Problem(title, reason, selection.address("refused"), "Why"))
    if facts.quiet:
        title = f"{format_count(facts.quiet, 'machine')} quiet for 7 days or more"
        detail = "Retire those that are no longer in use."
        if facts.newly_quiet:
            detail = f"{facts.newly_quiet:,} of them since last week. {detail}"
        address = f"{selection.address('./', state='quiet')}#machines-title"
        problems.append(Problem(title, detail, address, "Which ones"))
    if facts.outdated:
        title = f"{format_count(facts.outdated, 'machine')} with an old collector"
        address = f"{selection.address('./', state='outdated')}#machines-title"
        detail = "Other machines have a newer version of the same collector."
        problems.append(Problem(title, detail, address, "Which ones"))
    return problems
