"""The store of days: what a kill, a full disk, damage and a wrong clock leave of it."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import collector.store as stores
from collector.collecting import Collection
from collector.errors import AnotherRun
from collector.evidence import Command, Moment
from collector.run_lock import run_lock
from collector.store import KEPT_DAYS, KEPT_UNSENT_DAYS, SHELLS, Store
from tests.support.developers import Developer, seconds

DAY = "2026-11-02"
START = f"{DAY} 08:00"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "state"))
    with store.transaction():
        store.first_day("2020-01-01")
    return store


def add_days(store: Store, count: int, sent: bool) -> None:
    with store.transaction():
        for number in range(count):
            store.add_hour(Moment(f"2{number:03}-01-01", 9), SHELLS)
        for day in store.days() if sent else ():
            store.delivered(day, b"{}", 200, 0.0)
        store.prune()


@pytest.mark.parametrize(("sent", "stored"), [(True, KEPT_DAYS), (False, KEPT_UNSENT_DAYS)])
def test_old_days_go_and_never_return(store: Store, sent: bool, stored: int) -> None:
    store.first_day("1000-01-01")
    add_days(store, KEPT_UNSENT_DAYS + 50, sent)
    days = [day.day for day in store.days()]
    assert len(days) == stored
    add_days(store, KEPT_UNSENT_DAYS + 50, sent=False)
    assert [day.day for day in store.days()] == days


def test_a_jump_of_the_clock_makes_no_day_old(ann: Developer) -> None:
    ann.run(START)
    ann.type("git push", f"{DAY} 09:00")
    ann.run(f"{DAY} 09:15")
    ann.run("2031-01-01 09:15")
    ann.type("make", f"{DAY} 10:00")
    ann.commit("shop", f"{DAY} 10:05")
    ann.write("shop/new.py", "new\n", f"{DAY} 11:00")
    ann.run(f"{DAY} 11:15")
    metrics = ann.metrics(DAY)
    assert metrics["commands"] == {"git": 1, "make": 1}
    assert metrics["git_activity"]["total_commits"] == 1
    assert metrics["active_hours"] == 3


def test_damage_is_set_aside_and_new_days_are_stored(ann: Developer) -> None:
    ann.run(START)
    Path(ann.store.path).write_bytes(b"no database at all" * 1000)
    ann.type("git push", f"{DAY} 09:00")
    ann.run(f"{DAY} 09:15")
    ann.type("git push", f"{DAY} 10:00")
    ann.run(f"{DAY} 10:15")
    assert ann.metrics(DAY)["commands"] == {"git": 2}
    assert [path.name for path in Path(ann.settings.state).glob("*.damaged-*")]


def test_a_full_disk_loses_nothing(ann: Developer, monkeypatch: pytest.MonkeyPatch) -> None:
    ann.run(START)
    for minute in range(50):
        ann.type(f"git push {minute}", f"{DAY} 09:{minute:02}")
    ann.commit("shop", f"{DAY} 10:00")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # The system refuses to let files grow, as it does on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        with pytest.raises((sqlite3.Error, OSError)):
            ann.run(f"{DAY} 10:15")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    ann.run(f"{DAY} 10:30")
    metrics = ann.metrics(DAY)
    assert metrics["commands"] == {"git": 50}
    assert metrics["git_activity"]["total_commits"] == 1


def test_one_run_at_a_time(ann: Developer) -> None:
    ann.run(START)
    with run_lock(os.path.join(ann.settings.state, "run.lock")):
        ann.type("git push", f"{DAY} 09:00")
        ann.run(f"{DAY} 09:15")
        assert ann.report(DAY) is None
        with pytest.raises(AnotherRun), run_lock(os.path.join(ann.settings.state, "run.lock")):
            raise AssertionError("two runs at once")
    ann.run(f"{DAY} 09:30")
    assert ann.metrics(DAY)["commands"] == {"git": 1}


def test_two_runs_that_no_lock_separates_count_nothing_twice(ann: Developer) -> None:
    """As on a network's file system, where locks may do nothing."""
    ann.run(START)
    ann.type("git push", f"{DAY} 09:00")
    first, second = ann.store, ann.store
    now = seconds(f"{DAY} 09:15")
    one, other = (Collection(store, ann.settings, 0.0, now) for store in (first, second))
    one.collect()
    other.collect()
    one.write()
    with pytest.raises(AnotherRun):
        other.write()
    assert ann.metrics(DAY)["commands"] == {"git": 1}


def test_uses_of_one_second_add_up_or_are_compared(store: Store) -> None:
    command = Command("history", 5, "git", 2, Moment(DAY, 9), "git")
    with store.transaction():
        store.add_command(command, again=False)
        store.add_command(command, again=False)
        store.add_command(command._replace(uses=3), again=True)
    assert store.day_commands(DAY) == [("git", "", 4)]


def test_runs_of_one_second_count_beside_other_uses_of_the_command(ann: Developer) -> None:
    ann.run(START)
    for line in ("make clean", "make", "make deploy", "make lint"):
        ann.type(line, f"{DAY} 09:00", "bash")
    ann.run(f"{DAY} 09:15")
    metrics = ann.metrics(DAY)
    assert metrics["commands"] == {"make": 4}
    assert metrics["development_activity"]["build_commands_detected"] == 1


VERSION_1 = """
DROP TABLE commands;
CREATE TABLE commands (
    day TEXT, source TEXT, second INT, name TEXT, count INT NOT NULL, run TEXT NOT NULL,
    PRIMARY KEY (source, second, name)
) WITHOUT ROWID;
CREATE INDEX commands_of_day ON commands (day);
INSERT INTO commands VALUES ('2026-11-02', 'history', 5, 'make', 2, 'build');
INSERT INTO commands VALUES ('2026-11-02', 'history', 6, 'git', 3, '');
PRAGMA user_version = 1;
"""


def test_a_store_of_version_1_is_renewed_or_stays_as_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(Path(store.path).parent)
    store.close()
    with closing(sqlite3.connect(store.path)) as database:
        database.executescript(VERSION_1)
        before = "\n".join(database.iterdump())
    with monkeypatch.context() as patch:
        # As if the run ended here, after the last of the changes.
        patch.setattr(stores, "RENEWAL", stores.RENEWAL + "SELECT no_such_function();")
        with pytest.raises(sqlite3.OperationalError):
            Store(folder)
    with closing(sqlite3.connect(store.path)) as database:
        assert "\n".join(database.iterdump()) == before
        assert database.execute("PRAGMA user_version").fetchone() == (1,)

    Store(folder).close()
    renewed = Store(folder)
    command = Command("history", 5, "make", 1, Moment(DAY, 9), "make")
    with renewed.transaction():
        renewed.add_command(command, again=False)

    assert renewed.day_commands(DAY) == [("git", "", 3), ("make", "", 1), ("make", "build", 2)]


def test_a_store_of_another_process_is_seen_at_once(store: Store, tmp_path: Path) -> None:
    code = (
        "from collector.store import Store; from collector.evidence import Moment;"
        f"store = Store({str(tmp_path / 'state')!r})\n"
        "with store.transaction(): store.add_hour(Moment('2026-11-02', 9), 'shells')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert store.day_hours(DAY) == [(9, SHELLS)]


def test_a_clock_that_was_behind_takes_in_nothing_from_before_the_first_run(ann: Developer) -> None:
    ann.type("git push", "2026-10-05 09:00")
    ann.commit("shop", "2026-10-05 09:10")
    ann.run(START)
    ann.run("2019-01-01 09:00")
    ann.run(f"{DAY} 09:00")
    history = ann.home / ".zsh_history"
    ann.write(".zsh_history", "\n" + history.read_text(encoding="utf-8"), f"{DAY} 09:10")
    (ann.home / "shop/.git/HEAD").touch()
    ann.run(f"{DAY} 09:15")
    assert ann.report("2026-10-05") is None
