"""DevLake's API keys and a token's rotation: who is let in, until when, and where."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, Optional

import httpx
import pytest

from developer_telemetry.connections.api_keys import read_api_key
from developer_telemetry.connections.crypto import encrypt
from tests.support.receivers import (
    SECRET,
    TOKEN,
    Receiver,
    ReloadingReceiver,
    add_connection,
    eventually,
    migrate,
    query,
    report,
)
from tests.support.servers import create_database, drop_database, in_database
from tests.support.threads import run_simultaneously

PLAIN = "/plugins/developer-telemetry/{}/report"
UNDERSCORED = "/plugins/developer_telemetry/connections/{}/report"
REST = "/rest/plugins/developer_telemetry/connections/{}/report"
URLS = [prefix + path for prefix in ("", "/api") for path in (PLAIN, UNDERSCORED, REST)]
ANY = "/plugins/developer_telemetry/.*"

# As DevLake's server makes it.
API_KEYS = {
    "mariadb": """
        CREATE TABLE _devlake_api_keys (
            id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
            created_at datetime(3), updated_at datetime(3), creator varchar(255),
            creator_email varchar(255), updater varchar(255), updater_email varchar(255),
            name varchar(255), api_key varchar(255) UNIQUE, expired_at datetime(3) NULL,
            allowed_path varchar(255), type varchar(40), extra varchar(255)
        )""",
    "postgresql": """
        CREATE TABLE _devlake_api_keys (
            id bigserial PRIMARY KEY,
            created_at timestamptz, updated_at timestamptz, creator varchar(255),
            creator_email varchar(255), updater varchar(255), updater_email varchar(255),
            name varchar(255), api_key varchar(255) UNIQUE, expired_at timestamptz NULL,
            allowed_path varchar(255), type varchar(40), extra varchar(255)
        )""",
}
# Not DevLake's; for what doesn't depend on a server.
API_KEYS["sqlite"] = """
    CREATE TABLE _devlake_api_keys (
        id INTEGER PRIMARY KEY, name, api_key UNIQUE, expired_at, allowed_path, type, extra
    )"""
NOW = {"mariadb": "UTC_TIMESTAMP(3)", "postgresql": "clock_timestamp()"}

PATHS = {
    "everything": (".*", True),
    "nothing said": ("", True),
    "as the stock UI makes it": ("/plugins/developer_telemetry/connections/7/.*", True),
    "exact": ("/plugins/developer_telemetry/connections/7/report", True),
    "anchored": ("^/plugins/developer_telemetry/connections/7/report$", True),
    "a part of it": ("connections/7", True),
    "the plugin": ("^/plugins/developer_telemetry/", True),
    "several connections": ("/connections/(6|7)/report", True),
    "any case": ("(?i)/PLUGINS/.*/REPORT", True),
    "another connection": ("/plugins/developer_telemetry/connections/8/.*", False),
    "a connection that starts alike": ("^/plugins/developer_telemetry/connections/77/.*", False),
    "another plugin": ("/plugins/webhook/connections/7/.*", False),
    "the Go plugin's other spelling": ("^/plugins/developer-telemetry/7/report$", False),
    "with /rest": ("^/rest/plugins/developer_telemetry/.*", False),
    "with /api": ("^/api/.*", False),
    "many reports": ("/reports$", False),
    "anchored elsewhere": ("^/connections/7/report", False),
    "no expression": ("connections/(7", False),
    "null": (None, False),
    # Where Go's engine, which DevLake asks, and Python's differ.
    "a class without braces": (r"^[/\pL_\d]+$", True),
    "a class of a script": (r"\p{Greek}", False),
    "a POSIX class": ("connections/[[:digit:]]/", True),
    "the end, as Go spells it": (r"report\z", True),
    "the end, as Python spells it": (r"report\Z", False),
    "a named group": ("(?P<id>7)/report", True),
    "a group's flags": ("/(?i:PLUGINS)/", True),
    "flags in the middle": ("/plugins(?i)/DEVELOPER", True),
    "quoted": (r"\Q/connections/7/report\E$", True),
    "quoted to its end": (r"\Q/connections/7/.*", False),
    "a Kelvin sign for a letter": ("(?i)developer_telemetry/connection\u017f", True),
    "a character by its code": (r"\x{37}/report", True),
    "an octal code": (r"\0671?/report", True),
    "a possessive repetition": ("report++", False),
    "looking ahead": ("connections/(?=7)", False),
    "looking back": ("(?<=connections/)7", False),
    "a group by its number": (r"(o)\1", False),
    "a comment": ("(?#every connection)", False),
    "a single byte": (r"connections/\C", False),
    "a backslash, then a letter": (r"connections\\C", False),
    "too many repetitions": (".{0,1001}", False),
    "not UTF-8": ("\udcff", False),
}
# On each of these a backtracking engine searches for minutes to years.
SLOW = (
    r"^(/?\w+)+!",
    r"(\w*/?)*(\w*/?)*(\w*/?)*!",
    "(.*)*(.*)*(.*)*(.*)*(.*)*=",
    "(.{0,31}){0,31}=",
)


@pytest.mark.parametrize("case", PATHS)
def test_a_key_counts_where_its_path_is_found(case: str) -> None:
    path, allowed = PATHS[case]

    assert read_api_key(path).allows(7) is allowed


@pytest.mark.parametrize("path", SLOW)
def test_no_allowed_path_takes_long_to_search(path: str) -> None:
    key = read_api_key(path)
    started = time.process_time()

    assert not any(key.allows(number) for number in range(100))

    assert time.process_time() - started < 2  # 20 ms a search, on a machine that is slow


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("connections/(7", r"\(7"),
        (r"connections/\C", r"\\C"),
        ("(" * 300, "missing"),
        ("(.{1,1000}){1,1000}", "invalid repetition size"),
        (r"\pL{1000}", "too large"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_key_whose_path_cannot_be_used_is_named(path: str, reason: str) -> None:
    key = read_api_key(path, name="laptops")

    assert not key.allows(7)
    assert re.search(reason, key.remark)
    assert "'laptops'" in key.remark
    assert not read_api_key(path, time.time() - 1, "laptops").remark
    assert not read_api_key(".*", name="laptops").remark


def test_a_key_counts_until_it_expires() -> None:
    assert read_api_key(".*", time.time() + 60).allows(7)
    assert not read_api_key(".*", time.time() - 0.001).allows(7)


class Lake(NamedTuple):
    receiver: Receiver
    url: str
    kind: str
    folder: Path

    def add_key(
        self,
        allowed_path: Optional[str] = ANY,
        seconds: Optional[float] = None,
        type_of_key: str = "devlake",
    ) -> str:
        """Make a key as DevLake's server does, that expires in as many seconds; return it."""
        key = secrets.token_hex(32)
        digest = hmac.new(SECRET.encode(), key.encode(), hashlib.sha256).hexdigest()
        path = "NULL" if allowed_path is None else f"'{allowed_path}'"
        expiry = "NULL" if seconds is None else f"{NOW[self.kind]} + INTERVAL '{seconds}' SECOND"
        query(
            self.url,
            "INSERT INTO _devlake_api_keys (name, api_key, expired_at, allowed_path, type, extra)"
            f" VALUES ('k-{key[:9]}', '{digest}', {expiry}, {path}, '{type_of_key}', '')",
        )
        return key

    def send(self, connection: int, key: Optional[str], path: str = PLAIN) -> httpx.Response:
        return self.receiver.send(report("ann"), connection, key, path=path)

    def status(self, connection: int, key: Optional[str], path: str = PLAIN) -> int:
        return self.send(connection, key, path).status_code

    def set(self, connection: int, **columns: object) -> None:
        values = ", ".join(
            f"{name} = {'NULL' if value is None else repr(value)}"
            for name, value in columns.items()
        )
        query(
            self.url,
            f"UPDATE _tool_developer_telemetry_connections SET {values} WHERE id = {connection}",
        )


def serve(url: str, kind: str, folder: Path) -> Iterator[Lake]:
    migrate(url, folder)
    with ReloadingReceiver(url, folder, TELEMETRY_LOG_LEVEL="debug") as receiver:
        # The receiver may be there before DevLake's own tables are.
        query(url, API_KEYS[kind])
        yield Lake(receiver, url, kind, folder)
    assert "ERROR" not in receiver.log
    assert "Traceback" not in receiver.log


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("sqlite")
    yield from serve(f"sqlite:///{folder}/telemetry.db", "sqlite", folder)


@pytest.fixture(scope="module", params=["mariadb", "postgresql"])
def devlake(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lake]:
    """On a database that DevLake itself may have."""
    server = request.getfixturevalue(f"{request.param}_server")
    url = in_database(server, f"telemetry_test_{secrets.token_hex(6)}")
    create_database(url)
    try:
        yield from serve(url, request.param, tmp_path_factory.mktemp(request.param))
    finally:
        drop_database(url)


@pytest.fixture
def guarded(lake: Lake) -> int:
    return add_connection(lake.url)


@pytest.mark.parametrize("type_of_key", ["devlake", "plugin:developer_telemetry"])
def test_a_key_made_a_moment_ago_works_at_each_url(devlake: Lake, type_of_key: str) -> None:
    connection = add_connection(devlake.url)
    path = f"/plugins/developer_telemetry/connections/{connection}/.*"
    key = devlake.add_key(path, type_of_key=type_of_key)

    for url in URLS:
        assert devlake.status(connection, key, url) == 200, url
    many = devlake.receiver.send(b"[]", connection, key, path=PLAIN + "s")
    assert many.status_code == 400  # let in, with nothing


def test_a_key_works_until_its_time_or_its_revocation(devlake: Lake) -> None:
    connection = add_connection(devlake.url)
    expired, lasting = devlake.add_key(seconds=-1), devlake.add_key(seconds=3600)
    soon, deleted, moved = devlake.add_key(seconds=3), devlake.add_key(), devlake.add_key()
    keys = [soon, deleted, moved, lasting, expired]
    made = time.monotonic()

    def statuses() -> list[int]:
        return run_simultaneously([partial(devlake.status, connection, each) for each in keys])

    assert statuses() == [200, 200, 200, 200, 401]
    query(devlake.url, f"DELETE FROM _devlake_api_keys WHERE name = 'k-{deleted[:9]}'")
    query(
        devlake.url,
        "UPDATE _devlake_api_keys SET allowed_path = '/plugins/webhook/.*'"
        f" WHERE name = 'k-{moved[:9]}'",
    )
    eventually(lambda: statuses()[1:] == [401, 401, 200, 401], seconds=5)
    eventually(lambda: statuses() == [401, 401, 401, 200, 401], seconds=5)
    assert time.monotonic() - made > 1.5


def test_a_key_of_another_path_or_none_is_refused(lake: Lake, guarded: int) -> None:
    other = add_connection(lake.url)
    here = lake.add_key(f"/plugins/developer_telemetry/connections/{other}/.*")
    invalid, null = lake.add_key("connections/(["), lake.add_key(None)
    unknown = secrets.token_hex(32)
    assert lake.status(other, here) == 200

    answers = run_simultaneously(
        [partial(lake.send, guarded, each) for each in (here, invalid, null, unknown)]
    )

    for answer in answers:
        assert answer.status_code == 401
        assert "not this connection's" in answer.json()["message"]
    # A bad key harms no other, and its maker learns of it.
    assert lake.status(other, here) == 200
    eventually(
        lambda: f"API key 'k-{invalid[:9]}' allows no report" in lake.receiver.log, seconds=20
    )


def test_the_stored_hash_is_no_key(lake: Lake, guarded: int) -> None:
    key = lake.add_key()
    [(digest,)] = query(
        lake.url, f"SELECT api_key FROM _devlake_api_keys WHERE name = 'k-{key[:9]}'"
    )

    wrong = [str(digest), key.upper()]
    assert run_simultaneously([partial(lake.status, guarded, each) for each in wrong]) == [401, 401]


def test_rest_needs_a_key_or_a_token_where_the_connection_has_none(lake: Lake) -> None:
    open_to_all = add_connection(lake.url, None)
    key = lake.add_key(f"/connections/{open_to_all}/report$")

    assert lake.status(open_to_all, None) == 200
    rest = [REST, "/api" + REST]
    calls = [
        partial(lake.status, open_to_all, each, path)
        for each in (key, None, "wrong")
        for path in rest
    ]
    assert run_simultaneously(calls) == [200, 200, 401, 401, 401, 401]


def test_a_required_token_may_be_a_key(lake: Lake, tmp_path: Path) -> None:
    tokenless = add_connection(lake.url, None)
    key = lake.add_key(f"/connections/{tokenless}/report")
    with ReloadingReceiver(lake.url, tmp_path, TELEMETRY_REQUIRE_TOKEN="true") as receiver:
        required = lake._replace(receiver=receiver)
        calls = [partial(required.status, tokenless, each) for each in (key, None, "wrong")]
        assert run_simultaneously(calls) == [200, 401, 401]


def test_a_token_has_a_successor_and_counts_until_its_time(lake: Lake, guarded: int) -> None:
    until = int(time.time()) + 4
    lake.set(
        guarded,
        secret_token=encrypt("the new one", SECRET),
        previous_secret_token=encrypt(TOKEN, SECRET),
        previous_token_until=until,
    )

    for path in (PLAIN, REST):
        assert lake.status(guarded, "the new one", path) == 200
        assert lake.status(guarded, TOKEN, path) == 200
    eventually(lambda: lake.status(guarded, TOKEN) == 401, seconds=8)
    assert until <= time.time() < until + 4
    assert lake.status(guarded, "the new one") == 200


def test_a_previous_token_without_a_time_to_come_does_not_count(lake: Lake) -> None:
    connections = [add_connection(lake.url) for _ in range(3)]
    for connection, until in zip(connections, [0, 1, None]):
        lake.set(
            connection,
            secret_token=encrypt("the new one", SECRET),
            previous_secret_token=encrypt(TOKEN, SECRET),
            **({} if until is None else {"previous_token_until": until}),
        )

    for token, status in (("the new one", 200), (TOKEN, 401)):
        calls = [partial(lake.status, each, token) for each in connections]
        assert run_simultaneously(calls) == [status] * 3


def test_a_previous_token_cut_short_is_refused_within_five_seconds(
    lake: Lake, guarded: int
) -> None:
    lake.set(
        guarded,
        secret_token=encrypt("the new one", SECRET),
        previous_secret_token=encrypt(TOKEN, SECRET),
        previous_token_until=int(time.time()) + 3600,
    )
    assert lake.status(guarded, "the new one") == 200
    assert lake.status(guarded, TOKEN) == 200

    lake.set(guarded, previous_token_until=0)

    eventually(lambda: lake.status(guarded, TOKEN) == 401, seconds=5)


def test_a_broken_or_empty_previous_token_opens_nothing(lake: Lake) -> None:
    connections = {stored: add_connection(lake.url) for stored in ("broken", "", "of nothing")}
    for stored, connection in connections.items():
        lake.set(
            connection,
            previous_secret_token=encrypt("", SECRET) if stored == "of nothing" else stored,
            previous_token_until=int(time.time()) + 3600,
        )

    for token, status in (("broken", 401), (None, 401), (TOKEN, 200)):
        calls = [partial(lake.status, each, token) for each in connections.values()]
        assert run_simultaneously(calls) == [status] * 3


def test_no_key_and_no_token_is_in_log_or_memory(lake: Lake, guarded: int) -> None:
    key, refused = lake.add_key(), lake.add_key("/nowhere")
    sent = [key, refused, TOKEN, "a-wrong-token"]
    assert run_simultaneously([partial(lake.status, guarded, each) for each in sent]) == [
        200,
        401,
        200,
        401,
    ]

    [memory] = lake.folder.glob(f"spool-{lake.receiver.port}/connections.json")
    for secret in (*sent, SECRET):
        assert secret not in lake.receiver.log
        assert secret not in memory.read_text()
    assert memory.stat().st_mode & 0o777 == 0o600
