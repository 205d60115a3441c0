"""Two receivers behind a balancer: one may go at any time, and take its spool with it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.sites import DATABASE, ClusterSite, cluster_site
from tests.support.receivers import Receiver, eventually
from tests.support.servers import MariaDB, PostgreSQL
from tests.support.sites import own_server


@pytest.fixture(
    params=[
        pytest.param(MariaDB, id="mariadb"),
        pytest.param(PostgreSQL, id="postgresql", marks=pytest.mark.cluster),
    ]
)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ClusterSite]:
    with own_server(request.param) as server, cluster_site(server.url(DATABASE), tmp_path) as site:
        yield site


def is_used(receiver: Receiver) -> bool:
    """Return true if it was sent a report since it was started."""
    return "telemetry_request_seconds_count" in receiver.client.get("/metrics").text


def test_nothing_is_lost_when_one_of_two_receivers_is_killed(site: ClusterSite) -> None:
    with site.oracle() as oracle:
        oracle.wait_for(200)
        site.receiver.kill()
        oracle.wait_for(200)
        site.receiver.start()
        eventually(partial(is_used, site.receiver), 10)
        with site.without_table():
            eventually(site.is_spooling, 10)
            # What lies in its spool is to wait for it, and not to be overtaken by the other's.
            site.neighbour.kill()
            oracle.wait_for(100)
        site.neighbour.start()
        eventually(partial(is_used, site.neighbour), 10)
    figures = oracle.check(site.url)

    assert figures.deferred == 0
    # At most what each of the senders had on the way to a receiver when it was killed.
    assert figures.unanswered <= 2 * 8
    print(f"\n{figures.unanswered} of {figures.sent} reports were not answered")
    eventually(site.is_normal, 10)
