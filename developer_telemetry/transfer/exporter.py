"""Export rows of the raw and the tool layer as lines of JSON or CSV, in constant memory.

Each line names its table and has all that an import needs to make the same row in another database
of any kind. Ids of raw rows differ there, so a row of the tool layer also has the identity of its
newest report.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timezone
from pathlib import Path
from typing import IO, Any, NamedTuple, Optional

import msgspec
from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import RAW_TABLE, TOOL_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import reading
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.printable import escape_json, printable
from developer_telemetry.private_files import is_device, open_new, replace_file
from developer_telemetry.reports.daily_metrics import LONG_COLUMNS, TOOL_COLUMNS
from developer_telemetry.storage.person_rows import build_conditions
from developer_telemetry.storage.raw_reports import FETCHED, SHORT, read_bodies
from developer_telemetry.storage.tables import EXPORTED_TABLES
from developer_telemetry.storage.writer import read_developers
from developer_telemetry.transfer.input_files import COMPRESSED, TABLE, defuse_cell

# Rows read at once.
PAGE = 1000

RAW = "raw"
TOOL = "tool"

# The columns that an import needs are first; the others are for people.
_RAW_COLUMNS = (
    "report_id",
    "connection_id",
    "arrived_us",
    "created_at",
    "developer_id",
    "date",
    "hostname",
    "payload",
)
Row = dict[str, Any]


class ExportSelection(NamedTuple):
    """The rows to export; None means no limit. `developers` are pairs of connection and id."""

    connection_id: Optional[int] = None
    since: Optional[str] = None  # YYYY-MM-DD, the first day
    until: Optional[str] = None  # the last day
    developers: Optional[Sequence[tuple[int, str]]] = None


def read_raw_rows(engine: Engine, wanted: ExportSelection) -> Iterator[Row]:
    """Yield rows of the raw layer in the order of their ids, so that an import keeps the order."""
    if wanted.developers is not None:
        for person in wanted.developers:
            yield from _read_raw_of_person(engine, wanted, person)
        return
    above, last = _read_id_range(engine)
    while above < last:
        with reading(engine).connect() as connection:
            up_to = _read_page_end(connection, above, last)
        yield from _read_raw(engine, wanted, f"id > {above} AND id <= {up_to}")
        above = up_to


def _read_id_range(engine: Engine) -> tuple[int, int]:
    """Return the id below the first raw row, and the last one."""
    with reading(engine).connect() as connection:
        first, last = connection.exec_driver_sql(f"SELECT MIN(id), MAX(id) FROM {RAW_TABLE}").one()
    return (first or 1) - 1, last or 0


def _read_page_end(connection: SqlConnection, above: int, last: int) -> int:
    """Return the id of the last raw row of a page.

    A separate query: with conditions on other columns a database may read all rows each time.
    """
    last_id: Optional[int] = connection.exec_driver_sql(
        f"SELECT MAX(id) FROM (SELECT id FROM {RAW_TABLE} WHERE id > {above} AND id <= {last}"
        f" ORDER BY id LIMIT {PAGE}) page"
    ).scalar()
    return last_id or last


def _read_raw_of_person(
    engine: Engine, wanted: ExportSelection, person: tuple[int, str]
) -> Iterator[Row]:
    param = dialect_of(engine).placeholder
    with reading(engine).connect() as connection:
        # The index has the ids, so no rows of other people are read.
        rows = connection.exec_driver_sql(
            f"SELECT id FROM {RAW_TABLE} WHERE connection_id = {param} AND developer_id = {param}",
            person,
        )
        ids = sorted(row[0] for row in rows)
    for start in range(0, len(ids), PAGE):
        page = ", ".join(map(str, ids[start : start + PAGE]))
        yield from _read_raw(engine, wanted, f"id IN ({page})")


def _read_raw(engine: Engine, wanted: ExportSelection, where: str) -> Iterator[Row]:
    """Yield the rows of a page; long bodies are read a few at a time."""
    size = f"{dialect_of(engine).octets}(payload)"
    columns = ", ".join(_RAW_COLUMNS[:-1])
    opened = reading(engine).connect
    with opened() as connection:
        conditions, parameters = _conditions(connection, wanted)
        rows = _read_rows(
            connection,
            RAW_TABLE,
            f"SELECT {columns}, CASE WHEN {size} <= {SHORT} THEN payload END AS payload,"
            f" id, {size} AS size FROM {RAW_TABLE} WHERE {where}{conditions} ORDER BY id",
            parameters,
        )
    long = read_bodies(opened, [(row["id"], row["size"]) for row in rows if row["payload"] is None])
    for row in rows:
        payload = next(long)[1] if row["payload"] is None else row["payload"]
        if payload:  # and not deleted meanwhile
            del row["id"], row["size"]
            yield {**row, "payload": payload}


def _conditions(connection: SqlConnection, wanted: ExportSelection) -> tuple[str, tuple[Any, ...]]:
    param = dialect_of(connection).placeholder
    limits = {
        f" AND connection_id = {param}": wanted.connection_id,
        f" AND date >= {param}": wanted.since,
        f" AND date <= {param}": wanted.until,
    }
    asked = {condition: value for condition, value in limits.items() if value is not None}
    return "".join(asked), tuple(asked.values())


def read_tool_rows(engine: Engine, wanted: ExportSelection) -> Iterator[Row]:
    """Yield rows of the tool layer, by connection, developer and day."""
    people = (
        _read_all_developers(engine, wanted) if wanted.developers is None else wanted.developers
    )
    param = dialect_of(engine).placeholder
    columns = ", ".join(f"t.{column}" for column in TOOL_COLUMNS)
    for person in people:
        for first, last in _day_spans(engine, wanted, person):
            with reading(engine).connect() as connection:
                rows = _read_rows(
                    connection,
                    TOOL_TABLE,
                    f"SELECT {columns}, r.report_id FROM (SELECT * FROM {TOOL_TABLE} WHERE"
                    f" connection_id = {param} AND developer_id = {param} AND date >= {param}"
                    f" AND date <= {param}) t LEFT JOIN {RAW_TABLE} r ON r.id = t._raw_data_id"
                    " ORDER BY t.date",
                    (*person, first, last),
                )
            yield from rows


def _day_spans(
    engine: Engine, wanted: ExportSelection, person: tuple[int, str]
) -> Iterator[tuple[str, str]]:
    """Yield the first and last day of each page of a person's rows."""
    dialect = dialect_of(engine)
    size = " + ".join(f"COALESCE({dialect.octets}({column}), 0)" for column in LONG_COLUMNS)
    with reading(engine).connect() as connection:
        conditions, parameters = _conditions(connection, wanted)
        lengths = connection.exec_driver_sql(
            f"SELECT date, {size} FROM {TOOL_TABLE} WHERE connection_id = {dialect.placeholder}"
            f" AND developer_id = {dialect.placeholder}{conditions} ORDER BY date",
            (*person, *parameters),
        ).fetchall()
    days: list[str] = []
    total = 0
    for day, length in lengths:
        if days and (total + length > FETCHED or len(days) == PAGE):
            yield days[0], days[-1]
            days, total = [], 0
        days.append(str(day))
        total += length
    if days:
        yield days[0], days[-1]


def _read_all_developers(engine: Engine, wanted: ExportSelection) -> Iterator[tuple[int, str]]:
    for connection_id in read_connection_ids(engine, TOOL_TABLE):
        if wanted.connection_id in (None, connection_id):
            for page in read_developers(engine, TOOL_TABLE, connection_id):
                yield from ((connection_id, developer) for developer in page)


def read_connection_ids(engine: Engine, table: str) -> list[int]:
    """Return the connections with rows in a table, also deleted ones."""
    param = dialect_of(engine).placeholder
    # One lookup in the index for each; SELECT DISTINCT would read the full index.
    query = f"SELECT MIN(connection_id) FROM {table} WHERE connection_id > {param}"
    ids: list[int] = []
    last: Optional[int] = -1
    with reading(engine).connect() as connection:
        while (last := connection.exec_driver_sql(query, (last,)).scalar()) is not None:
            ids.append(last)
    return ids


def read_derived_rows(engine: Engine, people: Iterable[tuple[int, str]]) -> Iterator[Row]:
    """Return the rows made of developers' reports: machines, accounts, tasks, links to users.

    Links exist only where DevLake or a receiver makes them.
    """
    there = inspect(engine).get_table_names()
    tables = [table for table in EXPORTED_TABLES if table.name in there and not table.has_days]
    for person in people:
        with reading(engine).connect() as connection:
            rows = [
                row
                for table in tables
                for condition in build_conditions(connection, table, *person)
                for row in _read_rows(
                    connection,
                    table.name,
                    f"SELECT * FROM {table.name} WHERE {condition.sql} ORDER BY {table.id_column}",
                    condition.parameters,
                )
            ]
        yield from rows


def _read_rows(
    connection: SqlConnection, table: str, query: str, parameters: tuple[Any, ...]
) -> list[Row]:
    result = connection.exec_driver_sql(query, parameters)
    columns = (TABLE, *result.keys())
    return [dict(zip(columns, (table, *map(to_exported, row)))) for row in result]


def to_exported(value: Any) -> Any:
    """Return a driver's value of any type in the form of exports."""
    if isinstance(value, datetime):
        in_utc = value.astimezone(timezone.utc) if value.tzinfo else value
        return in_utc.replace(tzinfo=None).isoformat(" ", "milliseconds")
    return value.isoformat() if isinstance(value, date) else value


@contextmanager
def _standard_output() -> Iterator[IO[bytes]]:
    file: Optional[IO[bytes]] = getattr(sys.stdout, "buffer", None)
    if file is None:
        raise ConfigurationError("standard output is closed; name a file with --output")
    try:
        yield file
        file.flush()
    except BrokenPipeError:  # the reader has closed the pipe
        raise
    except OSError as error:
        raise ConfigurationError(
            f"can't write to standard output ({error.strerror}); name a file with --output"
        ) from None


class ExportOutput:
    """A file of rows, one a line."""

    def __init__(self, file: IO[bytes], as_csv: bool, on_terminal: bool = False) -> None:
        """With `on_terminal`, control characters are escaped in JSON; CSV has no escapes."""
        self.rows = 0
        self.formulas = 0  # cells that a spreadsheet would take for formulas
        self._shown = printable if on_terminal else str
        self._file = file
        self._as_csv = as_csv

    def write(self, row: Row) -> None:
        """Write a row; rows of CSV have to be of one table."""
        if not self._as_csv:
            self._file.write(_encode_object(row) + b"\n")
        else:
            if not self.rows:
                self._write(row)
            self._write(row.values())
        self.rows += 1

    def _write(self, cells: Iterable[Any]) -> None:
        """Write a line of CSV as PostgreSQL does: null is an empty cell without quotes."""
        self._file.write((",".join(map(self._encode_cell, cells)) + "\r\n").encode())

    def _encode_cell(self, value: Any) -> str:
        if not isinstance(value, str):
            return "" if value is None else str(value)
        text = defuse_cell(value)
        self.formulas += text != value
        return '"' + self._shown(text).replace('"', '""') + '"'


@contextmanager
def open_output(path: Optional[Path]) -> Iterator[IO[bytes]]:
    """Yield standard output, or a file that appears when complete, gzipped if it ends in `.gz`.

    Raises:
        ConfigurationError: The file can't be made.
    """
    if path is None:
        with _standard_output() as file:
            yield file
        return
    try:
        # A private file, since it holds people's reports.
        with open_new(path) if is_device(path) else replace_file(path) as file:
            if path.name.endswith(COMPRESSED):
                with gzip.GzipFile(path.name, "wb", 6, file) as compressed:
                    yield compressed  # type: ignore[misc]  # as good for writing
            else:
                yield file
    except OSError as error:
        raise ConfigurationError(
            f"can't write {path} ({error.strerror}); name another file with --output"
        ) from None


def _encode_object(row: Row) -> bytes:
    """Return a row as JSON without control characters, for terminals."""
    encoded = msgspec.json.encode(row)
    if encoded.isascii() and b"\x7f" not in encoded:  # no controls, as msgspec has escaped them
        return encoded
    return escape_json(encoded.decode()).encode()
