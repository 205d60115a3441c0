"""Commands in a folder without a database: those that need one make nothing and name what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.support.environments import Outcome, forking
from tests.support.receivers import command_names, run_command
from tests.support.servers import free_port

MAKING = {"serve", "demo", "connect", "migrate", "import"}
ARGUMENTS = {
    "backup": ["file"],
    "connect": ["fleet"],
    "connections show": ["1"],
    "connections rename": ["1", "new"],
    "connections set": ["1", "--strip-paths"],
    "connections delete": ["1", "--yes"],
    "demo": ["--developers", "1", "--days", "1"],
    "erase": ["ann@example.com", "--yes"],
    "me-link": ["ann@example.com"],
    "import": ["-"],
    "prune": ["--yes"],
    "spool drop": ["--connection", "1", "--yes"],
    "token rotate": ["1"],
    "token revoke": ["1", "--yes"],
    "token add": ["1", "laptops"],
    "machines retire": ["ann"],
    "machines restore": ["ann"],
    "token list": ["1"],
}
# It makes one only from a backup.
RESTORE = "restore"
READING = [name for name in command_names() if name not in {*MAKING, RESTORE}]

Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which commands start; it has two files with their output."""
    return tmp_path_factory.mktemp("start")


@pytest.fixture(scope="module")
def run(start: Path) -> Iterator[Run]:
    with forking(start) as run:
        yield run


def call(command: str, run: Run, folder: Path, **variables: str) -> Outcome:
    arguments = [*command.split(), *ARGUMENTS.get(command, [])]
    return run(arguments, {"TELEMETRY_DATA_DIR": str(folder / "data"), **variables})


def test_the_commands_that_make_a_database_exist() -> None:
    assert set(command_names()) >= MAKING
    assert set(command_names()) >= set(ARGUMENTS)


@pytest.mark.parametrize("command", READING)
def test_a_command_that_needs_a_database_says_where_it_looked_and_makes_nothing(
    command: str, run: Run, start: Path, tmp_path: Path
) -> None:
    done = call(command, run, tmp_path)

    assert done.status == 2
    assert done.out == ""
    assert done.err.splitlines() == [
        f"error: there is no database at {tmp_path}/data/telemetry.db; set DB_URL or"
        " TELEMETRY_DATA_DIR, or make one with `developer-telemetry serve` or"
        " `developer-telemetry connect NAME`"
    ]
    assert list(tmp_path.iterdir()) == []
    assert {path.name for path in start.iterdir()} == {"captured-out", "captured-err"}


@pytest.mark.parametrize("command", READING)
def test_an_empty_file_is_no_database_and_stays_empty(
    command: str, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "lake.db"
    file.touch()

    done = call(command, run, tmp_path, DB_URL=f"sqlite:///{file}", ENCRYPTION_SECRET="s" * 32)

    assert done.status == 2
    assert f"error: there is no database at {file}; set DB_URL" in done.err
    assert [(path, path.stat().st_size) for path in tmp_path.iterdir()] == [(file, 0)]


@pytest.mark.parametrize("command", sorted(MAKING - {"serve"}))
def test_a_command_that_makes_a_database_says_where(command: str, run: Run, tmp_path: Path) -> None:
    done = call(command, run, tmp_path)

    assert done.err.splitlines()[:2] == [
        f"A new encryption secret is made at {tmp_path}/data/encryption_secret",
        f"A new database is made at {tmp_path}/data/telemetry.db",
    ]
    assert {path.name for path in (tmp_path / "data").iterdir()} == {
        "encryption_secret",
        "telemetry.db",
    }
    again = call(command, run, tmp_path)
    assert "made at" not in again.err


def test_a_receiver_says_where_it_makes_its_database(tmp_path: Path) -> None:
    # Its port is no number that can be listened on, so it ends once it has its database.
    done = run_command(tmp_path, "serve", TELEMETRY_HOST="192.0.2.1", **OWN)

    assert f"A new database is made at {tmp_path}/data/telemetry.db" in done.stderr


OWN = {"DB_URL": "", "ENCRYPTION_SECRET": "", "TELEMETRY_PORT": str(free_port())}


def test_a_database_without_its_secret_is_named(run: Run, tmp_path: Path) -> None:
    call("migrate", run, tmp_path)
    (tmp_path / "data/encryption_secret").unlink()

    done = run(["status"], {"TELEMETRY_DATA_DIR": str(tmp_path / "data")})

    assert done.status == 2
    assert f"error: there is no encryption secret at {tmp_path}/data/encryption_secret" in done.err
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["telemetry.db"]


def test_a_database_of_an_older_release_waits_for_a_command_that_migrates(
    run: Run, tmp_path: Path
) -> None:
    import sqlite3
    from contextlib import closing

    call("migrate", run, tmp_path)
    with closing(sqlite3.connect(tmp_path / "data/telemetry.db")) as database:
        database.execute(
            "DELETE FROM _tool_developer_telemetry_migrations WHERE script_version ="
            " (SELECT MAX(script_version) FROM _tool_developer_telemetry_migrations)"
        )
        database.commit()

    done = run(["status"], {"TELEMETRY_DATA_DIR": str(tmp_path / "data")})

    assert done.status == 2
    assert "lacks 1 of our migrations; `developer-telemetry migrate` applies them" in done.err


@pytest.mark.parametrize("command", ["erase", "prune", "connections delete", "spool drop"])
def test_a_command_that_deletes_names_the_database(command: str, run: Run, tmp_path: Path) -> None:
    variables = {"TELEMETRY_DATA_DIR": str(tmp_path / "data")}
    assert run(["connect", "fleet"], variables).status == 0

    done = run([*command.split(), *ARGUMENTS.get(command, [])], variables)

    assert f"sqlite:///{tmp_path}/data/telemetry.db" in done.out + done.err
