"""Calls the sample plugin in a process of its own, as DevLake's server does."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from queue import Empty, Queue
from typing import Any, NamedTuple, Optional

PACKAGE = Path(__file__).parent / "guestbook" / "guestbook"
RUN = """\
#!/bin/sh
cd "$(dirname "$0")" || exit 1
exec "${PYTHON:-python3}" guestbook/main.py "$@"
"""


def _sample() -> Path:
    """Put the sample plugin where DevLake would start it.

    Its run.sh is written here: DevLake calls each one that lies below its plugin folder, and this
    project may lie there as a whole.
    """
    place = tempfile.mkdtemp(prefix="plugins-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    folder = Path(place) / "guestbook"  # its name is in ids
    folder.mkdir()
    (folder / "guestbook").symlink_to(PACKAGE)
    (folder / "run.sh").write_text(RUN)
    (folder / "run.sh").chmod(0o755)
    return folder


SAMPLE = _sample()
CONNECTION = {"id": 7, "name": "lobby", "token": "good", "proxy": "", "organization": ""}
# Longer than any call takes on a machine that is busy with other things.
DEADLINE = 60.0


class Answer(NamedTuple):
    status: int
    lines: list[str]
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]


class Call:
    """A running call. `lines` fills up as the plugin answers on file descriptor 3."""

    def __init__(self, *arguments: str, answers: bool = True) -> None:
        environment = {
            **os.environ,
            "PYTHON": sys.executable,
            "PYTHONPATH": os.pathsep.join([str(PACKAGE.parents[2]), str(SAMPLE)]),
        }
        reading, writing = os.pipe()
        # Not >&: some shells take a single digit there.
        redirect = f"3>/dev/fd/{writing}" if answers else "3>&-"
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", f'exec "$0" "$@" {redirect}', str(SAMPLE / "run.sh"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[writing],
            env=environment,
        )
        os.close(writing)
        self._lines: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, args=(reading,), daemon=True)
        self._reader.start()

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor) as channel:
            for line in channel:
                self._lines.put(line)

    def next_line(self, within: float = DEADLINE) -> str:
        try:
            return self._lines.get(timeout=within)
        except Empty:
            self.process.kill()
            _, err = self.process.communicate()
            raise AssertionError(f"no line within {within} s; stderr: {err}") from None

    def finish(self, within: float = DEADLINE) -> Answer:
        try:
            out, err = self.process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(DEADLINE)
        lines = []
        while not self._lines.empty():
            lines.append(self._lines.get())
        return Answer(self.process.returncode, lines, out, err)


def call(verb: str, *documents: Any, config: Any = "") -> Answer:
    """One call from start to end. `documents` are turned into JSON."""
    return Call(verb, *(json.dumps(each) for each in (config, *documents))).finish()


def context(db_url: str, source: str, **more: Any) -> dict[str, Any]:
    """Return what the server passes to a subtask for the book b1."""
    return {
        "db_url": db_url,
        "scope": {"id": "b1", "name": "Lobby", "connectionId": 7, "source": source},
        "connection": CONNECTION,
        "scope_config": None,
        "options": {"connectionId": 7, "scopeId": "b1"},
        **more,
    }


def seconds_since(start: float) -> float:
    return time.monotonic() - start


def start(verb: str, *documents: Any, config: Optional[Any] = None) -> Call:
    return Call(verb, *(json.dumps(each) for each in (config or "", *documents)))
