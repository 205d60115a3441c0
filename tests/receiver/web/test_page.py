"""Test what the page shows, and what is never on it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from developer_telemetry.constants import TOOL_TABLE
from developer_telemetry.receiver.web import queries
from tests.support.pages import Lake, start_lake
from tests.support.receivers import SECRET, TOKEN, add_connection, eventually, query, report

TODAY = queries.today()
HOSTILE = "<script>alert(1)</script>\"'&\u202egnp.exe"


def test_a_test_report_gets_through_and_leaves_nothing(lake: Lake) -> None:
    tables = [TOOL_TABLE, "_raw_developer_telemetry", "_tool_developer_telemetry_machines"]
    before = [query(lake.url, f"SELECT COUNT(*) FROM {table}") for table in tables]

    whole = lake.post("/test-report", {"csrf_token": lake.csrf_token(), "connection": "1"})
    part = lake.post(
        "/test-report", {"csrf_token": lake.csrf_token(), "connection": "1"}, x_part="1"
    )

    for answer in (whole, part):
        assert answer.status_code == 200
        assert "The receiver would store a report." in answer.text
    assert whole.text.startswith("<!doctype html>")
    assert part.text.startswith("<p>")
    assert [query(lake.url, f"SELECT COUNT(*) FROM {table}") for table in tables] == before
    assert (
        lake.post("/test-report", {"csrf_token": lake.csrf_token(), "connection": "99"}).status_code
        == 404
    )


def test_a_test_report_says_what_a_report_would_meet(tmp_path: Path) -> None:
    with start_lake(tmp_path) as lake:
        url = lake.url
        token = lake.csrf_token()
        query(url, f"ALTER TABLE {TOOL_TABLE} RENAME TO away")

        answer = lake.post("/test-report", {"csrf_token": token, "connection": "1"})

        assert "The receiver would not store a report." in answer.text
        assert "no such table" in answer.text
        # And the page is still there, and says that its figures are not.
        said = "Some figures are old or missing: the database reports: no such table"
        eventually(lambda: said in lake.get().text, seconds=20)
        assert lake.get().status_code == 200


def test_a_first_report_turns_the_instructions_into_figures(tmp_path: Path) -> None:
    with start_lake(tmp_path) as lake:
        url, receiver = lake.url, lake.receiver
        add_connection(url)
        eventually(lambda: "<bdi>connection " in lake.sections()["connections"], seconds=20)
        empty = lake.get()
        assert "No machine has reported yet" in empty.text
        assert 'id="machines"' not in empty.text
        assert f"{receiver.url}/plugins/developer-telemetry/1/report" in empty.text
        assert lake.get("/live").json()["empty"] is True

        metrics = {"active_hours": 5, "tools_used": ["git"]}
        body = report("ann", date=TODAY.isoformat(), hostname=HOSTILE, metrics=metrics)
        assert receiver.send(body, 2).status_code == 200

        eventually(lambda: lake.get("/live").json()["empty"] is False, seconds=20)
        sections = lake.sections()
        assert "1 machine" in sections["overview"]
        assert "&lt;script&gt;" in sections["machines"]
        assert "<script>" not in sections["machines"]
        assert "ann" in sections["machines"]
        assert "1 report</title>" in sections["reports"]
        assert "median 5 h" in sections["hours"]
        assert "git" in sections["tools"]
        assert "100" in sections["tools"]
        assert sections["spool"].count("Empty") == 1
        assert "None in 30 days" in sections["refused"]
        assert "Ready for reports" in sections["state"]
        assert 'id="machines"' in lake.get().text


def test_refusals_and_waiting_reports_are_shown(tmp_path: Path) -> None:
    with start_lake(tmp_path) as lake:
        url, receiver = lake.url, lake.receiver
        connection = add_connection(url)
        assert receiver.send(report("ann"), connection).status_code == 200
        assert receiver.send(b"{", connection).status_code == 400
        assert receiver.send(b"{}", connection, "wrong").status_code == 401
        eventually(lambda: lake.sections()["refused"].count("<li>") == 2, seconds=20)
        refused = lake.sections()["refused"]
        assert "The body is not a JSON object" in refused
        assert "compare it with the hint" in refused

        query(url, f"ALTER TABLE {TOOL_TABLE} RENAME TO away")
        assert receiver.send(report("ann"), connection).status_code == 200
        sections = lake.sections()

        assert "<b>1 report</b> waits on disk" in sections["spool"]
        assert "Ready for reports, with a problem:" in sections["state"]


def test_no_secret_is_on_the_page(lake: Lake) -> None:
    long_token = "0123456789-abcdefghij-WXYZ"
    ids = [add_connection(lake.url, token) for token in (TOKEN, long_token, None)]
    query(
        lake.url,
        "INSERT INTO _tool_developer_telemetry_connections (name, secret_token)"
        " VALUES ('undecipherable', 'bm90IGVuY3J5cHRlZA==')",
    )
    eventually(lambda: "undecipherable" in lake.sections()["connections"], seconds=20)

    pages = [lake.get(f"/?connection={each}").text for each in ids]
    pages += lake.sections().values()

    for secret in (TOKEN, long_token, long_token[:-4], SECRET):
        assert not any(secret in page for page in pages)
    connections = lake.sections()["connections"]
    assert "ends in WXYZ" in connections
    assert "can&#39;t be decrypted" in connections


def test_nothing_is_inline_and_everything_comes_from_here(lake: Lake) -> None:
    answer = lake.get()

    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert re.findall(r"<script(?! src=\"static/)", answer.text) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=", answer.text) == []
    addresses = re.findall(r'(?:src|href|action)="([^"]*)"', answer.text)
    assert len(addresses) > 5
    assert [each for each in addresses if re.match(r"[a-z]+:|/", each)] == []


def test_files_are_kept_by_browsers_and_no_others_are_served(lake: Lake) -> None:
    [style] = re.findall(r'"(static/page.css\?v=\w+)"', lake.get().text)

    given = lake.get(f"/{style}")
    assert given.headers["content-type"] == "text/css; charset=utf-8"
    assert "immutable" in given.headers["cache-control"]
    assert "url(" not in given.text
    assert lake.get("/static/page.css?v=old").headers["cache-control"] == "no-cache"
    for path in ("/static/..%2Faccess.py", "/static/%2e%2e/access.py", "/static/", "/static/x"):
        assert lake.get(path).status_code == 404


@pytest.mark.parametrize(
    "search", ["?page=0", "?page=99999999999999999999", "?connection=-1", "?q=%00%ff", "?state=x"]
)
def test_odd_questions_are_answered(lake: Lake, search: str) -> None:
    for path in ("/", "/live"):
        assert lake.get(path + search).status_code == 200
