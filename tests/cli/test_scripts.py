"""Rules for programs that call commands: exit codes, questions, names, fields of `--json`."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Callable

import pytest

from developer_telemetry import __version__
from developer_telemetry.cli.common import CANCELLED
from developer_telemetry.constants import CONNECTION_TABLE
from tests.support.environments import Outcome, forking
from tests.support.receivers import command_names
from tests.support.terminals import open_terminal

DOC = (Path(__file__).parents[2] / "docs/scripts.md").read_text(encoding="utf-8")
ARGUMENTS = {
    "connections show": ["fleet"],
    "connections set": ["fleet", "--strip-paths"],
    "connect": ["fleet"],
    "token rotate": ["fleet", "--keep-old", "1h"],
    "token add": ["fleet", "laptops"],
    "token list": ["fleet"],
    "import": ["sent.json"],
    "prune": ["--yes"],
    "erase": ["ann.lee", "--dry-run"],
    "me-link": ["ann.lee"],
    "demo": ["--developers", "1", "--days", "1"],
}
TIMES = {
    "created",
    "valid_until",
    "last_used",
    "newest",
    "last_seen",
    "old_token_until",
    "oldest",
    "since",
    "ended",
    "arrived",
    "noticed",
}
# These need a receiver, or print nothing here.
ELSEWHERE = {
    *("send-test", "spool list", "watch"),
    *("dead-letters list", "dead-letters retry", "dead-letters drop"),
    *("machines retire", "machines restore", "backup", "restore"),
}

Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scripts")


@pytest.fixture(scope="module")
def run(folder: Path) -> Iterator[Run]:
    """Runs commands on a database with the connection `fleet` and one report."""
    with forking(folder) as call:

        def run(*arguments: str, **settings: str) -> Outcome:
            return call(list(arguments), settings)

        assert run("connect", "fleet").status == 0
        (folder / "sent.json").write_text('{"developer": "ann.lee", "date": "2026-11-23"}')
        assert run("import", "sent.json").status == 0
        yield run


def documented() -> dict[str, set[str]]:
    """The fields of each command, as the page lists them."""
    rows = re.findall(r"^\| `([a-z -]+)`(?:, `([a-z -]+)`)? \| (.*`.*) \|$", DOC, re.M)
    return {
        command: set(re.findall(r"`([a-z_0-9]+)`", fields))
        for *commands, fields in rows
        for command in filter(None, commands)
    }


def names_in(value: Any, depth: int) -> set[str]:
    """The names of an object, or of a list's objects, and of `depth` levels within it."""
    if isinstance(value, list):
        return set().union(*(names_in(item, depth) for item in value))
    if not isinstance(value, dict):
        return set()
    within = [names_in(item, depth - 1) for item in value.values() if isinstance(item, list)]
    return set(value).union(*within) if depth else set(value)


def times_in(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from times_in(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in TIMES:
                yield item
            else:
                yield from times_in(item)


@pytest.mark.parametrize("command", sorted(set(documented()) - ELSEWHERE))
def test_json_has_the_documented_fields(command: str, run: Run, tmp_path: Path) -> None:
    # A fleet is made up in an empty database alone.
    settings = {"TELEMETRY_DATA_DIR": str(tmp_path)} if command == "demo" else {}

    done = run(*command.split(), *ARGUMENTS.get(command, []), "--json", **settings)

    assert done.status in (0, 1), done.err
    content = json.loads(done.out)
    has_inner = " each with " in DOC.partition(f"| `{command}` |")[2].partition("\n")[0]
    assert names_in(content, 1 if has_inner else 0) == documented()[command]
    times = [time for time in times_in(content) if time is not None]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time) for time in times), times


def test_each_command_with_json_is_documented(run: Run) -> None:
    with_json = {
        command for command in command_names() if "--json" in run(*command.split(), "-h").out
    }
    assert with_json == set(documented())


@pytest.mark.parametrize("group", [[], ["token"], ["connections"]])
def test_a_group_without_a_command_prints_its_help(group: list[str], run: Run) -> None:
    done = run(*group)

    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(" ".join(["Usage: developer-telemetry", *group]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate'."),
        (["erase", "--nonsense"], "No such option: --nonsense"),
        (["connect"], "Missing argument 'name'."),
    ],
)
def test_wrong_usage_is_explained_on_standard_error(
    arguments: list[str], message: str, run: Run
) -> None:
    done = run(*arguments)

    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("Usage: developer-telemetry")
    assert done.err.splitlines()[-1].startswith(f"Error: {message}")


def test_no_option_is_cut_off_at_80_columns(run: Run) -> None:
    for command in command_names():
        shown = run(*command.split(), "--help", COLUMNS="80").out
        assert "…" not in shown
        assert max(map(len, shown.splitlines())) <= 80, shown


def test_the_version_and_a_short_help(run: Run) -> None:
    assert run("--version").out == f"developer-telemetry {__version__}\n"
    assert run("-h").out == run("--help").out
    assert run("token", "-h").out.startswith("Usage: developer-telemetry token ")


def test_completion_knows_the_commands(run: Run) -> None:
    asked = {
        "_DEVELOPER_TELEMETRY_COMPLETE": "complete_bash",
        "COMP_WORDS": "developer-telemetry connections re",
        "COMP_CWORD": "2",
    }
    assert run(**asked).out.split() == ["rename"]


@pytest.mark.parametrize(
    "command",
    [
        "connections show",
        "connections delete",
        "token rotate",
        "token revoke",
        "token list",
        "export --connection",
        "reextract --connection",
        "prune --connection",
        "erase ann.lee --connection",
        "send-test --connection",
        "import sent.json --connection",
    ],
)
@pytest.mark.parametrize("name", ["flete", "7"])
def test_a_missing_connection_is_named_in_the_same_words(command: str, name: str, run: Run) -> None:
    done = run(*command.split(), name)

    error = f"error: there is no connection '{name}'; `developer-telemetry connections list` shows"
    assert done.status == 2
    assert done.err.splitlines()[-1].startswith(error)


def test_a_number_is_never_taken_for_a_name(run: Run, tmp_path: Path) -> None:
    settings = {"TELEMETRY_DATA_DIR": str(tmp_path)}
    assert "'2' can't be a connection's name" in run("connect", "2", **settings).err
    for name in ("first", "second"):
        assert run("connect", name, **settings).status == 0
    assert "can't be a connection's name" in run("connections", "rename", "1", "2", **settings).err
    with closing(sqlite3.connect(tmp_path / "telemetry.db")) as database, database:
        # As another program can.
        database.execute(f"UPDATE {CONNECTION_TABLE} SET name = '2' WHERE id = 1")

    done = run("connections", "delete", "2", "--yes", **settings)

    assert done.status == 2
    assert "'2' is the name of connection 1 and the id of another one; rename it first" in done.err
    assert run("connections", "rename", "1", "first", **settings).status == 0
    assert run("connections", "delete", "2", "--yes", **settings).status == 0


def test_colors_are_for_terminals(folder: Path, run: Run) -> None:
    assert "\x1b" not in run("doctor").out
    with open_terminal(folder, "doctor", ENCRYPTION_SECRET="", TERM="xterm") as terminal:
        assert terminal.end() == 1
        assert terminal.output.startswith("\x1b[32mok ")


def test_what_follows_from_one_fault_is_one_line(run: Run) -> None:
    done = run("doctor", DB_URL="mysql://a:b@127.0.0.1:1/lake", ENCRYPTION_SECRET="secret")

    followers = [line for line in done.out.splitlines() if "can't be used from here" in line]
    assert done.status == 1
    assert done.out.startswith("FAILED   database ")
    assert len(followers) == 1
    assert "(also: character sets, durability, owner, " in followers[0]


def test_ctrl_c_is_no_error(folder: Path, run: Run) -> None:
    with open_terminal(folder, "connections", "delete", "fleet", ENCRYPTION_SECRET="") as terminal:
        terminal.read_until("[y/N]: ")
        assert terminal.interrupt() == CANCELLED
        assert terminal.output.endswith("cancelled\n")
