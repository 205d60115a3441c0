"""Test that looks by the page of operators are recorded, with the user who looked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from developer_telemetry.constants import ACCESS_TABLE
from tests.support.pages import Lake, start_lake
from tests.support.receivers import TOKEN, add_connection, eventually, query, report

ADMIN = "an admin token of the test"
LOCAL = "a user of the receiver's machine"


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with start_lake(tmp_path, TELEMETRY_TRUSTED_PROXIES="127.0.0.1") as lake:
        add_people(lake)
        yield lake


def add_people(lake: Lake) -> None:
    connection = add_connection(lake.url)
    for developer in ("ann", "bob"):
        assert lake.receiver.send(report(developer), connection, TOKEN).status_code == 200
    machines = "SELECT COUNT(*) FROM _tool_developer_telemetry_machines"
    eventually(lambda: query(lake.url, machines) == [(2,)], seconds=20)


def recorded(lake: Lake) -> list[tuple[str, str, str, str]]:
    rows = query(lake.url, f"SELECT developer_id, who, how, what FROM {ACCESS_TABLE} ORDER BY id")
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def test_the_page_of_a_machine_and_files_are_looks_and_lists_are_none(lake: Lake) -> None:
    for path in ("/", "/live", "/days", "/refused", "/set-up", "/?q=ann"):
        assert lake.get(path).status_code == 200
    assert lake.get("/machine?connection=2&developer=nobody&host=x").status_code == 404
    assert recorded(lake) == []

    machine = "/machine?connection=2&developer=ann&host=laptop"
    assert lake.get(machine).status_code == 200
    assert lake.get(machine).status_code == 200
    assert lake.get("/machines.csv?q=bob").status_code == 200
    assert lake.get("/days.csv?from=2026-11-23&to=2026-11-23").status_code == 200

    assert recorded(lake) == [
        ("ann", LOCAL, "page", "page of a machine, with its reports by day"),
        ("bob", LOCAL, "page", "list of machines as CSV"),
        ("ann", LOCAL, "page", "list of days of work as CSV"),
        ("bob", LOCAL, "page", "list of days of work as CSV"),
    ]


def test_a_look_that_cant_be_recorded_shows_nothing(lake: Lake) -> None:
    query(lake.url, f"ALTER TABLE {ACCESS_TABLE} RENAME TO away")

    for path in ("/machine?connection=2&developer=ann&host=laptop", "/machines.csv"):
        answer = lake.get(path)
        assert answer.status_code == 503
        assert "no such table" in answer.text
        assert "laptop" not in answer.text


def test_the_user_of_a_sign_on_is_named_if_its_proxy_is_trusted(tmp_path: Path) -> None:
    for trusted, user in (("127.0.0.0/8", "ann.lee@example.com"), ("192.0.2.1", "")):
        folder = tmp_path / trusted.partition("/")[0]
        folder.mkdir()
        settings = {"TELEMETRY_ADMIN_TOKEN": ADMIN, "TELEMETRY_TRUSTED_PROXIES": trusted}
        with start_lake(folder, **settings) as lake:
            add_people(lake)
            assert lake.post("/login", {"token": ADMIN}).status_code == 303
            lake.get("/machines.csv?q=ann", x_forwarded_user="ann.lee@example.com")
            lake.get("/machines.csv?q=bob")
            seen = recorded(lake)

        holder = "a holder of the admin token"
        assert [(row[0], row[1]) for row in seen] == [("ann", user or holder), ("bob", holder)]
