"""Test the commands about machines, and that a retired machine is nowhere quiet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from developer_telemetry.cli.main import app
from developer_telemetry.connections.registry import create
from developer_telemetry.database.engine import open_engine
from developer_telemetry.database.migrate import migrate
from developer_telemetry.storage.fleet.refused_machines import RefusalDetails
from developer_telemetry.storage.statistics import ReportCounts
from tests.support.fleets import add_machines
from tests.support.receivers import SECRET


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """A fleet with two machines of ann, of which one is quiet, and a refused machine."""
    url = f"sqlite:///{tmp_path}/telemetry.db"
    engine = open_engine(url)
    migrate(engine)
    number = create(engine, SECRET, "fleet", "token")
    add_machines(engine, [("ann", "desk", 1), ("ann", "old", 200), ("bob", "desk", 2)], number)
    counts = ReportCounts()
    sender = RefusalDetails("cid", "desk", "192.0.2.1", "collector/1", "date: missing")
    for _ in range(2):
        counts.refused(number, "date", sender)
    counts.flush(engine)
    engine.dispose()
    return {"DB_URL": url, "ENCRYPTION_SECRET": SECRET}


def run(settings: dict[str, str], *arguments: str, exit_code: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments), env=settings)
    assert done.exit_code == exit_code, done.output
    return done.output


def test_a_machine_is_listed_retired_and_restored(settings: dict[str, str]) -> None:
    def quiet() -> list[str]:
        [status] = json.loads(run(settings, "status", "--json"))
        listed = json.loads(run(settings, "machines", "list", "--state", "quiet", "--json"))
        assert [each["host"] for each in listed] == [each["host"] for each in status["quiet"]]
        return [each["host"] for each in listed]

    assert quiet() == ["old"]
    assert "connection  developer  host  state" in run(settings, "machines", "list")
    assert run(settings, "machines", "retire", "ann", "OLD.local") == (
        "ann on old (connection 1): retired\n"
    )
    assert quiet() == []
    [retired] = json.loads(run(settings, "machines", "list", "--state", "retired", "--json"))
    assert retired["retired"].endswith("Z")
    assert retired["last_seen"].endswith("Z")
    assert json.loads(run(settings, "status", "--json"))[0]["retired"] == 1
    again = run(settings, "machines", "retire", "ann", "old", "--connection", "fleet", "--json")
    assert json.loads(again)["outcome"] == "already retired"
    assert "restored\n" in run(settings, "machines", "restore", "ann", "old")
    assert quiet() == ["old"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ann",), "ann has several machines: desk (connection 1), old (connection 1)"),
        (("ann", "desk", "--connection", "7"), "there is no connection '7'"),
        (("eve",), "eve has no machine; `developer-telemetry machines list`"),
        (("bob", "old"), "bob has no machine old"),
    ],
)
def test_a_machine_that_is_not_one_is_named(
    settings: dict[str, str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in run(settings, "machines", "retire", *arguments, exit_code=2)


def test_refused_machines_are_shown_with_the_reason_in_words(settings: dict[str, str]) -> None:
    shown = run(settings, "status", "--refused")
    listed = json.loads(run(settings, "status", "--refused", "--json"))

    assert "cid        desk  192.0.2.1  date is not YYYY-MM-DD  2" in shown
    assert listed == json.loads(run(settings, "machines", "list", "--state", "refused", "--json"))
    first = listed[0].pop("first")
    assert listed[0].pop("last") >= first
    assert listed == [
        {
            "connection": 1,
            "developer": "cid",
            "host": "desk",
            "address": "192.0.2.1",
            "reason": "date",
            "title": "date is not YYYY-MM-DD",
            "count": 2,
            "user_agent": "collector/1",
            "message": "date: missing",
        }
    ]
