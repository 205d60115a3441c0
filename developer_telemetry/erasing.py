"""Erase a person: from the database and, by tombstones, from every receiver's spool.

The tombstones come first. When every receiver has confirmed them, or can't store anything without
meeting them, all transactions that began before are waited for: what is removed then stays so.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, NamedTuple, Optional

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from developer_telemetry.database import clock_offset_us, now_us, reading, transact
from developer_telemetry.dialects import dialect_of
from developer_telemetry.errors import Unavailable
from developer_telemetry.exclusion import alone
from developer_telemetry.merging import RAW_TABLE
from developer_telemetry.people import Person, Search
from developer_telemetry.receiver.tallies import MACHINE_TABLE
from developer_telemetry.tombstones import (
    ALL_CONNECTIONS,
    LEASE_SECONDS,
    RECEIVER_TABLE,
    TOMBSTONE_TABLE,
    Key,
)
from developer_telemetry.traces import Traces, Until, tables_of

# Receivers' clocks are corrected by the database's, but not to the millisecond.
SLACK_US = 1_000_000
# How long a receiver that is at it may take to clear its spool.
CLEARING_SECONDS = 60.0
POLL_SECONDS = 0.1


class Answer(NamedTuple):
    """What became of a receiver's part."""

    name: str
    removed: int  # reports from its spool
    problem: str  # "" once it has confirmed


class Outcome(NamedTuple):
    """What an erasure did."""

    removed: Counter[str]  # rows by table
    answers: list[Answer]


class _Stones(NamedTuple):
    """Tombstones that were just committed."""

    last_id: int
    until: Until


class _Receiver(NamedTuple):
    id: str
    name: str
    fingerprint: str
    seen: Any
    confirmed: int
    removed: int


def erase(
    engine: Engine, key: Key, search: Search, people: Sequence[Person], block: bool
) -> Outcome:
    """Remove the people that `search` found, and who came since; with `block`, for good.

    :raises Unavailable: something else went on for too long; doing it again does the rest.
    """
    subjects = search.subjects(key, people)
    before = {each.id: each.seen for each in _receivers(engine)}
    stones = transact(engine, partial(_commit, subjects=subjects, block=block, now=_now(engine)))
    answers = _wait_for_receivers(engine, key, before, stones)
    _wait_for_writers(engine, RAW_TABLE)
    removed = Counter[str]()
    until = None if block else stones.until
    tables = tables_of(engine)
    for connection_id, strategy in sorted(search.strategies.items()):
        with alone(engine, connection_id):
            found = [Traces(engine, each, tables) for each in search.people_of(connection_id)]
            for traces in found:
                removed += traces.remove_days(strategy, until)
            if found:
                # Who counts machines may have seen the reports that have just gone.
                _wait_for_writers(engine, MACHINE_TABLE)
            for traces in found:
                removed += traces.remove_rest()
    _compact(engine)
    # Reports that arrive from now on are later than the tombstones.
    time.sleep(max(0.0, (stones.until.arrived_us - _now(engine)) / 1_000_000))
    return Outcome(removed, answers)


def is_blocked(engine: Engine, subjects: Collection[tuple[int, str]]) -> bool:
    """Whether an earlier erasure blocks one of these."""
    with reading(engine).connect() as connection:
        rows = connection.exec_driver_sql(
            f"SELECT connection_id, subject FROM {TOMBSTONE_TABLE} WHERE blocked"
        )
        return any((row[0], row[1]) in subjects for row in rows)


def _now(engine: Engine) -> int:
    return now_us() + clock_offset_us(engine)


def _commit(
    connection: Connection, subjects: Collection[tuple[int, str]], block: bool, now: int
) -> _Stones:
    mark = dialect_of(connection).placeholder
    last_raw: Optional[int] = connection.exec_driver_sql(
        f"SELECT MAX(id) FROM {RAW_TABLE}"
    ).scalar_one()
    arrived_us = now + SLACK_US
    # What was erased or blocked before is so by these.
    for place, subject in sorted(subjects):
        scope = "" if place == ALL_CONNECTIONS else f" AND connection_id = {mark}"
        connection.exec_driver_sql(
            f"DELETE FROM {TOMBSTONE_TABLE} WHERE subject = {mark}{scope}",
            (subject,) if place == ALL_CONNECTIONS else (subject, place),
        )
        connection.exec_driver_sql(
            f"INSERT INTO {TOMBSTONE_TABLE} (connection_id, subject, erased_us, blocked)"
            f" VALUES ({mark}, {mark}, {mark}, {mark})",
            (place, subject, arrived_us, block),
        )
    last_id: int = connection.exec_driver_sql(f"SELECT MAX(id) FROM {TOMBSTONE_TABLE}").scalar_one()
    return _Stones(last_id, Until(last_raw or 0, arrived_us))


def _wait_for_receivers(
    engine: Engine, key: Key, before: dict[str, Any], stones: _Stones
) -> list[Answer]:
    """Wait until all have confirmed, or nothing more can be expected."""
    begun = time.monotonic()
    while True:
        receivers = _receivers(engine)
        waiting = [each for each in receivers if _problem(each, key, stones)]
        passed = time.monotonic() - begun
        # The lease of one that doesn't answer has ended a second after it has for itself.
        patience = LEASE_SECONDS + 1
        if any(each.seen != before.get(each.id) for each in waiting):
            patience = CLEARING_SECONDS
        if not waiting or passed > patience:
            return [
                Answer(each.name, each.removed, _problem(each, key, stones)) for each in receivers
            ]
        time.sleep(POLL_SECONDS)


def _problem(receiver: _Receiver, key: Key, stones: _Stones) -> str:
    if receiver.fingerprint != key.fingerprint:
        return "its ENCRYPTION_SECRET is another one"
    if receiver.confirmed < stones.last_id:
        return f"it has not answered; it was last seen at {str(receiver.seen)[:19]} UTC"
    return ""


def _receivers(engine: Engine) -> list[_Receiver]:
    with reading(engine).connect() as connection:
        rows = connection.exec_driver_sql(
            f"SELECT {', '.join(_Receiver._fields)} FROM {RECEIVER_TABLE} ORDER BY name, id"
        )
        return [_Receiver(*row) for row in rows]


def _wait_for_writers(engine: Engine, table: str) -> None:
    """Return when every transaction is over that had written to a table when this was called."""
    statements = dialect_of(engine).await_writers(table)

    def work(connection: Connection) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement)

    try:
        transact(engine, work)
    except DBAPIError as error:
        if not dialect_of(engine).is_conflict(error):
            raise
        raise Unavailable(
            f"a transaction that writes to {table} does not end; nothing was removed from the"
            " database yet: see what keeps it open, and erase again"
        ) from error


def _compact(engine: Engine) -> None:
    statement = dialect_of(engine).compacting
    if not statement:
        return
    driver = engine.raw_connection()
    try:
        driver.cursor().execute(statement)  # in a transaction of SQLAlchemy's it is refused
    except Exception as error:
        raise Unavailable(
            f"the rows are removed, but what they held may lie in the file still: {statement}"
            f" failed ({error}); see what uses the file or fills the disk, and erase again"
        ) from None
    finally:
        driver.close()
