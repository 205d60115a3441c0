"""A database that fails over, for real: replicas, promotions, and what comes back afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.pairs import MariaDBPair, Pair, PostgreSQLPair
from tests.cluster.sites import DATABASE, ClusterSite, cluster_site
from tests.receivers import eventually

RECOVERY_SECONDS = 10.0


@pytest.fixture(params=[MariaDBPair, PostgreSQLPair], ids=["mariadb", "postgresql"])
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
        pair.promote()
        promoted = time.monotonic()
        eventually(site.is_normal, RECOVERY_SECONDS)
        normal = time.monotonic()
        oracle.wait_for(200)
    figures = oracle.check(site.url)

    assert figures.asked_to_come_back == 0
    assert figures.unanswered == 0
    # Ready to take reports, and it says why they wait.
    assert [status for status, _ in meanwhile] == [200, 200]
    print(
        f"{pair.name}: the standby was promoted {promoted - killed:.1f} s after the primary was"
        f" killed, both receivers were normal {normal - promoted:.1f} s later; {figures};"
        f" meanwhile {meanwhile[0][1]!r}"
    )
