"""Run commands in many environments, each in a fork of an interpreter with all modules.

To start Python for each of some hundred calls would take minutes.
`python -m tests.support.environments` reads a JSON object a line,
`{"arguments", "variables", "stdout", "stderr", "encoding", "folder"}`, and writes one a line,
`{"status", "out", "err"}`.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, NamedTuple

from tests.support.warm_starts import import_everything

DEADLINE_SECONDS = 60


class Outcome(NamedTuple):
    """The outcome of a command."""

    status: int
    out: str
    err: str


@contextmanager
def forking(folder: Path) -> Iterator[Callable[..., Outcome]]:
    """Return a function that runs a command with its own variables and outputs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.environments"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:

        def run(arguments: list[str], variables: dict[str, str], **how: str) -> Outcome:
            job = {"arguments": arguments, "variables": variables, "folder": str(folder), **how}
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            return Outcome(**json.loads(process.stdout.readline()))

        try:
            yield run
        finally:
            process.stdin.close()


def _serve() -> None:
    import_everything()
    importlib.import_module("rich.progress")
    gc.freeze()  # or each child would copy all objects in its first garbage collection
    for line in sys.stdin:
        job = json.loads(line)
        folder = Path(job["folder"])
        paths = [folder / "captured-out", folder / "captured-err"]
        pid = os.fork()
        if pid == 0:
            _become(job, paths)
        _, status = os.waitpid(pid, 0)
        out, err = (path.read_bytes().decode("utf-8", "backslashreplace") for path in paths)
        answer = {"status": os.waitstatus_to_exitcode(status), "out": out, "err": err}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _become(job: dict[str, Any], paths: list[Path]) -> None:
    """Run the command in this process, and end it."""
    status = 99
    try:
        signal.alarm(DEADLINE_SECONDS)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if job["arguments"][:1] == ["watch"]:
            # It ends by Ctrl+C alone, which is pressed as soon as it waits.
            time.sleep = lambda _: os.kill(os.getpid(), signal.SIGINT)
        os.environ.clear()
        os.environ.update(job["variables"])
        os.chdir(job.get("cwd", job["folder"]))
        if job.get("cwd"):
            os.rmdir(job["cwd"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
        for number, name, path in zip((1, 2), ("stdout", "stderr"), paths):
            _redirect(number, job.get(name, "file"), path)
            setattr(sys, name, _stream(number, job))
        sys.argv = ["developer-telemetry", *job["arguments"]]
        from developer_telemetry.cli.main import main

        main()
    except SystemExit as ending:
        status = int(ending.code or 0)
    except BaseException:
        import traceback

        with paths[1].open("a") as file:
            traceback.print_exc(file=file)
    finally:
        os._exit(status)


def _redirect(number: int, kind: str, path: Path) -> None:
    captured = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    if kind == "file":
        os.dup2(captured, number)
    elif kind == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), number)
    elif kind == "pipe":  # with a closed reader
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, number)
    elif kind == "closed":
        os.close(number)
    os.close(captured)


def _stream(number: int, job: dict[str, Any]) -> Any:
    """Return the stream that Python makes of a descriptor when it starts."""
    try:
        raw = io.FileIO(number, "w", closefd=False)
    except OSError:
        return None
    errors = "backslashreplace" if number == 2 else "strict"
    return io.TextIOWrapper(io.BufferedWriter(raw), job.get("encoding", "utf-8"), errors)


if __name__ == "__main__":
    _serve()
