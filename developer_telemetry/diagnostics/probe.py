"""The wire format by which `doctor` asks a receiver for its state, through a report URL.

A front proxy passes nothing but the report routes to a receiver, so the request uses one of them:

    GET <report URL>?nonce=<32 hexadecimal digits>
    Authorization: Bearer <the connection's token, as a report is sent>

    {"success": true, "message": "...", "nonce": "...", "receiver": {<ReceiverState>}}

The nonce is optional. `doctor` has stored it in a database; a receiver that finds it there uses the
same database. The answer repeats the nonce, so that `doctor` detects an answer from a cache.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Optional

import msgspec
from sqlalchemy.engine import Engine

from developer_telemetry.constants import PROBE_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import now_us, reading, transact

# Only receivers set this header on answers and refusals, proxies don't.
HEADER = "X-Telemetry-Probe"
ANSWERED = "answered"
REFUSED = "refused"

# A nonce that an interrupted `doctor` has left is removed after this time.
NONCE_SECONDS = 3600

_NONCE_QUERY = re.compile(rb"(?:.*&)?nonce=([0-9a-f]{32})(?:&.*)?")


class ReceiverState(msgspec.Struct, frozen=True):
    """The state of a receiver at the time of its answer; empty texts mean that nothing is wrong."""

    receiver: str  # tells receivers behind a balancer apart
    version: str
    clock_us: int
    database_ahead_us: int  # the database's clock minus the receiver's, as the receiver applies it
    same_database: Optional[bool]  # None: there was no nonce, or the database did not answer
    problem: str  # the reason why a report sent now could not be stored
    outage: str  # the reason why reports go to the spool
    waiting: int  # reports in the spool
    oldest_seconds: float
    set_aside: int
    spool_full: bool
    spool_bytes: int
    spool_max_bytes: int
    disk_free_bytes: int
    damaged_spools: int
    orphans: int = 0  # reports in the spool whose connection is not in the database
    conflicting: int = 0  # reports that wait for a lock or the like


class ProbeResponse(msgspec.Struct, frozen=True):
    """The JSON object of an answer, beside `success` and `message`."""

    nonce: str
    receiver: ReceiverState


def new_nonce() -> str:
    """Return a random text that no other request has."""
    return secrets.token_hex(16)


def parse_nonce(query: bytes) -> str:
    """Return the nonce in the query of a URL, as a receiver gets it; `""` if there is none."""
    match = _NONCE_QUERY.fullmatch(query)
    return match[1].decode() if match else ""


class ProbeRequest(NamedTuple):
    """A request for a receiver's state, sent to the report URL of the connection of `token`."""

    token: str
    nonce: str

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers to send."""
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def query(self) -> dict[str, str]:
        """Return the parameters to add to the report URL."""
        return {"nonce": self.nonce}

    def read(self, content: Mapping[str, Any]) -> Optional[ReceiverState]:
        """Return the state in a JSON object; None if it does not answer this request."""
        try:
            response = msgspec.convert(content, ProbeResponse)
        except msgspec.ValidationError:
            return None
        return response.receiver if response.nonce == self.nonce else None


@contextmanager
def stored_nonce(engine: Engine, nonce: str) -> Iterator[None]:
    """Store `nonce` in the database until the end of the context."""
    marker = dialect_of(engine).placeholder
    leave = f"INSERT INTO {PROBE_TABLE} (nonce, left_us) VALUES ({marker}, {marker})"
    clear = f"DELETE FROM {PROBE_TABLE} WHERE nonce = {marker} OR left_us < {marker}"
    now = now_us()
    transact(engine, lambda connection: connection.exec_driver_sql(leave, (nonce, now)))
    try:
        yield
    finally:
        old = (nonce, now - NONCE_SECONDS * 1_000_000)
        transact(engine, lambda connection: connection.exec_driver_sql(clear, old))


def has_nonce(engine: Engine, nonce: str) -> bool:
    """Return true if `nonce` is in this database now."""
    marker = dialect_of(engine).placeholder
    with reading(engine).connect() as connection:
        row = connection.exec_driver_sql(
            f"SELECT 1 FROM {PROBE_TABLE} WHERE nonce = {marker}", (nonce,)
        ).first()
    return row is not None
