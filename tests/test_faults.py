"""Nothing acknowledged is ever lost, whatever breaks; `make soak` does the same for longer."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Callable, Optional

import httpx
import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.dialects import open_engine
from developer_telemetry.merging import RAW_TABLE
from developer_telemetry.receiver.spool import FILE_NAME, dead_letters
from developer_telemetry.schema import migrate
from developer_telemetry.storage import TOOL_TABLE
from tests.oracle import Oracle
from tests.receivers import (
    Receiver,
    add_connection,
    at_once,
    eventually,
    free_port,
    query,
    report,
    run_command,
)
from tests.servers import (
    HOST,
    MariaDB,
    PostgreSQL,
    Server,
    ServerMissing,
    create_database,
    drop_database,
)

# Without the rights of an administrator, whom MariaDB lets write even when it is read-only.
ORDINARY = "telemetry"
STOP_SECONDS = 15.0
# Eight kilobytes, two pages of the spool's file.
LARGE = {"projects": ["x" * 200] * 40}
CONNECTION_TABLE = "_tool_developer_telemetry_connections"


class Site:
    """A receiver, and a database that tests break: one connection overwrites, one sums."""

    def __init__(self, server: Optional[Server], url: str, folder: Path) -> None:
        self.server = server
        self.url = url
        self.folder = folder
        self.spool = folder / "spool"
        self.settings: dict[str, str] = {}
        with closing_engine(url) as engine:
            migrate(engine)
        self.overwriting = add_connection(url)
        self.summing = add_connection(url, strategy="sum")
        self.receiver = self.another_receiver()

    def another_receiver(self, **settings: str) -> Receiver:
        """One more, or instead of the first with other settings, on the same spool."""
        url = self.url.replace("merico:merico@", f"{ORDINARY}:{ORDINARY}@")
        return Receiver(
            url if self.url.startswith("mysql") else self.url,
            self.folder,
            TELEMETRY_SPOOL_DIR=str(self.spool),
            **settings,
        )

    def oracle(self, senders: int = 8) -> Oracle:
        return Oracle(self.receiver, {self.overwriting: "", self.summing: "sum"}, senders)

    def metric(self, name: str) -> float:
        """A figure of the receiver's without labels."""
        page = self.receiver.client.get("/metrics").text
        [value] = [line.split()[1] for line in page.splitlines() if line.startswith(f"{name} ")]
        return float(value)

    def spooled(self) -> int:
        """How many reports wait in the spool."""
        return int(self.metric("telemetry_spool_reports"))

    def send(self, developer: str, connection_id: int = 0) -> int:
        """The status that one report is answered with."""
        return self.receiver.send(report(developer), connection_id or self.overwriting).status_code

    def developers(self, table: str = RAW_TABLE) -> list[str]:
        """Whose reports are there, once for each, sorted."""
        return sorted(row[0] for row in query(self.url, f"SELECT developer_id FROM {table}"))

    def becomes_stored(self, developers: list[str]) -> None:
        """Return when these are in both layers, and nobody else."""
        for table in (RAW_TABLE, TOOL_TABLE):
            eventually(partial(self._has, table, sorted(developers)), 20)

    def _has(self, table: str, developers: list[str]) -> bool:
        return self.developers(table) == developers

    @contextmanager
    def without_table(self) -> Iterator[None]:
        """The cheapest outage there is: nothing can be stored meanwhile."""
        query(self.url, f"ALTER TABLE {TOOL_TABLE} RENAME TO moved_away")
        try:
            yield
        finally:
            query(self.url, f"ALTER TABLE moved_away RENAME TO {TOOL_TABLE}")


@contextmanager
def closing_engine(url: str) -> Iterator[Engine]:
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module", params=[MariaDB, PostgreSQL], ids=["mariadb", "postgresql"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that tests may kill, unlike the one that all others share."""
    with own_server(request.param) as server:
        yield server


@contextmanager
def own_server(make: Callable[[], Server]) -> Iterator[Server]:
    try:
        server = make()
    except ServerMissing as error:
        missing(str(error))
    with server:
        if server.name == "mariadb":
            query(server.url(""), f"CREATE USER {ORDINARY}@'{HOST}' IDENTIFIED BY '{ORDINARY}'")
            query(server.url(""), f"GRANT ALL ON `faults%`.* TO {ORDINARY}@'{HOST}'")
        yield server


def missing(what: str) -> None:
    """Skip what can't be tested here; CI has to be able to."""
    if os.environ.get("CI") == "true":
        pytest.fail(what, pytrace=False)
    pytest.skip(f"NOT TESTED: {what}")


@pytest.fixture
def site(server: Server, tmp_path: Path) -> Iterator[Site]:
    """A running receiver on each server."""
    url = server.url(f"faults_{secrets.token_hex(4)}")
    create_database(url)
    site = Site(server, url, tmp_path)
    with site.receiver:
        yield site
    server.start()
    drop_database(url)


@pytest.fixture
def small_site(tmp_path: Path) -> Iterator[Site]:
    """A running receiver on SQLite, where an outage costs no time."""
    site = Site(None, f"sqlite:///{tmp_path}/telemetry.db", tmp_path)
    with site.receiver:
        yield site


def server_of(site: Site) -> Server:
    assert site.server is not None
    return site.server


# Under load


def test_nothing_is_lost_when_receiver_and_database_are_killed(site: Site) -> None:
    server, receiver = server_of(site), site.receiver
    with site.oracle() as oracle:
        oracle.wait_for(100)
        for _ in range(3):
            receiver.kill()
            receiver.start()
            oracle.wait_for(50)
        server.kill()
        oracle.wait_for(100)
        server.start()
        oracle.wait_for(50)
        server.kill()
        oracle.wait_for(20)
        receiver.kill()
        receiver.start(answering="/health/live")
        oracle.wait_for(20)
        server.start()
        receiver.kill()
        receiver.start()
        oracle.wait_for(50)
    oracle.check(site.url)


def test_senders_need_not_wait_for_a_database_that_hangs(site: Site) -> None:
    server = server_of(site)
    with site.oracle() as oracle:
        oracle.wait_for(50)
        oracle.forget_times()
        server.suspend()
        try:
            oracle.wait_for(8)
            time_of_rescue = oracle.figures.slowest_seconds
            oracle.forget_times()
            oracle.wait_for(200)
        finally:
            server.resume()
        oracle.wait_for(50)
    figures = oracle.check(site.url)

    assert time_of_rescue < 10
    # Who comes after the first ones need not find out again.
    assert figures.slowest_seconds < 5
    assert figures.asked_to_come_back == 0
    eventually(lambda: not site.spooled(), 10)


def test_reports_are_spooled_while_the_database_is_read_only(site: Site) -> None:
    with site.oracle() as oracle:
        oracle.wait_for(50)
        with read_only(server_of(site)):
            eventually(site.spooled, 10)
            oracle.wait_for(100)
        oracle.wait_for(50)
    assert oracle.check(site.url).asked_to_come_back == 0
    eventually(lambda: not site.spooled(), 10)


@contextmanager
def read_only(server: Server) -> Iterator[None]:
    if server.name == "mariadb":
        on, off = ["SET GLOBAL read_only = ON"], ["SET GLOBAL read_only = OFF"]
    else:
        parameter, reload = "default_transaction_read_only", "SELECT pg_reload_conf()"
        on = [f"ALTER SYSTEM SET {parameter} = on", reload]
        off = [f"ALTER SYSTEM RESET {parameter}", reload]
    for statement in on:
        query(server.url(""), statement)
    try:
        yield
    finally:
        for statement in off:
            query(server.url(""), statement)


def test_reports_are_spooled_while_a_table_is_away(site: Site) -> None:
    with site.oracle() as oracle:
        for table in (RAW_TABLE, TOOL_TABLE, CONNECTION_TABLE):
            oracle.wait_for(20)
            query(site.url, f"ALTER TABLE {table} RENAME TO moved_away")
            oracle.wait_for(100)
            query(site.url, f"ALTER TABLE moved_away RENAME TO {table}")
    assert oracle.check(site.url).asked_to_come_back == 0
    eventually(lambda: not site.spooled(), 10)


# Stopping and starting without the database


@pytest.mark.parametrize("trouble", ["killed", "hanging"])
def test_what_was_accepted_is_kept_when_it_stops_without_its_database(
    site: Site, trouble: str
) -> None:
    server, receiver = server_of(site), site.receiver
    with site.oracle() as oracle:
        oracle.wait_for(50)
        server.kill() if trouble == "killed" else server.suspend()
        try:
            if trouble == "killed":
                oracle.wait_for(50)
            began = time.monotonic()
            status = receiver.stop()
            took = time.monotonic() - began
        finally:
            server.start() if trouble == "killed" else server.resume()
        receiver.start()
        oracle.wait_for(20)
    oracle.check(site.url)

    assert status == 0
    assert took < STOP_SECONDS


def test_it_knows_its_senders_when_it_starts_without_the_database(site: Site) -> None:
    server, receiver = server_of(site), site.receiver
    assert site.send("early") == 200
    unknown = site.summing + 1
    receiver.kill()
    server.kill()
    receiver.start()  # ready, since it can keep what known senders send
    answers = [
        receiver.send(report("patient"), site.overwriting),
        receiver.send(report("stranger"), site.overwriting, "another token"),
        receiver.send(report("stranger"), unknown),
    ]
    server.start()

    # The token may have been changed and the connection made a moment ago.
    assert [answer.status_code for answer in answers] == [200, 503, 503]
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers[1:])
    site.becomes_stored(["early", "patient"])
    late = [
        receiver.send(report("stranger"), site.overwriting, "another token"),
        receiver.send(report("stranger"), unknown),
    ]
    assert [answer.status_code for answer in late] == [401, 404]
    assert site.developers() == ["early", "patient"]


# Reports that can't be stored


@pytest.mark.parametrize("meanwhile", ["stored at once", "from the spool"])
def test_a_report_that_the_database_refuses_is_set_aside_and_its_neighbours_are_stored(
    site: Site, meanwhile: str
) -> None:
    neighbours = [f"neighbour {number}" for number in range(12)]
    crowd = [*neighbours[:5], "poison", *neighbours[5:]]
    query(
        site.url,
        f"ALTER TABLE {RAW_TABLE} ADD CONSTRAINT picky CHECK (developer_id <> 'poison')",
    )

    def send_all() -> list[int]:
        return at_once([partial(site.send, developer) for developer in crowd])

    if meanwhile == "from the spool":
        with site.without_table():
            statuses = send_all()
            assert site.spooled() == len(crowd)
    else:
        statuses = send_all()

    assert statuses == [200] * len(crowd)
    site.becomes_stored(neighbours)
    eventually(lambda: site.metric("telemetry_spool_dead") == 1, 10)
    [letter] = dead_letters(site.spool)
    assert '"poison"' in letter.report.payload
    assert "picky" in letter.reason
    assert "picky" in site.receiver.log
    assert site.receiver.status("/health/ready") == 200


def test_a_report_larger_than_the_database_takes_is_no_outage(tmp_path: Path) -> None:
    with own_server(MariaDB) as server:
        url = server.url("faults")
        create_database(url)
        site = Site(server, url, tmp_path)
        query(url, "SET GLOBAL max_allowed_packet = 65536")
        with site.receiver as receiver:
            huge = report("poison", metrics={"projects": ["x" * 1000] * 100})
            neighbours = [f"neighbour {number}" for number in range(12)]
            answers = at_once(
                [
                    partial(receiver.send, huge, site.overwriting),
                    *(partial(receiver.send, report(n), site.overwriting) for n in neighbours),
                ]
            )
            assert [answer.status_code for answer in answers] == [200] * 13
            site.becomes_stored(neighbours)
            assert site.metric("telemetry_spool_dead") == 1
    [letter] = dead_letters(site.spool)
    assert '"poison"' in letter.report.payload
    # All that the driver knows: the server hung up on it.
    assert "gone away" in letter.reason or "packet" in letter.reason


def test_spooled_reports_of_a_deleted_connection_are_dropped_and_counted(small_site: Site) -> None:
    site = small_site
    with site.without_table():
        assert [site.send("kept"), site.send("left", site.summing)] == [200, 200]
        assert site.spooled() == 2
        query(site.url, f"DELETE FROM {CONNECTION_TABLE} WHERE id = {site.summing}")

    site.becomes_stored(["kept"])
    eventually(lambda: not site.spooled(), 10)
    assert site.metric("telemetry_dropped_total") == 1
    assert site.metric("telemetry_drained_total") == 1


# The spool itself


@pytest.mark.parametrize("disk", ["bound", "small disk"])
def test_a_full_spool_asks_senders_to_come_back_and_loses_nothing(
    small_site: Site, disk: str
) -> None:
    site = small_site
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
            site.becomes_stored([*kept, "again"])
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
    """Send until a report is refused; return whose reports were taken, and the refusal."""
    kept: list[str] = []
    for number in range(1000):
        body = report(f"developer {number}", metrics=LARGE)
        answer = site.receiver.send(body, site.overwriting)
        if answer.status_code != 200:
            return kept, answer
        kept.append(f"developer {number}")
    raise AssertionError("the spool never got full")


def test_two_receivers_do_not_share_a_spool(small_site: Site) -> None:
    second = run_command(
        small_site.folder,
        "serve",
        DB_URL=small_site.url,
        TELEMETRY_PORT=str(free_port()),
        TELEMETRY_SPOOL_DIR=str(small_site.spool),
    )

    assert second.returncode == 2
    assert "belongs to another running receiver" in second.stderr
    assert "TELEMETRY_SPOOL_DIR" in second.stderr
    assert "Traceback" not in second.stderr
    assert small_site.send("ann") == 200


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip_bits(file: Path) -> None:
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4096] = bytes(255 - byte for byte in data[middle : middle + 4096])
    file.write_bytes(data)


def empty(file: Path) -> None:
    os.truncate(file, 0)


def change_version(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("damage", "least"),
    [(truncate, 1), (flip_bits, 10), (empty, 0), (change_version, 60)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_damaged_spool_does_not_keep_it_from_starting(
    small_site: Site, damage: Callable[[Path], None], least: int
) -> None:
    site = small_site
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
