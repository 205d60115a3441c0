"""Test what the receiver keeps, on each real database: at once, once, newest, through a stop."""

from __future__ import annotations

import itertools
import json
import secrets
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Callable, NamedTuple

import httpx
import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.connections.database_backend import DatabaseBackend
from developer_telemetry.connections.report_url import BULK_PATH
from developer_telemetry.constants import CONNECTION_TABLE
from tests.support.receivers import (
    SECRET,
    TOKEN,
    Altered,
    Receiver,
    add_connection,
    eventually,
    migrate,
    query,
    report,
    run_command,
)
from tests.support.servers import (
    HOST,
    PASSWORD,
    create_database,
    drop_database,
    free_port,
    in_database,
)
from tests.support.threads import run_simultaneously

RAW = "_raw_developer_telemetry"
TOOL = "_tool_developer_metrics"
MACHINES = "_tool_developer_telemetry_machines"
REFUSALS = "_tool_developer_telemetry_refusals"

# A race is not lost every time.
each_attempt = pytest.mark.parametrize("attempt", range(8))


class Lake(NamedTuple):
    """A migrated database with two receivers, as behind a load balancer, and a connection each."""

    url: str
    receivers: tuple[Receiver, Receiver]
    overwriting: int
    summing: int

    def newest(self, developer: str) -> tuple[Any, ...]:
        """Raw id and arrival of the newest report."""
        rows = query(
            self.url,
            f"SELECT id, arrived_us FROM {RAW} WHERE developer_id = '{developer}'"
            " ORDER BY arrived_us DESC, id DESC",
        )
        return rows[0]

    def rows(self, table: str, developer: str) -> int:
        [(count,)] = query(
            self.url, f"SELECT COUNT(*) FROM {table} WHERE developer_id = '{developer}'"
        )
        assert isinstance(count, int)
        return count

    def build_tool_row(self, developer: str, columns: str) -> tuple[Any, ...]:
        [row] = query(self.url, f"SELECT {columns} FROM {TOOL} WHERE developer_id = '{developer}'")
        return row


@pytest.fixture(scope="module", params=["sqlite", "mariadb", "postgresql"])
def lake(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        yield from serve(f"sqlite:///{folder}/telemetry.db", folder)
        return
    server = request.getfixturevalue(f"{request.param}_server")
    url = in_database(server, f"telemetry_test_{secrets.token_hex(6)}")
    create_database(url)
    try:
        yield from serve(url, folder)
    finally:
        drop_database(url)


def serve(url: str, folder: Path) -> Iterator[Lake]:
    migrate(url, folder)
    overwriting, summing = add_connection(url), add_connection(url, strategy="sum")
    with (
        Receiver(url, folder, TELEMETRY_LOG_LEVEL="debug") as one,
        Receiver(url, folder, TELEMETRY_LOG_LEVEL="debug") as other,
    ):
        yield Lake(url, (one, other), overwriting, summing)


def test_a_report_is_in_both_layers_when_it_is_answered(lake: Lake) -> None:
    for number in range(20):
        body = report(f"reader {number}", metrics={"active_hours": number})

        answer = lake.receivers[number % 2].send(body, lake.overwriting)

        assert answer.status_code == 200
        [raw_id, arrived_us] = lake.newest(f"reader {number}")
        expected = (number, raw_id, arrived_us)
        row = lake.build_tool_row(f"reader {number}", "active_hours, _raw_data_id, arrived_us")
        assert row == expected
        [(payload,)] = query(
            lake.url, f"SELECT payload FROM raw_developer_telemetry WHERE id = {raw_id}"
        )
        assert json.loads(payload) == body


@each_attempt
def test_32_senders_of_a_days_first_report_leave_one_row_the_newest(
    lake: Lake, attempt: int
) -> None:
    developer = f"crowd {attempt}"

    def send(number: int) -> httpx.Response:
        metrics = {"active_hours": 1, "git_activity": {"total_commits": number}}
        body = report(developer, hostname=f"host {number}", metrics=metrics)
        return lake.receivers[number % 2].send(body, lake.overwriting)

    answers = run_simultaneously([partial(send, number) for number in range(32)])

    assert [answer.status_code for answer in answers] == [200] * 32
    assert lake.rows(RAW, developer) == 32
    [raw_id, arrived_us] = lake.newest(developer)
    [(payload,)] = query(lake.url, f"SELECT payload FROM {RAW} WHERE id = {raw_id}")
    commits = json.loads(payload)["metrics"]["git_activity"]["total_commits"]
    row = lake.build_tool_row(developer, "commits, hostname, _raw_data_id, arrived_us")
    assert row == (commits, f"host {commits}", raw_id, arrived_us)


@each_attempt
def test_reports_of_8_hosts_at_once_are_summed(lake: Lake, attempt: int) -> None:
    developer = f"octopus {attempt}"

    def send(host: int) -> list[int]:
        # The part of the day first, then the whole of it: the sum has the whole alone.
        days = [{"total_commits": 3}, {"total_commits": 10**host}]
        bodies = [
            report(developer, hostname=f"host {host}", metrics={"git_activity": git})
            for git in days
        ]
        return [lake.receivers[host % 2].send(body, lake.summing).status_code for body in bodies]

    statuses = run_simultaneously([partial(send, host) for host in range(8)])

    assert statuses == [[200, 200]] * 8
    assert lake.rows(RAW, developer) == 16
    row = lake.build_tool_row(developer, "commits, _raw_data_id, arrived_us")
    assert row == (11_111_111, *lake.newest(developer))


def test_people_whose_ids_differ_in_case_or_accent_stay_apart(lake: Lake) -> None:
    people = ["Irfan", "irfan", "jose", "josé", "jose ´", "漢字", "🔑"]

    for person in people:
        assert lake.receivers[0].send(report(person), lake.overwriting).status_code == 200

    for person in people:
        assert lake.rows(TOOL, person) == 1


def test_machines_are_counted_within_ten_seconds(lake: Lake) -> None:
    hosts = ["desk", "desk", "laptop"]
    for host in hosts:
        body = report("commuter", hostname=host)
        assert lake.receivers[0].send(body, lake.overwriting).status_code == 200

    def counted() -> bool:
        rows = query(
            lake.url,
            f"SELECT hostname, reports FROM {MACHINES}"
            " WHERE developer_id = 'commuter' ORDER BY hostname",
        )
        return rows == [("desk", 2), ("laptop", 1)]

    eventually(counted, seconds=10)
    [(inverted,)] = query(
        lake.url,
        f"SELECT COUNT(*) FROM {MACHINES} WHERE developer_id = 'commuter' AND"
        f" (last_seen < first_seen OR connection_id <> {lake.overwriting})",
    )
    assert inverted == 0


def test_refusals_are_counted_by_reason_within_ten_seconds(lake: Lake) -> None:
    connection = add_connection(lake.url)
    one, other = lake.receivers
    bodies = [b"{", b"[]", b'{"developer": "ann"}', b'{"date": "2026-11-23"}', b" " * 1_100_000]
    refused = [
        *(one.send(body, connection) for body in bodies),
        other.send(b"{", connection),
        one.send(b"{}", connection, content_encoding="br"),
        *run_simultaneously(
            [partial(one.send, b"{}", connection, token) for token in (None, "wrong")]
        ),
    ]
    assert [answer.status_code for answer in refused] == [400] * 4 + [413, 400, 415, 401, 401]

    def counted() -> dict[str, int]:
        rows = query(
            lake.url,
            f"SELECT reason, SUM(count) FROM {REFUSALS}"
            f" WHERE connection_id = {connection} GROUP BY reason",
        )
        return {reason: int(count) for reason, count in rows}

    expected = {"body": 3, "date": 1, "developer": 1, "size": 1, "encoding": 1, "token": 2}
    eventually(lambda: counted() == expected, seconds=10)


def test_a_connection_that_was_deleted_a_moment_ago_is_unknown(
    lake: Lake, opened: Callable[[str], Engine]
) -> None:
    connection = add_connection(lake.url)
    bulk = BULK_PATH.format(connection_id="{}")
    body = report("leaver")
    one, other = lake.receivers
    for receiver in lake.receivers:  # both have it in memory from now on
        assert receiver.send(body, connection).status_code == 200

    DatabaseBackend(opened(lake.url), SECRET).delete(connection)
    answers = [
        one.send(body, connection),
        one.send(body, connection),
        other.send(body, connection, path=bulk),
        other.send(body, connection, path=bulk),
    ]

    unknown = one.send(body, 999_999)
    assert [answer.status_code for answer in answers] == [404] * 4
    assert {answer.text for answer in answers} == {unknown.text}
    for table in (RAW, TOOL, MACHINES):
        assert lake.rows(table, "leaver") == 0


def test_no_secret_and_no_body_is_in_the_log_even_at_debug(lake: Lake) -> None:
    """The log has the developer and the host of a refused report, if its token is valid."""
    receiver = lake.receivers[0]
    secret_body = report("refused-developer", email="xyzzy-mail", metrics={"projects": ["xyzzy"]})
    broken = json.dumps(secret_body)[:-1].encode()
    locked = add_connection(lake.url)
    query(
        lake.url,
        "UPDATE _tool_developer_telemetry_connections SET secret_token = 'xyzzy-encrypted'"
        f" WHERE id = {locked}",
    )

    answers = run_simultaneously(
        [
            partial(receiver.send, secret_body, lake.overwriting),
            partial(receiver.send, broken, lake.overwriting),
            partial(receiver.send, b"xyzzy" * 500_000, lake.overwriting),
            partial(receiver.send, secret_body, lake.overwriting, "xyzzy-token"),
            partial(receiver.send, secret_body, locked),
            partial(receiver.send, secret_body, 0),
        ]
    )

    assert [answer.status_code for answer in answers] == [200, 400, 413, 401, 503, 404]
    log = receiver.log
    assert "ready for reports" in log
    for secret in ("xyzzy", TOKEN, SECRET, PASSWORD):
        assert secret not in log
    assert log.count("refused-developer") == 1


def test_all_that_was_answered_200_before_a_stop_is_stored(
    database_url: str, tmp_path: Path
) -> None:
    migrate(database_url, tmp_path)
    connections = [add_connection(database_url), add_connection(database_url, strategy="sum")]
    receiver = Receiver(database_url, tmp_path)
    stored: list[str] = []
    enough = threading.Event()

    def send(sender: int) -> list[int]:
        refused: list[int] = []
        for number in itertools.count():
            developer = f"{sender}-{number}"
            try:
                answer = receiver.send(report(developer), connections[sender % 2])
            except httpx.TransportError:
                break
            if answer.status_code == 200:
                stored.append(developer)
            else:
                refused.append(answer.status_code)
            if len(stored) > 100:
                enough.set()
        return refused

    def stop() -> list[int]:
        assert enough.wait(30)
        return [receiver.stop()]

    with receiver:
        senders: list[Callable[[], list[int]]] = [partial(send, sender) for sender in range(8)]
        exit_status, *refused = run_simultaneously([stop, *senders])

    assert exit_status == [0]
    assert {status for each in refused for status in each} <= {503}
    kept = query(database_url, f"SELECT developer_id FROM {RAW}")
    rows = query(database_url, f"SELECT developer_id FROM {TOOL}")
    assert sorted(kept) == sorted(rows)
    assert {developer for (developer,) in kept} >= set(stored)


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_before_the_migration_it_answers_503_and_then_becomes_ready_by_itself(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    receiver = Receiver(url, tmp_path)
    receiver.start(answering="/health/live")
    try:
        early = [receiver.client.get("/health/ready"), receiver.send(report("ann"), 1)]
        migrate(url, tmp_path)
        eventually(lambda: receiver.status("/health/ready") == 200, seconds=10)
        made = json.loads(run_command(tmp_path, "connect", "x", "--json", DB_URL=url).stdout)
        late = receiver.send(report("ann"), made["id"], made["token"])
    finally:
        receiver.stop()

    for answer in early:
        assert answer.status_code == 503
        assert answer.json()["success"] is False
    assert "`developer-telemetry migrate`" in early[0].json()["message"]
    assert int(early[1].headers["retry-after"]) > 0
    assert late.status_code == 200
    assert query(url, f"SELECT developer_id FROM {TOOL}") == [("ann",)]
    assert "the database is not migrated" in receiver.log
    assert "the database accepts reports again" in receiver.log


class Unlucky(Altered):
    """Its checks fail by a fault that is none of the database's."""

    def command(self) -> list[str]:
        run = (
            "from developer_telemetry.receiver.jobs import monitor\n"
            "def failing(engine): raise TypeError('no such option')\n"
            "monitor.is_migrated\n"  # an error where the name is gone
            "monitor.is_migrated = failing\n"
            "from developer_telemetry.cli.main import app\n"
            "app(['serve'])"
        )
        return [sys.executable, "-c", run]


def test_it_is_not_ready_while_its_checks_fail_whatever_the_fault(
    sqlite_url: str, tmp_path: Path
) -> None:
    migrate(sqlite_url, tmp_path)
    receiver = Unlucky(sqlite_url, tmp_path)
    receiver.start(answering="/health/live")

    answer = receiver.client.get("/health/ready")

    assert receiver.stop() == 0
    assert answer.status_code == 503
    assert "TypeError: no such option" in receiver.log
    # Where the fault was raised is told once, and not with every round.
    assert receiver.log.count(", in failing") == 1


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_it_is_not_ready_while_it_can_not_read_its_connections(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    migrate(url, tmp_path)
    connection = add_connection(url)
    with Receiver(url, tmp_path) as receiver:
        query(url, f"ALTER TABLE {CONNECTION_TABLE} RENAME TO moved_away")
        eventually(lambda: receiver.status("/health/ready") == 503, seconds=10)
        query(url, f"ALTER TABLE moved_away RENAME TO {CONNECTION_TABLE}")
        eventually(lambda: receiver.status("/health/ready") == 200, seconds=10)
        assert receiver.send(report("ann"), connection).status_code == 200


@pytest.mark.parametrize("scheme", ["mysql", "postgres"])
def test_without_its_database_it_starts_and_asks_senders_to_come_back(
    tmp_path: Path, scheme: str
) -> None:
    url = f"{scheme}://merico:{PASSWORD}@{HOST}:{free_port()}/lake"
    receiver = Receiver(url, tmp_path)
    receiver.start(answering="/health/live")

    answers = [receiver.client.get("/health/ready"), receiver.send(report("ann"), 1)]

    assert [answer.status_code for answer in answers] == [503, 503]
    assert int(answers[1].headers["retry-after"]) > 0
    assert receiver.stop() == 0
    assert "not ready: no connection is known yet: " in receiver.log
    assert PASSWORD not in receiver.log
