"""The longest of the fault tests: an oracle over many minutes, while rows are locked for minutes.

    python -m tests.soak.endurance [--minutes 30] [--rounds 6]

Rounds on a MariaDB and on a PostgreSQL behind PgBouncer take turns, each with a standby and with
defaults that suit nobody. In each round, twice: another transaction holds days for a third of the
round, meanwhile sessions are killed, the receiver is, and the pooler is restarted; between the two
the primary is killed and the standby promoted. All the while reports come in that the database
refuses for their content. In the end everything acknowledged is stored, but for just those.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple

from developer_telemetry.constants import RAW_TABLE, TOOL_TABLE
from developer_telemetry.receiver.ingest.spool import dead_letters
from tests.cluster.forwarder import Forwarder
from tests.cluster.pairs import MariaDBPair, Pair, PostgreSQLPair
from tests.support.oracle import DAYS, Figures, Oracle
from tests.support.receivers import report
from tests.support.servers import PgBouncer, Server, create_database, execute, in_database
from tests.support.sites import Site
from tests.support.transactions import kill_sessions, transaction

PAIRS: dict[str, Callable[[], Pair]] = {"mariadb": MariaDBPair, "postgresql": PostgreSQLPair}
ROUND_SECONDS = 300.0
# Of a round, each time.
LOCKED_SHARE = 1 / 3
DATABASE = "faults_endurance"
POISON_SECONDS = 2.0
# After the last lock: the longest pause between two tries, and what has gathered.
DRAIN_SECONDS = 180.0
# What a server may be set to by whoever runs it; none of it may matter.
HOSTILE = {
    "mariadb": {
        "sql_mode": "'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH'",
        "time_zone": "'+05:45'",
        "tx_isolation": "'SERIALIZABLE'",
        "sql_safe_updates": "1",
        "innodb_lock_wait_timeout": "600",
    },
    "postgresql": {
        "default_transaction_isolation": "'serializable'",
        "datestyle": "'German'",
        "intervalstyle": "'sql_standard'",
        "timezone": "'Asia/Kathmandu'",
        "lock_timeout": "0",
        "standard_conforming_strings": "off",
    },
}


class Totals(NamedTuple):
    """The outcome of a round."""

    figures: Figures
    set_aside: int
    drain_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Lock rows for minutes while all else breaks.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, help="default: one for 5 minutes, 2 at least")
    parser.add_argument("--database", choices=[*PAIRS], help="default: both, in turns")
    options = parser.parse_args()
    seconds = options.minutes * 60
    rounds = options.rounds or max(2, round(seconds / ROUND_SECONDS))
    for number in range(rounds):
        name = options.database or [*PAIRS][number % 2]
        with tempfile.TemporaryDirectory() as folder, PAIRS[name]() as pair:
            totals = Round(pair, Path(folder), seconds / rounds).run()
        figures = totals.figures
        print(
            f"{pair.name}, {seconds / rounds:.0f} s, locks of"
            f" {seconds / rounds * LOCKED_SHARE:.0f} s: {figures.acknowledged} acknowledged, lost"
            f" {figures.lost}, doubled {figures.doubled}, invented {figures.invented},"
            f" {totals.set_aside} set aside, each for its content;"
            f" {figures.deferred} asked to come back, {figures.unanswered} unanswered,"
            f" slowest answer {figures.slowest_seconds:.1f} s;"
            f" drained {totals.drain_seconds:.0f} s after the last report",
            flush=True,
        )


class Round:
    """One pair of servers, and all that happens to it."""

    def __init__(self, pair: Pair, folder: Path, seconds: float) -> None:
        self._pair = pair
        self._folder = folder
        self._locked_seconds = seconds * LOCKED_SHARE
        self._quiet_seconds = (seconds - 2 * self._locked_seconds) / 4
        self._primary: Server = pair.primary

    def run(self) -> Totals:
        for server in (self._pair.primary, self._pair.standby):
            set_hostile_defaults(server)
        create_database(self._direct_url)
        with ExitStack() as stack:
            self._address(stack)
            site = Site(self._primary, self._url, self._folder)
            execute(
                self._direct_url,
                f"ALTER TABLE {RAW_TABLE} ADD CONSTRAINT picky"
                " CHECK (developer_id NOT LIKE 'poison%')",
            )
            stack.enter_context(site.receiver)
            return self._attack(site)

    def _address(self, stack: ExitStack) -> None:
        """Make what leads to whichever server is the primary: a pooler, where there is one."""
        self._pooler = None
        self._url = self._pair.url(DATABASE)
        if isinstance(self._pair, PostgreSQLPair):
            self._forwarder = stack.enter_context(Forwarder(self._primary.port))
            through = self._primary.url("").replace(
                f":{self._primary.port}/", f":{self._forwarder.port}/"
            )
            self._pooler = stack.enter_context(PgBouncer(through, "session"))
            self._url = self._pooler.url(DATABASE)

    @property
    def _direct_url(self) -> str:
        return in_database(self._primary.url(""), DATABASE)

    def _attack(self, site: Site) -> Totals:
        oracle = site.oracle(senders=6)
        with oracle, poison(site) as poisoned:
            self._hold_days(site, oracle)
            time.sleep(self._quiet_seconds)
            self._fail_over()
            oracle.wait_for(20, 60)
            time.sleep(self._quiet_seconds)
            self._hold_days(site, oracle)
            time.sleep(self._quiet_seconds)
        drain_seconds = self._drain(site)
        figures = oracle.check(self._direct_url)
        set_aside = [letter.report.payload for letter in dead_letters(site.spool)]
        assert all('"poison' in payload for payload in set_aside), set_aside
        assert len(set_aside) == len(poisoned), f"{len(set_aside)} of {len(poisoned)} set aside"
        return Totals(figures, len(set_aside), drain_seconds)

    def _drain(self, site: Site) -> float:
        """Wait until the spool is empty, and return how many seconds it took."""
        started = time.monotonic()
        counts: list[int] = []  # one a second
        while spooled := site.spooled():
            counts.append(spooled)
            assert time.monotonic() - started < DRAIN_SECONDS, (
                f"{spooled} still spooled; every 10 s: {counts[::10]}\n{site.receiver.log[-3000:]}"
            )
            time.sleep(1)
        return time.monotonic() - started

    def _hold_days(self, site: Site, oracle: Oracle) -> None:
        """Hold two developers' days in another transaction while everything else goes wrong."""
        oracle.wait_for(50, 60)
        days = ", ".join(f"'{day}'" for day in DAYS)
        update = (
            f"UPDATE {TOOL_TABLE} SET name = 'held' WHERE connection_id IN"
            f" ({site.overwriting}, {site.summing}) AND developer_id IN"
            f" ('developer 0', 'developer 1') AND date IN ({days})"
        )
        ends_at = time.monotonic() + self._locked_seconds
        with transaction(self._direct_url, update):
            troubles: list[Callable[[], None]] = [
                partial(kill_sessions, self._primary, DATABASE),
                self._restart_pooler,
                partial(self._restart_receiver, site),
            ]
            for trouble in troubles:
                time.sleep(self._locked_seconds / 5)
                trouble()
                oracle.wait_for(20, 60)
            assert site.spooled(), "nothing was in the way of any report"
            time.sleep(max(0.0, ends_at - time.monotonic()))

    def _restart_pooler(self) -> None:
        if self._pooler is not None:
            self._pooler.kill()
            time.sleep(1)
            self._pooler.start()

    def _restart_receiver(self, site: Site) -> None:
        site.receiver.kill()
        site.receiver.start(answering="/health/live")

    def _fail_over(self) -> None:
        self._primary.kill()
        self._pair.promote()
        self._primary = self._pair.standby
        set_hostile_defaults(self._primary)
        if self._pooler is not None:
            self._forwarder.set_target(self._primary.port)
            self._forwarder.cut()


def set_hostile_defaults(server: Server) -> None:
    """Set what new sessions begin with to what nobody would expect."""
    for name, value in HOSTILE[server.name].items():
        if server.name == "mariadb":
            execute(server.url(""), f"SET GLOBAL {name} = {value}")
        elif execute(server.url(""), "SELECT pg_is_in_recovery()") == [(False,)]:
            execute(server.url(""), f"ALTER SYSTEM SET {name} = {value}")
            execute(server.url(""), "SELECT pg_reload_conf()")


@contextmanager
def poison(site: Site) -> Iterator[list[str]]:
    """Send what the database refuses for its content; gives whose reports were acknowledged."""
    acknowledged: list[str] = []
    ending = threading.Event()

    def send() -> None:
        number = 0
        while not ending.wait(POISON_SECONDS):
            number += 1
            developer = f"poison {number}"
            try:
                answer = site.receiver.send(report(developer), site.overwriting)
            except Exception:  # the receiver is being restarted
                continue
            if answer.status_code == 200:
                acknowledged.append(developer)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    yield acknowledged
    ending.set()
    sender.join(60)


if __name__ == "__main__":
    main()
