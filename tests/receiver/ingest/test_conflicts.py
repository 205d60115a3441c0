"""Test that a conflict holds up its own report alone, and that only content sets one aside."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from developer_telemetry.constants import MACHINE_TABLE, RAW_TABLE, TOOL_TABLE
from developer_telemetry.receiver.ingest.spool import dead_letters
from tests.support.receivers import DAY, eventually, query, report
from tests.support.servers import (
    PostgreSQL,
    execute,
)
from tests.support.sites import Site, own_server, server_of
from tests.support.threads import run_simultaneously
from tests.support.transactions import kill_sessions, transaction

# Longer than a receiver waits for a lock, and so than anybody must wait for an answer.
LOCKED_SECONDS = 2.5


def of_day(connection_id: int, developer: str) -> str:
    """A condition by the whole key: by less of it MariaDB would lock all the rows there are."""
    return (
        f"WHERE connection_id = {connection_id} AND developer_id = '{developer}' AND date = '{DAY}'"
    )


def send_hours(site: Site, developer: str, hours: int, connection_id: int) -> int:
    body = report(developer, metrics={"active_hours": hours})
    return site.receiver.send(body, connection_id).status_code


def hours_of(site: Site, developer: str, connection_id: int) -> list[int]:
    day = of_day(connection_id, developer)
    return [int(row[0]) for row in query(site.url, f"SELECT active_hours FROM {TOOL_TABLE} {day}")]


# Locks


@pytest.mark.parametrize("strategy", ["overwrite", "sum"])
def test_a_locked_row_holds_up_its_own_reports_and_nobody_elses(site: Site, strategy: str) -> None:
    connection_id = site.summing if strategy == "sum" else site.overwriting
    assert send_hours(site, "locked", 1, connection_id) == 200
    with transaction(
        site.url, f"UPDATE {TOOL_TABLE} SET name = 'x' {of_day(connection_id, 'locked')}"
    ):
        answers = run_simultaneously(
            [
                partial(send_hours, site, "locked", 2, connection_id),
                *(partial(send_hours, site, f"free {n}", 3, connection_id) for n in range(10)),
            ]
        )
        # Nothing of the others has to be waited for from here on.
        ends_at = time.monotonic() + LOCKED_SECONDS
        sent = 10
        while time.monotonic() < ends_at:
            assert send_hours(site, f"free {sent}", 3, connection_id) == 200
            assert hours_of(site, f"free {sent}", connection_id) == [3], site.receiver.log
            if sent % 20 == 0:
                assert send_hours(site, "locked", 2, connection_id) == 200
            sent += 1
        assert site.metric("telemetry_database_up") == 1
        eventually(lambda: site.spooled() == site.metric("telemetry_spool_conflicting") > 0, 10)
        assert hours_of(site, "locked", connection_id) == [1]
    assert answers == [200] * 11
    eventually(lambda: not site.spooled(), 20)
    assert hours_of(site, "locked", connection_id) == [2]
    assert site.metric("telemetry_spool_dead") == 0
    assert len({*site.developers()}) == sent + 1
    # What was in the way is over: nothing goes round any more.
    assert send_hours(site, "locked", 4, connection_id) == 200
    assert hours_of(site, "locked", connection_id) == [4]


def test_a_row_that_another_transaction_makes_is_waited_for_without_holding_up_others(
    site: Site,
) -> None:
    # A row that nobody else can see yet, so that the database does not tell who has it.
    made = (
        f"INSERT INTO {TOOL_TABLE} (connection_id, developer_id, date)"
        f" VALUES ({site.overwriting}, 'early', '{DAY}')"
    )
    with transaction(site.url, made):
        answers = run_simultaneously(
            [partial(site.send, "early"), *(partial(site.send, f"free {n}") for n in range(10))]
        )
        eventually(lambda: site.spooled() == 1, 20)
        assert site.send("free 10") == 200
        assert "free 10" in site.developers()
        assert site.send("early") == 200
        assert site.metric("telemetry_database_up") == 1
    assert answers == [200] * 11
    eventually(lambda: not site.spooled(), 20)
    assert site.developers().count("early") == 2
    assert site.metric("telemetry_spool_dead") == 0


def test_reports_wait_in_the_spool_while_a_table_is_locked(site: Site) -> None:
    lock = (
        f"LOCK TABLES {TOOL_TABLE} WRITE"
        if server_of(site).name == "mariadb"
        else f"LOCK TABLE {TOOL_TABLE} IN EXCLUSIVE MODE"
    )
    with transaction(site.url, lock):
        began = time.monotonic()
        assert site.send("ann") == 200
        assert site.send("bob") == 200
        took = time.monotonic() - began
        eventually(lambda: site.metric("telemetry_database_up") == 0, 20)
    assert took < 20
    site.wait_until_stored(["ann", "bob"])
    assert site.metric("telemetry_spool_dead") == 0


def test_a_locked_row_of_counts_holds_up_neither_reports_nor_checks(site: Site) -> None:
    assert site.send("ann") == 200
    counted = f"SELECT reports FROM {MACHINE_TABLE} WHERE connection_id = {site.overwriting}"
    eventually(lambda: query(site.url, counted), 20)
    lock = f"UPDATE {MACHINE_TABLE} SET reports = 9 WHERE connection_id = {site.overwriting}"
    with transaction(site.url, lock):
        assert [site.send("ann"), site.send("bob")] == [200, 200]
        eventually(lambda: "can't write statistics" in site.receiver.log, 10)
        assert not site.spooled()
    total = counted.replace("reports", "SUM(reports)", 1)
    eventually(lambda: query(site.url, total) == [(3,)], 20)


# Sessions


def test_reports_survive_that_sessions_and_queries_are_killed(site: Site) -> None:
    server = server_of(site)
    with site.oracle() as oracle:
        for _ in range(30):
            oracle.wait_for(5)
            kill_sessions(server, urlsplit(site.url).path[1:])
    assert oracle.check(site.url).deferred == 0
    eventually(lambda: not site.spooled(), 10)
    assert site.metric("telemetry_spool_dead") == 0


# Content


def test_what_a_trigger_refuses_waits_and_holds_up_nobody(site: Site) -> None:
    # A trigger has reasons of its own, which may pass.
    for statement in TRIGGERS[server_of(site).name]:
        query(site.url, statement)
    crowd = [*(f"free {number}" for number in range(9)), "poison"]
    assert run_simultaneously([partial(site.send, each) for each in crowd]) == [200] * 10
    eventually(lambda: site.spooled() == 1, 20)
    assert site.metric("telemetry_spool_dead") == 0
    assert site.metric("telemetry_database_up") == 1
    query(site.url, UNTRIGGER[server_of(site).name])
    site.wait_until_stored(crowd)


TRIGGERS = {
    "mariadb": [
        f"CREATE TRIGGER moody BEFORE INSERT ON {RAW_TABLE} FOR EACH ROW BEGIN"
        " IF NEW.developer_id = 'poison' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not now';"
        " END IF; END"
    ],
    "postgresql": [
        "CREATE FUNCTION moody() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.developer_id = 'poison' THEN RAISE EXCEPTION 'not now'; END IF; RETURN NEW;"
        " END $$",
        f"CREATE TRIGGER moody BEFORE INSERT ON {RAW_TABLE} FOR EACH ROW EXECUTE FUNCTION moody()",
    ],
}
UNTRIGGER = {
    "mariadb": "DROP TRIGGER moody",
    "postgresql": f"DROP TRIGGER moody ON {RAW_TABLE}",
}


def test_a_name_that_a_database_of_another_encoding_can_not_hold_stops_no_neighbour(
    tmp_path: Path,
) -> None:
    with own_server(PostgreSQL) as server:
        execute(
            server.url(""),
            "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
            " LOCALE_PROVIDER 'libc' TEMPLATE template0",
        )
        site = Site(server, server.url("latin"), tmp_path)
        with site.receiver:
            neighbours = [f"neighbour {number}" for number in range(12)]
            for _ in range(2):  # whoever sends it sends it again
                crowd = [*neighbours[:5], "Łukasz", *neighbours[5:]]
                assert (
                    run_simultaneously([partial(site.send, each) for each in crowd]) == [200] * 13
                )
            eventually(lambda: site.metric("telemetry_spool_dead") == 2, 20)
            eventually(lambda: not site.spooled(), 20)
            assert sorted(site.developers()) == sorted(neighbours * 2)
            assert site.receiver.status("/health/ready") == 200
            assert site.metric("telemetry_database_up") == 1
    assert all("Łukasz" in letter.report.payload for letter in dead_letters(site.spool))
