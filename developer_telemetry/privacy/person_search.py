"""The search for the people behind a developer's id or an e-mail address."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.connections.registry import make_missing_connection
from developer_telemetry.constants import (
    ACCOUNT_TABLE,
    CONNECTION_TABLE,
    OVERWRITE,
    RAW_TABLE,
    TOOL_TABLE,
    strategy_of,
)
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import reading
from developer_telemetry.errors import ConfigurationError, ReportRefused
from developer_telemetry.reports.daily_metrics import build_raw_params
from developer_telemetry.reports.parser import parse
from developer_telemetry.reports.pseudonyms import DEVELOPER, EMAIL, Pseudonyms
from developer_telemetry.storage.raw_reports import read_bodies
from developer_telemetry.storage.tables import DEVELOPER_TABLES
from developer_telemetry.storage.tombstones import ALL_CONNECTIONS, TombstoneKey

# Raw rows of one query.
PAGE = 500

_PLAIN = re.compile(r"[ -~]+")
# Addresses that tools fill in and that belong to no person: of system users on any machine, and
# of senders without a mailbox. GitHub's `1234+name@users.noreply.github.com` belongs to a person.
_PLACEHOLDER = re.compile(
    r"(root|admin|administrator|user|nobody|unknown|none|null|\(none\)|no-?reply|do-?not-?reply)?"
    r"(@([^@]*\.)?(localhost|localdomain|\(none\)|invalid|none|unknown|null)?)?"
    r"|(no-?reply|do-?not-?reply)@.*"
)


class Person(NamedTuple):
    """A developer of one connection."""

    connection_id: int
    developer_id: str


class PersonNames(NamedTuple):
    """The names of a person in one connection, in clear or as pseudonyms."""

    developers: frozenset[str]
    emails: frozenset[str]  # in lower case


class PersonSearch:
    """The search for a developer's exact id, or for an e-mail address in any case."""

    def __init__(
        self, engine: Engine, encryption_secret: str, text: str, only: Optional[int] = None
    ) -> None:
        """Search in the connection `only`, or in all of them.

        Raises:
            ConfigurationError: There is no such connection, or `text` is empty.
        """
        self._engine = engine
        self._secret = encryption_secret
        self.text = text.strip()
        self.only = only
        if not self.text:
            raise ConfigurationError(
                "no person is named; give a developer's id or an e-mail address"
            )
        self.strategies = read_strategies(engine, only)
        with reading(engine).connect() as connection:
            self._with_pseudonyms = {
                row[0]
                for row in connection.exec_driver_sql(
                    f"SELECT id, pseudonyms FROM {CONNECTION_TABLE}"
                )
                if row[1]
            }

    def people(self) -> list[Person]:
        """Return all people who match, of each connection in scope."""
        return [
            person
            for connection_id in sorted(self.strategies)
            for person in self.people_of(connection_id)
        ]

    def people_of(self, connection_id: int) -> list[Person]:
        """Return all people of one connection who match by id or by an address in any report."""
        names = self.names(connection_id)
        with reading(self._engine).connect() as connection:
            developers = set(_filter_with_rows(connection, connection_id, names.developers))
            if names.emails:
                developers.update(
                    developer
                    for developer, email in _read_addresses(connection, connection_id)
                    if email in names.emails
                )
        if names.emails:
            developers.update(_find_senders(self._engine, connection_id, names.emails))
        return [Person(connection_id, developer) for developer in sorted(developers)]

    def names(self, connection_id: int) -> PersonNames:
        """Return the names to look for in a connection."""
        pseudonyms = Pseudonyms(self._secret, connection_id)
        developers = {self.text, pseudonyms.pseudonymize(DEVELOPER, self.text)}
        if "@" not in self.text and not pseudonyms.is_pseudonym(self.text):
            return PersonNames(frozenset(developers), frozenset())
        emails = {self.text.lower(), pseudonyms.pseudonymize(EMAIL, self.text)}
        return PersonNames(frozenset(developers), frozenset(emails))

    def subjects(self, key: TombstoneKey, people: Collection[Person]) -> set[tuple[int, str]]:
        """Return the subjects of tombstones: connections, each with a hash of a name there.

        Spools may hold reports of people who are not in the database, or under the names from
        before their connection used pseudonyms.
        """
        scope_id = ALL_CONNECTIONS if self.only is None else self.only
        subjects = {(scope_id, key.developer(self.text))}
        if "@" in self.text:
            subjects.add((scope_id, key.email(self.text)))
        for connection_id in self._with_pseudonyms.intersection(self.strategies):
            names = self.names(connection_id)
            subjects.update((connection_id, key.developer(name)) for name in names.developers)
            subjects.update((connection_id, key.email(email)) for email in names.emails)
        subjects.update(
            (person.connection_id, key.developer(person.developer_id)) for person in people
        )
        return subjects

    def namesakes(self, people: Collection[Person]) -> list[tuple[str, Person]]:
        """Return other people with an address of one of these people, and the address.

        Empty addresses and placeholders do not count.
        """
        with reading(self._engine).connect() as connection:
            pairs = [
                (email, Person(connection_id, developer))
                for connection_id in sorted(self.strategies)
                for developer, email in _read_addresses(connection, connection_id)
            ]
        addresses = {
            email for email, person in pairs if person in people and is_personal_email(email)
        }
        return sorted(
            {
                (email, person)
                for email, person in pairs
                if email in addresses and person not in people
            }
        )


def is_personal_email(email: str) -> bool:
    """Return true if an address, in lower case, may be a person's own, not a placeholder."""
    return bool(email) and not _PLACEHOLDER.fullmatch(email)


def read_strategies(engine: Engine, only: Optional[int] = None) -> dict[int, str]:
    """Return the strategy of each connection, also of deleted ones that still have rows.

    Raises:
        ConfigurationError: There is no connection `only`.
    """
    with reading(engine).connect() as connection:
        connections = connection.exec_driver_sql(
            f"SELECT id, duplicate_strategy FROM {CONNECTION_TABLE}"
        ).fetchall()
        # Remaining rows of a deleted connection may hold people, too.
        left = {
            row[0]: OVERWRITE
            for table in DEVELOPER_TABLES
            for row in connection.exec_driver_sql(f"SELECT DISTINCT connection_id FROM {table}")
        }
    by_connection = {**left, **{row[0]: _normalize_strategy(row[1]) for row in connections}}
    if only is None:
        return by_connection
    if only not in by_connection:
        raise make_missing_connection(only)
    return {only: by_connection[only]}


def _normalize_strategy(text: Optional[str]) -> str:
    try:
        return strategy_of(text)
    except ConfigurationError:  # receivers use the same default
        return OVERWRITE


def _filter_with_rows(
    connection: SqlConnection, connection_id: int, developers: Collection[str]
) -> list[str]:
    """Return the developers that have rows or an account."""
    param = dialect_of(connection).placeholder
    users = {user for user, _ in _read_accounts(connection, connection_id)}
    return [
        developer
        for developer in developers
        if developer in users
        or any(
            connection.exec_driver_sql(
                f"SELECT 1 FROM {table} WHERE connection_id = {param} AND developer_id = {param}"
                " LIMIT 1",
                (connection_id, developer),
            ).first()
            for table in DEVELOPER_TABLES
        )
    ]


def _read_addresses(connection: SqlConnection, connection_id: int) -> list[tuple[str, str]]:
    """Return developers with each of their present and past addresses, in lower case."""
    param = dialect_of(connection).placeholder
    rows = connection.exec_driver_sql(
        f"SELECT DISTINCT developer_id, email FROM {TOOL_TABLE}"
        f" WHERE connection_id = {param} AND email > ''",
        (connection_id,),
    )
    pairs = [(row[0], row[1]) for row in rows] + _read_accounts(connection, connection_id)
    # Rows of the Go plugin have blanks.
    cleaned = ((user, email.strip().lower()) for user, email in pairs)
    return [(user, email) for user, email in cleaned if email]


def _read_accounts(connection: SqlConnection, connection_id: int) -> list[tuple[str, str]]:
    param = dialect_of(connection).placeholder
    rows = connection.exec_driver_sql(
        f"SELECT user_name, email FROM {ACCOUNT_TABLE}"
        f" WHERE _raw_data_params = {param} AND _raw_data_table = {param}",
        (build_raw_params(connection_id), RAW_TABLE),
    )
    return [(row[0], row[1] or "") for row in rows]


def _find_senders(engine: Engine, connection_id: int, emails: Collection[str]) -> Iterator[str]:
    """Yield the senders of reports with one of these addresses, also of replaced reports."""
    for page in _read_candidates(engine, connection_id, emails):
        developers = {row[0]: row[1] for row in page}
        sized = [(row[0], row[2]) for row in page]
        for raw_id, payload in read_bodies(reading(engine).connect, sized):
            try:
                if payload and parse(payload).email.lower() in emails:
                    yield developers[raw_id]
            except ReportRefused:  # the extract omits it, too
                pass


def _read_candidates(
    engine: Engine, connection_id: int, emails: Collection[str]
) -> Iterator[Sequence[tuple[int, str, int]]]:
    """Yield id, developer and length of raw rows whose bodies may have one of these addresses."""
    dialect = dialect_of(engine)
    param = dialect.placeholder
    # Some databases lower only ASCII letters, and JSON may escape any letter.
    parts = sorted({max(_PLAIN.findall(email), key=len, default="@") for email in emails})
    may_have = [f"REPLACE(LOWER(payload), {param}, '') <> LOWER(payload)"] * len(parts)
    may_have.append(f"REPLACE(payload, {param}, '') <> payload")
    query = (
        f"SELECT id, developer_id, {dialect.octets}(payload) FROM {RAW_TABLE}"
        f" WHERE connection_id = {param} AND id > {param} AND ({' OR '.join(may_have)})"
        f" ORDER BY id LIMIT {PAGE}"
    )
    last = 0
    while True:
        with reading(engine).connect() as connection:
            page: Sequence[tuple[int, str, int]] = [
                (row[0], row[1], row[2])
                for row in connection.exec_driver_sql(query, (connection_id, last, *parts, "\\u"))
            ]
        yield page
        if len(page) < PAGE:
            return
        last = page[-1][0]
