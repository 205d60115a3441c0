"""Upgrade DevLake on a database with rows, and downgrade it, while machines report."""

from __future__ import annotations

import json
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple, Optional

from conformance.devlakes import DevLake
from conformance.fleet import TOKEN, Fleet, count
from conformance.life import PLUGIN, PLUGIN_NAME, expect
from conformance.outcomes import Outcomes, Unmet
from developer_telemetry.connections.crypto import decrypt, is_cbc
from developer_telemetry.constants import RAW_TABLE as RAW
from tests.support.receivers import SECRET, Receiver, eventually, query, report, run_command

REPORT = PLUGIN + "/connections/{}/report"
KEY_REPORT = "/rest" + REPORT
TABLE = "_tool_developer_telemetry_connections"
# The number of acknowledged reports after which a step counts as passed.
MORE = 20


class Installed(NamedTuple):
    """A DevLake and its REMOTE_PLUGIN_DIR."""

    devlake: DevLake
    plugins: Path


class Upgrade:
    """One database that the older server has first, then the newer, then the older again."""

    def __init__(
        self, older: Installed, newer: Installed, url: str, folder: Path, outcomes: Outcomes
    ) -> None:
        folder.mkdir()
        self.url = url
        self.folder = folder
        self.outcomes = outcomes
        self.plugins = {"older": older.plugins, "newer": newer.plugins}
        self.lakes = {
            name: item.devlake.server(url, folder / name)
            for name, item in (("older", older), ("newer", newer))
        }
        self.lake = self.lakes["older"]
        self.receiver = Receiver(url, folder)
        self.tokens = {1: TOKEN, 2: TOKEN}
        self.key = ""
        self.blueprint_id = 0

    def live(self) -> None:
        """Do one thing after the other; each builds on those before it."""
        with closing(self.lakes["older"]), closing(self.lakes["newer"]):
            self.lake.start(self.plugins["older"])
            self._try("the older DevLake has two connections, a project and an API key", self._use)
            with self.receiver, Fleet(self.url, self.receiver, 1) as fleet:
                self.fleet = fleet
                self._try("its blueprint runs", self._run)
                self._try("the newer one starts on its database", partial(self._change, "newer"))
                self._try("its blueprint runs again, and as a full sync", self._run_twice)
                self._try("a connection is changed through its API", self._patch)
                self._try("a connection is renamed by the command", self._rename)
                self._try("a token is rotated; both are taken", self._rotate)
                self._try("the older one starts again", partial(self._change, "older"))
                self._try("`token rewrite` lets it list its connections again", self._rewrite)
                self._try(
                    "a blueprint runs on it, and a connection is changed", self._run_and_change
                )
                self._try("the newer one starts once more", partial(self._change, "newer"))
                self._try("a token is rotated and the old one revoked", self._revoke)
            self._try("no report was lost, refused or stored twice", self._compare_stored)

    def _try(self, what: str, step: Callable[[], Optional[str]]) -> None:
        """Run a step; then reports of all connections must still be accepted."""
        with self.outcomes.record_outcome(what) as remarks:
            remark = step()
            if remark:
                remarks.append(remark)
            if self.receiver.running:
                self._reports_go_on()

    def _reports_go_on(self) -> None:
        wanted = self.fleet.acknowledged + MORE
        eventually(lambda: self.fleet.acknowledged >= wanted, 60)
        expect(self.fleet.refused[-1:], [], "a report that was refused")
        for number, token in self.tokens.items():
            expect(self._answer(number, token), 200, f"a report to connection {number}")
        expect(self._answer(2, self.key, KEY_REPORT), 200, "a report with the API key")
        expect(self._answer(1, "wrong"), 401, "a report with a wrong token")

    def _answer(self, number: int, token: str, path: str = REPORT) -> int:
        return self.receiver.send(report("eve"), number, token, path=path).status_code

    def _use(self) -> str:
        fleet = {"name": "fleet", "endpoint": "http://x", "secretToken": TOKEN}
        for number, name in ((1, "fleet"), (2, "other")):
            made = self.lake.call("POST", f"{PLUGIN}/connections", {**fleet, "name": name})
            expect(made["id"], number, f"the id of {name}")
            path = f"{PLUGIN}/connections/{number}"
            [group] = self.lake.get(f"{path}/remote-scopes")["children"]
            [scope] = self.lake.get(f"{path}/remote-scopes?groupId={group['id']}")["children"]
            self.lake.call("PUT", f"{path}/scopes", {"data": [scope["data"]]})
        if not self.lake.has_org:
            wanted = {"name": "c", "connectionId": 1, "entities": ["CROSS"]}
            config = {**wanted, "keepAccountsUnlinked": True}
            made = self.lake.call("POST", f"{PLUGIN}/connections/1/scope-configs", config)
            path = f"{PLUGIN}/connections/1/scopes/all"
            self.lake.call("PATCH", path, {"scopeConfigId": made["id"]})
        allowed = {"name": "k", "type": "devlake", "allowedPath": f"{PLUGIN}/connections/2/.*"}
        self.key = self.lake.call("POST", "/api-keys", allowed)["apiKey"]
        self.blueprint_id = self.lake.blueprint((PLUGIN_NAME, 1, "all"))
        return f"secrets as {self._formats()}"

    def _run(self) -> None:
        self.lake.run(self.blueprint_id)

    def _run_twice(self) -> None:
        self._run()
        self.lake.run(self.blueprint_id, fullSync=True)
        [(days,)] = query(
            self.url, "SELECT COUNT(*) FROM _tool_developer_metrics WHERE connection_id = 1"
        )
        expect(days > 0, True, "days")

    def _change(self, name: str) -> str:
        """Stop one server and start the other; return its API's answer about connections."""
        self.lake.stop()
        self.lake = self.lakes[name]
        self.lake.start(self.plugins[name])
        asked = "asks before it migrates" if self.lake.asked_to_migrate else "answers at once"
        return f"{asked}; {self._listed()}"

    def _listed(self) -> str:
        try:
            results = self.lake.get(f"{PLUGIN}/connections")
        except Unmet:
            return "lists no connection: it can't read what the newer one has saved"
        return f"lists {len(results)} connections"

    def _patch(self) -> str:
        self.lake.call("PATCH", f"{PLUGIN}/connections/1", {"duplicateStrategy": "sum"})
        expect(self._stored(1), TOKEN, "the token, decrypted")
        return f"secrets as {self._formats()}"

    def _rename(self) -> None:
        self._command("connections", "rename", "other", "others")
        expect(self._stored(2), TOKEN, "the token, decrypted")

    def _rotate(self) -> None:
        message = self._command("token", "rotate", "others", "--keep-old", "1h", "--json")
        old, self.tokens[2] = self.tokens[2], json.loads(message)["token"]
        expect(self._stored(2), self.tokens[2], "the token, decrypted")
        for token in (old, self.tokens[2]):
            eventually(lambda token=token: self._answer(2, token) == 200, 30)  # type: ignore[misc]

    def _rewrite(self) -> str:
        before = self._formats()
        message = self._command("token", "rewrite", settings={"DB_URL": self.url})
        names = {item["name"] for item in self.lake.get(f"{PLUGIN}/connections")}
        expect(names, {"fleet", "others"}, f"connections listed after {message!r}")
        return f"secrets as {before}, then as {self._formats()}"

    def _run_and_change(self) -> str:
        before = self._projects()
        self._run()
        self.lake.call("PATCH", f"{PLUGIN}/connections/2", {"duplicateStrategy": "sum"})
        expect(self._stored(2), self.tokens[2], "the token, decrypted")
        return f"{before} before the run, {self._projects()} after it"

    def _projects(self) -> str:
        """Describe the API's list of projects, which reads each project's last pipeline."""
        try:
            return f"{len(self.lake.get('/projects')['projects'])} projects listed"
        except Unmet:
            return "no projects listed (500)"

    def _revoke(self) -> None:
        old = self.tokens[2]
        message = self._command("token", "rotate", "others", "--json")
        self.tokens[2] = json.loads(message)["token"]
        eventually(lambda: self._answer(2, self.tokens[2]) == 200, 30)
        eventually(lambda: self._answer(2, old) == 401, 30)

    def _compare_stored(self) -> str:
        expect(self.fleet.refused, [], "refused")
        expect(self.fleet.lost, False, "fewer raw rows than before at any moment")
        others = f"SELECT COUNT(*) FROM {RAW} WHERE connection_id = 1 AND developer_id = 'eve'"
        [(eves,)] = query(self.url, others)
        expect(count(self.url, RAW, 1) - eves, self.fleet.acknowledged, "raw rows")
        return f"{self.fleet.acknowledged} reports"

    def _stored(self, number: int) -> str:
        [(stored,)] = query(self.url, f"SELECT secret_token FROM {TABLE} WHERE id = {number}")
        return decrypt(stored, SECRET)

    def _formats(self) -> str:
        """Return how the tokens are encrypted."""
        results = query(self.url, f"SELECT secret_token FROM {TABLE} ORDER BY id")
        return ", ".join(_format(stored) for (stored,) in results)

    def _command(self, *arguments: str, settings: Optional[dict[str, str]] = None) -> str:
        settings = settings or {"DEVLAKE_URL": self.lake.url}
        done = run_command(self.folder, *arguments, **settings)
        if done.returncode != 0:
            message = f"{' '.join(arguments)}: {done.stdout} {done.stderr}"
            raise Unmet(f"{message} The server's log: {self.lake.complaints()}")
        return done.stdout


def _format(stored: str) -> str:
    return "AES-CBC" if is_cbc(stored, SECRET) else "AES-GCM"
