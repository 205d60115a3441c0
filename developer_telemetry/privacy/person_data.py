"""Count and remove the rows of one person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Optional

from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import RAW_TABLE, TOOL_TABLE
from developer_telemetry.database.bulk_insert import MAX_ROWS, batches
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import overwrite_deleted_bytes, reading, transact
from developer_telemetry.privacy.person_search import Person
from developer_telemetry.storage.person_rows import build_conditions
from developer_telemetry.storage.raw_reports import build_days as days_of
from developer_telemetry.storage.raw_reports import reuse_connection
from developer_telemetry.storage.tables import DAY_TABLES, ERASED_TABLES
from developer_telemetry.storage.writer import upsert_tool_rows


class ErasureEnd(NamedTuple):
    """The last report to remove, by raw id or by arrival: one of the two is enough.

    A report that was stored earlier may have a later arrival, by a wrong clock.
    """

    raw_id: int
    arrived_us: int


class PersonData:
    """The rows of one developer of one connection."""

    def __init__(self, engine: Engine, person: Person, tables: Sequence[str]) -> None:
        """Use the tables that an erasure covers, of the database's `tables`."""
        self._engine = engine
        self._person = person
        self._tables = [table for table in ERASED_TABLES if table.name in tables]
        self._param = dialect_of(engine).placeholder
        self._condition = f"connection_id = {self._param} AND developer_id = {self._param}"

    def counts(self) -> Counter[str]:
        """Return the numbers of rows by table, without zeros."""
        counts: Counter[str] = Counter()
        with reading(self._engine).connect() as connection:
            for table in self._tables:
                counts[table.name] = sum(
                    connection.exec_driver_sql(
                        f"SELECT COUNT(*) FROM {table.name} WHERE {where}", parameters
                    ).scalar_one()
                    for where, parameters in build_conditions(connection, table, *self._person)
                )
        return +counts

    def remove_days(self, strategy: str, until: Optional[ErasureEnd]) -> Counter[str]:
        """Remove reports and their days up to `until`, or all of them without it.

        Returns the numbers of removed rows by table.
        """
        removed: Counter[str] = Counter()
        for dates in self._read_dates():
            work = partial(self._remove_dates, dates=dates, strategy=strategy, until=until)
            removed += transact(self._engine, work)
        return removed

    def remove_rest(self) -> Counter[str]:
        """Remove machines and rows of the domain layer; return their numbers by table.

        The next run makes them again from the remaining reports.
        """
        return transact(self._engine, self._remove_rest)

    def _read_dates(self) -> Iterator[list[str]]:
        """Yield the person's days, some at a time, so that no transaction takes long."""
        with reading(self._engine).connect() as connection:
            dates = {
                str(row[0])
                for table in DAY_TABLES
                for row in connection.exec_driver_sql(
                    f"SELECT DISTINCT date FROM {table} WHERE {self._condition}", self._person
                )
            }
        ordered = sorted(dates)
        for start in range(0, len(ordered), MAX_ROWS):
            yield ordered[start : start + MAX_ROWS]

    def _remove_dates(
        self,
        connection: SqlConnection,
        dates: Sequence[str],
        strategy: str,
        until: Optional[ErasureEnd],
    ) -> Counter[str]:
        overwrite_deleted_bytes(connection)
        days = f"{self._condition} AND date IN ({', '.join([self._param] * len(dates))})"
        limit = f" AND (id <= {self._param} OR arrived_us <= {self._param})" if until else ""
        # The tool rows first, in the same order as other writers of a day, against deadlocks.
        tool = self._delete(connection, TOOL_TABLE, days, (*self._person, *dates))
        raw = self._delete(
            connection, RAW_TABLE, f"{days}{limit}", (*self._person, *dates, *(until or ()))
        )
        keys = [(*self._person, date) for date in dates]
        for left in batches(connection, days_of(reuse_connection(connection), keys, strategy)):
            upsert_tool_rows(connection, left)
            tool -= len(left)
        return Counter({RAW_TABLE: raw, TOOL_TABLE: tool})

    def _remove_rest(self, connection: SqlConnection) -> Counter[str]:
        overwrite_deleted_bytes(connection)
        removed: Counter[str] = Counter()
        for table in self._tables:
            if not table.has_days:
                for condition in build_conditions(connection, table, *self._person):
                    removed[table.name] += self._delete(connection, table.name, *condition)
        return removed

    @staticmethod
    def _delete(
        connection: SqlConnection, table: str, where: str, parameters: Sequence[Any]
    ) -> int:
        statement = f"DELETE FROM {table} WHERE {where}"
        removed: int = connection.exec_driver_sql(statement, tuple(parameters)).rowcount
        return removed


def list_erased_tables(engine: Engine) -> list[str]:
    """Return the existing tables that an erasure covers, DevLake's as well."""
    return inspect(engine).get_table_names()
