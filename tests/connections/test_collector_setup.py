"""The lines and scripts that install the collector, run against a stand-in for the network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from developer_telemetry.connections.collector_setup import (
    SYSTEMS,
    collector_url,
    install_lines,
    installer_script,
)
from developer_telemetry.errors import ConfigurationError

URL = "https://lake.example/it's here/api/plugins/developer-telemetry/7/report"
COLLECTOR = "https://lake.example/it's here/api/plugins/developer-telemetry/collector.pyz"
TOKEN = "a-token"
CURL = """#!/bin/sh
for last; do :; done
echo "$last" >"$LOG/fetched"
test "$2" = -o && echo >"$3"
exit 0
"""
PYTHON = """#!/bin/sh
shift
printf '%s\\n' "$@" >"$LOG/arguments"
case "$*" in *--token-stdin*) cat >"$LOG/token" ;; esac
exit 5
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A folder with a curl and a python3 that note what they are told."""
    for name, text in (("curl", CURL), ("python3", PYTHON)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def run(script: str, log: Path, **environment: str) -> int:
    path = f"{log}:/usr/bin:/bin"
    done = subprocess.run(
        ["sh", "-c", script],
        input=TOKEN + "\n",
        env={"PATH": path, "LOG": str(log), "TMPDIR": str(log), **environment},
        capture_output=True,
        text=True,
        cwd=log,
        check=False,
    )
    return done.returncode


def noted(log: Path, name: str) -> str:
    return (log / name).read_text(encoding="utf-8")


def test_the_script_for_linux_hands_the_token_over_on_standard_input(log: Path) -> None:
    script = installer_script("linux", URL, has_token=True)
    assert run(script, log, TELEMETRY_TOKEN=TOKEN) == 5
    assert noted(log, "fetched") == COLLECTOR + "\n"
    assert noted(log, "arguments").splitlines() == ["install", "--token-stdin", "--url", URL]
    assert noted(log, "token") == TOKEN + "\n"
    assert {path.name for path in log.iterdir() if path.is_dir()} == set()


def test_without_the_token_a_script_stops_before_it_fetches(log: Path) -> None:
    assert run(installer_script("linux", URL, has_token=True), log) != 0
    assert not (log / "fetched").exists()


def test_an_open_connection_needs_no_token(log: Path) -> None:
    assert run(installer_script("linux", URL, has_token=False), log) == 5
    assert noted(log, "arguments").splitlines() == ["install", "--url", URL]


def test_the_line_for_a_shell_installs(log: Path) -> None:
    assert run(install_lines(URL, has_token=True).unix, log) == 5
    assert noted(log, "fetched") == COLLECTOR + "\n"
    assert noted(log, "arguments").splitlines() == ["install", "--token-stdin", "--url", URL]


@pytest.mark.parametrize("system", ["linux", "macos"])
@pytest.mark.parametrize("has_token", [True, False])
def test_shellcheck_accepts_the_scripts(system: str, has_token: bool) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("there is no shellcheck")
    script = installer_script(system, URL, has_token)
    # The command of another user is words on purpose.
    command = ["shellcheck", "--exclude=SC2086", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_powershell_gets_quoted_urls() -> None:
    script = installer_script("windows", URL, has_token=True)
    assert f"--url '{URL.replace(chr(39), chr(39) * 2)}'" in script
    assert "$env:TELEMETRY_TOKEN | py -3" in script


def test_the_collector_is_beside_the_reports() -> None:
    assert collector_url(URL) == COLLECTOR
    with pytest.raises(ConfigurationError, match="linux, macos, windows"):
        installer_script("beos", URL, has_token=True)
    assert SYSTEMS == ("linux", "macos", "windows")
