"""Operate the receiver beside a genuine server that loads no Python plugin."""

from __future__ import annotations

import json
import subprocess
import time
from datetime import date, timedelta
from typing import Any

from conformance.dashboards import answers
from conformance.lake import Lake
from conformance.life import expect
from conformance.outcomes import LeftOut, Outcomes, Unmet
from developer_telemetry.constants import (
    MADE_LINK_TABLE,
    PROJECT_TABLE,
    RAW_TABLE,
    SCOPE_TABLE,
    TOOL_TABLE,
)
from tests.support.dashboard_answers import Chosen
from tests.support.receivers import DAY, Receiver, eventually, query, report, run_command

PROJECT = "p1"
MAPPING = ("cicd_scopes", "developer_telemetry:TelemetryScope:1:all")
ACCOUNT = "developer_telemetry:Account:{}:{}"
# DevLake's users, as (id, name, e-mail).
USERS = (
    ("u1", "Somebody", "ann.lee@example.com"),
    ("u2", "Bob Builder", ""),
    ("u3", "cem", ""),
    ("u4", "CEM", ""),
    ("u5", "Twin", ""),
    ("u6", "Twin", "twin@example.com"),
    ("u7", "Dana Both", "dana@example.com"),
    ("u8", "dana", ""),
)
# Accounts that match by exact texts, as in every release of DevLake's org plugin.
EXACT: dict[str, dict[str, str]] = {
    "bob": {"email": "bob@elsewhere.org", "name": "Bob Builder"},
    "cem": {},
    "CEM": {},
    "twin": {"name": "Twin"},
    "dana": {"email": "dana@example.com", "name": "Somebody"},
    "nobody": {"name": "Nobody"},
}
# Accounts that match without letter case, as in DevLake since August 2026.
FOLDED: dict[str, dict[str, str]] = {
    "dan": {"email": "Ann.Lee@Example.com"},
    "eve": {"name": "bob builder"},
}
# The longest time of a round (10 s) and the pause after a conversion (60 s).
CONVERTED_SECONDS = 100
# The receiver looks once a minute whether figures are due.
FIGURE_SECONDS = 200
METRICS = {
    "active_hours": 4,
    "tools_used": ["git"],
    "development_activity": {"test_runs_detected": 3, "build_commands_detected": 2},
}


def insert_users(url: str) -> None:
    rows = ", ".join(f"('{user}', '{name}', '{email}')" for user, name, email in USERS)
    query(url, f"INSERT INTO users (id, name, email) VALUES {rows}")


def links_of(url: str, connection_id: int) -> dict[str, str]:
    """Return the users of a connection's accounts by developer."""
    prefix = ACCOUNT.format(connection_id, "")
    results = query(
        url, f"SELECT account_id, user_id FROM user_accounts WHERE account_id LIKE '{prefix}%'"
    )
    return {account.removeprefix(prefix): user for account, user in results}


def require_plugins(lake: Lake) -> None:
    """Check for the Go plugins that projects need.

    :raises LeftOut: the server has them not.
    """
    names = {item["plugin"] for item in lake.get("/plugins")}
    if not {"org", "webhook"} <= names:
        raise LeftOut("GO_PLUGINS names no folder with the server's plugins org and webhook")


def add_webhook(lake: Lake, blueprint: dict[str, Any]) -> None:
    """Add a connection of another plugin to a blueprint."""
    made = lake.call("POST", "/plugins/webhook/connections", {"name": "hook"})
    own = {"pluginName": "webhook", "connectionId": made["id"], "scopes": []}
    used = [*(blueprint["connections"] or []), own]
    lake.call("PATCH", f"/blueprints/{blueprint['id']}", {"connections": used})


class Standalone:
    """One operator's life on a server that was started without remote plugins."""

    def __init__(self, lake: Lake, url: str, outcomes: Outcomes) -> None:
        self.lake = lake
        self.url = url
        self.outcomes = outcomes
        self.receiver = Receiver(url, lake.folder, TELEMETRY_STANDALONE="true")
        self.printed = ""
        self.token = ""
        self.began = 0.0
        self.blueprint_id = 0

    def live(self) -> None:
        """Do one thing after the other; each builds on those before it.

        :raises LeftOut: the server lacks what projects need.
        """
        require_plugins(self.lake)
        self.outcomes.run(
            "the server loads no Python plugin; the receiver makes its tables", self._begin
        )
        with self.receiver:
            self.outcomes.run("`connect` refuses an unknown project, and joins one", self._connect)
            self.outcomes.run("the `curl` line that it prints stores a report", self._push)
            self.outcomes.run("accounts are made and linked to DevLake's users", self._linked)
            self.outcomes.run(
                "a project's runs with another plugin leave our mapping there", self._run
            )
            self.outcomes.run(
                "the dashboards show the report under the project's filter", self._show
            )
            self.outcomes.run("an operator removes a link by hand", self._unlink)
            self.outcomes.run("a token is rotated and revoked", self._rotate)
            self.outcomes.run("`reextract` rebuilds all days from raw reports", self._reextract)
            self.outcomes.run("`doctor` and `status` find all in order", self._examine)
            self.outcomes.run(
                "the link stays removed after the next conversion", self._stays_unlinked
            )
            self.outcomes.run(
                "`connections delete` leaves no row, and takes no other", self._delete
            )

    def _command(self, *arguments: str, leaves: int = 0) -> str:
        """Return what a command prints that an operator runs beside the receiver."""
        settings = {"DB_URL": self.url, "DEVLAKE_URL": self.lake.url}
        settings["TELEMETRY_PUBLIC_URL"] = self.receiver.url
        done = run_command(self.lake.folder, *arguments, **settings)
        if done.returncode != leaves:
            raise Unmet(f"{' '.join(arguments)} left {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def _begin(self) -> None:
        names = {item["plugin"] for item in self.lake.get("/plugins")}
        expect("developer_telemetry" in names, False, "loaded")
        insert_users(self.url)

    def _connect(self) -> None:
        project = {"name": PROJECT, "description": "", "metrics": []}
        blueprint = self.lake.call("POST", "/projects", project)["blueprint"]
        self.blueprint_id = blueprint["id"]
        add_webhook(self.lake, blueprint)
        refused = self._command("connect", "fleet", "--project", "p2", leaves=2)
        expect("has no project 'p2'" in refused, True, refused)
        expect(query(self.url, f"SELECT * FROM {SCOPE_TABLE}"), [], "scopes after the refusal")
        options = ["--project", PROJECT, "--test-and-build-tasks"]
        self.printed = self._command("connect", "fleet", *options)
        again = self._command("connect", "fleet", *options)
        expect("curl" in again and "$TOKEN" in again, True, again)
        expect(self._mapped(), [MAPPING], "our rows of project_mapping")

    def _mapped(self) -> list[tuple[Any, ...]]:
        # `table` is reserved in MySQL, and quoted differently.
        results = query(
            self.url,
            f"SELECT * FROM project_mapping WHERE project_name = '{PROJECT}'"
            " AND row_id LIKE 'developer%'",
        )
        return [MAPPING for row in results if set(MAPPING) <= set(row)]

    def _push(self) -> str:
        # The other one fetches the collector.
        _, line = (line for line in self.printed.splitlines() if line.startswith("  curl "))
        # The receiver reads the new connection a little later.
        eventually(lambda: self._curl(line) == "200", 30)
        self.began = time.monotonic()
        self.token = line.partition("Bearer ")[2].partition("'")[0]
        for developer, fields in {**EXACT, **FOLDED}.items():
            for day in (DAY, _in_last_week()):
                body = report(developer, **{**fields, "date": day}, metrics=METRICS)
                expect(self.receiver.send(body, 1, self.token).status_code, 200, "a report")
        return "three commands: the receiver, `connect`, `curl`"

    def _curl(self, line: str) -> str:
        """Run a printed line in a shell and return the status of its answer."""
        told = f"{line.strip()} --silent --output /dev/null --write-out '%{{http_code}}'"
        return subprocess.run(told, shell=True, capture_output=True, text=True, timeout=60).stdout

    def _linked(self) -> str:
        wanted = {"ann.lee": "u1", "bob": "u2", "cem": "u3", "CEM": "u4", "dana": "u7"}
        wanted.update({"dan": "u1", "eve": "u2"})

        def linked() -> bool:
            # Of users with the same name the last one in the table's order counts.
            links = links_of(self.url, 1)
            return links.pop("twin", "") in ("u5", "u6") and links == wanted

        try:
            eventually(linked, CONVERTED_SECONDS)
        except AssertionError:
            raise Unmet(f"links: {links_of(self.url, 1)}, not {wanted}") from None
        seconds = time.monotonic() - self.began
        [(tasks,)] = query(self.url, "SELECT COUNT(*) FROM cicd_tasks")
        expect(tasks > 0, True, "tasks")
        return f"linked {seconds:.0f} s after the first report"

    def _run(self) -> str:
        for _ in range(2):
            self.lake.run(self.blueprint_id)
        began = time.monotonic()
        eventually(lambda: self._mapped() == [MAPPING], 30)
        expect(self._count_others() > 0, True, "rows of the other plugin")
        return f"there again after {time.monotonic() - began:.0f} s"

    def _count_others(self) -> int:
        [(number,)] = query(
            self.url, "SELECT COUNT(*) FROM project_mapping WHERE row_id LIKE 'webhook%'"
        )
        return int(number)

    def _show(self) -> str:
        # Another smallest group makes the receiver compute all figures at once.
        self._command("connections", "set", "fleet", "--smallest-group", "1")
        figures = "SELECT * FROM telemetry_weeks WHERE grouped_by = 'project'"
        eventually(lambda: query(self.url, figures) != [], FIGURE_SECONDS)
        shown = answers(self.url, Chosen(project=[PROJECT], group=f"project {PROJECT}"))
        expect(shown, answers(self.url, Chosen(connection=[1])), "what the project shows")
        none = answers(self.url, Chosen(project=["p2"], group="project p2"))
        differing = [title for title in shown if shown[title] != none[title]]
        expect(len(differing) > 10, True, f"panels that show it: {differing}")
        return f"{len(shown)} queries"

    def _unlink(self) -> None:
        account = ACCOUNT.format(1, "bob")
        query(self.url, f"DELETE FROM user_accounts WHERE account_id = '{account}'")
        body = report("late", email="twin@example.com", metrics=METRICS)
        expect(self.receiver.send(body, 1, self.token).status_code, 200, "a report")

    def _stays_unlinked(self) -> None:
        # By then the receiver has converted again.
        eventually(lambda: links_of(self.url, 1).get("late") == "u6", CONVERTED_SECONDS)
        expect("bob" in links_of(self.url, 1), False, "the link is there again")

    def _rotate(self) -> None:
        first = self.token
        printed = self._command("token", "rotate", "fleet", "--keep-old", "1h", "--json")
        self.token = json.loads(printed)["token"]
        for token in (first, self.token):
            eventually(lambda token=token: self._answer(token) == 200, 30)  # type: ignore[misc]
        self._command("token", "revoke", "fleet", "--previous", "--yes")
        eventually(lambda: self._answer(first) == 401, 30)
        expect(self._answer(self.token), 200, "the new token's answer")

    def _answer(self, token: str) -> int:
        return self.receiver.send(report("cem", metrics=METRICS), 1, token).status_code

    def _reextract(self) -> None:
        days = f"SELECT developer_id, date, builds, email FROM {TOOL_TABLE} ORDER BY 1, 2"
        right = query(self.url, days)
        query(self.url, f"UPDATE {TOOL_TABLE} SET email = 'spoilt', builds = 99")
        self._command("reextract")
        expect(query(self.url, days), right, "the days")

    def _examine(self) -> str:
        checks = json.loads(self._command("doctor", "--json"))["checks"]
        amiss = {item["name"]: item for item in checks if item["state"] != "ok"}
        expect(amiss, {}, "what is amiss")
        status = self._command("status")
        expect("the receiver (standalone)" in status, True, status)
        return f"{len(checks)} checks are ok"

    def _delete(self) -> None:
        expect(query(self.url, f"SELECT * FROM {PROJECT_TABLE}") != [], True, "a project's record")
        others = self._count_others()
        # A receiver takes a table without any connection for a restore that is under way.
        self._command("connect", "other")
        self._command("connections", "delete", "fleet", "--yes")
        for table in (RAW_TABLE, TOOL_TABLE, SCOPE_TABLE, PROJECT_TABLE, MADE_LINK_TABLE):
            left = query(self.url, f"SELECT * FROM {table} WHERE connection_id = 1")
            expect(left, [], table)
        for table in ("accounts", "user_accounts", "cicd_tasks", "cicd_scopes", "project_mapping"):
            left = [row for row in query(self.url, f"SELECT * FROM {table}") if _is_ours(row)]
            expect(left, [], table)
        expect(self._count_others(), others, "rows of the other plugin")
        eventually(lambda: self._answer(self.token) == 404, 30)


def _in_last_week() -> str:
    """Return a day of the last complete week, since running weeks are not shown."""
    today = date.today()
    return str(today - timedelta(days=today.weekday() + 4))


def _is_ours(row: tuple[Any, ...]) -> bool:
    return "developer_telemetry" in str(row)
