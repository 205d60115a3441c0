"""What there is of one person in the database: counted, and removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Optional

from sqlalchemy import inspect
from sqlalchemy.engine import Connection, Engine

from developer_telemetry.constants import (
    ACCOUNT_TABLE,
    LINK_TABLE,
    MACHINE_TABLE,
    RAW_TABLE,
    TASK_TABLE,
    TOOL_TABLE,
)
from developer_telemetry.database.bulk_insert import MAX_ROWS, batches
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.domain_texts import texts_of
from developer_telemetry.database.engine import be_thorough, reading, transact
from developer_telemetry.privacy.person_search import Person
from developer_telemetry.reports.daily_metrics import raw_params
from developer_telemetry.storage.devlake_schema import KINDS, account_id, task_id
from developer_telemetry.storage.raw_reports import days as days_of
from developer_telemetry.storage.raw_reports import within
from developer_telemetry.storage.writer import upsert_tool

_DATE = "YYYY-MM-DD"


class Until(NamedTuple):
    """Which reports are removed: up to one or the other of these, or without a limit all of them.

    A report that was stored before may have arrived, by a clock that is wrong, later.
    """

    raw_id: int
    arrived_us: int


class Traces:
    """Of one developer of one connection."""

    def __init__(self, engine: Engine, person: Person, tables: Sequence[str]) -> None:
        """`tables` are those that the database has."""
        self._engine = engine
        self._person = person
        self._tables = tables
        self._mark = dialect_of(engine).placeholder
        self._whose = f"connection_id = {self._mark} AND developer_id = {self._mark}"

    def counts(self) -> Counter[str]:
        """Rows by table, of those tables that have any."""
        counts: Counter[str] = Counter()
        with reading(self._engine).connect() as connection:
            for table in (RAW_TABLE, TOOL_TABLE, MACHINE_TABLE):
                counts[table] = connection.exec_driver_sql(
                    f"SELECT COUNT(*) FROM {table} WHERE {self._whose}", self._person
                ).scalar_one()
            for table, column in self._account_tables():
                counts[table] = connection.exec_driver_sql(
                    f"SELECT COUNT(*) FROM {table} WHERE {column} = {self._mark}",
                    (self._account(connection),),
                ).scalar_one()
            counts[TASK_TABLE] = len(self._tasks(connection))
        return +counts

    def remove_days(self, strategy: str, until: Optional[Until]) -> Counter[str]:
        """Remove reports and what was made of them; what arrived since stays, and so does its day.

        Returns how many rows went, by table.
        """
        gone: Counter[str] = Counter()
        for dates in self._dates():
            work = partial(self._remove_dates, dates=dates, strategy=strategy, until=until)
            gone += transact(self._engine, work)
        return gone

    def remove_rest(self) -> Counter[str]:
        """Remove machines and the rows of the domain layer; returns how many, by table.

        Whatever reports there are now will bring theirs back.
        """
        return transact(self._engine, self._remove_rest)

    def _account(self, connection: Connection) -> str:
        return account_id(*self._person, texts_of(connection, ACCOUNT_TABLE))

    def _account_tables(self) -> Iterator[tuple[str, str]]:
        yield ACCOUNT_TABLE, "id"
        if LINK_TABLE in self._tables:
            yield LINK_TABLE, "account_id"

    def _dates(self) -> Iterator[list[str]]:
        """The person's days, some at a time, so that no transaction takes long."""
        with reading(self._engine).connect() as connection:
            dates = {
                str(row[0])
                for table in (RAW_TABLE, TOOL_TABLE)
                for row in connection.exec_driver_sql(
                    f"SELECT DISTINCT date FROM {table} WHERE {self._whose}", self._person
                )
            }
        ordered = sorted(dates)
        for start in range(0, len(ordered), MAX_ROWS):
            yield ordered[start : start + MAX_ROWS]

    def _remove_dates(
        self,
        connection: Connection,
        dates: Sequence[str],
        strategy: str,
        until: Optional[Until],
    ) -> Counter[str]:
        be_thorough(connection)
        days = f"{self._whose} AND date IN ({', '.join([self._mark] * len(dates))})"
        limit = f" AND (id <= {self._mark} OR arrived_us <= {self._mark})" if until else ""
        # The tool rows first, as whoever adds to a day does it.
        tool = self._delete(connection, TOOL_TABLE, days, (*self._person, *dates))
        raw = self._delete(
            connection, RAW_TABLE, f"{days}{limit}", (*self._person, *dates, *(until or ()))
        )
        keys = [(*self._person, date) for date in dates]
        for left in batches(connection, days_of(within(connection), keys, strategy)):
            upsert_tool(connection, left)
            tool -= len(left)
        return Counter({RAW_TABLE: raw, TOOL_TABLE: tool})

    def _remove_rest(self, connection: Connection) -> Counter[str]:
        be_thorough(connection)
        gone: Counter[str] = Counter()
        gone[MACHINE_TABLE] = self._delete(connection, MACHINE_TABLE, self._whose, self._person)
        for table, column in self._account_tables():
            account = (self._account(connection),)
            gone[table] = self._delete(connection, table, f"{column} = {self._mark}", account)
        for task in self._tasks(connection):
            gone[TASK_TABLE] += self._delete(connection, TASK_TABLE, f"id = {self._mark}", (task,))
        return gone

    def _tasks(self, connection: Connection) -> list[str]:
        """The ids of the person's tasks, also of days that were pruned since."""
        connection_id, developer = self._person
        # Each date is as long as any other, so what comes before it is the same for all of them.
        texts = texts_of(connection, TASK_TABLE)
        starts = [
            task_id(kind, connection_id, developer, _DATE, texts)[: -len(_DATE)] for kind in KINDS
        ]
        alike = " OR ".join([f"SUBSTR(id, 1, {self._mark}) = {self._mark}"] * len(starts))
        rows = connection.exec_driver_sql(
            f"SELECT id FROM {TASK_TABLE} WHERE _raw_data_params = {self._mark}"
            f" AND _raw_data_table = {self._mark} AND ({alike})",
            (
                raw_params(connection_id),
                RAW_TABLE,
                *(value for start in starts for value in (len(start), start)),
            ),
        )
        # The table's own collation may take others for equal.
        return [row[0] for row in rows if row[0][: -len(_DATE)] in starts]

    @staticmethod
    def _delete(connection: Connection, table: str, where: str, parameters: Sequence[Any]) -> int:
        statement = f"DELETE FROM {table} WHERE {where}"
        gone: int = connection.exec_driver_sql(statement, tuple(parameters)).rowcount
        return gone


def tables_of(engine: Engine) -> list[str]:
    """The tables that the database has, DevLake's as well."""
    return inspect(engine).get_table_names()
