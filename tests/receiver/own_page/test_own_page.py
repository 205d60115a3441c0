"""Test what a person's own page shows, and to whom."""

from __future__ import annotations

import csv
import io
import json

import pytest

from developer_telemetry.constants import CONNECTION_TABLE, RAW_TABLE
from developer_telemetry.privacy.personal_links import (
    PersonalLinks,
    PersonalView,
    page_path,
)
from tests.support.own_pages import ME, OwnPages
from tests.support.receivers import SECRET, add_connection, eventually, query, report

ANN = {"active_hours": 6, "tools_used": ["git", "vim"], "projects": ["web-shop"]}


def test_the_page_shows_every_day_and_body_of_its_developer_alone(pages: OwnPages) -> None:
    connection, other = add_connection(pages.url), add_connection(pages.url)
    send = pages.receiver.send
    for day in ("2026-11-23", "2026-11-24"):
        body = report("ann", date=day, metrics=ANN)
        assert send(body, connection).status_code == 200
    assert send(report("ann", date="2026-11-24", metrics=ANN), connection).status_code == 200
    # The same name in another connection, and another developer in the same.
    assert send(report("ann", date="2026-11-20"), other).status_code == 200
    assert send(report("bob", metrics={"projects": ["secret-plan"]}), connection).status_code == 200

    browser = pages.open(pages.make_path("ann", connection))
    page, one_day = browser.get(), browser.get("day?date=2026-11-24")
    everything = browser.get("data.json").json()
    days = list(csv.DictReader(io.StringIO(browser.get("days.csv").text)))

    assert page.status_code == one_day.status_code == 200
    assert "2026-11-23" in page.text
    assert "2026-11-24" in page.text
    assert "2026-11-20" not in page.text
    assert "web-shop" in page.text
    assert one_day.text.count("&#34;developer&#34;") == 2
    assert [row["date"] for row in everything["days"]] == ["2026-11-24", "2026-11-23"]
    assert len(everything["reports"]) == 3
    assert json.loads(everything["reports"][-1]["body"])["metrics"] == ANN
    assert {row["developer_id"] for row in everything["machines"]} <= {"ann"}
    assert [(row["date"], row["active_hours"]) for row in days] == [
        ("2026-11-24", "6"),
        ("2026-11-23", "6"),
    ]
    texts = page.text + one_day.text + json.dumps(everything)
    assert "bob" not in texts
    assert "secret-plan" not in texts
    assert "privacy@example.com" in page.text
    assert "privacy@example.com" in pages.open(f"{ME}open?link=none").opened.text


def test_looks_are_recorded_and_shown(pages: OwnPages) -> None:
    connection = add_connection(pages.url)
    assert pages.receiver.send(report("ann"), connection).status_code == 200

    browser = pages.open(pages.make_path("ann", connection))
    browser.get()
    browser.get()
    browser.get("data.json")
    page = browser.get()

    looks = [(look.who, look.how, look.what) for look in pages.looks("ann", connection)]
    assert sorted(looks) == [
        ("a link that op made", "me", "download as JSON"),
        ("a link that op made", "me", "own page"),
    ]
    assert "a link that op made" in page.text
    assert pages.looks("bob", connection) == []


def test_links_of_others_old_ones_and_changed_ones_are_refused(pages: OwnPages) -> None:
    connection = add_connection(pages.url)
    assert pages.receiver.send(report("ann"), connection).status_code == 200
    path = pages.make_path("ann", connection)
    view = PersonalView(connection, "ann", 2_000_000_000_0)
    content, _, signature = path.rpartition("=")[2].partition(".")
    of_bob, _, _ = pages.make_path("bob", connection).rpartition("=")[2].partition(".")
    refused = {
        "with another developer": f"{ME}open?link={of_bob}.{signature}",
        "changed": f"{ME}open?link={content}.{signature[:-2]}AA",
        "of another secret": page_path(PersonalLinks("another secret").make_link(view)),
        "without a signature": f"{ME}open?link={content}",
        "empty": f"{ME}open",
        "no link": f"{ME}open?link=%00.%FF",
    }
    for kind, address in refused.items():
        opened = pages.open(address).opened
        assert opened.status_code == 403, kind
        assert "This link can't be used" in opened.text, kind
        assert "set-cookie" not in opened.headers, kind
    old = pages.open(pages.make_path("ann", connection, seconds=-1)).opened
    assert old.status_code == 403
    assert "This link is too old" in old.text

    # A link's token is no session's cookie, and without a cookie there is no page.
    token = path.rpartition("=")[2]
    for headers in ({}, {"cookie": f"telemetry_own_page={token}"}):
        for name in ("", "day?date=2026-11-23", "data.json", "days.csv"):
            answer = pages.receiver.client.get(ME + name, headers=headers)
            assert answer.status_code == 403
            assert "2026-11-23" not in answer.text
    assert pages.looks("ann", connection) == []


def test_a_link_leaves_no_trace_in_a_log_or_in_an_address_of_the_page(pages: OwnPages) -> None:
    connection = add_connection(pages.url)
    assert pages.receiver.send(report("ann"), connection).status_code == 200
    path = pages.make_path("ann", connection)
    token = path.rpartition("=")[2]

    browser = pages.open(path)
    page = browser.get()

    cookie = browser.opened.headers["set-cookie"].lower()
    assert browser.opened.status_code == 303
    assert browser.opened.headers["location"] == "./"
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=" not in cookie
    assert "max-age=3600" in cookie
    assert "secure" not in cookie
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert token not in page.text
    assert token not in pages.receiver.log
    behind_tls = pages.receiver.client.get(path, headers={"x-forwarded-proto": "https"})
    assert "secure" in behind_tls.headers["set-cookie"].lower()


def test_a_pseudonym_shows_what_is_stored_under_it(pages: OwnPages) -> None:
    connection = add_connection(pages.url)
    query(
        pages.url,
        f"UPDATE {CONNECTION_TABLE} SET pseudonyms = {_true(pages)} WHERE id = {connection}",
    )
    stored = f"SELECT DISTINCT developer_id FROM {RAW_TABLE} WHERE connection_id = {connection}"
    body = report("ann", email="ann@example.com", metrics=ANN)

    def is_hashed() -> bool:
        assert pages.receiver.send(body, connection).status_code == 200
        return any(row[0].startswith("dev-") for row in query(pages.url, stored))

    eventually(is_hashed, seconds=20)
    [(pseudonym,)] = query(pages.url, f"{stored} AND developer_id <> 'ann'")

    page = pages.open(pages.make_path(pseudonym, connection)).get()

    assert pseudonym in page.text
    assert "web-shop" in page.text
    assert "This connection stores pseudonyms" in page.text
    assert "ann@example.com" not in page.text


def _true(pages: OwnPages) -> str:
    return "true" if "postgres" in pages.url else "1"


@pytest.mark.parametrize("path", ["/me", "/plugins/developer-telemetry/me", f"/api{ME[:-1]}"])
def test_each_address_of_the_page_has_its_styles(pages: OwnPages, path: str) -> None:
    client = pages.receiver.client

    assert client.get(path).headers["location"] == "me/"
    assert client.get(f"{path}/").status_code == 403
    assert client.get(f"{path}/static/page.css").status_code == 200


def test_the_page_is_for_any_secret_that_the_receiver_has() -> None:
    token = PersonalLinks(SECRET).make_link(PersonalView(1, "ann \u20ac", 4_000_000_000))

    assert PersonalLinks(f" {SECRET}\n").open_link(token)
