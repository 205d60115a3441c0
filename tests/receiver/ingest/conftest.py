"""Fixtures of the tests that break a receiver's database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import MariaDB, PostgreSQL, Server
from tests.support.sites import Site, own_server, site_on


@pytest.fixture(scope="module", params=[MariaDB, PostgreSQL], ids=["mariadb", "postgresql"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the module's own: tests may kill it, or end its sessions."""
    with own_server(request.param) as server:
        yield server


@pytest.fixture
def site(server: Server, tmp_path: Path) -> Iterator[Site]:
    """A running receiver on each server."""
    with site_on(server, tmp_path) as site:
        yield site
