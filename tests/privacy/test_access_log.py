"""Test which looks at a person's rows are recorded, once each, and by whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.constants import ACCESS_TABLE, OVERWRITE
from developer_telemetry.database.engine import open_engine
from developer_telemetry.privacy import access_log
from developer_telemetry.privacy.access_log import (
    EXPORT,
    PAGE,
    Look,
    name_system_user,
    read_looks,
    record_look,
)
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.receivers import SECRET, add_connection, query, run_command

LOOK = Look("op", PAGE, "a machine")


def recorded(engine: Engine, developer: str = "ann") -> list[tuple[str, str, str]]:
    with engine.connect() as connection:
        return [look[1:] for look in read_looks(connection, (1, developer))]


def test_a_look_repeated_within_a_minute_is_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        record_look(engine, [(1, "ann"), (1, "ann"), (2, "ann")], LOOK)
    record_look(engine, [(1, "ann")], LOOK._replace(who="another"))
    record_look(engine, [(1, "ann")], LOOK._replace(what="a file"))
    record_look(engine, [(1, "ann")], LOOK._replace(how=EXPORT))

    assert len(recorded(engine)) == 4

    monkeypatch.setattr(access_log, "REPEATED_US", 0)
    record_look(engine, [(1, "ann")], LOOK)
    assert len(recorded(engine)) == 5
    assert recorded(engine)[0] == LOOK


def test_many_people_and_long_texts_are_recorded(engine: Engine) -> None:
    people = [(1, f"developer {number}") for number in range(250)]

    record_look(engine, people, Look("\u20ac" * 300, PAGE, "x" * 300))

    assert recorded(engine, "developer 249") == [("\u20ac" * 255, PAGE, "x" * 255)]
    with engine.connect() as connection:
        count = connection.exec_driver_sql(f"SELECT COUNT(*) FROM {ACCESS_TABLE}").scalar_one()
    assert count == 250


def test_a_look_that_cant_be_recorded_is_an_error(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/empty.db")

    with pytest.raises(SQLAlchemyError):
        record_look(engine, [(1, "ann")], LOOK)
    engine.dispose()


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_commands_record_looks_at_a_person(
    engine: Engine, migrated_url: str, tmp_path: Path
) -> None:
    connection = add_connection(migrated_url)
    days: list[dict[str, Any]] = [{"developer": "ann"}, {"developer": "bob"}]
    store(
        engine, [arrival(connection_id=connection, **day) for day in days], {connection: OVERWRITE}
    )
    settings = {"DB_URL": migrated_url, "ENCRYPTION_SECRET": SECRET}

    def run(*arguments: str) -> int:
        return run_command(tmp_path, *arguments, **settings).returncode

    assert run("export", "--developer", "ann") == 0
    assert run("export", "--developer", "ann", "--layer", "tool", "--output", "days.json") == 0
    assert run("export") == 0
    assert run("erase", "ann", "--dry-run") == 0
    assert run("erase", "ann") == 2  # there is no terminal to ask at
    assert run("export", "--developer", "nobody") == 2

    rows = query(migrated_url, f"SELECT developer_id, who, how, what FROM {ACCESS_TABLE}")
    assert {row[0] for row in rows} == {"ann"}
    assert {row[1] for row in rows} == {name_system_user()}
    assert sorted(row[2:] for row in rows) == [
        ("erase", "numbers of rows"),
        ("export", "all rows"),
        ("export", "days"),
    ]
    assert run("erase", "ann", "--yes") in (0, 1)
    assert query(migrated_url, f"SELECT COUNT(*) FROM {ACCESS_TABLE}") == [(0,)]
