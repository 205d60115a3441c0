"""The remedy for pending migrations, by the owner of the schema."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine

from developer_telemetry.database.engine import transact
from developer_telemetry.database.schema_owner import SchemaOwner, record_owner
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.receiver.jobs import monitor
from developer_telemetry.receiver.jobs.monitor import Monitor, describe_pending
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


def test_a_refused_take_over_is_tried_again_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    tries: list[float] = []

    def take_over() -> None:
        tries.append(now)
        if len(tries) < 8:
            raise ConfigurationError("DevLake may load the plugin")

    monkeypatch.setattr(monitor, "time", SimpleNamespace(monotonic=lambda: now))
    engine = create_engine("sqlite://")
    absent: Any = None
    others = (absent, absent, absent, absent, absent, absent)
    waiting = Monitor(engine, *others, str, take_over)
    while now < 1400.0:
        waiting._try_take_over()
        now += 1.0
    pauses = [later - earlier for earlier, later in zip(tries, tries[1:])]
    assert pauses == [3, 6, 12, 24, 48, 60, 60]
