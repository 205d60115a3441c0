"""The command, as an operator types it: on each real database, and what it says to mistakes."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
from datetime import date
from pathlib import Path
from typing import Any, Callable

import pytest

from developer_telemetry.cli.main import app
from tests.support.receivers import (
    SECRET,
    Receiver,
    command_runner,
    eventually,
    query,
    report,
    run_command,
)
from tests.support.servers import free_port
from tests.support.terminals import open_terminal

Run = Callable[..., "subprocess.CompletedProcess[str]"]

TOOL = "_tool_developer_metrics"
DEAD = {
    "mysql": "mysql://merico:hidden-pw@127.0.0.1:{}/lake?charset=utf8mb4&parseTime=True&loc=UTC",
    "postgresql": "postgres://merico:hidden-pw@127.0.0.1:{}/lake?sslmode=disable",
}


@pytest.fixture
def run(database_url: str, tmp_path: Path) -> Run:
    """Runs the command on an empty database of each kind."""

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return run_command(tmp_path, *arguments, **{"DB_URL": database_url, **settings})

    return run


@pytest.fixture
def run_embedded(tmp_path: Path) -> Run:
    """Runs the command with nothing set."""

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return run_command(tmp_path, *arguments, **{"ENCRYPTION_SECRET": "", **settings})

    return run


def error_lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines on standard error that do not tell where something was made."""
    lines = done.stderr.splitlines()
    return [line for line in lines if not re.match("A new .* is made at /", line)]


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    assert error_lines(done) == []
    return done.stdout


def assert_failed(done: subprocess.CompletedProcess[str], status: int, message: str) -> None:
    """That it said one line, in words."""
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    [line] = error_lines(done)
    assert line.startswith("error: ")
    assert re.search(message, line), line


def test_a_day_of_an_operator(run: Run, database_url: str, tmp_path: Path) -> None:
    applied = said(run("migrate")).splitlines()
    assert len(applied) >= 1
    assert all(re.fullmatch(r"applied \d{14} developer telemetry: .+", line) for line in applied)
    assert said(run("migrate")) == "nothing to do\n"

    assert "Connection " in said(run("connect", "fleet", "--duplicate-strategy", "sum"))
    made = json.loads(said(run("connect", "tëst", "--secret-token", "mine", "--json")))
    assert made["token"] == "mine"

    with Receiver(database_url, tmp_path) as receiver:
        for host in ("desk", "desk", "laptop"):
            body = report("ann", hostname=host, email="ann@example.com")
            assert receiver.send(body, made["id"], "mine").status_code == 200
        assert receiver.send(report("bob"), made["id"], "mine").status_code == 200

    *others, status = json.loads(said(run("status", "--json")))
    assert [(each["name"], each["reports"]) for each in others if each["name"] != "default"] == [
        ("fleet", 0)
    ]
    [(newest,)] = query(database_url, "SELECT MAX(created_at) FROM _raw_developer_telemetry")
    assert status == {
        "id": made["id"],
        "name": "tëst",
        "reports": 4,
        "today": status["today"],
        "developers": 2,
        "machines": 3,
        "newest": status["newest"],
        "quiet": [],
        "retired": 0,
        "outdated": {},
        "refused": {},
        "unread": 0,
        "fault": "",
        "schema": {"owner": "standalone", "since": None},
        "conversion": status["conversion"],  # a receiver may have converted by now
    }
    assert status["newest"] == f"{str(newest)[:19]}Z".replace(" ", "T")
    _, *lines = said(run("status")).splitlines()
    assert f"{made['id']}   tëst" in lines[len(others)]
    owner = "schema: the receiver (standalone) applies migrations and converts reports"
    assert lines[len(others) + 1] == owner

    kept = rows(database_url)
    query(database_url, f"DELETE FROM {TOOL} WHERE developer_id = 'ann'")
    query(database_url, f"UPDATE {TOOL} SET active_hours = 9")
    assert said(run("reextract", "--connection", str(made["id"]))) == (
        f"connection {made['id']}: 4 reports, 2 accounts\n"
    )
    assert rows(database_url) == kept
    assert len(said(run("reextract")).splitlines()) == len([*others, status])
    assert rows(database_url) == kept
    assert query(database_url, "SELECT id, email FROM accounts ORDER BY id") == [
        (f"developer_telemetry:Account:{made['id']}:ann", "ann@example.com"),
        (f"developer_telemetry:Account:{made['id']}:bob", ""),
    ]


def rows(database_url: str) -> list[tuple[Any, ...]]:
    return query(database_url, f"SELECT * FROM {TOOL} ORDER BY connection_id, developer_id")


def test_what_connect_prints_can_be_pasted(run_embedded: Run, tmp_path: Path) -> None:
    printed = said(run_embedded("connect", "fleet", TELEMETRY_PORT="1234"))

    install, line = (line for line in printed.splitlines() if line.startswith("  curl "))
    command = shlex.split(line)
    url = "http://127.0.0.1:1234/plugins/developer-telemetry/1/report"
    assert command[:2] == ["curl", url]
    assert url in printed
    authorization = command[command.index("-H") + 1]
    token = re.fullmatch(r"Authorization: Bearer ([\w-]{40,})", authorization)
    assert token
    assert f"Secret token   {token.group(1)}\n" in printed
    assert json.loads(command[command.index("-d") + 1])["date"]
    assert (
        shlex.split(install)[2] == "http://127.0.0.1:1234/plugins/developer-telemetry/collector.pyz"
    )
    assert shlex.split(install)[-2:] == ["--url", url]
    assert token.group(1) not in install


def test_an_installer_is_printed_without_the_token(run_embedded: Run, tmp_path: Path) -> None:
    wrong = run_embedded("connect", "fleet", "--print-installer", "beos")
    assert_failed(wrong, 2, "--print-installer is one of linux, macos, windows")
    both = run_embedded("connect", "fleet", "--print-installer", "linux", "--json")
    assert_failed(both, 2, "give one of --print-installer and --json")
    assert not (tmp_path / "data/telemetry.db").exists()

    made = run_embedded("connect", "fleet", "--print-installer", "linux", TELEMETRY_PORT="1234")
    again = run_embedded("connect", "fleet", "--print-installer", "linux", TELEMETRY_PORT="1234")

    [line] = error_lines(made)
    token = line.rpartition(" ")[2]
    assert line.startswith("Secret token, not shown again: ")
    assert made.stdout == said(again)
    assert made.stdout.startswith("#!/bin/sh\n")
    assert "http://127.0.0.1:1234/plugins/developer-telemetry/1/report" in made.stdout
    assert len(token) >= 40
    assert token not in made.stdout


def test_the_token_is_not_in_the_database_in_clear(run_embedded: Run, tmp_path: Path) -> None:
    said(run_embedded("connect", "fleet", "--secret-token", "a-secret-in-clear"))

    assert b"fleet" in (tmp_path / "data/telemetry.db").read_bytes()
    assert b"a-secret-in-clear" not in (tmp_path / "data/telemetry.db").read_bytes()


def test_random_tokens_differ(run_embedded: Run) -> None:
    made = [json.loads(said(run_embedded("connect", name, "--json"))) for name in ("a", "b")]

    assert made[0]["token"] != made[1]["token"]
    assert [each["id"] for each in made] == [1, 2]


@pytest.mark.parametrize("name", ["   ", "x" * 101])
def test_a_name_has_1_to_100_characters(run_embedded: Run, name: str) -> None:
    assert_failed(run_embedded("connect", name), 2, "1 to 100 characters")


def test_an_unknown_strategy_is_refused(run_embedded: Run) -> None:
    done = run_embedded("connect", "fleet", "--duplicate-strategy", "newest")

    assert_failed(done, 2, "'newest'; set it to 'overwrite' or 'sum'")
    assert json.loads(said(run_embedded("status", "--json"))) == []


def test_reextract_of_an_unknown_connection_says_so(run_embedded: Run) -> None:
    said(run_embedded("migrate"))

    assert_failed(run_embedded("reextract", "--connection", "7"), 2, "there is no connection '7'")


def test_nothing_to_show_is_no_error(run_embedded: Run) -> None:
    said(run_embedded("migrate"))

    assert said(run_embedded("reextract")) == ""
    assert len(said(run_embedded("status")).splitlines()) == 2  # the table's head, and the owner


@pytest.mark.parametrize("command", ["migrate", "status"])
@pytest.mark.parametrize("server", DEAD)
def test_a_dead_server_is_said_in_one_line(run_embedded: Run, server: str, command: str) -> None:
    url = DEAD[server].format(free_port())

    done = run_embedded(command, DB_URL=url, ENCRYPTION_SECRET=SECRET)

    assert_failed(done, 75, "the database reports: .*127.0.0.1.*; check DB_URL and the server$")
    assert "hidden-pw" not in done.stderr


@pytest.mark.parametrize("arguments", [["connect", "x"], ["reextract"]], ids=" ".join)
@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_a_database_without_tables_is_said_in_one_line(
    request: pytest.FixtureRequest, run_embedded: Run, kind: str, arguments: list[str]
) -> None:
    url = request.getfixturevalue(f"{kind}_url")

    done = run_embedded(*arguments, DB_URL=url, ENCRYPTION_SECRET=SECRET)

    assert_failed(done, 2, "has none of our tables; `developer-telemetry migrate` makes them")


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("nonsense", "serve"),
        ("oracle://x:hidden-pw@host/lake", "status"),
        ("mysql://h:x/y", "migrate"),
    ],
)
def test_a_database_url_that_can_not_be_read_is_said_in_one_line(
    run_embedded: Run, url: str, command: str
) -> None:
    done = run_embedded(command, DB_URL=url, ENCRYPTION_SECRET=SECRET)

    assert_failed(done, 2, "DB_URL: .*mysql://user:password@host:3306/name")
    assert "hidden-pw" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "status"])
def test_devlakes_database_without_devlakes_secret_is_said_in_one_line(
    run_embedded: Run, command: str
) -> None:
    assert_failed(run_embedded(command, DB_URL=DEAD["mysql"]), 2, "ENCRYPTION_SECRET is not set")


def test_a_database_file_that_is_none_is_said_in_one_line(
    run_embedded: Run, tmp_path: Path
) -> None:
    (tmp_path / "file.db").write_text("not a database, but long enough to be looked at" * 99)
    (tmp_path / "file.db").chmod(0o600)

    done = run_embedded("status", DB_URL=f"sqlite:///{tmp_path}/file.db", ENCRYPTION_SECRET=SECRET)

    assert_failed(done, 2, "the database reports: file is not a database")


@pytest.mark.parametrize("arguments", [["connect"], ["demo", "--days", "x"], ["fly"]], ids=" ".join)
def test_wrong_usage_exits_with_2_and_shows_the_usage(arguments: list[str]) -> None:
    done = command_runner().invoke(app, arguments)

    assert done.exit_code == 2
    assert "Usage: " in done.stderr


def test_each_command_explains_itself() -> None:
    overview = command_runner().invoke(app, ["--help"]).stdout

    for command in ("serve", "migrate", "connect", "reextract", "status", "backup"):
        assert command in overview
        shown = command_runner().invoke(app, [command, "--help"])
        assert shown.exit_code == 0
        assert len(shown.stdout.splitlines()) > 5


def test_serve_shows_the_token_on_a_terminal_and_never_in_a_file(tmp_path: Path) -> None:
    port = str(free_port())
    settings = {"ENCRYPTION_SECRET": "", "TELEMETRY_PORT": port, "TELEMETRY_PROT": "1"}
    with open_terminal(tmp_path, "serve", **settings) as terminal:
        terminal.read_until("ready for reports")
        assert "no setting TELEMETRY_PROT, so it has no effect; did you mean" in terminal.output
        assert f"http://127.0.0.1:{port}/plugins/developer-telemetry/1/report" in terminal.output
        assert f'"date": "{date.today()}"' in terminal.output
        assert terminal.output.index("Secret token") < terminal.output.index("ready for reports")
        terminal.type("\x03")
        assert terminal.end() == 0
        assert terminal.output.endswith("INFO ready for reports\n^C")
    [token] = re.findall(r"^Secret token   ([\w-]{40,})$", terminal.output, re.M)
    assert {path.stat().st_mode & 0o77 for path in (tmp_path / "data").glob("**/*")} == {0}
    assert (tmp_path / "data").stat().st_mode & 0o77 == 0

    with Receiver("", tmp_path, ENCRYPTION_SECRET="") as receiver:
        # Made anew it would be another token, and this one refused.
        assert receiver.send(report("ann"), 1, token).status_code == 200

    assert f"Reports go to  {receiver.url}/plugins/developer-telemetry/1/report" in receiver.log
    assert "Other machines can't reach that address: set TELEMETRY_HOST=0.0.0.0" in receiver.log
    assert token not in receiver.log
    assert query(f"sqlite:///{tmp_path}/data/telemetry.db", f"SELECT COUNT(*) FROM {TOOL}") == [
        (1,)
    ]


def test_serve_on_a_port_in_use_says_so_and_ends(run_embedded: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        done = run_embedded("serve", TELEMETRY_PORT=port)

    assert done.returncode != 0
    assert f"error: port {port} is taken" in done.stderr
    assert "set TELEMETRY_PORT to another port" in done.stderr
    assert "ready" not in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_and_the_other_commands_share_the_embedded_database(tmp_path: Path) -> None:
    settings = {"ENCRYPTION_SECRET": ""}
    with Receiver("", tmp_path, **settings) as receiver:
        made = json.loads(said(run_command(tmp_path, "connect", "b", "--json", **settings)))
        assert receiver.send(report("ann"), made["id"], made["token"]).status_code == 200

        shown = json.loads(said(run_command(tmp_path, "status", "--json", **settings)))

        assert [(each["id"], each["reports"]) for each in shown] == [(1, 0), (made["id"], 1)]
        eventually(lambda: receiver.status("/health/ready") == 200, seconds=5)
