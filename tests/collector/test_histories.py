"""Histories of shells, as texts and as real shells write them."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Callable, Optional

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
        ('git commit -m "Say how\nmake test\nmake build"', ["git"]),
        ("git commit -m 'Say how\nmake test'", ["git"]),
        ("git add -A; and git commit; or make test", ["git", "git", "make test"]),
        ("not git diff --quiet; begin; npm test; end", ["git", "npm test"]),
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
        # A session without times has ended after one with times.
        ("bash", "#1700000000\ngit push\n#1700000005\nexit\nmake\ngo test\n",
         [1700000000, 1700000005, None, None]),
        ("bash", "#1700000000\ngit commit -m 'a\n\nb'\nmake\n", [1700000000, None]),
        ("fish", "- cmd: git push\\nmake\n  when: 1700000000\n  paths:\n    - a\n- cmd: go test\n"
         "  when: 1700000060\n", [1700000000, 1700000060]),
        ("powershell", "git push`\n--all\ngo test\n", [None, None]),
    ],
)  # fmt: skip
def test_entries_have_their_times(format: str, content: str, expected: list[object]) -> None:
    parse = FORMATS[format].parse
    assert [entry.when for entry in parse(content.encode())] == expected


@pytest.mark.parametrize(
    ("content", "commands"),
    [
        ("cat >a <<EOF\nmake test\nEOF\ngit push\n", ["cat >a <<EOF", "git push"]),
        ("cat <<-'END' | go test\n\tmake\n\tEND\nls\n", ["cat <<-'END' | go test", "ls"]),
        ("diff <<A - <<B\nmake\nB\nA\nmake\nB\nls\n", ["diff <<A - <<B", "ls"]),
        ("cat <<EOF\nit's\nEOF\nmake\necho '\n", ["cat <<EOF", "make", "echo '"]),
        ('git commit -m "a\nmake \\" test\n\nb" -q\nls\n', ['git commit -m "a', "ls"]),
        ("git commit -m 'a\\'\nmake\necho 'b'\n", ["git commit -m 'a\\'", "make", "echo 'b'"]),
        ("echo \"it's\"\nmake\necho \\'\nls\n", ['echo "it\'s"', "make", "echo \\'", "ls"]),
        ("ls # isn't\nmake\nls # it's\n", ["ls # isn't", "make", "ls # it's"]),
        ("echo it's\nmake\ngit push\n", ["echo it's", "make", "git push"]),
        ("bc <<< EOF\nmake\nEOF\n", ["bc <<< EOF", "make", "EOF"]),
        ("cat <<EOF\nmake\nls\n", ["cat <<EOF", "make", "ls"]),
        ("echo $((1 << n))\nmake\n", ["echo $((1 << n))", "make"]),
    ],
)
def test_a_command_of_bash_has_all_its_lines(content: str, commands: list[str]) -> None:
    entries = FORMATS["bash"].parse(content.encode())
    assert [entry.command.decode() for entry in entries] == commands


def test_a_lone_quote_hides_only_what_another_one_nearby_ends() -> None:
    content = b"echo it's\n" + b"make\n" * 5000 + b"echo isn't\n"
    assert len(list(FORMATS["bash"].parse(content))) == 5002


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


def zsh_lines(lines: list[str], minute: int = 0) -> str:
    """Return what zsh appends with the options of Debian, which begin with one time each."""
    begin = int(seconds(f"{DAY} 09:00")) + 60 * minute
    return "".join(f": {begin + number}:0;{line}\n" for number, line in enumerate(lines))


BEFORE = ["ls", "git init", "cat a", "git log", "exit"]
TYPED = ["git status", "make", "git push", "cd .."]


@pytest.mark.parametrize(
    ("later", "counts"),
    [
        (["make test"], {"git": 2, "make": 1, "make test": 1}),
        (["git push", "git init", "exit"], {"git": 4, "make": 1}),  # these stand at the end alone
        (["npm test", "make", "npm"], {"git": 2, "make": 2, "npm": 1, "npm test": 1}),
        ([], {"git": 2, "make": 1}),
    ],
)
def test_a_history_that_loses_times_and_repeated_commands_counts_each_once(
    ann: Developer, later: list[str], counts: dict[str, int]
) -> None:
    ann.write(".zsh_history", "".join(f"{line}\n" for line in BEFORE), "2026-11-01 12:00")
    ann.run(START)
    with_times = "".join(f"{line}\n" for line in BEFORE) + zsh_lines(TYPED)
    ann.write(".zsh_history", with_times, f"{DAY} 09:10")
    ann.run(f"{DAY} 09:15")
    each_once = list(dict.fromkeys(reversed([*BEFORE, *TYPED, *later])))
    ann.write(".zsh_history", "".join(f"{line}\n" for line in reversed(each_once)), f"{DAY} 10:00")
    ann.run(f"{DAY} 10:15")
    ann.run(f"{DAY} 10:30")
    assert ann.metrics(DAY)["commands"] == counts


def test_a_history_without_times_that_was_cleared_begins_anew(ann: Developer) -> None:
    ann.write(".zsh_history", "".join(f"{line}\n" for line in BEFORE + TYPED), "2026-11-01 12:00")
    ann.run(START)
    ann.write(".zsh_history", "git push\nmake\n", f"{DAY} 09:00")
    ann.run(f"{DAY} 09:15")
    assert ann.metrics(DAY)["commands"] == {"git": 1, "make": 1}


def position(ann: Developer, name: str = ".zsh_history") -> str:
    return ann.store.position(str(ann.home / name))


def test_a_position_of_an_earlier_version_goes_on(ann: Developer) -> None:
    ann.write(".zsh_history", "".join(f"{line}\n" for line in BEFORE), "2026-11-01 12:00")
    ann.run(START)
    with_times = "".join(f"{line}\n" for line in BEFORE) + zsh_lines(TYPED)
    ann.write(".zsh_history", with_times, f"{DAY} 09:10")
    marks = json.loads(position(ann))["marks"]
    ann.run(f"{DAY} 09:15")
    earlier = json.loads(position(ann))
    del earlier["known"]
    earlier["marks"] = marks  # of commands without times alone
    store = ann.store
    with store.transaction():
        store.set_position(str(ann.home / ".zsh_history"), json.dumps(earlier))
    ann.run(f"{DAY} 09:30")  # nothing new, but the position
    assert "known" in json.loads(position(ann))
    lines = [*BEFORE[:-1], *TYPED, "make test", "exit"]
    ann.write(".zsh_history", "".join(f"{line}\n" for line in lines), f"{DAY} 10:00")
    ann.run(f"{DAY} 10:15")
    assert ann.metrics(DAY)["commands"] == {"git": 2, "make": 1, "make test": 1}


def test_a_position_stays_small_and_is_written_with_news_alone(ann: Developer) -> None:
    ann.run(START)
    for hour in range(9, 14):
        for number in range(400):
            ann.type(f"git show {number}", f"{DAY} {hour}:10")
        ann.run(f"{DAY} {hour}:15")
    assert len(position(ann)) < 12_000
    before = ann.store.meta("generation")  # of the positions in the store
    ann.run(f"{DAY} 14:15")
    os.utime(ann.home / ".zsh_history")
    ann.run(f"{DAY} 14:30")
    assert ann.store.meta("generation") == before
    assert ann.metrics(DAY)["commands"] == {"git": 2000}


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
    make_programs(ann)
    run_now(ann)
    work = SET_UP.get(shell, "") + "git push 'a b'\nmake test\ngit pull\nexit\n"
    typed(program, SHELLS[shell], work, ann.home)
    run_now(ann)
    typed(program, SHELLS[shell], SET_UP.get(shell, "") + "make all\nexit\n", ann.home)
    run_now(ann)
    assert ann.metrics(today)["commands"] == {"git": 2, "make all": 1, "make test": 1}


# The part of Debian's `.zshrc` for new users that concerns the history.
DEBIAN_ZSHRC = """\
setopt histignorealldups sharehistory
HISTSIZE=1000
SAVEHIST=1000
HISTFILE=~/.zsh_history
PS1='ready> '
"""


def make_programs(ann: Developer) -> None:
    for name in ("git", "make"):
        path = ann.home / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n", encoding="utf-8")
        path.chmod(0o755)


@pytest.mark.parametrize("end", ["\x04", "exit\n"], ids=["Ctrl-D", "exit"])
def test_zsh_with_the_settings_of_debian_counts_each_command_once(ann: Developer, end: str) -> None:
    program = shell_or_skip("zsh")
    make_programs(ann)
    (ann.home / ".zshrc").write_text(DEBIAN_ZSHRC, encoding="utf-8")
    run_now(ann)
    with terminal_of(program, ["-i"], ann.home) as type_keys:
        for keys in ("ls\n", "git --version\n", "pwd\n", end):
            type_keys(keys)
    run_now(ann)
    with terminal_of(program, ["-i"], ann.home) as type_keys:
        for line in ("git init a", "cd .", "git branch -a", "git status -s"):
            type_keys(f"{line}\n")
        type_keys("\n")  # all of them have ended
        assert ": " in (ann.home / ".zsh_history").read_text(encoding="utf-8")  # there are times
        run_now(ann)
        for keys in ("make test\n", "git log --oneline\n", "cd .\n", end):
            type_keys(keys)
    assert ": " not in (ann.home / ".zsh_history").read_text(encoding="utf-8")
    run_now(ann)
    run_now(ann)
    today = ann.metrics(time.strftime("%Y-%m-%d"))
    assert today["commands"] == {"git": 5, "make test": 1}


def test_two_sessions_of_zsh_that_share_their_history_count_each_command_once(
    ann: Developer,
) -> None:
    program = shell_or_skip("zsh")
    make_programs(ann)
    (ann.home / ".zshrc").write_text(DEBIAN_ZSHRC, encoding="utf-8")
    run_now(ann)
    with terminal_of(program, ["-i"], ann.home) as type_keys:
        for keys in ("git show\n", "git init 1\n", "\n"):
            type_keys(keys)
        with terminal_of(program, ["-i"], ann.home) as type_other_keys:
            type_other_keys("git init 2\n")
            type_keys("git show\n")
            type_other_keys("git pull\n")
            type_keys("\n")
            run_now(ann)
            type_other_keys("make test\n")
            type_keys("git init 1\n")
            type_other_keys("exit\n")
        run_now(ann)
        for keys in ("git pull\n", "make\n", "exit\n"):
            type_keys(keys)
    run_now(ann)
    today = ann.metrics(time.strftime("%Y-%m-%d"))
    assert today["commands"] == {"git": 7, "make": 1, "make test": 1}


def test_sessions_of_bash_with_and_without_times_count_each_command_once(ann: Developer) -> None:
    program = shell_or_skip("bash")
    make_programs(ann)
    for number in range(9):
        ann.type(f"git show {number}", START, "bash")
    run_now(ann)
    for set_up, work in (
        ("HISTTIMEFORMAT=%s\n", "git push\n"),
        ("", "make test\n"),
        ("HISTTIMEFORMAT=%s\n", "git pull\nmake all\n"),
        ("", "git push\n"),
    ):
        # Each writes the whole history as it has it, and appends nothing when it ends.
        typed(
            program, SHELLS["bash"], f"{set_up}{work}history -w\nunset HISTFILE\nexit\n", ann.home
        )
        run_now(ann)
    today = ann.metrics(time.strftime("%Y-%m-%d"))
    assert today["commands"] == {"git": 3, "make all": 1, "make test": 1}


def test_what_bash_writes_of_commands_of_many_lines_counts_once(ann: Developer) -> None:
    program = shell_or_skip("bash")
    make_programs(ann)
    run_now(ann)
    work = (
        "cat >NOTES.md <<EOF\nmake test\ngit push\nEOF\n"
        'git commit -m "Say how\nmake test\n"\nmake clean\nmake\nexit\n'
    )
    with terminal_of(program, SHELLS["bash"], ann.home, {"PS2": "ready> "}) as type_keys:
        for line in work.splitlines(keepends=True):
            type_keys(line)
    run_now(ann)
    today = ann.metrics(time.strftime("%Y-%m-%d"))
    assert today["commands"] == {"git": 1, "make": 2}
    assert today["development_activity"] == {
        "test_runs_detected": 0,
        "build_commands_detected": 1,
    }


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
    with terminal_of(program, options, home) as type_keys:
        for line in lines.splitlines(keepends=True):
            type_keys(line)


@contextmanager
def terminal_of(
    program: str, options: list[str], home: Path, variables: Optional[dict[str, str]] = None
) -> Iterator[Callable[[str], None]]:
    """Start a shell at a terminal of its own; yield what types keys once it asks for them.

    At the end it waits for the shell, which the last keys are to end.
    """
    controller, terminal = pty.openpty()
    environment = {
        "HOME": str(home),
        "PATH": f"{home}/bin:/usr/bin:/bin",
        "TERM": "dumb",
        "PS1": "ready> ",
        **(variables or {}),
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
        yield partial(type_at, controller)
        drain(controller)
        assert process.wait(20) is not None
    finally:
        process.kill()
        process.wait()
        os.close(controller)


def type_at(controller: int, keys: str) -> None:
    """Type keys; what is typed before a shell asks for it can be lost."""
    read_until_prompt(controller, keys)
    os.write(controller, keys.encode())


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
