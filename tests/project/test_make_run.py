"""The README's first screen: a fresh clone, `make run`, the line to paste, the row."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.receivers import environment, eventually, query
from tests.support.servers import free_port
from tests.support.terminals import Terminal

ROOT = Path(__file__).parents[2]
# A virtual environment is made, its packages come from the network.
INSTALL_SECONDS = 600.0
PLUGIN = ".venv-plugin"

pytestmark = pytest.mark.timeout(INSTALL_SECONDS + 120)


class Running(NamedTuple):
    """`make run` in a clone, and what it has printed."""

    clone: Path
    port: int
    printed: str
    of_the_plugin: list[str]  # the files of its environment, before

    def shell(self, line: str, **variables: str) -> str:
        """Return what a line pasted into a shell prints."""
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=self.clone,
            env=as_typed(**variables),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rows(self, statement: str) -> list[tuple[object, ...]]:
        return query(f"sqlite:///{self.clone}/data/telemetry.db", statement)


def as_typed(**variables: str) -> dict[str, str]:
    """The environment of a shell that knows nothing of us, nor of the make that runs the tests."""
    inherited = ("ENCRYPTION_SECRET", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHONPATH")
    plain = {name: value for name, value in environment().items() if name not in inherited}
    return {**plain, "PIP_NO_COMPILE": "1", **variables}


def files_of(folder: Path) -> list[str]:
    return sorted(f"{path} {path.lstat().st_mtime_ns}" for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git clone, so there is nothing to clone")
    clone = tmp_path_factory.mktemp("make-run") / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    # In the place of the environment that build.sh makes for DevLake.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", clone / PLUGIN], check=True)
    (clone / PLUGIN / "__pycache__").mkdir()
    before = files_of(clone / PLUGIN)
    port = free_port()
    with Terminal(["make", "run"], clone, as_typed(TELEMETRY_PORT=str(port))) as terminal:
        terminal.read_until("ready for reports", INSTALL_SECONDS)
        yield Running(clone, port, terminal.output, before)
        terminal.type("\x03")
        terminal.end()
        assert re.search(r"\^C\n?$", terminal.output)


def test_the_printed_line_stores_a_report(running: Running) -> None:
    [line] = [line for line in running.printed.splitlines() if line.startswith("  curl ")]

    answer = json.loads(running.shell(line))

    assert answer == {"success": True, "message": "report stored"}
    body = json.loads(line[line.index("'{") + 1 : line.rindex("'")])
    payloads = running.rows("SELECT payload FROM raw_developer_telemetry")
    assert body in [json.loads(str(payload)) for (payload,) in payloads]
    [row] = running.rows("SELECT developer_id, date, active_hours FROM _tool_developer_metrics")
    assert row == (body["developer"], body["date"], body["metrics"]["active_hours"])


def test_the_readmes_first_screen_is_true(running: Running) -> None:
    readme = (running.clone / "README.md").read_text(encoding="utf-8")
    [curl] = re.findall(r"^```sh\n(TOKEN=.*?^curl .*?)^```", readme, re.M | re.S)
    [page] = re.findall(r"<(http://127\.0\.0\.1:8090/)>", readme)
    [command] = re.findall(r"`(\.venv/bin/developer-telemetry status)`", readme)
    [promised] = re.findall(r"It answers `(\{.*?\})`", readme)
    assert ":8090/" in curl
    curl = curl.replace(":8090/", f":{running.port}/")
    before = running.rows("SELECT COUNT(*) FROM _raw_developer_telemetry")

    assert running.shell(curl) == promised

    assert running.rows("SELECT COUNT(*) - 1 FROM _raw_developer_telemetry") == before
    shown = running.shell(command).splitlines()
    assert shown[0].split()[:3] == ["id", "name", "reports"]
    page = page.replace(":8090/", f":{running.port}/")
    # Machines are counted some seconds after their reports are stored.
    eventually(lambda: "ann.lee" in running.shell(f"curl --silent --fail {page}"), seconds=15)
    assert re.match(r"1 +default +\d+ +\d+ +1 +1 +0 +20", shown[1])


def test_the_clone_is_left_as_git_knows_it(running: Running) -> None:
    assert running.shell("git status --porcelain") == ""


def test_make_leaves_alone_what_build_makes_for_devlake(running: Running) -> None:
    assert files_of(running.clone / PLUGIN) == running.of_the_plugin
    running.shell("make clean")  # the last of all: the receiver runs from what it removes
    assert not (running.clone / ".venv").exists()
    assert files_of(running.clone / PLUGIN) == running.of_the_plugin
