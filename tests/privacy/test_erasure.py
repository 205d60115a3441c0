"""Erasing people: on every database, while receivers run, lie dead or wake up."""

from __future__ import annotations

import secrets
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.connections.registry import Connections, create
from developer_telemetry.constants import (
    CONNECTION_TABLE,
    OVERWRITE,
    RAW_TABLE,
    SUM,
    TASK_TABLE,
    TOOL_TABLE,
)
from developer_telemetry.database.engine import now_us
from developer_telemetry.database.migrate import migrate
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.pipeline.accounts import convert_accounts
from developer_telemetry.pipeline.cicd_tasks import convert_tasks
from developer_telemetry.privacy.erasure import erase
from developer_telemetry.privacy.person_data import ErasureEnd, PersonData, list_erased_tables
from developer_telemetry.privacy.person_search import Person, PersonSearch
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.receiver.ingest.spooled_report import SpooledReport, is_erased
from developer_telemetry.receiver.ingest.tombstone_lease import TombstoneLease
from developer_telemetry.storage.guarded_writer import StoredReports, store_excluding_erased
from developer_telemetry.storage.tombstones import (
    LEASE_SECONDS,
    NONE,
    OutdatedTombstones,
    Tombstone,
    TombstoneCache,
    TombstoneKey,
    Tombstones,
)
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival, body
from tests.support.layers import STRATEGIES, rewritten
from tests.support.receivers import (
    SECRET,
    Receiver,
    add_connection,
    eventually,
    query,
    report,
    run_command,
)
from tests.support.rows import add_connections, raw_rows, rows, tool_rows
from tests.support.servers import create_database, drop_database, in_database
from tests.support.sites import closing_engine

KEY = TombstoneKey(SECRET)
# Everything by which she could be known, and what nobody else has.
TRACES = [b"ann.lee", b"ann lee", b"zo\xc3\xab lee", b"anns-laptop", b"anns-tower"]
EMAIL = "Ann.Lee@Example.com"
LINKS = "user_accounts"


class Lake(NamedTuple):
    """A database with two receivers and two connections."""

    url: str
    folder: Path
    one: Receiver
    other: Receiver
    overwriting: int
    summing: int

    def erase(self, *arguments: str) -> tuple[int, str]:
        """The exit code of the command, and all that it says."""
        done = run_command(self.folder, "erase", *arguments, DB_URL=self.url)
        return done.returncode, done.stdout + done.stderr

    def block(self, developer: str) -> None:
        """Return what the command does with --block and --yes."""
        with closing_engine(self.url) as engine:
            search = PersonSearch(engine, SECRET, developer)
            erase(engine, KEY, search, search.people(), block=True)

    def spool(self, receiver: Receiver) -> Path:
        return self.folder / f"spool-{receiver.port}"

    def spooled(self, receiver: Receiver) -> int:
        page = receiver.client.get("/metrics").text
        [depth] = [
            line.split()[1]
            for line in page.splitlines()
            if line.startswith("telemetry_spool_reports ")
        ]
        return int(float(depth))

    def developers(self) -> list[str]:
        return sorted(row[0] for row in query(self.url, f"SELECT developer_id FROM {RAW_TABLE}"))

    def send_all(self, receiver: Receiver, *developers: str) -> None:
        """A report of each of these; Ann's in many shapes."""
        for developer in developers:
            for sent in bodies(developer):
                for connection in (self.overwriting, self.summing):
                    assert receiver.send(sent, connection).status_code == 200

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nothing can be stored meanwhile."""
        query(self.url, f"ALTER TABLE {TOOL_TABLE} RENAME TO moved_away")
        try:
            yield
        finally:
            query(self.url, f"ALTER TABLE moved_away RENAME TO {TOOL_TABLE}")


def bodies(developer: str) -> list[Any]:
    """Return what one developer sends; of Ann also by another name, known by her address alone."""
    if developer != "ann.lee":
        return [report(developer, email=f"{developer}@example.com", hostname=f"{developer}-pc")]
    ann = {"email": EMAIL, "name": "Zoë Lee", "hostname": "anns-laptop"}
    counts = {"development_activity": {"test_runs_detected": 3, "build_commands_detected": 1}}
    return [
        report(developer, metrics=counts, **ann),
        report(developer, date="2026-11-22", **{**ann, "hostname": "anns-tower", "email": ""}),
        {"developer_id": developer, "date": "2026-11-21", "active_hours": 4, **ann},
        report("Ann Lee", **ann),
        report("Ann Lee", email="other@example.com"),  # the day's newest doesn't have the address
    ]


@pytest.fixture(scope="module", params=["sqlite", "mariadb", "postgresql"])
def lake(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp(request.param)
    url = f"sqlite:///{folder}/telemetry.db"
    if request.param != "sqlite":
        server = request.getfixturevalue(f"{request.param}_server")
        url = in_database(server, f"telemetry_test_{secrets.token_hex(6)}")
        create_database(url)
    with closing_engine(url) as engine:
        migrate(engine)
    # As DevLake has it, in its own database.
    query(url, f"CREATE TABLE {LINKS} (user_id VARCHAR(255), account_id VARCHAR(255))")
    connections = add_connection(url), add_connection(url, strategy="sum")
    with Receiver(url, folder) as one, Receiver(url, folder) as other:
        yield Lake(url, folder, one, other, *connections)
    if request.param != "sqlite":
        drop_database(url)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path, 1 << 20)
    yield opened
    opened.close()


def make_domain_rows(lake: Lake) -> None:
    """As a blueprint's run does, with its stage for the organization."""
    with closing_engine(lake.url) as engine:
        for connection in (lake.overwriting, lake.summing):
            list(convert_accounts(engine, connection))
            list(convert_tasks(engine, connection))
    query(lake.url, f"INSERT INTO {LINKS} SELECT 'U1', id FROM accounts")


def dump(url: str) -> bytes:
    """Every value of every table, and of SQLite the file."""
    with closing_engine(url) as engine:
        tables = inspect(engine).get_table_names()
    values = [row for table in tables for row in query(url, f"SELECT * FROM {table}")]
    dumped = repr(values).encode()
    if url.startswith("sqlite"):
        dumped += Path(url.replace("sqlite:///", "", 1)).read_bytes()
    return dumped


def found_in(content: bytes) -> list[bytes]:
    return [trace for trace in TRACES if trace in content.lower()]


def files_with_traces(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if found_in(path.read_bytes())]


def others(lake: Lake) -> list[Any]:
    """All that there is of Bob."""
    return [
        sorted(map(repr, query(lake.url, f"SELECT * FROM {table} WHERE {column} LIKE '%bob%'")))
        for table, column in (
            (RAW_TABLE, "developer_id"),
            (TOOL_TABLE, "developer_id"),
            ("accounts", "id"),
            (LINKS, "account_id"),
        )
    ]


# With receivers running ---------------------------------------------------------------------------


def test_nothing_of_a_person_is_left_anywhere_and_nothing_comes_back(lake: Lake) -> None:
    lake.send_all(lake.one, "ann.lee", "bob")
    make_domain_rows(lake)
    before = others(lake)
    assert found_in(dump(lake.url)) == TRACES

    code, said = lake.erase(EMAIL.swapcase(), "--dry-run")
    assert code == 0
    assert f"{lake.overwriting}           Ann Lee" in said
    assert "Nothing was removed" in said
    assert found_in(dump(lake.url)) == TRACES

    with lake.away():
        lake.send_all(lake.other, "ann.lee", "cem")
        assert lake.spooled(lake.other) == 12
    code, said = lake.erase(EMAIL, "--yes")

    assert code == 0, said
    assert f":{lake.other.port}: " in said
    assert found_in(dump(lake.url)) == []
    eventually(lambda: lake.spooled(lake.other) == 0, 10)
    for receiver in (lake.one, lake.other):
        assert files_with_traces(lake.spool(receiver)) == []
    assert others(lake) == before
    with closing_engine(lake.url) as engine:
        rewritten(engine, {lake.overwriting: OVERWRITE, lake.summing: SUM})
    assert found_in(dump(lake.url)) == []
    assert lake.developers().count("cem") == 2


def test_who_is_blocked_gets_a_200_and_leaves_nothing_until_erased_without_that(lake: Lake) -> None:
    lake.send_all(lake.one, "evelyn")
    lake.block("evelyn")

    lake.send_all(lake.one, "evelyn")
    with lake.away():
        lake.send_all(lake.other, "evelyn")
        assert lake.spooled(lake.other) == 0
    lake.send_all(lake.other, "evelyn", "finn")

    assert lake.developers().count("finn") == 2
    assert b"evelyn" not in dump(lake.url)
    assert "accepted again" in lake.erase("evelyn", "--yes")[1]
    lake.send_all(lake.one, "evelyn")
    assert lake.developers().count("evelyn") == 2


def test_a_killed_receiver_is_named_and_brings_nothing_back(lake: Lake) -> None:
    lake.send_all(lake.one, "ann.lee")
    with lake.away():
        lake.send_all(lake.other, "ann.lee", "gus")
        lake.other.kill()
    assert files_with_traces(lake.spool(lake.other)) == ["spool.db"]
    try:
        code, said = lake.erase(EMAIL, "--yes")
        assert code == 1
        assert f":{lake.other.port}: it has not answered" in said
        assert f":{lake.one.port}: 0 reports" in said
    finally:
        lake.other.start()

    eventually(lambda: lake.developers().count("gus") == 2, 10)
    eventually(lambda: lake.spooled(lake.other) == 0, 10)
    assert files_with_traces(lake.spool(lake.other)) == []
    assert found_in(dump(lake.url)) == []


def block(engine: Engine) -> None:
    """Erase Ann, whose reports in these tests arrive whenever they do."""
    search = PersonSearch(engine, SECRET, "ann.lee")
    erase(engine, KEY, search, search.people(), block=True)


# Who is meant -------------------------------------------------------------------------------------


def people(engine: Engine, text: str) -> list[Person]:
    return PersonSearch(engine, SECRET, text).people()


def test_a_developer_is_spelled_exactly_and_an_address_in_any_case(engine: Engine) -> None:
    arrivals = [
        arrival(developer="ann"),
        arrival(developer="Ann", email="A@example.com"),
        arrival(sent=body(developer="esc", email="É@x.com").replace(b"@", b"\\u0040")),
        arrival(developer="late", email="a@EXAMPLE.com"),
        arrival(developer="late", email="later@example.com", after=1),
        arrival(developer="near", email="aa@example.com"),
        arrival(developer="in text", email="", name="a@example.com"),
        arrival(developer="ann", connection_id=2),
    ]
    store(engine, arrivals, STRATEGIES)

    assert people(engine, "ann") == [Person(1, "ann"), Person(2, "ann")]
    assert people(engine, "a@example.COM") == [Person(1, "Ann"), Person(1, "late")]
    assert people(engine, "é@X.com") == [Person(1, "esc")]
    assert PersonSearch(engine, SECRET, "ann", only=2).people() == [Person(2, "ann")]
    with pytest.raises(ConfigurationError, match="no connection '7'"):
        PersonSearch(engine, SECRET, "ann", only=7)


def test_who_shares_an_address_is_named_and_stays(engine: Engine) -> None:
    store(
        engine,
        [arrival(developer="ann", email="A@x.com"), arrival(developer="bot", email="a@x.com")],
        STRATEGIES,
    )
    search = PersonSearch(engine, SECRET, "ann")

    assert search.namesakes(search.people()) == [("a@x.com", Person(1, "bot"))]
    erase(engine, KEY, search, search.people(), block=False)
    assert [row["developer_id"] for row in raw_rows(engine)] == ["bot"]


@pytest.mark.parametrize("email", ["", "  ", "root@localhost", "NoReply@x.com", "user@(none)"])
def test_an_address_that_is_nobodys_own_names_nobody_else(engine: Engine, email: str) -> None:
    store(
        engine, [arrival(developer=name, email="x") for name in ("ann", "bob", "cid")], STRATEGIES
    )
    mark = "?" if engine.dialect.name == "sqlite" else "%s"
    for _ in convert_accounts(engine, 1):
        pass
    with engine.begin() as connection:  # as the Go plugin stored it
        for table in (TOOL_TABLE, "accounts"):
            connection.exec_driver_sql(f"UPDATE {table} SET email = {mark}", (email,))
    search = PersonSearch(engine, SECRET, "ann")

    assert search.people() == [Person(1, "ann")]
    assert search.namesakes(search.people()) == []
    if email.strip():  # asked for, it is everybody's who has it
        assert len(people(engine, email)) == 3


def test_people_with_pseudonyms_are_found_and_covered_by_their_names(engine: Engine) -> None:
    connection_id = create(engine, SECRET, "fleet", "token")
    with engine.begin() as database:
        database.exec_driver_sql(f"UPDATE {CONNECTION_TABLE} SET pseudonyms = TRUE")
    connections = Connections(engine, SECRET)
    connections.reload()
    connection = connections.get(connection_id)
    assert connection is not None
    covered = connection.parse(body(email=EMAIL))
    stored = arrival(connection_id=connection_id)._replace(report=covered)
    store(engine, [stored], {connection_id: OVERWRITE})

    for text in ("ann.lee", EMAIL.upper(), covered.developer_id, covered.email):
        assert people(engine, text) == [Person(connection_id, covered.developer_id)]
    block(engine)

    assert raw_rows(engine) == []
    known = TombstoneCache(engine, KEY).reload()
    uncovered = arrival(connection_id=connection_id)
    assert known.covers(stored)
    assert known.covers(uncovered)
    assert not known.covers(stored._replace(connection_id=connection_id + 1))


# What goes and what stays -------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [OVERWRITE, SUM])
def test_a_day_is_made_anew_of_what_arrived_since(engine: Engine, strategy: str) -> None:
    old = arrival(hostname="old", metrics={"active_hours": 5})
    since = arrival(hostname="new", metrics={"active_hours": 2}, after=60)
    store(engine, [old, since], {1: strategy})
    first = raw_rows(engine)[0]["id"]

    PersonData(engine, Person(1, "ann.lee"), []).remove_days(
        strategy, ErasureEnd(first, old.arrived_us)
    )

    assert [row["hostname"] for row in raw_rows(engine)] == ["new"]
    [row] = tool_rows(engine)
    assert (row["active_hours"], row["hostname"]) == (2, "new")
    assert rewritten(engine, {1: strategy}) == [row]


def test_what_was_stored_goes_also_if_it_arrived_in_the_future(engine: Engine) -> None:
    hours = 48 * 3600 + (now_us() - arrival().arrived_us) / 1_000_000
    store(engine, [arrival(after=hours)], STRATEGIES)
    search = PersonSearch(engine, SECRET, "ann.lee")

    outcome = erase(engine, KEY, search, search.people(), block=False)

    assert outcome.removed == {RAW_TABLE: 1, TOOL_TABLE: 1}
    assert raw_rows(engine) == []


def test_the_tasks_of_developers_with_alike_ids_stay(engine: Engine) -> None:
    counts = {"development_activity": {"test_runs_detected": 1}}
    developers = ["ann", "ann:2026-11-23", "an_", "x" * 250]
    store(engine, [arrival(developer=each, metrics=counts) for each in developers], STRATEGIES)
    for _ in convert_tasks(engine, 1):
        pass
    for developer in developers[2:]:
        search = PersonSearch(engine, SECRET, developer)
        assert (
            PersonData(engine, Person(1, developer), list_erased_tables(engine)).counts()[
                TASK_TABLE
            ]
            == 1
        )
        outcome = erase(engine, KEY, search, search.people(), block=False)
        assert outcome.removed[TASK_TABLE] == 1

    left = rows(engine, TASK_TABLE, ("id",), "id")
    assert [row["id"].partition(":1:")[2] for row in left] == [
        "ann:2026-11-23",
        "ann:2026-11-23:2026-11-23",
    ]


# What writers obey --------------------------------------------------------------------------------


def stone(subject: str, until_us: int, connection_id: int = 0, blocked: bool = False) -> Tombstones:
    return Tombstones(KEY, NONE, [Tombstone(connection_id, subject, until_us, blocked)])


def test_a_tombstone_covers_what_arrived_before_it_on_its_connection() -> None:
    report = arrival(developer="ann", email="A@x.com")
    at = report.arrived_us

    assert stone(KEY.developer("ann"), at).covers(report)
    assert stone(KEY.email("a@X.com"), at, 1).covers(report)
    assert stone(KEY.developer("ann"), 0, blocked=True).covers(report)
    assert not stone(KEY.developer("ann"), at - 1).covers(report)
    assert not stone(KEY.developer("ann"), at, 2).covers(report)
    assert not stone(KEY.developer("Ann"), at).covers(report)
    assert not stone(KEY.developer("a@x.com"), at).covers(report)
    assert not Tombstones(KEY).covers(arrival(developer="", sent=body(email="")))


def test_a_subject_can_be_told_by_nobody_without_the_secret() -> None:
    subjects = {KEY.developer("ann"), KEY.email("ann"), TombstoneKey("another").developer("ann")}
    assert len(subjects) == 3
    assert TombstoneKey("another").fingerprint != KEY.fingerprint


def test_who_reads_tombstones_too_late_stores_nothing_of_them(engines: list[Engine]) -> None:
    add_connections(engines[0], STRATEGIES)
    register = TombstoneCache(engines[0], KEY)
    register.reload()
    block(engines[1])

    kept = store_excluding_erased(
        engines[0], register, [arrival(), arrival(developer="bob")], STRATEGIES
    )

    assert [each.report.developer_id for each in kept.arrivals] == ["bob"]
    assert [row["developer_id"] for row in raw_rows(engines[2])] == ["bob"]


def test_a_receiver_stores_without_a_question_until_its_lease_ends(
    engines: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_connections(engines[0], STRATEGIES)
    lease = TombstoneLease(engines[0], KEY)
    now = 1000.0
    monkeypatch.setattr("developer_telemetry.receiver.ingest.tombstone_lease._now", lambda: now)
    lease.reload()
    block(engines[1])

    now += LEASE_SECONDS - 0.1
    assert len(store_excluding_erased(engines[0], lease, [arrival()], STRATEGIES).arrivals) == 1
    now += 0.1
    assert store_excluding_erased(
        engines[0], lease, [arrival(after=1)], STRATEGIES
    ) == StoredReports((), {})


def test_a_receiver_that_learned_of_an_erasure_commits_nothing_it_began_before(
    engines: list[Engine],
) -> None:
    lease = TombstoneLease(engines[0], KEY)
    lease.reload()
    known = lease.tombstones()
    block(engines[1])
    lease.reload()

    with engines[0].connect() as connection, pytest.raises(OutdatedTombstones):
        lease.check(known, connection)


def test_an_erasure_waits_for_reports_that_are_being_stored(engines: list[Engine]) -> None:
    """Stop a writer after its last question and before its commit."""
    connection_id = create(engines[0], SECRET, "fleet", "token")
    report = arrival(connection_id=connection_id)
    started, finish = threading.Event(), threading.Event()

    def hold(connection: SqlConnection, locked: frozenset[int]) -> None:
        started.set()
        assert finish.wait(30)

    with ThreadPoolExecutor(2) as pool:
        storing = pool.submit(store, engines[0], [report], {connection_id: OVERWRITE}, hold)
        assert started.wait(30)
        erasing = pool.submit(block, engines[1])
        with pytest.raises(StillRunning):
            erasing.result(2.5)
        finish.set()
        storing.result()
        erasing.result()

    assert raw_rows(engines[2]) == tool_rows(engines[2]) == []


# Spools -------------------------------------------------------------------------------------------


def spooled(number: int, sent: bytes) -> SpooledReport:
    return SpooledReport(str(uuid.UUID(int=number)), 1, 1_000 + number, sent.decode())


def test_a_spool_keeps_no_byte_of_whom_it_was_cleared(spool: Spool, tmp_path: Path) -> None:
    ann, bob = body(hostname="anns-laptop", email=EMAIL), body(developer="bob")
    reports = [spooled(n, ann if n % 2 else bob) for n in range(600)]
    spool.put(reports)
    spool.set_aside(reports[1], "refused")
    spool.set_aside(reports[3], "refused: ann.lee")
    spool.remove(reports[5:7])  # which leaves their bytes in the file
    gone = stone(KEY.email(EMAIL), 1_400)

    assert spool.expunge(partial(is_erased, gone), damaged=False) == 199

    left = [each.report_id for each in spool.next(600)[0]]
    assert left == [
        each.report_id for n, each in enumerate(reports) if n % 2 == 0 or n > 400 if n != 6
    ]
    assert spool.depth == len(left)
    assert spool.dead == 0
    spool.expunge(partial(is_erased, stone(KEY.email(EMAIL), 2_000)), damaged=False)
    assert files_with_traces(tmp_path) == []


def test_what_nobody_can_read_goes_with_whoever_it_may_be(spool: Spool, tmp_path: Path) -> None:
    aside = tmp_path / "spool.db.damaged-1"
    aside.write_bytes(b"anns-laptop")
    unreadable = spooled(1, b'{"developer": "ann.l')
    spool.put([unreadable, spooled(2_000, b"{")])
    assert not spool.is_empty

    spool.expunge(partial(is_erased, stone(KEY.developer("bob"), 1_500)), damaged=True)

    assert not aside.exists()
    assert spool.depth == 1
