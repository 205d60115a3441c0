"""What the tests of the plugin and those of the SDK share: the databases, and a browser.

A test that asks for `database_url` runs on each of SQLite, MariaDB and PostgreSQL, in an empty
database of its own. The servers are started when first needed; TEST_MYSQL_URL and
TEST_POSTGRES_URL name others to use instead (their user must be allowed to create databases).
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, NoReturn

import pytest

from tests.support import warm_starts
from tests.support.certificates import Authority
from tests.support.servers import (
    MariaDB,
    PostgreSQL,
    Server,
    ServerMissing,
    create_database,
    drop_database,
    in_database,
    in_memory,
)

WITHOUT_SERVERS = (
    "not server and not slow and not cluster"  # the marks that `make test-quick` names
)
NOT_TESTED = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[NOT_TESTED] = {}
    Server.parent = in_memory()
    # Ended by `kill` or a CI's timeout, we still tear down, and so stop what we started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    missing = terminalreporter.config.stash[NOT_TESTED]
    if missing:
        terminalreporter.section("NOT TESTED: something is missing", red=True, bold=True)
        for name, reason in missing.items():
            terminalreporter.line(f"{name}: {reason}", red=True)


# A test that has one of these fixtures, or one of these parameters, needs a server or a browser.
SERVER_FIXTURES = {"mariadb_server", "mariadb_loose_server", "postgresql_server", "chromium"}
SERVER_PARAMETERS = ("mariadb", "postgresql")
# A module that has one of these starts programs.
STARTERS = {
    "subprocess",
    "Receiver",
    "Altered",
    "ReloadingReceiver",
    "run_command",
    "Nginx",
    "receivers",
}
STARTERS |= {"MariaDB", "PostgreSQL", "Site", "ClusterSite", "start_lake", "free_port", "Call"}

# The longest of the test files, longest first: no process is left alone with one at the end.
LONGEST = (
    *("ingest/test_faults", "ingest/test_conflicts", "project/test_build", "cli/test_cli"),
    *("ingest/test_spool_faults", "project/test_benchmarks", "privacy/test_erasure"),
    *("privacy/test_erase_ways_back", "receiver/test_receiver_databases", "test_migrations"),
    *("sdk/tests/test_commands", "pipeline/test_plugin", "project/test_costs"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and _needs_a_server(item):
            item.add_marker("server")
    items.sort(key=_rank)


def _needs_a_server(test: pytest.Function) -> bool:
    if SERVER_FIXTURES.intersection(test.fixturenames):
        return True
    parameters = test.callspec.params.values() if hasattr(test, "callspec") else ()
    if any(isinstance(one, str) and one.startswith(SERVER_PARAMETERS) for one in parameters):
        return True
    return any(hasattr(test.module, name) for name in STARTERS)


def _rank(item: pytest.Item) -> int:
    file = item.nodeid.partition("::")[0]
    matches = (rank for rank, name in enumerate(LONGEST) if file.endswith(f"{name}.py"))
    return next(matches, len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def commands_start_warm() -> Iterator[None]:
    """Let receivers and commands start without the imports; TEST_COLD_STARTS=1 is for comparing."""
    if os.environ.get("TEST_COLD_STARTS") != "1":
        warm_starts.enable()
    yield
    warm_starts.disable()


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database, as DevLake would name it; the test runs once on each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/telemetry.db"


@pytest.fixture
def mariadb_url(mariadb_server: str) -> Iterator[str]:
    with _empty_database(mariadb_server) as url:
        yield url


@pytest.fixture
def mariadb_loose_url(mariadb_loose_server: str) -> Iterator[str]:
    """Not strict, not case-sensitive, not in UTC: see MariaDB's `loose`."""
    with _empty_database(mariadb_loose_server) as url:
        yield url


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    with _empty_database(postgresql_server) as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_server(pytestconfig: pytest.Config) -> Iterator[str]:
    with _server(pytestconfig, "mariadb", MariaDB, "TEST_MYSQL_URL") as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_loose_server(pytestconfig: pytest.Config) -> Iterator[str]:
    with _server(pytestconfig, "mariadb (loose)", lambda: MariaDB(loose=True)) as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_server(pytestconfig: pytest.Config) -> Iterator[str]:
    with _server(pytestconfig, "postgresql", PostgreSQL, "TEST_POSTGRES_URL") as url:
        yield url


@contextmanager
def _server(
    config: pytest.Config, name: str, make: Callable[[], Server], setting: str = ""
) -> Iterator[str]:
    """The URL of a server: the one in the setting, or one of our own.

    One that isn't there is skipped, and named again at the end of the run; in CI it is a failure.
    A test that was taken for one without a server fails.
    """
    if config.option.markexpr == WITHOUT_SERVERS:
        pytest.fail(f"this test needs {name}: mark it `server`", pytrace=False)
    if setting in os.environ:
        yield os.environ[setting]
        return
    try:
        server = make()
    except ServerMissing as error:
        _not_tested(config, name, f"{error}" + (f", and {setting} is not set" if setting else ""))
    with server:
        yield server.url("")


@pytest.fixture
def authority(tmp_path: Path) -> str:
    """The file with the certificate of an authority that nobody knows."""
    return str(Authority(tmp_path).certificate)


@pytest.fixture(scope="session")
def chromium(pytestconfig: pytest.Config) -> str:
    """The path of a Chromium, for tests that look at pages; skipped as databases are."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path is not None:
            return path
    _not_tested(pytestconfig, "chromium", "there is no chromium on PATH")


def _not_tested(config: pytest.Config, name: str, reason: str) -> NoReturn:
    config.stash[NOT_TESTED][name] = reason
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name}: {reason}", pytrace=False)
    pytest.skip(f"{name}: {reason}")


@contextmanager
def _empty_database(server: str) -> Iterator[str]:
    url = in_database(server, f"telemetry_test_{secrets.token_hex(6)}")
    create_database(url)
    try:
        yield url
    finally:
        drop_database(url)
