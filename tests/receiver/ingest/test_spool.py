"""The spool: what was put into it is on disk, in order, whatever happens to its file."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from developer_telemetry.errors import ConfigurationError
from developer_telemetry.receiver.ingest.spool import Spool, dead_letters
from developer_telemetry.receiver.ingest.spool_file import FILE_NAME, SpoolFull
from developer_telemetry.receiver.ingest.spooled_report import SpooledReport
from tests.support.damages import (
    change_version,
    empty,
    flip_bits,
    replace,
    truncate,
    zero_the_header,
)

MEBIBYTE = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def spool(folder: Path) -> Iterator[Spool]:
    opened = Spool(folder, 8 * MEBIBYTE)
    yield opened
    opened.close()


def reports(count: int, size: int = 100, first: int = 0) -> list[SpooledReport]:
    return [
        SpooledReport(f"report-{number:06d}", 1, 1_000_000 + number, f"{number} é " + "x" * size)
        for number in range(first, first + count)
    ]


def reopened(spool: Spool, folder: Path) -> Spool:
    spool.close()
    return Spool(folder, 8 * MEBIBYTE)


def all_of(spool: Spool) -> list[SpooledReport]:
    whole, damaged, _ = spool.next(1_000_000)
    assert not damaged
    return whole


def test_reports_come_out_in_order_of_arrival_also_after_a_restart(
    spool: Spool, folder: Path
) -> None:
    kept = reports(20)
    spool.put(kept[10:])
    spool.put(kept[:10])
    assert all_of(spool) == kept
    again = reopened(spool, folder)
    assert all_of(again) == kept
    assert again.depth == 20
    assert again.oldest_arrival_us() == kept[0].arrived_us
    again.close()


def test_a_report_put_twice_is_kept_once(spool: Spool) -> None:
    spool.put(reports(3))
    spool.put(reports(5))
    assert all_of(spool) == reports(5)
    assert spool.depth == 5


def test_what_was_removed_is_gone_and_its_space_is_given_back(spool: Spool, folder: Path) -> None:
    spool.put(reports(1000, size=1000))
    grown = spool.bytes
    spool.remove(reports(999, size=1000))
    assert [report.report_id for report in all_of(spool)] == ["report-000999"]
    spool.remove(reports(1000, size=1000))
    assert spool.depth == 0
    assert spool.bytes < grown / 10


def fill(spool: Spool, kept: list[SpooledReport]) -> SpoolFull:
    """Put reports in until no more fit; `kept` gets those that did."""
    for first in range(0, 10_000, 10):
        batch = reports(10, size=5000, first=first)
        try:
            spool.put(batch)
        except SpoolFull as full:
            return full
        kept += batch
    raise AssertionError("it never got full")


def test_a_full_spool_says_so_loses_nothing_and_takes_more_when_there_is_room(
    folder: Path,
) -> None:
    spool = Spool(folder, 1 * MEBIBYTE)
    kept: list[SpooledReport] = []
    refusal = fill(spool, kept)
    assert refusal.retry_after > 0
    assert spool.full
    assert spool.bytes <= 1 * MEBIBYTE
    assert all_of(spool) == kept
    spool.remove(kept)
    spool.put(kept[:10])
    assert (spool.full, all_of(spool)) == (False, kept[:10])
    spool.close()


def test_a_dead_letter_keeps_its_report_and_the_reason(spool: Spool, folder: Path) -> None:
    spool.put(reports(3))
    spool.set_aside(reports(3)[1], "refused: no such column")
    assert spool.depth == 2
    assert spool.dead == 1
    (letter,) = dead_letters(folder)
    assert letter == (reports(3)[1], "refused: no such column")
    again = reopened(spool, folder)
    assert (again.depth, again.dead) == (2, 1)
    again.close()


def test_two_receivers_can_not_share_a_spool(spool: Spool, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="TELEMETRY_SPOOL_DIR"):
        Spool(folder, MEBIBYTE)


def test_the_file_is_readable_by_its_owner_alone(spool: Spool, folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700


def _put_until_killed(folder: Path, acknowledged: Path) -> None:
    spool = Spool(folder, 64 * MEBIBYTE)
    with acknowledged.open("a") as said:
        for number in range(spool.depth, 1_000_000):
            spool.put(reports(1, first=number))
            said.write(f"{number}\n")
            said.flush()


def test_nothing_put_is_lost_by_kills(folder: Path, tmp_path: Path) -> None:
    acknowledged = tmp_path / "acknowledged"
    context = multiprocessing.get_context("fork")
    for killed in range(8):
        lines = _lines(acknowledged)
        process = context.Process(target=_put_until_killed, args=(folder, acknowledged))
        process.start()
        while _lines(acknowledged) < lines + 5 + 3 * killed:
            assert process.is_alive()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    spool = Spool(folder, 64 * MEBIBYTE)
    ids = {report.report_id for report in all_of(spool)}
    said = {f"report-{int(line):06d}" for line in acknowledged.read_text().split()}
    assert said <= ids
    assert len(ids) - len(said) <= 8  # those on disk whose acknowledgement the kill cut off
    assert spool.corruptions == 0
    spool.close()


def _lines(path: Path) -> int:
    return len(path.read_text().split()) if path.exists() else 0


@pytest.mark.parametrize(
    ("damage", "salvageable"),
    [
        (truncate, 1),
        (flip_bits, 100),
        (empty, 0),
        (replace, 0),
        (zero_the_header, 0),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_damaged_file_is_set_aside_and_salvaged_and_the_spool_opens(
    damage: object, salvageable: int, spool: Spool, folder: Path
) -> None:
    kept = reports(500, size=400)
    spool.put(kept)
    spool.close()
    assert callable(damage)
    damage(folder / FILE_NAME)

    again = Spool(folder, 8 * MEBIBYTE)

    assert again.corruptions == 1
    salvaged = all_of(again)
    assert set(salvaged) <= set(kept)
    assert len(salvaged) >= salvageable
    assert list(folder.glob(f"{FILE_NAME}.damaged-*"))
    again.put(reports(3, first=900))
    assert again.depth == len(salvaged) + 3
    again.close()


def test_a_file_of_another_version_is_set_aside_and_its_reports_brought_over(
    spool: Spool, folder: Path
) -> None:
    spool.put(reports(5))
    spool.close()
    change_version(folder / FILE_NAME)
    again = Spool(folder, 8 * MEBIBYTE)
    assert all_of(again) == reports(5)
    assert again.corruptions == 1
    again.close()


def test_a_report_damaged_on_disk_is_told_from_whole_ones(spool: Spool, folder: Path) -> None:
    spool.put(reports(3))
    spool.close()
    with closing(sqlite3.connect(folder / FILE_NAME)) as database:
        database.execute("UPDATE waiting SET payload = 'other' WHERE report_id = 'report-000001'")
        database.commit()
    again = Spool(folder, 8 * MEBIBYTE)
    whole, damaged, _ = again.next(10)
    assert [report.report_id for report in whole] == ["report-000000", "report-000002"]
    assert [report.report_id for report in damaged] == ["report-000001"]
    again.close()
