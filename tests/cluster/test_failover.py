"""A database that fails over, for real: replicas, promotions, and what comes back afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from developer_telemetry.constants import RAW_TABLE
from developer_telemetry.database.engine import list_risks, now_us
from tests.cluster.pairs import MariaDBPair, Pair, PostgreSQLPair
from tests.cluster.sites import DATABASE, ClusterSite, cluster_site
from tests.support.receivers import add_connection, eventually, query
from tests.support.sites import closing_engine

RECOVERY_SECONDS = 10.0
# What the driver waits for a server that fell silent, and some.
SILENCE_SECONDS = 45.0
HOUR_US = 3_600_000_000

on_mariadb = pytest.mark.parametrize("pair", [MariaDBPair], indirect=True, ids=["mariadb"])
on_postgresql = pytest.mark.parametrize("pair", [PostgreSQLPair], indirect=True, ids=["postgresql"])


@pytest.fixture(
    params=[
        pytest.param(MariaDBPair, id="mariadb", marks=pytest.mark.cluster),
        pytest.param(PostgreSQLPair, id="postgresql"),
    ]
)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with request.param() as pair:
        yield pair


@pytest.fixture
def site(pair: Pair, tmp_path: Path) -> Iterator[ClusterSite]:
    with cluster_site(pair.url(DATABASE), tmp_path) as site:
        yield site


def test_nothing_is_lost_when_the_primary_is_killed_and_its_standby_promoted(
    pair: Pair, site: ClusterSite
) -> None:
    with site.oracle() as oracle:
        oracle.wait_for(200)
        pair.primary.kill()
        killed = time.monotonic()
        eventually(site.is_spooling, 10)
        meanwhile = site.readiness()
        oracle.wait_for(200)
        spooled = site.spooled()
        pair.promote()
        promoted = time.monotonic()
        eventually(site.is_normal, RECOVERY_SECONDS)
        normal = time.monotonic()
        oracle.wait_for(200)
    figures = oracle.check(site.url)

    assert figures.deferred == 0
    assert figures.unanswered == 0
    # Ready to accept reports, and it says why they wait.
    assert [status for status, _ in meanwhile] == [200, 200]
    print(
        f"\n{pair.name}: no primary for {promoted - killed:.1f} s, both receivers normal"
        f" {normal - promoted:.1f} s after the promotion; of {figures.sent} reports all were"
        f" acknowledged ({spooled} in one of the spools), the slowest after"
        f" {figures.slowest_seconds:.1f} s\nmeanwhile: {meanwhile[0][1]}"
    )


@pytest.mark.cluster
@pytest.mark.parametrize("pair", [MariaDBPair, PostgreSQLPair], indirect=True)
def test_what_the_standby_never_got_is_not_taken_from_the_spool(
    pair: Pair, site: ClusterSite
) -> None:
    waits = {
        "mariadb": "information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
        "postgresql": "pg_stat_activity WHERE wait_event_type = 'Lock'",
    }[pair.name]
    if pair.name == "postgresql":
        # At its end the server would let a COMMIT succeed that the standby has not confirmed.
        query(pair.url(""), "ALTER ROLE merico SET statement_timeout = '500ms'")
        for receiver in site.receivers:
            receiver.stop()
            receiver.start()
    pair.standby.kill()

    status = site.send("early")  # by the spool, since the database does not answer
    # It is brought in once more meanwhile, and finds it there, but not confirmed.
    [(waiting,)] = eventually(
        lambda: [
            row for row in query(pair.primary.url(""), f"SELECT COUNT(*) FROM {waits}") if row[0]
        ],
        20,
    )
    pair.primary.kill()
    pair.standby.start()
    pair.promote()

    assert status == 200
    assert waiting > 0
    site.wait_until_stored(["early"])


@pytest.mark.cluster
@on_mariadb
def test_sessions_that_a_switchover_left_open_are_given_up(
    pair: MariaDBPair, site: ClusterSite
) -> None:
    with site.oracle() as oracle:
        oracle.wait_for(200)
        query(pair.primary.url(""), "SET GLOBAL read_only = ON")
        eventually(site.is_spooling, 10)
        pair.promote()  # new sessions come there; those with the former primary go on
        eventually(site.is_normal, RECOVERY_SECONDS)
        oracle.wait_for(200)
        newcomer = add_connection(site.url)
        for receiver in site.receivers:
            body = {"developer": "newcomer", "date": "2026-11-23"}
            assert receiver.send(body, newcomer).status_code == 200
    figures = oracle.check(site.url)

    assert figures.deferred == 0


@pytest.mark.cluster
@on_mariadb
def test_reports_wait_while_the_address_leads_to_a_former_primary_that_came_back(
    pair: MariaDBPair, site: ClusterSite
) -> None:
    with site.oracle() as oracle:
        oracle.wait_for(100)
        pair.primary.kill()
        pair.promote()
        eventually(site.is_normal, RECOVERY_SECONDS)
        pair.primary.start()
        query(pair.primary.url(""), "SET GLOBAL read_only = ON")
        pair.forwarder.set_target(pair.primary.port)
        pair.forwarder.cut()
        eventually(site.is_spooling, 10)
        meanwhile = site.readiness()
        oracle.wait_for(200)
        pair.forwarder.set_target(pair.standby.port)
        eventually(site.is_normal, RECOVERY_SECONDS)
        oracle.wait_for(100)
    figures = oracle.check(site.url)

    assert figures.deferred == 0
    assert [status for status, _ in meanwhile] == [200, 200]
    assert "read-only" in site.receiver.log


@pytest.mark.cluster
@on_mariadb
def test_a_primary_whose_machine_is_gone_is_given_up_after_half_a_minute(
    pair: MariaDBPair, site: ClusterSite
) -> None:
    with site.oracle() as oracle:
        oracle.wait_for(200)
        pair.forwarder.strand()
        silent = time.monotonic()
        pair.primary.kill()
        pair.promote()
        eventually(site.is_spooling, 15)
        meanwhile = site.readiness()
        eventually(site.is_normal, SILENCE_SECONDS)
        print(f"\n{pair.name}: both receivers normal {time.monotonic() - silent:.0f} s later")
        oracle.wait_for(200)
    figures = oracle.check(site.url)

    assert figures.deferred == 0
    assert figures.slowest_seconds < 10
    assert "the database does not answer" in meanwhile[0][1]


@pytest.mark.cluster
@on_mariadb
def test_the_clock_of_the_new_primary_counts_at_once(pair: MariaDBPair, site: ClusterSite) -> None:
    # For all sessions but an administrator's.
    ahead = "SET timestamp = UNIX_TIMESTAMP() + 3600"
    query(pair.standby.url(""), f"SET GLOBAL init_connect = '{ahead}'")
    pair.primary.kill()
    pair.promote()

    def newest() -> int:
        assert site.send("ann") == 200
        [(arrived_us,)] = query(site.url, f"SELECT MAX(arrived_us) FROM {RAW_TABLE}")
        return int(arrived_us or 0)

    eventually(lambda: newest() > now_us() + HOUR_US // 2, RECOVERY_SECONDS)


@pytest.mark.cluster
@on_postgresql
@pytest.mark.parametrize("former", ["read-only", "as it was"])
def test_a_former_primary_that_came_back_gets_nothing_confirmed(
    pair: PostgreSQLPair, site: ClusterSite, former: str
) -> None:
    with site.oracle() as oracle:
        oracle.wait_for(100)
        pair.primary.kill()
        pair.promote()
        eventually(site.is_normal, RECOVERY_SECONDS)
        if former == "read-only":
            with (pair.primary.data / "postgresql.auto.conf").open("a") as settings:
                settings.write("default_transaction_read_only = on\n")
        pair.primary.start()
        count = partial(query, pair.primary.url(DATABASE), f"SELECT COUNT(*) FROM {RAW_TABLE}")
        before = count()
        # Whoever is cut off looks at the former primary first.
        pair.standby.kill()
        pair.standby.start()
        oracle.wait_for(200)
        if former == "as it was":
            # It takes what it is sent, and confirms nothing without its standby.
            eventually(site.is_spooling, 10)
            meanwhile = site.readiness()
            oracle.wait_for(200)
            pair.primary.kill()
            assert "the database does not answer" in meanwhile[0][1]
        else:
            assert count() == before
        eventually(site.is_normal, RECOVERY_SECONDS)
        oracle.wait_for(100)
    figures = oracle.check(site.url)

    assert figures.deferred == 0


@pytest.mark.cluster
@on_mariadb
def test_what_is_left_after_an_asynchronous_replica_was_promoted_is_consistent(
    pair: MariaDBPair, site: ClusterSite
) -> None:
    query(pair.primary.url(""), "SET GLOBAL rpl_semi_sync_master_enabled = OFF")
    with site.oracle() as oracle:
        oracle.wait_for(200)
        query(pair.standby.url(""), "STOP SLAVE IO_THREAD")
        oracle.wait_for(200)
        pair.primary.kill()
        pair.promote()
        eventually(site.is_normal, RECOVERY_SECONDS)
        oracle.wait_for(200)
    eventually(site.is_normal, RECOVERY_SECONDS)

    [problem] = oracle.problems(site.url)
    print(f"\n{problem}")
    assert problem.startswith("acknowledged and lost")


RISKS = {
    "mariadb": ["SET GLOBAL rpl_semi_sync_master_wait_point = AFTER_COMMIT"],
    "postgresql": ["ALTER SYSTEM SET synchronous_commit = local", "SELECT pg_reload_conf()"],
}
NAMED = {
    "mariadb": "rpl_semi_sync_master_wait_point is AFTER_COMMIT; set it to AFTER_SYNC",
    "postgresql": "synchronous_commit beside synchronous_standby_names is local; set it to on",
}


@pytest.mark.cluster
@pytest.mark.parametrize("pair", [MariaDBPair, PostgreSQLPair], indirect=True)
def test_a_primary_that_confirms_before_its_standby_has_it_is_named(pair: Pair) -> None:
    def named() -> list[str]:
        with closing_engine(pair.url("" if pair.name == "mariadb" else "postgres")) as engine:
            return list_risks(engine)

    before = named()
    for statement in RISKS[pair.name]:
        query(pair.primary.url(""), statement)

    assert before == []
    eventually(lambda: any(NAMED[pair.name] in each for each in named()), 10)
