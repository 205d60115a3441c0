"""Operate the plugin under the genuine server while machines report."""

from __future__ import annotations

import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any, Optional

from conformance.fleet import PEOPLE, TOKEN, Fleet, count
from conformance.lake import Lake
from conformance.outcomes import LeftOut, Outcomes, Unmet
from developer_telemetry.connections.crypto import decrypt
from developer_telemetry.constants import RAW_TABLE as RAW
from developer_telemetry.constants import TOOL_TABLE as TOOL
from developer_telemetry.database.schema_versions import NAMES
from tests.support.nginx import NAME, Names, Nginx, server_conf
from tests.support.receivers import SECRET, Receiver, eventually, query, report, run_command
from tests.support.servers import HOST, ServerMissing

PLUGIN_NAME = "developer_telemetry"
PLUGIN = f"/plugins/{PLUGIN_NAME}"
MACHINES = "_tool_developer_telemetry_machines"
SUBTASKS = ["Collect Reports", "Extract Reports", "Convert Reports"]
# Users of DevLake: one matches by e-mail, one by full name, one by user name.
USERS = {"u1": ("", "ann@example.org"), "u2": ("Bob Builder", ""), "u3": ("cem", "")}
# The erased person: a unique word, and the columns that may contain it.
GONE = "gilgamesh"
TRACES = (RAW, TOOL, MACHINES, "accounts", "user_accounts")


def rows_of(url: str, table: str, connection_id: int) -> int:
    """Return how many rows of a domain table came from a connection."""
    [(number,)] = query(
        url,
        f"SELECT COUNT(*) FROM {table} WHERE _raw_data_table LIKE '\\_raw\\_developer\\_telemetry%'"
        f' AND _raw_data_params = \'{{"ConnectionId":{connection_id},"ScopeId":"all"}}\'',
    )
    return int(number)


def expect(results: Any, wanted: Any, what: str) -> None:
    if results != wanted:
        raise Unmet(f"{what}: {results!r}, not {wanted!r}")


class Life:
    """The life of an installation: `lake` without plugins, to which ours in `plugins` is added."""

    def __init__(self, lake: Lake, url: str, plugins: Path, outcomes: Outcomes) -> None:
        self.lake = lake
        self.plugins = plugins
        self.url = url
        self.outcomes = outcomes
        self.receiver = Receiver(url, lake.folder)
        self.blueprint_id = 0
        self.config_id = 0
        self.onboarded: dict[str, Any] = {}
        self.right: list[Any] = []

    def live(self) -> None:
        """Do one thing after the other; each builds on those before it."""
        self.outcomes.run(
            "the server takes up the plugin and asks before it migrates", self._loaded
        )
        self.outcomes.run(
            "a connection is tested, made twice, changed, and tested again", self._connect
        )
        self.outcomes.run("the scope is offered, chosen and configured", self._choose)
        self.outcomes.run("a project's blueprint takes the connection", self._plan)
        self.outcomes.run(
            "the command `connect` adds another, and does nothing twice", self._onboard
        )
        with self.receiver:
            self.outcomes.run(
                "its token is rotated and revoked, and it is deleted again", self._offboard
            )
            self.outcomes.run(
                "reports are accepted with the token and with DevLake's API key", self._push
            )
            with Fleet(self.url, self.receiver, 1) as fleet:
                eventually(lambda: fleet.acknowledged > 50, 60)
                self.outcomes.run("a run completes while machines report", self._run)
                self.outcomes.run("accounts are linked to users by the org plugin", self._linked)
                self.outcomes.run(
                    "`doctor` behind the front proxy names what is amiss", self._examine
                )
                self.outcomes.run(
                    "a scheduled run looks only at what is new", self._skip_settled_days
                )
                self.outcomes.run(
                    "a re-transform rebuilds all days from raw reports", self._retransform
                )
                self.outcomes.run("a full sync completes", self._full_sync)
                self.outcomes.run(
                    "tasks of tests and builds go when switched off", self._switch_off
                )
            self.outcomes.run(
                "no report was lost, refused or stored twice", lambda: self._compare_stored(fleet)
            )
            self.outcomes.run("a person is erased, and no run brings anything back", self._erase)
            self.outcomes.run("the server starts again without migrating", self._restart)
            self.outcomes.run(
                "data deletion empties the connection, and it alone", self._delete_data
            )
            self.outcomes.run("scope, scope config and connection are deleted", self._delete)

    def _loaded(self) -> str:
        self.lake.stop()
        self.lake.start(self.plugins)
        expect(self.lake.asked_to_migrate, True, "asked before migrating")
        names = [item["plugin"] for item in self.lake.get("/plugins")]
        expect("developer_telemetry" in names, True, "loaded")
        return migrations_are_done(self.url)

    def _connect(self) -> None:
        fleet = {"name": "fleet", "endpoint": "http://x", "secretToken": TOKEN}
        tested = self.lake.call("POST", f"{PLUGIN}/test", fleet)
        expect(tested["success"], True, "the test of a new connection")
        self.lake.call("POST", f"{PLUGIN}/test", {**fleet, "duplicateStrategy": "max"}, status=400)
        for name, connection_id in (("fleet", 1), ("other", 2)):
            made = self.lake.call("POST", f"{PLUGIN}/connections", {**fleet, "name": name})
            expect(made["id"], connection_id, f"the id of {name}")
        self.lake.call("PATCH", f"{PLUGIN}/connections/1", {"duplicateStrategy": "sum"})
        results = self.lake.get(f"{PLUGIN}/connections/1")
        expect((results["name"], results["duplicateStrategy"]), ("fleet", "sum"), "the change")
        expect(len(self.lake.get(f"{PLUGIN}/connections")), 2, "connections listed")
        tested = self.lake.call("POST", f"{PLUGIN}/connections/1/test")
        expect(tested["success"], True, "the test of a saved connection")
        [(stored,)] = query(
            self.url, "SELECT secret_token FROM _tool_developer_telemetry_connections WHERE id = 1"
        )
        # DevLake has changed its encryption before.
        expect(decrypt(stored, SECRET), TOKEN, "the stored token, decrypted")

    def _choose(self) -> None:
        for connection_id in (1, 2):
            path = f"{PLUGIN}/connections/{connection_id}"
            [group] = self.lake.get(f"{path}/remote-scopes")["children"]
            [scope] = self.lake.get(f"{path}/remote-scopes?groupId={group['id']}")["children"]
            self.lake.call("PUT", f"{path}/scopes", {"data": [scope["data"]]})
            [results] = self.lake.get(f"{path}/scopes")["scopes"]
            expect(results["scope"]["id"], "all", "the scope")
        path = f"{PLUGIN}/connections/1"
        wanted = {
            "name": "with tasks",
            "connectionId": 1,
            "entities": ["CROSS"],
            "testAndBuildTasks": True,
            # Without the org plugin a plan must not contain it.
            "keepAccountsUnlinked": not self.lake.has_org,
        }
        self.config_id = self.lake.call("POST", f"{path}/scope-configs", wanted)["id"]
        self.lake.call("PATCH", f"{path}/scopes/all", {"scopeConfigId": self.config_id})

    def _plan(self) -> str:
        self.blueprint_id = self.lake.blueprint((PLUGIN_NAME, 1, "all"))
        plan = self.lake.get(f"/blueprints/{self.blueprint_id}")
        expect(plan["connections"][0]["pluginName"], PLUGIN_NAME, "the blueprint's plugin")
        [(name,)] = query(self.url, "SELECT name FROM cicd_scopes")
        expect(name, "All reports", "the domain scope")
        return "" if self.lake.has_org else "without a project, for which DevLake needs org"

    def _onboard(self) -> str:
        before = self.lake.get(f"/blueprints/{self.blueprint_id}")
        project = ["--project", before["projectName"]] if self.lake.has_org else []
        options = ["--strip-paths", "--test-and-build-tasks", "--keep-accounts-unlinked"]
        self.onboarded = json.loads(self._command("connect", "more", "--json", *project, *options))
        after = self.lake.get(f"/blueprints/{self.blueprint_id}")
        told = [item["connectionId"] for item in after["connections"]]
        expect(told, [1, self.onboarded["id"]] if project else [1], "the blueprint's connections")
        for name in before.keys() - {"plan", "connections", "updatedAt"}:
            expect(after[name], before[name], f"the blueprint's {name}")
        everything = self._compare_stored_by_devlake()
        again = self._command("connect", "more", *project, *options)
        expect(self.onboarded["token"] in again, False, "the token shown again")
        self._command("connect", "fleet", *project)
        expect(self._compare_stored_by_devlake(), everything, "what DevLake keeps")
        return "" if project else "without a project, for which DevLake needs org"

    def _command(
        self, *arguments: str, settings: Optional[dict[str, str]] = None, leaves: int = 0
    ) -> str:
        """Return the output of an operator's command, by default through DevLake's API."""
        settings = settings or {"DEVLAKE_URL": self.lake.url}
        done = run_command(self.lake.folder, *arguments, **settings)
        if done.returncode != leaves:
            message = f"{' '.join(arguments)}: {done.stdout} {done.stderr}"
            raise Unmet(f"{message} The server's log: {self.lake.complaints()}")
        return done.stdout

    def _compare_stored_by_devlake(self) -> list[Any]:
        path = f"{PLUGIN}/connections"
        return [
            self.lake.get(f"/blueprints/{self.blueprint_id}"),
            self.lake.get(path),
            self.lake.get(f"{path}/1/scopes"),
            self.lake.get(f"{path}/{self.onboarded['id']}/scopes"),
            self.lake.get(f"{path}/1/scope-configs"),
        ]

    def _offboard(self) -> None:
        number, first = self.onboarded["id"], self.onboarded["token"]
        path = PLUGIN + "/connections/{}/report"
        rotate = self._command("token", "rotate", "more", "--keep-old", "1h", "--json")
        second = json.loads(rotate)["token"]
        for token in (first, second):
            eventually(partial(self._answers, number, token, path, 200), 30)
        self._command("token", "revoke", "more", "--previous", "--yes")
        eventually(partial(self._answers, number, first, path, 401), 30)
        expect(self._answers(number, second, path, 200), True, "the new token is taken")
        self._command("token", "revoke", "more", "--yes")
        eventually(partial(self._answers, number, second, path, 401), 30)
        self._command("connections", "rename", "more", "fewer")
        self._command("connections", "delete", "fewer", "--yes")
        expect(count(self.url, RAW, number), 0, "raw rows of it")
        after = self.lake.get(f"/blueprints/{self.blueprint_id}")
        told = [item["connectionId"] for item in after["connections"]]
        expect(told, [1], "the blueprint's connections")
        eventually(partial(self._answers, number, second, path, 404), 30)

    def _push(self) -> None:
        wanted = {
            "name": "k",
            "type": "devlake",
            "allowedPath": f"{PLUGIN}/connections/2/.*",
        }
        key = self.lake.call("POST", "/api-keys", wanted)["apiKey"]
        remainder = "/rest" + PLUGIN + "/connections/{}/report"
        for connection_id, credential, path, status in (
            (1, TOKEN, PLUGIN + "/connections/{}/report", 200),
            (2, key, remainder, 200),
            (1, key, remainder, 401),
            (1, "wrong", PLUGIN + "/connections/{}/report", 401),
            (99, TOKEN, PLUGIN + "/connections/{}/report", 404),
        ):
            # The receiver reads a new connection or key a little later.
            eventually(partial(self._answers, connection_id, credential, path, status), 30)

    def _answers(self, connection_id: int, credential: str, path: str, status: int) -> bool:
        body = report("eve", name="Eve")
        answer = self.receiver.send(body, connection_id, credential, path=path)
        return answer.status_code == status

    def _run(self) -> str:
        names = self.lake.run(self.blueprint_id)
        wanted = [SUBTASKS, ["connectUserAccountsExact"]] if self.lake.has_org else [SUBTASKS]
        # DevLake adds a task of its own that maps the project.
        expect([item for item in names if item in wanted], wanted, f"the subtasks in {names}")
        results = query(
            self.url, "SELECT user_name FROM accounts WHERE id LIKE 'developer%' ORDER BY id"
        )
        expect([row[0] for row in results], [*PEOPLE, "eve"], "accounts")
        for kind in ("TEST", "BUILD"):
            [(number,)] = query(self.url, f"SELECT COUNT(*) FROM cicd_tasks WHERE type = '{kind}'")
            expect(number > 0, True, f"tasks of type {kind}")
        [(deployments,)] = query(self.url, "SELECT COUNT(*) FROM cicd_deployments")
        expect(deployments, 0, "deployments")
        return "subtasks " + ", ".join(itertools.chain(*names))

    def _linked(self) -> str:
        if not self.lake.has_org:
            raise LeftOut("GO_PLUGINS names no folder with the server's org plugin")
        for identity, (name, email) in USERS.items():
            query(
                self.url,
                f"INSERT INTO users (id, name, email) VALUES ('{identity}', '{name}', '{email}')",
            )
        self.lake.run(self.blueprint_id)
        links = dict(query(self.url, "SELECT account_id, user_id FROM user_accounts"))
        wanted = {"ann": "u1", "bob": "u2", "cem": "u3"}
        prefix = "developer_telemetry:Account:1:"
        expect(links, {prefix + who: user for who, user in wanted.items()}, "links")
        return "by e-mail, by full name, by user name; a name spelled otherwise stays unlinked"

    def _examine(self) -> str:
        """Apply the remedy of `doctor` for a connection in no blueprint."""
        with Names({NAME: HOST}) as names:
            conf = server_conf(self.lake.folder, "", names.port, self.receiver.port)
            try:
                proxy = Nginx(int(self.lake.url.rpartition(":")[2]), conf)
            except ServerMissing as reason:
                raise LeftOut(str(reason)) from None
            with proxy:
                settings = {"DEVLAKE_URL": proxy.address, "DB_URL": self.url}
                results = json.loads(self._command("doctor", "--json", settings=settings, leaves=1))
                failed = [item["name"] for item in results["checks"] if item["state"] == "failed"]
                expect(failed, ["blueprint"], "what is amiss")
                if self.lake.has_org:
                    self._command("connect", "other", "--project", "p1", settings=settings)
                else:  # without projects
                    both = [(PLUGIN_NAME, item, "all") for item in (1, 2)]
                    self.lake.use(self.blueprint_id, *both)
                results = json.loads(self._command("doctor", "--json", settings=settings))
        states = {item["state"] for item in results["checks"]}
        expect(states, {"ok"} if self.lake.has_org else {"ok", "skipped"}, "what checks end as")
        return "a connection in no blueprint; once fixed as it says, all is well"

    def _skip_settled_days(self) -> None:
        """Wait ten minutes, until a run treats stored rows as complete."""
        query(self.url, f"UPDATE {RAW} SET stored_at = '2026-01-01' WHERE developer_id = 'eve'")
        self.lake.run(self.blueprint_id)
        self.right = self._day()
        query(self.url, f"UPDATE {TOOL} SET email = 'spoilt', builds = 99 WHERE connection_id = 1")
        self.lake.run(self.blueprint_id)
        expect(self._list_spoilt(), ["eve"], "whose days were not looked at again")

    def _retransform(self) -> None:
        names = self.lake.run(self.blueprint_id, skipCollectors=True)
        expect(SUBTASKS[1:] in names, True, f"Extract and Convert alone in {names}")
        expect(self._list_spoilt(), [], "whose days are still spoilt")
        expect(self._day(), self.right, "a day's row")

    def _list_spoilt(self) -> list[str]:
        results = query(self.url, f"SELECT developer_id FROM {TOOL} WHERE email = 'spoilt'")
        return [row[0] for row in results]

    def _day(self) -> list[Any]:
        """Return the row of a day that no machine reports on any more."""
        return query(
            self.url, f"SELECT * FROM {TOOL} WHERE connection_id = 1 AND developer_id = 'eve'"
        )

    def _full_sync(self) -> None:
        self.lake.run(self.blueprint_id, fullSync=True)

    def _switch_off(self) -> None:
        path = f"{PLUGIN}/connections/1/scope-configs/{self.config_id}"
        self.lake.call("PATCH", path, {"testAndBuildTasks": False})
        self.lake.run(self.blueprint_id)
        expect(rows_of(self.url, "cicd_tasks", 1), 0, "tasks")

    def _compare_stored(self, fleet: Fleet) -> str:
        expect(fleet.refused, [], "refused")
        expect(fleet.lost, False, "fewer raw rows than before at any moment")
        # And the one report of `_push`.
        expect(count(self.url, RAW, 1), fleet.acknowledged + 1, "raw rows")
        return f"{fleet.acknowledged} reports"

    def _erase(self) -> str:
        fields = {"email": f"{GONE}@example.org", "name": GONE, "hostname": f"{GONE}s-laptop"}
        expect(self.receiver.send(report(GONE, **fields), 1, TOKEN).status_code, 200, "a report")
        query(self.url, f"INSERT INTO users (id, name, email) VALUES ('u4', '{GONE}', '')")
        self.lake.run(self.blueprint_id)
        traces = list(TRACES if self.lake.has_org else TRACES[:-1])
        eventually(lambda: self._traces() == traces, 30)
        self._command("erase", fields["email"], "--yes", settings={"DB_URL": self.url})
        expect(self._traces(), [], "where something is left")
        self.lake.run(self.blueprint_id, skipCollectors=True)
        expect(self._traces(), [], "where something has come back")
        return "gone from " + ", ".join(traces)

    def _traces(self) -> list[str]:
        return [item for item in TRACES if GONE in str(query(self.url, f"SELECT * FROM {item}"))]

    def _restart(self) -> None:
        self.lake.stop()
        self.lake.start(self.plugins)
        expect(self.lake.asked_to_migrate, False, "asked to migrate again")
        expect(len(self.lake.get(f"{PLUGIN}/connections")), 2, "connections listed")

    def _delete_data(self) -> str:
        others = query(self.url, f"SELECT * FROM {RAW} WHERE connection_id = 2")
        eventually(lambda: count(self.url, MACHINES, 1), 30)
        self.lake.call("DELETE", f"{PLUGIN}/connections/1/scopes/all?delete_data_only=true")
        for table in (RAW, TOOL, MACHINES):
            expect(count(self.url, table, 1), 0, table)
        for table in ("accounts", "cicd_tasks"):
            expect(rows_of(self.url, table, 1), 0, table)
        [(links,)] = query(
            self.url, "SELECT COUNT(*) FROM user_accounts WHERE account_id LIKE '%:Account:1:%'"
        )
        expect(links, 0, "user_accounts")
        expect(query(self.url, f"SELECT * FROM {RAW} WHERE connection_id = 2"), others, "others")
        expect(self.receiver.send(report("ann"), 1, TOKEN).status_code, 200, "a report afterwards")
        return "raw reports, days, machines, accounts, their links"

    def _delete(self) -> None:
        path = f"{PLUGIN}/connections/1"
        self.lake.call("DELETE", path, status=409)  # the blueprint uses it
        self.lake.use(self.blueprint_id, (PLUGIN_NAME, 2, "all"))
        self.lake.call("DELETE", f"{path}/scopes/all")
        self.lake.call("DELETE", f"{path}/scope-configs/{self.config_id}")
        self.lake.call("DELETE", path)
        results = [item["name"] for item in self.lake.get(f"{PLUGIN}/connections")]
        expect(results, ["other"], "connections listed")
        eventually(lambda: self.receiver.send(report("ann"), 1, TOKEN).status_code == 404, 60)


def migrations_are_done(url: str) -> str:
    done = query(url, "SELECT script_version FROM _devlake_migration_history")
    versions = {int(row[0]) for row in done}
    missing = sorted(NAMES.keys() - versions)
    expect(missing, [], "migrations missing")
    return f"{len(NAMES)} migrations"
