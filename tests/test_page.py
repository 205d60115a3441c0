"""The page at `/`: what it counts, who may see it, and that it waits for nothing."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Optional

import httpx
import pytest
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from developer_telemetry.connections import Connection
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.receiver.page import charts, figures, queries
from developer_telemetry.receiver.page.access import COOKIE, Access, is_loopback
from developer_telemetry.receiver.page.figures import Figure, Threads, renewed
from developer_telemetry.receiver.page.queries import Choice
from developer_telemetry.receiver.page.setup import PLACEHOLDER, instructions, token_hint
from developer_telemetry.receiver.settings import load
from developer_telemetry.storage import TOOL_TABLE
from tests.fleets import add_days, add_machines, add_refusals
from tests.receivers import (
    SECRET,
    TOKEN,
    Altered,
    Receiver,
    add_connection,
    eventually,
    query,
    report,
)

ADMIN = "an admin token & its 'quotes'"
TODAY = queries.today()
HOSTILE = "<script>alert(1)</script>\"'&\u202egnp.exe"
TOOL_COUNT = "SELECT COUNT(*) FROM _tool_developer_metrics"


class Hasty(Altered):
    """Counts machines and reads figures again at once."""

    constants = {
        "receiver.page.view.KEPT_SECONDS": 0.05,
        "receiver.page.view.ANSWER_SECONDS": 0,
        "receiver.page.figures.PAUSE_FACTOR": 0,
        "receiver.page.view.PATIENCE_SECONDS": 5,
        "receiver.health.ROUND_SECONDS": 0.1,
    }


class Lake:
    """A receiver, its database, and what the page says of it."""

    def __init__(self, receiver: Receiver, url: str) -> None:
        self.receiver = receiver
        self.url = url

    def get(self, path: str = "/", **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.receiver.client.get(path, headers=sent)

    def post(
        self, path: str, form: Optional[dict[str, str]] = None, **headers: str
    ) -> httpx.Response:
        """As a browser posts a form of this page, unless `headers` say otherwise."""
        sent = {"origin": self.receiver.url, "sec-fetch-site": "same-origin"}
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        given = {name: value for name, value in sent.items() if value}
        return self.receiver.client.post(path, data=form or {}, headers=given)

    def mark(self) -> str:
        found = re.search(r'name="mark" value="(\w+)"', self.get().text)
        assert found is not None
        return found[1]

    def sections(self, path: str = "/live") -> dict[str, str]:
        sections: dict[str, str] = self.get(path).json()["sections"]
        return sections


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """The embedded default, as whoever tries it has it."""
    folder = tmp_path_factory.mktemp("page")
    url = f"sqlite:///{folder}/telemetry.db"
    with Hasty(url, folder) as receiver:
        yield Lake(receiver, url)
    assert "Traceback" not in receiver.log


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """One that asks for an admin token."""
    folder = tmp_path_factory.mktemp("guarded")
    url = f"sqlite:///{folder}/telemetry.db"
    with Hasty(url, folder, TELEMETRY_ADMIN_TOKEN=ADMIN) as receiver:
        yield Lake(receiver, url)
    assert "Traceback" not in receiver.log
    assert ADMIN not in receiver.log


# What is counted


def test_machines_are_counted_by_connection_and_age(engine: Engine) -> None:
    ages = [0.1, 23, 25, 71, 100, 169, 27 * 24, 29 * 24]
    add_machines(engine, [("ann", f"host {age}", age) for age in ages])
    add_machines(engine, [("ann", "host", 5000)], connection_id=7)

    with engine.connect() as connection:
        found = queries.fleets(connection)

    assert {each: fleet.ages for each, fleet in found.items()} == {
        1: (2, 2, 1, 2, 1),
        7: (0, 0, 0, 0, 1),
    }
    assert found[1].reports == 7 * len(ages)
    assert found[1].last_seen is not None
    assert 0 < time.time() - found[1].last_seen.timestamp() - 360 < 60


def test_machines_are_listed_by_age_filtered_and_paged(engine: Engine) -> None:
    names = [f"developer {number:02}" for number in range(25)]
    add_machines(engine, [(name, f"host{place}", place * 10) for place, name in enumerate(names)])
    add_machines(engine, [("Ünal_100%", "MAC!", 1000)], connection_id=7)

    def listed(**chosen: Any) -> tuple[int, list[str]]:
        with engine.connect() as connection:
            total, rows = queries.machines(connection, Choice(**chosen))
        return total, [row.developer_id for row in rows]

    assert listed() == (26, names[:20])
    assert listed(page=2) == (26, [*names[20:], "Ünal_100%"])
    assert listed(page=3) == (26, [])
    assert listed(state="heard") == (3, names[:3])
    assert listed(state="quiet") == (9, [*names[17:], "Ünal_100%"])
    assert listed(connection_id=7) == (1, ["Ünal_100%"])
    assert listed(text="DEVELOPER 07") == (1, ["developer 07"])
    assert listed(text="mac!") == (1, ["Ünal_100%"])
    assert listed(text="l_1") == (1, ["Ünal_100%"])
    assert listed(text="0%") == (1, ["Ünal_100%"])
    assert listed(text="%") == (1, ["Ünal_100%"])
    assert listed(text="' OR ''='") == (0, [])


def test_refusals_are_added_up_since_a_day(engine: Engine) -> None:
    day = date(2026, 11, 23)
    earlier = day - timedelta(days=1)
    add_refusals(engine, [(earlier, "token", 4), (day, "token", 2), (day, "body", 1)])
    add_refusals(engine, [(earlier - timedelta(days=1), "date", 100)])
    add_refusals(engine, [(earlier, "date", 3)], connection_id=7)

    with engine.connect() as connection:
        found = queries.refusals(connection, earlier)

    assert [tuple(each) for each in found] == [
        (1, "token", 6, day),
        (7, "date", 3, earlier),
        (1, "body", 1, day),
    ]


def test_hours_and_tools_are_counted_between_two_days(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = date(2026, 11, 23)
    days = [day - timedelta(days=back) for back in range(4)]
    add_days(engine, [("ann", each, 5, ["git", 'a "b" \\ <c>']) for each in days])
    add_days(engine, [("bea", each, 8, ["git"]) for each in days[:2]])
    add_days(engine, [("cem", days[0], 5, [])], connection_id=7)

    with engine.connect() as connection:
        hours = queries.hours(connection, days[2], days[0])
        tools = queries.tools(connection, days[1], days[0])

    assert hours == {days[2]: {5: 1}, days[1]: {5: 1, 8: 1}, days[0]: {5: 2, 8: 1}}
    assert tools == (5, (("git", 4), ('a "b" \\ <c>', 2)))
    monkeypatch.setattr(queries, "TOOL_ROWS", 3)
    with engine.connect() as connection:
        assert queries.tools(connection, days[3], days[0]) == (3, (("git", 2), ('a "b" \\ <c>', 1)))


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_a_statement_that_takes_too_long_is_given_up(
    kind: str, migrated: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "STATEMENT_SECONDS", 1)
    engine = queries.open_reading_engine(migrated(kind))
    slow = "SELECT SLEEP(30)" if kind == "mariadb" else "SELECT pg_sleep(30)"
    started = time.monotonic()

    with pytest.raises(DBAPIError), engine.connect() as connection:
        connection.exec_driver_sql(slow)

    assert time.monotonic() - started < 15
    engine.dispose()


def test_quartiles_are_those_of_the_values_themselves() -> None:
    values = [1, 1, 2, 5, 6, 6, 6, 7, 9, 0]
    week = charts.monday(TODAY)
    hours = {week: {value: values.count(value) for value in values}}
    worked = [value for value in values if value]

    found = charts.spread(hours, week)

    assert found is not None
    quartiles = statistics.quantiles(worked, n=4, method="inclusive")
    assert list(found) == [*quartiles, len(worked)]
    assert charts.spread({week: {0: 3}}, week) is None


def test_bars_are_in_proportion_and_say_what_they_are() -> None:
    days = queries.days_before(date(2026, 11, 23), 10)
    hours = {days[2]: {5: 30, 0: 10}, days[9]: {4: 1}}

    chart = charts.reports_by_day(days, hours)

    assert [bar.said for bar in chart.bars] == [
        "Mon 16 Nov 2026: 40 reports",
        "Mon 23 Nov 2026: 1 report",
    ]
    assert chart.bars[0].height == charts.PLOT
    assert chart.bars[0].top + chart.bars[0].height == chart.floor
    assert [line.text for line in chart.grid] == ["40", "30", "20", "10", "0"]
    assert ("Mon 16 Nov 2026", "40") in chart.rows
    assert len(chart.rows) == 10


@pytest.mark.parametrize(
    ("value", "highest"), [(0, 4), (3, 4), (5, 6), (40, 40), (41, 60), (4321, 6000), (9999, 10000)]
)
def test_an_axis_ends_in_a_round_number(value: float, highest: float) -> None:
    assert charts.nice_maximum(value) == highest


# Who may see it


def test_the_embedded_default_is_open_here(lake: Lake) -> None:
    answer = lake.get()

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert lake.get(host=f"localhost:{lake.receiver.port}").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8090"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "localhost@evil.example"},
        {"x_forwarded_for": "192.0.2.7"},
        {"x_real_ip": "192.0.2.7"},
        {"forwarded": "for=192.0.2.7"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/", "/live"])
def test_it_is_closed_to_other_names_and_behind_a_proxy(
    lake: Lake, path: str, headers: dict[str, str]
) -> None:
    answer = lake.get(path, **headers)

    assert answer.status_code == 403
    assert "machines" not in answer.text.lower().replace("machines send", "")


def test_it_is_closed_beside_devlakes_database(
    tmp_path: Path, migrated: Callable[[str], str]
) -> None:
    with Receiver(migrated("mariadb"), tmp_path) as receiver:
        answer = receiver.client.get("/")
        tried = receiver.client.post("/login", data={"token": ""})

    assert answer.status_code == 403
    assert "TELEMETRY_ADMIN_TOKEN" in answer.text
    assert (tried.status_code, tried.headers["location"]) == (303, "./")


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *[(host, True) for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9")],
        *[(host, False) for host in ("0.0.0.0", "::", "192.0.2.7", "receiver.example")],
    ],
)
def test_only_loopback_addresses_are_here(host: str, here: bool) -> None:
    assert is_loopback(host) is here


def test_a_short_admin_token_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="TELEMETRY_ADMIN_TOKEN is shorter than 16"):
        load({"DB_URL": "mysql://x/y", "ENCRYPTION_SECRET": "s", "TELEMETRY_ADMIN_TOKEN": "short"})


def test_with_an_admin_token_one_signs_in_and_out(guarded: Lake) -> None:
    assert guarded.get().headers["location"] == "login"
    assert guarded.get("/live").status_code == 403
    assert guarded.get("/login").status_code == 200

    wrong = guarded.post("/login", {"token": ADMIN[:-1]})
    assert wrong.status_code == 403
    assert "not the admin token" in wrong.text
    assert "set-cookie" not in wrong.headers

    right = guarded.post("/login", {"token": ADMIN})
    assert (right.status_code, right.headers["location"]) == (303, "./")
    cookie = right.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie
    assert ADMIN not in cookie
    page = guarded.get()
    assert page.status_code == 200
    assert ADMIN not in page.text

    out = guarded.post("/logout", {"mark": guarded.mark()})
    assert out.headers["location"] == "login"
    assert guarded.get().headers["location"] == "login"


def test_behind_https_the_cookie_stays_there(guarded: Lake) -> None:
    given = guarded.post("/login", {"token": ADMIN}, x_forwarded_proto="https")

    assert "; secure" in given.headers["set-cookie"].lower()
    guarded.receiver.client.cookies.clear()


def test_sessions_can_not_be_made_up_nor_outlive_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    access, other = Access(ADMIN, open_here=True), Access(ADMIN + "!", open_here=True)
    session = access.new_session()

    def allows(by: Access, cookie: str) -> bool:
        from starlette.requests import Request

        headers = [(b"cookie", f"{COOKIE}={cookie}".encode()), (b"host", b"localhost")]
        scope = {"type": "http", "headers": headers, "client": ("127.0.0.1", 1)}
        return by.allows(Request(scope))

    assert allows(access, session)
    assert not allows(other, session)
    until, _, mark = session.partition(".")
    for made_up in ("", ".", "x", f"{int(until) + 1}.{mark}", f"{until}.{mark[:-1]}", f"é.{mark}"):
        assert not allows(access, made_up)
    monkeypatch.setattr(time, "time", lambda: int(until) + 1)
    assert not allows(access, session)


# Forms


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
        {"sec_fetch_site": "", "origin": "http://evil.example"},
        {"sec_fetch_site": "", "origin": "null"},
        {"sec_fetch_site": "", "origin": ""},
    ],
    ids=str,
)
def test_a_form_from_elsewhere_is_refused(
    lake: Lake, guarded: Lake, headers: dict[str, str]
) -> None:
    sent = lake.post("/test-report", {"mark": lake.mark(), "connection": "1"}, **headers)
    signing_in = guarded.post("/login", {"token": ADMIN}, **headers)

    assert (sent.status_code, signing_in.status_code) == (403, 403)
    assert "set-cookie" not in signing_in.headers


@pytest.mark.parametrize("mark", ["", "0" * 64, "é"])
def test_a_form_without_its_mark_is_refused(lake: Lake, mark: str) -> None:
    assert lake.post("/test-report", {"mark": mark, "connection": "1"}).status_code == 403
    assert lake.post("/logout", {"mark": mark}).status_code == 403


def test_a_form_that_is_too_long_is_refused(lake: Lake) -> None:
    form = {"mark": lake.mark(), "connection": "1" * 10_000}

    assert lake.post("/test-report", form).status_code == 403


def test_an_older_browser_is_known_by_its_origin(lake: Lake) -> None:
    form = {"mark": lake.mark(), "connection": "1"}

    assert lake.post("/test-report", form, sec_fetch_site="").status_code == 200


def test_a_test_report_gets_through_and_leaves_nothing(lake: Lake) -> None:
    tables = [TOOL_TABLE, "_raw_developer_telemetry", "_tool_developer_telemetry_machines"]
    before = [query(lake.url, f"SELECT COUNT(*) FROM {table}") for table in tables]

    whole = lake.post("/test-report", {"mark": lake.mark(), "connection": "1"})
    part = lake.post("/test-report", {"mark": lake.mark(), "connection": "1"}, x_part="1")

    for answer in (whole, part):
        assert answer.status_code == 200
        assert "A report gets through." in answer.text
    assert whole.text.startswith("<!doctype html>")
    assert part.text.startswith("<p>")
    assert [query(lake.url, f"SELECT COUNT(*) FROM {table}") for table in tables] == before
    assert lake.post("/test-report", {"mark": lake.mark(), "connection": "99"}).status_code == 404


def test_a_test_report_says_what_a_report_would_meet(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    with Hasty(url, tmp_path) as receiver:
        lake = Lake(receiver, url)
        mark = lake.mark()
        query(url, f"ALTER TABLE {TOOL_TABLE} RENAME TO away")

        answer = lake.post("/test-report", {"mark": mark, "connection": "1"})

        assert "A report would not get through." in answer.text
        assert "no such table" in answer.text
        # And the page is still there, and says that its figures are not.
        said = "Some figures are old or missing: the database says: no such table"
        eventually(lambda: said in lake.get().text, seconds=20)
        assert lake.get().status_code == 200


# What it shows


def test_a_first_report_turns_the_instructions_into_figures(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    with Hasty(url, tmp_path) as receiver:
        lake = Lake(receiver, url)
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
    url = f"sqlite:///{tmp_path}/telemetry.db"
    with Hasty(url, tmp_path) as receiver:
        lake = Lake(receiver, url)
        connection = add_connection(url)
        assert receiver.send(report("ann"), connection).status_code == 200
        assert receiver.send(b"{", connection).status_code == 400
        assert receiver.send(b"{}", connection, "wrong").status_code == 401
        eventually(lambda: lake.sections()["refused"].count("<li>") == 2, seconds=20)
        refused = lake.sections()["refused"]
        assert "The body is no JSON object" in refused
        assert "compare it with the hint" in refused

        query(url, f"ALTER TABLE {TOOL_TABLE} RENAME TO away")
        assert receiver.send(report("ann"), connection).status_code == 200
        sections = lake.sections()

        assert "<b>1 report</b> waits on disk" in sections["spool"]
        assert "Reports are kept" in sections["state"]


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


# What an operator copies


def connection_of(token: Optional[str], fault: str = "") -> Connection:
    return Connection(3, "fleet", token, "overwrite", fault=fault)


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("token", [TOKEN, None])
def test_the_command_sends_a_report_of_that_machine(shell: str, token: Optional[str]) -> None:
    script = instructions("http://lake.example:8090", connection_of(token)).curl
    printing = 'curl() { for each in "$@"; do printf "%s\\n" "$each"; done; }\n'

    done = subprocess.run(
        [shell, "-c", printing + script.replace(PLACEHOLDER, "pasted")],
        capture_output=True,
        text=True,
        check=True,
    )

    url, *options = done.stdout.splitlines()
    assert url == "http://lake.example:8090/plugins/developer-telemetry/3/report"
    assert options[:-2] == ([] if token is None else ["-H", "Authorization: Bearer pasted"])
    assert options[-2] == "-d"
    body = json.loads(options[-1])
    assert set(body) == {"developer", "date", "hostname"}
    assert date.fromisoformat(body["date"])


def test_the_collectors_settings_have_no_token() -> None:
    given = json.loads(instructions("https://lake.example", connection_of(TOKEN)).config)

    assert given == {
        "webhook_url": "https://lake.example/plugins/developer-telemetry/3/report",
        "api_key": PLACEHOLDER,
    }


@pytest.mark.parametrize(
    ("connection", "hint"),
    [
        (connection_of(None), "none"),
        (connection_of("x" * 19), "set"),
        (connection_of("x" * 16 + "1234"), "ends in 1234"),
        (connection_of(None, "its secret token can't be decrypted"), "can't be decrypted"),
    ],
)
def test_a_hint_is_the_end_of_a_long_token_alone(connection: Connection, hint: str) -> None:
    assert token_hint(connection) == hint


# That it waits for nothing


def test_figures_that_take_their_time_keep_nobody_waiting() -> None:
    go_on = threading.Event()
    reads: list[int] = []

    def read() -> int:
        reads.append(1)
        assert go_on.wait(60)
        return len(reads)

    async def look() -> None:
        threads = Threads(1, "test")
        figure = Figure(read, 3600, threads)
        await renewed([figure], 0.01)
        await renewed([figure], 0.01)
        assert (figure.value, len(reads)) == (None, 1)
        go_on.set()
        await renewed([figure], 30)
        assert figure.value == 1
        assert figure.renew() is None
        threads.stop()

    asyncio.run(look())


def test_figures_that_took_long_are_not_asked_for_again_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(figures, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def read() -> float:
        now[0] += 0.5
        return now[0]

    async def look() -> None:
        threads = Threads(1, "test")
        figure = Figure(read, 4, threads)
        await renewed([figure], 30)
        seen = {}
        for later in (4.6, 49, 51):
            now[0] = later
            await renewed([figure], 30)
            seen[later] = figure.value
        threads.stop()
        assert seen == {4.6: 0.5, 49: 0.5, 51: 51.5}

    asyncio.run(look())


def test_figures_stay_when_they_can_not_be_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "PAUSE_FACTOR", 0)
    outcomes: list[Any] = [
        "first",
        OperationalError("SELECT secret", {}, Exception("server has gone away")),
        ValueError("a bug"),
        "last",
    ]

    def read() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return str(outcome)

    async def look() -> None:
        threads = Threads(1, "test")
        figure = Figure(read, 0, threads)
        seen = []
        for _ in range(4):
            await renewed([figure], 30)
            seen.append((figure.value, figure.fault))
        threads.stop()
        assert seen == [
            ("first", ""),
            ("first", "the database says: server has gone away"),
            ("first", "the receiver failed to read them; its log says why"),
            ("last", ""),
        ]

    asyncio.run(look())
