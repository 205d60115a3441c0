"""The nginx location on a real nginx, set up as DevLake's front proxy is, with a real receiver.

tests/support/nginx_addresses.txt is the list of addresses and where each went.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from developer_telemetry.connections.report_url import BULK_PATH, REPORT_PATHS
from developer_telemetry.database.migrate import migrate
from developer_telemetry.privacy.personal_links import PersonalLinks, PersonalView, page_path
from tests.support.nginx import INDEX, NAME, Echo, Names, Nginx, server_conf
from tests.support.receivers import (
    SECRET,
    TOKEN,
    Receiver,
    add_connection,
    eventually,
    query,
    report,
)
from tests.support.servers import HOST, ServerMissing, free_port
from tests.support.sites import closing_engine, missing

ADDRESSES = Path(__file__).parents[1] / "support" / "nginx_addresses.txt"
ANOTHER_HOST = "127.0.0.2"
MEBIBYTE = 1 << 20
REPORT = "/api/plugins/developer-telemetry/1/report"
BULK = "/api/plugins/developer-telemetry/1/reports"
NEIGHBOUR = "/api/plugins/developer_telemetry/connections/1"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}

# Each is asked for with POST unless it says otherwise, and as it is written: not tidied up first.
ASKED = """\
/api/plugins/developer-telemetry/1/report
/api/plugins/developer-telemetry/1/report?source=cron
/api/plugins/developer-telemetry/12345/reports
/api/plugins/developer_telemetry/connections/1/report
/api/rest/plugins/developer_telemetry/connections/1/report
/api//plugins/developer-telemetry/1/report
GET /api/plugins/developer-telemetry/1/report
OPTIONS /api/plugins/developer-telemetry/1/report
GET /api/plugins/developer-telemetry/collector.pyz
GET /api/plugins/developer-telemetry/collectorxpyz
/api/plugins/developer-telemetry/1/report/
/api/plugins/developer-telemetry/1/reporting
/api/plugins/developer-telemetry/one/report
/api/plugins/developer-telemetry/-1/report
/api/plugins/developer-telemetry/1/me-link
GET /api/plugins/developer-telemetry/me
GET /api/plugins/developer-telemetry/me/
GET /api/plugins/developer-telemetry/me/open?link=a.b
GET /api/plugins/developer-telemetry/me/day?date=2026-11-23
GET /api/plugins/developer-telemetry/me/data.json
GET /api/plugins/developer-telemetry/me/days.csv
GET /api/plugins/developer-telemetry/me/static/page.css?v=1
GET /api/plugins/developer-telemetry/me/other
GET /api/plugins/developer-telemetry/menu
/api/plugins/developer_telemetry/connections/1/reports
/api/plugins/developer_telemetry/connections/1/report/deep
/api/rest/plugins/developer-telemetry/1/report
/api/plugins/developer_telemetry/connections
GET /api/plugins/developer_telemetry/connections
GET /api/plugins/developer_telemetry/connections/1
PATCH /api/plugins/developer_telemetry/connections/1
DELETE /api/plugins/developer_telemetry/connections/1
PUT /api/plugins/developer_telemetry/connections/1/scopes
GET /api/plugins/developer_telemetry/connections/1/scopes/all
/api/plugins/developer_telemetry/connections/1/test
/api/plugins/developer_telemetry/test
/api/plugins/webhook/1/report
/api/plugins/webhook/connections/1/deployments
/api/rest/plugins/webhook/connections/1/deployments
/api/rest/projects
GET /api/projects/team%2Fone/check?name=plugins/developer-telemetry/1/report
GET /api/proceed-db-migration
GET /api/ping
/plugins/developer-telemetry/1/report
GET /plugins/developer-telemetry/1/report
GET /
GET /projects/team/developer_telemetry-1
GET /health
"""


class Site(NamedTuple):
    """DevLake's front proxy; whoever is to be the receiver comes to `port`."""

    proxy: Nginx
    names: Names
    port: int

    def post(self, path: str = REPORT, **sent: Any) -> httpx.Response:
        return self.proxy.client.post(path, **sent)

    def status(self, path: str = REPORT) -> int:
        return self.post(path, json=report("ann"), headers=HEADERS).status_code

    def by(self, path: str = REPORT) -> str:
        """Return who answers there, "" for nobody."""
        sent = self.post(path)
        return str(sent.json()["by"]) if sent.status_code == 200 else ""

    def neighbours_work(self) -> bool:
        return self.by(NEIGHBOUR) == "DevLake" and self.proxy.client.get("/").text == INDEX


@contextmanager
def front_proxy(folder: Path, port: int, before: str = "") -> Iterator[Site]:
    """The proxy as compose.override.yml sets it up, with `before` in SERVER_CONF already."""
    with Names({}) as names, Echo("DevLake") as devlake:
        try:
            proxy = Nginx(devlake.port, server_conf(folder, before, names.port, port))
        except ServerMissing as error:
            missing(str(error))
        with proxy:
            yield Site(proxy, names, port)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with front_proxy(tmp_path, free_port()) as site:
        yield site


class Place(NamedTuple):
    """A receiver that is not started yet, with connection 1 in its database."""

    receiver: Receiver
    url: str

    def rows(self) -> list[tuple[Any, ...]]:
        return query(self.url, "SELECT developer_id FROM _raw_developer_telemetry ORDER BY id")


def place(folder: Path) -> Place:
    url = f"sqlite:///{folder}/telemetry.db"
    with closing_engine(url) as engine:
        migrate(engine)
    assert add_connection(url) == 1
    return Place(Receiver(url, folder), url)


class Serving(NamedTuple):
    """The proxy with the real receiver behind it, for tests that stop neither."""

    site: Site
    place: Place


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("serving")
    here = place(folder)
    with here.receiver, front_proxy(folder, here.receiver.port) as site:
        site.names.addresses[NAME] = HOST
        yield Serving(site, here)


def where(proxy: Nginx, line: str) -> str:
    """Return who answered: one line of the list."""
    asked, _, path = line.rpartition(" ")
    method = asked or "POST"
    sent = proxy.client.request(method, path)
    if sent.text == INDEX:
        went = "the web UI's pages"
    elif sent.headers.get("Content-Type", "").startswith("text/") or not sent.content:
        went = f"nginx itself, {sent.status_code}"
    else:
        seen = sent.json()
        assert seen["method"] == method
        went = f"{seen['by']}, {seen['path']}"
    return f"{method} {path} -> {went}\n"


def test_every_address_goes_where_the_list_says(site: Site) -> None:
    site.names.addresses[NAME] = HOST
    with Echo("receiver", port=site.port):
        found = "".join(where(site.proxy, line) for line in ASKED.splitlines())
        print(found)
        assert found == ADDRESSES.read_text()
        # These are the addresses that collectors and importers are given.
        for path in (*REPORT_PATHS, BULK_PATH):
            assert site.by("/api" + path.format(connection_id=7)) == "receiver"


def test_what_the_machine_sent_reaches_the_receiver_as_it_was(site: Site) -> None:
    site.names.addresses[NAME] = HOST
    body = gzip.compress(json.dumps(report("ann")).encode())
    sent = {
        **HEADERS,
        "Host": "devlake.example.com",
        "Content-Encoding": "gzip",
        "Content-Type": "text/plain",
        "User-Agent": "DevLake-Telemetry-Collector/1.0",
        "X-Telemetry-Proof": "1 2 3",
    }
    with Echo("receiver", port=site.port):
        seen = site.post(content=body, headers=sent).json()
        upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c"}
        unchanged = site.post(content=body, headers=upgrade).json()
        behind_tls = site.post(headers={"X-Forwarded-Proto": "https"}).json()
    assert seen["body"] == body.hex()
    assert {name: seen["headers"][name.lower()] for name in sent} == sent
    added = {name: value for name, value in seen["headers"].items() if name.startswith("x-")}
    assert added == {
        "x-telemetry-proof": "1 2 3",
        "x-real-ip": HOST,
        "x-forwarded-for": HOST,
        "x-forwarded-proto": "http",
    }
    assert "upgrade" not in unchanged["headers"]
    assert "upgrade" not in unchanged["headers"].get("connection", "").lower()
    assert unchanged["body"] == body.hex()
    assert behind_tls["headers"]["x-forwarded-proto"] == "https"


def test_a_receiver_away_costs_its_own_addresses_alone_until_it_is_back(tmp_path: Path) -> None:
    here = place(tmp_path)
    with front_proxy(tmp_path, here.receiver.port) as site:
        assert site.status() == 502  # its name does not exist yet
        assert site.neighbours_work()
        site.names.addresses[NAME] = HOST
        assert site.status() == 502  # nobody listens there
        assert site.neighbours_work()
        with here.receiver:
            eventually(lambda: site.status() == 200, 20)
            assert here.rows() == [("ann",)]
        assert site.status() == 502
        assert site.neighbours_work()
        with here.receiver:
            assert site.status() == 200


def test_a_receiver_that_moves_is_found_at_its_new_address(site: Site) -> None:
    site.names.addresses[NAME] = HOST
    with Echo("the old one", port=site.port), Echo("the new one", ANOTHER_HOST, site.port):
        assert site.by() == "the old one"
        site.names.addresses[NAME] = ANOTHER_HOST
        eventually(lambda: site.by() == "the new one", 20)


def test_reports_are_stored_and_refused_in_the_receivers_own_words(serving: Serving) -> None:
    site = serving.site
    paths = ["/api" + path.format(connection_id=1) for path in REPORT_PATHS]
    stored = [site.post(path, json=report("bob"), headers=HEADERS) for path in paths]
    zipped = {**HEADERS, "Content-Encoding": "gzip"}
    many = gzip.compress(json.dumps([report(f"dev-{number}") for number in range(50)]).encode())
    before = len(serving.place.rows())
    stored.append(site.post(BULK, content=many, headers=zipped))
    assert [each.status_code for each in stored] == [200, 200, 200, 200]
    assert len(serving.place.rows()) == before + 50

    refused = site.post(json=report("bob"))
    assert (refused.status_code, refused.json()["success"]) == (401, False)
    refused = site.proxy.client.get(REPORT)
    assert (refused.status_code, refused.json()["success"]) == (401, False)
    state = site.proxy.client.get(REPORT, headers=HEADERS)
    assert (state.status_code, state.json()["success"]) == (200, True)
    assert state.headers["Cache-Control"] == "no-store"


def test_sizes_are_limited_by_the_receiver_and_beyond_that_by_nginx(serving: Serving) -> None:
    site = serving.site
    zipped = {**HEADERS, "Content-Encoding": "gzip"}
    too_large = [
        site.post(headers=HEADERS, content=b" " * (MEBIBYTE + 1)),
        site.post(BULK, headers=HEADERS, content=b" " * (5 * MEBIBYTE + 1)),
        site.post(headers=zipped, content=gzip.compress(b" " * (4 * MEBIBYTE + 1))),
    ]
    for each in too_large:
        assert (each.status_code, each.json()["success"]) == (413, False)

    beyond = b" " * (6 * MEBIBYTE + 1)
    refused = site.post(BULK, headers=HEADERS, content=beyond)
    assert (refused.status_code, refused.headers["Content-Type"]) == (413, "text/html")
    # The neighbours keep the limit that they had.
    assert site.post(NEIGHBOUR, content=beyond).json()["by"] == "DevLake"


def test_basic_auth_for_the_web_ui_is_not_asked_of_machines(
    tmp_path: Path, serving: Serving
) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("admin:{PLAIN}secret\n")
    before = f'auth_basic "DevLake"; auth_basic_user_file {passwords};'
    with front_proxy(tmp_path, serving.site.port, before) as site:
        site.names.addresses[NAME] = HOST
        assert site.proxy.client.get("/").status_code == 401
        assert site.post(NEIGHBOUR).status_code == 401
        assert site.proxy.client.get("/", auth=("admin", "secret")).text == INDEX
        assert site.status() == 200
        assert site.post(json=report("ann")).json()["message"].startswith("token is missing")


def test_a_link_to_ones_own_page_works_here_and_is_in_no_log(
    tmp_path: Path, serving: Serving
) -> None:
    log = tmp_path / "access.log"
    assert serving.site.post(json=report("zoe"), headers=HEADERS).status_code == 200
    view = PersonalView(1, "zoe", int(time.time()) + 60, "op")
    path = f"/api{page_path(PersonalLinks(SECRET).make_link(view))}"
    token = path.rpartition("=")[2]
    with front_proxy(tmp_path, serving.site.port, f"access_log {log};") as site:
        site.names.addresses[NAME] = HOST
        client = site.proxy.client
        opened = client.get(path)
        page = client.get(str(opened.url.join(opened.headers["location"])))
        style = client.get("/api/plugins/developer-telemetry/me/static/page.css")
        body = client.get("/api/plugins/developer-telemetry/me/data.json").json()
        client.cookies.clear()
        refused = client.get("/api/plugins/developer-telemetry/me/")

    assert opened.status_code == 303
    assert "zoe" in page.text
    assert style.headers["content-type"].startswith("text/css")
    assert [row["developer_id"] for row in body["days"]] == ["zoe"]
    assert refused.status_code == 403
    logged = log.read_text()
    assert "/me/data.json" in logged
    assert token not in logged
    assert "/me/open" not in logged
