"""Test what `watch` shows, and that it shows all of it once, on every database."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Callable

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.constants import OVERWRITE, RAW_TABLE
from developer_telemetry.database.engine import now_us
from developer_telemetry.diagnostics.live_events import (
    ROWS_ANEW,
    ROWS_AT_ONCE,
    Arrived,
    Refused,
    Watch,
)
from developer_telemetry.storage.statistics import ReportCounts
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.receivers import (
    SECRET,
    Altered,
    add_connection,
    environment,
    migrate,
    query,
    report,
)
from tests.support.rows import add_connections
from tests.support.warm_starts import COMMAND


def put(engine: Engine, *developers: str) -> None:
    sent = [arrival(developer=each, hostname="desk") for each in developers]
    store(engine, sent, {1: OVERWRITE})


def developers(watch: Watch) -> list[str]:
    return [each.developer for each in watch.read_events() if isinstance(each, Arrived)]


def test_what_arrives_is_seen_once_and_what_was_there_is_not(engine: Engine) -> None:
    put(engine, "before")
    watch = Watch(engine)
    assert watch.read_events() == []

    put(engine, "ann")
    [seen] = watch.read_events()
    assert isinstance(seen, Arrived)
    assert seen == Arrived(seen.id, 1, "ann", "desk", "2026-11-23", "2026-11-23 20:26:40.123")

    put(engine, "bob", "cid")
    assert developers(watch) == ["bob", "cid"]
    assert watch.read_events() == []


def test_what_is_committed_behind_later_ids_is_seen(engine: Engine) -> None:
    watch = Watch(engine)
    put(engine, "late", "ann")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE {RAW_TABLE} SET id = id + {ROWS_ANEW - 10} WHERE developer_id = 'ann'"
        )
        connection.exec_driver_sql(f"UPDATE {RAW_TABLE} SET id = -id WHERE developer_id = 'late'")
    assert developers(watch) == ["ann"]

    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {RAW_TABLE} SET id = -id WHERE id < 0")
    assert developers(watch) == ["late"]
    assert watch.read_events() == []


def test_a_burst_is_seen_in_parts_and_whole(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("developer_telemetry.diagnostics.live_events.ROWS_ANEW", 3)
    monkeypatch.setattr("developer_telemetry.diagnostics.live_events.ROWS_AT_ONCE", 5)
    names = [f"dev {number:02}" for number in range(20)]
    watch = Watch(engine)
    put(engine, *names)

    looks = [developers(watch) for _ in range(5)]

    assert [name for look in looks for name in look] == names
    assert len(looks[0]) == 8
    assert ROWS_AT_ONCE > ROWS_ANEW


def test_refusals_are_seen_as_they_are_counted(engine: Engine) -> None:
    add_connections(engine, [1])
    tallies = ReportCounts()
    tallies.refused(1, "token")
    tallies.flush(engine)
    watch = Watch(engine)
    assert watch.read_events() == []

    for reason in ("token", "date", "token"):
        tallies.refused(1, reason)
    tallies.flush(engine)

    seen = watch.read_events()
    assert [each[:3] for each in seen] == [(1, "date", 1), (1, "token", 2)]
    assert all(isinstance(each, Refused) for each in seen)
    assert watch.read_events() == []


class Prompt(Altered):
    """Writes tallies at once."""

    constants = {"receiver.jobs.monitor.ROUND_SECONDS": 0.1}


def started(url: str, *options: str) -> subprocess.Popen[str]:
    """`watch` as a child that Ctrl+C ends."""
    return subprocess.Popen(
        [str(COMMAND), "watch", *options],
        env=environment(DB_URL=url, PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever was started in the background by a shell ignores it, and so do their children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


@contextmanager
def watching(url: str, *options: str) -> Iterator[Callable[[], str]]:
    """Gives the next line that `watch` shows; ends it by Ctrl+C and sees that it ends clean."""
    with started(url, *options) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == "waiting for reports; Ctrl+C ends this\n"
        try:
            yield process.stdout.readline
        finally:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def test_it_follows_a_receiver_until_ctrl_c(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    with Prompt(url, tmp_path) as receiver:
        number = add_connection(url)
        with watching(url) as next_line, watching(url, "--json") as next_object:
            assert receiver.send(report("ann\x1b[2J"), number).status_code == 200
            stored = next_line(), json.loads(next_object())
            assert receiver.send(report("eve"), number, "wrong").status_code == 401
            refused = next_line(), json.loads(next_object())

    assert f"connection {number}  ann\\x1b[2J on laptop  for 2026-11-23\n" in stored[0]
    assert stored[1] == {
        "event": "arrived",
        "id": query(url, f"SELECT id FROM {RAW_TABLE}")[0][0],
        "connection": number,
        "developer": "ann\x1b[2J",
        "host": "laptop",
        "date": "2026-11-23",
        "arrived": f"{stored[0][:19].replace(' ', 'T')}Z",
    }
    title = "token is missing or wrong"
    assert f"connection {number} from 127.0.0.1  refused: {title} 1\n" in refused[0]
    assert refused[1] == {
        "event": "refused",
        "connection": number,
        "reason": "token",
        "count": 1,
        "noticed": refused[1]["noticed"],
        "developer": "",
        "host": "",
        "address": "127.0.0.1",
        "message": "",
    }


def test_a_database_that_goes_away_is_said_once_and_waited_for(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    migrate(url, tmp_path)
    with started(url) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stderr.readline()
        query(url, f"ALTER TABLE {RAW_TABLE} RENAME TO moved_away")
        assert "the database does not answer: no such table" in process.stderr.readline()
        query(url, f"ALTER TABLE moved_away RENAME TO {RAW_TABLE}")
        query(
            url,
            f"INSERT INTO {RAW_TABLE} (params, connection_id, payload, created_at, report_id,"
            " developer_id, date, arrived_us) VALUES ('', 7, '', '2026-11-23 01:02:03.004', 'r',"
            f" 'ann', '2026-11-22', {now_us()})",
        )
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)

    assert line == (
        "2026-11-23 01:02:03.004  connection 7  ann on a host without name  for 2026-11-22\n"
    )
    assert (process.returncode, err) == (0, "")
    assert SECRET not in line
