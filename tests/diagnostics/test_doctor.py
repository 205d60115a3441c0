"""`doctor`: all green where all is well, and each fault that it knows, caused once for real."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from typer.testing import CliRunner

from developer_telemetry.cli.main import app
from developer_telemetry.connections.crypto import encrypt
from developer_telemetry.constants import CONNECTION_TABLE
from developer_telemetry.diagnostics import receiver_checks
from developer_telemetry.diagnostics.check import FAILED, OK, SKIPPED, Check
from developer_telemetry.diagnostics.probe import ReceiverState
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.receiver.ingest.spooled_report import SpooledReport
from tests.support.lake_secrets import encrypt_as_june
from tests.support.nginx import Nginx
from tests.support.receivers import (
    SECRET,
    TOKEN,
    Altered,
    Receiver,
    add_connection,
    eventually,
    query,
    report,
)
from tests.support.servers import HOST, ServerMissing, free_port
from tests.support.sites import missing
from tests.support.small_lake import Answer, SmallLake

NAMES = [
    *(
        "database",
        "schema",
        "character sets",
        "durability",
        "devlake",
        "plugin",
        "owner",
        "devlake database",
    ),
    *("receiver", "token", "receiver database", "encryption secret", "clocks", "spool"),
    "collector",
    *("last report", "conversions", "blueprint", "people"),
]
SCOPES = "_devlake_blueprint_scopes"
# As DevLake's server makes them, as far as anybody here reads them.
DEVLAKE_TABLES = (
    "CREATE TABLE _devlake_migration_history (script_version BIGINT, script_name VARCHAR(255))",
    "CREATE TABLE _devlake_pipelines (id INTEGER PRIMARY KEY)",
    "CREATE TABLE users (id VARCHAR(255) PRIMARY KEY)",
    "CREATE TABLE user_accounts (user_id VARCHAR(255), account_id VARCHAR(255))",
    f"CREATE TABLE {SCOPES}"
    " (blueprint_id BIGINT, plugin_name VARCHAR(255), connection_id BIGINT, scope_id VARCHAR(255))",
)
ACCOUNT = "developer_telemetry:Account:1:ann"
SCOPED = {"pluginName": "developer_telemetry", "connectionId": 1, "scopes": [{"scopeId": "all"}]}
LOCATION = r"""
location ~ ^/api/plugins/developer-telemetry/([0-9]+/report|collector\.pyz)$ {{
    {more}
    rewrite ^/api(/.*)$ $1 break;
    proxy_pass http://127.0.0.1:{port};
}}
"""

OLDER_ANSWER = json.dumps({"success": False, "message": "send a report with POST"})
CACHED_ANSWER = json.dumps({"success": True, "message": "", "nonce": "0" * 32})


class Lake(SmallLake):
    """One that runs pipelines, too."""

    newest_pipeline = 0

    def _dispatch(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Answer:
        if (method, path) == ("GET", "/pipelines"):
            newest = [{"id": self.newest_pipeline}] if self.newest_pipeline else []
            return 200, {"pipelines": newest, "count": self.newest_pipeline}
        return super()._dispatch(method, path, query, body)


class Site:
    """A database of DevLake's with one connection and a report, a receiver, and a small DevLake."""

    def __init__(self, folder: Path, receiver: Optional[Receiver] = None) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/telemetry.db"
        self.receiver = receiver or Receiver(self.url, folder)
        self.lake = Lake()
        self.settings = {
            "DB_URL": self.url,
            "ENCRYPTION_SECRET": SECRET,
            "TELEMETRY_PUBLIC_URL": self.receiver.url,
            "DEVLAKE_URL": self.lake.url,
        }

    def __enter__(self) -> Site:
        self.receiver.start()
        query(self.url, f"DELETE FROM {CONNECTION_TABLE}")
        query(
            self.url,
            f"INSERT INTO {CONNECTION_TABLE} (id, name, secret_token)"
            f" VALUES (1, 'fleet', '{encrypt(TOKEN, SECRET)}')",
        )
        for statement in DEVLAKE_TABLES:
            query(self.url, statement)
        query(self.url, "INSERT INTO users VALUES ('ann')")
        query(self.url, f"INSERT INTO user_accounts VALUES ('ann', '{ACCOUNT}')")
        sent = self.receiver.send(report("ann"), 1)
        assert sent.status_code == 200, sent.text
        CliRunner().invoke(app, ["reextract"], env=self.settings)
        query(self.url, f"INSERT INTO {SCOPES} VALUES (1, 'developer_telemetry', 1, 'all')")
        self.lake.kept[1] = {"id": 1, "name": "fleet", "secretToken": TOKEN}
        self.lake.add_blueprint("p", SCOPED)
        self.lake.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.lake.__exit__()
        self.receiver.stop()

    def checks(self, *arguments: str, leaves: int = 1, **settings: str) -> list[Check]:
        """Return what `doctor` finds, having left with this status."""
        environment = {**self.settings, **settings}
        done = CliRunner().invoke(app, ["doctor", *arguments, "--json"], env=environment)
        assert done.exit_code == leaves, done.output
        found = json.loads(done.stdout)
        assert found["ok"] == (leaves == 0)
        assert TOKEN not in done.stdout
        assert SECRET not in done.stdout
        return [Check(**each) for each in found["checks"]]

    def failure(self, *arguments: str, **settings: str) -> Check:
        """The only check that fails, which names a remedy."""
        [check] = [
            each for each in self.checks(*arguments, leaves=1, **settings) if each.state == FAILED
        ]
        assert check.remedy
        return check

    @contextmanager
    def changed(self, do: str, undo: str) -> Iterator[None]:
        query(self.url, do)
        try:
            yield
        finally:
            query(self.url, undo)

    def copy(self, folder: Path) -> str:
        """The URL of a copy of the database."""
        shutil.copy(self.folder / "telemetry.db", folder)
        return f"sqlite:///{folder}/telemetry.db"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site")) as site:
        yield site


def state_of(found: Sequence[Check]) -> dict[str, str]:
    return {each.name: each.state for each in found}


def test_where_all_is_well_all_is_green(site: Site) -> None:
    found = site.checks(leaves=0)

    assert state_of(found) == dict.fromkeys(NAMES, OK)
    assert [each.name for each in found] == NAMES
    said = {each.name: each.message for each in found}
    assert said["devlake database"] == "DevLake has the database that is used here: 1 'fleet'"
    assert said["encryption secret"] == "the same here and at the receiver and at DevLake"
    assert said["people"] == "1 of 1 developers have a user"


def test_lines_for_people_say_the_same(site: Site) -> None:
    done = CliRunner().invoke(app, ["doctor"], env={**site.settings, "DEVLAKE_URL": ""})

    assert done.exit_code == 0
    assert re.search("^ok       token              accepted for 1 of 1 conn", done.stdout, re.M)
    # Checks that are skipped for one reason are one line.
    [skipped] = re.findall("^skipped .*", done.stdout, re.M)
    assert skipped.startswith("skipped  devlake            no DevLake is set here (also: plugin, ")
    assert "\n                            -> set DEVLAKE_URL (or --devlake-url)" in done.stdout


def test_without_a_database_the_rest_is_checked_by_what_devlake_says(site: Site) -> None:
    found = site.checks(leaves=0, DB_URL="", ENCRYPTION_SECRET="")

    assert [each.name for each in found] == NAMES
    assert state_of(found) == {
        **dict.fromkeys(NAMES, SKIPPED),
        **dict.fromkeys(("devlake", "plugin", "receiver", "token", "encryption secret"), OK),
        **dict.fromkeys(("clocks", "spool", "collector", "blueprint"), OK),
    }
    assert all("DB_URL" in each.remedy for each in found if each.state == SKIPPED)


def test_blueprints_are_found_in_the_database_where_no_devlake_is_set(site: Site) -> None:
    assert site.checks(leaves=0, DEVLAKE_URL="")[-2].state == OK

    with site.changed(
        f"UPDATE {SCOPES} SET scope_id = 'x'", f"UPDATE {SCOPES} SET scope_id = 'all'"
    ):
        assert site.failure(DEVLAKE_URL="").name == "blueprint"


# The database.


@pytest.mark.parametrize("kind", ["mysql", "postgres"])
def test_a_database_that_does_not_answer(site: Site, kind: str) -> None:
    url = f"{kind}://merico:hidden-pw@{HOST}:{free_port()}/lake"

    check = site.failure(DB_URL=url)

    assert [each.name for each in site.checks(leaves=1, DB_URL=url)] == NAMES
    assert check.name == "database"
    assert HOST in check.message
    assert "hidden-pw" not in check.message
    assert check.remedy == "check DB_URL and the server"


def test_pending_migrations(site: Site, mariadb_url: str) -> None:
    check = site.failure(DB_URL=mariadb_url)

    assert [each.name for each in site.checks(leaves=1, DB_URL=mariadb_url)] == NAMES
    assert check.name == "schema"
    assert "migrations are pending: 20261123000001 developer telemetry: create" in check.message
    assert check.remedy == "`developer-telemetry migrate`"


def test_a_database_that_may_lose_what_it_confirmed(
    site: Site, migrated: Callable[[str], str]
) -> None:
    url = migrated("postgresql")
    name = url.rpartition("/")[2].partition("?")[0]
    query(url, f"ALTER DATABASE {name} SET synchronous_commit = off")
    try:
        found = site.checks(DB_URL=url)
    finally:
        query(url, f"ALTER DATABASE {name} RESET synchronous_commit")

    [check] = [each for each in found if each.name == "durability"]
    assert check.state == FAILED
    assert "synchronous_commit is off" in check.message
    assert check.remedy.startswith("set it to ")


# DevLake.


def test_a_devlake_that_is_not_there(site: Site) -> None:
    check = site.failure("--devlake-url", f"http://{HOST}:{free_port()}")

    assert check.name == "devlake"
    assert "can't reach DevLake" in check.message
    assert "that DevLake runs" in check.remedy


def test_a_key_that_devlake_refuses(site: Site) -> None:
    check = site.failure(DEVLAKE_API_KEY="a-guess")

    assert (check.name, check.state) == ("devlake", FAILED)
    assert "api key is invalid" in check.message
    assert "a-guess" not in check.message


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            (428, {"success": False, "message": "\nNew migration scripts detected."}),
            "waits for you to confirm a migration.*proceed-db-migration",
        ),
        ((404, "404 page not found"), "no plugin|not have the plugin"),
        ((500, {"success": False, "message": "decrypt failed"}), "decrypt failed"),
    ],
    ids=["not migrated", "no plugin", "broken"],
)
def test_a_plugin_that_does_not_answer(site: Site, fault: Answer, said: str) -> None:
    site.lake.fault = fault
    try:
        check = site.failure()
    finally:
        site.lake.fault = None

    assert check.name == "plugin"
    assert re.search(said, f"{check.message}; {check.remedy}")


def test_devlake_with_another_database(site: Site) -> None:
    site.lake.kept[2] = {"id": 2, "name": "another", "secretToken": "x"}
    site.lake.add_blueprint("q", {**SCOPED, "connectionId": 2})
    try:
        found = site.checks()
    finally:
        del site.lake.kept[2]

    [check] = [each for each in found if each.name == "devlake database"]
    assert check.state == FAILED
    assert check.message == "DevLake has 1 'fleet', 2 'another', the database here 1 'fleet'"


def test_devlake_with_a_copy_of_the_database(site: Site) -> None:
    site.lake.newest_pipeline = 7
    try:
        check = site.failure()
        assert check.name == "devlake database"
        assert "is it a copy?" in check.message
        with site.changed(
            "INSERT INTO _devlake_pipelines VALUES (7)", "DELETE FROM _devlake_pipelines"
        ):
            site.checks(leaves=0)
    finally:
        site.lake.newest_pipeline = 0


def test_a_scope_that_is_in_no_blueprint(site: Site) -> None:
    blueprints = dict(site.lake.blueprints)
    for used in ([], [{**SCOPED, "scopes": []}], [{**SCOPED, "pluginName": "webhook"}]):
        site.lake.blueprints.clear()
        site.lake.add_blueprint("p", *used)
        check = site.failure()
        assert check.name == "blueprint"
        assert "none runs the scope of 'fleet'" in check.message
        assert check.remedy == "`developer-telemetry connect fleet --project PROJECT`"
    site.lake.blueprints.clear()
    site.lake.blueprints.update(blueprints)


# The way to the receiver.


@contextmanager
def proxy(lake: SmallLake, location: str) -> Iterator[str]:
    """The address of a front proxy before DevLake, with a location of ours."""
    devlake = int(lake.url.rpartition(":")[2])
    with ExitStack() as stack:
        try:
            running = stack.enter_context(Nginx(devlake, location))
        except ServerMissing as error:
            missing(str(error))
        yield f"http://{HOST}:{running.port}"


def test_a_proxy_that_leads_to_the_receiver(site: Site) -> None:
    location = LOCATION.format(more="", port=site.receiver.port)
    with proxy(site.lake, location) as url:
        found = site.checks(leaves=0, DEVLAKE_URL=url, TELEMETRY_PUBLIC_URL="")
        assert state_of(found) == dict.fromkeys(NAMES, OK)
        [receiver] = [each for each in found if each.name == "receiver"]
        assert receiver.message.startswith(
            f"{url}/api/plugins/developer-telemetry/1/report leads to"
        )

        pasted = f"{url}/api/plugins/developer_telemetry/connections/1/report"
        site.checks("--url", pasted, leaves=0)

        check = site.failure("--url", url)
        assert check.name == "receiver"
        assert "give the address with /api" in check.remedy


@pytest.mark.parametrize(
    ("location", "said", "remedy"),
    [
        (
            "",
            r"answers 404 \(404 page not found\)",
            "sends reports elsewhere: add the location for",
        ),
        (
            LOCATION.format(more="", port=free_port()),
            r"answers 502 \(502 Bad Gateway\)",
            "reaches no receiver: start",
        ),
        (
            LOCATION.format(more="auth_basic x; auth_basic_user_file nobody;", port=1),
            "answers 40[13]",
            "add `auth_basic off` to the location",
        ),
        (
            LOCATION.format(more="return 308 https://devlake.example.com$request_uri;", port=1),
            "answers 308",
            "give https://devlake.example.com/api/plugins/developer-telemetry/1/report as",
        ),
        (
            LOCATION.format(more=f"return 405 '{OLDER_ANSWER}';", port=1),
            "leads to a receiver of an older release",
            "update the receiver",
        ),
        (
            LOCATION.format(
                more=f"add_header X-Telemetry-Probe answered; return 200 '{CACHED_ANSWER}';",
                port=1,
            ),
            "gives the answer to an earlier request",
            "let nothing on the way cache answers",
        ),
    ],
    ids=["no location", "no receiver behind it", "password", "redirect", "older", "cache"],
)
def test_a_proxy_that_does_not(site: Site, location: str, said: str, remedy: str) -> None:
    location = location.replace("{port}", str(site.receiver.port))
    with proxy(site.lake, location) as url:
        check = site.failure("--url", f"{url}/api")

    assert check.name == "receiver"
    assert re.search(said, check.message)
    assert remedy in check.remedy


def test_a_proxy_that_does_not_pass_the_collector(site: Site) -> None:
    location = LOCATION.replace(r"|collector\.pyz", "").format(more="", port=site.receiver.port)
    with proxy(site.lake, location) as url:
        check = site.failure("--url", f"{url}/api")

    assert check.name == "collector"
    path = "/api/plugins/developer-telemetry/collector.pyz"
    assert check.message == f"{url}{path} answers 404 (404 page not found)"
    assert "let the front proxy pass this path" in check.remedy


def test_nobody_at_the_address(site: Site) -> None:
    check = site.failure("--url", f"http://{HOST}:{free_port()}")

    assert check.name == "receiver"
    assert "that the front proxy and `developer-telemetry serve` run" in check.remedy


def test_a_proxy_that_drops_the_token(site: Site) -> None:
    lost = LOCATION.format(more='proxy_set_header Authorization "";', port=site.receiver.port)
    with proxy(site.lake, lost) as url:
        check = site.failure("--url", f"{url}/api")

    assert check.name == "token"
    assert "answers 401 (token is missing" in check.message
    assert "let the front proxy pass the Authorization header" in check.remedy


# The receiver.


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """A receiver on another database, where connection 1 has another token."""
    folder = tmp_path_factory.mktemp("other")
    with Receiver(f"sqlite:///{folder}/telemetry.db", folder) as receiver:
        yield receiver


def test_a_receiver_with_another_token(site: Site, other: Receiver) -> None:
    check = site.failure("--url", other.url)

    assert check.name == "token"
    assert "answers 401 (the token is not this connection's)" in check.message


def test_a_receiver_that_does_not_know_the_connection(site: Site, other: Receiver) -> None:
    site.lake.kept[7] = {"id": 7, "name": "seventh", "secretToken": TOKEN}
    site.lake.add_blueprint("q", {**SCOPED, "connectionId": 7})
    row = f"(id, name, secret_token) VALUES (7, 'seventh', '{encrypt(TOKEN, SECRET)}')"
    try:
        with site.changed(
            f"INSERT INTO {CONNECTION_TABLE} {row}",
            f"DELETE FROM {CONNECTION_TABLE} WHERE id = 7",
        ):
            found = site.checks("--url", other.url)
    finally:
        del site.lake.kept[7]

    failed = {each.name: each for each in found if each.state == FAILED}
    assert "answers 404 (no such connection" in failed["receiver database"].message
    assert "DB_URL of DevLake's server" in failed["receiver database"].remedy
    assert "connection 7 (seventh) has had no report" in failed["last report"].message


def test_a_receiver_on_a_copy_of_the_database_and_then_without_it(
    site: Site, tmp_path: Path
) -> None:
    url = site.copy(tmp_path)
    with Receiver(url, tmp_path, TELEMETRY_SPOOL_MAX_MB="1") as receiver:
        check = site.failure("--url", receiver.url)
        assert check.name == "receiver database"
        assert check.message.endswith("has another database than this command")

        query(url, "ALTER TABLE _tool_developer_metrics RENAME TO moved_away")
        assert receiver.send(report("bob"), 1).status_code == 200
        found = site.checks("--url", receiver.url)
        failed = {each.name: each for each in found if each.state == FAILED}
        assert sorted(failed) == ["receiver database", "spool"]
        assert "stores nothing now: no such table" in failed["receiver database"].message
        assert re.search(r"1 reports wait, the oldest for \d+ s", failed["spool"].message)
        assert "fix the database: no such table" in failed["spool"].remedy

        big = report("cid", metrics={"tools_used": ["x" * 900_000]})
        eventually(lambda: receiver.send(big, 1).status_code == 503, seconds=20)
        found = site.checks("--url", receiver.url)

    failed = {each.name: each for each in found if each.state == FAILED}
    assert "full (" in failed["spool"].message
    assert "raise TELEMETRY_SPOOL_MAX_MB" in failed["spool"].remedy
    assert "and the spool is full" in failed["receiver"].message


def test_of_several_receivers_behind_one_address_each_is_looked_at(
    site: Site, tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool", 1 << 20)
    spool.set_aside(SpooledReport("id", 1, 1, "{}"), "out of range")
    spool.close()
    settings = {"TELEMETRY_SPOOL_DIR": str(tmp_path / "spool")}
    with Receiver(site.url, tmp_path, **settings) as second:
        # Each look takes two numbers, of the connection to the proxy and of the one from there.
        location = LOCATION.format(
            more=f"set $to {HOST}:{site.receiver.port};"
            f' if ($connection ~ "[014589]$") {{ set $to {HOST}:{second.port}; }}',
            port="0",
        ).replace(f"{HOST}:0", "$to")
        with proxy(site.lake, location) as url:
            found = site.checks("--url", f"{url}/api")

    spools = {each.state: each for each in found if each.name == "spool"}
    assert f"localhost:{site.receiver.port} " in spools[OK].message
    assert f"localhost:{second.port} " in spools[FAILED].message
    assert "1 reports are set aside" in spools[FAILED].message
    assert "dead-letters" in spools[FAILED].remedy


def test_a_devlake_that_can_not_read_its_own_database(site: Site) -> None:
    message = "invalid encryptionSecret; invalid encryptionSecret (500)\nWraps: (2) ..."
    site.lake.fault = (500, {"success": False, "message": message})
    try:
        check = site.failure()
    finally:
        site.lake.fault = None

    assert check.name == "encryption secret"
    assert "DevLake's server can't decrypt what is in its database" in check.message


def test_a_user_who_may_not_write_can_not_compare_databases(site: Site) -> None:
    table = "_tool_developer_telemetry_probes"
    deny = "SELECT RAISE(ABORT, 'denied'); END"
    with site.changed(
        f"CREATE TRIGGER deny BEFORE INSERT ON {table} BEGIN {deny}", "DROP TRIGGER deny"
    ):
        found = site.checks(leaves=0)

    assert {each.name for each in found if each.state == SKIPPED} == {"receiver database"}


@pytest.mark.parametrize("where", ["here", "at the receiver", "at DevLake"])
def test_another_encryption_secret(site: Site, tmp_path: Path, where: str) -> None:
    if where == "here":
        check = site.failure(ENCRYPTION_SECRET="another")
        assert check.name == "encryption secret"
        assert "not DevLake's here" in check.message
    elif where == "at the receiver":
        with Receiver(site.url, tmp_path, ENCRYPTION_SECRET="another") as receiver:
            check = site.failure("--url", receiver.url)
        assert check.name == "encryption secret"
        assert "not DevLake's at the receiver" in check.message
    else:
        site.lake.kept[1]["secretToken"] = "garbled"
        try:
            check = site.failure()
        finally:
            site.lake.kept[1]["secretToken"] = TOKEN
        assert check.name == "encryption secret"
        assert check.message == "DevLake reads another token of connection 1 than this command"


@pytest.mark.parametrize("where", ["here", "at the receiver"])
def test_a_format_that_is_not_known_is_told_from_another_secret(
    site: Site, tmp_path: Path, where: str
) -> None:
    unknown = "'bm90IGluIGFueSBmb3JtYXQ='"
    url = site.copy(tmp_path)
    query(url, f"UPDATE {CONNECTION_TABLE} SET secret_token = {unknown}")
    if where == "here":
        found = site.checks(DB_URL=url, DEVLAKE_URL="")
    else:
        with Receiver(url, tmp_path) as receiver:
            found = site.checks("--url", receiver.url)

    [check] = [each for each in found if each.name == "encryption secret"]
    assert check.state == FAILED
    assert check.message.startswith(f"not readable {where}: ")
    assert "it is in a format that this release does not know" in check.message
    assert "leave ENCRYPTION_SECRET as it is" in check.remedy
    # Nobody is told to make a connection, nor that this one is open.
    [token] = [each for each in found if each.name == "token"]
    assert "token rotate" not in token.remedy
    assert "connect NAME" not in token.remedy


def test_a_devlake_that_may_be_older_than_its_secrets_is_told_what_lets_it_read_them(
    site: Site,
) -> None:
    newer, older = encrypt_as_june(TOKEN, SECRET), encrypt(TOKEN, SECRET)
    set_token = f"UPDATE {CONNECTION_TABLE} SET secret_token ="
    site.lake.fault = (500, {"success": False, "message": "input not full blocks (500)"})
    try:
        with site.changed(f"{set_token} '{newer}'", f"{set_token} '{older}'"):
            check = site.failure()
            done = CliRunner().invoke(app, ["token", "rewrite"], env=site.settings)
            assert done.exit_code == 0
            site.lake.fault = None
            site.checks(leaves=0)
    finally:
        site.lake.fault = None

    assert check.name == "encryption secret"
    assert "DevLake can't read connection 1, but this command can" in check.message
    assert "DevLake is an older release, or its ENCRYPTION_SECRET is another one" in check.message
    assert re.search("compare .*; if they are equal, `.* token rewrite`", check.remedy)


class Late(Altered):
    """A receiver on a machine whose clock is ten minutes behind."""

    def command(self) -> list[str]:
        behind = (
            "import developer_telemetry.receiver.http.status_endpoint as probe\n"
            "true = probe.now_us\n"
            "probe.now_us = lambda: true() - 600_000_000\n"
        )
        interpreter, option, program = super().command()
        return [interpreter, option, behind + program]


def test_clocks_that_differ(site: Site, tmp_path: Path) -> None:
    with Late(site.url, tmp_path) as receiver:
        check = site.failure("--url", receiver.url)

    assert check.name == "clocks"
    assert re.search(r"receiver localhost:\d+ \w+ -(599|600)\.\d s, database", check.message)
    assert "NTP" in check.remedy


# What came of it.


def test_a_connection_that_anybody_can_send_to(site: Site) -> None:
    site.lake.kept[7] = {"id": 7, "name": "open", "secretToken": ""}
    site.lake.add_blueprint("q", {**SCOPED, "connectionId": 7})
    try:
        with site.changed(
            f"INSERT INTO {CONNECTION_TABLE} (id, name) VALUES (7, 'open')",
            f"DELETE FROM {CONNECTION_TABLE} WHERE id = 7",
        ):
            found = site.checks()
    finally:
        del site.lake.kept[7]

    [check] = [each for each in found if each.name == "token"]
    assert check.state == FAILED
    assert "connection 7 needs none, so anybody" in check.message
    assert "token rotate 7" in check.remedy


def test_no_connection_at_all(site: Site, tmp_path: Path) -> None:
    url = site.copy(tmp_path)
    query(url, f"DELETE FROM {CONNECTION_TABLE}")

    found = site.checks(DB_URL=url, DEVLAKE_URL="")

    failed = [each for each in found if each.state == FAILED]
    assert [each.name for each in failed] == ["last report"]
    assert failed[0].remedy == "make one: `developer-telemetry connect NAME`"


def test_a_last_report_that_is_old(site: Site) -> None:
    table = "_tool_developer_telemetry_machines"
    eventually(lambda: query(site.url, f"SELECT 1 FROM {table}"), seconds=10)
    with site.changed(
        f"UPDATE {table} SET created_at = last_seen, last_seen = '2026-01-02 03:04:05.000'",
        f"UPDATE {table} SET last_seen = created_at",
    ):
        check = site.failure()

    assert check.name == "last report"
    assert check.message == "connection 1 (fleet) had it at 2026-01-02 03:04:05.000 UTC"


def test_developers_none_of_whom_is_a_user(site: Site) -> None:
    with site.changed(
        "UPDATE user_accounts SET account_id = 'x'",
        f"UPDATE user_accounts SET account_id = '{ACCOUNT}'",
    ):
        check = site.failure()

    assert check.name == "people"
    assert check.message == "0 of 1 developers have a user"
    assert "e-mail addresses or names" in check.remedy


def test_what_has_no_users_yet_is_skipped(site: Site) -> None:
    with site.changed("DELETE FROM users", "INSERT INTO users VALUES ('ann')"):
        check = site.checks(leaves=0)[-1]

    assert (check.name, check.state) == ("people", SKIPPED)
    assert "import users" in check.remedy


# Figures that no test can bring about.

FINE = ReceiverState("host 1", "1", 0, 0, True, "", "", 0, 0.0, 0, False, 0, 1 << 29, 1 << 40, 0)


def test_a_disk_that_is_nearly_full() -> None:
    check = receiver_checks.check_spool(
        ReceiverState(**{**_fields(FINE), "disk_free_bytes": 5 << 20})
    )

    assert check.state == FAILED
    assert check.message == "receiver host 1: only 5 MiB are free on its disk"


def test_a_spool_that_its_disk_has_damaged() -> None:
    check = receiver_checks.check_spool(ReceiverState(**{**_fields(FINE), "damaged_spools": 1}))

    assert check.state == FAILED
    assert "check the disk" in check.remedy


@pytest.mark.parametrize(
    ("what", "remedy"),
    [("orphans", "spool list"), ("conflicting", "its log")],
)
def test_reports_that_can_not_come_in_are_named(what: str, remedy: str) -> None:
    check = receiver_checks.check_spool(ReceiverState(**{**_fields(FINE), "waiting": 9, what: 7}))

    assert check.state == FAILED
    assert "7 reports wait" in check.message
    assert remedy in check.remedy


def test_a_spool_that_is_being_drained_is_well() -> None:
    check = receiver_checks.check_spool(ReceiverState(**{**_fields(FINE), "waiting": 9}))

    assert check == Check("spool", OK, "receiver host 1: storing 9 reports from it now")


@pytest.mark.parametrize(("ahead", "state"), [(4.9, OK), (5.1, FAILED), (-5.1, FAILED)])
def test_clocks_may_differ_by_five_seconds(ahead: float, state: str) -> None:
    assert receiver_checks.check_clocks({"database": ahead}).state == state


def _fields(state: ReceiverState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in state.__struct_fields__}


def test_a_new_connection_is_checked_too(site: Site) -> None:
    number = add_connection(site.url)
    site.lake.kept[number] = {"id": number, "name": _name(site, number), "secretToken": TOKEN}
    site.lake.add_blueprint("q", {**SCOPED, "connectionId": number})
    try:
        check = site.failure()
    finally:
        query(site.url, f"DELETE FROM {CONNECTION_TABLE} WHERE id = {number}")
        del site.lake.kept[number]

    assert check.name == "last report"
    assert f"send-test --connection {number}" in check.remedy


def _name(site: Site, number: int) -> str:
    [(name,)] = query(site.url, f"SELECT name FROM {CONNECTION_TABLE} WHERE id = {number}")
    return str(name)


def test_the_documents_list_every_check_in_order() -> None:
    text = (Path(__file__).parents[2] / "docs/doctor.md").read_text()

    assert re.findall(r"^\| `([a-z ]+)` \|", text, re.M) == NAMES
