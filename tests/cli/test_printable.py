"""Text that strangers chose, through every command and into the log: shown, and never obeyed."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from developer_telemetry import cli
from developer_telemetry.cli.main import app
from developer_telemetry.connections.registry import create
from developer_telemetry.constants import OVERWRITE
from developer_telemetry.database.engine import now_us, open_engine
from developer_telemetry.database.migrate import migrate
from developer_telemetry.printable import printable, printable_json
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.receiver.ingest.spooled_report import SpooledReport
from developer_telemetry.receiver.logging import JsonLines, TextLines
from developer_telemetry.storage.guarded_writer import store_excluding_erased
from developer_telemetry.storage.statistics import count_machines
from developer_telemetry.storage.tombstones import TombstoneCache, TombstoneKey
from tests.support.factories import arrival, body
from tests.support.receivers import SECRET, Receiver, command_names, command_runner

# A color, a title, a C1 control, text turned round, one that hides, and a line of its own.
HOSTILE = "\x1b[31mx\x1b]0;y\x07\x9b2J\x7f\u202egnp\u2066\u200b\u2028\r\nforged: [red]z[red]"
# Of a host, which is cut at a shorter length.
OTHER = "\x1b[2Jh\u202e\u200d\x85[b]\nforged"
FORBIDDEN = "\x1b\x07\x9b\x7f\x85\r\u202e\u2066\u200b\u200d\u2028"

DEVELOPER = f"dev{HOSTILE}"
EMAIL = f"e{OTHER}@example.com"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë 漢字 😀 DOMAIN\\user", "Zoë 漢字 😀 DOMAIN\\user"),
        ("\x1b[31m\x00\x7f\x9b", r"\x1b[31m\x00\x7f\x9b"),
        ("a\nb\tc\r\u2028\u2029\x85", r"a\nb\tc\r\u2028\u2029\x85"),
        ("\u202e\u2066\u200f\u061c", r"\u202e\u2066\u200f\u061c"),
        ("\u200b\u200d\ufeff\xad\u2060", r"\u200b\u200d\ufeff\xad\u2060"),
        ("\u3164\u115f\u034f\ufe0f\U000e0041\U000e0100", None),
        ("\ud800x\udfff", r"\ud800x\udfff"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
    ],
)
def test_all_that_is_not_plainly_visible_is_an_escape(text: str, shown: str | None) -> None:
    assert printable(text) == (shown or text.encode("unicode_escape").decode())


def test_json_is_ascii_and_reads_back_the_same() -> None:
    text = "".join(map(chr, [*range(0x300), 0x202E, 0xD800, 0x1F600, 0xE0041]))

    shown = printable_json([text])

    assert json.loads(shown) == [text]
    assert shown.isascii()
    assert shown.isprintable()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an embedded database and a spool in which everything has a hostile name."""
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/telemetry.db"
    monkeypatch.setenv("DB_URL", url)
    monkeypatch.setenv("ENCRYPTION_SECRET", SECRET)
    engine = open_engine(url)
    migrate(engine)
    create(engine, SECRET, f"one{OTHER}", "token")
    create(engine, SECRET, f"two{OTHER}", "token", "sum")
    fill(engine, 1, DEVELOPER)
    fill(engine, 1, f"namesake{OTHER}")
    fill(engine, 2, DEVELOPER)
    count_machines(engine, None)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE _tool_developer_telemetry_machines SET last_seen = '2020-01-01 00:00:00.000'"
        )
    engine.dispose()
    spool = Spool(tmp_path / "data" / "spool", 1 << 20)
    letter = SpooledReport("id", 1, now_us(), HOSTILE)
    spool.put([letter])
    spool.set_aside(letter, f"because {HOSTILE}")
    spool.close()
    (tmp_path / f"file{OTHER}.json").write_text(f'{{"developer": {json.dumps(HOSTILE)}}}')
    return tmp_path


def fill(engine: Any, connection_id: int, developer: str) -> None:
    sent = body(developer=developer, hostname=f"host{OTHER}", email=EMAIL, name=HOSTILE)
    made = arrival(sent, connection_id=connection_id)._replace(arrived_us=now_us())
    store_excluding_erased(
        engine, TombstoneCache(engine, TombstoneKey(SECRET)), [made], {1: OVERWRITE, 2: OVERWRITE}
    )


# By the name of the command; in this order, those that change most come last.
CALLS: dict[str, list[list[str]]] = {
    "status": [[], ["--json"]],
    "connections list": [[], ["--json"]],
    "connections show": [["1"], ["1", "--json"], [f"no{HOSTILE}"]],
    "dead-letters list": [[], ["--json"]],
    "dead-letters export": [[], ["1"]],
    "dead-letters retry": [["1"]],
    "dead-letters drop": [["1"], []],
    "watch": [[], ["--json"]],
    "send-test": [[], ["--connection", "1"], ["--connection", "1", "--json"]],
    "doctor": [[], ["--json"]],
    "import": [["."], ["--connection", "1", "."], [f"no{HOSTILE}"]],
    "export": [[], ["--developer", f"no{HOSTILE}"], ["--output", f"no{HOSTILE}/x"]],
    "reextract": [[]],
    "migrate": [[]],
    "prune": [[], ["--yes"]],
    "demo": [["--developers", "1", "--days", "1"]],
    "token rotate": [["1"], ["1", "--keep-old", HOSTILE], [f"no{HOSTILE}"]],
    "token revoke": [["1", "--previous", "--yes"], ["1", "--yes"]],
    "connections rename": [["1", f"new{OTHER}"], ["2", f"new{OTHER}"], ["1", HOSTILE * 9]],
    "connect": [
        [f"more{OTHER}", "--project", "p\x1b"],
        [f"more{OTHER}", "--duplicate-strategy", HOSTILE],
        [f"with token{OTHER}", "--secret-token", HOSTILE],
    ],
    "erase": [[DEVELOPER], [EMAIL], [f"no{HOSTILE}"], [DEVELOPER, "--yes"]],
    "connections delete": [["2"], ["2", "--yes"]],
}
# It runs until it is stopped; the test of the log has it.
ELSEWHERE = {"serve"}


def test_no_call_is_of_a_command_that_is_gone() -> None:
    assert CALLS.keys() <= set(command_names())


def all_calls() -> Iterator[tuple[str, list[str]]]:
    """The calls above, and of commands that are not among them those that may do."""
    others = [name for name in command_names() if name not in CALLS and name not in ELSEWHERE]
    for command in [*others, *CALLS]:
        for arguments in CALLS.get(command, [[], ["1"]]):
            yield command, arguments


def test_no_command_sends_a_stranger_s_text_to_a_terminal(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) % 2 == 0:
            raise KeyboardInterrupt
        engine = open_engine(f"sqlite:///{place}/telemetry.db")
        fill(engine, 1, f"{len(sleeps)}{HOSTILE}")
        engine.dispose()

    monkeypatch.setattr("developer_telemetry.cli.machines.time.sleep", sleep)
    shown: dict[str, str] = {}
    for command, arguments in all_calls():
        done = command_runner().invoke(app, [*command.split(), *arguments])
        assert not isinstance(done.exception, Exception), (command, arguments)
        for output in (done.stdout_bytes, done.stderr_bytes):
            text = output.decode()
            found = [each for each in FORBIDDEN if each in text]
            assert not found, (command, arguments, text)
            assert "\nforged" not in text, (command, arguments, text)
            shown[command] = shown.get(command, "") + text

    for command in ("status", "watch", "erase", "connections list", "import", "dead-letters list"):
        assert r"\x1b" in shown[command], command
    for text in shown["export"], shown["connections show"]:
        assert "[b]" in text


def test_an_error_file_is_fit_to_be_shown(place: Path) -> None:
    done = command_runner().invoke(app, ["import", "--errors", "errors.txt", "--connection=1", "."])

    assert done.exit_code == 1
    lines = (place / "errors.txt").read_text().splitlines()
    assert lines[0].startswith(f"# ./file{printable(' '.join(OTHER.split()))}.json the file: date")
    assert not any(each in "".join(lines) for each in FORBIDDEN)


@pytest.mark.parametrize("formatter", [TextLines(), JsonLines()], ids=["text", "json"])
def test_no_line_of_the_log_is_a_stranger_s(formatter: logging.Formatter) -> None:
    try:
        raise RuntimeError(HOSTILE) from OSError(5, HOSTILE, HOSTILE)
    except RuntimeError as raised:
        error = raised
    info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "of %s: %s", (HOSTILE, error), info)
    record.request_id = HOSTILE

    line = formatter.format(record)

    assert not any(each in line for each in FORBIDDEN)
    assert "\nforged" not in line
    assert "RuntimeError" in line
    if isinstance(formatter, JsonLines):
        assert json.loads(line)["message"].startswith(r"of \x1b[31mx")
        assert not any(each in json.loads(line)["traceback"] for each in FORBIDDEN)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_receiver_s_log_shows_hostile_names_harmless(tmp_path: Path, log_format: str) -> None:
    settings = {"ENCRYPTION_SECRET": "", "TELEMETRY_LOG_FORMAT": log_format}
    receiver = Receiver("", tmp_path, **settings)
    with receiver:
        pass
    engine = open_engine(f"sqlite:///{tmp_path}/data/telemetry.db")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE _tool_developer_telemetry_connections SET name = ?, secret_token = NULL",
            (HOSTILE,),
        )
    engine.dispose()

    with receiver:
        assert receiver.send(body(), 1, None, path="/nowhere\x9b/{}").status_code == 404

    assert "has no secret token" in receiver.log
    assert not any(each in receiver.log.replace("\r\n", "") for each in FORBIDDEN)
    assert "\nforged" not in receiver.log


def test_commands_print_through_one_function() -> None:
    [folder] = cli.__path__
    for path in Path(folder).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "click.echo", "typer.secho"), (path, node.lineno)
                if called == "typer.echo":
                    assert path.name == "common.py", (path, node.lineno)
