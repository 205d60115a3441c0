"""The database connections of the page's queries, and their common expressions.

An index, a range of days or a number of rows bounds each statement.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import CONNECTION_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import limited, now_us, prepare, with_short_timeouts
from developer_telemetry.reports.daily_metrics import format_timestamp

# A longer statement would slow down the storing of reports.
STATEMENT_SECONDS = 5
# A long statement on one of them must not delay all others.
CONNECTIONS = 2

ROWS_A_PAGE = 20
# The largest number of rows in a file.
FILE_ROWS = 50_000

# Sorts by the name of a row's connection.
CONNECTION_NAME = f"(SELECT name FROM {CONNECTION_TABLE} c WHERE c.id = connection_id)"

Values = tuple[Union[int, str], ...]


class Slice(NamedTuple):
    """A part of an ordered result: the column to sort by, and which rows of it."""

    sort: str = ""
    start: int = 0
    size: int = ROWS_A_PAGE


def open_reading_engine(url: str) -> Engine:
    """Open an engine for the page alone, with few connections and bounded statements.

    The database cancels a statement after STATEMENT_SECONDS.
    """
    from pydevlake.database import create_db_engine

    options: dict[str, Any] = {"pool_recycle": 600}
    if not url.startswith("sqlite"):
        options.update(pool_size=CONNECTIONS, max_overflow=0, pool_timeout=STATEMENT_SECONDS)
    return limited(
        with_short_timeouts(prepare(create_db_engine(url, **options))), STATEMENT_SECONDS
    )


class Conditions:
    """The conditions of a statement, and its parameters."""

    def __init__(self, connection: SqlConnection) -> None:
        self._placeholder = dialect_of(connection).placeholder
        self._conditions = ["1 = 1"]
        self._values: list[Union[int, str]] = []

    def add(self, condition: str, *values: Union[int, str]) -> None:
        """Add a condition with `?` for each of its values."""
        self._conditions.append(condition.replace("?", self._placeholder))
        self._values.extend(values)

    def add_connection(self, connection_id: int) -> None:
        """Add a connection's rows, or for 0 those of all."""
        if connection_id:
            self.add("connection_id = ?", connection_id)

    def add_days(self, first: datetime.date, last: datetime.date) -> None:
        """Add the rows from the first day to the last one."""
        self.add("date >= ? AND date <= ?", first.isoformat(), last.isoformat())

    def __str__(self) -> str:
        return " AND ".join(self._conditions)

    @property
    def values(self) -> Values:
        """Return the parameters in the order of the conditions."""
        return tuple(self._values)


def order_sql(sorts: dict[str, str], part: Slice, default: str, ties: Sequence[str]) -> str:
    """Return ORDER BY and LIMIT of a part of a result.

    Args:
        sorts: The expression of each column that can be sorted by.
        part: The part; a column that is not in `sorts` means `default`.
        default: The column to sort by, with a minus for the reverse order.
        ties: The columns that make the order unique.
    """
    sort = part.sort if part.sort.lstrip("-") in sorts else default
    direction = " DESC" if sort.startswith("-") else ""
    columns = ", ".join((sorts[sort.lstrip("-")] + direction, *ties))
    return f"ORDER BY {columns} LIMIT {part.size} OFFSET {part.start}"


def ago(microseconds: int) -> str:
    """Return the time so many microseconds ago, as the database compares times."""
    return format_timestamp(now_us() - microseconds)


def containing(text: str) -> str:
    """Return the pattern of LIKE for texts that contain `text`, in lower case."""
    for special in "!%_":
        text = text.replace(special, f"!{special}")
    return f"%{text.lower()}%"


def to_moment(value: Union[datetime.datetime, str, None]) -> Optional[datetime.datetime]:
    """Return a time of the database, which is UTC."""
    if isinstance(value, str):  # SQLite has no type for times
        value = datetime.datetime.fromisoformat(value)
    if value is None or value.tzinfo is not None:
        return value
    return value.replace(tzinfo=datetime.timezone.utc)


def moment_of(epoch_us: int) -> datetime.datetime:
    """Return a time in microseconds since 1970."""
    return datetime.datetime.fromtimestamp(epoch_us / 1e6, datetime.timezone.utc)


def to_day(value: Union[datetime.date, str]) -> datetime.date:
    """Return a day of the database."""
    return datetime.date.fromisoformat(value) if isinstance(value, str) else value


def today() -> datetime.date:
    """Return the current day in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).date()


def days_before(day: datetime.date, count: int) -> Sequence[datetime.date]:
    """Return `count` days in order; the last one is `day`."""
    return [day - datetime.timedelta(days=offset) for offset in range(count - 1, -1, -1)]
