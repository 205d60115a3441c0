"""Link our accounts to DevLake's users, by the rule of DevLake's `org` plugin.

An account without a user belongs to the user with its e-mail address, else to the one with its full
name, else to the one with its user name. Each text is compared exactly and then without regard to
case. Links by this rule are recorded. A recorded link that is missing was removed by an operator,
and is not made again from the same text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import ACCOUNT_TABLE, LINK_TABLE, MADE_LINK_TABLE, RAW_TABLE
from developer_telemetry.database.bulk_insert import MAX_ROWS, insert
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.domain_texts import read_table_texts
from developer_telemetry.database.engine import now_us, reading, transact
from developer_telemetry.reports.daily_metrics import build_raw_params, format_timestamp
from developer_telemetry.storage.devlake_schema import (
    LINK_COLUMNS,
    USER_TABLE,
    has_users,
    make_account_id,
)

_ORIGIN = ("_raw_data_params", "_raw_data_table", "_raw_data_id", "_raw_data_remark")
_RECORD_COLUMNS = ("account_id", "connection_id", "user_id", "matched_by", "matched_text")
# The one letter whose lower case is two in Python and one in Go.
_CAPITAL_I_WITH_DOT = "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}"


class Match(NamedTuple):
    """The user of an account by the rule, and the text that matched."""

    user_id: str
    matched_by: str
    matched_text: str


class _Account(NamedTuple):
    """An account, its link and the record of one that was made."""

    id: str
    email: Optional[str]
    full_name: Optional[str]
    user_name: Optional[str]
    origin: tuple[Any, ...]
    user_id: Optional[str]  # of its link
    recorded: Optional[tuple[str, str]]  # user and text of the recorded link


class UserRule:
    """DevLake's users by the texts of accounts. Of equal users the last one counts."""

    def __init__(self, users: Iterable[Sequence[Any]]) -> None:
        """Take users as (id, e-mail, name) in the table's order."""
        self._emails, self._names = _UserIds(), _UserIds()
        for user_id, email, name in users:
            self._emails.add(email, user_id)
            self._names.add(name, user_id)

    def match(self, account: _Account) -> Optional[Match]:
        """Return the user of an account; None if there is no such user."""
        for column, user_ids in (
            ("email", self._emails),
            ("full_name", self._names),
            ("user_name", self._names),
        ):
            text: Optional[str] = getattr(account, column)
            user_id = user_ids.find(text)
            if text and user_id:
                return Match(user_id, column, text)
        return None


class _UserIds:
    """Ids of users by a text."""

    def __init__(self) -> None:
        self._exact: dict[str, str] = {}
        self._folded: dict[str, str] = {}

    def add(self, text: Optional[str], user_id: str) -> None:
        """Add a user, unless the text is empty."""
        if text:
            self._exact[text] = self._folded[fold_case(text)] = user_id

    def find(self, text: Optional[str]) -> Optional[str]:
        """Return the user with this text, else one whose text differs by case alone."""
        return text and (self._exact.get(text) or self._folded.get(fold_case(text)))


def fold_case(text: str) -> str:
    """Return a text in lower case as Go has it: letter by letter, without regard to context."""
    if text.isascii():
        return text.lower()
    return "".join("i" if letter == _CAPITAL_I_WITH_DOT else letter.lower() for letter in text)


def link_accounts(
    engine: Engine, connection_id: int, developers: Optional[Sequence[str]] = None
) -> Iterator[int]:
    """Link the accounts of a connection that have no user, or of some developers.

    The caller holds the connection's lock. Yields the number of links made, after each page.
    """
    with reading(engine).connect() as connection:
        if not has_users(connection) or developers == []:
            return
        pages = _read_pages(engine, connection_id, developers)
        accounts = next(pages, [])
        if not accounts:
            return
        # Without an order, as `org` asks: which of equal users is the last one depends on it.
        users = connection.exec_driver_sql(f"SELECT id, email, name FROM {USER_TABLE}")
        rule = UserRule(users)
    made = 0
    while accounts:
        links, records = _match_accounts(rule, connection_id, accounts)
        if records:
            transact(engine, partial(_write_links, links=links, records=records))
        made += len(links)
        yield made
        accounts = next(pages, [])


def _read_pages(
    engine: Engine, connection_id: int, developers: Optional[Sequence[str]]
) -> Iterator[list[_Account]]:
    """Yield the accounts of a connection, or of some developers, with links and records."""
    param = dialect_of(engine).placeholder
    if developers is None:
        ours = f"_raw_data_params = {param} AND _raw_data_table = {param}"
        condition = f"{ours} AND id > {param} ORDER BY id LIMIT {MAX_ROWS}"
        last = ""
        while True:
            with reading(engine).connect() as connection:
                origin = (build_raw_params(connection_id), RAW_TABLE)
                page = _read_page(connection, condition, (*origin, last))
            if not page:
                return
            yield page
            last = page[-1].id
    for start in range(0, len(developers), MAX_ROWS):
        with reading(engine).connect() as connection:
            texts = read_table_texts(connection, ACCOUNT_TABLE)
            ids = tuple(
                make_account_id(connection_id, developer, texts)
                for developer in developers[start : start + MAX_ROWS]
            )
            condition = f"id IN ({', '.join([param] * len(ids))})"
            page = _read_page(connection, condition, ids)
        if page:
            yield page


def _read_page(
    connection: SqlConnection, condition: str, parameters: tuple[Any, ...]
) -> list[_Account]:
    """Return accounts with their links and records, if any."""
    rows = connection.exec_driver_sql(
        f"SELECT id, email, full_name, user_name, {', '.join(_ORIGIN)} FROM {ACCOUNT_TABLE}"
        f" WHERE {condition}",
        parameters,
    ).fetchall()
    ids = [row[0] for row in rows]
    links = _read_by_account(connection, LINK_TABLE, ("user_id",), ids)
    records = _read_by_account(connection, MADE_LINK_TABLE, ("user_id", "matched_text"), ids)
    return [
        _Account(
            *(row[0], row[1], row[2], row[3]),
            origin=tuple(row[4:]),
            user_id=links.get(row[0], (None,))[0],
            recorded=records.get(row[0]),
        )
        for row in rows
    ]


def _read_by_account(
    connection: SqlConnection, table: str, columns: Sequence[str], ids: Sequence[str]
) -> dict[str, Any]:
    """Return some columns of a table by the account's id.

    By the accounts' keys: a join took PostgreSQL 8.7 s for the ninth page, keys take 0.04 s.
    """
    if not ids:
        return {}
    params = ", ".join([dialect_of(connection).placeholder] * len(ids))
    rows = connection.exec_driver_sql(
        f"SELECT account_id, {', '.join(columns)} FROM {table} WHERE account_id IN ({params})",
        tuple(ids),
    )
    return {row[0]: tuple(row[1:]) for row in rows}


def _match_accounts(
    rule: UserRule, connection_id: int, accounts: Iterable[_Account]
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return the links to make for a page of accounts, and the records of them."""
    links: list[tuple[Any, ...]] = []
    records: list[tuple[Any, ...]] = []
    now = format_timestamp(now_us())
    for account in accounts:
        match = rule.match(account)
        if match is None or account.recorded == (match.user_id, match.matched_text):
            continue
        if account.user_id is None:
            links.append((account.id, match.user_id, now, now, *account.origin))
        elif account.user_id != match.user_id:
            continue  # an operator decided otherwise
        records.append((account.id, connection_id, *match))
    return links, records


def _write_links(
    connection: SqlConnection,
    links: Sequence[tuple[Any, ...]],
    records: Sequence[tuple[Any, ...]],
) -> None:
    dialect = dialect_of(connection)
    keys = ("account_id",)
    insert(connection, LINK_TABLE, LINK_COLUMNS, links, dialect.on_conflict(keys, ()))
    update = [(column, dialect.new(column)) for column in _RECORD_COLUMNS[1:]]
    insert(connection, MADE_LINK_TABLE, _RECORD_COLUMNS, records, dialect.on_conflict(keys, update))
