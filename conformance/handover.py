"""Hand a genuine server's database over from the plugin to the receiver, and back."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from conformance.dashboards import answers
from conformance.lake import Lake
from conformance.life import expect, migrations_are_done
from conformance.outcomes import Outcomes, Unmet
from conformance.standalone import (
    ACCOUNT,
    CONVERTED_SECONDS,
    EXACT,
    FOLDED,
    METRICS,
    PROJECT,
    add_webhook,
    insert_users,
    links_of,
    require_plugins,
)
from developer_telemetry.constants import RAW_TABLE, RUN_TABLE, TOOL_TABLE
from developer_telemetry.database.engine import open_engine
from developer_telemetry.pipeline.figure_refresh import refresh_figures
from developer_telemetry.reports.daily_metrics import build_raw_params
from developer_telemetry.storage.statistics import count_machines
from tests.support.dashboard_answers import Chosen
from tests.support.receivers import Receiver, eventually, query, report, run_command

PEOPLE = 1000
FIRST_DAY = date(2026, 7, 20)
# Imported in one go: a command of the tests has a minute.
IMPORTED = 20_000
# The tables whose rows of connection 1 have to stay, and the condition that selects them.
CONNECTION = "connection_id = 1"
ORIGIN = f"_raw_data_params = '{build_raw_params(1)}'"
STAYING = {
    RAW_TABLE: CONNECTION,
    TOOL_TABLE: CONNECTION,
    RUN_TABLE: CONNECTION,
    "accounts": ORIGIN,
    "user_accounts": ORIGIN,
    "cicd_tasks": ORIGIN,
}
# What the time changes, and the reports of new people in connection 2.
CHANGED_PANELS = (
    "Figures Computed",
    "Linking Quality",
    "Days from First Report to First Merged Pull Request by Quarter",
)
Snapshot = dict[str, tuple[int, str]]


class HandOver:
    """One database that the server has with the plugin, then without it, then with it again."""

    def __init__(
        self,
        with_plugin: Lake,
        without: Lake,
        plugins: Path,
        url: str,
        outcomes: Outcomes,
        rows: int,
    ) -> None:
        """Take two servers of the same database; one of them is set to load no remote plugin."""
        self.with_plugin = with_plugin
        self.without = without
        self.plugins = plugins
        self.lake = with_plugin
        self.url = url
        self.outcomes = outcomes
        self.rows = rows
        self.blueprint_id = 0
        self.token = ""
        self.before: Snapshot = {}

    def live(self) -> None:
        """Do one thing after the other; each builds on those before it.

        :raises LeftOut: the server lacks what projects need.
        """
        self.lake.start(self.plugins)
        require_plugins(self.lake)
        self.outcomes.run("the plugin has converted the reports of a project", self._convert)
        self.outcomes.run("the server is not handed over while it loads the plugin", self._refuse)
        self.outcomes.run("the server starts without Python plugins", self._start_without)
        self.outcomes.run("`migrate --standalone` hands over", self._hand_over)
        # The newest of the reports is older than the days after which machines are retired.
        settings = {"TELEMETRY_STANDALONE": "true", "TELEMETRY_RETIRE_DAYS": "0"}
        with Receiver(self.url, self.lake.folder, **settings) as receiver:
            self.receiver = receiver
            self.outcomes.run("new reports arrive, and the receiver converts them", self._push)
            self.outcomes.run(
                "it links accounts as the server's org plugin does", self._compare_links
            )
            self.outcomes.run("`doctor` finds all in order", self._examine)
            self.outcomes.run("the project's blueprint runs without the plugin", self._run)
            self.outcomes.run("no row and no dashboard differs", self._compare)
        self.outcomes.run("`migrate --hand-back` lets the server do it again", self._hand_back)
        self.outcomes.run("its blueprint runs with the plugin", self._run)
        self.outcomes.run("still no row and no dashboard differs", self._compare)

    def _command(self, *arguments: str, leaves: int = 0, **settings: str) -> str:
        """Return what a command prints that an operator types."""
        own = {"DB_URL": self.url, "DEVLAKE_URL": self.lake.url, **settings}
        done = run_command(self.lake.folder, *arguments, **own)
        if done.returncode != leaves:
            raise Unmet(f"{' '.join(arguments)} left {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def _convert(self) -> str:
        self._command("connect", "fleet", "--project", PROJECT, "--test-and-build-tasks")
        # The genuine SDK makes its table in the first run, which fails if two connections do so.
        [blueprint] = self.lake.get("/blueprints")["blueprints"]
        self.lake.run(blueprint["id"])
        printed = self._command("connect", "other", "--project", PROJECT, "--json")
        self.token = json.loads(printed)["token"]
        [blueprint] = self.lake.get("/blueprints")["blueprints"]
        self.blueprint_id = blueprint["id"]
        add_webhook(self.lake, blueprint)
        insert_users(self.url)
        users = ", ".join(
            f"('p{number}', '', '{_person(number)}@example.org')" for number in range(0, PEOPLE, 2)
        )
        query(self.url, f"INSERT INTO users (id, name, email) VALUES {users}")
        self._import()
        began = time.monotonic()
        self.lake.run(self.blueprint_id)
        seconds = time.monotonic() - began
        links = links_of(self.url, 1)
        expect(len(links) >= PEOPLE // 2, True, f"links: {len(links)}")
        self.before = self._snapshot()
        rows, _ = self.before[RAW_TABLE]
        return f"{rows} reports, {len(links)} links; the blueprint took {seconds:.0f} s"

    def _import(self) -> None:
        position = self.lake.folder / "reports.ndjson"
        lines = self._lines()
        while batch := list(islice(lines, IMPORTED)):
            position.write_text("\n".join(batch) + "\n")
            self._command("import", str(position), "--connection", "1")

    def _lines(self) -> Iterator[str]:
        # Without `FOLDED`: the receiver links these people, the server's plugin may not.
        for developer, fields in EXACT.items():
            yield json.dumps(report(developer, **fields, metrics=METRICS))
        activity = {"active_hours": 6, "tools_used": ["git", "vim"], "projects": ["shop", "bank"]}
        for number in range(self.rows - len(EXACT)):
            person, day = _person(number % PEOPLE), FIRST_DAY + timedelta(number // PEOPLE)
            metrics = {**activity, "active_hours": number % 9, "commands": {"make": number % 7}}
            if number % 50 == 0:
                metrics.update(METRICS)
            body = report(person, email=f"{person}@example.org", date=str(day), metrics=metrics)
            yield json.dumps(body)

    def _snapshot(self) -> Snapshot:
        self._count()
        rows = {
            table: query(self.url, f"SELECT * FROM {table} WHERE {condition}")
            for table, condition in STAYING.items()
        }
        rows["project_mapping"] = query(self.url, _mapping())
        chosen = Chosen(connection=[1], project=[PROJECT])
        panels = {
            name: shown
            for name, shown in answers(self.url, chosen).items()
            if not name.endswith(CHANGED_PANELS)
        }
        return {name: _digest(item) for name, item in {**rows, **panels}.items()}

    def _count(self) -> None:
        """Count what a receiver counts for the dashboards: one runs only in between."""
        engine = open_engine(self.url)
        count_machines(engine, 0)
        for _ in refresh_figures(engine, date.today()):
            pass
        engine.dispose()

    def _compare(self) -> str:
        expect(bool(self.before), True, "something to compare with")
        after = self._snapshot()
        differing = [name for name in self.before if after[name] != self.before[name]]
        expect(differing, [], "what differs")
        counts = ", ".join(f"{after[name][0]} of {name}" for name in STAYING)
        return f"{counts}; {len(after) - len(STAYING) - 1} queries"

    def _refuse(self) -> None:
        refused = self._command("migrate", "--standalone", leaves=2)
        expect("loads the plugin" in refused, True, refused)

    def _start_without(self) -> str:
        self.lake.stop()
        self.lake = self.without
        self.lake.start(self.plugins)
        names = {item["plugin"] for item in self.lake.get("/plugins")}
        expect("developer_telemetry" in names, False, "loaded")
        expect(len(self.lake.get("/projects")["projects"]), 1, "projects listed")
        try:
            self.lake.run(self.blueprint_id)
        except Unmet as reason:
            # Whatever it says around that, and on one line.
            why = str(reason).partition("Wraps: (2) ")[2].partition("\\n")[0]
            return f"its blueprint does not run now: {why or reason}"
        return "its blueprint runs"

    def _hand_over(self) -> str:
        printed = self._command("migrate", "--standalone")
        told = self.lake.get(f"/blueprints/{self.blueprint_id}")["connections"]
        expect([item["pluginName"] for item in told], ["webhook"], "the blueprint's plugins")
        expect(printed.count(f"stays in project {PROJECT}"), 2, f"connections in {printed!r}")
        self._compare()
        return "our connections leave the blueprint, and stay in its project"

    def _push(self) -> str:
        began = time.monotonic()
        for developer, fields in {**EXACT, **FOLDED}.items():
            # Figures of groups are of complete weeks, so that a report of today changes none.
            today = {**fields, "date": str(date.today())}
            body = report(developer, **today, metrics=METRICS)
            expect(self.receiver.send(body, 2, self.token).status_code, 200, "a report")
        wanted = set(EXACT) | set(FOLDED)
        prefix = ACCOUNT.format(2, "")
        accounts = f"SELECT id FROM accounts WHERE id LIKE '{prefix}%'"

        def made() -> bool:
            rows = query(self.url, accounts)
            return {row[0].removeprefix(prefix) for row in rows} == wanted

        eventually(made, CONVERTED_SECONDS)
        return f"accounts after {time.monotonic() - began:.0f} s"

    def _compare_links(self) -> str:
        """Compare the links of the receiver with those of the org plugin for the same data."""
        theirs = {who: user for who, user in links_of(self.url, 1).items() if who in EXACT}
        expect(sorted(theirs), ["CEM", "bob", "cem", "dana", "twin"], "what org has linked")
        eventually(lambda: set(links_of(self.url, 2)) >= set(FOLDED), 30)
        ours = links_of(self.url, 2)
        folded = {who: ours.pop(who) for who in FOLDED}
        expect(ours, theirs, "links")
        expect(folded, {"dan": "u1", "eve": "u2"}, "links by texts that differ by case")
        expect(self._origins(2), self._origins(1), "the origin of links")
        return "and those whose texts differ by case alone, as newer releases of it do"

    def _origins(self, connection_id: int) -> list[tuple[Any, ...]]:
        return query(
            self.url,
            "SELECT DISTINCT _raw_data_table, _raw_data_remark FROM user_accounts"
            f" WHERE _raw_data_params = '{build_raw_params(connection_id)}'",
        )

    def _examine(self) -> str:
        public = self.receiver.url
        printed = self._command("doctor", "--json", TELEMETRY_PUBLIC_URL=public)
        checks = json.loads(printed)["checks"]
        amiss = {item["name"]: item for item in checks if item["state"] != "ok"}
        expect(amiss, {}, "what is amiss")
        return f"{len(checks)} checks are ok"

    def _run(self) -> None:
        self.lake.run(self.blueprint_id)
        # The receiver writes our rows of the project's mapping again, or the blueprint did.
        eventually(lambda: len(query(self.url, _mapping())) == 2, 30)

    def _hand_back(self) -> str:
        self.lake.stop()
        self.lake = self.with_plugin
        self.lake.start(self.plugins)
        expect(self.lake.asked_to_migrate, False, "asked to migrate")
        migrations_are_done(self.url)
        printed = self._command("migrate", "--hand-back")
        commands = [line for line in printed.splitlines() if "developer-telemetry connect" in line]
        expect(len(commands), 2, f"commands in {printed!r}")
        for line in commands:
            _, _, command = line.partition("developer-telemetry ")
            self._command(*shlex.split(command))
        told = self.lake.get(f"/blueprints/{self.blueprint_id}")["connections"]
        plugins = sorted(item["pluginName"] for item in told)
        expect(plugins, ["developer_telemetry", "developer_telemetry", "webhook"], "its plugins")
        return "without a migration; two commands as printed"


def _person(number: int) -> str:
    return f"person-{number}"


def _mapping() -> str:
    return "SELECT project_name, row_id FROM project_mapping WHERE row_id LIKE 'developer%'"


def _digest(rows: list[tuple[Any, ...]]) -> tuple[int, str]:
    """Return the number of rows, and a hash of them in any order."""
    digests = sorted(hashlib.sha256(repr(row).encode()).digest() for row in rows)
    return len(rows), hashlib.sha256(b"".join(digests)).hexdigest()
