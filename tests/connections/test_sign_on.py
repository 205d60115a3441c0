"""Commands against a DevLake that wants to know its users, or stands behind a sign-on.

What the servers answer was seen on DevLake's own of June 2026; later months are as it is known.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Optional

import pytest
from typer.testing import Result

from developer_telemetry.cli.main import app
from developer_telemetry.config import SETTINGS, load_settings
from developer_telemetry.diagnostics.receiver_survey import ask_state
from developer_telemetry.errors import ConfigurationError
from tests.support.nginx import LOCATION, ROOT, Nginx
from tests.support.receivers import TOKEN, Receiver, add_connection, command_runner, report
from tests.support.servers import HOST, ServerMissing, free_port
from tests.support.sites import missing
from tests.support.small_lake import SmallLake

UNSET: dict[str, Optional[str]] = dict.fromkeys(
    name for each in SETTINGS for name in (each.name, f"{each.name}_FILE")
)
KEY = {"DEVLAKE_API_KEY": "a-key"}
BASIC = {"DEVLAKE_USER": "ann", "DEVLAKE_PASSWORD": "pw"}
COLONS = {"DEVLAKE_USER": "ann", "DEVLAKE_PASSWORD": "p:w:"}
FORWARDED = {"DEVLAKE_FORWARDED_USER": "ann", "DEVLAKE_FORWARDED_USER_SECRET": "shared"}
WRONG = {"DEVLAKE_FORWARDED_USER": "ann", "DEVLAKE_FORWARDED_USER_SECRET": "guess"}


def run(*arguments: str, **settings: str) -> Result:
    return command_runner().invoke(app, arguments, env={**UNSET, **settings})


def refused(done: Result) -> str:
    """The one line that a command ends with."""
    assert done.exit_code in (2, 75), done.output
    [line] = [line for line in done.stderr.splitlines() if line]
    return line


@pytest.mark.parametrize(
    ("lake", "settings"),
    [
        ({"auth": "june"}, BASIC),
        ({"auth": "june", "forwarded": "shared"}, FORWARDED),
        ({"auth": "june", "forwarded": "shared", "key": "a-key"}, {**KEY, **FORWARDED}),
        ({"auth": "july", "key": "a-key"}, KEY),
        ({"auth": "september", "key": "a-key"}, KEY),
        ({"auth": "september", "forwarded": "shared"}, FORWARDED),
        ({"login": "ann:p:w:"}, COLONS),
        ({"login": "ann:pw", "auth": "june"}, BASIC),
        ({"login": "ann:pw", "auth": "july", "key": "a-key"}, KEY),
    ],
)
def test_a_devlake_that_wants_to_know_its_users_takes_what_it_can(
    lake: dict[str, str], settings: dict[str, str]
) -> None:
    with SmallLake(**lake) as devlake:
        where = {"DEVLAKE_URL": devlake.url, **settings}
        for arguments in (
            ("connect", "fleet", "--project", "shop", "--json"),
            ("connections", "list"),
            ("connections", "rename", "fleet", "team"),
            ("token", "rotate", "team"),
            ("connections", "delete", "team", "--yes"),
        ):
            done = run(*arguments, **where)
            assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("lake", "settings", "said"),
    [
        ({"auth": "june"}, {}, "needs a login: unauthorized; set DEVLAKE_API_KEY"),
        ({"auth": "june", "key": "a-key"}, KEY, r"before its pull request #9008.*; update DevLake"),
        (
            {"auth": "june", "key": "a-key", "forwarded": "shared"},
            {**KEY, **WRONG},
            "alone nor DEVLAKE_FORWARDED_USER.*FORWARDED_USER_SECRET as",
        ),
        ({"auth": "july", "key": "other"}, KEY, "refuses DEVLAKE_API_KEY: api key is invalid"),
        ({"auth": "june"}, COLONS, "takes no password with a colon in it; set one without"),
        ({"auth": "september"}, BASIC, "; set DEVLAKE_API_KEY .*September 2026 on takes no basic"),
        ({"auth": "june"}, FORWARDED, "does not take DEVLAKE_FORWARDED_USER: unauthorized; give"),
        ({"auth": "june", "forwarded": "shared"}, WRONG, "does not take DEVLAKE_FORWARDED_USER"),
        ({"login": "ann:pw", "key": "other"}, KEY, "refuses DEVLAKE_API_KEY: api key is invalid"),
        ({"login": "ann:pw"}, COLONS, "refuses DEVLAKE_USER and DEVLAKE_PASSWORD: 401; correct"),
    ],
)
def test_a_devlake_that_does_not_take_it_is_told_with_what_it_needs(
    lake: dict[str, str], settings: dict[str, str], said: str
) -> None:
    with SmallLake(**lake) as devlake:
        line = refused(run("connections", "list", DEVLAKE_URL=devlake.url, **settings))
        doctor = run("doctor", "--json", DEVLAKE_URL=devlake.url, **settings)

    assert re.search(said, line), line
    assert "guess" not in line
    assert "p:w:" not in line
    checks = {each["name"]: each for each in json.loads(doctor.stdout)["checks"]}
    assert checks["devlake"]["state"] == "failed"
    assert re.search(said, f"{checks['devlake']['message']}; {checks['devlake']['remedy']}")
    assert checks["plugin"]["state"] == "skipped"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"DEVLAKE_USER": "a:b", "DEVLAKE_PASSWORD": "c"}, "DEVLAKE_USER has a colon"),
        ({"DEVLAKE_FORWARDED_USER": "a"}, "DEVLAKE_FORWARDED_USER_SECRET together"),
        ({"DEVLAKE_FORWARDED_USER_SECRET": "a"}, "DEVLAKE_FORWARDED_USER_SECRET together"),
        ({**FORWARDED, "DEVLAKE_FORWARDED_USER": "ännchen"}, "can't be sent as a header"),
    ],
)
def test_what_no_header_can_hold_is_refused_before_anything_is_sent(
    settings: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_settings({"DEVLAKE_URL": "http://lake.example", **settings}, with_database=False)


# A sign-on in front of all of it.

LOGIN = "<!DOCTYPE html><html><head><title>Sign in to Lake</title></head><body></body></html>"
IDP = "https://login.example.com/realms/lake/protocol/openid-connect/auth?client_id=x&state=s3cr3t"
# What it answers everything with: status, headers, body; and what is said of it.
SIGN_ONS: dict[str, tuple[int, dict[str, str], str, str]] = {
    "302 to its page": (302, {"Location": IDP}, "", "sign-on.*sends to https://login.example.com/"),
    "302 within": (
        302,
        {"Location": "/oauth2/start?rd=%2F"},
        "",
        "sign-on.*sends to .*/oauth2/start",
    ),
    "307 elsewhere": (
        307,
        {"Location": "https://gate.example.com/x"},
        "",
        "or if that is a sign-on",
    ),
    "200 with its page": (200, {}, LOGIN, "but a page, 'Sign in to Lake'; .*behind a sign-on"),
    "401 with a page": (401, {}, LOGIN, "needs a login: 401; .*a sign-on"),
    "403 with a page": (403, {}, LOGIN, "sign-on.* answers 403 with the page 'Sign in to Lake'"),
    "401 basic": (401, {"WWW-Authenticate": "Basic"}, LOGIN, "asks for a password.*DEVLAKE_USER"),
}


@contextmanager
def answering(status: int, headers: dict[str, str], body: str) -> Iterator[str]:
    """The address of a server that has one answer."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if body:
                self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("kind", SIGN_ONS)
@pytest.mark.parametrize("settings", [{}, KEY], ids=["nothing", "key"])
def test_a_sign_on_is_named_and_the_way_around_it(kind: str, settings: dict[str, str]) -> None:
    status, headers, body, said = SIGN_ONS[kind]
    with answering(status, headers, body) as url:
        line = refused(run("connections", "list", DEVLAKE_URL=url, **settings))

    if kind == "401 with a page" and settings:
        said = "refuses DEVLAKE_API_KEY: 401"
    assert re.search(said, line), line
    assert "s3cr3t" not in line


def test_a_move_to_https_is_no_sign_on() -> None:
    with answering(308, {"Location": "https://lake.example.com/api/version"}, "") as url:
        line = refused(run("connections", "list", DEVLAKE_URL=f"{url}/api"))

    assert line.endswith("redirects to https://lake.example.com/api; give that address instead")


@pytest.mark.parametrize("kind", ["302 to its page", "403 with a page"])
def test_a_sign_on_in_the_way_of_reports_is_named(kind: str) -> None:
    status, headers, body, _ = SIGN_ONS[kind]
    with answering(status, headers, body) as url:
        seen = ask_state(f"{url}/plugins/developer-telemetry/1/report", 1, TOKEN)

    assert "a sign-on is in the way of reports" in seen.remedy
    assert "docs/install.md" in seen.remedy


# nginx, whose auth_request asks a sign-on about each request.

GATE = """\
auth_request /gate;
error_page 401 = @sign_on;
location @sign_on {{ auth_request off; return 302 /oauth2/start?rd=$request_uri; }}
location = /gate {{
    internal; auth_request off; proxy_pass_request_body off; proxy_set_header Content-Length "";
    proxy_pass {gate};
}}
"""


def test_reports_pass_a_sign_on_that_keeps_everybody_else_out(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    with ExitStack() as stack:
        lake = stack.enter_context(SmallLake())
        receiver = stack.enter_context(Receiver(url, tmp_path))
        connection = add_connection(url)
        location = LOCATION.read_text().replace(
            "telemetry-receiver:8090", f"{HOST}:{receiver.port}"
        )
        try:
            devlake = int(lake.url.rpartition(":")[2])
            gate = stack.enter_context(answering(401, {}, ""))
            proxy = Nginx(devlake, GATE.format(gate=gate) + location)
        except ServerMissing as error:
            missing(str(error))
        stack.enter_context(proxy)
        path = f"/api/plugins/developer-telemetry/{connection}/report"

        sent = proxy.client.post(
            path, json=report("ann"), headers={"authorization": f"Bearer {TOKEN}"}
        )
        assert sent.status_code == 200, sent.text
        assert ask_state(f"{proxy.address}{path}", connection, TOKEN).state is not None
        line = refused(run("connections", "list", DEVLAKE_URL=proxy.address))
        assert re.search("a sign-on in front of .* sends to .*/oauth2/start", line)
        direct = run("connections", "list", DEVLAKE_URL=lake.url)
        assert direct.exit_code == 0


INSTALL = (ROOT / "docs/install.md").read_text(encoding="utf-8")


def test_the_expression_for_other_proxies_is_that_of_the_report_routes() -> None:
    [expression] = re.findall(r"^```text\n(\^/api.*)\n```$", INSTALL, re.M)
    [ours] = re.findall(r"^location ~ (\S+) {$", LOCATION.read_text(), re.M)
    assert expression == ours.replace("(?:", "(")


def test_the_guides_command_names_the_receiver_in_the_proxys_file(tmp_path: Path) -> None:
    [command] = re.findall(r"^(sed .*) >\S+developer-telemetry.conf$", INSTALL, re.M)
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "    set $telemetry 127.0.0.1:8090;\n" in done.stdout
    assert done.stdout.count("8090") == LOCATION.read_text().count("8090")


def test_who_does_not_answer_at_all_is_no_sign_on() -> None:
    line = refused(run("connections", "list", DEVLAKE_URL=f"http://{HOST}:{free_port()}"))

    assert "sign-on" not in line
