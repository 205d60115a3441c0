"""Record every acknowledgement of a receiver, and later compare them with the database.

    with Oracle(receiver, {overwriting: "", summing: "sum"}) as oracle:
        receiver.kill()
        receiver.start()
    oracle.check(database_url)

It may be entered again after a check. Each sender counts up. A value is sent once and so may be
stored once: it must be when it was acknowledged, and may be when the answer got lost.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from developer_telemetry.constants import RAW_TABLE, TOOL_TABLE
from tests.support.receivers import TOKEN, Receiver, eventually, query, report
from tests.support.servers import HOST

DAYS = ("2026-11-23", "2026-11-24", "2026-11-25")
# Two machines a developer, so that days are shared.
MACHINES = 2
PAUSE_SECONDS = 0.005
# The number of attempts to reach a receiver that does not listen.
RETRY_SECONDS = 0.05
# The timeout of collectors.
PATIENCE_SECONDS = 30.0
# A proxy's answers for a receiver that does not answer.
UNANSWERED = (502, 504)
# The time to drain the spool, after which a report counts as lost.
DRAIN_SECONDS = 30.0


class Sent(NamedTuple):
    """One report, identified by its value."""

    connection_id: int
    developer: str
    date: str
    host: str
    value: int

    def body(self) -> dict[str, Any]:
        git = {"total_commits": self.value}
        return report(
            self.developer, date=self.date, hostname=self.host, metrics={"git_activity": git}
        )


class Stored(NamedTuple):
    """A raw row."""

    sent: Sent
    arrived_us: int
    raw_id: int

    @property
    def age(self) -> tuple[int, int]:
        return self.arrived_us, self.raw_id


class Figures(NamedTuple):
    """The counts of an oracle."""

    sent: int
    acknowledged: int
    deferred: int
    unanswered: int
    # From the last query of the database: acknowledged, stored twice, and never sent.
    stored: int
    doubled: int
    invented: int
    slowest_seconds: float

    @property
    def lost(self) -> int:
        return self.acknowledged - self.stored


class Oracle:
    """Sends from `senders` threads between enter and exit, at most `most` reports in all.

    `strategies` gives the duplicate strategy of each connection to send to. `proxy_port` is that
    of a proxy in front, if reports go through one.
    """

    def __init__(
        self,
        receiver: Receiver,
        strategies: Mapping[int, str],
        senders: int = 8,
        most: int = 1_000_000,
        proxy_port: int = 0,
    ) -> None:
        self._receiver = receiver
        self._proxy_port = proxy_port
        self._strategies = dict(strategies)
        self._most = most
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._sent: set[Sent] = set()
        self._acknowledged: set[Sent] = set()
        self._statuses: Counter[int] = Counter()
        self._wrong: list[str] = []
        self._stored = self._doubled = self._invented = 0
        self._slowest = 0.0
        self._checks = itertools.count(1)
        self._values = [itertools.count(1) for _ in range(senders)]
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Oracle:
        self._ending.clear()
        self._threads = [
            threading.Thread(target=self._send_until_stopped, args=(number,), daemon=True)
            for number in range(len(self._values))
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS + 5)

    @property
    def acknowledged(self) -> int:
        """Return how many reports were answered 200 so far."""
        return len(self._acknowledged)

    @property
    def deferred(self) -> int:
        """Return how many reports were answered 503 so far."""
        return self._statuses[503]

    @property
    def figures(self) -> Figures:
        """Return what has been seen so far."""
        with self._lock:
            unanswered = len(self._sent) - sum(self._statuses.values())
            return Figures(
                len(self._sent),
                len(self._acknowledged),
                self._statuses[503],
                unanswered,
                self._stored,
                self._doubled,
                self._invented,
                self._slowest,
            )

    def wait_for(self, more: int, seconds: float = 20.0) -> None:
        """Wait until `more` reports than now have been acknowledged."""
        goal = self.acknowledged + more
        eventually(lambda: self.acknowledged >= goal, seconds)

    def reset_slowest(self) -> None:
        """Measure the slowest answer from now on."""
        with self._lock:
            self._slowest = 0.0

    def check(self, database_url: str) -> Figures:
        """Fail unless each acknowledged report is stored once, and each day has its newest one.

        To be called after `with`, with receiver and database running.
        """
        assert not any(thread.is_alive() for thread in self._threads)
        assert self._acknowledged, "nothing was acknowledged"
        assert not self._wrong, self._wrong
        deadline = time.monotonic() + DRAIN_SECONDS
        while problems := self.problems(database_url):
            assert time.monotonic() < deadline, "\n".join([*problems, self._receiver.log[-3000:]])
            time.sleep(0.3)
        self._check_fresh(database_url)
        assert not self.figures.lost
        return self.figures

    def _check_fresh(self, database_url: str) -> None:
        developer = f"fresh {next(self._checks)}"
        for connection_id in self._strategies:
            answer = self._receiver.send(report(developer), connection_id)
            assert answer.status_code == 200, answer.text
        fresh = f"SELECT connection_id FROM {TOOL_TABLE} WHERE developer_id = '{developer}'"
        eventually(lambda: len(query(database_url, fresh)) == len(self._strategies), 10)

    def problems(self, database_url: str) -> list[str]:
        """Describe the differences between the acknowledgements and the database."""
        stored = self._read_raw(database_url)
        counts = Counter(row.sent for row in stored)
        doubled = {sent for sent, count in counts.items() if count > 1}
        invented = set(counts) - self._sent
        self._stored = len(self._acknowledged & set(counts))
        self._doubled, self._invented = len(doubled), len(invented)
        keys = _by_day(stored)
        expected = {day: self._expected(day, rows) for day, rows in keys.items()}
        tool = self._read_tool(database_url)
        wrong = [day for day in {*expected, *tool} if expected.get(day) != tool.get(day)]
        found = {
            "acknowledged and lost": self._acknowledged - set(counts),
            "stored more than once": doubled,
            "stored and never sent": invented,
            "arrived out of order": _out_of_order(stored),
            "days whose tool row is not the newest": wrong,
        }
        return [_describe_samples(what, which) for what, which in found.items() if which]

    def _expected(self, day: tuple[Any, ...], rows: list[Stored]) -> tuple[int, int, int]:
        """Return the tool row of a day: commits, arrival, raw id."""
        newest = max(rows, key=lambda row: row.age)
        commits = newest.sent.value
        if self._strategies[day[0]] == "sum":
            hosts: dict[str, Stored] = {}
            for row in sorted(rows, key=lambda row: row.age):
                hosts[row.sent.host] = row
            commits = sum(row.sent.value for row in hosts.values())
        return commits, newest.arrived_us, newest.raw_id

    def _read_raw(self, database_url: str) -> list[Stored]:
        rows = query(
            database_url,
            "SELECT connection_id, developer_id, date, hostname, payload, arrived_us, id"
            f" FROM {RAW_TABLE} WHERE {self._ours}",
        )
        return [
            Stored(Sent(row[0], row[1], str(row[2]), row[3], _value(row[4])), row[5], row[6])
            for row in rows
        ]

    def _read_tool(self, database_url: str) -> dict[tuple[Any, ...], tuple[int, int, int]]:
        rows = query(
            database_url,
            "SELECT connection_id, developer_id, date, commits, arrived_us, _raw_data_id"
            f" FROM {TOOL_TABLE} WHERE {self._ours}",
        )
        return {(row[0], row[1], str(row[2])): (row[3], row[4], row[5]) for row in rows}

    @property
    def _ours(self) -> str:
        ids = ", ".join(map(str, self._strategies))
        return f"connection_id IN ({ids}) AND developer_id LIKE 'developer %'"

    def _send_until_stopped(self, number: int) -> None:
        # Lighter than a general client: the senders share two cores with the tested programs.
        port = self._proxy_port or self._receiver.port
        client = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_SECONDS)
        connections = itertools.cycle(self._strategies)
        for value in self._values[number]:
            if self._ending.wait(PAUSE_SECONDS) or len(self._sent) >= self._most:
                break
            developer = f"developer {number // MACHINES}"
            host = f"host {number % MACHINES}"
            day = DAYS[value % len(DAYS)]
            self._send(client, Sent(next(connections), developer, day, host, value))
        client.close()

    def _send(self, client: http.client.HTTPConnection, sent: Sent) -> None:
        with self._lock:
            self._sent.add(sent)
        path = f"/plugins/developer-telemetry/{sent.connection_id}/report"
        started = time.monotonic()
        try:
            client.request(
                "POST", path, json.dumps(sent.body()), {"Authorization": f"Bearer {TOKEN}"}
            )
            response = client.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            client.close()
            self._ending.wait(RETRY_SECONDS)
            return
        seconds = time.monotonic() - started
        if self._proxy_port and response.status in UNANSWERED:
            self._ending.wait(RETRY_SECONDS)
            return
        with self._lock:
            self._slowest = max(self._slowest, seconds)
            self._statuses[response.status] += 1
            if response.status == 200:
                self._acknowledged.add(sent)
            elif response.status != 503 or not response.headers["Retry-After"]:
                self._wrong.append(f"{response.status} {text!r}")


def _value(payload: str) -> int:
    value: int = json.loads(payload)["metrics"]["git_activity"]["total_commits"]
    return value


def _by_day(stored: Iterable[Stored]) -> dict[tuple[Any, ...], list[Stored]]:
    days: dict[tuple[Any, ...], list[Stored]] = {}
    for row in stored:
        days.setdefault(row.sent[:3], []).append(row)
    return days


def _out_of_order(stored: Iterable[Stored]) -> list[Sent]:
    """Return reports that are older than an earlier one of the same machine."""
    newest: dict[tuple[Any, ...], int] = {}
    found = []
    for row in sorted(stored, key=lambda row: row.age):
        machine = row.sent[:4]
        if row.sent.value < newest.get(machine, 0):
            found.append(row.sent)
        newest[machine] = row.sent.value
    return found


def _describe_samples(what: str, which: Iterable[Any]) -> str:
    some = sorted(which)
    return f"{what}: {len(some)}, for example {some[:3]}"
