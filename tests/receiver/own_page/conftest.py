"""Fixtures of the tests of one's own page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import DATABASES
from tests.support.own_pages import OwnPages
from tests.support.receivers import ReloadingReceiver


@pytest.fixture(params=DATABASES, scope="package")
def pages(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OwnPages]:
    """A receiver on a database of each kind; every test has a connection of its own."""
    url = request.getfixturevalue(f"{request.param}_once")
    folder = tmp_path_factory.mktemp("own-pages")
    contact = {"TELEMETRY_PRIVACY_CONTACT": "privacy@example.com"}
    with ReloadingReceiver(url, folder, **contact) as receiver:
        pages = OwnPages(receiver, url)
        yield pages
        pages.close()
    assert "Traceback" not in receiver.log
