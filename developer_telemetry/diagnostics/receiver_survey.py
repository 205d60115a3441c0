"""Ask receivers for their state through report URLs, and explain failures.

Machines send to these URLs, so a fault that stops this request stops reports, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Optional

from developer_telemetry.connections.collector_setup import collector_url
from developer_telemetry.connections.crypto import remedy_of
from developer_telemetry.connections.http_client import NoAnswer, Reply, ask
from developer_telemetry.connections.report_url import COLLECTOR_HEADER
from developer_telemetry.connections.sign_on import HttpAnswer
from developer_telemetry.database.engine import now_us
from developer_telemetry.diagnostics.probe import (
    ANSWERED,
    HEADER,
    REFUSED,
    ProbeRequest,
    ReceiverState,
    new_nonce,
)

# Requests to the first connection's URL, to reach each receiver behind a balancer.
REQUESTS = 6

# The kinds of faults, by what has to be changed.
ROUTE = "route"
TOKEN = "token"
CONNECTION = "connection"
SECRET = "secret"
UNREADY = "unready"

PASS_REPORTS = "let it pass the report routes (docs/install.md, Behind a sign-on)"

# A receiver of an older release answers every GET with this message.
OLDER_RECEIVER = "send a report with POST"


class Finding(NamedTuple):
    """The result of one request: the receiver's state, or the kind of fault and its remedy."""

    connection_id: int
    state: Optional[ReceiverState] = None
    clock_ahead_us: int = 0  # the least by which the receiver's clock is ahead of ours
    fault: str = ""
    message: str = ""
    remedy: str = ""


class CollectorAnswer(NamedTuple):
    """The answer to a request for the collector, as a machine fetches it."""

    url: str
    version: str = ""  # of the collector; "" if the answer is none
    fault: str = ""


class Survey(NamedTuple):
    """The results of all requests, and the URL of the first one."""

    url: str = ""
    findings: Sequence[Finding] = ()
    collector: Optional[CollectorAnswer] = None  # None unless a receiver was reached

    @property
    def states(self) -> dict[str, ReceiverState]:
        """Return the newest state of each receiver that answered, by its name."""
        return {finding.state.receiver: finding.state for finding in self.findings if finding.state}

    @property
    def clocks(self) -> dict[str, float]:
        """Return how many seconds the clock of each receiver is ahead of the one here."""
        return {
            f"receiver {finding.state.receiver}": finding.clock_ahead_us / 1e6
            for finding in self.findings
            if finding.state
        }

    def faults(self, kind: str) -> list[Finding]:
        """Return the findings with a fault of this kind."""
        return [finding for finding in self.findings if finding.fault == kind]


def survey(report_url: Callable[[int], str], tokens: Mapping[int, str], nonce: str) -> Survey:
    """Ask through the report URL of each connection in `tokens`, at least one."""
    first, *others = tokens
    findings: dict[int, list[Finding]] = {}
    for number in [first] * REQUESTS + others:
        earlier = findings.setdefault(number, [])
        if not earlier or earlier[-1].state is not None:
            earlier.append(ask_state(report_url(number), number, tokens[number], nonce))
    url = report_url(first)
    all_findings = tuple(finding for results in findings.values() for finding in results)
    is_reached = any(finding.state for finding in all_findings)
    return Survey(url, all_findings, ask_collector(collector_url(url)) if is_reached else None)


def ask_collector(url: str) -> CollectorAnswer:
    """Fetch the collector, without a token as a new machine does."""
    try:
        reply = ask(url, {})
    except NoAnswer as error:
        return CollectorAnswer(url, fault=str(error))
    version = reply.headers.get(COLLECTOR_HEADER.lower(), "")
    if reply.status == 200 and version:
        return CollectorAnswer(url, version)
    kind = reply.headers.get("content-type", "nothing").partition(";")[0]
    content = reply.message if reply.status != 200 else f"{kind} that is no collector"
    return CollectorAnswer(url, fault=f"answers {reply.status} ({content})")


def ask_state(url: str, connection_id: int, token: str, nonce: str = "") -> Finding:
    """Ask through the report URL of a connection, which has this token."""
    request = ProbeRequest(token, nonce or new_nonce())
    started_us = now_us()
    try:
        reply = ask(url, request.headers, query=request.query)
    except NoAnswer as error:
        return Finding(
            connection_id,
            fault=ROUTE,
            message=f"{url}: {error}",
            remedy="check the address (--url or TELEMETRY_PUBLIC_URL), and that the front proxy"
            " and `developer-telemetry serve` run",
        )
    ended_us = now_us()
    state = request.read(reply.content) if reply.status == 200 else None
    if state is not None:
        # The receiver read its clock at any moment between the two.
        ahead_us = max(0, state.clock_us - ended_us) + min(0, state.clock_us - started_us)
        return Finding(connection_id, state, ahead_us)
    fault, message, remedy = _interpret_reply(url, reply)
    return Finding(connection_id, fault=fault, message=f"{url} {message}", remedy=remedy)


def _interpret_reply(url: str, reply: Reply) -> tuple[str, str, str]:
    """Return the kind of a fault, what is wrong, and the remedy."""
    answered = f"answers {reply.status} ({reply.message})"
    marker = reply.headers.get(HEADER.lower())
    if marker == REFUSED:
        return _refused(reply, answered)
    if marker == ANSWERED:
        return (
            ROUTE,
            "gives the answer to an earlier request, or one that this release can't read",
            "let nothing on the way cache answers, and update the receiver",
        )
    if reply.status == 405 and reply.message == OLDER_RECEIVER:
        return ROUTE, "leads to a receiver of an older release", "update the receiver"
    return ROUTE, answered, _route_remedy(url, reply)


def _refused(reply: Reply, answered: str) -> tuple[str, str, str]:
    if reply.status == 401:
        return (
            TOKEN,
            answered,
            "give the receiver the same DB_URL and ENCRYPTION_SECRET as this command, and let the"
            " front proxy pass the Authorization header",
        )
    if reply.status == 404:
        return CONNECTION, answered, "give the receiver the DB_URL of DevLake's server"
    if remedy := remedy_of(reply.message):
        return SECRET, answered, f"at the receiver: {remedy}"
    return UNREADY, answered, "see the receiver's log, and check that it reaches its database"


def _route_remedy(url: str, reply: Reply) -> str:
    location = "the location for reports in its SERVER_CONF (an ingress path in Kubernetes)"
    answer = HttpAnswer(url, reply.status, reply.headers, reply.text)
    if answer.is_sign_on:
        return f"a sign-on is in the way of reports: {PASS_REPORTS}"
    if answer.is_redirect and not answer.is_redirect_to_same_path:
        return (
            f"collectors don't follow redirects: give {answer.target} as the address, or if that"
            f" is a sign-on, {PASS_REPORTS}"
        )
    if answer.is_redirect:
        return f"collectors don't follow redirects: give {answer.target} as the address"
    if reply.status in (401, 403):
        return (
            f"the front proxy asks for a password: add `auth_basic off` to {location}, or if a"
            f" sign-on asks for it, {PASS_REPORTS}"
        )
    if reply.status in (502, 503, 504):
        return (
            "the front proxy reaches no receiver: start `developer-telemetry serve` at the address"
            " that the proxy has"
        )
    if "html" in reply.headers.get("content-type", "") and reply.status == 200:
        return "that is the web UI: give the address with /api (--url or TELEMETRY_PUBLIC_URL)"
    return f"the front proxy sends reports elsewhere: add {location}"
