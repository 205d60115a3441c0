"""How to look at a receiver through its report URLs, for whoever holds a connection's token.

A front proxy sends a receiver nothing but the report routes, so that is where it is asked:

    GET <report URL>
    X-Telemetry-Probe: <nonce> <proof>

The nonce is 32 hexadecimal digits; the proof is an HMAC of connection and nonce under the token,
which itself is never sent. The answer tells of the receiver's state and is sealed (AES-256-GCM
under a key made of token and nonce), so that nobody else can read it or make one up. Whether both
sides have the same database shows when the receiver finds the nonce there that the other side has
left.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Optional

import msgspec
from sqlalchemy.engine import Engine

from developer_telemetry.constants import PROBE_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import now_us, reading, transact

HEADER = "X-Telemetry-Probe"

_SALT_BYTES = 12
# What a look that was broken off has left goes after so long.
KEPT_SECONDS = 3600


class State(msgspec.Struct, frozen=True):
    """What a receiver says of itself."""

    receiver: str  # tells those behind a balancer apart
    version: str
    clock_us: int
    database_ahead_us: int  # how far the database's clock is ahead of it, as it takes into account
    same_database: Optional[bool]  # None: the database could not be asked
    problem: str  # why a report sent now could not be kept, "" if it can
    outage: str  # why reports go to the spool, "" if they don't
    waiting: int  # reports in the spool
    oldest_seconds: float
    set_aside: int
    spool_full: bool
    spool_bytes: int
    spool_max_bytes: int
    disk_free_bytes: int
    damaged_spools: int
    # Not told by older receivers.
    orphans: int = 0  # reports in the spool whose connection is not in the database
    conflicting: int = 0  # those that something else is in the way of


class Question(NamedTuple):
    """What is sent, and what it takes to read the answer."""

    connection_id: int
    token: str
    nonce: str

    @property
    def headers(self) -> dict[str, str]:
        """To send with a GET of the connection's report URL."""
        proof = _key(self.token, f"question {self.connection_id}", self.nonce).hex()
        return {HEADER: f"{self.nonce} {proof}"}

    def proved_by(self, proof: str) -> bool:
        """Whether this is the proof that `headers` send; compared in constant time."""
        expected = self.headers[HEADER].rpartition(" ")[2]
        return hmac.compare_digest(proof.encode(), expected.encode())

    def seal(self, state: State) -> str:
        """The state as only who asked can read it."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        salt = os.urandom(_SALT_BYTES)
        box = AESGCM(self._answer_key).encrypt(salt, msgspec.json.encode(state), None)
        return base64.b64encode(salt + box).decode()

    def open(self, sealed: str) -> Optional[State]:
        """What the receiver said; None if it comes from nobody who knows the token."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            box = base64.b64decode(sealed, validate=True)
            said = AESGCM(self._answer_key).decrypt(box[:_SALT_BYTES], box[_SALT_BYTES:], None)
            return msgspec.json.decode(said, type=State)
        except (ValueError, InvalidTag):
            return None

    @property
    def _answer_key(self) -> bytes:
        return _key(self.token, "answer", self.nonce)


def new_nonce() -> str:
    """What makes a question unlike any other."""
    return secrets.token_hex(16)


def read_header(value: str) -> Optional[tuple[str, str]]:
    """Nonce and proof of a question; None if it is none."""
    found = re.fullmatch(r"([0-9a-f]{32}) ([0-9a-f]{64})", value)
    return (found[1], found[2]) if found else None


@contextmanager
def left_behind(engine: Engine, nonce: str) -> Iterator[None]:
    """Have `nonce` lie in the database for a while."""
    mark = dialect_of(engine).placeholder
    leave = f"INSERT INTO {PROBE_TABLE} (nonce, left_us) VALUES ({mark}, {mark})"
    clear = f"DELETE FROM {PROBE_TABLE} WHERE nonce = {mark} OR left_us < {mark}"
    now = now_us()
    transact(engine, lambda to: to.exec_driver_sql(leave, (nonce, now)))
    try:
        yield
    finally:
        gone = (nonce, now - KEPT_SECONDS * 1_000_000)
        transact(engine, lambda to: to.exec_driver_sql(clear, gone))


def was_left(engine: Engine, nonce: str) -> bool:
    """Whether somebody has `nonce` lie in this database."""
    mark = dialect_of(engine).placeholder
    with reading(engine).connect() as connection:
        row = connection.exec_driver_sql(
            f"SELECT 1 FROM {PROBE_TABLE} WHERE nonce = {mark}", (nonce,)
        ).first()
    return row is not None


def _key(token: str, purpose: str, nonce: str) -> bytes:
    text = f"developer-telemetry probe\n{purpose}\n{nonce}"
    return hmac.new(token.encode(), text.encode(), hashlib.sha256).digest()
