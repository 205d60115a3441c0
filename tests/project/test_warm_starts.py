"""Forked starts are like those of the command itself."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import warm_starts
from tests.support.receivers import Receiver, environment, eventually, migrate
from tests.support.warm_starts import COMMAND, ForkedProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks for us")


@pytest.fixture(params=["forked", "cold"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    way: str = request.param
    if way == "cold":
        warm_starts.disable()
    yield way
    warm_starts.enable()


def run(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return warm_starts.run([str(COMMAND), *arguments], folder, environment(**settings), 60)


def test_a_command_has_its_folder_its_environment_and_its_exit_status(
    way: str, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.mkdir()

    results = [
        run(there, "status"),
        run(there, "migrate", TELEMETRY_DATA_DIR="made"),
        run(there, "status", "--nonsense"),
        run(there, "status", TELEMETRY_DATA_DIR="made"),
    ]

    assert [result.returncode for result in results] == [2, 0, 2, 0]
    assert f"there is no database at {there}" in results[0].stderr
    assert results[0].stdout == ""
    assert "applied 2026" in results[1].stdout
    assert (there / "made" / "telemetry.db").is_file()
    assert "No such option" in results[2].stderr


def test_a_receiver_can_be_asked_stopped_and_killed(
    way: str, tmp_path: Path, sqlite_url: str
) -> None:
    migrate(sqlite_url, tmp_path)
    receiver = Receiver(sqlite_url, tmp_path)
    with receiver:
        process, first = receiver._process, receiver.pid
        assert process is not None
        assert isinstance(process, ForkedProcess) == (way == "forked")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        assert process.poll() is None
        receiver.kill()
        assert process.poll() == -signal.SIGKILL
        assert not Path(f"/proc/{first}/exe").exists()
        receiver.start()
        assert receiver.pid != first
        assert receiver.stop() == 0


def test_a_receiver_ends_with_its_test(tmp_path: Path, sqlite_url: str) -> None:
    migrate(sqlite_url, tmp_path)
    receiver = Receiver(sqlite_url, tmp_path)
    receiver.start()
    pid, process = receiver.pid, receiver._process
    assert isinstance(process, ForkedProcess)

    process._control.close()

    eventually(lambda: not Path(f"/proc/{pid}").exists(), 10)
    receiver.client.close()


def test_what_reads_the_environment_at_its_start_is_not_forked(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        process = warm_starts.start(
            [str(COMMAND), "--help"],
            tmp_path,
            environment(PYTHONUTF8="1"),
            output.fileno(),
            output.fileno(),
        )
        assert process.wait(60) == 0

    assert isinstance(process, subprocess.Popen)
