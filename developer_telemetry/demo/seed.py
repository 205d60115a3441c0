"""A made-up fleet that behaves like a real one, for a look at the pages without real data.

    made = fleet(developers=60, days=200, seed=1, now=datetime(2026, 11, 23, 12, tzinfo=utc))
    made.sent            every report in order of arrival: connection, arrived_us, body
    made.developers      id, name, e-mail, team, first and last day, machines
    made.refused         the numbers of refused reports by (connection, day, reason)
    fill(engine, encryption_secret, made)     stores all of it; returns the connections' ids by name
    fill_delivery(engine, made, ids, seed)    adds pull requests and so on to an empty DevLake

The same arguments give the same fleet. People join, leave and take holidays; use several machines,
of which some stop reporting; report late after weekends and two outages; and change their tools
with fashion. Bodies have the form of the collector's script, which reports twice a day: the day so
far in the morning, all of it later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone
from functools import partial
from itertools import islice
from random import Random
from typing import Any, NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.connections.registry import create, new_token
from developer_telemetry.constants import CONNECTION_TABLE, MACHINE_TABLE, RAW_TABLE, REFUSAL_TABLE
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import reading, transact
from developer_telemetry.demo.delivery import Span, fill_devlake, is_fillable
from developer_telemetry.demo.synthetic_fleet import (
    CONNECTIONS,
    CONTRACTORS,
    HOUR_US,
    Developer,
    Diary,
    developer,
    epoch_us,
)
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.pipeline.accounts import convert_accounts
from developer_telemetry.pipeline.figure_refresh import refresh_figures
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.reports.hosts import machine_name
from developer_telemetry.reports.parser import parse
from developer_telemetry.reports.report_id import uuid7
from developer_telemetry.storage.fleet.refused_machines import (
    RETENTION_US,
    NotedRefusals,
    RefusalDetails,
    write_refused_machines,
)
from developer_telemetry.storage.statistics import count_machines
from developer_telemetry.storage.writer import store

# Reports stored in one transaction.
BATCH = 500

NEW_COLLECTOR, OLD_COLLECTOR = "telemetry-collector/1.4.0", "telemetry-collector/1.2.3"
# One in so many developers has the old collector.
OLD_SHARE = 6
# The answers to some of the refused reports.
MESSAGES = {
    "date": "missing or not a date; send it as YYYY-MM-DD",
    "body": "body is not JSON: unexpected end",
    "size": "the body is larger than 1 MiB; send smaller reports",
}

Refused = dict[tuple[str, date, str], int]


class Sent(NamedTuple):
    """A report as it reached the receiver, at a time in UTC microseconds since 1970."""

    arrived_us: int
    connection: str
    body: bytes


class Fleet(NamedTuple):
    """A made-up fleet: its people, their reports, and the numbers of refused ones."""

    first: date
    now: datetime
    developers: tuple[Developer, ...]
    sent: tuple[Sent, ...]
    refused: Refused


class Outage(NamedTuple):
    """A time without reports of one connection, or of all (empty), and the reason of refusals."""

    start_us: int
    end_us: int
    connection: str
    reason: str


def fleet(developers: int, days: int, seed: int, now: datetime) -> Fleet:
    """Make up so many developers and the reports of so many days that arrived before `now`."""
    first = (now - timedelta(days=days)).date()
    random = Random(f"fleet {seed}")
    outages = _outages(random, first, days)
    people = tuple(developer(random, number, first, now.date()) for number in range(developers))
    sent: list[Sent] = []
    refused: Refused = {}
    for person in people:
        diary = Diary(Random(f"developer {seed} {person.id}"), person, first, now.date())
        for arrived, body in diary.reports():
            sent.extend(_delay(outages, person.connection, arrived, body, refused))
    for number in range(days):
        if random.random() < 0.2:
            reason = random.choice(("date", "developer", "body", "size"))
            key = (random.choice(list(CONNECTIONS)), first + timedelta(days=number), reason)
            refused[key] = refused.get(key, 0) + random.randint(1, 4)
    end = epoch_us(now)
    ended = {key: count for key, count in sorted(refused.items()) if key[1] < now.date()}
    return Fleet(first, now, people, tuple(sorted(s for s in sent if s.arrived_us < end)), ended)


def _outages(random: Random, first: date, days: int) -> tuple[Outage, ...]:
    def start_outage(share: float, hours: int, connection: str, reason: str) -> Outage:
        start = epoch_us(datetime.combine(first, time(), timezone.utc))
        start += int(days * share) * 24 * HOUR_US + random.randint(0, 12) * HOUR_US
        return Outage(start, start + hours * HOUR_US, connection, reason)

    # The network was down, without any refusal; later a token was changed too early.
    return (start_outage(0.35, 31, "", ""), start_outage(0.7, 55, CONTRACTORS, "token"))


def _delay(
    outages: tuple[Outage, ...],
    connection: str,
    arrived_us: int,
    body: bytes,
    refused: Refused,
) -> Iterator[Sent]:
    """Yield a report with its arrival; one of an outage arrives after the outage."""
    for outage in outages:
        if outage.start_us <= arrived_us < outage.end_us and outage.connection in ("", connection):
            if outage.reason:
                key = (connection, _to_datetime(arrived_us).date(), outage.reason)
                # It is offered again every hour.
                hours = (outage.end_us - arrived_us) // HOUR_US
                refused[key] = (
                    refused.get(key, 0) + 1 + min(hours, 23 - _to_datetime(arrived_us).hour)
                )
            # All of them arrive within an hour, in the order in which they were sent.
            share = (arrived_us - outage.start_us) / (outage.end_us - outage.start_us)
            arrived_us = outage.end_us + int(share * HOUR_US)
    yield Sent(arrived_us, connection, body)


def arrivals(made: Fleet, connection_ids: Mapping[str, int]) -> Iterator[ReceivedReport]:
    """Yield a fleet's reports for `store`, in order of arrival."""
    random = Random("identities")
    for sent in made.sent:
        report_id = uuid7(sent.arrived_us // 1000, random.getrandbits(80))
        yield ReceivedReport(
            report_id, connection_ids[sent.connection], sent.arrived_us, parse(sent.body)
        )


def fill(engine: Engine, encryption_secret: str, made: Fleet) -> dict[str, int]:
    """Store a fleet in a migrated database without reports; return its connections' ids by name.

    :raises ConfigurationError: there are connections or reports already, which stay as they are.
    """
    _require_empty(engine)
    ids = {
        name: create(engine, encryption_secret, name, new_token(), strategy)
        for name, strategy in CONNECTIONS.items()
    }
    strategies = {ids[name]: strategy for name, strategy in CONNECTIONS.items()}
    waiting = arrivals(made, ids)
    while batch := list(islice(waiting, BATCH)):
        store(engine, batch, strategies)
    count_machines(engine, 0)
    columns = ("connection_id", "day", "reason", "count")
    refusals = [
        (ids[name], day.isoformat(), reason, count)
        for (name, day, reason), count in made.refused.items()
    ]
    transact(engine, lambda connection: insert(connection, REFUSAL_TABLE, columns, refusals, ""))
    transact(engine, partial(_add_machine_details, made=made, ids=ids))
    for connection_id in ids.values():
        for _ in convert_accounts(engine, connection_id):
            pass
    return ids


def fill_delivery(engine: Engine, made: Fleet, ids: Mapping[str, int], seed: int) -> Optional[bool]:
    """Add users, teams, pull requests, builds and incidents where DevLake's tables are empty.

    Returns:
        True if they were added, false if DevLake has rows of its own, None without its tables.
    """
    fillable = is_fillable(engine)
    if fillable:
        fill_devlake(engine, made.developers, ids, Span(made.first, made.now.date()), seed)
        for _ in refresh_figures(engine, made.now.date()):
            pass
    return fillable


def _add_machine_details(connection: SqlConnection, made: Fleet, ids: Mapping[str, int]) -> None:
    """Add what receivers record of requests: User-Agents, and the machines that were refused."""
    param = dialect_of(connection).placeholder
    statement = f"UPDATE {MACHINE_TABLE} SET user_agent = {param} WHERE developer_id = {param}"
    for number, person in enumerate(made.developers):
        collector = OLD_COLLECTOR if number % OLD_SHARE == 0 else NEW_COLLECTOR
        connection.exec_driver_sql(statement, (collector, person.id))
    random = Random("refused")
    refused = NotedRefusals()
    for (name, day, reason), count in made.refused.items():
        arrived_us = epoch_us(datetime.combine(day, time(9), timezone.utc))
        people = [person for person in made.developers if person.connection == name]
        is_recent = arrived_us >= epoch_us(made.now) - RETENTION_US
        if reason in MESSAGES and people and is_recent:
            person = random.choice(people)
            hostname = machine_name(person.machines[0].hostname)
            address = f"192.0.2.{random.randint(10, 99)}"
            sender = (person.id, hostname, address, OLD_COLLECTOR)
            details = RefusalDetails(*sender, MESSAGES[reason])
            for _ in range(count):
                refused.note(ids[name], reason, details, arrived_us, 0)
    write_refused_machines(connection, refused.machines(), None)


def _require_empty(engine: Engine) -> None:
    with reading(engine).connect() as connection:
        for table, what in ((CONNECTION_TABLE, "connections"), (RAW_TABLE, "reports")):
            row: Optional[Any] = connection.exec_driver_sql(
                f"SELECT 1 FROM {table} LIMIT 1"
            ).first()
            if row is not None:
                raise ConfigurationError(
                    f"this database has {what} already, and made-up ones must not mix with them;"
                    " set DB_URL (or TELEMETRY_DATA_DIR) to another database"
                )


def _to_datetime(epoch: int) -> datetime:
    return datetime.fromtimestamp(epoch // 1_000_000, timezone.utc)
