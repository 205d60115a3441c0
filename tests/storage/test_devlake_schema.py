"""Compare our assumptions about DevLake's tables with the tables that `migrate` makes."""

from __future__ import annotations

import pytest
from sqlalchemy import inspect
from sqlalchemy.engine import Engine

from developer_telemetry.constants import ACCOUNT_TABLE, TASK_TABLE
from developer_telemetry.pipeline.accounts import ACCOUNT_COLUMNS
from developer_telemetry.pipeline.cicd_tasks import TASK_COLUMNS
from developer_telemetry.storage.devlake_schema import (
    COLUMNS,
    count_links,
    is_devlake_database,
    read_api_keys,
    read_blueprint_connections,
    read_newest_pipeline,
)


@pytest.mark.parametrize("table", [ACCOUNT_TABLE, TASK_TABLE])
def test_domain_tables_have_the_columns_that_we_assume(engine: Engine, table: str) -> None:
    there = {column["name"] for column in inspect(engine).get_columns(table)}

    assert set(COLUMNS[table]) - there == set()


@pytest.mark.parametrize(
    ("table", "written"), [(ACCOUNT_TABLE, ACCOUNT_COLUMNS), (TASK_TABLE, TASK_COLUMNS)]
)
def test_every_column_that_we_write_is_declared(table: str, written: tuple[str, ...]) -> None:
    own = {name for name in written if not name.startswith("_raw_data")}

    assert own - {"created_at", "updated_at"} == set(COLUMNS[table])


def test_a_database_of_our_own_has_nothing_that_devlake_alone_makes(engine: Engine) -> None:
    assert not is_devlake_database(engine)
    with engine.connect() as connection:
        assert list(read_api_keys(connection)) == []
        assert read_blueprint_connections(connection) is None
        assert count_links(connection) is None
        assert read_newest_pipeline(connection) == -1
