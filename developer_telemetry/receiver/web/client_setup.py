"""What an operator copies to a machine. No secret is in it: of a token only its end is shown."""

from __future__ import annotations

import json
from typing import NamedTuple

from developer_telemetry.connections.registry import Connection

# Of a shorter token four characters would be too much of it.
HINTED_LENGTH = 20
PLACEHOLDER = "PASTE-THE-TOKEN-HERE"
BODY = r"{\"developer\": \"$(id -un)\", \"date\": \"$(date +%F)\", \"hostname\": \"$(hostname)\"}"


class Instructions(NamedTuple):
    """Texts to copy, for one connection."""

    url: str
    curl: str
    config: str


def instructions(base_url: str, connection: Connection) -> Instructions:
    """How a machine sends to `connection` of the receiver at `base_url`."""
    url = f"{base_url}/plugins/developer-telemetry/{connection.id}/report"
    lines = [f"curl {url}", f'-d "{BODY}"']
    config = {"webhook_url": url, "api_key": ""}
    if not connection.is_open:
        lines = [f"TOKEN='{PLACEHOLDER}'", lines[0], '-H "Authorization: Bearer $TOKEN"', lines[1]]
        config["api_key"] = PLACEHOLDER
    first = 0 if connection.is_open else 1
    command = " \\\n  ".join(lines[first:])
    return Instructions(
        url, "\n".join([*lines[:first], command]), json.dumps(config, indent=2, ensure_ascii=False)
    )


def token_hint(connection: Connection) -> str:
    """Enough to tell which token is the connection's."""
    if connection.fault:
        return "can't be decrypted"
    if connection.token is None:
        return "none"
    if len(connection.token) < HINTED_LENGTH:
        return "set"
    return f"ends in {connection.token[-4:]}"
