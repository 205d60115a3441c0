"""Tokens of groups: valid beside each other, ended one by one, and when each was last used."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from developer_telemetry.connections.crypto import decrypt, encrypt
from developer_telemetry.connections.database_backend import DatabaseBackend
from developer_telemetry.connections.named_tokens import NamedTokens
from developer_telemetry.connections.registry import Connections, create
from developer_telemetry.constants import TOKEN_TABLE, TOKEN_USE_TABLE
from developer_telemetry.database.engine import now_us, open_engine
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.storage.token_uses import TokenUses, read_token_uses
from tests.support.lake_secrets import encrypt_as_june
from tests.support.receivers import SECRET, Receiver, eventually, query, report, run_command


class Fleet(NamedTuple):
    """A receiver, and a connection `fleet` with its token."""

    receiver: Receiver
    url: str
    folder: Path
    token: str

    def run(self, *arguments: str, status: int = 0) -> Any:
        done = run_command(self.folder, "token", *arguments, DB_URL=self.url)
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout + done.stderr

    def add(self, group: str) -> str:
        return str(self.run("add", "fleet", group, "--json")["token"])

    def send(self, token: str) -> int:
        return self.receiver.send(report("ann"), 1, token).status_code

    def listed(self) -> dict[str, dict[str, Any]]:
        return {token["name"]: token for token in self.run("list", "fleet", "--json")}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("named-tokens")
    url = f"sqlite:///{folder}/telemetry.db"
    assert run_command(folder, "migrate", DB_URL=url).returncode == 0
    made = run_command(folder, "connect", "fleet", "--json", DB_URL=url)
    with Receiver(url, folder) as receiver:
        yield Fleet(receiver, url, folder, json.loads(made.stdout)["token"])


def test_a_leaked_token_is_replaced_for_its_group_alone(fleet: Fleet) -> None:
    leaked, other = fleet.add("laptops"), fleet.add("build agents")
    for token in (fleet.token, leaked, other):
        assert fleet.send(token) == 200
    assert leaked.encode() not in Path(fleet.url[len("sqlite:///") :]).read_bytes()

    assert "give --yes" in fleet.run("revoke", "fleet", "laptops", status=2)
    fleet.run("revoke", "fleet", "laptops", "--yes")

    eventually(lambda: fleet.send(leaked) == 401, 10)
    assert [fleet.send(token) for token in (fleet.token, other)] == [200, 200]
    assert "has no token 'laptops'" in fleet.run("revoke", "fleet", "laptops", "--yes", status=2)
    assert "has a token 'build agents' already" in fleet.run(
        "add", "fleet", "build agents", status=2
    )
    for name in ("current", "previous", " ", "x" * 65):
        assert "a token's name has 1 to 64 characters" in fleet.run("add", "fleet", name, status=2)


def used_at(token: dict[str, Any]) -> float:
    """Return the time of a token's last use, 0 for none."""
    text = token["last_used"]
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else 0


def test_the_list_tells_who_sends_which_token(fleet: Fleet) -> None:
    unused = fleet.add("unused")
    before = int(time.time())  # as the list has times, in whole seconds
    assert fleet.send(fleet.token) == 200
    # Until then the list may have an earlier use.
    eventually(lambda: used_at(fleet.listed()["current"]) >= before, 15)
    old = fleet.token
    new = fleet.run("rotate", "fleet", "--keep-old", "1h", "--json")["token"]

    tokens = fleet.listed()

    assert (tokens["current"]["token"], tokens["current"]["last_used"]) == (
        f"ends in {new[-4:]}",
        None,
    )
    assert before <= used_at(tokens["previous"]) <= time.time()
    assert tokens["previous"]["token"] == f"ends in {old[-4:]}"
    assert tokens["previous"]["valid_until"] is not None
    assert (tokens["unused"]["last_used"], tokens["unused"]["token"]) == (
        None,
        f"ends in {unused[-4:]}",
    )
    assert "never" in fleet.run("list", "fleet")


def test_a_new_receiver_has_named_tokens_while_the_database_is_away(fleet: Fleet) -> None:
    token = fleet.add("spooling")
    eventually(lambda: fleet.send(token) == 200, 10)
    away = open_engine(f"sqlite:///{fleet.folder}/nothing.db")
    memory = fleet.folder / f"spool-{fleet.receiver.port}" / "connections.json"

    connection = Connections(away, SECRET, memory).get(1)

    assert connection is not None
    assert connection.match(token.encode())
    assert token not in memory.read_text()


def test_devlakes_api_alone_has_no_named_tokens(tmp_path: Path) -> None:
    done = run_command(tmp_path, "token", "add", "1", "x", DEVLAKE_URL="http://127.0.0.1:1")

    assert done.returncode == 2
    assert "set DB_URL and ENCRYPTION_SECRET" in done.stderr


def test_named_tokens_on_each_database(migrated_url: str) -> None:
    engine = open_engine(migrated_url)
    connection_id = create(engine, SECRET, "fleet", "token")
    tokens, registry = NamedTokens(engine, SECRET), Connections(engine, SECRET)

    def connection() -> Any:
        registry.reload()
        return registry.get(connection_id)

    token = tokens.add(connection(), "Größe")
    with pytest.raises(ConfigurationError, match="already"):
        tokens.add(connection(), "Größe")
    tokens.add(connection(), "größe")
    fingerprint = connection().match(token.encode())
    uses, start = TokenUses(), now_us()
    for _ in range(2):
        uses.note(connection_id, fingerprint)
        uses.note(connection_id + 1, fingerprint)  # of a connection that is gone
        uses.flush(engine)
    other = TokenUses()  # of a receiver that saw it before
    other._used[connection_id, fingerprint] = start - 1
    other.flush(engine)

    assert list(read_token_uses(engine, connection_id)) == [fingerprint]
    assert start <= read_token_uses(engine, connection_id)[fingerprint] <= now_us()
    assert read_token_uses(engine, connection_id + 1) == {}
    listed = {item.name: item for item in tokens.list(connection())}
    assert list(listed) == ["current", "Größe", "größe"]
    assert (listed["Größe"].last_used_us is None, listed["größe"].last_used_us) == (False, None)

    encrypted = encrypt_as_june(token, SECRET)
    query(migrated_url, f"UPDATE {TOKEN_TABLE} SET secret_token = '{encrypted}'")
    assert connection().match(token.encode()) == fingerprint
    assert (tokens.rewrite(connection()), tokens.rewrite(connection())) == (2, 0)
    [(text,), _] = query(migrated_url, f"SELECT secret_token FROM {TOKEN_TABLE}")
    assert decrypt(text, SECRET) == token

    foreign = encrypt(token, "another secret")
    query(migrated_url, f"UPDATE {TOKEN_TABLE} SET secret_token = '{foreign}' WHERE name = 'Größe'")
    assert "its token 'Größe' can't be decrypted" in connection().token_fault
    assert "refuses a group of machines" in connection().remarks[0]
    tokens.revoke(connection_id, "Größe")
    assert [named.name for named in connection().named_tokens] == ["größe"]

    if not migrated_url.startswith("sqlite"):
        query(migrated_url, "DROP TABLE IF EXISTS _devlake_migration_history")
    DatabaseBackend(engine, SECRET).delete(connection_id)
    for table in (TOKEN_TABLE, TOKEN_USE_TABLE):
        assert query(migrated_url, f"SELECT COUNT(*) FROM {table}") == [(0,)]
    engine.dispose()
