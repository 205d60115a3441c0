"""Write accounts of DevLake's domain layer from the tool layer, one for each developer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.concurrency import map_concurrently, prefetch
from developer_telemetry.constants import ACCOUNT_TABLE, RAW_TABLE, TOOL_TABLE
from developer_telemetry.database.bulk_insert import MAX_KEYS, insert
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.domain_texts import TableTexts, read_table_texts
from developer_telemetry.database.engine import Progress, reading, transact
from developer_telemetry.reports.daily_metrics import KEY_COLUMNS, build_raw_params
from developer_telemetry.storage.devlake_schema import make_account_id
from developer_telemetry.storage.raw_reports import read_first_page, read_span
from developer_telemetry.storage.writer import read_developers

# Developer, e-mail, name, time of update, raw row: the columns of a tool row for an account.
AccountDay = Sequence[Any]


class NewestRaw(NamedTuple):
    """The newest of some raw rows of a developer."""

    arrived_us: int
    raw_id: int
    date: str


class Account(NamedTuple):
    """One row of DevLake's `accounts`, its fields in the order of `ACCOUNT_COLUMNS`."""

    id: str
    email: str
    full_name: str
    user_name: str
    created_at: Any
    updated_at: Any
    raw_data_params: str
    raw_data_table: str
    raw_data_id: int
    raw_data_remark: str


ACCOUNT_COLUMNS = tuple(
    f"_{name}" if name.startswith("raw_data") else name for name in Account._fields
)


def convert_accounts(
    engine: Engine,
    connection_id: int,
    new: Optional[Mapping[str, NewestRaw]] = None,
    is_gentle: bool = False,
) -> Iterator[Progress]:
    """Write one account for each developer with tool rows; for all, or for those in `new`.

    Yields after each batch.

    Args:
        new: The developers with new raw rows since the last conversion, from `read_newest_above`.
        is_gentle: Read one batch at a time, and none while the caller pauses.
    """
    if new is None:
        total = _count_accounts(engine, connection_id)
        developers: Iterator[Sequence[str]] = read_developers(engine, TOOL_TABLE, connection_id)
    else:
        total = len(new)
        developers = _batches(sorted(new))
    done = 0
    read = partial(_read_accounts, engine, connection_id, new or {})
    pages = map(read, developers) if is_gentle else prefetch(map_concurrently(read, developers))
    for number, accounts in pages:
        transact(engine, partial(_upsert, accounts=accounts))
        done += number
        yield Progress(done, max(done, total))


def read_newest_above(engine: Engine, connection_id: int, above: int) -> dict[str, NewestRaw]:
    """Return the newest report of each developer with raw rows above the id `above`."""
    param = dialect_of(engine).placeholder
    newest: dict[str, NewestRaw] = {}
    with reading(engine).connect() as connection:
        remaining, _ = read_span(connection, connection_id, above)
        while remaining.above < remaining.last:
            # A page at a time keeps databases from reading all rows by another index.
            page, _ = read_first_page(connection, remaining)
            rows = connection.exec_driver_sql(
                f"SELECT developer_id, arrived_us, id, date FROM {RAW_TABLE}"
                f" WHERE connection_id = {param} AND id > {param} AND id <= {param}",
                page,
            )
            for developer, arrived_us, raw_id, date in rows:
                candidate = NewestRaw(arrived_us, raw_id, str(date))
                newest[developer] = max(candidate, newest.get(developer, candidate))
            remaining = remaining._replace(above=page.last)
    return newest


def _count_accounts(engine: Engine, connection_id: int) -> int:
    param = dialect_of(engine).placeholder
    with reading(engine).connect() as connection:
        count: int = connection.exec_driver_sql(
            f"SELECT COUNT(DISTINCT developer_id) FROM {TOOL_TABLE} WHERE connection_id = {param}",
            (connection_id,),
        ).scalar_one()
    return count


def _batches(developers: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(developers), MAX_KEYS):
        yield developers[start : start + MAX_KEYS]


def _read_accounts(
    engine: Engine, connection_id: int, new: Mapping[str, NewestRaw], developers: Sequence[str]
) -> tuple[int, list[Account]]:
    """Return the number of these developers, and the accounts of those with tool rows."""
    with reading(engine).connect() as connection:
        texts = read_table_texts(connection, ACCOUNT_TABLE)
        days = _read_later_days(connection, connection_id, new, developers, texts) if new else []
        for find in (_read_newest_days, _read_days):
            with_days = {row[0] for row in days}
            without_days = [developer for developer in developers if developer not in with_days]
            days += find(connection, connection_id, without_days) if without_days else []
    days.sort(key=lambda row: row[0])
    accounts = [
        _build_account(connection_id, developer, list(newest_first), texts)
        for developer, newest_first in groupby(days, key=lambda row: row[0])
    ]
    return len(developers), accounts


def _read_later_days(
    connection: SqlConnection,
    connection_id: int,
    new: Mapping[str, NewestRaw],
    developers: Sequence[str],
    texts: TableTexts,
) -> list[AccountDay]:
    """Return the tool row of each developer's newest report, if no older day has to be read.

    Its row must have e-mail and name, and its account must be no newer. With 200 days a developer,
    MariaDB needs a quarter of the time.
    """
    dialect = dialect_of(connection)
    days = [(connection_id, developer, new[developer].date) for developer in developers]
    rows = connection.exec_driver_sql(
        f"SELECT developer_id, email, name, updated_at, _raw_data_id, arrived_us FROM {TOOL_TABLE}"
        f" WHERE {dialect.keys_condition(TOOL_TABLE, KEY_COLUMNS, len(days))}"
        " AND arrived_us > 0 AND email > '' AND name > ''",
        dialect.parameters(KEY_COLUMNS, days),
    ).fetchall()
    ids = [(make_account_id(connection_id, developer, texts),) for developer in developers]
    accounts = {
        row[0]: row[1:]
        for row in connection.exec_driver_sql(
            f"SELECT id, updated_at, _raw_data_id FROM {ACCOUNT_TABLE}"
            f" WHERE {dialect.in_condition(('id',), len(ids))}",
            dialect.parameters(("id",), ids),
        )
    }

    def is_newest(developer: str, updated_at: Any, raw_id: int, arrived_us: int) -> bool:
        account = accounts.get(make_account_id(connection_id, developer, texts))
        if account is None or arrived_us < new[developer].arrived_us:
            return False
        made_at, made_of = account
        return made_of == raw_id or (made_at is not None and bool(made_at < updated_at))

    return [row[:5] for row in rows if is_newest(row[0], *row[3:])]


def _read_newest_days(
    connection: SqlConnection, connection_id: int, developers: Sequence[str]
) -> list[AccountDay]:
    """Return each developer's newest tool row if it has e-mail and name, as nearly all have.

    Its date is in an index of the raw layer, so other rows need not be read.
    """
    dialect = dialect_of(connection)
    columns = ("connection_id", "developer_id")
    keys = [(connection_id, developer) for developer in developers]
    return list(
        connection.exec_driver_sql(
            "SELECT t.developer_id, t.email, t.name, t.updated_at, t._raw_data_id FROM ("
            f" SELECT developer_id, date, arrived_us, {_rank_sql()} AS place FROM {RAW_TABLE}"
            f" WHERE {dialect.in_condition(columns, len(keys))}"
            f") n {dialect.join_in_order} {TOOL_TABLE} t ON t.connection_id = {dialect.placeholder}"
            " AND t.developer_id = n.developer_id AND t.date = n.date"
            " WHERE n.place = 1 AND t.arrived_us >= n.arrived_us AND t.email > '' AND t.name > ''",
            (*dialect.parameters(columns, keys), connection_id),
        )
    )


def _read_days(
    connection: SqlConnection, connection_id: int, developers: Sequence[str]
) -> list[AccountDay]:
    """Return each developer's newest tool row, and the newest with an e-mail and with a name."""
    dialect = dialect_of(connection)
    columns = ("connection_id", "developer_id")
    keys = [(connection_id, developer) for developer in developers]
    # At most three rows a developer, however many days.
    return list(
        connection.exec_driver_sql(
            "SELECT developer_id, email, name, updated_at, _raw_data_id FROM ("
            " SELECT developer_id, email, name, updated_at, _raw_data_id,"
            f" {_rank_sql()} AS newest,"
            f" {_rank_sql('email')} AS with_email,"
            f" {_rank_sql('name')} AS with_name"
            f" FROM {TOOL_TABLE} WHERE {dialect.in_condition(columns, len(keys))}"
            ") days WHERE 1 IN (newest, with_email, with_name) ORDER BY developer_id, newest",
            dialect.parameters(columns, keys),
        )
    )


def _rank_sql(column: str = "") -> str:
    """Return a row's rank among its developer's: first rows with `column`, then the newest."""
    first = f"CASE WHEN {column} > '' THEN 0 ELSE 1 END, " if column else ""
    return (
        f"ROW_NUMBER() OVER (PARTITION BY developer_id ORDER BY {first}arrived_us DESC, date DESC)"
    )


def _build_account(
    connection_id: int, developer: str, newest_first: Sequence[AccountDay], texts: TableTexts
) -> Account:
    updated_at, raw_id = newest_first[0][3:5]
    return Account(
        id=make_account_id(connection_id, developer, texts),
        email=texts.text(_first_text(row[1] for row in newest_first)),
        full_name=texts.text(_first_text(row[2] for row in newest_first)),
        user_name=texts.text(developer),
        created_at=updated_at,
        updated_at=updated_at,
        raw_data_params=build_raw_params(connection_id),
        raw_data_table=RAW_TABLE,
        raw_data_id=raw_id or 0,
        raw_data_remark="",
    )


def _first_text(texts: Iterator[Optional[str]]) -> str:
    return next(filter(None, texts), "")


def _upsert(connection: Any, accounts: Sequence[Account]) -> None:
    dialect = dialect_of(connection)
    changing = [column for column in ACCOUNT_COLUMNS if column not in ("id", "created_at")]
    tail = dialect.on_conflict(("id",), [(column, dialect.new(column)) for column in changing])
    insert(connection, ACCOUNT_TABLE, ACCOUNT_COLUMNS, accounts, tail)
