"""Secrets as any release of DevLake keeps them, and what happens where one can't be read."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.connections.crypto import (
    EARLIER_SECRET,
    OTHER_SECRET,
    PERHAPS_FORMAT,
    PROBABLY_FORMAT,
    REMEDIES,
    UNKNOWN_FORMAT,
    SecretReader,
    decrypt,
    encrypt,
    remedy_of,
)
from developer_telemetry.connections.database_backend import DatabaseBackend, list_newer_secrets
from developer_telemetry.connections.onboarding import find_connection, rename, rotate
from developer_telemetry.connections.registry import Connections, create
from developer_telemetry.constants import CONNECTION_TABLE
from developer_telemetry.database.engine import open_engine
from developer_telemetry.reports.refusal_reasons import UNREADABLE
from tests.support.lake_secrets import encrypt_as_june, read_as_may
from tests.support.receivers import (
    SECRET,
    TOKEN,
    Receiver,
    ReloadingReceiver,
    add_connection,
    eventually,
    query,
    report,
    run_command,
)

# Made with Go's crypto/cipher, as DevLake's server is, of DevLake's rules.
VECTOR_SECRET = "a secret of DevLake"
VECTORS = {
    "devlake-token-1": "AQIDBAUGBwgJCgsMWPKhn9WtPwWuaoDR71V0MQ0IwwNhmhoCnYknD0hPWjLAYXTaEkA=",
    "": "ERITFBUWFxgZGhscCS7H6iBNkKVndFgr3LGt9E5SzbwTnfE=",
    "ключ ü 漢字 🔑": "ISIjJCUmJygpKissl5N4PLi5SCZgccYaJlmiyu1nmLoRg5iLASSAbHXGmYV4swub"
    "TtlwRY0LgqhgqA==",
    # As long as a whole number of blocks, as every text in AES-CBC is.
    "0123456789abc": "MTIzNDU2Nzg5Ojs8XbqckJCKOzSpl/WXDncXpD/t9p7v/htM1+rWz4KVxpgv2nRx",
}
LONG_TOKEN = "a-token-that-is-as-long-as-one-of-ours-0123"
WEEK = 7 * 86400
KEY = "an-api-key"
NO_FORMAT = base64.b64encode(b"of a length that is neither").decode()
PERHAPS_NEWER = base64.b64encode(bytes(range(50))).decode()


@pytest.mark.parametrize(("value", "stored"), VECTORS.items(), ids=list(VECTORS))
def test_what_devlake_writes_in_aes_gcm_is_read(value: str, stored: str) -> None:
    assert decrypt(stored, VECTOR_SECRET) == value
    # An empty value is never an empty text.
    assert len(base64.b64decode(stored)) == 35 + len(value.encode())


@pytest.mark.parametrize("value", ["", "0123456789abc", LONG_TOKEN])
def test_what_is_written_every_release_of_devlake_reads(value: str) -> None:
    assert read_as_may(encrypt(value, SECRET), SECRET) == value


@pytest.mark.parametrize(
    ("stored", "neighbour", "proven", "reason"),
    [
        (encrypt(TOKEN, "another"), None, False, OTHER_SECRET),
        (encrypt(TOKEN, "another"), encrypt("x", SECRET), False, EARLIER_SECRET),
        (encrypt(TOKEN, "another"), None, True, EARLIER_SECRET),
        (encrypt_as_june("0123456789abc", "another"), None, False, OTHER_SECRET),
        (encrypt_as_june(TOKEN, "another"), None, False, PERHAPS_FORMAT),
        (PERHAPS_NEWER, None, False, PERHAPS_FORMAT),
        (PERHAPS_NEWER, encrypt_as_june("x", SECRET), False, PROBABLY_FORMAT),
        (PERHAPS_NEWER, None, True, UNKNOWN_FORMAT),
        (NO_FORMAT, None, False, UNKNOWN_FORMAT),
        ("in clear, as nobody writes it", None, False, UNKNOWN_FORMAT),
        ("v2:" + encrypt(TOKEN, SECRET), None, False, UNKNOWN_FORMAT),
    ],
    ids=[
        "as May writes it",
        "as May writes it, beside a secret that can be read",
        "as May writes it, with an API key that proves the secret",
        "as June writes it, of the length that May's have",
        "as June writes it",
        "perhaps newer",
        "perhaps newer, beside a secret that can be read",
        "perhaps newer, with an API key that proves the secret",
        "of no known length",
        "in clear",
        "with a prefix",
    ],  # the values differ from run to run, and several processes must call a test the same
)
def test_the_reason_is_another_secret_or_another_format(
    stored: str, neighbour: str | None, proven: bool, reason: str
) -> None:
    secrets = SecretReader(SECRET)
    secrets.is_proven = proven
    secrets.decrypt_all([stored, neighbour])

    assert secrets.read(stored) == ("", reason)


@pytest.mark.parametrize("reason", REMEDIES)
def test_only_who_has_a_wrong_secret_is_told_to_change_it(reason: str) -> None:
    remedy = remedy_of(f"it can't be decrypted: {reason}")

    assert remedy == REMEDIES[reason]
    assert ("leave ENCRYPTION_SECRET as it is" in remedy) == (reason != OTHER_SECRET)


# From May to June and back.


def patch_as_june(engine: Engine, connection_id: int) -> None:
    """Save a connection as DevLake of June does: every secret of the row anew, empty ones too."""
    columns = "secret_token", "previous_secret_token"
    with engine.begin() as connection:
        row = connection.exec_driver_sql(
            f"SELECT {', '.join(columns)} FROM {CONNECTION_TABLE} WHERE id = {connection_id}"
        ).one()
        for name, text in zip(columns, row):
            value = decrypt(text, SECRET) if text else ""
            connection.exec_driver_sql(
                f"UPDATE {CONNECTION_TABLE} SET {name} = '{encrypt_as_june(value, SECRET)}'"
                f" WHERE id = {connection_id}"
            )


def listed_by_may(engine: Engine) -> list[tuple[str, str]]:
    """Return what DevLake of May lists: both secrets of each connection.

    :raises ValueError: it can't read one, so it lists none.
    """
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            f"SELECT secret_token, previous_secret_token FROM {CONNECTION_TABLE} ORDER BY id"
        )
        return [
            (
                read_as_may(row[0], SECRET) if row[0] else "",
                read_as_may(row[1], SECRET) if row[1] else "",
            )
            for row in rows
        ]


def accepted(engine: Engine, connection_id: int, *tokens: str) -> list[bool]:
    connections = Connections(engine, SECRET)
    connections.reload()
    connection = connections.get(connection_id)
    assert connection is not None
    return [connection.accepts(each.encode()) for each in tokens]


def test_reports_go_on_from_may_to_june_and_back(engine: Engine) -> None:
    backend = DatabaseBackend(engine, SECRET)
    number = create(engine, SECRET, "fleet", LONG_TOKEN)
    patch_as_june(engine, number)
    assert accepted(engine, number, LONG_TOKEN, "", "x") == [True, False, False]
    assert list_newer_secrets(engine, SECRET) == [number]
    with pytest.raises(ValueError, match=r"\w"):
        listed_by_may(engine)

    rename(backend, find_connection(backend, "fleet"), "team")
    assert accepted(engine, number, LONG_TOKEN) == [True]
    assert listed_by_may(engine) == [(LONG_TOKEN, "")]

    patch_as_june(engine, number)
    new = rotate(backend, find_connection(backend, "team"), WEEK)
    assert accepted(engine, number, new, LONG_TOKEN) == [True, True]
    assert listed_by_may(engine) == [(new, LONG_TOKEN)]

    patch_as_june(engine, number)
    assert backend.rewrite_secrets(number) == ["secret_token", "previous_secret_token"]
    assert backend.rewrite_secrets(number) == []
    assert list_newer_secrets(engine, SECRET) == []
    assert listed_by_may(engine) == [(new, LONG_TOKEN)]
    assert accepted(engine, number, new, LONG_TOKEN) == [True, True]


def test_a_secret_that_can_not_be_read_is_left_as_it_is(engine: Engine) -> None:
    backend = DatabaseBackend(engine, SECRET)
    number = create(engine, "another secret", "fleet", LONG_TOKEN)
    before = stored_token(engine)

    assert backend.rewrite_secrets(number) == []
    rename(backend, find_connection(backend, "fleet"), "team")

    assert stored_token(engine) == before


def stored_token(engine: Engine) -> str:
    with engine.connect() as connection:
        query = f"SELECT secret_token FROM {CONNECTION_TABLE}"
        return str(connection.exec_driver_sql(query).scalar_one())


def test_the_command_rewrites_the_tokens_of_all_connections(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    run_command(tmp_path, "migrate", DB_URL=url)
    number = add_connection(url)
    other = add_connection(url)
    store(url, number, encrypt_as_june(LONG_TOKEN, SECRET))
    store(url, other, NO_FORMAT)

    done = run_command(tmp_path, "token", "rewrite", DB_URL=url)

    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.endswith("encrypted again")
    assert second.endswith(f"not changed: it can't be decrypted: {UNKNOWN_FORMAT}")
    [(text,)] = query(url, f"SELECT secret_token FROM {CONNECTION_TABLE} WHERE id = {number}")
    assert read_as_may(text, SECRET) == LONG_TOKEN


def store(url: str, connection: int, text: str) -> None:
    query(url, f"UPDATE {CONNECTION_TABLE} SET secret_token = '{text}' WHERE id = {connection}")


# At the receiver.


class Lake(NamedTuple):
    receiver: Receiver
    url: str
    folder: Path

    def add(self, text: str) -> int:
        """A connection with this as its stored token."""
        connection = add_connection(self.url)
        store(self.url, connection, text)
        return connection

    def send(self, connection: int, token: str | None = TOKEN) -> int:
        return self.receiver.send(report("ann"), connection, token).status_code


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("secrets")
    url = f"sqlite:///{folder}/telemetry.db"
    with ReloadingReceiver(url, folder) as receiver:
        digest = hmac.new(SECRET.encode(), KEY.encode(), hashlib.sha256).hexdigest()
        query(
            url,
            "CREATE TABLE _devlake_api_keys (id INTEGER PRIMARY KEY, api_key VARCHAR(255),"
            " allowed_path VARCHAR(255), expired_at DATETIME, name VARCHAR(255))",
        )
        row = f"(1, '{digest}', '/plugins/.*', NULL, 'k')"
        query(url, f"INSERT INTO _devlake_api_keys VALUES {row}")
        yield Lake(receiver, url, folder)


def test_a_token_in_aes_gcm_lets_in_and_no_other_does(lake: Lake) -> None:
    connection = lake.add(encrypt_as_june(LONG_TOKEN, SECRET))

    assert [lake.send(connection, each) for each in (LONG_TOKEN, TOKEN, None)] == [200, 401, 401]


def test_an_empty_token_in_aes_gcm_is_none(lake: Lake) -> None:
    connection = lake.add(encrypt_as_june("", SECRET))

    assert lake.send(connection, None) == 200


def test_a_token_in_aes_gcm_is_remembered_while_the_database_is_away(
    engine: Engine, tmp_path: Path
) -> None:
    memory = tmp_path / "connections.json"
    number = create(engine, SECRET, "fleet", LONG_TOKEN)
    patch_as_june(engine, number)
    Connections(engine, SECRET, memory).reload()
    away = open_engine(f"sqlite:///{tmp_path}/no-folder/telemetry.db")

    connection = Connections(away, SECRET, memory).get(number)

    assert connection is not None
    assert [connection.accepts(each) for each in (LONG_TOKEN.encode(), b"", b"x")] == [
        True,
        False,
        False,
    ]
    away.dispose()


@pytest.mark.parametrize(
    ("text", "reason"),
    [(encrypt(TOKEN, "another"), EARLIER_SECRET), (NO_FORMAT, UNKNOWN_FORMAT)],
    ids=["another secret", "another format"],
)
def test_a_token_that_can_not_be_read_is_said_and_counted_everywhere(
    lake: Lake, text: str, reason: str
) -> None:
    connection = lake.add(text)

    for token in (None, TOKEN, "x"):
        answer = lake.receiver.send(report("ann"), connection, token)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert reason in answer.json()["message"]
    # What DevLake itself would take is taken.
    assert lake.send(connection, KEY) == 200

    eventually(
        lambda: (
            query(
                lake.url,
                "SELECT count FROM _tool_developer_telemetry_refusals"
                f" WHERE connection_id = {connection} AND reason = '{UNREADABLE}'",
            )
            == [(3,)]
        ),
        20,
    )
    metrics = lake.receiver.client.get("/metrics").text
    assert f'telemetry_refusals_total{{connection="{connection}",reason="secret"}} 3.0' in metrics
    assert "telemetry_connections_unreadable 0.0" not in metrics
    ready = lake.receiver.client.get("/health/ready")
    assert ready.status_code == 200
    numbers = re.search(r"accepts no reports for connections? ([\d, ]+)", ready.text)
    assert numbers is not None
    assert str(connection) in numbers[1].split(", ")
    shown = run_command(lake.folder, "status", DB_URL=lake.url).stdout
    assert f"accepts no reports: connection {connection}, " in shown
    assert f"{reason}; {REMEDIES[reason]}" in shown
    listed = json.loads(run_command(lake.folder, "status", "--json", DB_URL=lake.url).stdout)
    assert [reason in each["fault"] for each in listed if each["id"] == connection] == [True]
    page = lake.receiver.client.get(f"/set-up?connection={connection}").text
    assert "no secret token" not in page
    assert "accepts no reports now" in page
    assert "Authorization: Bearer" in page
    store(lake.url, connection, encrypt(TOKEN, SECRET))
    assert lake.send(connection, TOKEN) == 200


def test_an_api_key_that_matches_tells_a_new_format_from_another_secret(lake: Lake) -> None:
    for each in query(lake.url, f"SELECT id FROM {CONNECTION_TABLE}"):
        query(lake.url, f"DELETE FROM {CONNECTION_TABLE} WHERE id = {each[0]}")
    connection = lake.add(PERHAPS_NEWER)

    assert lake.send(connection, KEY) == 200
    said = [lake.receiver.send(report("ann"), connection, TOKEN).json()["message"]]

    assert said[0].endswith(UNKNOWN_FORMAT)


def test_the_previous_token_counts_although_the_current_one_can_not_be_read(lake: Lake) -> None:
    connection = lake.add(NO_FORMAT)
    query(
        lake.url,
        f"UPDATE {CONNECTION_TABLE} SET previous_token_until = {int(time.time()) + WEEK},"
        f" previous_secret_token = '{encrypt_as_june('before', SECRET)}' WHERE id = {connection}",
    )

    assert [lake.send(connection, each) for each in ("before", TOKEN)] == [200, 503]


def test_readiness_names_connections_and_nothing_that_strangers_may_not_know(lake: Lake) -> None:
    connections = [lake.add(encrypt_as_june(LONG_TOKEN, "another")) for _ in range(7)]

    def said() -> str:
        text = lake.receiver.client.get("/health/ready").text
        return text if "more: their secret tokens can't be read" in text else ""

    answer = eventually(said, 20)
    for hidden in (
        "telemetry.db",
        "_tool_",
        "127.0.0.1",
        "merico",
        "connection 1 (",
        str(lake.url),
    ):
        assert hidden not in answer
    # The log has each, with the reason, once the round of checks ends.
    for number in connections:
        line = rf"connection {number} \(.*{re.escape(UNKNOWN_FORMAT)}"
        assert eventually(lambda: re.search(line, lake.receiver.log), 20)  # noqa: B023
