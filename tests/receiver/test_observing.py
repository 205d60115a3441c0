"""Test what an operator sees of a receiver: figures, readiness and log lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from developer_telemetry import __version__
from tests.support.receivers import (
    SECRET,
    TOKEN,
    Receiver,
    ReloadingReceiver,
    add_connection,
    eventually,
    query,
    report,
)
from tests.support.threads import run_simultaneously

TOOL = "_tool_developer_metrics"
BULK = "/plugins/developer-telemetry/{}/reports"

Labels = tuple[tuple[str, str], ...]


class Lake(NamedTuple):
    receiver: Receiver
    url: str

    def figures(self, name: str) -> dict[Labels, float]:
        """The values of one figure, by their labels, in order of name."""
        return {
            tuple(sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.page())
            for sample in family.samples
            if sample.name == name
        }

    def figure(self, name: str) -> float:
        [value] = self.figures(name).values()
        return value

    def page(self) -> str:
        answer = self.receiver.client.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        return answer.text

    def of_connection(self, name: str, connection: int) -> dict[str, float]:
        """The values of a figure for one connection, by its other label."""
        found = {}
        for labels, value in self.figures(name).items():
            values = dict(labels)
            if values.pop("connection") == str(connection):
                [other] = values.values()
                found[other] = value
        return found

    def ready(self) -> tuple[int, str]:
        answer = self.receiver.client.get("/health/ready")
        content = answer.json()
        assert content["success"] is (answer.status_code == 200)
        return answer.status_code, content["message"]

    def lose_database(self) -> None:
        query(self.url, f"ALTER TABLE {TOOL} RENAME TO away")

    def find_database(self) -> None:
        query(self.url, f"ALTER TABLE away RENAME TO {TOOL}")


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    settings = {"TELEMETRY_SPOOL_MAX_MB": "1", "TELEMETRY_LOG_FORMAT": "json"}
    with ReloadingReceiver(url, tmp_path, TELEMETRY_LOG_LEVEL="debug", **settings) as receiver:
        yield Lake(receiver, url)


def test_reports_are_counted_by_connection_and_outcome(lake: Lake) -> None:
    one, other = add_connection(lake.url), add_connection(lake.url)
    refused: list[tuple[Any, dict[str, str]]] = [
        (b"{", {}),
        (b'{"developer": "ann"}', {}),
        (b'{"date": "2026-11-23"}', {}),
        (b" " * 1_100_000, {}),
        (b"{}", {"content_encoding": "br"}),
    ]
    for _ in range(3):
        assert lake.receiver.send(report("ann"), one).status_code == 200
    for body, headers in refused:
        assert lake.receiver.send(body, one, **headers).status_code in (400, 413, 415)
    tokens = [None, "wrong"]
    assert run_simultaneously([partial(lake.receiver.send, b"{}", one, each) for each in tokens])
    many = json.dumps([report("ann"), {}, report("bea"), 1]).encode()
    assert lake.receiver.send(many, other, path=BULK).status_code == 200

    outcomes = partial(lake.of_connection, "telemetry_reports_total")
    reasons = partial(lake.of_connection, "telemetry_refusals_total")
    assert outcomes(one) == {"stored": 3, "refused": 7}
    assert outcomes(other) == {"stored": 2, "refused": 2}
    assert reasons(one) == {
        "body": 1,
        "date": 1,
        "developer": 1,
        "size": 1,
        "encoding": 1,
        "token": 2,
    }
    assert reasons(other) == {"developer": 1, "body": 1}
    statuses = lake.figures("telemetry_request_seconds_count")
    assert statuses[(("status", "200"),)] == 4
    assert statuses[(("status", "401"),)] == 2
    assert lake.figure("telemetry_batch_reports_sum") == 5
    assert lake.figures("telemetry_build_info") == {(("version", __version__),): 1}
    assert lake.figure("telemetry_queue") == 0


def test_strangers_make_no_series(lake: Lake) -> None:
    connection = add_connection(lake.url)
    assert lake.receiver.send(report("ann"), connection).status_code == 200
    paths = [f"/plugins/developer-telemetry/{number}/report" for number in range(100, 120)]
    paths += ["/plugins/developer-telemetry/x%0Ay/report", "/plugins/developer-telemetry/-/reports"]

    answers = run_simultaneously(
        [partial(lake.receiver.send, b"{}", 0, path=path) for path in paths]
    )

    assert {answer.status_code for answer in answers} == {404}
    for name in ("telemetry_reports_total", "telemetry_refusals_total"):
        connections = {dict(labels)["connection"] for labels in lake.figures(name)}
        assert connections <= {str(connection)}
    for method in ("PUT", "BREW"):
        lake.receiver.client.request(method, paths[0])
    statuses = {
        dict(labels)["status"] for labels in lake.figures("telemetry_request_seconds_count")
    }
    assert statuses == {"200", "404"}


def test_an_outage_shows_in_figures_and_readiness(lake: Lake) -> None:
    connection = add_connection(lake.url)
    assert lake.receiver.send(report("ann"), connection).status_code == 200
    assert lake.ready() == (200, "ready")
    assert lake.figure("telemetry_database_up") == 1
    assert lake.figure("telemetry_spool_reports") == 0
    assert lake.figure("telemetry_spool_age_seconds") == 0
    lake.lose_database()

    for _ in range(3):
        assert lake.receiver.send(report("ann"), connection).status_code == 200

    # Reports are kept all the same, so it is ready, and says what is wrong; why is in the log.
    status, message = lake.ready()
    assert status == 200
    assert message.startswith("the database accepts no reports (for the reason see the log")
    assert TOOL not in message
    assert TOOL in lake.receiver.log
    assert "3 reports wait in the spool" in message
    assert lake.of_connection("telemetry_reports_total", connection) == {"stored": 1, "spooled": 3}
    assert lake.figure("telemetry_database_up") == 0
    assert lake.figure("telemetry_spool_reports") == 3
    assert lake.figure("telemetry_spool_bytes") > 0
    assert 0 < lake.figure("telemetry_spool_age_seconds") < 60

    # Until the spool is full: then it can't keep a report, and says so.
    large = report("ann", x="x" * 200_000)
    statuses = [lake.receiver.send(large, connection).status_code for _ in range(8)]
    assert statuses[-1] == 503
    status, message = lake.ready()
    assert status == 503
    assert "the spool is full" in message
    assert lake.of_connection("telemetry_refusals_total", connection) == {
        "unavailable": statuses.count(503)
    }

    def said(start: str) -> bool:
        return any(message.startswith(start) for message in messages(lake))

    assert said("reports go to the spool: ")
    eventually(lambda: said("not ready: "), seconds=10)
    lake.find_database()
    eventually(lambda: lake.ready() == (200, "ready"), seconds=10)
    assert said("the database accepts reports again")
    assert lake.figure("telemetry_database_up") == 1
    assert lake.figure("telemetry_spool_reports") == 0
    assert lake.figure("telemetry_drained_total") == 3 + statuses.count(200)
    assert lake.receiver.send(report("ann"), connection).status_code == 200


def lines(lake: Lake) -> list[dict[str, Any]]:
    """The log's lines, without what the command says to whoever started it."""
    return [json.loads(line) for line in lake.receiver.log.splitlines() if line.startswith("{")]


def messages(lake: Lake) -> list[str]:
    return [line["message"] for line in lines(lake)]


def test_log_lines_are_json_and_a_refusal_is_found_by_its_id(lake: Lake) -> None:
    connection = add_connection(lake.url)

    answers = [
        lake.receiver.send(b"{", connection),
        lake.receiver.send(b" " * 1_100_000, connection),
        *run_simultaneously(
            [partial(lake.receiver.send, b"{}", each, "wrong") for each in (connection, 99)]
        ),
    ]

    by_id = {line["request_id"]: line for line in lines(lake) if "request_id" in line}
    for answer, shown in zip(answers, (connection, connection, connection, 99)):
        line = by_id[answer.headers["x-request-id"]]
        assert f"connection {shown} with {answer.status_code}" in line["message"]
        assert line["level"] == "info"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
    assert len(by_id) == 4
    assert "x-request-id" not in lake.receiver.send(report("ann"), connection).headers


def test_nothing_else_that_a_sender_writes_is_in_the_log(lake: Lake) -> None:
    connection = add_connection(lake.url)
    # Of a refused report with a valid token, the log has the developer and the host.
    body = report("ann", email="xyzzy", metrics={"projects": ["/home/xyzzy/p"]})
    broken = json.dumps(body)[:-1].encode()
    sent = [
        partial(lake.receiver.send, body, connection),
        partial(lake.receiver.send, broken, connection),
        partial(lake.receiver.send, broken, connection, path=BULK),
        partial(lake.receiver.send, report("xyzzy"), connection, "xyzzy"),
        partial(lake.receiver.send, body, connection, content_encoding="xyzzy"),
        partial(lake.receiver.send, body, connection, path="/plugins/xyzzy/{}/report?t=xyzzy"),
        partial(
            lake.receiver.send,
            body,
            0,
            path="/plugins/developer-telemetry/%2Fhome%2Fxyzzy%0AERROR xyzzy/report",
        ),
    ]
    statuses = [answer.status_code for answer in run_simultaneously(sent)]
    lake.lose_database()
    statuses += [lake.receiver.send(body, connection).status_code]
    lake.find_database()
    eventually(lambda: lake.ready() == (200, "ready"), seconds=10)

    assert statuses == [200, 400, 400, 401, 415, 404, 404, 200]
    assert len(lines(lake)) > 5
    for secret in ("xyzzy", TOKEN, SECRET):
        assert secret not in lake.receiver.log
