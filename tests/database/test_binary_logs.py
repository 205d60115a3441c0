"""A MariaDB whose binary log takes statements alone, which it can't write for our transactions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from developer_telemetry.database.engine import list_risks, open_engine
from tests.support.servers import MariaDB, Server, create_database, execute
from tests.support.sites import own_server


@pytest.fixture
def server() -> Iterator[Server]:
    with own_server(lambda: MariaDB(arguments=["--log-bin", "--server-id=1"])) as server:
        yield server


def test_a_log_of_statements_is_named_with_its_remedy(server: Server) -> None:
    url = server.url("lake")
    create_database(url)

    def told() -> list[str]:
        engine = open_engine(url)
        try:
            return list_risks(engine)
        finally:
            engine.dispose()

    assert told() == []
    execute(server.url(""), "SET GLOBAL binlog_format = 'STATEMENT'")
    [named] = told()
    assert "binlog_format STATEMENT" in named
    assert named.endswith("; set binlog_format to ROW or MIXED")
