"""Connections and their secret tokens: as DevLake encrypts them, and as senders meet them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, Optional

import httpx
import pytest

from developer_telemetry.connections.crypto import decrypt, encrypt
from tests.support.receivers import (
    SECRET,
    TOKEN,
    Receiver,
    add_connection,
    eventually,
    query,
    report,
    run_command,
)
from tests.support.threads import run_simultaneously

REST = "/rest/plugins/developer_telemetry/connections/{}/report"

# Made with another program than ours, of DevLake's rules:
#   key=$(printf '%s' "$secret" | openssl dgst -sha256 -r | cut -d' ' -f1)
#   printf '%s{nddtf}' "$value" | openssl enc -aes-256-cbc -K $key -iv ${key:0:32} -base64 -A
VECTOR_SECRET = "a secret of DevLake"
VECTORS = {
    "devlake-token-1": "cBeFiHNNGtmUkWpRYeqdiywD7YPg8mcq7FADPZ8kjk0=",
    "": "iR+ldMFRw75ikrrx7SSVPA==",
    "ключ ü 漢字 🔑": "aZFqslgSxjhFpqTCEYZfG9ZCEytMZn9LWWGXjvQQyhY=",
    "012345678": "pZUfXY4dx5RaUrkSN9MacuCW+Fo4S9wunXOHKRWrm9I=",  # the padding is a whole block
}


@pytest.mark.parametrize(("value", "encrypted"), VECTORS.items(), ids=list(VECTORS))
def test_a_value_is_encrypted_as_devlake_does(value: str, encrypted: str) -> None:
    assert encrypt(value, VECTOR_SECRET) == encrypted
    assert decrypt(encrypted, VECTOR_SECRET) == value


@pytest.mark.parametrize(
    "text",
    [
        "plain text",
        "",
        "not+base64",
        base64.b64encode(b"fifteen bytes..").decode(),
        base64.b64encode(bytes(16)).decode(),
        VECTORS["devlake-token-1"][:-4],
        encrypt("devlake-token-1", "another secret"),
    ],
)
def test_what_was_not_encrypted_under_the_secret_is_not_decrypted(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decrypt(text, VECTOR_SECRET)


class Lake(NamedTuple):
    """A receiver, its database, and where its files are."""

    receiver: Receiver
    url: str
    folder: Path

    def send(
        self, connection: int, token: Optional[str] = None, path: str = "", **headers: str
    ) -> httpx.Response:
        options = {"path": path, **headers} if path else headers
        return self.receiver.send(report("ann"), connection, token, **options)

    def store_token(self, connection: int, encrypted: Optional[str]) -> None:
        value = "NULL" if encrypted is None else f"'{encrypted}'"
        query(
            self.url,
            "UPDATE _tool_developer_telemetry_connections"
            f" SET secret_token = {value} WHERE id = {connection}",
        )


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("connections")
    url = f"sqlite:///{folder}/telemetry.db"
    with Receiver(url, folder) as receiver:
        yield Lake(receiver, url, folder)


@pytest.fixture(scope="module")
def guarded(lake: Lake) -> int:
    """A connection that takes `TOKEN`; no test changes it."""
    return add_connection(lake.url)


def assert_unauthorized(answer: httpx.Response, message: str) -> None:
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["success"] is False
    assert message in answer.json()["message"]


@pytest.mark.parametrize(
    "authorization", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer    {}", "bEaReR {}  "]
)
def test_the_word_bearer_is_read_in_any_case(lake: Lake, guarded: int, authorization: str) -> None:
    answer = lake.send(guarded, authorization=authorization.format(TOKEN).rstrip())

    assert answer.status_code == 200


def test_a_missing_token_is_refused(lake: Lake, guarded: int) -> None:
    sent = ["", "Bearer", TOKEN, f"Basic {TOKEN}", f"Bearer{TOKEN}"]
    calls = [partial(lake.send, guarded, authorization=each) for each in sent]

    for answer in run_simultaneously([partial(lake.send, guarded), *calls]):
        assert_unauthorized(answer, "token is missing")


def test_a_wrong_token_is_refused_and_not_repeated(lake: Lake, guarded: int) -> None:
    wrong = ["wrong", TOKEN.upper(), TOKEN[:-1], TOKEN + "x", f"{TOKEN} x", f"{TOKEN},{TOKEN}"]

    answers = run_simultaneously([partial(lake.send, guarded, token) for token in wrong])

    for token, answer in zip(wrong, answers):
        assert_unauthorized(answer, "the token is not this connection's")
        assert token not in answer.text


def test_another_connections_token_is_refused(lake: Lake, guarded: int) -> None:
    other = add_connection(lake.url, "the other one's")

    assert lake.send(other, "the other one's").status_code == 200
    swapped = [(other, TOKEN), (guarded, "the other one's")]
    for answer in run_simultaneously([partial(lake.send, *each) for each in swapped]):
        assert_unauthorized(answer, "not this connection's")


def test_a_token_beyond_ascii_is_compared_as_sent(lake: Lake) -> None:
    connection = add_connection(lake.url, "clé-ключ")

    answer = lake.receiver.client.post(
        f"/plugins/developer-telemetry/{connection}/report",
        json=report("ann"),
        headers=[(b"authorization", "Bearer clé-ключ".encode())],
    )

    assert answer.status_code == 200


def test_a_change_is_in_force_within_five_seconds(lake: Lake) -> None:
    changed, deleted = add_connection(lake.url, "old"), add_connection(lake.url, "old")
    for connection in (changed, deleted):
        assert lake.send(connection, "old").status_code == 200

    lake.store_token(changed, encrypt("new", SECRET))
    query(lake.url, f"DELETE FROM _tool_developer_telemetry_connections WHERE id = {deleted}")

    def old_token(connection: int) -> int:
        return lake.send(connection, "old").status_code

    def in_force() -> bool:
        calls = [partial(old_token, connection) for connection in (changed, deleted)]
        return run_simultaneously(calls) == [401, 404]

    eventually(in_force, seconds=5)


def test_a_new_token_works_at_once(lake: Lake) -> None:
    connection = add_connection(lake.url, "old")
    assert lake.send(connection, "old").status_code == 200

    lake.store_token(connection, encrypt("new", SECRET))

    assert lake.send(connection, "new").status_code == 200


def test_a_connection_made_a_moment_ago_takes_reports(lake: Lake) -> None:
    made = run_command(lake.folder, "connect", "fresh", "--json", DB_URL=lake.url)
    connection = json.loads(made.stdout)
    started = time.monotonic()

    assert lake.send(connection["id"], connection["token"]).status_code == 200
    assert time.monotonic() - started < 30


def test_an_empty_token_lets_everyone_in_except_on_rest(lake: Lake) -> None:
    connections = [add_connection(lake.url) for _ in range(3)]
    for connection, stored in zip(connections, [None, "", encrypt("", SECRET)]):
        lake.store_token(connection, stored)
    tokens = [None, "whatever a collector has"]

    for connection in connections:
        assert [lake.send(connection, token).status_code for token in tokens] == [200, 200]
    for answer in run_simultaneously(
        [
            partial(lake.send, connection, token, path)
            for connection in connections
            for token in tokens
            for path in (REST, "/api" + REST)
        ]
    ):
        assert_unauthorized(answer, "set one first")


def test_a_token_that_can_not_be_decrypted_lets_nobody_in(lake: Lake) -> None:
    stored = [encrypt(TOKEN, "another secret"), encrypt("", "another secret"), TOKEN]
    connections = [add_connection(lake.url) for _ in stored]
    for connection, text in zip(connections, stored):
        lake.store_token(connection, text)

    for answer in run_simultaneously(
        [
            partial(lake.send, connection, token)
            for connection, text in zip(connections, stored)
            for token in (None, "x", TOKEN, text)
        ]
    ):
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["success"] is False
        assert "its secret token can't be decrypted: " in answer.json()["message"]
    # It heals without a restart.
    lake.store_token(connections[0], encrypt(TOKEN, SECRET))
    assert lake.send(connections[0], TOKEN).status_code == 200


def test_the_receiver_says_at_start_who_sends_without_a_token_or_can_not_send(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    receiver = Receiver(url, tmp_path)
    with receiver:
        guarded = add_connection(url)
        unguarded = add_connection(url, "")
        locked = add_connection(url)
        Lake(receiver, url, tmp_path).store_token(locked, encrypt("x", "another secret"))
    said_before = len(receiver.log)

    with receiver:
        said = [line for line in receiver.log[said_before:].splitlines() if "connection" in line]

    assert len([line for line in said if f"connection {guarded} " in line]) == 0
    [line] = [line for line in said if f"connection {unguarded} " in line]
    assert "WARNING" in line
    assert "has no secret token" in line
    [line] = [line for line in said if f"connection {locked} " in line]
    assert "WARNING" in line
    assert "refuses every report: its secret token can't be decrypted" in line


def test_a_token_can_be_required_of_everyone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    with Receiver(url, tmp_path, TELEMETRY_REQUIRE_TOKEN="true") as receiver:
        lake = Lake(receiver, url, tmp_path)
        unguarded, guarded = add_connection(url, ""), add_connection(url)

        for answer in run_simultaneously(
            [partial(lake.send, unguarded, token) for token in (None, "any")]
        ):
            assert_unauthorized(answer, "set one first")
        assert lake.send(guarded, TOKEN).status_code == 200
        assert query(url, "SELECT DISTINCT connection_id FROM _raw_developer_telemetry") == [
            (guarded,)
        ]


def test_refusals_of_many_strangers_cost_at_most_one_look_a_second(lake: Lake) -> None:
    # Each waits for a look of its own; a sender with the token waits for nothing.
    guarded = add_connection(lake.url)
    lake.send(guarded, TOKEN)
    started = time.monotonic()

    for _ in range(2):
        assert_unauthorized(lake.send(guarded, "guess"), "not this connection's")

    assert time.monotonic() - started > 0.9
    started = time.monotonic()
    for _ in range(10):  # with a look for each, it would take ten seconds
        assert lake.send(guarded, TOKEN).status_code == 200
    assert time.monotonic() - started < 8
