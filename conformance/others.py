"""The other Python plugins of DevLake's tree, on our SDK, under the genuine server."""

from __future__ import annotations

from conformance.lake import Lake
from conformance.life import expect
from conformance.outcomes import LeftOut, Outcomes
from tests.support.receivers import query

# The plugin of DevLake's own tests of its SDK: without a source, with many pipelines.
FAKE = "/plugins/fake"
FAKE_TOKEN = "this_is_a_valid_token"
FAKE_PIPELINES = 250


def others_run(lake: Lake, url: str, names: list[str], outcomes: Outcomes) -> None:
    """Use the plugins that a server has loaded, by the names of their folders."""
    for name in names:
        with outcomes.record_outcome(f"{name}: loaded, its tables made"):
            plugin = name.removesuffix("plugin")
            expect(lake.get(f"/plugins/{plugin}/connections"), [], "connections of its own")
    with outcomes.record_outcome(
        "fakeplugin: connection, scope, blueprint; collected, converted twice"
    ):
        if "fakeplugin" not in names:
            raise LeftOut("the checkout has no fakeplugin")
        _fake(lake, url)


def _fake(lake: Lake, url: str) -> None:
    connection = {"name": "fake", "token": FAKE_TOKEN}
    expect(lake.call("POST", f"{FAKE}/test", connection)["success"], True, "a good token")
    wrong = {**connection, "token": "wrong"}
    expect(lake.call("POST", f"{FAKE}/test", wrong, status=400)["success"], False, "a wrong token")
    path = f"{FAKE}/connections/{lake.call('POST', f'{FAKE}/connections', connection)['id']}"
    [group] = lake.get(f"{path}/remote-scopes")["children"]
    [scope] = lake.get(f"{path}/remote-scopes?groupId={group['id']}")["children"]
    lake.call("PUT", f"{path}/scopes", {"data": [scope["data"]]})
    config = {"name": "c", "connectionId": 1, "entities": ["CICD"], "env": "TESTING"}
    config_id = lake.call("POST", f"{path}/scope-configs", config)["id"]
    lake.call("PATCH", f"{path}/scopes/{scope['id']}", {"scopeConfigId": config_id})
    blueprint_id = lake.blueprint(("fake", 1, scope["id"]))
    for how in ({}, {"skipCollectors": True}):
        lake.run(blueprint_id, **how)
        for table in ("_raw_fake_fakepipelinestream", "cicd_pipelines"):
            [(number,)] = query(url, f"SELECT COUNT(*) FROM {table}")
            expect(number, FAKE_PIPELINES, f"rows of {table}")
    lake.call("DELETE", f"{path}/scopes/{scope['id']}?delete_data_only=true")
    [(left,)] = query(url, "SELECT COUNT(*) FROM cicd_pipelines")
    expect(left, 0, "pipelines after the data deletion")
