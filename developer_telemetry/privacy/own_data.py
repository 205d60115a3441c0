"""Read what is stored about one person, for that person.

A view that is limited by a page key shows the reports with this key, and a day's row only if it is
made of such reports alone: all reports of the day have the key, and none was pruned. It shows
looks, and the number of other days, but nothing else that other machines may have sent.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Optional

import msgspec
from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import (
    ACCESS_TABLE,
    CONNECTION_TABLE,
    RAW_TABLE,
    TOOL_TABLE,
    smallest_group_of,
)
from developer_telemetry.database.bulk_insert import MAX_KEYS
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.privacy.access_log import RecordedLook, read_looks
from developer_telemetry.privacy.personal_links import PageKey
from developer_telemetry.reports.daily_metrics import LONG_COLUMNS, TOOL_COLUMNS
from developer_telemetry.storage.person_rows import build_conditions
from developer_telemetry.storage.raw_reports import Opened, read_bodies
from developer_telemetry.storage.retention_marks import read_first_day
from developer_telemetry.storage.tables import ERASED_TABLES

# A day's page shows so many of its newest reports, and bodies of up to so many characters.
SHOWN_REPORTS = 20
SHOWN_CHARACTERS = 64 << 10

Row = dict[str, Any]


class ConnectionRules(NamedTuple):
    """The settings of a connection that its developers want to know."""

    name: str
    strip_paths: bool
    pseudonyms: bool
    raw_retention_days: int
    tool_retention_days: int
    smallest_group: int


class OwnDay(NamedTuple):
    """A day of which something is stored.

    Attributes:
        reports: The number of stored reports.
        own_reports: The number of those that the view may show.
        shows_row: True if there is a row of the day and the view may show it.
    """

    date: str
    reports: int
    own_reports: int
    has_row: bool
    shows_row: bool

    @property
    def is_shown(self) -> bool:
        """Return true if the view may show a part of it."""
        return self.shows_row or self.own_reports > 0

    @property
    def is_complete(self) -> bool:
        """Return true if the view may show all of it."""
        return self.own_reports == self.reports and self.shows_row == self.has_row


class OwnReport(NamedTuple):
    """A stored report; the body is None where it is too long for the page."""

    id: int
    report_id: str
    date: str
    hostname: str
    arrived_us: int
    body: Optional[str]


class OwnData:
    """The stored rows of a developer of a connection, as far as a page key allows."""

    def __init__(self, connection_id: int, developer_id: str, page_key: PageKey = ()) -> None:
        self._person = (connection_id, developer_id)
        self._page_key = page_key

    def read_rules(self, connection: SqlConnection) -> Optional[ConnectionRules]:
        """Return the connection's settings; None if it was deleted."""
        param = dialect_of(connection).placeholder
        row = connection.exec_driver_sql(
            f"SELECT {', '.join(ConnectionRules._fields)} FROM {CONNECTION_TABLE}"
            f" WHERE id = {param}",
            self._person[:1],
        ).first()
        if row is None:
            return None
        name, *numbers = row
        paths, pseudonyms, raw, tool, group = (int(number or 0) for number in numbers)
        return ConnectionRules(
            name, bool(paths), bool(pseudonyms), raw, tool, smallest_group_of(group)
        )

    def read_days(self, connection: SqlConnection) -> list[OwnDay]:
        """Return all days, the newest first."""
        own, key = self._own_condition(connection, "payload")
        reports = {
            str(row[0]): (int(row[1]), int(row[2]))
            for row in connection.exec_driver_sql(
                f"SELECT date, COUNT(*), SUM(CASE WHEN {own} THEN 1 ELSE 0 END) FROM {RAW_TABLE}"
                f" WHERE {self._where(connection)} GROUP BY date",
                (*key, *self._person),
            )
        }
        own, key = self._own_condition(connection, "r.payload")
        rows = {
            str(row[0]): bool(row[1])
            for row in connection.exec_driver_sql(
                f"SELECT t.date, CASE WHEN {own} THEN 1 ELSE 0 END FROM {TOOL_TABLE} t"
                f" LEFT JOIN {RAW_TABLE} r ON r.id = t._raw_data_id"
                f" WHERE {self._where(connection, 't.')}",
                (*key, *self._person),
            )
        }
        first = read_first_day(connection, self._person[0])
        days = []
        for date in sorted({*reports, *rows}, reverse=True):
            count, shown = reports.get(date, (0, 0))
            is_own = 0 < shown == count and date >= first and rows.get(date, False)
            shows_row = date in rows and (is_own or not self._page_key)
            days.append(OwnDay(date, count, shown, date in rows, shows_row))
        return days

    def read_rows(self, connection: SqlConnection, days: Sequence[OwnDay]) -> dict[str, Row]:
        """Return the rows of days by date, as far as the view may show them."""
        dates = [day.date for day in days if day.shows_row]
        param = dialect_of(connection).placeholder
        rows = {}
        for start in range(0, len(dates), MAX_KEYS):
            batch = dates[start : start + MAX_KEYS]
            result = connection.exec_driver_sql(
                f"SELECT {', '.join(TOOL_COLUMNS)} FROM {TOOL_TABLE}"
                f" WHERE {self._where(connection)}"
                f" AND date IN ({', '.join([param] * len(batch))}) ORDER BY date",
                (*self._person, *batch),
            )
            rows.update({str(row[2]): dict(zip(TOOL_COLUMNS, row)) for row in result})
        return rows

    def list_reports(self, connection: SqlConnection, date: str) -> list[tuple[OwnReport, int]]:
        """Return a day's reports without bodies, the newest first, with the bodies' lengths."""
        dialect = dialect_of(connection)
        own, key = self._own_condition(connection, "payload")
        rows = connection.exec_driver_sql(
            f"SELECT id, report_id, date, hostname, arrived_us, {dialect.octets}(payload)"
            f" FROM {RAW_TABLE} WHERE {self._where(connection)} AND date = {dialect.placeholder}"
            f" AND {own} ORDER BY arrived_us DESC, id DESC",
            (*self._person, date, *key),
        )
        return [
            (OwnReport(row[0], row[1], str(row[2]), row[3], int(row[4]), None), int(row[5]))
            for row in rows
        ]

    def read_day(self, opened: Opened, date: str) -> tuple[list[OwnReport], int]:
        """Return the newest reports of a day with their bodies, and the number of all of them."""
        with opened() as connection:
            listed = self.list_reports(connection, date)
        newest = listed[:SHOWN_REPORTS]
        short = [(report.id, size) for report, size in newest if size <= SHOWN_CHARACTERS]
        bodies = dict(read_bodies(opened, short))
        return [report._replace(body=bodies.get(report.id)) for report, _ in newest], len(listed)

    def read_looks(self, connection: SqlConnection, days: Sequence[OwnDay]) -> list[RecordedLook]:
        """Return the looks at the person's rows, unless the view has to hide a part of these."""
        is_complete = bool(days) and all(day.is_complete for day in days)
        if self._page_key and not is_complete:
            return []
        return read_looks(connection, self._person)

    def read_others(self, connection: SqlConnection) -> dict[str, list[Row]]:
        """Return the rows of tables without days, by an operator's words for the tables."""
        if self._page_key:
            return {}
        existing = inspect(connection).get_table_names()
        others = {}
        for table in ERASED_TABLES:
            if table.has_days or table.name == ACCESS_TABLE or table.name not in existing:
                continue
            others[table.label] = [
                row._asdict()
                for condition in build_conditions(connection, table, *self._person)
                for row in connection.exec_driver_sql(
                    f"SELECT * FROM {table.name} WHERE {condition.sql}", condition.parameters
                )
            ]
        return others

    def has_key(self, connection: SqlConnection) -> bool:
        """Return true if a stored report has the page key."""
        own, key = self._own_condition(connection, "payload")
        row = connection.exec_driver_sql(
            f"SELECT 1 FROM {RAW_TABLE} WHERE {self._where(connection)} AND {own} LIMIT 1",
            (*self._person, *key),
        ).first()
        return row is not None

    def _where(self, connection: SqlConnection, prefix: str = "") -> str:
        param = dialect_of(connection).placeholder
        return f"{prefix}connection_id = {param} AND {prefix}developer_id = {param}"

    def _own_condition(self, connection: SqlConnection, column: str) -> tuple[str, tuple[str, ...]]:
        """Return the condition for reports that the view may show, and its parameters.

        The numbers of a page key are in no other machine's reports: they are parts of a hash.
        """
        if not self._page_key:
            return "1 = 1", ()
        param = dialect_of(connection).placeholder
        alike = " AND ".join([f"{column} LIKE {param}"] * len(self._page_key))
        return f"({alike})", tuple(f"%{number}%" for number in self._page_key)


def write_json(engine: Engine, data: OwnData, about: Row) -> Iterator[bytes]:
    """Yield all that a view may show as one JSON object, in pieces.

    `about` has the fields at its start. No piece has more than some MiB.
    """
    opened = engine.connect
    with opened() as connection:
        days = data.read_days(connection)
        recorded = [look._asdict() for look in data.read_looks(connection, days)]
        others = data.read_others(connection)
    start = _encode({**about, "looks": recorded, **others})
    yield start[:-1] + b',"days":['
    yield from _write_rows(_read_all_rows(engine, data, days))
    yield b'],"reports":['
    yield from _write_rows(_read_all_reports(engine, data, days))
    yield b"]}\n"


def write_csv(engine: Engine, data: OwnData) -> Iterator[bytes]:
    """Yield the days that a view may show as CSV, in pieces."""
    yield _csv_line(TOOL_COLUMNS)
    with engine.connect() as connection:
        days = data.read_days(connection)
    for row in _read_all_rows(engine, data, days):
        yield _csv_line([_to_cell(value) for value in row.values()])


def _read_all_rows(engine: Engine, data: OwnData, days: Sequence[OwnDay]) -> Iterator[Row]:
    for start in range(0, len(days), MAX_KEYS):
        with engine.connect() as connection:
            rows = data.read_rows(connection, days[start : start + MAX_KEYS])
        for date in sorted(rows, reverse=True):
            yield rows[date]


def _read_all_reports(engine: Engine, data: OwnData, days: Sequence[OwnDay]) -> Iterator[Row]:
    for day in days:
        if not day.own_reports:
            continue
        with engine.connect() as connection:
            listed = data.list_reports(connection, day.date)
        reports = {report.id: report for report, _ in listed}
        sized = [(report.id, size) for report, size in listed]
        for raw_id, body in read_bodies(engine.connect, sized):
            if body:  # and not deleted meanwhile
                yield reports[raw_id]._replace(body=body)._asdict()


def _write_rows(rows: Iterator[Row]) -> Iterator[bytes]:
    comma = b""
    for row in rows:
        yield comma + _encode(row)
        comma = b",\n"


def _encode(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=str)


def _csv_line(cells: Sequence[Any]) -> bytes:
    file = io.StringIO()
    csv.writer(file).writerow(cells)
    return file.getvalue().encode("utf-8", "replace")


def _to_cell(value: Any) -> Any:
    # An apostrophe keeps a spreadsheet from running a text as a formula.
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if is_formula else value


def shorten(row: Row) -> Row:
    """Return a day's row without what says where it is from, and with texts of JSON as values."""
    return {
        name: msgspec.json.decode(value) if name in LONG_COLUMNS and value else value
        for name, value in row.items()
        if not name.startswith("_")
    }
