"""Test what the page shows, and what is never on it."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from pathlib import Path

import pytest

from developer_telemetry.constants import TOOL_TABLE
from developer_telemetry.database.engine import open_engine
from developer_telemetry.database.migrate import migrate
from developer_telemetry.receiver.web.data import queries
from tests.support.fleets import add_days, add_machines, add_refusals, add_refused_machines
from tests.support.pages import Lake, start_lake
from tests.support.receivers import SECRET, TOKEN, add_connection, eventually, query, report

TODAY = queries.today()
# All pages for a browser that need no machine.
PATHS = (
    *("/", "/live", "/refused", "/days", "/set-up"),
    *("/machines.csv", "/refused.csv", "/days.csv"),
)
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
        assert "median" not in sections["hours"]
        assert "fewer than 5 people" in sections["hours"]
        assert "git" in sections["tools"]
        assert "100" in sections["tools"]
        assert sections["spool"].count("Empty") == 1
        assert "None in 4 weeks" in sections["refused"]
        assert "Every machine in use has reported" in sections["attention"]
        assert "Ready for reports" in sections["state"]
        page = lake.get().text
        assert 'id="machines"' in page
        assert 'id="set-up"' not in page
        assert (
            f"{receiver.url}/plugins/developer-telemetry/2/report"
            in lake.get("/set-up?connection=2").text
        )
        # The hours of five people are shown.
        for developer in ("bea", "cem", "dan", "eve"):
            assert receiver.send({**body, "developer": developer}, 2).status_code == 200
        eventually(lambda: "median 5 h" in lake.sections()["hours"], seconds=20)


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
        assert "Body is not a JSON object" in refused
        assert "2 reports refused" in lake.sections()["attention"] or (
            "machine refused" in lake.sections()["attention"]
        )

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

    pages = [lake.get(f"/set-up?connection={each}").text for each in ids]
    pages += [lake.get(path).text for path in PATHS]
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
    "search",
    [
        "?page=0",
        "?page=99999999999999999999",
        "?connection=-1",
        "?q=%00%ff%ed%a0%80",
        "?state=x",
        "?state=outdated&sort=-collector",
        "?sort=1%3BDROP&from=x&to=9999-12-31",
        "?tool=%00&reason='&from=0001-01-01&to=0001-01-01",
    ],
)
def test_odd_questions_are_answered(lake: Lake, search: str) -> None:
    for path in PATHS:
        assert lake.get(path + search).status_code == 200
    assert lake.get("/machine" + search).status_code == 404
    assert lake.get("/machine?connection=1&developer=%ff&host=%00").status_code == 404


def test_a_machine_has_a_page_and_is_retired_there(tmp_path: Path) -> None:
    with start_lake(tmp_path) as lake:
        receiver = lake.receiver
        connection = add_connection(lake.url)
        body = report("ann", date=TODAY.isoformat(), hostname=HOSTILE)
        for host in (HOSTILE, HOSTILE, "other"):
            assert receiver.send({**body, "hostname": host}, connection).status_code == 200
        # Machines may be counted between two of the reports.
        eventually(lambda: "host=other" in lake.sections().get("machines", ""), seconds=20)
        addresses = re.findall(r'href="(machine\?[^"]+)"', lake.sections()["machines"])
        [address] = [html.unescape(each) for each in addresses if "script" in each]

        page = lake.get(f"/{address}").text
        assert "<script>alert" not in page
        assert "2 reports</title>" in page
        assert 'host=other"' in page
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page))
        form = {name: html.unescape(value) for name, value in fields.items()}
        assert form["action"] == "retire"

        refused = lake.post("/machine", {**form, "csrf_token": "0" * 64})
        assert refused.status_code == 403
        retired = lake.post("/machine", form)
        assert (retired.status_code, retired.headers["location"]) == (303, address)
        assert "<b>Retired</b>" in lake.get(f"/{address}").text
        eventually(lambda: "1 retired" in lake.sections()["overview"], seconds=20)
        # The sections are read at different times.
        eventually(lambda: "script" not in lake.sections()["machines"], seconds=20)
        assert "alert(1)" in lake.get("/machines.csv?state=retired").text
        restored = lake.post("/machine", {**form, "action": "restore"})
        assert restored.status_code == 303
        assert "<b>Retired</b>" not in lake.get(f"/{address}").text
        # Without a host, an address leads to the developer's newest machine.
        assert lake.get(f"/machine?connection={connection}&developer=ann").status_code == 200


def test_each_figure_leads_to_its_rows(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/telemetry.db")
    migrate(engine)
    add_machines(engine, [("ann", "mac", 1), ("bea", "pc", 200)], user_agent="collector/2")
    add_machines(engine, [("cem", "old", 2)], user_agent="collector/1")
    days = [TODAY - timedelta(days=number) for number in range(1, 15)]
    add_days(engine, [("ann", day, 6, ["git"]) for day in days])
    add_refusals(engine, [(TODAY, "date", 3)])
    add_refused_machines(engine, [("ann", "mac", "date", 2, 3)])
    engine.dispose()
    with start_lake(tmp_path) as lake:
        sections = lake.sections()

        def rows(section: str, text: str) -> str:
            """Return the page behind the link of a section that contains a text."""
            links = re.findall(r'<a\s[^>]*?href="([^"]+)"[^>]*>(.*?)</a>', sections[section], re.S)
            [address] = {link for link, content in links if text in content}
            page = lake.get("/" + html.unescape(address).removeprefix("./"))
            assert page.status_code == 200
            return page.text

        assert "1 machine quiet for 7 days" in sections["attention"]
        assert "1 machine with an old collector" in sections["attention"]
        assert "1 machine refused" in sections["attention"]
        assert "as many as the week before" in sections["work"]
        assert "1 to 7 of 7" not in rows("work", "7")
        assert rows("work", "7").count('developer=ann"') == 7
        assert rows("tools", "git").count('developer=ann"') == 14
        assert rows("refused", "3").count("the date of ann") == 1
        day = f"{days[0]:%a} {days[0].day} {days[0]:%b %Y}"
        assert rows("reports", day).count('developer=ann"') == 1
        for state, host in (("quiet", "pc"), ("outdated", "old"), ("day", "mac")):
            listed = lake.sections(f"/live?state={state}")["machines"]
            assert f"host={host}" in listed
            assert f"{host}," in lake.get(f"/machines.csv?state={state}").text
            assert f"state={state}#machines-title" in "".join(sections.values())
