"""Test the statements of dialects against the tables that they write."""

from __future__ import annotations

import re
from typing import Callable

from sqlalchemy.engine import Engine

from developer_telemetry.constants import CONNECTION_TABLE, MACHINE_TABLE
from developer_telemetry.database.dialects.postgresql import PostgreSQL
from developer_telemetry.database.dialects.sqlite import SQLite
from developer_telemetry.storage.fleet.machines import MACHINE_KEY

# The types of PostgreSQL's catalog, by the type that a value of them is inserted as.
SAME = {"character varying": "text", "integer": "bigint", "timestamp with time zone": "timestamptz"}


def test_postgresql_is_told_the_type_of_each_column_of_ours(
    migrated: Callable[[str], str], opened: Callable[[str], Engine]
) -> None:
    """An insert of JSON states types by columns' names, and PostgreSQL refuses a wrong one.

    Not of `id`, which the database makes or which is a text, and of what DevLake alone writes.
    """
    with opened(migrated("postgresql")).connect() as connection:
        columns = connection.exec_driver_sql(
            "SELECT table_name, column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND table_name LIKE '%%developer%%'"
        ).all()

    assert {table for table, _, _ in columns} >= {CONNECTION_TABLE}
    wrong = {
        f"{table}.{column}": kind
        for table, column, kind in columns
        if column not in ("id", "entities")
        and f"{column} {SAME.get(kind, kind)})" not in PostgreSQL().source([column], 1)
    }
    assert wrong == {}


def test_sqlite_looks_keys_up_in_the_index_instead_of_reading_the_table(
    migrated: Callable[[str], str], opened: Callable[[str], Engine]
) -> None:
    dialect = SQLite()
    are_these = dialect.keys_condition(MACHINE_TABLE, MACHINE_KEY, 2)
    keys = dialect.parameters(MACHINE_KEY, [(1, "ann", "mac"), (1, "bea", "pc")])
    with opened(migrated("sqlite")).connect() as connection:
        for verb in ("SELECT * FROM", "DELETE FROM"):
            steps = connection.exec_driver_sql(
                f"EXPLAIN QUERY PLAN {verb} {MACHINE_TABLE} WHERE {are_these}", keys
            ).all()
            plan = [step[-1] for step in steps]
            assert not any(re.match(rf"SCAN (t|{MACHINE_TABLE})\b", step) for step in plan), plan
