"""Nothing acknowledged is ever lost, whatever breaks; `make soak` does the same for longer."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest

from developer_telemetry.constants import RAW_TABLE, TOOL_TABLE
from developer_telemetry.receiver.ingest.spool import dead_letters
from tests.support.receivers import eventually, query, report
from tests.support.servers import MariaDB, create_database
from tests.support.sites import (
    CONNECTION_TABLE,
    Site,
    own_server,
    read_only,
    server_of,
    set_to,
)
from tests.support.threads import run_simultaneously

STOP_SECONDS = 15.0


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
        oracle.reset_slowest()
        server.suspend()
        try:
            oracle.wait_for(8)
            time_of_rescue = oracle.figures.slowest_seconds
            oracle.reset_slowest()
            oracle.wait_for(200)
        finally:
            server.resume()
        oracle.wait_for(50)
    figures = oracle.check(site.url)

    assert time_of_rescue < 10
    # Who comes after the first ones need not find out again.
    assert figures.slowest_seconds < 5
    assert figures.deferred == 0
    eventually(lambda: not site.spooled(), 10)


def test_reports_are_spooled_while_the_database_is_read_only(site: Site) -> None:
    with site.oracle() as oracle:
        oracle.wait_for(50)
        with read_only(server_of(site)):
            eventually(site.spooled, 10)
            oracle.wait_for(100)
        oracle.wait_for(50)
    assert oracle.check(site.url).deferred == 0
    eventually(lambda: not site.spooled(), 10)


def test_reports_are_spooled_while_a_table_is_away(site: Site) -> None:
    with site.oracle() as oracle:
        for table in (RAW_TABLE, TOOL_TABLE, CONNECTION_TABLE):
            oracle.wait_for(20)
            query(site.url, f"ALTER TABLE {table} RENAME TO moved_away")
            oracle.wait_for(100)
            query(site.url, f"ALTER TABLE moved_away RENAME TO {table}")
    assert oracle.check(site.url).deferred == 0
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
    site.wait_until_stored(["early", "patient"])
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
        return run_simultaneously([partial(site.send, developer) for developer in crowd])

    if meanwhile == "from the spool":
        with site.without_table():
            statuses = send_all()
            assert site.spooled() == len(crowd)
    else:
        statuses = send_all()

    assert statuses == [200] * len(crowd)
    site.wait_until_stored(neighbours)
    eventually(lambda: site.metric("telemetry_spool_dead") == 1, 10)
    [letter] = dead_letters(site.spool)
    assert '"poison"' in letter.report.payload
    assert "picky" in letter.reason
    assert "picky" in site.receiver.log
    # PostgreSQL adds the whole row.
    assert "poison" not in letter.reason
    assert "poison" not in site.receiver.log
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
            answers = run_simultaneously(
                [
                    partial(receiver.send, huge, site.overwriting),
                    *(partial(receiver.send, report(n), site.overwriting) for n in neighbours),
                ]
            )
            assert [answer.status_code for answer in answers] == [200] * 13
            site.wait_until_stored(neighbours)
            eventually(lambda: site.metric("telemetry_spool_dead") == 1, 10)
    [letter] = dead_letters(site.spool)
    assert '"poison"' in letter.report.payload
    # All that the driver knows: the server hung up on it.
    assert "gone away" in letter.reason or "packet" in letter.reason


RISKS = {
    "mariadb": ("innodb_flush_log_at_trx_commit", "2"),
    "postgresql": ("synchronous_commit", "off"),
}


def test_a_database_that_may_lose_commits_is_named(site: Site) -> None:
    setting, value = RISKS[server_of(site).name]
    receiver = site.receiver
    assert receiver.client.get("/health/ready").json()["message"] == "ready"
    with set_to(server_of(site), setting, value):
        receiver.stop()
        receiver.start()

        note = receiver.client.get("/health/ready").json()["message"]
    assert f"{setting} is {value}" in note
    assert f"{setting} is {value}" in receiver.log
