"""Replace the Go plugin by ours under the genuine server, with its tables."""

from __future__ import annotations

from conformance.fleet import TOKEN, count
from conformance.lake import Lake
from conformance.life import PLUGIN, expect, migrations_are_done
from conformance.outcomes import Outcomes
from developer_telemetry.connections.crypto import encrypt
from developer_telemetry.constants import TOOL_TABLE as TOOL
from tests.support import go_plugin
from tests.support.receivers import SECRET, Receiver, query, report


def prepare_go_plugin(url: str) -> None:
    """Fill an empty database as the Go plugin of this name does."""
    for statement in go_plugin.STATEMENTS:
        query(url, statement.replace(go_plugin.SECRET, encrypt(TOKEN, SECRET)))


def take_over(lake: Lake, url: str, outcomes: Outcomes) -> None:
    """Try the connection and rows of the Go plugin after the server's first start with ours."""
    with outcomes.record_outcome("the Go plugin's rows survive the migrations") as remarks:
        remarks.append(migrations_are_done(url))
        expect(count(url, TOOL, 1), len(go_plugin.ODD_JSON) + 4, "rows")
        [(commits,)] = query(url, f"SELECT commits FROM {TOOL} WHERE developer_id = 'usual'")
        expect(commits, 3, "numbers taken from JSON")
    with outcomes.record_outcome("its connection works on, its token included"):
        names = {item["name"] for item in lake.get(f"{PLUGIN}/connections")}
        expect(names, {"fleet", "other"}, "connections")
        with Receiver(url, lake.folder) as receiver:
            sent = receiver.send(report("ada"), 3, TOKEN)
        expect(sent.status_code, 200, "a report to it")
