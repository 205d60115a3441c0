"""The databases that tests run on are real and empty, survive a crash, and are left to nobody."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pymysql
import pytest

from developer_telemetry.database.engine import open_engine
from developer_telemetry.database.migrate import migrate
from tests.support.mysql_words import reserved_names
from tests.support.servers import (
    MariaDB,
    PostgreSQL,
    Server,
    ServerFailed,
    create_database,
    execute,
)

ROOT = Path(__file__).parents[2]
each_server = pytest.mark.parametrize("make", [MariaDB, PostgreSQL], ids=["mariadb", "postgresql"])


@pytest.mark.parametrize("turn", ["first", "second"])
def test_each_test_gets_an_empty_database(database_url: str, turn: str) -> None:
    create_table = "CREATE TABLE only_once (a INT)"
    if database_url.startswith("sqlite"):
        connection = sqlite3.connect(database_url.replace("sqlite:///", "", 1))
        connection.execute(create_table)
        connection.close()
    else:
        execute(database_url, create_table)


def test_a_loose_mariadb_is_unlike_the_usual_one(mariadb_url: str, mariadb_loose_url: str) -> None:
    for statement in ("CREATE TABLE t (a VARCHAR(3))", "INSERT INTO t VALUES ('abc')"):
        execute(mariadb_url, statement)
        execute(mariadb_loose_url, statement)

    assert execute(mariadb_url, "SELECT a FROM t WHERE a = 'ÁBC'") == []
    assert execute(mariadb_loose_url, "SELECT a FROM t WHERE a = 'ÁBC'") == [("abc",)]
    with pytest.raises(pymysql.err.DataError):
        execute(mariadb_url, "INSERT INTO t VALUES ('too long')")
    execute(mariadb_loose_url, "INSERT INTO t VALUES ('too long')")


@each_server
def test_what_was_committed_survives_kill_and_restart(make: Callable[[], Server]) -> None:
    with make() as server:
        lake = server.url("lake")
        create_database(lake)
        execute(lake, "CREATE TABLE t (a INT)")
        execute(lake, "INSERT INTO t VALUES (1)")

        server.kill()
        assert not server.running
        server.start()
        server.restart()

        assert execute(lake, "SELECT a FROM t") == [(1,)]
    assert not server.running
    assert not server.folder.exists()


@each_server
def test_a_server_that_does_not_start_shows_its_log(
    make: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = make._command
    monkeypatch.setattr(make, "_command", lambda self: [*command(self), "--no-such-setting=1"])
    server = make()
    with pytest.raises(ServerFailed, match=r"(?s)did not start.*no.such.setting"), server:
        pass
    assert not server.folder.exists()


@pytest.fixture
def pytest_run(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a run of pytest beside this one; a server counts as missing if `hidden`."""
    (tmp_path / "hide_servers.py").write_text(
        "from tests.support import servers\n"
        "def _program(name): raise servers.ServerMissing(f'{name} is not installed')\n"
        "servers._program = _program\n"
    )
    runs: list[subprocess.Popen[str]] = []

    def start(*arguments: str, hidden: bool = False, **settings: str) -> subprocess.Popen[str]:
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("CI", "TEST_MYSQL_URL", "TEST_POSTGRES_URL")
        }
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(tmp_path)])
        run = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
            + (["-p", "hide_servers"] if hidden else [])
            + list(arguments),
            cwd=ROOT,
            env={**environment, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        runs.append(run)
        return run

    yield start
    for run in runs:
        with run:
            run.kill()


EMPTY = f"{__file__}::{test_each_test_gets_an_empty_database.__name__}"


def test_a_missing_server_is_said_at_the_end(
    pytest_run: Callable[..., subprocess.Popen[str]],
) -> None:
    run = pytest_run(EMPTY, hidden=True)
    output, _ = run.communicate()
    assert run.returncode == 0
    summary = output.partition("NOT TESTED")[2]
    assert "mariadb: mariadbd is not installed, and TEST_MYSQL_URL is not set" in summary
    assert "postgresql: postgres is not installed, and TEST_POSTGRES_URL is not set" in summary
    assert "2 passed, 4 skipped" in output


def test_a_missing_server_fails_in_ci(pytest_run: Callable[..., subprocess.Popen[str]]) -> None:
    run = pytest_run(EMPTY, hidden=True, CI="true")
    output, _ = run.communicate()
    assert run.returncode == 1
    assert "2 passed, 4 errors" in output


def test_another_server_can_be_named(
    pytest_run: Callable[..., subprocess.Popen[str]], mariadb_server: str, postgresql_server: str
) -> None:
    given = {"TEST_MYSQL_URL": mariadb_server, "TEST_POSTGRES_URL": postgresql_server}
    run = pytest_run(EMPTY, hidden=True, CI="true", **given)
    output, _ = run.communicate()
    assert "6 passed" in output
    assert "NOT TESTED" not in output


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_server(
    pytest_run: Callable[..., subprocess.Popen[str]], tmp_path: Path, way: signal.Signals
) -> None:
    test = tmp_path / "test_waits.py"
    test.write_text(
        "import time\n"
        "def test_waits(mariadb_server, tmp_path_factory):\n"
        "    print('URL', mariadb_server, flush=True)\n"
        "    time.sleep(60)\n"
    )
    run = pytest_run("-s", "-p", "conftest", "-c", str(ROOT / "pyproject.toml"), str(test))
    assert run.stdout is not None
    url = next(line.split()[-1] for line in run.stdout if "URL" in line)
    execute(url, "SELECT 1")

    run.send_signal(way)
    run.wait()

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            execute(url, "SELECT 1")
        except pymysql.err.OperationalError:
            return
        time.sleep(0.05)
    pytest.fail("the server still answers")


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("SELECT 1 AS stored FROM t", {"STORED"}),
        ("SELECT rank FROM (SELECT 1 AS rank) groups", {"RANK", "GROUPS"}),
        ("SELECT t.stored, RANK() OVER (ORDER BY id) AS place FROM t", set()),
        ("SELECT 'stored', `rank` FROM JSON_TABLE(%s, '$[*]' COLUMNS (a INT PATH '$')) k", set()),
    ],
)
def test_names_are_found_that_mysql_would_not_take(statement: str, found: set[str]) -> None:
    assert reserved_names(statement) == found


def test_a_statement_that_mysql_would_not_understand_fails_on_mariadb(mariadb_url: str) -> None:
    engine = open_engine(mariadb_url)
    with engine.connect() as connection, pytest.raises(AssertionError, match="reserves STORED"):
        connection.exec_driver_sql("SELECT 1 AS stored")
    engine.dispose()


def test_no_column_of_ours_has_a_name_that_mysql_would_not_take(mariadb_url: str) -> None:
    engine = open_engine(mariadb_url)
    migrate(engine)
    engine.dispose()
    names = "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE()"
    columns = {name for (name,) in execute(mariadb_url, names)}
    assert {"payload", "stored_at", "arrived_us"} <= columns
    assert reserved_names(", ".join(columns)) == set()
