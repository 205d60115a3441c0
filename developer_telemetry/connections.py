"""Connections, and the secret tokens that their machines send."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import secrets
import threading
import time
from typing import NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from developer_telemetry.dialects import dialect_of, insert, now_us, reading, transact
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.merging import OVERWRITE, SCOPE_ID, raw_params, strategy_of, timestamp

CONNECTION_TABLE = "_tool_developer_telemetry_connections"
SCOPE_TABLE = "_tool_developer_telemetry_scopes"
MAX_NAME = 100

# DevLake marks the end of a value with it before padding, and so tells a wrong key by its absence.
_END_OF_VALUE = b"{nddtf}"
# A stranger who guesses ids must not make us read the database for each guess.
RELOAD_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Connection(NamedTuple):
    """A connection as the receiver needs it.

    `token` is None where none is set. `fault` says why its token can't be known, `""` if it can.
    """

    id: int
    name: str
    token: Optional[str]
    strategy: str
    fault: str = ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What an operator should know about it."""
        who = f"connection {self.id} ({self.name})"
        if self.fault:
            return (f"{who} refuses every report: {self.fault}",)
        if self.token is None:
            return (f"{who} has no secret token: whoever reaches this receiver can send to it",)
        return ()

    def accepts(self, token: bytes) -> bool:
        """Whether `token`, as it was sent, is this connection's; compared in constant time."""
        expected = (self.token or "").encode()
        same = hmac.compare_digest(token, expected)
        return same and bool(expected) and not self.fault


def encrypt(value: str, encryption_secret: str) -> str:
    """As DevLake stores a password: base64 of AES-256-CBC under its `ENCRYPTION_SECRET`."""
    from cryptography.hazmat.primitives.padding import PKCS7

    padder = PKCS7(128).padder()
    padded = padder.update(value.encode() + _END_OF_VALUE) + padder.finalize()
    encryptor = _cipher(encryption_secret).encryptor()
    return base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode()


def decrypt(text: str, encryption_secret: str) -> str:
    """The value behind `text`; `ValueError` if it was encrypted under another secret."""
    from cryptography.hazmat.primitives.padding import PKCS7

    decryptor = _cipher(encryption_secret).decryptor()
    padded = decryptor.update(base64.b64decode(text, validate=True)) + decryptor.finalize()
    unpadder = PKCS7(128).unpadder()
    value = unpadder.update(padded) + unpadder.finalize()
    if not value.endswith(_END_OF_VALUE):
        raise ValueError("the end mark is missing")
    return value[: -len(_END_OF_VALUE)].decode()


def _cipher(encryption_secret: str):  # type: ignore[no-untyped-def]  # its type is never needed
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = hashlib.sha256(encryption_secret.encode()).digest()
    return Cipher(algorithms.AES(key), modes.CBC(key[:16]))


class Connections:
    """All connections, kept in memory so that a request asks the database nothing.

    `reload` may be called from any thread, at any time.
    """

    def __init__(self, engine: Engine, encryption_secret: str) -> None:
        self._engine = engine
        self._secret = encryption_secret
        self._known: dict[int, Connection] = {}
        self._decrypted: dict[str, tuple[Optional[str], str]] = {}
        self._lock = threading.Lock()
        self._asked_at = float("-inf")

    def get(self, connection_id: int) -> Optional[Connection]:
        """The connection as last read."""
        return self._known.get(connection_id)

    def all(self) -> tuple[Connection, ...]:
        """Every connection as last read, by id."""
        return tuple(self._known[each] for each in sorted(self._known))

    def reload_due_in(self) -> float:
        """Seconds until reading again is not too soon."""
        return max(0.0, self._asked_at + RELOAD_SECONDS - time.monotonic())

    def reload(self) -> None:
        """Read all connections; what is known stays as it is when the database can't be asked."""
        with self._lock:
            self._asked_at = time.monotonic()
            with reading(self._engine).connect() as connection:
                rows = connection.exec_driver_sql(
                    f"SELECT id, name, secret_token, duplicate_strategy FROM {CONNECTION_TABLE}"
                ).fetchall()
            self._known = {row[0]: self._read(*row) for row in rows}

    def _read(
        self, connection_id: int, name: str, secret_token: Optional[str], strategy: Optional[str]
    ) -> Connection:
        token, fault = self._token(secret_token or "")
        try:
            strategy = strategy_of(strategy)
        except ConfigurationError as error:
            # A report is worth more than its strategy; a re-transform can apply another later.
            logger.warning("connection %s: %s; taken as %s", connection_id, error, OVERWRITE)
            strategy = OVERWRITE
        return Connection(connection_id, name, token, strategy, fault)

    def _token(self, encrypted: str) -> tuple[Optional[str], str]:
        if not encrypted:
            return None, ""
        if encrypted not in self._decrypted:
            try:
                self._decrypted[encrypted] = (decrypt(encrypted, self._secret) or None, "")
            except ValueError:
                fault = "its secret token can't be decrypted: ENCRYPTION_SECRET is not DevLake's"
                self._decrypted[encrypted] = (None, fault)
        return self._decrypted[encrypted]


def new_token() -> str:
    """A secret token that nobody guesses and every shell takes unquoted."""
    return secrets.token_urlsafe(32)


def create(
    engine: Engine, encryption_secret: str, name: str, token: str, strategy: str = ""
) -> int:
    """Make a connection with its scope in a database that DevLake does not own; return its id."""
    name = name.strip()
    if not name or len(name) > MAX_NAME:
        raise ConfigurationError(f"a connection's name has 1 to {MAX_NAME} characters")
    strategy_of(strategy)
    now = timestamp(now_us())
    mark = dialect_of(engine).placeholder
    row = {
        "name": name,
        "endpoint": "",
        "secret_token": encrypt(token, encryption_secret),
        "duplicate_strategy": strategy,
        "created_at": now,
        "updated_at": now,
    }

    def work(connection: SqlConnection) -> int:
        insert(connection, CONNECTION_TABLE, tuple(row), [tuple(row.values())], "")
        connection_id: int = connection.exec_driver_sql(
            f"SELECT id FROM {CONNECTION_TABLE} WHERE name = {mark}", (name,)
        ).scalar_one()
        scope = {
            "connection_id": connection_id,
            "id": SCOPE_ID,
            "name": "All reports",
            "created_at": now,
            "updated_at": now,
            "_raw_data_params": raw_params(connection_id),
            "_raw_data_table": "_raw_developer_telemetry_scopes",
        }
        insert(connection, SCOPE_TABLE, tuple(scope), [tuple(scope.values())], "")
        return connection_id

    try:
        return transact(engine, work)
    except IntegrityError:
        raise ConfigurationError(
            f"there is a connection named {name!r} already; choose another name"
        ) from None
