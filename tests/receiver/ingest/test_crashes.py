"""A report that ends the receiver each time it is brought in keeps nobody else's waiting."""

from __future__ import annotations

import sys
from contextlib import closing, suppress
from pathlib import Path

from developer_telemetry.constants import RAW_TABLE
from developer_telemetry.receiver.ingest.spool import MAX_CRASHES, Spool, dead_letters
from developer_telemetry.receiver.ingest.spooled_report import SpooledReport
from tests.support.receivers import (
    Receiver,
    ReceiverFailed,
    add_connection,
    eventually,
    migrate,
    query,
    report,
)

KILLING = """
import os
from developer_telemetry.receiver.jobs import spool_drainer as drain

bring_in = drain.store_excluding_erased

def killed(engine, erased, arrivals, strategies):
    if any(each.report.developer_id == "killer" for each in arrivals):
        os.kill(os.getpid(), 9)  # as the kernel does where memory is short
    return bring_in(engine, erased, arrivals, strategies)

drain.store_excluding_erased = killed
from developer_telemetry.cli.main import app

app(["serve"])
"""


class Killed(Receiver):
    """A receiver that is killed when it brings in a certain report."""

    def command(self) -> list[str]:
        return [sys.executable, "-c", KILLING]


def test_it_is_set_aside_after_two_crashes_and_the_others_are_stored(
    sqlite_url: str, tmp_path: Path
) -> None:
    migrate(sqlite_url, tmp_path)
    connection = add_connection(sqlite_url)
    spool = tmp_path / "spool"
    receiver = Killed(sqlite_url, tmp_path, TELEMETRY_SPOOL_DIR=str(spool))
    receiver.start()
    query(sqlite_url, f"ALTER TABLE {RAW_TABLE} RENAME TO moved_away")
    for developer in ("ann", "killer", "bob", "cem"):
        assert receiver.send(report(developer), connection).status_code == 200
    receiver.kill()
    query(sqlite_url, f"ALTER TABLE moved_away RENAME TO {RAW_TABLE}")

    for _ in range(MAX_CRASHES):
        with suppress(ReceiverFailed):
            receiver.start()
        eventually(lambda: not receiver.running, 20)
        receiver.kill()
    receiver.start()

    eventually(lambda: dead_letters(spool), 20)
    assert receiver.stop() == 0
    stored = query(sqlite_url, f"SELECT developer_id FROM {RAW_TABLE}")
    assert sorted(row[0] for row in stored) == ["ann", "bob", "cem"]
    [letter] = dead_letters(spool)
    assert "killer" in letter.report.payload
    assert letter.reason.startswith("the receiver crashed 2 times")


def spooled(number: int) -> SpooledReport:
    return SpooledReport(f"report-{number}", 1, number, "{}")


def waiting(spool: Spool) -> list[int]:
    return [each.arrived_us for each in spool.next(9)[0]]


def crash(folder: Path, *handled: SpooledReport) -> None:
    """Leave a spool as a process does that ends while it brings these in."""
    spool = Spool(folder, 1 << 20)
    spool.put([spooled(number) for number in range(4)])
    spool.begin(handled)
    spool.close()


def test_what_was_being_brought_in_is_tried_behind_all_others_and_alone(tmp_path: Path) -> None:
    crash(tmp_path, spooled(0), spooled(1))
    with closing(Spool(tmp_path, 1 << 20)) as spool:
        assert waiting(spool) == [2, 3]
        assert spool.next_suspect() == (spooled(0), "")
        spool.remove([spooled(0)])
        assert spool.next_suspect() == (spooled(1), "")
        spool.begin([spooled(1)])
        spool.end()  # the database went away meanwhile
        assert spool.next_suspect() is None
        assert waiting(spool) == [1, 2, 3]


def test_a_machine_that_was_switched_off_counts_against_no_report(tmp_path: Path) -> None:
    for _ in range(MAX_CRASHES):
        crash(tmp_path, spooled(0))
    assert (tmp_path / "spool.db").exists()
    query(f"sqlite:///{tmp_path}/spool.db", "UPDATE handling SET boot = 'another'")
    with closing(Spool(tmp_path, 1 << 20)) as spool:
        assert spool.next_suspect() is None
        assert waiting(spool) == [0, 1, 2, 3]
