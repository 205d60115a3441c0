"""What looks through the report URLs tell of the receivers behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Callable, NamedTuple

from developer_telemetry.diagnostics.checks import FAILED, OK, SEE_RECEIVER, SKIPPED, Check, spool
from developer_telemetry.diagnostics.looking import CONNECTION, ROUTE, TOKEN, UNREADY, Look, look
from developer_telemetry.diagnostics.probe import State

# So often the first connection's URL is asked, to meet the receivers behind a balancer.
LOOKS = 6


def reach(report_url: Callable[[int], str], tokens: Mapping[int, str], nonce: str) -> Reach:
    """Look through the report URL of each connection whose token is known, one at least."""
    first, *others = tokens
    looks: dict[int, list[Look]] = {}
    for number in [first] * LOOKS + others:
        before = looks.setdefault(number, [])
        if not before or before[-1].state is not None:
            before.append(look(report_url(number), number, tokens[number], nonce))
    return Reach(report_url(first), [each for some in looks.values() for each in some])


class Reach(NamedTuple):
    """All looks, and the URL of the first."""

    url: str
    looks: Sequence[Look]

    @property
    def states(self) -> dict[str, State]:
        """The newest state of each receiver that was met, by its name."""
        return {each.state.receiver: each.state for each in self.looks if each.state}

    @property
    def clocks(self) -> dict[str, float]:
        """How far the receivers' clocks are ahead of the one here, in seconds."""
        return {
            f"receiver {each.state.receiver}": each.clock_ahead_us / 1e6
            for each in self.looks
            if each.state
        }

    def faults(self, *kinds: str) -> list[Look]:
        """The looks that failed of one of these."""
        return [each for each in self.looks if each.fault in kinds]

    def receiver(self) -> Check:
        """Whether the URL leads to receivers that can keep reports."""
        for each in self.faults(ROUTE):
            return Check("receiver", FAILED, each.said, each.remedy)
        met = ", ".join(f"{each.receiver} ({each.version})" for each in self.states.values())
        for each in self.faults(UNREADY):
            return Check("receiver", FAILED, each.said, each.remedy)
        for state in self.states.values():
            if state.problem:
                said = f"{state.receiver} can't keep reports: {state.problem}"
                return Check("receiver", FAILED, said, "see its log, and its database")
        return Check("receiver", OK, f"{self.url} leads to {met or 'a receiver'}")

    def token(self, open_to_all: Sequence[int]) -> Check:
        """Whether tokens are accepted, and needed: some connections may have none."""
        for each in self.faults(TOKEN):
            return Check("token", FAILED, each.said, each.remedy)
        if not self.states:
            return _not_reached("token")
        asked = {each.connection_id for each in self.looks}
        accepted = {each.connection_id for each in self.looks if each.state}
        said = f"accepted for {len(accepted)} of {len(asked)} connections"
        for number in open_to_all:
            return Check(
                "token",
                FAILED,
                f"{said}; whoever reaches the receiver can send to connection {number}",
                f"`developer-telemetry token rotate {number}` gives it a token",
            )
        return Check("token", OK, said)

    def database(self) -> Check:
        """Whether receivers have the database in which the nonce lies."""
        name = "receiver database"
        for each in self.faults(CONNECTION):
            return Check(name, FAILED, each.said, each.remedy)
        if not self.states:
            return _not_reached(name)
        for state in self.states.values():
            if state.same_database is None or state.outage:
                said = f"{state.receiver} stores nothing now: {state.outage or 'no answer from it'}"
                return Check(name, FAILED, said, "mend its DB_URL, or the way to the server")
            if not state.same_database:
                said = f"{state.receiver} has another database than this command"
                return Check(name, FAILED, said, "give both the DB_URL of DevLake's server")
        return Check(name, OK, "the same as here")

    def spools(self) -> Iterator[Check]:
        """What waits at each receiver."""
        if not self.states:
            yield _not_reached("spool")
        yield from map(spool, self.states.values())


def _not_reached(name: str) -> Check:
    return Check(name, SKIPPED, "no receiver was reached", SEE_RECEIVER)
