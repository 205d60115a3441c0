"""Fixtures that the plugin's tests share."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

import pytest
from hypothesis import settings
from sqlalchemy import inspect
from sqlalchemy.engine import Engine

from developer_telemetry.constants import MIGRATION_TABLE
from developer_telemetry.database.engine import open_engine
from developer_telemetry.database.migrate import migrate
from tests.support.mysql_words import search_statements
from tests.support.servers import (
    create_database,
    drop_database,
    in_database,
    in_memory,
    make_hostile,
)

DATABASES = ["sqlite", "mariadb", "postgresql"]
# Those whose defaults are what nobody can rely on.
HOSTILE = ["mariadb_loose", "postgresql_hostile"]
# What is tested on them as well: all that writes or removes rows.
HOSTILE_TOO = {"test_accounts", "test_erasure", "test_extract", "test_writer"}

# The same examples in every run: a failure is never a matter of luck.
settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.load_profile("fixed")

search_statements()


@pytest.fixture
def opened() -> Iterator[Callable[[str], Engine]]:
    """Opens the database of a URL; what it opened is closed after the test."""
    engines: list[Engine] = []

    def open_one(url: str) -> Engine:
        engines.append(open_engine(url))
        return engines[-1]

    yield open_one
    for engine in engines:
        engine.dispose()


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs the command on an embedded database in the folder `place` of the test's own.

    Gives its exit status and what it said.
    """
    for name in ("DB_URL", "ENCRYPTION_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, place: str = "data") -> str:
        from typer.testing import CliRunner

        from developer_telemetry.cli.main import app

        monkeypatch.setenv("TELEMETRY_DATA_DIR", place)
        done = CliRunner().invoke(app, arguments)
        return f"{done.exit_code} {done.output}"

    return run


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "migrated_url" not in metafunc.fixturenames:
        return
    chosen = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "migrated_url" not in chosen:
        module = metafunc.module.__name__.rpartition(".")[2]
        # What draws lots to try many ways tries them elsewhere.
        too = module in HOSTILE_TOO and "seed" not in metafunc.fixturenames
        kinds = [*DATABASES, *HOSTILE] if too else DATABASES
        metafunc.parametrize("migrated_url", kinds, indirect=True)


@pytest.fixture
def migrated_url(request: pytest.FixtureRequest, migrated: Callable[[str], str]) -> str:
    """A migrated database without rows; the test runs on each kind, as said above."""
    return migrated(request.param)


@pytest.fixture
def engine(migrated_url: str, opened: Callable[[str], Engine]) -> Engine:
    """An engine of ours on `migrated_url`."""
    return opened(migrated_url)


@pytest.fixture
def engines(engine: Engine, opened: Callable[[str], Engine], migrated_url: str) -> list[Engine]:
    """As many receivers on one database."""
    return [engine, opened(migrated_url), opened(migrated_url)]


@pytest.fixture(params=[*DATABASES, *HOSTILE])
def exact_engine(
    request: pytest.FixtureRequest,
    migrated: Callable[[str], str],
    opened: Callable[[str], Engine],
) -> Engine:
    """As `engine`, and also on a server that by itself would compare and cut loosely."""
    return opened(migrated(request.param))


@pytest.fixture
def migrated(
    request: pytest.FixtureRequest, opened: Callable[[str], Engine]
) -> Callable[[str], str]:
    """Gives the URL of the migrated database of a kind, emptied for this test."""

    def empty(kind: str) -> str:
        url: str = request.getfixturevalue(f"{kind}_once")
        with opened(url).begin() as connection:
            for table in inspect(connection).get_table_names():
                if table != MIGRATION_TABLE:
                    connection.exec_driver_sql(f"DELETE FROM {table}")
        return url

    return empty


# To make and migrate a database for each test would take most of the tests' time.


@pytest.fixture(scope="session")
def sqlite_once() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="sqlite-", dir=in_memory()) as folder:
        url = f"sqlite:///{folder}/telemetry.db"
        _migrate(url)
        yield url


@pytest.fixture(scope="session")
def mariadb_once(mariadb_server: str) -> Iterator[str]:
    yield from _once(mariadb_server)


@pytest.fixture(scope="session")
def mariadb_loose_once(mariadb_loose_server: str) -> Iterator[str]:
    yield from _once(mariadb_loose_server)


@pytest.fixture(scope="session")
def postgresql_once(postgresql_server: str) -> Iterator[str]:
    yield from _once(postgresql_server)


@pytest.fixture(scope="session")
def postgresql_hostile_once(postgresql_server: str) -> Iterator[str]:
    yield from _once(postgresql_server, make_hostile)


def _once(server: str, prepare: Optional[Callable[[str], None]] = None) -> Iterator[str]:
    url = in_database(server, f"telemetry_test_{secrets.token_hex(6)}")
    create_database(url)
    if prepare is not None:
        prepare(url)
    _migrate(url)
    yield url
    drop_database(url)


def _migrate(url: str) -> None:
    engine = open_engine(url)
    migrate(engine)
    engine.dispose()
