"""build.sh and run.sh in a fresh clone, as whoever installs the plugin into DevLake meets them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# No index to ask and nothing to find elsewhere: as without a network.
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    # Elsewhere than beside a pydevlake, so that the SDK is our own.
    folder = tmp_path / "plugins" / "developer_telemetry"
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    return folder


def run(folder: Path, command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_a_build_makes_all_that_run_needs_and_the_next_one_asks_for_no_network(clone: Path) -> None:
    built = run(clone, "./build.sh")
    assert built.returncode == 0, built.stderr
    assert built.stdout == f"developer_telemetry: ready on the SDK in {clone}/sdk\n"

    called = run(clone, "./run.sh plugin-info '{}' 3>&1")
    assert (called.returncode, called.stderr) == (0, "")
    assert f'"plugin_path":"{clone}/run.sh"' in called.stdout

    again = run(clone, "./build.sh", **OFFLINE)
    assert (again.returncode, again.stdout) == (0, "developer_telemetry: .venv has everything\n")


def test_a_build_that_can_not_install_says_so_in_one_line_and_leaves_nothing(clone: Path) -> None:
    built = run(clone, "./build.sh", **OFFLINE)
    assert built.returncode == 1
    (line,) = built.stderr.splitlines()
    assert line.startswith("developer_telemetry: can't install the SDK")
    assert "ERROR: Could not find" in line
    assert not (clone / ".venv").exists()

    called = run(clone, "./run.sh plugin-info '{}' 3>&1")
    assert called.returncode == 1
    (line,) = called.stderr.splitlines()
    assert "run ./build.sh" in line


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\nexit 1\n", "too old"),
        (None, "missing"),
    ],
    ids=["an old Python", "no Python"],
)
def test_a_build_says_what_is_wrong_with_python(
    clone: Path, tmp_path: Path, script: str, said: str
) -> None:
    python = tmp_path / "python"
    if script is not None:
        python.write_text(script)
        python.chmod(0o755)
    built = run(clone, "./build.sh", PYTHON=str(python))
    assert built.returncode == 1
    (line,) = built.stderr.splitlines()
    assert said in line
    assert "Python 3.9" in line
