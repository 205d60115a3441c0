"""The remedy for pending migrations, by the owner of the schema."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.database.engine import transact
from developer_telemetry.database.schema_owner import SchemaOwner, record_owner
from developer_telemetry.receiver.jobs.monitor import describe_pending
from tests.support.devlake_tables import devlake_tables

START_DEVLAKE = "start DevLake with the plugin and confirm its pending migration"


@pytest.mark.parametrize(
    ("owner", "remedy"),
    [
        (SchemaOwner.STANDALONE, "run `developer-telemetry migrate --standalone`"),
        (SchemaOwner.DEVLAKE, START_DEVLAKE),
    ],
)
def test_in_devlakes_database_the_owners_remedy_is_named(
    engine: Engine, owner: SchemaOwner, remedy: str
) -> None:
    with devlake_tables(engine):
        transact(engine, lambda to: record_owner(to, owner))
        assert describe_pending(engine) == f"the database is not migrated: {remedy}"


def test_in_a_database_of_ones_own_migrate_is_named(engine: Engine) -> None:
    assert describe_pending(engine).endswith(": run `developer-telemetry migrate`")
