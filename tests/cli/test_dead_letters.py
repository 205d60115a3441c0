"""Test the commands about dead letters, beside a running receiver and a stopped one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from developer_telemetry.constants import RAW_TABLE
from developer_telemetry.receiver.ingest.spool import Spool, dead_letters
from developer_telemetry.receiver.ingest.spooled_report import SpooledReport
from tests.support.receivers import Receiver, eventually, query, report, run_command

GOOD, BAD, OTHER = (f"0197f3a2-0000-7000-8000-00000000000{n}" for n in range(3))
PAYLOADS = {
    GOOD: json.dumps(report("ann")),
    BAD: json.dumps({"developer": "bob", "date": "yesterday"}),
    OTHER: json.dumps(report("zoë")),
}


def set_aside(folder: Path, *report_ids: str) -> None:
    """Make dead letters of a stopped receiver's spool."""
    spool = Spool(folder / "data" / "spool", 1 << 20)
    for number, report_id in enumerate(report_ids):
        arrived_us = 1_795_465_600_123_456 + number * 1000
        letter = SpooledReport(report_id, 1, arrived_us, PAYLOADS[report_id])
        spool.put([letter])
        spool.set_aside(letter, f"value {number} out of range")
    spool.close()


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command(folder, "dead-letters", *arguments, TELEMETRY_SPOOL_DIR="")


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def remaining(folder: Path) -> list[str]:
    return [letter.report.report_id for letter in dead_letters(folder / "data" / "spool")]


def stored(folder: Path) -> set[str]:
    url = f"sqlite:///{folder}/data/telemetry.db"
    return {row[0] for row in query(url, f"SELECT report_id FROM {RAW_TABLE}")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an embedded database that has connection 1."""
    said(run_command(tmp_path, "connect", "fleet"))
    return tmp_path


def test_they_are_listed_beside_a_running_receiver(folder: Path) -> None:
    assert said(run(folder, "list")) == "no report was set aside\n"
    assert said(run(folder, "list", "--json")) == "[]\n"
    set_aside(folder, GOOD, BAD)

    with Receiver("", folder, TELEMETRY_SPOOL_DIR="") as receiver:
        shown = said(run(folder, "list")).splitlines()
        listed = json.loads(said(run(folder, "list", "--json")))
        assert "telemetry_spool_dead 2.0" in receiver.client.get("/metrics").text

    assert [line.split()[0] for line in shown] == ["report", GOOD, BAD]
    assert shown[1].split(maxsplit=2)[2] == "2026-11-23 20:26:40.123  value 0 out of range"
    assert listed[0] == {
        "report": GOOD,
        "connection": 1,
        "arrived": "2026-11-23T20:26:40Z",
        "reason": "value 0 out of range",
        "body": PAYLOADS[GOOD],
    }


def test_a_running_receiver_retries_and_drops_them_and_the_alert_ends(folder: Path) -> None:
    set_aside(folder, GOOD, BAD, OTHER)
    with Receiver("", folder, TELEMETRY_SPOOL_DIR="") as receiver:
        one = run(folder, "retry", OTHER)
        assert (one.returncode, one.stdout) == (0, "1 reports are stored\n")
        assert remaining(folder) == [GOOD, BAD]

        others = run(folder, "retry", "--json")
        assert others.returncode == 1
        assert json.loads(others.stdout) == {"stored": 1, "set_aside_again": 1, "waiting": 0}
        assert stored(folder) == {GOOD, OTHER}
        assert f"{BAD} is set aside again: " in run(folder, "retry", BAD).stdout
        assert "telemetry_spool_dead 1.0" in receiver.client.get("/metrics").text

        assert said(run(folder, "drop", "--yes", "--json")) == '{"deleted": 1}\n'
        assert "telemetry_spool_dead 0.0" in receiver.client.get("/metrics").text
        assert "telemetry_dropped_total 0.0" in receiver.client.get("/metrics").text
    assert remaining(folder) == []
    assert stored(folder) == {GOOD, OTHER}
    assert said(run(folder, "retry")) == "no report was set aside\n"


def test_a_stopped_receiver_stores_them_when_it_starts(folder: Path) -> None:
    set_aside(folder, GOOD, BAD)

    done = run(folder, "retry", GOOD)

    assert said(done) == "1 reports wait in the spool; the receiver stores them when it starts\n"
    assert stored(folder) == set()
    with Receiver("", folder, TELEMETRY_SPOOL_DIR=""):
        eventually(lambda: stored(folder) == {GOOD}, seconds=10)
    assert remaining(folder) == [BAD]


def test_they_are_retried_while_the_database_is_away(folder: Path) -> None:
    set_aside(folder, GOOD)
    url = f"sqlite:///{folder}/data/telemetry.db"
    with Receiver("", folder, TELEMETRY_SPOOL_DIR=""):
        query(url, f"ALTER TABLE {RAW_TABLE} RENAME TO away")
        assert run(folder, "retry", "--json").returncode == 0
        assert remaining(folder) == []
        query(url, f"ALTER TABLE away RENAME TO {RAW_TABLE}")
        eventually(lambda: stored(folder) == {GOOD}, seconds=20)


def test_an_import_takes_what_was_exported(folder: Path) -> None:
    set_aside(folder, GOOD, BAD, OTHER)

    done = run(folder, "export", GOOD, BAD, "--output", "letters.ndjson")

    assert said(done) == ""
    assert (folder / "letters.ndjson").stat().st_mode & 0o777 == 0o600
    lines = said(run(folder, "export")).splitlines()
    assert [json.loads(line)["report_id"] for line in lines] == [GOOD, BAD, OTHER]
    assert json.loads(lines[0])["reason"] == "value 0 out of range"
    imported = run_command(folder, "import", "letters.ndjson", "--errors", "errors")
    assert imported.returncode == 1
    assert stored(folder) == {GOOD}
    assert "date: " in (folder / "errors").read_text()
    assert remaining(folder) == [GOOD, BAD, OTHER]


def test_nothing_is_dropped_without_a_confirmation(folder: Path) -> None:
    set_aside(folder, GOOD)

    refused = run(folder, "drop")
    unknown = run(folder, "drop", "another", "--yes")

    assert (refused.returncode, unknown.returncode) == (2, 2)
    assert "--yes" in refused.stderr
    assert "no report another was set aside" in unknown.stderr
    assert remaining(folder) == [GOOD]
    assert said(run(folder, "drop", GOOD, "--yes")) == "1 reports are deleted\n"
    assert remaining(folder) == []


def test_a_damaged_spool_says_what_to_do(folder: Path) -> None:
    (folder / "data" / "spool").mkdir()
    (folder / "data" / "spool" / "spool.db").write_bytes(b"nonsense" * 1000)

    for command in (["list"], ["retry"], ["export"], ["drop", "--yes"]):
        done = run(folder, *command)
        assert done.returncode == 2
        assert "spool.db" in done.stderr
        assert "a receiver fixes its spool when it starts" in done.stderr
