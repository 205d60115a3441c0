"""The benchmarks work; how fast anything is, no test says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import collector, page, page_views, panels, receiver, runs, subtasks
from benchmarks.concurrent_pushes import measure_concurrent_pushes
from benchmarks.databases import database
from benchmarks.fleet import body, date_of, developer_of, raw_row, tool_row_of
from developer_telemetry.reports.daily_metrics import ReceivedReport, build_tool_row
from developer_telemetry.reports.parser import parse
from developer_telemetry.storage.writer import RAW_COLUMNS

pytestmark = pytest.mark.server


def test_the_receiver_is_measured(tmp_path: Path) -> None:
    output = tmp_path / "docs" / "benchmarks.md"
    sizes = ["--connections", "1", "--seconds", "0.2"]
    receiver.main(["--databases", "sqlite", *sizes, "--output", str(output)])
    written = output.read_text()
    assert "| sqlite, 1 |" in written
    assert "| sqlite, 64 |" in written


def test_runs_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subtasks, "ROUNDS", 1)
    output = tmp_path / "benchmarks.md"
    sizes = ["--rows", "60", "--repeats", "1", "--seconds", "1"]
    runs.main(["--databases", "sqlite", *sizes, "--output", str(output)])
    written = output.read_text()
    assert "| sqlite, extract, 2 a day, no row there | 60 |" in written
    assert "| sqlite, convert, 2 a day | 30 |" in written
    assert "| sqlite | 60 |" in written
    assert "| `./run.sh make-pipeline` |" in written


def test_panels_are_measured(tmp_path: Path) -> None:
    output = tmp_path / "benchmarks.md"
    sizes = ["--rows", "1000", "--days", "40", "--repeats", "1"]
    panels.main([*sizes, "--output", str(output)])
    written = output.read_text()
    assert "mariadb, median s | postgresql, first s" in written
    assert "| tools: Commands Most Run [Selected Time Range] | 0." in written


def test_the_collector_is_measured(tmp_path: Path) -> None:
    output = tmp_path / "benchmarks.md"
    collector.main(["--repositories", "2", "--lines", "10", "--output", str(output)])
    written = output.read_text()
    assert "| nothing new |" in written
    assert "| the public script's `find` and `git log` |" in written


def test_the_page_is_measured(tmp_path: Path) -> None:
    output = tmp_path / "benchmarks.md"
    sizes = ["--rows", "1000", "--days", "40", "--seconds", "0.5", "--rounds", "1"]
    page_views.main(["--databases", "postgresql", *sizes, "--output", str(output)])
    written = output.read_text()
    assert "| postgresql, nobody looks |" in written
    assert "| postgresql, people look |" in written


@pytest.mark.parametrize("name", ["sqlite", "mariadb", "postgresql"])
def test_no_push_fails_and_no_row_is_away_while_all_is_extracted_again(name: str) -> None:
    with database(name) as fresh:
        outcome = measure_concurrent_pushes(fresh, rows=3_000, seconds=2)
    for each in (outcome.alone, outcome.during_extracts):
        assert (each.refused, each.broken) == (0, 0)
        assert each.acknowledged > 64
    assert outcome.extracts > 0
    assert outcome.counts > 0
    assert (outcome.missing, outcome.wrong) == (0, 0)


def test_a_section_is_renewed_and_the_others_stay(tmp_path: Path) -> None:
    output = tmp_path / "benchmarks.md"
    for title, text in (("One", "old"), ("Two", "stays"), ("One", "new")):
        page.put(output, title, text)
    written = output.read_text()
    assert [line for line in written.splitlines() if line.startswith("#")] == [
        "# Benchmarks",
        "## One",
        "## Two",
    ]
    assert "old" not in written
    assert written.index("new") < written.index("## Two") < written.index("stays")


@pytest.mark.parametrize("number", [0, 5, 10_006, 10_007, 1_000_000])
def test_the_fleets_rows_are_those_of_its_bodies(number: int) -> None:
    raw = dict(zip(RAW_COLUMNS, raw_row(number, number)))
    report = parse(body(number))
    assert raw["payload"] == report.payload
    assert (raw["developer_id"], raw["date"], raw["hostname"]) == (
        report.developer_id,
        report.date,
        report.hostname,
    )
    arrival = ReceivedReport(raw["report_id"], 1, raw["arrived_us"], report, number + 1)
    assert build_tool_row([arrival], arrival.arrived_us) == tool_row_of(number)


def test_each_report_of_the_fleet_is_another_day_of_another_developer() -> None:
    reports = range(25_000)
    assert len({(developer_of(number), date_of(number)) for number in reports}) == len(reports)
