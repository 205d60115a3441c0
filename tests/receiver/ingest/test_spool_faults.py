"""A spool that is full, damaged, shared or out of date costs nothing acknowledged; it is synced."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Callable

import httpx
import pytest

from developer_telemetry.constants import RAW_TABLE
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.receiver.ingest.spool_file import FILE_NAME
from developer_telemetry.receiver.ingest.spooled_report import SpooledReport
from tests.support.damages import change_version, empty, flip_bits, truncate
from tests.support.receivers import eventually, query, report, run_command
from tests.support.servers import free_port
from tests.support.sites import CONNECTION_TABLE, Site, missing

# Eight kilobytes, two pages of the spool's file.
LARGE = {"projects": ["x" * 200] * 40}
# A line of strace: the call, the file behind its descriptor or the path it names, the rest.
CALL = re.compile(r'(\w+)\((?:\d+<([^>]*)>|(?:AT_FDCWD[^,]*, )?"([^"]*)")(.*)')


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A running receiver on SQLite, where an outage costs no time."""
    site = Site(None, f"sqlite:///{tmp_path}/telemetry.db", tmp_path)
    with site.receiver:
        yield site


@pytest.mark.parametrize("disk", ["bound", "small disk"])
def test_a_full_spool_asks_senders_to_come_back_and_loses_nothing(site: Site, disk: str) -> None:
    site.receiver.stop()
    with small_disk(site.spool) if disk == "small disk" else nullcontext():
        bound = "512" if disk == "small disk" else "1"
        site.receiver = site.another_receiver(TELEMETRY_SPOOL_MAX_MB=bound)
        with site.receiver as receiver:
            with site.without_table():
                kept, refused = fill_spool(site)
                ready = receiver.client.get("/health/ready")
            assert (refused.status_code, ready.status_code) == (503, 503)
            assert int(refused.headers["retry-after"]) > 0
            assert "full" in ready.json()["message"]
            eventually(lambda: receiver.status("/health/ready") == 200, 10)
            assert site.send("again") == 200
            site.wait_until_stored([*kept, "again"])
            eventually(lambda: not site.spooled(), 10)
            assert receiver.stop() == 0


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of one MiB at `folder`."""
    shutil.rmtree(folder)
    folder.mkdir(mode=0o700)
    options = ["-t", "tmpfs", "-o", "size=1m", "tmpfs"]
    mounted = subprocess.run(["mount", *options, folder], capture_output=True, text=True)
    if mounted.returncode:  # not even root may, in most containers
        pytest.skip(f"NOT TESTED: can't mount a small disk: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def fill_spool(site: Site) -> tuple[list[str], httpx.Response]:
    """Send until a report is refused; return whose reports were accepted, and the refusal."""
    kept: list[str] = []
    for number in range(1000):
        body = report(f"developer {number}", metrics=LARGE)
        answer = site.receiver.send(body, site.overwriting)
        if answer.status_code != 200:
            return kept, answer
        kept.append(f"developer {number}")
    raise AssertionError("the spool never got full")


def test_two_receivers_do_not_share_a_spool(site: Site) -> None:
    second = run_command(
        site.folder,
        "serve",
        DB_URL=site.url,
        TELEMETRY_PORT=str(free_port()),
        TELEMETRY_SPOOL_DIR=str(site.spool),
    )

    assert second.returncode == 2
    assert "belongs to another running receiver" in second.stderr
    assert "TELEMETRY_SPOOL_DIR" in second.stderr
    assert "Traceback" not in second.stderr
    assert site.send("ann") == 200


@pytest.mark.parametrize(
    ("damage", "least"),
    [(truncate, 1), (flip_bits, 10), (empty, 0), (change_version, 60)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_damaged_spool_does_not_keep_it_from_starting(
    site: Site, damage: Callable[[Path], None], least: int
) -> None:
    developers = [f"developer {number}" for number in range(60)]
    with site.without_table():
        for developer in developers:
            body = report(developer, metrics=LARGE)
            assert site.receiver.send(body, site.overwriting).status_code == 200
        site.receiver.kill()
        damage(site.spool / FILE_NAME)
        site.receiver.start()
        assert site.metric("telemetry_spool_corruptions") == 1
        salvaged = site.spooled()
        assert site.send("fresh") == 200

    eventually(lambda: not site.spooled(), 10)
    stored = site.developers()
    assert "fresh" in stored
    assert set(stored) <= {*developers, "fresh"}
    assert len(stored) == salvaged + 1 >= least + 1
    assert "the spool was damaged" in site.receiver.log
    assert list(site.spool.glob(f"{FILE_NAME}.damaged-*"))
    assert "Traceback" not in site.receiver.log


def test_a_spool_that_is_damaged_while_in_use_is_replaced(site: Site) -> None:
    with site.without_table():
        assert site.send("first") == 200
        # In place, as a disk does it.
        with (site.spool / FILE_NAME).open("r+b") as file:
            file.write(b"no database at all\n" * 3000)
        assert [site.send("second"), site.send("third")] == [200, 200]
        assert site.metric("telemetry_spool_corruptions") == 1
    eventually(lambda: {"second", "third"} <= {*site.developers()}, 10)


@pytest.mark.parametrize("place", ["/dev/null/spool", "/proc/spool"])
def test_a_spool_that_can_not_be_kept_is_an_error_to_mend(tmp_path: Path, place: str) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    settings = {"DB_URL": url, "TELEMETRY_SPOOL_DIR": place}
    done = run_command(tmp_path, "serve", TELEMETRY_PORT=str(free_port()), **settings)

    assert done.returncode == 2
    assert place in done.stderr
    assert "TELEMETRY_SPOOL_DIR" in done.stderr
    assert "Traceback" not in done.stderr


# What no kill can show, since the system keeps what a killed process wrote


def test_the_spool_is_synced_before_a_report_is_acknowledged(site: Site) -> None:
    trace = site.folder / "trace"
    with site.without_table():
        assert site.send("first") == 200  # from here on it goes to the spool at once
        with traced(site.receiver.pid, trace):
            for number in range(10):
                assert site.send(f"developer {number}") == 200
    told = trace.read_text()
    check_synced(told, site.spool, answers=10)
    unsynced = "\n".join(line for line in told.splitlines() if "sync(" not in line)
    with pytest.raises(AssertionError, match="was sent before"):
        check_synced(unsynced, site.spool, answers=10)


@contextmanager
def traced(pid: int, trace: Path) -> Iterator[None]:
    """Write the system calls of a process to `trace`, each when it has ended."""
    strace = shutil.which("strace") or missing("strace is not installed")
    calls = "write,writev,pwrite64,ftruncate,sendto,sendmsg,fsync,fdatasync,unlink,unlinkat"
    options = ["-f", "-yy", "-s", "32", "-e", f"trace={calls}", "-o", str(trace), "-p", str(pid)]
    tracer = subprocess.Popen([strace, *options], stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    try:
        if "attached" not in said:
            missing(f"strace can't trace here: {said.strip()}")
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=30)


def check_synced(trace: str, spool: Path, answers: int) -> None:
    """Fail unless all that was written in `spool` was synced whenever a 200 was sent."""
    unsynced: set[str] = set()
    answered = since = 0
    for name, path, outcome in calls_in(trace):
        if path.startswith(str(spool)):
            if "sync" in name:
                assert outcome == "0"
                unsynced.discard(path)
                since += path == str(spool / FILE_NAME)
            elif "unlink" in name:
                # Nobody needs its content, but that it is gone is to be on disk, too.
                unsynced.discard(path)
                unsynced.add(str(spool))
            else:
                unsynced.add(path)
        elif "HTTP/1.1 200" in outcome:
            answered += 1
            assert not unsynced, f"answer {answered} was sent before these were synced"
            assert since, f"answer {answered} was sent without a sync of the spool"
            since = 0
    assert answered == answers


def calls_in(trace: str) -> Iterator[tuple[str, str, str]]:
    """Name, path and outcome of each call, in the order of their effects.

    Threads overlap: a write counts from its start, a sync from its end. Of what is written to
    no file, the outcome is the data.
    """
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        thread, _, call = line.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            begun[thread] = call.replace("<unfinished ...>", "")
            if "sync" in call.split("(")[0]:
                continue
        elif call.startswith("<... "):
            start = begun.pop(thread, "")
            if "sync" not in start.split("(")[0]:
                continue
            call = start + call.partition("resumed>")[2]
        found = CALL.match(call)
        if found:
            name, descriptor, path, rest = found.groups()
            outcome = rest.rpartition(" = ")[2] if "sync" in name else rest
            yield name, descriptor or path, outcome


def test_what_the_database_has_is_not_set_aside_as_well(site: Site) -> None:
    assert site.send("ann") == 200
    [(report_id,)] = query(site.url, f"SELECT report_id FROM {RAW_TABLE}")
    site.receiver.stop()
    # As when a writer's transaction took so long that the report was rescued, and then ended well.
    spool = Spool(site.spool, 1 << 20)
    spool.put([SpooledReport(report_id, site.overwriting, 1, json.dumps(report("ann")))])
    spool.close()
    with closing(sqlite3.connect(site.spool / FILE_NAME, isolation_level=None)) as file:
        file.execute("UPDATE waiting SET checksum = 0")
    site.receiver.start()
    eventually(lambda: not site.spooled(), 10)
    assert site.metric("telemetry_spool_dead") == 0
    assert site.developers() == ["ann"]


# Connections that are gone, as after a deletion, or for a moment, as in a restore


def test_reports_of_a_connection_that_is_gone_wait_and_are_named(site: Site) -> None:
    with site.without_table():
        assert [site.send("stored"), site.send("left", site.summing)] == [200, 200]
        query(site.url, f"DELETE FROM {CONNECTION_TABLE} WHERE id = {site.summing}")
    site.wait_until_stored(["stored"])
    eventually(lambda: site.metric("telemetry_spool_orphans") == 1, 10)
    assert site.spooled() == 1
    note = site.receiver.client.get("/health/ready").json()["message"]
    command = f"developer-telemetry spool drop --connection {site.summing}"
    assert command in note
    assert site.receiver.log.count(command) == 1
    # A start changes nothing of that.
    site.receiver.kill()
    site.receiver.start()
    eventually(lambda: site.metric("telemetry_spool_orphans") == 1, 10)
    assert site.send("later") == 200
    site.wait_until_stored(["stored", "later"])
    assert site.metric("telemetry_dropped_total") == 0


def test_reports_outlast_connections_that_are_empty_for_a_moment(site: Site) -> None:
    developers = [f"developer {number}" for number in range(300)]
    with site.without_table():
        assert {site.send(each) for each in developers} == {200}
        query(site.url, f"CREATE TABLE saved AS SELECT * FROM {CONNECTION_TABLE}")
        query(site.url, f"DELETE FROM {CONNECTION_TABLE}")
    eventually(lambda: site.metric("telemetry_spool_orphans") == 300, 10)
    # Who is told that there is no such connection may never send that day again.
    assert site.send("meanwhile") == 503
    query(site.url, f"INSERT INTO {CONNECTION_TABLE} SELECT * FROM saved")
    site.wait_until_stored(developers)
    eventually(lambda: site.metric("telemetry_spool_orphans") == 0, 10)
    assert "is back" in site.receiver.log


@pytest.mark.parametrize("receiver", ["running", "stopped"])
def test_an_operator_has_reports_of_a_connection_deleted_that_is_gone(
    site: Site, receiver: str
) -> None:
    with site.without_table():
        assert [site.send("left", site.summing) for _ in range(3)] == [200] * 3
        refused = spool_command(site, "drop", "--connection", str(site.summing), "--yes")
        assert (refused.returncode, "is in the database" in refused.stderr) == (2, True)
        query(site.url, f"DELETE FROM {CONNECTION_TABLE} WHERE id = {site.summing}")
    eventually(lambda: site.metric("telemetry_spool_orphans") == 3, 10)
    listed = spool_command(site, "list").stdout
    assert re.search(rf"\n{site.summing} \(gone\) +3 ", listed), listed
    declined = spool_command(site, "drop", "--connection", str(site.summing))
    assert declined.returncode != 0
    if receiver == "stopped":
        site.receiver.stop()
    done = spool_command(site, "drop", "--connection", str(site.summing), "--yes")
    assert done.returncode == 0, done.stderr
    assert spool_command(site, "list").stdout == "no report waits\n"
    if receiver == "running":
        eventually(lambda: site.metric("telemetry_dropped_total") == 3, 10)
        assert site.spooled() == 0
        assert site.metric("telemetry_spool_orphans") == 0


def spool_command(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command(
        site.folder, "spool", *arguments, DB_URL=site.url, TELEMETRY_SPOOL_DIR=str(site.spool)
    )


# Files that go while they are in use


def remove(path: Path) -> None:
    path.unlink()


def remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def put_another(path: Path) -> None:
    """As whoever copies a spool back does."""
    other = path.with_name("other")
    shutil.copyfile(path, other)
    other.replace(path)


def put_nonsense(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"no database at all\n" * 3000)
    other.replace(path)


@pytest.mark.parametrize(
    "damage", [remove, remove_folder, put_another, put_nonsense], ids=lambda it: it.__name__
)
def test_a_spool_whose_file_goes_while_in_use_loses_nothing(
    site: Site, damage: Callable[[Path], None]
) -> None:
    before = [f"before {number}" for number in range(20)]
    with site.without_table():
        assert {site.send(each) for each in before} == {200}
        damage(site.spool / FILE_NAME)
        assert {site.send(f"after {number}") for number in range(3)} == {200}
        assert site.metric("telemetry_spool_corruptions") > 0
        # It is on the disk again, and not only in a file without a name.
        site.receiver.kill()
        site.receiver.start()
        assert site.spooled() == 23
    site.wait_until_stored([*before, "after 0", "after 1", "after 2"])
    assert "were saved into a new one" in site.receiver.log


def test_a_file_that_goes_is_missed_also_while_nobody_sends(site: Site) -> None:
    with site.without_table():
        assert site.send("ann") == 200
        (site.spool / FILE_NAME).unlink()
        eventually(lambda: site.metric("telemetry_spool_corruptions") == 1, 10)
        site.receiver.kill()
        site.receiver.start()
    site.wait_until_stored(["ann"])


@pytest.mark.parametrize("damage", [truncate, empty], ids=lambda it: it.__name__)
def test_a_spool_that_is_cut_off_while_in_use_takes_reports_at_once(
    site: Site, damage: Callable[[Path], None]
) -> None:
    with site.without_table():
        for number in range(60):
            body = report(f"before {number}", metrics=LARGE)
            assert site.receiver.send(body, site.overwriting).status_code == 200
        damage(site.spool / FILE_NAME)
        assert {site.send(f"after {number}") for number in range(3)} == {200}
        assert site.receiver.status("/health/ready") == 200
    eventually(lambda: not site.spooled(), 20)
    assert {f"after {number}" for number in range(3)} <= {*site.developers()}
