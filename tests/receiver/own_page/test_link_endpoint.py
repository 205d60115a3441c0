"""Test the links that collectors get: a machine sees what it has sent, whatever it claims."""

from __future__ import annotations

from typing import Any

import pytest

from developer_telemetry.constants import CONNECTION_TABLE, RAW_TABLE, TOOL_TABLE
from developer_telemetry.database.engine import open_engine
from developer_telemetry.privacy.access_log import PAGE, Look, record_look
from developer_telemetry.privacy.personal_links import make_page_key
from tests.support.own_pages import Browser, Machine, OwnPages
from tests.support.receivers import TOKEN, add_connection, eventually, query, report

SECRET_PLAN: dict[str, Any] = {"active_hours": 7, "projects": ["secret-plan"]}
OWN: dict[str, Any] = {"active_hours": 1, "projects": ["own-work"]}


@pytest.fixture
def connection(pages: OwnPages) -> int:
    return add_connection(pages.url)


def see(pages: OwnPages, machine: Machine, developer: str = "ann") -> tuple[Browser, str]:
    """Return the machine's browser, and all that it can see on any address of the page."""
    answer = machine.ask(developer)
    assert answer.status_code == 200, answer.text
    browser = pages.open(answer.json()["path"])
    names = ("", "data.json", "days.csv")
    days = [f"day?date=2026-11-{day}" for day in range(20, 29)]
    return browser, "".join(browser.get(name).text for name in (*names, *days))


def look_at(pages: OwnPages, connection: int) -> None:
    engine = open_engine(pages.url)
    record_look(engine, [(connection, "ann")], Look("the-watcher", PAGE, "machine"))
    engine.dispose()


def test_a_machine_gets_a_link_to_what_it_has_sent(pages: OwnPages, connection: int) -> None:
    machine = Machine(pages.receiver, connection, "ann")
    machine.send("2026-11-23", **OWN)
    machine.send("2026-11-24", **OWN)
    look_at(pages, connection)

    browser, seen = see(pages, machine)

    assert seen.count("2026-11-24") > 1
    assert "own-work" in seen
    assert "the-watcher" in seen
    assert "It leaves out" not in seen
    assert pages.looks("ann", connection)[0].who == "yourself"
    assert len(browser.get("data.json").json()["reports"]) == 2
    assert machine.secret not in pages.receiver.log + seen
    assert set(browser.get("data.json").json()) == {
        *("connection", "developer", "settings", "is_limited_to_this_machine"),
        *("looks", "days", "reports"),
    }


def test_nobody_else_gets_one(pages: OwnPages, connection: int) -> None:
    other = add_connection(pages.url, "another-token-of-a-fleet")
    ann, mallory = (Machine(pages.receiver, connection, name) for name in ("ann", "mallory"))
    ann.send("2026-11-23", **OWN)
    mallory.send("2026-11-23", **OWN)

    assert mallory.ask("ann").status_code == 404
    assert ann.ask("mallory").status_code == 404
    assert ann.ask("nobody").status_code == 404
    assert ann.ask(token="wrong").status_code == 401
    path = f"/plugins/developer-telemetry/{other}/me-link"
    fields = {"developer": "ann", "page_secret": ann.secret}
    headers = {"authorization": "Bearer another-token-of-a-fleet"}
    client = pages.receiver.client
    assert client.post(path, json=fields, headers=headers).status_code == 404
    # The key is in reports; the secret is not.
    key = "".join(map(str, make_page_key(ann.secret)))
    stolen = {"developer": "ann", "page_secret": key}
    path = f"/api/plugins/developer-telemetry/{connection}/me-link"
    headers = {"authorization": f"Bearer {TOKEN}"}
    assert client.post(path, json=stolen, headers=headers).status_code == 404
    refused = client.get(path)
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    bodies = (b"{", b"[]", b"{}", b"x" * 5000, b'{"developer": "ann", "page_secret": "short"}')
    for body in (*bodies, b'{"page_secret": "%s"}' % ann.secret.encode()):
        assert client.post(path, content=body, headers=headers).status_code == 400


def test_a_machine_that_claims_to_be_another_sees_its_own_reports_alone(
    pages: OwnPages, connection: int
) -> None:
    ann, mallory = (Machine(pages.receiver, connection, name) for name in ("ann", "mallory"))
    old_collector = report("ann", date="2026-11-22", metrics=SECRET_PLAN)
    assert pages.receiver.send(old_collector, connection).status_code == 200
    ann.send("2026-11-23", **SECRET_PLAN)
    ann.send("2026-11-24", **SECRET_PLAN)
    look_at(pages, connection)

    # In the name of the other developer, for a day with reports and for a day without.
    mallory.send("2026-11-24", "ann", **OWN)
    mallory.send("2026-11-25", "ann", **OWN)
    _, seen = see(pages, mallory)

    assert "own-work" in seen
    assert "secret-plan" not in seen
    assert "2026-11-22" not in seen.partition('"days"')[0].partition("<h2 id")[0]
    assert "the-watcher" not in seen
    assert "It leaves out 3 days" in seen


@pytest.mark.parametrize("strategy", ["overwrite", "sum"])
def test_rows_of_pruned_reports_stay_hidden_whatever_is_sent_for_their_days(
    pages: OwnPages, strategy: str
) -> None:
    connection = add_connection(pages.url, strategy=strategy)
    ann, mallory = (Machine(pages.receiver, connection, name) for name in ("ann", "mallory"))
    for day in ("2026-11-21", "2026-11-22", "2026-11-23"):
        ann.send(day, **SECRET_PLAN)
    query(
        pages.url,
        f"DELETE FROM {RAW_TABLE} WHERE connection_id = {connection} AND date <= '2026-11-22'",
    )
    query(
        pages.url,
        "INSERT INTO _tool_developer_telemetry_horizons (connection_id, raw_before)"
        f" VALUES ({connection}, '2026-11-23')",
    )

    mallory.send("2026-11-22", "ann", **OWN)
    _, seen = see(pages, mallory)
    _, own = see(pages, ann)

    assert "own-work" in seen
    assert "secret-plan" not in seen
    assert "secret-plan" in own
    [(hours,)] = query(
        pages.url,
        f"SELECT active_hours FROM {TOOL_TABLE} WHERE connection_id = {connection}"
        " AND date = '2026-11-21'",
    )
    assert hours == 7


def test_a_second_machine_of_a_developer_sees_its_bodies_but_no_sum(pages: OwnPages) -> None:
    connection = add_connection(pages.url, strategy="sum")
    laptop = Machine(pages.receiver, connection, "ann", "laptop")
    desktop = Machine(pages.receiver, connection, "ann", "desktop")
    laptop.send("2026-11-23", **SECRET_PLAN)
    desktop.send("2026-11-23", **OWN)

    _, seen = see(pages, desktop)

    assert "own-work" in seen
    assert "secret-plan" not in seen
    assert "not shown for this link" in seen


def test_pseudonyms_and_paths_leave_the_key_in_a_report(pages: OwnPages, connection: int) -> None:
    is_true = "true" if "postgres" in pages.url else "1"
    query(
        pages.url,
        f"UPDATE {CONNECTION_TABLE} SET pseudonyms = {is_true}, strip_paths = {is_true}"
        f" WHERE id = {connection}",
    )
    # A developer whose id is a number, which a key made of text could contain.
    machine = Machine(pages.receiver, connection, "1000000")

    def is_hashed() -> bool:
        machine.send("2026-11-23", **OWN)
        rows = f"SELECT developer_id FROM {RAW_TABLE} WHERE connection_id = {connection}"
        return any(row[0].startswith("dev-") for row in query(pages.url, rows))

    eventually(is_hashed, seconds=20)

    _, seen = see(pages, machine, "1000000")

    assert "own-work" in seen
    assert "dev-" in seen
