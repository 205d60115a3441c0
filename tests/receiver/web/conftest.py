"""Fixtures of the tests of the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.pages import Lake, start_lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """The embedded default, which one module's tests share."""
    with start_lake(tmp_path_factory.mktemp("page")) as lake:
        yield lake
