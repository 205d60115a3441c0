"""Connections, and the secret tokens that their machines send."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Optional, Protocol, TypeVar, Union

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from developer_telemetry.connections.api_keys import ApiKey, read_api_key
from developer_telemetry.connections.crypto import SecretReader, encrypt, remedy_of
from developer_telemetry.constants import (
    CONNECTION_TABLE,
    OVERWRITE,
    RAW_TABLE,
    SCOPE_ID,
    SCOPE_NAME,
    SCOPE_TABLE,
    TOKEN_TABLE,
    strategy_of,
)
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import connect_to_primary, now_us, reading, transact
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.private_files import replace_file
from developer_telemetry.reports.daily_metrics import build_raw_params, format_timestamp
from developer_telemetry.reports.parser import Report
from developer_telemetry.reports.privacy_filter import PrivacyRules
from developer_telemetry.reports.pseudonyms import Pseudonyms
from developer_telemetry.reports.sender import parse_by
from developer_telemetry.storage.devlake_schema import read_api_keys

MAX_NAME = 100
# Four characters would reveal too much of a shorter token.
MIN_HINTED_LENGTH = 20

# A sender that guesses ids must not cause a read of the database for each guess.
RELOAD_SECONDS = 1.0
# The time for which the table of connections may be empty during a restore. A sender that gets a
# 404 meanwhile may never send that day again.
EMPTY_SECONDS = 600.0

logger = logging.getLogger(__name__)


class NamedToken(NamedTuple):
    """A token for a group of machines; None with a reason if it can't be read."""

    name: str
    value: Optional[str]
    fault: str = ""


class Connection(NamedTuple):
    """A connection as the receiver needs it.

    `token` is None where none is set or it can't be read; `fault` is the reason then, and `""`
    otherwise. `previous_token` is valid until `previous_until` (epoch seconds), while
    machines change over. `privacy` is None where reports are stored unchanged.
    """

    id: int
    name: str
    token: Optional[str]
    strategy: str
    previous_token: Optional[str] = None
    previous_until: int = 0
    fault: str = ""
    privacy: Optional[PrivacyRules] = None
    named_tokens: tuple[NamedToken, ...] = ()
    # Of each token, by its text: what the table of last uses has.
    fingerprints: Mapping[str, str] = MappingProxyType({})

    @property
    def remarks(self) -> tuple[str, ...]:
        """Return warnings for an operator."""
        subject = f"connection {self.id} ({self.name})"
        if self.fault:
            remedy = remedy_of(self.fault)
            return (
                f"{subject} refuses every report: {self.fault}; {remedy} (DevLake's API keys work)",
            )
        if self.token_fault:
            return (f"{subject} refuses a group of machines: {self.token_fault}",)
        if self.is_open:
            return (f"{subject} has no secret token: it accepts reports from everybody",)
        return ()

    @property
    def is_open(self) -> bool:
        """Return true if reports need no token; a token that can't be read counts as one."""
        return self.token is None and not self.fault and not self.named_tokens

    @property
    def token_fault(self) -> str:
        """Return the reason why its token, or a named one, can't be read; `""` if all can be."""
        return self.fault or next((named.fault for named in self.named_tokens if named.fault), "")

    @property
    def takes_tokens(self) -> bool:
        """Return true if a report with the right token would be accepted."""
        return self.is_open or bool(self.tokens)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Return the tokens that are valid now, the current one first."""
        rotating = time.time() < self.previous_until
        named = (token.value for token in self.named_tokens)
        candidates = (self.token, self.previous_token if rotating else None, *named)
        return tuple(filter(None, candidates))

    def accepts(self, token: bytes) -> bool:
        """Return true if `token` is this connection's; it is compared in constant time."""
        return any(_is_equal(token, own) for own in self.tokens)

    def match(self, token: bytes) -> str:
        """Return the fingerprint of a token if it is this connection's, else `""`."""
        if _is_equal(token, self.token):  # as nearly always
            return self.fingerprints[self.token or ""]
        return next((self.fingerprints[own] for own in self.tokens if _is_equal(token, own)), "")

    def parse(self, body: Union[bytes, str]) -> Report:
        """Parse a body with this connection's privacy settings; receiver and import both use this.

        Raises:
            ReportRefused: It can't be stored.
        """
        return parse_by(self.privacy, body)


def _is_equal(token: bytes, expected: Optional[str]) -> bool:
    return hmac.compare_digest(token, (expected or "").encode()) and bool(expected)


class StoredRows(NamedTuple):
    """The rows of the database, with secrets as they are stored: encrypted or hashed."""

    # id, name, secret, previous secret, its end, strategy, strip_paths, pseudonyms
    connections: list[list[Any]]
    # hash, allowed path, expiry in epoch seconds or None, name
    api_keys: list[list[Any]]
    # connection, name, secret
    tokens: list[list[Any]] = []  # the file of an older version lacks these


class Connections:
    """All connections and API keys, in memory, so that no request needs the database.

    `memory` is a file from which a new process reads them while the database is away. `reload` may
    be called from any thread, at any time.
    """

    def __init__(
        self, engine: Engine, encryption_secret: str, memory: Optional[Path] = None
    ) -> None:
        self._engine = engine
        self._secret = encryption_secret
        self._memory = memory
        self._stored = StoredRows([], [])
        self._connections: dict[int, Connection] = {}
        self._api_keys: dict[str, ApiKey] = {}
        self._secrets = SecretReader(encryption_secret)
        self._was_proven = False
        self._lock = threading.Lock()
        self._reloaded_at = float("-inf")
        self._emptied_at = float("-inf")
        if memory is not None and memory.exists():
            self._read_memory(memory)

    def get(self, connection_id: int) -> Optional[Connection]:
        """Return the connection as last read; None if there is none."""
        return self._connections.get(connection_id)

    def all(self) -> tuple[Connection, ...]:
        """Return all connections as last read, by id."""
        return tuple(
            self._connections[connection_id] for connection_id in sorted(self._connections)
        )

    def unreadable(self) -> tuple[Connection, ...]:
        """Return the connections that accept no token, since theirs can't be read."""
        return tuple(
            connection
            for connection in self.all()
            if connection.fault and not connection.takes_tokens
        )

    def api_key(self, key: bytes) -> Optional[ApiKey]:
        """Return DevLake's record of a sent API key; None if DevLake has no such key."""
        digest = hmac.new(self._secret.strip().encode(), key, hashlib.sha256).hexdigest()
        api_key = self._api_keys.get(digest)
        self._secrets.is_proven = self._secrets.is_proven or api_key is not None
        return api_key

    @property
    def remarks(self) -> tuple[str, ...]:
        """Return warnings about connections and API keys for an operator."""
        of_connections = [remark for connection in self.all() for remark in connection.remarks]
        return (*of_connections, *filter(None, (key.remark for key in self._api_keys.values())))

    def reload_due_in(self) -> float:
        """Return the seconds until the next reload may start."""
        return max(0.0, self._reloaded_at + RELOAD_SECONDS - time.monotonic())

    def reload(self) -> None:
        """Read all of them; if the database can't be read, the ones in memory stay."""
        with self._lock:
            self._reloaded_at = time.monotonic()
            stored = _read(self._engine)
            if stored != self._stored:
                self._replace(stored)
                if stored.connections:
                    self._write_memory()
            elif self._secrets.is_proven != self._was_proven:
                self._replace(stored)  # the reason why a token can't be read is clearer now

    def _write_memory(self) -> None:
        if self._memory is None:
            return
        try:
            with replace_file(self._memory) as file:
                file.write(json.dumps(self._stored._asdict()).encode())
        except OSError as error:  # a full disk is no reason to refuse reports
            logger.warning("can't write the connections to %s: %s", self._memory, error)

    def _read_memory(self, memory: Path) -> None:
        try:
            self._replace(StoredRows(**json.loads(memory.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError) as error:
            logger.warning("the connections in %s can't be read: %s", memory, error)

    def is_recently_emptied(self) -> bool:
        """Return true if all connections disappeared lately, as while a dump is restored."""
        return time.monotonic() - self._emptied_at < EMPTY_SECONDS

    def _replace(self, stored: StoredRows) -> None:
        if self._connections and not stored.connections:
            self._emptied_at = time.monotonic()
        elif stored.connections:
            self._emptied_at = float("-inf")
        self._was_proven = self._secrets.is_proven
        # The previous tokens as well: a token that can be read narrows the reasons of the others.
        self._secrets.decrypt_all(text for row in stored.connections for text in row[2:4])
        self._secrets.decrypt_all(row[2] for row in stored.tokens)
        named: dict[int, list[NamedToken]] = {}
        for connection_id, name, secret in stored.tokens:
            named.setdefault(connection_id, []).append(self._named_token(name, secret))
        self._connections = {
            row[0]: self._with_tokens(self._connection(*row), named.get(row[0], ()))
            for row in stored.connections
        }
        self._api_keys = {row[0]: read_api_key(*row[1:]) for row in stored.api_keys}
        self._stored = stored

    def _named_token(self, name: str, secret: str) -> NamedToken:
        value, reason = self._secrets.read(secret)
        fault = f"its token {name!r} can't be decrypted: {reason}" if reason else ""
        return NamedToken(name, value or None, fault)

    def _with_tokens(self, connection: Connection, named: Iterable[NamedToken]) -> Connection:
        connection = connection._replace(named_tokens=tuple(named))
        own = filter(None, (connection.token, connection.previous_token, *connection.tokens))
        fingerprints = {token: make_fingerprint(self._secret, token) for token in own}
        return connection._replace(fingerprints=fingerprints)

    def _connection(
        self,
        connection_id: int,
        name: str,
        secret: Optional[str],
        previous_secret: Optional[str],
        previous_until: Optional[int],
        strategy: Optional[str],
        # The file of an older version lacks these.
        strip_paths: bool = False,
        pseudonyms: bool = False,
    ) -> Connection:
        token, reason = self._secrets.read(secret)
        fault = f"its secret token can't be decrypted: {reason}" if reason else ""
        # A previous token that can't be decrypted is no reason to refuse the current one.
        previous, _ = self._secrets.read(previous_secret)
        try:
            strategy = strategy_of(strategy)
        except ConfigurationError as error:
            # The report is stored anyway; a re-transform can apply another strategy later.
            logger.warning("connection %s: %s; taken as %s", connection_id, error, OVERWRITE)
            strategy = OVERWRITE
        privacy = None
        if strip_paths or pseudonyms:
            hashes = Pseudonyms(self._secret, connection_id) if pseudonyms else None
            privacy = PrivacyRules(bool(strip_paths), hashes)
        return Connection(
            connection_id,
            name,
            token or None,
            strategy,
            previous or None,
            previous_until or 0,
            fault,
            privacy,
        )


def _read(engine: Engine) -> StoredRows:
    with connect_to_primary(engine) as connection:
        connections = connection.exec_driver_sql(
            "SELECT id, name, secret_token, previous_secret_token, previous_token_until,"
            f" duplicate_strategy, strip_paths, pseudonyms FROM {CONNECTION_TABLE} ORDER BY id"
        ).fetchall()
        keys = [
            [key, path, _to_epoch(expiry), name]
            for key, path, expiry, name in read_api_keys(connection)
        ]
        tokens = connection.exec_driver_sql(
            f"SELECT connection_id, name, secret_token FROM {TOKEN_TABLE}"
            " ORDER BY connection_id, name"
        ).fetchall()
    return StoredRows([list(row) for row in connections], keys, [list(row) for row in tokens])


def _to_epoch(moment: Optional[datetime]) -> Optional[float]:
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def read_names(engine: Engine) -> dict[int, str]:
    """Return the names of the connections by id."""
    with reading(engine).connect() as connection:
        rows = connection.exec_driver_sql(f"SELECT id, name FROM {CONNECTION_TABLE} ORDER BY id")
        return {int(row[0]): row[1] for row in rows}


def make_fingerprint(encryption_secret: str, token: str) -> str:
    """Return a keyed hash of a token, by which its last use is stored."""
    secret = encryption_secret.strip().encode()
    purpose = f"developer_telemetry token {token}"
    return hmac.new(secret, purpose.encode(), hashlib.sha256).hexdigest()[:32]


def new_token() -> str:
    """Return a new secret token, which needs no quotes in any shell."""
    return secrets.token_urlsafe(32)


def token_hint(token: Optional[str]) -> str:
    """Return a part of a token by which an operator recognizes it, and that can't be used."""
    if not token:
        return "none"
    return "set" if len(token) < MIN_HINTED_LENGTH else f"ends in {token[-4:]}"


class Named(Protocol):
    """A connection in any form; both fields may be those of a `NamedTuple`."""

    @property
    def id(self) -> int:
        """Return its id."""

    @property
    def name(self) -> str:
        """Return its name."""


AnyConnection = TypeVar("AnyConnection", bound=Named)


def find_by_name_or_id(connections: Iterable[AnyConnection], text: str) -> AnyConnection:
    """Return the connection that has this name or id.

    Raises:
        ConfigurationError: There is none; or two, since DevLake's API accepts a number as a name.
    """
    text = text.strip()
    matches = [item for item in connections if text in (item.name, str(item.id))]
    if len(matches) > 1:
        named = next(item for item in matches if item.name == text)
        raise ConfigurationError(
            f"{text!r} is the name of connection {named.id} and the id of another one; rename it"
            f" first: `developer-telemetry connections rename {named.id} NEW-NAME`"
        )
    if not matches:
        raise make_missing_connection(text)
    return matches[0]


def make_missing_connection(name_or_id: object) -> ConfigurationError:
    """Return the error for a name or an id that no connection has."""
    return ConfigurationError(
        f"there is no connection {str(name_or_id)!r}; `developer-telemetry connections list` shows"
        " them"
    )


def normalize_name(name: str) -> str:
    """Return a connection's name in its stored form; raise `ConfigurationError` if invalid."""
    name = name.strip()
    if not name or len(name) > MAX_NAME:
        raise ConfigurationError(f"a connection's name has 1 to {MAX_NAME} characters")
    if name.isdecimal():
        raise ConfigurationError(
            f"{name!r} can't be a connection's name: commands take a number for an id; add a letter"
        )
    return name


def create(
    engine: Engine,
    encryption_secret: str,
    name: str,
    token: str,
    strategy: str = "",
    options: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """Make a connection with its scope in a database that DevLake does not own; return its id."""
    name = normalize_name(name)
    strategy_of(strategy)
    now = format_timestamp(now_us())
    placeholder = dialect_of(engine).placeholder
    row = {
        "name": name,
        "endpoint": "",
        "secret_token": encrypt(token, encryption_secret),
        "duplicate_strategy": strategy,
        "created_at": now,
        "updated_at": now,
        **options,
    }

    def work(connection: SqlConnection) -> int:
        insert(connection, CONNECTION_TABLE, tuple(row), [tuple(row.values())], "")
        connection_id: int = connection.exec_driver_sql(
            f"SELECT id FROM {CONNECTION_TABLE} WHERE name = {placeholder}", (name,)
        ).scalar_one()
        add_scope(connection, connection_id)
        return connection_id

    try:
        return transact(engine, work)
    except IntegrityError:
        raise make_name_conflict(name) from None


def make_name_conflict(name: str) -> ConfigurationError:
    """Return the error for a name that another connection has."""
    return ConfigurationError(f"there is a connection named {name!r} already; choose another name")


def add_scope(connection: SqlConnection, connection_id: int) -> None:
    """Make the one scope that a connection has."""
    now = format_timestamp(now_us())
    scope = {
        "connection_id": connection_id,
        "id": SCOPE_ID,
        "name": SCOPE_NAME,
        "created_at": now,
        "updated_at": now,
        "_raw_data_params": build_raw_params(connection_id),
        "_raw_data_table": f"{RAW_TABLE}_scopes",
    }
    insert(connection, SCOPE_TABLE, tuple(scope), [tuple(scope.values())], "")
