"""The databases of the benchmarks, and the rates of their plain drivers."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, NamedTuple

from sqlalchemy.engine import Engine

from benchmarks.fleet import raw_row, tool_row_of
from developer_telemetry.constants import RAW_TABLE, TOOL_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import open_engine
from developer_telemetry.database.migrate import migrate
from developer_telemetry.reports.daily_metrics import TOOL_COLUMNS
from developer_telemetry.storage.writer import RAW_COLUMNS
from tests.support.servers import MariaDB, PostgreSQL, Server, create_database

NAMES = ("mariadb", "postgresql", "sqlite")
BATCH = 64
# The number of parameters made in advance, which bounds memory.
ROWS_AHEAD = 1024

_VERSIONS = {
    "mysql": "SELECT VERSION()",
    "postgres": "SHOW server_version",
    "sqlite": "SELECT sqlite_version()",
}

# Makes an empty, migrated database and returns its URL.
Fresh = Callable[[], str]


class OwnRate(NamedTuple):
    """The rate of the plain driver over one connection."""

    rows_a_second: float
    p50_ms: float  # of one transaction


class _MariaDB(MariaDB):
    """A server with its default memory."""

    def _command(self) -> list[str]:
        defaults = ["--innodb-buffer-pool-size=128M", "--innodb-log-file-size=96M"]
        return [*super()._command(), *defaults]


class _PostgreSQL(PostgreSQL):
    """A server with its default memory."""

    def _command(self) -> list[str]:
        return [*super()._command(), "-c", "shared_buffers=128MB"]


_SERVERS: dict[str, type[Server]] = {"mariadb": _MariaDB, "postgresql": _PostgreSQL}


@contextmanager
def database(name: str) -> Iterator[Fresh]:
    """Yield a function that makes databases, on a server with default durability.

    Raises:
        tests.support.servers.ServerMissing: if the server is not installed.
    """
    numbers = itertools.count(1)
    if name == "sqlite":
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            yield lambda: _migrated(f"sqlite:///{Path(folder)}/{next(numbers)}.db")
        return
    with _SERVERS[name]() as server:

        def fresh() -> str:
            url = server.url(f"benchmark_{next(numbers)}")
            create_database(url)
            return _migrated(url)

        yield fresh


def _migrated(url: str) -> str:
    with opened(url) as engine:
        migrate(engine)
    return url


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    """Yield an engine, and dispose of it at the end."""
    engine = open_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def describe(url: str) -> str:
    """Return version and driver, as in `MariaDB 10.11 through pymysql`."""
    with opened(url) as engine, engine.connect() as connection:
        version = connection.exec_driver_sql(_VERSIONS[dialect_of(engine).name]).scalar_one()
        return f"{version} through {engine.driver}"


def count(url: str, table: str) -> int:
    """Return the number of rows of a table."""
    with opened(url) as engine, engine.connect() as connection:
        return int(connection.exec_driver_sql(f"SELECT COUNT(*) FROM {table}").scalar_one())


def own_rate(url: str, batch: int, seconds: float) -> OwnRate:
    """Store the fleet's rows for `seconds`, `batch` of them in each transaction.

    Raw and tool rows, one statement for each, over the plain driver of one connection. Statements
    and parameters are made beforehand; only the driver's and the database's time counts.
    """
    with opened(url) as engine:
        dialect = dialect_of(engine)
        statements = [
            _insert(RAW_TABLE, RAW_COLUMNS, batch, dialect.placeholder),
            _insert(TOOL_TABLE, TOOL_COLUMNS, batch, dialect.placeholder),
        ]
        borrowed = engine.raw_connection()
        cursor = borrowed.cursor()
        times: list[float] = []
        first = 0
        borrowed.commit()
        while sum(times) < seconds:
            numbers = range(first, first + max(1, ROWS_AHEAD // batch) * batch)
            first = numbers.stop
            for parameters in [_parameters(part) for part in _cut(numbers, batch)]:
                started = time.perf_counter()
                if dialect.name == "sqlite":  # other drivers begin transactions themselves
                    cursor.execute("BEGIN IMMEDIATE")
                for statement, values in zip(statements, parameters):
                    cursor.execute(statement, values)
                borrowed.commit()
                times.append(time.perf_counter() - started)
        cursor.close()
        borrowed.close()
    return OwnRate(len(times) * batch / sum(times), statistics.median(times) * 1000)


def _cut(numbers: range, size: int) -> list[range]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _insert(table: str, columns: Sequence[str], rows: int, parameter: str) -> str:
    row = f"({', '.join([parameter] * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"


def _parameters(numbers: Sequence[int]) -> tuple[list[Any], list[Any]]:
    raw = [value for number in numbers for value in raw_row(number, number)]
    tool = [value for number in numbers for value in tool_row_of(number)]
    return raw, tool
