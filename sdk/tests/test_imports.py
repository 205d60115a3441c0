"""The server starts a process for each call: what it loads is what each call costs."""

import subprocess
import sys

import pytest


def loaded(statement: str) -> set[str]:
    command = [sys.executable, "-c", f"{statement}; import sys; print(*sys.modules)"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return set(answer.stdout.split())


@pytest.fixture(scope="module")
def with_pydevlake() -> set[str]:
    return loaded("import pydevlake")


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
