"""Texts that an operator copies to a machine.

They contain no secret; a long token is shown by its last four characters alone.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from developer_telemetry.connections.collector_setup import InstallLines, install_lines
from developer_telemetry.connections.registry import Connection, token_hint
from developer_telemetry.connections.report_url import report_url

PLACEHOLDER = "PASTE-THE-TOKEN-HERE"
BODY = r"{\"developer\": \"$(id -un)\", \"date\": \"$(date +%F)\", \"hostname\": \"$(hostname)\"}"


class Instructions(NamedTuple):
    """The texts for one connection.

    Attributes:
        url: the report URL.
        install: the lines that install the collector.
        curl: a shell command that sends a report.
        config: the settings of another collector.
    """

    url: str
    install: InstallLines
    curl: str
    config: str


def instructions(base_url: str, connection: Connection) -> Instructions:
    """Return the texts for a machine that sends to `connection`.

    Args:
        base_url: the receiver's scheme, host and port, as in `http://lake.example:8090`.
    """
    url = report_url(base_url, connection.id)
    lines = [f"curl {url}", f'-d "{BODY}"']
    config = {"webhook_url": url, "api_key": ""}
    if not connection.is_open:
        lines = [f"TOKEN='{PLACEHOLDER}'", lines[0], '-H "Authorization: Bearer $TOKEN"', lines[1]]
        config["api_key"] = PLACEHOLDER
    first = 0 if connection.is_open else 1
    command = " \\\n  ".join(lines[first:])
    return Instructions(
        url,
        install_lines(url, has_token=not connection.is_open),
        "\n".join([*lines[:first], command]),
        json.dumps(config, indent=2, ensure_ascii=False),
    )


def describe_token(connection: Connection) -> str:
    """Return what the page shows of a connection's token."""
    return "can't be decrypted" if connection.fault else token_hint(connection.token)
