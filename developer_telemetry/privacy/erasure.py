"""Erase a person: from the database and, by tombstones, from every receiver's spool.

First, tombstones are written; receivers remember them, and write them back to a restored database.
When every receiver has confirmed them, or can't store a report without reading them, the erasure
waits for all earlier transactions. Rows that are removed after that do not return.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from developer_telemetry.constants import (
    MACHINE_TABLE,
    RAW_TABLE,
    RECEIVER_TABLE,
    REFUSED_MACHINE_TABLE,
    TOMBSTONE_TABLE,
    TOOL_TABLE,
)
from developer_telemetry.database.advisory_lock import hold_connection
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import clock_offset_us, now_us, reading, transact
from developer_telemetry.database.rights import require_rights
from developer_telemetry.errors import Unavailable
from developer_telemetry.privacy.person_data import ErasureEnd, PersonData, list_erased_tables
from developer_telemetry.privacy.person_search import Person, PersonSearch
from developer_telemetry.storage.tables import DAY_TABLES, DEVELOPER_TABLES, ERASED_TABLES
from developer_telemetry.storage.tombstones import (
    ALL_CONNECTIONS,
    LEASE_SECONDS,
    Tombstone,
    TombstoneCache,
    TombstoneKey,
    write_tombstones,
)
from developer_telemetry.storage.writer import read_developers

_NEEDS = {
    **{table.name: ("SELECT", "DELETE") for table in ERASED_TABLES},
    # The row of a day is written again if it has reports after the erasure.
    TOOL_TABLE: ("SELECT", "INSERT", "UPDATE", "DELETE"),
    TOMBSTONE_TABLE: ("SELECT", "INSERT", "DELETE"),
    RECEIVER_TABLE: ("SELECT",),
}
_LOCKED = (RAW_TABLE, MACHINE_TABLE, REFUSED_MACHINE_TABLE)
# Receivers' clocks are corrected by the database's, but not to the millisecond.
SLACK_US = 1_000_000
# A time that fits into every column, in the year 9999.
LAST_US = 253_370_764_800_000_000
# The time that a receiver may take to clear its spool.
CLEARING_SECONDS = 60.0
POLL_SECONDS = 0.1


class ReceiverAnswer(NamedTuple):
    """A receiver's answer to an erasure."""

    name: str
    removed: int  # reports from its spool
    problem: str  # "" once it has confirmed
    remedy: str  # what to do about a problem


class ErasureOutcome(NamedTuple):
    """The result of an erasure."""

    removed: Counter[str]  # rows by table
    answers: list[ReceiverAnswer]


class _WrittenTombstones(NamedTuple):
    """Tombstones that were just committed."""

    last_id: int
    until: ErasureEnd


class _Receiver(NamedTuple):
    id: str
    name: str
    fingerprint: str
    seen: Any
    confirmed: int
    removed: int


def erase(
    engine: Engine, key: TombstoneKey, search: PersonSearch, people: Sequence[Person], block: bool
) -> ErasureOutcome:
    """Remove the people of `search`, and their later reports; with `block`, for good.

    Raises:
        Unavailable: Another run, prune or erase took too long; a repetition finishes the erasure.
        ConfigurationError: A right is missing; nothing was removed.
    """
    existing = list_erased_tables(engine)
    require_rights(
        engine,
        {table: verbs for table, verbs in _NEEDS.items() if table in existing},
        locked=[table for table in _LOCKED if table in existing],
    )
    subjects = search.subjects(key, people)
    before = {receiver.id: receiver.seen for receiver in _read_receivers(engine)}
    work = partial(
        _write_tombstones_of,
        subjects=subjects,
        people=people,
        block=block,
        now=_read_now_us(engine),
    )
    stones = transact(engine, work)
    answers = _wait_for_receivers(engine, key, before, stones)
    _wait_for_writers(engine, RAW_TABLE)
    named = {row.subject for row in _read_rows_above(engine, stones.last_id)}
    until = None if block else stones.until
    removed = Counter[str]()
    for connection_id in sorted(search.strategies):
        matches = set(search.people_of(connection_id))
        if named:  # add people whose address is known to receivers only
            matches.update(
                person
                for person in _list_people(engine, connection_id)
                if key.developer(person.developer_id) in named
            )
        limits = dict.fromkeys(sorted(matches), until)
        removed += _remove_people(engine, connection_id, search.strategies[connection_id], limits)
    _compact(engine)
    return ErasureOutcome(removed, answers)


def find_returned(
    engine: Engine, key: TombstoneKey, strategies: Mapping[int, str]
) -> dict[Person, Optional[ErasureEnd]]:
    """Return erased people who are in the database again, with the limit of the erasure.

    People are identified by their ids. The limit of blocked people is None: all is covered.
    """
    tombstones = TombstoneCache(engine, key).reload()
    covered: dict[Person, Optional[ErasureEnd]] = {}
    for connection_id in sorted(strategies):
        for person in _list_people(engine, connection_id):
            stone = tombstones.find_by_developer(*person)
            if stone is not None:
                until = None if stone.blocked else ErasureEnd(0, stone.erased_us)
                if until is None or _has_rows_until(engine, person, until.arrived_us):
                    covered[person] = until
    return covered


def erase_again(
    engine: Engine, strategies: Mapping[int, str], people: Mapping[Person, Optional[ErasureEnd]]
) -> Counter[str]:
    """Remove the people of `find_returned`; return the numbers of rows by table."""
    removed = Counter[str]()
    for connection_id in sorted({person.connection_id for person in people}):
        of_connection = {
            who: until for who, until in people.items() if who.connection_id == connection_id
        }
        removed += _remove_people(engine, connection_id, strategies[connection_id], of_connection)
    _compact(engine)
    return removed


def forget_receiver(engine: Engine, name: str) -> int:
    """Forget the receivers of this name; return their number."""
    param = dialect_of(engine).placeholder
    forget = f"DELETE FROM {RECEIVER_TABLE} WHERE name = {param} OR id = {param}"
    gone: int = transact(engine, lambda to: to.exec_driver_sql(forget, (name, name)).rowcount)
    return gone


def _list_people(engine: Engine, connection_id: int) -> Iterator[Person]:
    seen: set[str] = set()
    for table in DEVELOPER_TABLES:
        for page in read_developers(engine, table, connection_id):
            yield from (
                Person(connection_id, developer) for developer in page if developer not in seen
            )
            seen.update(page)


def _has_rows_until(engine: Engine, person: Person, until_us: int) -> bool:
    """Return true if a person has a report or a day that arrived until `until_us`."""
    param = dialect_of(engine).placeholder
    with reading(engine).connect() as connection:
        return any(
            connection.exec_driver_sql(
                f"SELECT 1 FROM {table} WHERE connection_id = {param} AND developer_id = {param}"
                f" AND arrived_us <= {param} LIMIT 1",
                (*person, until_us),
            ).first()
            for table in DAY_TABLES
        )


def _remove_people(
    engine: Engine, connection_id: int, strategy: str, people: Mapping[Person, Optional[ErasureEnd]]
) -> Counter[str]:
    """Remove people of a connection, each up to a report or, where there is none, altogether."""
    removed = Counter[str]()
    tables = list_erased_tables(engine)
    with hold_connection(engine, connection_id):
        data_of_people = [
            (PersonData(engine, person, tables), until) for person, until in people.items()
        ]
        for traces, until in data_of_people:
            removed += traces.remove_days(strategy, until)
        if data_of_people:
            # A concurrent count of machines may have read the removed reports, and one of refused
            # machines may have been begun before its receiver knew of the erasure.
            for table in {MACHINE_TABLE, REFUSED_MACHINE_TABLE}.intersection(tables):
                _wait_for_writers(engine, table)
        for traces, _ in data_of_people:
            removed += traces.remove_rest()
    return removed


def is_blocked(engine: Engine, subjects: Collection[tuple[int, str]]) -> bool:
    """Return true if an earlier erasure blocks one of these."""
    with reading(engine).connect() as connection:
        rows = connection.exec_driver_sql(
            f"SELECT connection_id, subject FROM {TOMBSTONE_TABLE} WHERE blocked"
        )
        return any((row[0], row[1]) in subjects for row in rows)


def _read_now_us(engine: Engine) -> int:
    return now_us() + clock_offset_us(engine)


def _write_tombstones_of(
    connection: SqlConnection,
    subjects: Collection[tuple[int, str]],
    people: Sequence[Person],
    block: bool,
    now: int,
) -> _WrittenTombstones:
    param = dialect_of(connection).placeholder
    last_raw: Optional[int] = connection.exec_driver_sql(
        f"SELECT MAX(id) FROM {RAW_TABLE}"
    ).scalar_one()
    arrived_us = max(now + SLACK_US, _newest_us(connection, people))
    # These also cover earlier erasures and blocks, even if the clock has stepped back since.
    for scope_id, subject in sorted(subjects):
        scope = "" if scope_id == ALL_CONNECTIONS else f" AND connection_id = {param}"
        of_subject = (subject,) if scope_id == ALL_CONNECTIONS else (subject, scope_id)
        earlier: Optional[int] = connection.exec_driver_sql(
            f"SELECT MAX(erased_us) FROM {TOMBSTONE_TABLE} WHERE subject = {param}{scope}",
            of_subject,
        ).scalar_one()
        arrived_us = max(arrived_us, (earlier or 0) + 1)
        connection.exec_driver_sql(
            f"DELETE FROM {TOMBSTONE_TABLE} WHERE subject = {param}{scope}", of_subject
        )
    write_tombstones(
        connection, [Tombstone(*subject_key, arrived_us, block) for subject_key in sorted(subjects)]
    )
    last_id: int = connection.exec_driver_sql(f"SELECT MAX(id) FROM {TOMBSTONE_TABLE}").scalar_one()
    return _WrittenTombstones(last_id, ErasureEnd(last_raw or 0, arrived_us))


def _newest_us(connection: SqlConnection, people: Sequence[Person]) -> int:
    """Return the arrival of these people's last report, perhaps by a fast clock.

    A tombstone that is not earlier also covers exported copies of the report.
    """
    param = dialect_of(connection).placeholder
    newest = 0
    for person in people:
        for table in DAY_TABLES:
            arrived_us: Optional[int] = connection.exec_driver_sql(
                f"SELECT MAX(arrived_us) FROM {table} WHERE connection_id = {param}"
                f" AND developer_id = {param}",
                person,
            ).scalar_one()
            newest = max(newest, arrived_us or 0)
    return min(newest, LAST_US)


def _wait_for_receivers(
    engine: Engine, key: TombstoneKey, before: dict[str, Any], stones: _WrittenTombstones
) -> list[ReceiverAnswer]:
    """Wait until all receivers have confirmed, or no more answers can be expected."""
    begun = time.monotonic()
    while True:
        # Receivers add tombstones for developers with an erased address; wait for these, too.
        added = [row.last_id for row in _read_rows_above(engine, stones.last_id)]
        last_wanted_id = max([stones.last_id, *added])
        receivers = _read_receivers(engine)
        waiting = [
            receiver for receiver in receivers if _find_problem(receiver, key, last_wanted_id)
        ]
        passed = time.monotonic() - begun
        # The lease of a silent receiver ends here a second later than in the receiver.
        patience = LEASE_SECONDS + 1
        if any(receiver.seen != before.get(receiver.id) for receiver in waiting):
            patience = CLEARING_SECONDS
        if not waiting or passed > patience:
            return [
                ReceiverAnswer(
                    receiver.name,
                    receiver.removed,
                    *(_find_problem(receiver, key, last_wanted_id) or ("", "")),
                )
                for receiver in receivers
            ]
        time.sleep(POLL_SECONDS)


class _Row(NamedTuple):
    last_id: int
    subject: str


def _read_rows_above(engine: Engine, last_id: int) -> list[_Row]:
    """Return the tombstones that were added since."""
    param = dialect_of(engine).placeholder
    with reading(engine).connect() as connection:
        rows = connection.exec_driver_sql(
            f"SELECT id, subject FROM {TOMBSTONE_TABLE} WHERE id > {param}", (last_id,)
        )
        return [_Row(*row) for row in rows]


def _find_problem(
    receiver: _Receiver, key: TombstoneKey, last_id: int
) -> Optional[tuple[str, str]]:
    """Return a receiver's open problem and its remedy; None if it has confirmed."""
    if receiver.fingerprint != key.fingerprint:
        return (
            "its ENCRYPTION_SECRET is another one, so it can match no person to this tombstone",
            "give it and this command the same one, restart it, and erase again",
        )
    if receiver.confirmed < last_id:
        return (
            f"it has not answered; it was last seen at {str(receiver.seen)[:19]} UTC",
            "its spool may hold reports of this person: start it, or restore its database; it"
            " removes them before it stores anything; then erase again to confirm it. If its"
            f' spool\'s folder is lost, erase again with --gone "{receiver.name}"',
        )
    return None


def _read_receivers(engine: Engine) -> list[_Receiver]:
    with reading(engine).connect() as connection:
        rows = connection.exec_driver_sql(
            f"SELECT {', '.join(_Receiver._fields)} FROM {RECEIVER_TABLE} ORDER BY name, id"
        )
        return [_Receiver(*row) for row in rows]


def _wait_for_writers(engine: Engine, table: str) -> None:
    """Wait for the end of every transaction that has written to a table."""
    statements = dialect_of(engine).await_writers(table)

    def work(connection: SqlConnection) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement)

    try:
        transact(engine, work)
    except DBAPIError as error:
        if not dialect_of(engine).is_conflict(error):
            raise
        raise Unavailable(
            f"a transaction that writes to {table} does not end; nothing was removed from the"
            " database yet: check what keeps it open, and erase again"
        ) from error


def _compact(engine: Engine) -> None:
    statement = dialect_of(engine).compacting
    if not statement:
        return
    driver = engine.raw_connection()
    try:
        driver.cursor().execute(statement)  # it is refused in a transaction of SQLAlchemy's
    except Exception as error:
        raise Unavailable(
            f"the rows are removed, but their content may still be in the file: {statement}"
            f" failed ({error}); check what uses the file or fills the disk, and erase again"
        ) from None
    finally:
        driver.close()
