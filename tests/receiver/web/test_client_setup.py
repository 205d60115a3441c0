"""Test what an operator copies to a machine, and what it says there."""

from __future__ import annotations

import json
import subprocess
from datetime import date
from typing import Optional

import pytest

from developer_telemetry.connections.registry import Connection
from developer_telemetry.receiver.web.client_setup import PLACEHOLDER, describe_token, instructions
from tests.support.receivers import TOKEN


def connection_of(token: Optional[str], fault: str = "") -> Connection:
    return Connection(3, "fleet", token, "overwrite", fault=fault)


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("token", [TOKEN, None])
def test_the_command_sends_a_report_of_that_machine(shell: str, token: Optional[str]) -> None:
    script = instructions("http://lake.example:8090", connection_of(token)).curl
    printing = 'curl() { for each in "$@"; do printf "%s\\n" "$each"; done; }\n'

    done = subprocess.run(
        [shell, "-c", printing + script.replace(PLACEHOLDER, "pasted")],
        capture_output=True,
        text=True,
        check=True,
    )

    url, *options = done.stdout.splitlines()
    assert url == "http://lake.example:8090/plugins/developer-telemetry/3/report"
    assert options[:-2] == ([] if token is None else ["-H", "Authorization: Bearer pasted"])
    assert options[-2] == "-d"
    body = json.loads(options[-1])
    assert set(body) == {"developer", "date", "hostname"}
    assert date.fromisoformat(body["date"])


def test_the_lines_that_install_the_collector_wait_for_a_token_where_one_is_needed() -> None:
    for token in (TOKEN, None):
        lines = instructions("https://lake.example", connection_of(token)).install
        for line in lines:
            assert "https://lake.example/plugins/developer-telemetry/collector.pyz" in line
            assert "--url https://lake.example/plugins/developer-telemetry/3/report" in (
                line.replace("'", "")
            )
            assert ("--token-stdin" in line) == (token is not None)
            assert TOKEN not in line


def test_the_collectors_settings_have_no_token() -> None:
    given = json.loads(instructions("https://lake.example", connection_of(TOKEN)).config)

    assert given == {
        "webhook_url": "https://lake.example/plugins/developer-telemetry/3/report",
        "api_key": PLACEHOLDER,
    }


@pytest.mark.parametrize(
    ("connection", "hint"),
    [
        (connection_of(None), "none"),
        (connection_of("x" * 19), "set"),
        (connection_of("x" * 16 + "1234"), "ends in 1234"),
        (connection_of(None, "its secret token can't be decrypted"), "can't be decrypted"),
    ],
)
def test_a_hint_is_the_end_of_a_long_token_alone(connection: Connection, hint: str) -> None:
    assert describe_token(connection) == hint
