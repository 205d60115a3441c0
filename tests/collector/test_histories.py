"""Histories of shells, as texts and as real shells write them."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from collector.catalogue import recognize_process
from collector.runs import run_once
from collector.sources.history_formats import FORMATS, command_uses
from tests.support.developers import Developer, seconds

DAY = "2026-11-02"
START = f"{DAY} 08:00"


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("git commit -m 'go build && npm test'", ["git"]),
        ('git commit -m "it\'s; make test"', ["git"]),
        ("cd app && npm run test:unit | tee log; go build ./...", ["npm test", "go build"]),
        ("API_KEY=secret sudo -E ./gradlew build", []),
        ("API_KEY=secret ./gradlew build", ["gradlew build"]),
        ("sudo docker compose build web", ["docker build"]),
        ("python3 -m pytest tests/secret.py", ["python3 pytest"]),
        ("python secret.py test", ["python"]),
        ("npm install secret-package", ["npm"]),
        ("mvn -q verify", ["mvn verify"]),
        ("make", ["make"]),
        ("echo git # make test", []),
        ("ls; cat passwords.txt", []),
        ("mysecretscript.sh --token abc", []),
        ("git log \\", ["git"]),
        ("'unterminated git push", []),
        ("for f in *; do go test $f; done", ["go test"]),
        ("", []),
    ],
)
def test_only_names_of_the_list_leave_a_line(line: str, names: list[str]) -> None:
    assert [use.name for use in command_uses(line)] == names


@pytest.mark.parametrize(
    ("format", "content", "expected"),
    [
        ("zsh", ": 1700000000:0;git push\n: 1700000060:3;a \\\nb\n", [1700000000, 1700000060]),
        ("zsh", "git push\nmake\n", [None, None]),
        ("bash", "git push\n#1700000000\nfor x in a\ndo go test\ndone\n#1700000009\nmake\n",
         [None, 1700000000, 1700000009]),
        ("fish", "- cmd: git push\\nmake\n  when: 1700000000\n  paths:\n    - a\n- cmd: go test\n"
         "  when: 1700000060\n", [1700000000, 1700000060]),
        ("powershell", "git push`\n--all\ngo test\n", [None, None]),
    ],
)  # fmt: skip
def test_entries_have_their_times(format: str, content: str, expected: list[object]) -> None:
    parse = FORMATS[format].parse
    assert [entry.when for entry in parse(content.encode())] == expected


@pytest.mark.parametrize(
    ("format", "content", "complete"),
    [
        ("zsh", ": 1700000000:0;git push\n: 1700", 24),
        ("bash", "git push\n#1700000000\n", 9),
        ("bash", "git push\n#1700000000\nmake\n", 26),
        ("fish", "- cmd: git\n  when: 1700000000\n- cmd: ma", 30),
        ("fish", "- cmd: git\n  when: 1700000000\n- cmd: make\n", 30),
    ],
)
def test_an_entry_that_is_still_written_waits(format: str, content: str, complete: int) -> None:
    assert FORMATS[format].complete(content.encode()) == complete


@pytest.mark.parametrize("shell", ["zsh", "bash", "bash with times", "fish"])
def test_commands_count_once_while_a_history_grows(ann: Developer, shell: str) -> None:
    ann.type("git status", "2026-11-01 12:00", shell)
    ann.run(START)
    ann.type("git push", f"{DAY} 09:10", shell)
    ann.run(f"{DAY} 09:15")
    ann.type("git push", f"{DAY} 10:10", shell)
    ann.type("npm test", f"{DAY} 10:11", shell)
    ann.run(f"{DAY} 10:15")
    ann.run(f"{DAY} 10:30")
    metrics = ann.metrics(DAY)
    assert metrics["commands"] == {"git": 2, "npm test": 1}
    assert metrics["tools_used"] == ["git", "node"]
    assert metrics["active_hours"] == 2
    assert metrics["development_activity"] == {
        "test_runs_detected": 1,
        "build_commands_detected": 0,
    }


@pytest.mark.parametrize("shell", ["zsh", "bash", "bash with times", "fish"])
def test_a_history_that_was_cut_or_written_anew_counts_nothing_twice(
    ann: Developer, shell: str
) -> None:
    name = ".local/share/fish/fish_history" if shell == "fish" else f".{shell.split()[0]}_history"
    for number in range(30):
        ann.type(f"git show {number}", "2026-11-01 12:00", shell)
    ann.run(START)
    ann.type("git push", f"{DAY} 09:10", shell)
    ann.run(f"{DAY} 09:15")
    text = (ann.home / name).read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    ann.write(name, "".join(lines[20:]), f"{DAY} 10:00")
    ann.type("make", f"{DAY} 10:10", shell)
    ann.run(f"{DAY} 10:15")
    assert ann.metrics(DAY)["commands"] == {"git": 1, "make": 1}


def test_two_bash_sessions_that_overwrite_each_other_count_both(ann: Developer) -> None:
    ann.type("git init", "2026-11-01 12:00", "bash")
    ann.run(START)
    before = (ann.home / ".bash_history").read_text(encoding="utf-8")
    ann.write(".bash_history", before + "git push\ngit push\n", f"{DAY} 09:00")
    ann.run(f"{DAY} 09:15")
    ann.write(".bash_history", before + "make\n", f"{DAY} 10:00")
    ann.run(f"{DAY} 10:15")
    assert ann.metrics(DAY)["commands"] == {"git": 2, "make": 1}


def test_a_cleared_history_begins_anew(ann: Developer) -> None:
    for number in range(5):
        ann.type(f"git show {number}", "2026-11-01 12:00", "bash")
    ann.run(START)
    ann.type("git push", f"{DAY} 09:00", "bash")
    ann.run(f"{DAY} 09:15")
    ann.write(".bash_history", "make\n", f"{DAY} 10:00")
    ann.run(f"{DAY} 10:15")
    assert ann.metrics(DAY)["commands"] == {"git": 1, "make": 1}


def test_only_what_is_new_is_read(ann: Developer) -> None:
    ann.type("git push", f"{DAY} 09:00")
    ann.run(f"{DAY} 09:15")
    with (ann.home / ".zsh_history").open("a", encoding="utf-8") as history:
        history.write(f": {int(seconds(f'{DAY} 09:20'))}:0;make\n" * 3)
    text = (ann.home / ".zsh_history").read_bytes()
    (ann.home / ".zsh_history").write_bytes(b"#" * 5 + text[5:])  # long before the last lines
    ann.write(".zsh_history", (ann.home / ".zsh_history").read_text(), f"{DAY} 09:21")
    ann.run(f"{DAY} 09:30")
    assert ann.metrics(DAY)["commands"] == {"git": 1, "make": 3}


def test_a_history_at_an_unusual_path_is_read(ann: Developer) -> None:
    ann.settings = ann.settings._replace(histories=[str(ann.home / "logs/my_zsh")])
    ann.run(START)
    ann.write("logs/my_zsh", f": {int(seconds(f'{DAY} 09:00'))}:0;make\n", f"{DAY} 09:00")
    ann.run(f"{DAY} 09:15")
    assert ann.metrics(DAY)["commands"] == {"make": 1}


def shell_or_skip(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"there is no {name}")
    return path


PROMPT = b"ready> "
# What each shell needs to keep its history as a person's interactive one does.
SHELLS = {
    "zsh": ["-i", "-f"],
    "bash": ["--norc", "-i"],
    "bash with times": ["--norc", "-i"],
    "fish": ["-i", "-C", "function fish_prompt; echo -n 'ready> '; end"],
}
SET_UP = {
    "zsh": "HISTFILE=~/.zsh_history SAVEHIST=9; setopt INC_APPEND_HISTORY EXTENDED_HISTORY\n",
    "bash with times": "HISTTIMEFORMAT=%s\n",
}  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS)
def test_what_real_shells_write_is_read(ann: Developer, shell: str) -> None:
    program = shell_or_skip(shell.split()[0])
    today = time.strftime("%Y-%m-%d")
    for name in ("git", "make"):
        path = ann.home / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n", encoding="utf-8")
        path.chmod(0o755)
    run_now(ann)
    work = SET_UP.get(shell, "") + "git push 'a b'\nmake test\ngit pull\nexit\n"
    typed(program, SHELLS[shell], work, ann.home)
    run_now(ann)
    typed(program, SHELLS[shell], SET_UP.get(shell, "") + "make all\nexit\n", ann.home)
    run_now(ann)
    assert ann.metrics(today)["commands"] == {"git": 2, "make all": 1, "make test": 1}


def test_fish_counts_nothing_that_it_copies_from_bash_at_its_first_start(ann: Developer) -> None:
    program = shell_or_skip("fish")
    for _ in range(4):
        ann.type("git push", START, "bash")
    run_now(ann)
    typed(program, SHELLS["fish"], "docker ps\nexit\n", ann.home)
    history = (ann.home / ".local/share/fish/fish_history").read_text(encoding="utf-8")
    assert history.count("git push") > 0  # fish does copy
    run_now(ann)
    assert ann.metrics(time.strftime("%Y-%m-%d"))["commands"] == {"docker": 1}


def run_now(ann: Developer) -> None:
    run_once(ann.settings)


def typed(program: str, options: list[str], lines: str, home: Path) -> None:
    """Type lines into an interactive shell at a terminal of its own."""
    controller, terminal = pty.openpty()
    environment = {
        "HOME": str(home),
        "PATH": f"{home}/bin:/usr/bin:/bin",
        "TERM": "dumb",
        "PS1": "ready> ",
    }
    process = subprocess.Popen(
        ["setsid", "--ctty", program, *options],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
        cwd=home,
    )
    os.close(terminal)
    try:
        for line in lines.splitlines():
            # What is typed before a shell asks for it can be lost.
            read_until_prompt(controller, line)
            os.write(controller, f"{line}\n".encode())
        drain(controller)
        assert process.wait(20) is not None
    finally:
        process.kill()
        process.wait()
        os.close(controller)


def read_until_prompt(controller: int, line: str) -> None:
    """Read until a shell has printed its prompt, and then nothing more for a moment."""
    output = b""
    while select.select([controller], [], [], 0.3 if PROMPT in output else 30)[0]:
        output += os.read(controller, 4096)
    assert PROMPT in output, f"no prompt for {line!r} after {output!r}"


def drain(controller: int) -> None:
    """Read what the shell prints, or it would wait; end when it has closed the terminal."""
    with suppress(OSError):
        while select.select([controller], [], [], 30)[0] and os.read(controller, 4096):
            pass


@pytest.mark.parametrize(
    ("process", "tool"),
    [
        ("/Applications/Visual Studio Code.app/Contents/MacOS/code", "vscode"),
        ("Code.exe", "vscode"),
        ("idea64.exe", "intellij"),
        ("claude", "claude"),
        ("bash", None),
    ],
)
def test_processes_are_recognized_by_their_names(process: str, tool: object) -> None:
    assert recognize_process(process) == tool


def test_a_program_is_recognized_by_a_path_of_windows() -> None:
    [entry] = FORMATS["powershell"].parse(b"C:\\Tools\\git.exe push\n")
    assert [use.name for use in entry.uses] == ["git"]
