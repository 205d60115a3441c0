"""A look at the receiver through a report URL, and what it means when none comes to see.

Machines send to that URL, so whatever stands in the way of the look stands in theirs.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from developer_telemetry.connections.crypto import remedy_of
from developer_telemetry.connections.sign_on import Turned
from developer_telemetry.database.engine import now_us
from developer_telemetry.diagnostics.asking import NoAnswer, Reply, ask
from developer_telemetry.diagnostics.probe import HEADER, Question, State, new_nonce

# What a look failed of.
ROUTE = "route"
TOKEN = "token"
CONNECTION = "connection"
SECRET = "secret"
UNREADY = "unready"

PASS_REPORTS = "let it pass the report routes (docs/install.md, Behind a sign-on)"

# What a receiver says to a GET that asks nothing; an older one says it to every GET.
NOT_ASKED = "send a report with POST"


class Look(NamedTuple):
    """A receiver's state, or at what the look failed, what was seen, and a remedy."""

    connection_id: int
    state: Optional[State] = None
    clock_ahead_us: int = 0  # the receiver's of ours, at least
    fault: str = ""
    said: str = ""
    remedy: str = ""


def look(url: str, connection_id: int, token: str, nonce: str = "") -> Look:
    """Look through the report URL of a connection, which has this token."""
    question = Question(connection_id, token, nonce or new_nonce())
    started_us = now_us()
    try:
        reply = ask(url, question.headers)
    except NoAnswer as error:
        return Look(
            connection_id,
            fault=ROUTE,
            said=f"{url}: {error}",
            remedy="check the address (--url or TELEMETRY_PUBLIC_URL), and that the front proxy"
            " and `developer-telemetry serve` run",
        )
    ended_us = now_us()
    state = question.open(str(reply.said.get("sealed", "")))
    if state is not None:
        # Any moment in between may be the one at which it looked at its clock.
        ahead_us = max(0, state.clock_us - ended_us) + min(0, state.clock_us - started_us)
        return Look(connection_id, state, ahead_us)
    fault, said, remedy = _judge(url, reply)
    return Look(connection_id, fault=fault, said=f"{url} {said}", remedy=remedy)


def _judge(url: str, reply: Reply) -> tuple[str, str, str]:
    """At what a look failed, what was seen, and a remedy."""
    answered = f"answers {reply.status} ({reply.message})"
    met = reply.headers.get(HEADER.lower())
    if met == "refused":
        return _refused(reply, answered)
    if met or "sealed" in reply.said:
        return (
            TOKEN,
            "gives an answer that no receiver with this token has made for us",
            "see who answers at this address, and that nothing on the way keeps answers",
        )
    if reply.status == 405 and reply.message == NOT_ASKED:
        return (
            ROUTE,
            f"reaches a receiver that saw no {HEADER} header",
            "update the receiver, or let the front proxy pass that header on",
        )
    return ROUTE, answered, _route_remedy(url, reply)


def _refused(reply: Reply, answered: str) -> tuple[str, str, str]:
    if reply.status == 401:
        remedy = "give the receiver the same DB_URL and ENCRYPTION_SECRET as this command"
        return TOKEN, answered, remedy
    if reply.status == 404:
        return CONNECTION, answered, "give the receiver the DB_URL of DevLake's server"
    if remedy := remedy_of(reply.message):
        return SECRET, answered, f"at the receiver: {remedy}"
    return UNREADY, answered, "see the receiver's log, and that it reaches its database"


def _route_remedy(url: str, reply: Reply) -> str:
    location = "the location for reports in its SERVER_CONF (an ingress path in Kubernetes)"
    turned = Turned(url, reply.status, reply.headers, reply.text)
    if turned.is_sign_on:
        return f"a sign-on stands in the way of reports: {PASS_REPORTS}"
    if turned.is_redirect and not turned.only_moves:
        return (
            f"collectors don't follow: give {turned.target} as address, or if that is a sign-on,"
            f" {PASS_REPORTS}"
        )
    if turned.is_redirect:
        return f"collectors don't follow: give {turned.target} as address"
    if reply.status in (401, 403):
        return (
            f"a password is asked for on the way: add `auth_basic off` to {location}, or where it"
            f" is a sign-on, {PASS_REPORTS}"
        )
    if reply.status in (502, 503, 504):
        return "the front proxy finds no receiver: start `developer-telemetry serve` where it looks"
    if "html" in reply.headers.get("content-type", "") and reply.status == 200:
        return "that is the web UI: give the address with /api (--url or TELEMETRY_PUBLIC_URL)"
    return f"the front proxy sends this elsewhere: add {location}"
