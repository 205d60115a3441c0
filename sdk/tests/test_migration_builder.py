from collections.abc import Iterator
from typing import Optional

import pytest

from pydevlake import Field, ToolModel
from pydevlake.migration import (
    MIGRATION_SCRIPTS,
    Dialect,
    MigrationScript,
    MigrationScriptBuilder,
    migration,
)


@pytest.fixture(autouse=True)
def _no_scripts_stay_behind() -> Iterator[None]:
    before = list(MIGRATION_SCRIPTS)
    yield
    MIGRATION_SCRIPTS[:] = before


def test_each_operation_is_written_as_the_server_reads_it() -> None:
    class Thing(ToolModel):
        key: str = Field(primary_key=True)
        note: Optional[str]

    @migration(20240102030405, name="everything")
    def script(b: MigrationScriptBuilder) -> None:
        b.execute("SELECT 1")
        b.execute("SELECT 2", Dialect.MYSQL)
        b.execute("SELECT 3", dialect=Dialect.POSTGRESQL, ignore_error=True)
        b.add_column("t", "c", "bigint")
        b.drop_column("t", "c")
        b.rename_column("t", "a", "b")
        b.drop_table("t")
        b.rename_table("t", "u")
        b.create_tables(Thing, Thing)

    written = script.model_dump(mode="json", exclude_none=True)
    assert (written["version"], written["name"]) == (20240102030405, "everything")
    created = [written["operations"].pop() for _ in range(2)]
    assert written["operations"] == [
        {"type": "execute", "sql": "SELECT 1", "ignore_error": False},
        {"type": "execute", "sql": "SELECT 2", "dialect": "mysql", "ignore_error": False},
        {"type": "execute", "sql": "SELECT 3", "dialect": "postgres", "ignore_error": True},
        {"type": "add_column", "table": "t", "column": "c", "column_type": "bigint"},
        {"type": "drop_column", "table": "t", "column": "c"},
        {"type": "rename_column", "table": "t", "old_name": "a", "new_name": "b"},
        {"type": "drop_table", "table": "t"},
        {"type": "rename_table", "old_name": "t", "new_name": "u"},
    ]
    for operation in created:
        assert operation["type"] == "create_table"
        assert operation["model_info"]["table_name"] == Thing.__tablename__
        assert operation["model_info"]["json_schema"]["properties"]["note"]["type"] == "string"


def test_a_script_is_registered_under_its_functions_name() -> None:
    @migration(20240102030405)
    def add_things(b: MigrationScriptBuilder) -> None:
        b.drop_table("t")

    assert isinstance(add_things, MigrationScript)
    assert add_things.name == "add_things"
    assert MIGRATION_SCRIPTS[-1] is add_things


@pytest.mark.parametrize(
    "version", [0, 2024, 20240102, 20241301000000, 20240230000000, 20240101250000, 202401020304055]
)
def test_a_version_has_to_be_a_moment(version: int) -> None:
    with pytest.raises(ValueError, match=f"version {version} is no moment.*YYYYMMDDhhmmss"):
        migration(version)


def test_a_script_can_be_read_back() -> None:
    @migration(20240102030405)
    def script(b: MigrationScriptBuilder) -> None:
        b.execute("SELECT 1", Dialect.MYSQL)
        b.drop_column("t", "c")

    assert MigrationScript.model_validate_json(script.model_dump_json()) == script
