"""The long form of the fault tests: many kills in random order under load, and what came of it.

    python -m tests.soak.soak [--receiver-kills 18] [--database-kills 6] [--memory 1000000]

The numbers hold for each of MariaDB and PostgreSQL. After every fault everything acknowledged so
far is looked up. `--memory` also sends so many reports and compares the receiver's memory with
what it took after ten thousand.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

from benchmarks.load import Outcome, measure
from developer_telemetry.constants import RAW_TABLE
from tests.soak.hostile import attack_all
from tests.support.oracle import Oracle
from tests.support.receivers import TOKEN, eventually, query
from tests.support.servers import MariaDB, PostgreSQL, Server
from tests.support.sites import Site, own_server, read_only, server_of, site_on

# The same order in every run.
SEED = 1
WARM_REPORTS = 10_000
MEMORY_GROWTH_MIB = 20
LOAD_CONNECTIONS = 32
LOAD_SECONDS = 20.0
# The database gets this part of the time, for so long.
THROTTLED_SHARE = 0.1
THROTTLED_SECONDS = 60.0
# Long enough for the receiver to see that the database hangs, each time anew.
THROTTLE_PERIOD_SECONDS = 6.0
RELIEF_SECONDS = 5.0
HOSTILE_SECONDS = 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Break the receiver's world for a long time.")
    parser.add_argument("--receiver-kills", type=int, default=18)
    parser.add_argument("--database-kills", type=int, default=6)
    parser.add_argument("--memory", type=int, default=0, metavar="REPORTS")
    options = parser.parse_args()
    for make in (MariaDB, PostgreSQL):
        with own_server(make) as server:
            with tempfile.TemporaryDirectory() as folder, site_on(server, Path(folder)) as site:
                soak(site, options.receiver_kills, options.database_kills)
            with tempfile.TemporaryDirectory() as folder, site_on(server, Path(folder)) as site:
                throttle(site)
            if options.memory:
                with tempfile.TemporaryDirectory() as folder, site_on(server, Path(folder)) as site:
                    watch_memory(site, options.memory)
    attack_all(HOSTILE_SECONDS)


def soak(site: Site, receiver_kills: int, database_kills: int) -> None:
    """Break one thing after another, and look for everything acknowledged each time."""
    faults = [kill_receiver] * receiver_kills + [kill_database] * database_kills
    faults += [kill_both] * 3 + [hang] * 3 + [make_read_only] * 3
    chance = random.Random(SEED)
    chance.shuffle(faults)
    oracle = site.oracle()
    figures = oracle.figures
    for fault in faults:
        with oracle:
            oracle.wait_for(chance.randrange(20, 300))
            fault(site, oracle)
            oracle.wait_for(chance.randrange(20, 100), seconds=30)
        figures = oracle.check(site.url)
    done = Counter(fault.__name__ for fault in faults)
    say(
        site,
        f"{figures.acknowledged} acknowledged of {figures.sent} sent,"
        f" {done['kill_receiver'] + 2 * done['kill_both']} kills of the receiver,"
        f" {done['kill_database'] + done['kill_both']} of the database"
        f" ({done['kill_both']} of both at once), {done['hang']} hangs,"
        f" {done['make_read_only']} times read-only; lost {figures.lost},"
        f" doubled {figures.doubled}, invented {figures.invented};"
        f" slowest answer {figures.slowest_seconds:.1f} s",
    )


def kill_receiver(site: Site, oracle: Oracle) -> None:
    site.receiver.kill()
    site.receiver.start()


def kill_database(site: Site, oracle: Oracle) -> None:
    server_of(site).kill()
    oracle.wait_for(100)
    server_of(site).start()


def kill_both(site: Site, oracle: Oracle) -> None:
    server_of(site).kill()
    site.receiver.kill()
    site.receiver.start()
    oracle.wait_for(100)
    # What lies in the spool has to survive, too.
    site.receiver.kill()
    server_of(site).start()
    site.receiver.start()


def hang(site: Site, oracle: Oracle) -> None:
    server_of(site).suspend()
    oracle.wait_for(100)
    server_of(site).resume()


def make_read_only(site: Site, oracle: Oracle) -> None:
    with read_only(server_of(site)):
        oracle.wait_for(200)


def throttle(site: Site) -> None:
    """Give the database a tenth of the time under full load, with a small spool."""
    site.receiver.stop()
    site.receiver = site.another_receiver(TELEMETRY_SPOOL_MAX_MB="1")
    ended = threading.Event()
    throttling = threading.Thread(target=_slow_down, args=(server_of(site), ended))
    with site.receiver:
        with site.oracle(senders=4) as oracle:
            oracle.wait_for(500)
            began_with = memory_mib(site.receiver.pid)
            throttling.start()
            load = _load(site, THROTTLED_SECONDS)
            ended.set()
            throttling.join()
            relieved = time.monotonic()
            eventually(partial(_is_normal, site), 60)
            normal_after = time.monotonic() - relieved
            ended_with = memory_mib(site.receiver.pid)
        figures = oracle.check(site.url)
        # What was stored and not answered counts, too.
        lost = figures.lost + max(0, load.acknowledged - _stored_of_load(site))
    assert not lost
    assert normal_after < RELIEF_SECONDS
    say(
        site,
        f"a database with {THROTTLED_SHARE:.0%} of its time for {THROTTLED_SECONDS:.0f} s:"
        f" {figures.acknowledged + load.acknowledged} acknowledged,"
        f" {figures.deferred + load.refused} asked to come back,"
        f" {load.broken} unanswered, slowest answer {figures.slowest_seconds:.1f} s; lost {lost};"
        f" normal again after {normal_after:.1f} s;"
        f" memory {began_with:.0f} MiB before, {ended_with:.0f} MiB after",
    )


def _slow_down(server: Server, ended: threading.Event) -> None:
    while not ended.is_set():
        server.suspend()
        ended.wait(THROTTLE_PERIOD_SECONDS * (1 - THROTTLED_SHARE))
        server.resume()
        ended.wait(THROTTLE_PERIOD_SECONDS * THROTTLED_SHARE)


def _is_normal(site: Site) -> bool:
    return site.receiver.status("/health/ready") == 200 and not site.spooled()


def _load(site: Site, seconds: float) -> Outcome:
    return measure(site.receiver.port, site.overwriting, TOKEN, LOAD_CONNECTIONS, 0, seconds)


def _stored_of_load(site: Site) -> int:
    [(count,)] = query(
        site.url,
        f"SELECT COUNT(*) FROM {RAW_TABLE} WHERE developer_id NOT LIKE 'developer %'"
        " AND developer_id NOT LIKE 'fresh %'",
    )
    return int(count)


def watch_memory(site: Site, reports: int) -> None:
    """Send many reports; the receiver must not grow with them."""
    acknowledged = 0
    after_warm_up = 0.0
    while acknowledged < reports:
        acknowledged += _load(
            site, LOAD_SECONDS if after_warm_up else LOAD_SECONDS / 4
        ).acknowledged
        if not after_warm_up and acknowledged >= WARM_REPORTS:
            after_warm_up = memory_mib(site.receiver.pid)
    grown = memory_mib(site.receiver.pid) - after_warm_up
    assert _stored_of_load(site) >= acknowledged
    say(site, f"{acknowledged} reports: {after_warm_up:.0f} MiB at first, {grown:+.1f} MiB since")
    assert grown < MEMORY_GROWTH_MIB


def memory_mib(pid: int) -> float:
    """Return what a process takes of the machine's memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    [kibibytes] = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")]
    return int(kibibytes) / 1024


def say(site: Site, what: str) -> None:
    print(f"{server_of(site).name}: {what}", flush=True)


if __name__ == "__main__":
    main()
