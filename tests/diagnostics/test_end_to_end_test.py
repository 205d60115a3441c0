"""`send-test` takes the whole way of a report and leaves nothing, wherever the way ends."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import pytest
from sqlalchemy.engine import Engine
from typer.testing import CliRunner

from developer_telemetry.cli.main import app
from developer_telemetry.constants import (
    ACCOUNT_TABLE,
    CONNECTION_TABLE,
    MACHINE_TABLE,
    RAW_TABLE,
    TOOL_TABLE,
)
from developer_telemetry.database.advisory_lock import hold_connection
from developer_telemetry.diagnostics.end_to_end_test import DEVELOPER
from tests.support.nginx import Echo
from tests.support.receivers import (
    SECRET,
    Altered,
    add_connection,
    eventually,
    query,
    report,
)
from tests.support.servers import HOST, free_port

TABLES = (RAW_TABLE, TOOL_TABLE, MACHINE_TABLE, ACCOUNT_TABLE)


class Prompt(Altered):
    """Counts machines at once, and looks for its database twenty times a second."""

    constants = {
        "receiver.jobs.monitor.ROUND_SECONDS": 0.1,
        "receiver.jobs.spool_drainer.PAUSE_SECONDS": 0.05,
    }


class Place:
    """A receiver, its database with one connection, and an operator's shell."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.receiver = Prompt(url, folder)
        self.settings = {
            "DB_URL": url,
            "ENCRYPTION_SECRET": SECRET,
            "TELEMETRY_PORT": str(self.receiver.port),
            "TELEMETRY_SPOOL_DIR": str(folder / f"spool-{self.receiver.port}"),
        }

    def run(self, *arguments: str, **settings: str) -> Any:
        return CliRunner().invoke(app, [*arguments], env={**self.settings, **settings})

    def steps(self, *arguments: str, leaves: int = 0, **settings: str) -> list[dict[str, Any]]:
        """Return what `send-test` says, having left with this status."""
        done = self.run("send-test", *arguments, "--json", **settings)
        assert done.exit_code == leaves, done.output
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def rows(self) -> dict[str, int]:
        return {table: query(self.url, f"SELECT COUNT(*) FROM {table}")[0][0] for table in TABLES}

    def is_empty(self) -> bool:
        return set(self.rows().values()) == {0}

    @contextmanager
    def without(self, *tables: str) -> Iterator[None]:
        for table in tables:
            query(self.url, f"ALTER TABLE {table} RENAME TO away{table}")
        try:
            yield
        finally:
            for table in tables:
                query(self.url, f"ALTER TABLE away{table} RENAME TO {table}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    place = Place(f"sqlite:///{folder}/telemetry.db", folder)
    with place.receiver:
        yield place


def names(steps: list[dict[str, Any]]) -> list[str]:
    return [each["name"] for each in steps]


def test_the_report_goes_all_the_way_and_nothing_of_it_stays(
    migrated_url: str, tmp_path: Path
) -> None:
    place = Place(migrated_url, tmp_path)
    number = add_connection(migrated_url)
    with place.receiver as receiver:
        assert receiver.send(report("ann"), number).status_code == 200
        # The receiver writes the machine and the account of a report later.
        eventually(lambda: set(place.rows().values()) == {1}, seconds=10)
        before = place.rows()

        steps = place.steps("--connection", str(number))

    assert names(steps) == ["sent", "raw layer", "tool layer", "machines", "removed"]
    assert all(each["passed"] for each in steps)
    assert f"/plugins/developer-telemetry/{number}/report answered 200" in steps[0]["message"]
    assert place.rows() == before
    for table in (RAW_TABLE, TOOL_TABLE, MACHINE_TABLE):
        assert f"1 from {table}" in steps[-1]["message"]


def test_only_the_spool_took_it_and_the_next_one_clears_what_came_of_it(place: Place) -> None:
    with place.without(TOOL_TABLE):
        steps = place.steps(leaves=1)
        assert names(steps) == ["sent", "spool"]
        assert re.search(r"only the spool of receiver .* \(no such table", steps[1]["message"])
        assert "1 reports wait there" in steps[1]["message"]
    eventually(lambda: place.rows()[MACHINE_TABLE] == 1, seconds=15)
    # A run makes an account of it.
    assert place.run("reextract").exit_code == 0
    assert query(place.url, f"SELECT user_name FROM {ACCOUNT_TABLE}") == [(DEVELOPER,)]

    again = place.steps()

    assert again[0] == {
        "name": "earlier",
        "passed": True,
        "message": "removed 1 earlier test reports",
    }
    assert place.is_empty()


def test_with_no_database_at_all_it_is_sent_by_what_the_receiver_remembers(place: Place) -> None:
    with place.without(RAW_TABLE, CONNECTION_TABLE):
        steps = place.steps(leaves=1)
        assert names(steps) == ["database", "sent", "spool"]
        assert [each["passed"] for each in steps] == [False, True, False]
        assert "no such table" in steps[0]["message"]

    eventually(lambda: place.rows()[MACHINE_TABLE] == 1, seconds=15)
    place.steps()
    assert place.is_empty()


def test_a_run_that_goes_on_keeps_it_from_being_removed(
    place: Place, opened: Callable[[str], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("developer_telemetry.diagnostics.end_to_end_test.REMOVAL_SECONDS", 0.1)
    with hold_connection(opened(place.url), 1):
        steps = place.steps(leaves=1)
    assert names(steps)[-1] == "removed"
    assert "another run, prune or erase of connection 1 is going on" in steps[-1]["message"]
    assert place.rows()[RAW_TABLE] == 1

    with hold_connection(opened(place.url), 1):
        steps = place.steps(leaves=1)
    assert [each["name"] for each in steps if not each["passed"]] == ["earlier", "removed"]
    assert place.rows()[RAW_TABLE] == 2

    assert names(place.steps())[0] == "earlier"
    assert place.is_empty()


def test_behind_a_pseudonym_it_is_found_and_removed_all_the_same(
    place: Place, opened: Callable[[str], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = f"UPDATE {CONNECTION_TABLE} SET pseudonyms = "
    query(place.url, f"{switch} TRUE")
    try:
        # A receiver knows of it within seconds.
        eventually(lambda: _goes_by_a_pseudonym(place, opened(place.url), monkeypatch), seconds=10)
        assert names(place.steps())[0] == "earlier"
    finally:
        query(place.url, f"{switch} FALSE")
    assert place.is_empty()


def _goes_by_a_pseudonym(place: Place, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> bool:
    with monkeypatch.context() as patched, hold_connection(engine, 1):
        patched.setattr("developer_telemetry.diagnostics.end_to_end_test.REMOVAL_SECONDS", 0)
        steps = place.steps(leaves=1)
    assert names(steps)[-1] == "removed"
    developers = {row[0] for row in query(place.url, f"SELECT developer_id FROM {RAW_TABLE}")}
    return any(each.startswith("dev-") for each in developers)


def test_what_answers_instead_is_said(place: Place) -> None:
    nobody = f"http://{HOST}:{free_port()}"
    [sent] = place.steps("--url", nobody, leaves=1)
    assert sent["message"].startswith(f"{nobody}/plugins/developer-telemetry/1/report: ")

    with Echo("somebody else") as echo:
        [sent] = place.steps("--url", f"http://{HOST}:{echo.port}", leaves=1)
    assert "200, but not as a receiver answers" in sent["message"]

    [sent] = place.steps("--url", f"{place.receiver.url}/nowhere", leaves=1)
    assert "404 (no such path" in sent["message"]
    assert "the front proxy doesn't send this address to the receiver" in sent["message"]
    assert place.is_empty()


def test_another_database_is_said(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("developer_telemetry.diagnostics.end_to_end_test.STORED_SECONDS", 0.5)
    shutil.copy(place.folder / "telemetry.db", tmp_path)

    steps = place.steps(leaves=1, DB_URL=f"sqlite:///{tmp_path}/telemetry.db")

    assert names(steps) == ["sent", "raw layer"]
    assert "the receiver uses another database; compare DB_URL" in steps[1]["message"]
    place.steps()
    assert place.is_empty()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM {}", "there is no connection"),
        ("UPDATE {} SET secret_token = 'bm90IG91cnM='", "connection 1 can't be used; its secret"),
        ("INSERT INTO {} (name) VALUES ('second')", r"several connections; name one of 1 \(defa"),
    ],
)
def test_which_connection_is_meant_has_to_be_clear(
    place: Place, tmp_path: Path, statement: str, message: str
) -> None:
    shutil.copy(place.folder / "telemetry.db", tmp_path)
    url = f"sqlite:///{tmp_path}/telemetry.db"
    query(url, statement.format(CONNECTION_TABLE))

    done = place.run("send-test", DB_URL=url)

    assert done.exit_code == 2
    assert re.search(message, done.stderr)


def test_the_steps_are_lines_for_people(place: Place) -> None:
    first, *_, last = place.run("send-test").stdout.splitlines()

    assert first.startswith("ok       sent         http://127.0.0.1:")
    assert last.startswith("ok       removed      1 from _tool_developer_metrics, 1 from _raw")
