"""The server starts a process for each call: what it loads is what each call costs."""

import subprocess
import sys

import pytest

import pydevlake


def loaded(statement: str) -> set[str]:
    command = [sys.executable, "-c", f"{statement}; import sys; print(*sys.modules)"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return set(answer.stdout.split())


@pytest.fixture(scope="module")
def with_pydevlake() -> set[str]:
    return loaded("from pydevlake import *")


@pytest.mark.parametrize(
    "needless",
    [
        "_pytest",
        "pytest",
        "pydevlake.testing",
        "pydevlake.database",
        "pydevlake.commands",
        "pydevlake.domain_layer.code",
        "fire",
        "inflect",
        "requests",
        "jsonpointer",
        "jsonref",
        "MySQLdb",
        "pymysql",
        "psycopg",
        "psycopg2",
        "sqlite3",
    ],
)
def test_importing_loads_nothing_for_tests_databases_or_debugging(
    with_pydevlake: set[str], needless: str
) -> None:
    assert needless not in with_pydevlake


def test_describing_a_plugin_loads_no_driver() -> None:
    modules = loaded("import pydevlake.commands, pydevlake.database")
    assert not {"sqlite3", "pymysql", "MySQLdb", "psycopg", "psycopg2"} & modules


def test_the_testing_helpers_need_no_test_runner() -> None:
    assert "pytest" not in loaded("import pydevlake.testing")


def test_opening_a_database_loads_no_models() -> None:
    modules = loaded("import pydevlake.database")
    assert not {"pydantic", "sqlmodel", "pydevlake.model"} & modules


def test_every_name_can_be_imported_whatever_was_imported_before() -> None:
    names = ", ".join(pydevlake.__all__)
    modules = loaded(
        "import pydevlake.logger, pydevlake.database, pydevlake.plugin, logging;"
        f"from pydevlake import {names}; assert isinstance(logger, logging.Logger)"
    )
    assert "pydevlake.stream" in modules


def test_an_unknown_name_is_reported_as_of_any_module() -> None:
    with pytest.raises(ImportError, match="cannot import name 'Plug' from 'pydevlake'"):
        from pydevlake import Plug  # type: ignore[attr-defined]  # noqa: F401
