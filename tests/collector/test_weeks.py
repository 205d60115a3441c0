"""Weeks with outages, refusals, kills, full disks and wrong clocks: each row is what was done."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from collector import sender
from tests.collector.weeks import Weather, Weeks, differences
from tests.support.developers import Developer
from tests.support.receivers import TOKEN, Receiver, add_connection, migrate, query

# How many days and kills; a longer run is `WEEKS_DAYS=21 WEEKS_KILLS=100 make test TESTS=...`.
DAYS = int(os.environ.get("WEEKS_DAYS", "6"))
KILLS = int(os.environ.get("WEEKS_KILLS", "12"))
SEED = int(os.environ.get("WEEKS_SEED", "20261102"))

COLUMNS = ("date", "active_hours", "command_counts", "commits", "lines_added")


@pytest.mark.timeout(120 + 30 * DAYS)
def test_each_day_is_what_was_done(
    ann: Developer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "TIMEOUT_SECONDS", 30.0)  # the weeks change it
    database = f"sqlite:///{tmp_path}/telemetry.db"
    migrate(database, tmp_path)
    connection = add_connection(database)
    with Receiver(database, tmp_path) as receiver:
        weather = Weather(receiver.url)
        url = f"http://127.0.0.1:{weather.port}/plugins/developer-telemetry/{connection}/report"
        ann.settings = ann.settings._replace(url=url, token=TOKEN)
        weeks = Weeks(ann, weather, SEED)
        try:
            weeks.live(DAYS, KILLS)
        finally:
            weather.close()
    rows = query(database, f"SELECT {', '.join(COLUMNS)} FROM _tool_developer_metrics")
    stored = {str(row[0]): dict(zip(COLUMNS, row)) for row in rows}
    print(f"{len(weeks.days)} days, {sum(weather.delivered.values())} reports; {weeks.events}")
    assert differences(weeks.days, stored) == {}
    assert weeks.events["killed"] == KILLS
    assert weeks.events["disk full"] > 0
