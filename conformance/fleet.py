"""Machines that report all the time, and a check that no report is lost."""

from __future__ import annotations

import itertools
import threading

from developer_telemetry.constants import RAW_TABLE
from tests.support.receivers import Receiver, query, report

TOKEN = "token-of-the-fleet"
# The developers, and further fields of their reports.
PEOPLE: dict[str, dict[str, str]] = {
    "ann": {"email": "ann@example.org", "name": "Someone Else"},
    "bob": {"email": "bob@elsewhere.org", "name": "Bob Builder"},
    "cem": {},
    "dan": {"email": "Ann@Example.org"},  # exact means exact
}
COUNTS = {"development_activity": {"test_runs_detected": 3, "build_commands_detected": 2}}


class Fleet:
    """Machines that report without a pause, and a thread that counts the raw rows."""

    def __init__(self, database_url: str, receiver: Receiver, connection_id: int) -> None:
        self.acknowledged = 0
        self.refused: list[str] = []
        self.lost = False
        self._url = database_url
        self._receiver = receiver
        self._connection_id = connection_id
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=item) for item in (self._send, self._watch)]

    def __enter__(self) -> Fleet:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        people = itertools.cycle(PEOPLE.items())
        for number in itertools.count():
            developer, fields = next(people)
            day = f"2026-10-{number // len(PEOPLE) % 28 + 1:02}"
            body = report(developer, **fields, metrics=COUNTS, date=day)
            answer = self._receiver.send(body, self._connection_id, TOKEN)
            if answer.status_code == 200:
                self.acknowledged += 1
            else:
                self.refused.append(answer.text)
            if self._stop.wait(0.02):
                return

    def _watch(self) -> None:
        before = 0
        while not self._stop.wait(0.1):
            now = count(self._url, RAW_TABLE, self._connection_id)
            self.lost |= now < before
            before = now


def count(url: str, table: str, connection_id: int) -> int:
    [(number,)] = query(url, f"SELECT COUNT(*) FROM {table} WHERE connection_id = {connection_id}")
    return int(number)
