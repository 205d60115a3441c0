"""Tables of the page: their columns, which are also those of their CSV files."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

from developer_telemetry.receiver.web.data.queries import FILE_ROWS, ROWS_A_PAGE
from developer_telemetry.receiver.web.selection import MAX_PAGES, Selection

# A spreadsheet takes a cell that begins like this for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Names = Mapping[int, str]


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        key: Its name in addresses and files.
        kind: The form of its cells, which the template `table.html` knows; "file" if only files
            have it.
        value: A function that returns a row's value.
        is_late: True for a column that a narrow screen hides.
    """

    key: str
    title: str
    kind: str
    value: Callable[[Any], object]
    is_late: bool = False


class Listing(NamedTuple):
    """A part of a table, and what leads to its other parts and orders.

    Attributes:
        path: The path and the fragment of its address.
        total: The number of rows of all parts.
        default_sort: The order without a choice of the viewer.
    """

    name: str
    path: str
    columns: Sequence[Column]
    rows: Sequence[Any]
    total: int
    selection: Selection
    default_sort: str

    @property
    def first(self) -> int:
        """Return the number of the first row."""
        return (self.selection.page - 1) * ROWS_A_PAGE + 1

    @property
    def pages(self) -> int:
        """Return the number of pages."""
        return min(max(1, -(-self.total // ROWS_A_PAGE)), MAX_PAGES)

    @property
    def file_address(self) -> str:
        """Return the address of the file with all rows of the selection."""
        return self.selection.address(f"{self.name}.csv")

    @property
    def is_file_cut(self) -> bool:
        """Return true if the file has not all rows."""
        return self.total > FILE_ROWS

    def page_address(self, page: int) -> str:
        """Return the address of another page."""
        return self._address(page=page)

    def sort_address(self, column: Column) -> str:
        """Return the address of the order by a column, or of its reverse."""
        reverse = self.direction(column) == "ascending"
        return self._address(sort=f"-{column.key}" if reverse else column.key)

    def direction(self, column: Column) -> str:
        """Return the order of the column's values: ascending, descending, or none."""
        sort = self.selection.sort
        if sort.lstrip("-") not in {one.key for one in self.columns}:
            sort = self.default_sort
        if sort.lstrip("-") != column.key:
            return "none"
        return "descending" if sort.startswith("-") else "ascending"

    def _address(self, **changes: Any) -> str:
        return f"{self.selection.address(self.path, **changes)}#{self.name}"


def machine_address(row: Any) -> str:
    """Return the address of the page of a row's machine, or "" if its developer is unknown."""
    if not row.developer_id:
        return ""
    key = {"connection": row.connection_id, "developer": row.developer_id}
    if hasattr(row, "hostname"):
        key["host"] = row.hostname
    return f"machine?{urlencode(key)}"


def name_column(names: Names) -> Column:
    """Return the column with the name of each row's connection."""

    def value(row: Any) -> str:
        return names.get(row.connection_id, f"deleted (id {row.connection_id})")

    return Column("connection", "Connection", "text", value)


def machine_columns(names: Names) -> list[Column]:
    """Return the columns of the list of machines."""
    return [
        Column("developer", "Developer", "machine", lambda row: row.developer_id),
        Column("host", "Host", "text", lambda row: row.hostname or "unnamed"),
        name_column(names),
        Column("seen", "Last heard from", "seen", lambda row: row.last_seen),
        Column("reports", "Reports", "number", lambda row: row.reports),
        Column("collector", "Collector", "agent", lambda row: row.user_agent, is_late=True),
        Column("first", "First report", "date", lambda row: row.first_seen, is_late=True),
        Column("retired", "Retired", "moment", lambda row: row.retired),
    ]


def day_columns(names: Names) -> list[Column]:
    """Return the columns of the list of days of work. A person's hours are not among them."""
    return [
        Column("day", "Day", "day", lambda row: row.day),
        Column("developer", "Developer", "machine", lambda row: row.developer_id),
        name_column(names),
        Column("arrived", "Newest report", "moment", lambda row: row.arrived),
    ]


def refused_columns(names: Names, titles: Mapping[str, str]) -> list[Column]:
    """Return the columns of the list of refused machines.

    Args:
        titles: The reasons of refusals in words.
    """
    return [
        Column("developer", "Developer", "machine", lambda row: row.developer_id),
        Column("host", "Host", "text", lambda row: row.hostname),
        name_column(names),
        Column("reason", "Reason", "reason", lambda row: titles.get(row.reason, row.reason)),
        Column("message", "Answer", "file", lambda row: row.message),
        Column("address", "Address", "address", lambda row: row.address),
        Column("collector", "Collector", "agent", lambda row: row.user_agent),
        Column("first", "First", "moment", lambda row: row.first, is_late=True),
        Column("seen", "Last", "moment", lambda row: row.last),
        Column("reports", "Reports", "number", lambda row: row.reports),
    ]


def make_file(columns: Sequence[Column], rows: Iterable[Any]) -> bytes:
    """Return rows as CSV in UTF-8, with the columns' keys as its first line.

    A text that a spreadsheet would run as a formula begins with an apostrophe.
    """
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow([column.key for column in columns])
    for row in rows:
        writer.writerow([_cell(column.value(row)) for column in columns])
    return file.getvalue().encode("utf-8", "replace")


def _cell(value: object) -> object:
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
