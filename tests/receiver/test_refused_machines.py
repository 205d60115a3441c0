"""Test that an operator finds out which machine was refused, and why."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from developer_telemetry.constants import CONNECTION_TABLE, REFUSED_MACHINE_TABLE
from developer_telemetry.receiver.http.peer_address import find_sender_address
from developer_telemetry.reports.pseudonyms import DEVELOPER, HOST, Pseudonyms
from tests.support import pages
from tests.support.pages import RefreshingReceiver
from tests.support.receivers import SECRET, add_connection, eventually, query, report

BULK = "/plugins/developer-telemetry/{}/reports"
COLUMNS = "developer_id, hostname, address, user_agent, reason, message, count"
AGENT = "developer-telemetry-collector/1.2"
STATES = {"reporting": "3.0", "quiet": "0.0", "retired": "0.0", "refused": "2.0"}
WRONG_DATE = "date: missing or not a date; send it as YYYY-MM-DD"


class CountingReceiver(RefreshingReceiver):
    """Counts machines for metrics again and again, too."""

    constants = {**RefreshingReceiver.constants, "receiver.jobs.fleet_job.ROUND_SECONDS": 0.1}


class Lake(pages.Lake):
    """A receiver, its database and its page, of all tests here."""

    def refused(self, connection: int, reports: int) -> list[tuple[Any, ...]]:
        """The rows of a connection, once they count so many reports."""
        statement = (
            f"SELECT {COLUMNS} FROM {REFUSED_MACHINE_TABLE} WHERE connection_id = {connection}"
            " ORDER BY developer_id, hostname, reason, address"
        )
        return eventually(
            lambda: [
                rows for rows in [query(self.url, statement)] if sum(r[-1] for r in rows) == reports
            ],
            seconds=15,
        )[0]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    folder: Path = tmp_path_factory.mktemp("refused")
    url = f"sqlite:///{folder}/telemetry.db"
    with CountingReceiver(url, folder, TELEMETRY_TRUSTED_PROXIES="127.0.0.0/8") as receiver:
        yield Lake(receiver, url)


def test_a_refused_machine_is_recorded_and_logged_with_its_reason(lake: Lake) -> None:
    number = add_connection(lake.url)
    forwarded = {"user_agent": AGENT, "x_forwarded_for": "198.51.100.66, 192.0.2.7"}
    wrong = report("ann\x1b[2J", date="23.11.2026", hostname="Anns-Mac.local")
    for _ in range(2):
        assert lake.receiver.send(wrong, number, **forwarded).status_code == 400
    no_json = b'{"developer": "bob", "hostname": "desk", "date": '
    assert lake.receiver.send(no_json, number, **forwarded).status_code == 400
    large = report("cid", x="x" * 1_100_000)
    assert lake.receiver.send(large, number, **forwarded).status_code == 413

    rows = lake.refused(number, 4)

    message = "not JSON: expecting value: line 1 column 50 (char 49)"
    assert rows == [
        ("", "", "192.0.2.7", AGENT, "size", rows[0][5], 1),
        ("ann\x1b[2J", "anns-mac", "192.0.2.7", AGENT, "date", WRONG_DATE, 2),
        ("bob", "desk", "192.0.2.7", AGENT, "body", f"body: {message}", 1),
    ]
    assert (
        f"refused a request for connection {number} with 400: {WRONG_DATE}, developer"
        r" 'ann\x1b[2J', host 'anns-mac', address 192.0.2.7, request "
    ) in lake.receiver.log


def test_metrics_count_machines_by_state_and_collector(lake: Lake) -> None:
    number = add_connection(lake.url)
    for developer, agent in (("ann", AGENT), ("bob", AGENT), ("cid", "curl/8")):
        sent = report(developer)
        assert lake.receiver.send(sent, number, user_agent=agent).status_code == 200
    assert lake.receiver.send(report("bob", date=""), number).status_code == 400
    assert lake.receiver.send(report("dan", date=""), number).status_code == 400

    def metrics(*lines: str) -> bool:
        text = lake.get("/metrics").text
        return all(line.replace("{", f'{{connection="{number}",') in text for line in lines)

    expected = [f'telemetry_machines{{state="{state}"}} {count}' for state, count in STATES.items()]
    expected.append('telemetry_collector_machines{version="1.2"} 2.0')
    expected.append('telemetry_collector_machines{version="other"} 1.0')
    assert eventually(lambda: metrics(*expected), seconds=15)


def test_a_large_report_and_reports_of_an_upload_have_their_machines(lake: Lake) -> None:
    number = add_connection(lake.url)
    fills = {"middle": "x" * 10_000, "large": "x" * 200_000}
    for developer, text in fills.items():
        body = report(developer, date="", x=text)
        assert lake.receiver.send(body, number).status_code == 400
    many = [report("ann"), report("ann", date="today"), {"hostname": "desk"}, 7]
    assert lake.receiver.send(json.dumps(many).encode(), number, path=BULK).status_code == 200

    rows = lake.refused(number, 5)

    assert [(*row[:2], row[4]) for row in rows] == [
        ("", "", "body"),
        ("", "desk", "developer"),
        ("ann", "laptop", "date"),
        ("large", "laptop", "date"),
        ("middle", "laptop", "date"),
    ]
    assert (
        f"refused a report in an upload for connection {number}: {WRONG_DATE}, developer 'ann',"
        " host 'laptop', address 127.0.0.1, and 2 others"
    ) in lake.receiver.log


def test_of_a_sender_without_a_valid_token_there_is_the_address_alone(lake: Lake) -> None:
    number = add_connection(lake.url)
    for token in (None, "wrong"):
        sent = report("stranger", date="")
        assert lake.receiver.send(sent, number, token, user_agent="evil").status_code == 401

    assert lake.refused(number, 2) == [("", "", "127.0.0.1", "", "token", "", 2)]
    assert "stranger" not in lake.receiver.log
    assert f"refused a request for connection {number} with 401, request" in lake.receiver.log


def test_a_connection_with_pseudonyms_records_pseudonyms(lake: Lake) -> None:
    number = add_connection(lake.url)
    query(lake.url, f"UPDATE {CONNECTION_TABLE} SET pseudonyms = 1 WHERE id = {number}")
    hashes = Pseudonyms(SECRET, number)
    ann, laptop = hashes.pseudonymize(DEVELOPER, "annabel"), hashes.pseudonymize(HOST, "laptop")
    refused: list[int] = []

    def knows_the_setting() -> bool:
        refused.append(lake.receiver.send(report("annabel", date=""), number).status_code)
        return f"developer '{ann}', host '{laptop}'" in lake.receiver.log

    assert eventually(knows_the_setting, seconds=15)

    rows = lake.refused(number, len(refused))
    assert (ann, laptop, hashes.pseudonymize(HOST, "127.0.0.1")) in [row[:3] for row in rows]
    # Until the receiver has read the connection again, which these tests have it do at once.
    assert len(rows) <= 2


@pytest.mark.parametrize(
    ("peer", "forwarded", "sender"),
    [
        ("192.0.2.1", b"198.51.100.1", "192.0.2.1"),  # not trusted
        ("10.0.0.1", b"", "10.0.0.1"),
        ("10.0.0.1", b"198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", b"192.0.2.66, 198.51.100.1 , 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", b"10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", b"198.51.100.1, unknown", "10.0.0.1"),
        ("10.0.0.1", b"198.51.100.1:1234", "198.51.100.1"),
        ("10.0.0.1", b"[2001:db8::7]:1234", "2001:db8::7"),
        ("::ffff:10.0.0.1", b"\xff, 2001:db8::7", "2001:db8::7"),
        ("", b"198.51.100.1", ""),
    ],
)
def test_only_trusted_proxies_name_the_sender(peer: str, forwarded: bytes, sender: str) -> None:
    headers = [(b"x-forwarded-for", forwarded)] if forwarded else []
    trusted = [ipaddress.ip_network("10.0.0.0/24")]

    assert find_sender_address(peer, headers, trusted) == sender
