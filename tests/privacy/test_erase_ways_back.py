"""By none of the ways in comes back who was erased, whatever clocks say; and who returns, may."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.connections.registry import Connections, create
from developer_telemetry.constants import (
    CONNECTION_TABLE,
    OVERWRITE,
    RAW_TABLE,
    RECEIVER_TABLE,
    TOMBSTONE_TABLE,
)
from developer_telemetry.database.engine import now_us
from developer_telemetry.privacy import erasure as erasing
from developer_telemetry.privacy.erasure import (
    ErasureOutcome,
    erase,
    erase_again,
    find_returned,
    forget_receiver,
)
from developer_telemetry.privacy.person_search import PersonSearch, read_strategies
from developer_telemetry.receiver.ingest.conflicts import Conflicts
from developer_telemetry.receiver.ingest.decisions import Decisions
from developer_telemetry.receiver.ingest.ingestor import Outage
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.receiver.ingest.spooled_report import SpooledReport
from developer_telemetry.receiver.ingest.tombstone_lease import TombstoneLease
from developer_telemetry.receiver.jobs.erasure_watcher import ErasureWatcher, ReceiverIdentity
from developer_telemetry.receiver.jobs.spool_drainer import SpoolDrainer
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.storage.statistics import ReportCounts
from developer_telemetry.storage.tombstones import DOUBT_US, TombstoneCache, TombstoneKey
from developer_telemetry.storage.writer import store
from developer_telemetry.transfer.exporter import ExportOutput, ExportSelection
from developer_telemetry.transfer.exporter import read_raw_rows as exported_rows
from tests.support.factories import SECOND_US, arrival, body
from tests.support.imports import imported
from tests.support.receivers import (
    SECRET,
    Altered,
    add_connection,
    eventually,
    query,
    report,
    run_command,
)
from tests.support.rows import raw_rows

KEY = TombstoneKey(SECRET)
EMAIL = "ann@example.com"
HOUR_US = 3600 * SECOND_US


class Site:
    """The parts of a receiver that keeps reports and brings them in, and its folder."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self.spool = Spool(folder, 1 << 22)
        self.lease = TombstoneLease(engine, KEY, self.spool)
        self.identity = ReceiverIdentity(folder, 8090, False)
        self._connections = Connections(engine, SECRET)

    def close(self) -> None:
        self.spool.close()

    def take(self, count: int, ahead_us: int = 0, **fields: Any) -> None:
        """Spool reports of Ann, by a clock that is so far ahead."""
        for number in range(count):
            report_id = str(uuid.uuid4())
            sent = body(hostname=f"host-{number}", **fields).decode()
            arrived_us = now_us() + ahead_us + number
            epoch = self.lease.tombstones().epoch
            self.spool.put([SpooledReport(report_id, 1, arrived_us, sent, epoch)])

    def return_to_database(self) -> None:
        """Run until nothing waits any more and all erasures are confirmed."""
        watch = ErasureWatcher(self._engine, self.lease, self.spool, self.identity, KEY.fingerprint)
        drain = SpoolDrainer(
            self._engine,
            self.spool,
            Outage(),
            Conflicts(),
            self._connections,
            ReportCounts(),
            Metrics(),
            self.lease,
            Decisions(self._folder),
        )
        for rounds in (watch, drain):
            rounds.start()
        try:
            eventually(lambda: not self.spool.depth and not problems(self._engine), 30)
        finally:
            for rounds in (drain, watch):
                rounds.stop(10)


def problems(engine: Engine) -> list[str]:
    """The receivers that have not confirmed all tombstones."""
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            f"SELECT name FROM {RECEIVER_TABLE} WHERE confirmed <"
            f" (SELECT COALESCE(MAX(id), 0) FROM {TOMBSTONE_TABLE})"
        )
        return [row[0] for row in rows]


def erase_her(engine: Engine, text: str = "ann.lee", block: bool = False) -> ErasureOutcome:
    search = PersonSearch(engine, SECRET, text)
    return erase(engine, KEY, search, search.people(), block)


def developers(engine: Engine) -> list[str]:
    return [row["developer_id"] for row in raw_rows(engine)]


@pytest.fixture
def site(engine: Engine, tmp_path: Path) -> Iterator[Site]:
    """A receiver of the connection 1; the database knows it, as of one that was killed."""
    create(engine, SECRET, "fleet", "token")
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {CONNECTION_TABLE} SET id = 1")
    made = Site(engine, tmp_path)
    made.return_to_database()
    # It left in good order. A killed one stays on the list.
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO {RECEIVER_TABLE} (id, name, fingerprint, seen) VALUES"
            f" ('{made.identity.id}', 'away:8090', '{KEY.fingerprint}', '2026-01-01 00:00:00')"
        )
    with closing(made):
        yield made


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is there to answer, and no lease runs in these tests."""
    monkeypatch.setattr(erasing, "LEASE_SECONDS", -0.5)


# The spool of a receiver that was away, and clocks that jump --------------------------------------


@pytest.mark.parametrize("ahead_us", [0, 2 * SECOND_US, 5 * HOUR_US, 400 * DOUBT_US, -5 * HOUR_US])
def test_nothing_comes_out_of_the_spool_of_a_receiver_that_was_away(
    site: Site, engine: Engine, ahead_us: int
) -> None:
    site.take(5, ahead_us)
    site.take(1, ahead_us, developer="bob")

    outcome = erase_her(engine)
    assert [(each.name, bool(each.problem)) for each in outcome.answers] == [("away:8090", True)]
    assert 'erase again with --gone "away:8090"' in outcome.answers[0].remedy
    site.return_to_database()

    assert developers(engine) == ["bob"]
    assert [each.problem for each in erase_her(engine).answers] == []


def test_a_report_sent_days_after_the_erasure_to_a_receiver_that_could_not_know_is_kept(
    site: Site, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "_read_now_us", lambda engine: now_us() - 2 * DOUBT_US)
    erase_her(engine)
    site.take(1)
    site.return_to_database()
    assert developers(engine) == ["ann.lee"]


@pytest.mark.parametrize("behind_us", [5 * HOUR_US, -5 * HOUR_US])
def test_a_wrong_clock_of_the_database_neither_lets_in_nor_keeps_out(
    site: Site, engine: Engine, monkeypatch: pytest.MonkeyPatch, behind_us: int
) -> None:
    site.take(5)
    monkeypatch.setattr(erasing, "_read_now_us", lambda engine: now_us() - behind_us)
    erase_her(engine)
    site.return_to_database()
    assert developers(engine) == []

    # As `Ingestor` does it: what arrives now is later than the tombstone, for everybody to see.
    known = site.lease.tombstones()
    now = arrival()._replace(arrived_us=now_us(), epoch=known.epoch)
    now = now._replace(arrived_us=known.next_arrival_us(1, now.arrived_us, now.report))
    assert not known.covers(now)
    assert not TombstoneCache(engine, KEY).reload().covers(now)


def test_to_erase_again_by_a_clock_that_went_back_takes_nothing_back(
    site: Site, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    erase_her(engine)
    late = arrival()._replace(arrived_us=now_us())
    assert TombstoneCache(engine, KEY).reload().covers(late)
    monkeypatch.setattr(erasing, "_read_now_us", lambda engine: now_us() - 5 * HOUR_US)
    erase_her(engine)
    assert TombstoneCache(engine, KEY).reload().covers(late)


class ClockAhead(Altered):
    """Its clock jumped 5 hours ahead after it was compared with the database's."""

    def command(self) -> list[str]:
        command = super().command()
        ahead = "\n".join(
            [
                "import developer_telemetry.receiver.ingest.ingestor as ingest",
                "right = ingest.now_us",
                f"ingest.now_us = lambda: right() + {5 * HOUR_US}",
            ]
        )
        return [*command[:-1], f"{ahead}\n{command[-1]}"]


def test_a_running_receiver_whose_clock_is_ahead_takes_her_again_and_brings_nothing_back(
    migrated_url: str, tmp_path: Path
) -> None:
    connection = add_connection(migrated_url)
    moved = f"ALTER TABLE {RAW_TABLE} RENAME TO moved_away"
    with ClockAhead(migrated_url, tmp_path) as receiver:
        query(migrated_url, moved)
        for hour in range(5):
            sent = report("ann.lee", hostname=f"host-{hour}")
            assert receiver.send(sent, connection).status_code == 200
        receiver.kill()
        query(migrated_url, f"ALTER TABLE moved_away RENAME TO {RAW_TABLE}")

        done = run_command(tmp_path, "erase", "ann.lee", "--yes", DB_URL=migrated_url)
        assert done.returncode == 1
        assert f":{receiver.port}: its spool may hold reports of this person" in done.stderr
        receiver.start()
        again = run_command(tmp_path, "erase", "ann.lee", "--yes", DB_URL=migrated_url)
        assert again.returncode == 0, again.stderr
        assert again.stderr.startswith("Database: ")
        assert len(again.stderr.splitlines()) == 1
        assert receiver.send(report("bob"), connection).status_code == 200
        assert receiver.send(report("ann.lee", hostname="new"), connection).status_code == 200

        found = f"SELECT developer_id, hostname FROM {RAW_TABLE} ORDER BY developer_id"
        assert eventually(lambda: len(query(migrated_url, found)) == 2, 10)
        assert query(migrated_url, found) == [("ann.lee", "new"), ("bob", "laptop")]


# Others by the same address -----------------------------------------------------------------------


def test_reports_in_a_spool_without_the_address_go_with_those_that_have_it(
    site: Site, engine: Engine
) -> None:
    store(engine, [arrival(developer="ann.lee")], {1: OVERWRITE})  # without her address
    site.take(1, email=EMAIL)
    site.take(4)
    site.take(1, developer="bob", email="bob@example.com")

    erase_her(engine, EMAIL)
    site.return_to_database()

    assert developers(engine) == ["ann.lee", "bob"]
    assert TombstoneCache(engine, KEY).reload().find_by_developer(1, "ann.lee")
    erase_her(engine, "ann.lee")
    assert developers(engine) == ["bob"]


# A restored dump, a replica in the primary's place ------------------------------------------------


def lose_erasures(engine: Engine) -> None:
    """As a database does that is restored to an earlier state, or a replica that was behind."""
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {TOMBSTONE_TABLE}")


@pytest.mark.parametrize("blocked", [False, True])
def test_a_receiver_gives_a_restored_database_its_erasures_back(
    site: Site, engine: Engine, tmp_path_factory: pytest.TempPathFactory, blocked: bool
) -> None:
    restored = arrival()
    store(engine, [restored, arrival(developer="bob")], {1: OVERWRITE})
    erase_her(engine, block=blocked)
    site.return_to_database()
    lose_erasures(engine)
    store(engine, [restored], {1: OVERWRITE})
    with closing(Site(engine, tmp_path_factory.mktemp("other"))) as other:
        other.take(5)
        site.return_to_database()
        eventually(lambda: TombstoneCache(engine, KEY).reload(), 1)
        other.return_to_database()

    assert sorted(developers(engine)) == ["ann.lee", "bob"]
    scope = read_strategies(engine)
    people = find_returned(engine, KEY, scope)
    assert [each.developer_id for each in people] == ["ann.lee"]
    erase_again(engine, scope, people)
    assert developers(engine) == ["bob"]
    assert not find_returned(engine, KEY, scope)


def test_who_was_erased_once_more_is_not_blocked_by_what_a_receiver_remembers(
    site: Site, engine: Engine
) -> None:
    erase_her(engine, block=True)
    site.return_to_database()
    erase_her(engine, block=False)
    site.return_to_database()

    known = TombstoneCache(engine, KEY).reload()
    assert not known.covers(arrival()._replace(arrived_us=now_us() + HOUR_US))
    assert site.lease.missing() == []


def test_a_receiver_that_starts_without_a_database_obeys_what_it_remembers(
    site: Site, engine: Engine
) -> None:
    erase_her(engine, block=True)
    site.return_to_database()

    again = TombstoneLease(engine, KEY, site.spool)
    assert again.tombstones().covers(arrival()._replace(arrived_us=now_us()))
    assert again.tombstones().epoch == site.lease.tombstones().epoch == 1


# An archive ---------------------------------------------------------------------------------------


def test_an_export_of_reports_from_the_future_is_passed_over(
    site: Site, engine: Engine, tmp_path: Path
) -> None:
    ahead = arrival()._replace(arrived_us=now_us() + 5 * HOUR_US)
    store(engine, [ahead], {1: OVERWRITE})
    path = tmp_path / "export.ndjson"
    with path.open("wb") as file:
        output = ExportOutput(file, as_csv=False)
        for row in exported_rows(engine, ExportSelection()):
            output.write(row)

    erase_her(engine)

    assert imported(engine, path).counts.erased == 1
    assert developers(engine) == []


# Receivers that are expected ----------------------------------------------------------------------


def test_a_receiver_is_expected_until_somebody_says_that_its_spool_is_gone(
    site: Site, engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with closing(Site(engine, tmp_path_factory.mktemp("other"))) as other:
        other.return_to_database()  # which forgets nobody, however long they have been away
    assert [each.name for each in erase_her(engine).answers] == ["away:8090"]
    assert forget_receiver(engine, "elsewhere:1") == 0
    assert forget_receiver(engine, "away:8090") == 1
    assert erase_her(engine).answers == []
