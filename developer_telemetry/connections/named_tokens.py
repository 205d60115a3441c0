"""Named tokens of a connection, each for a group of its machines, and the last use of each token.

They are in a table of ours, which DevLake's API does not know.
"""

from __future__ import annotations

import time
from functools import partial
from typing import NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from developer_telemetry.connections.crypto import decrypt, encrypt, is_cbc
from developer_telemetry.connections.registry import Connection, new_token, token_hint
from developer_telemetry.constants import TOKEN_TABLE
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import now_us, reading, transact
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.storage.connection_locks import require_connections
from developer_telemetry.storage.token_uses import read_token_uses

CURRENT = "current"
PREVIOUS = "previous"
MAX_NAME = 64


class ListedToken(NamedTuple):
    """One token that a connection has; times are in microseconds, None for none."""

    name: str
    hint: str
    created_us: Optional[int] = None
    valid_until_us: Optional[int] = None
    last_used_us: Optional[int] = None
    fault: str = ""


class NamedTokens:
    """The named tokens in a database."""

    def __init__(self, engine: Engine, encryption_secret: str) -> None:
        self._engine = engine
        self._secret = encryption_secret
        self._placeholder = dialect_of(engine).placeholder

    def add(self, connection: Connection, name: str) -> str:
        """Make a token for a group of machines and return it.

        Raises:
            ConfigurationError: The name is not valid or in use, or the connection needs no token.
        """
        name = name.strip()
        if not 1 <= len(name) <= MAX_NAME or name in (CURRENT, PREVIOUS):
            raise ConfigurationError(
                f"a token's name has 1 to {MAX_NAME} characters, and is not {CURRENT!r} or"
                f" {PREVIOUS!r}"
            )
        if connection.is_open:
            raise ConfigurationError(
                f"connection {connection.id} ({connection.name}) accepts reports without a token;"
                f" `developer-telemetry token rotate {connection.id}` gives it one first"
            )
        token = new_token()
        row = (connection.id, name, encrypt(token, self._secret), now_us())

        def work(sql_connection: SqlConnection) -> None:
            require_connections(sql_connection, [connection.id])
            columns = ("connection_id", "name", "secret_token", "created_us")
            insert(sql_connection, TOKEN_TABLE, columns, [row], "")

        try:
            transact(self._engine, work)
        except IntegrityError:
            raise ConfigurationError(
                f"connection {connection.id} ({connection.name}) has a token {name!r} already;"
                " choose another name, or revoke that one first"
            ) from None
        return token

    def revoke(self, connection_id: int, name: Optional[str] = None) -> None:
        """End one named token of a connection, or all of them."""
        condition, parameters = "", [connection_id]
        if name is not None:
            condition = f" AND name = {self._placeholder}"
            parameters.append(name)  # type: ignore[arg-type]
        statement = (
            f"DELETE FROM {TOKEN_TABLE} WHERE connection_id = {self._placeholder}{condition}"
        )
        work = partial(
            SqlConnection.exec_driver_sql, statement=statement, parameters=tuple(parameters)
        )
        transact(self._engine, work)

    def list(self, connection: Connection) -> list[ListedToken]:
        """Return all tokens that a connection has: current, previous, and named ones by name."""
        uses = read_token_uses(self._engine, connection.id)
        created = self._read_created(connection.id)

        def listed(name: str, value: Optional[str], fault: str = "") -> ListedToken:
            last_used_us = uses.get(connection.fingerprints.get(value or "", ""))
            return ListedToken(
                name, token_hint(value), created.get(name), None, last_used_us, fault
            )

        tokens = []
        if not connection.is_open:
            tokens.append(listed(CURRENT, connection.token, connection.fault))
        if connection.previous_token and time.time() < connection.previous_until:
            previous = listed(PREVIOUS, connection.previous_token)
            until_us = connection.previous_until * 1_000_000
            tokens.append(previous._replace(valid_until_us=until_us))
        return [*tokens, *(listed(*named) for named in connection.named_tokens)]

    def _read_created(self, connection_id: int) -> dict[str, int]:
        with reading(self._engine).connect() as connection:
            rows = connection.exec_driver_sql(
                f"SELECT name, created_us FROM {TOKEN_TABLE}"
                f" WHERE connection_id = {self._placeholder}",
                (connection_id,),
            )
            return {row[0]: int(row[1]) for row in rows}

    def rewrite(self, connection: Connection) -> int:
        """Encrypt the named tokens again where needed, as `rewrite_secrets`; return how many."""
        return transact(self._engine, partial(self._encrypt_again, connection))

    def _encrypt_again(self, connection: Connection, sql_connection: SqlConnection) -> int:
        param = self._placeholder
        readable = {named.name for named in connection.named_tokens if named.value}
        rows = sql_connection.exec_driver_sql(
            f"SELECT name, secret_token FROM {TOKEN_TABLE} WHERE connection_id = {param}",
            (connection.id,),
        ).fetchall()
        changed = 0
        for name, text in rows:
            if name in readable and not is_cbc(text, self._secret):
                sql_connection.exec_driver_sql(
                    f"UPDATE {TOKEN_TABLE} SET secret_token = {param}"
                    f" WHERE connection_id = {param} AND name = {param}",
                    (encrypt(decrypt(text, self._secret), self._secret), connection.id, name),
                )
                changed += 1
        return changed
