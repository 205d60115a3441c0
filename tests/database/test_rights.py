"""A database user with just the rights that docs/install.md lists, and with one of them missing."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable
from urllib.parse import urlsplit

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.constants import (
    ACCOUNT_TABLE,
    OVERWRITE,
    RAW_TABLE,
    TOMBSTONE_TABLE,
    TOOL_TABLE,
)
from developer_telemetry.database.migrate import migrate
from developer_telemetry.database.rights import _covers
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.pipeline.runner import convert, extract
from developer_telemetry.privacy.erasure import erase
from developer_telemetry.privacy.person_search import PersonSearch
from developer_telemetry.privacy.retention import prune
from developer_telemetry.storage.tombstones import TombstoneKey
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.receivers import SECRET, Receiver, add_connection, eventually, query, report
from tests.support.receivers import migrate as migrate_by_command
from tests.support.servers import execute

LISTED = re.findall(
    r"```sql\n(.*?)```", Path("docs/install.md").read_text(encoding="utf-8"), flags=re.DOTALL
)


class User:
    """A user of a database who has what is granted, and no more."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.name = f"telemetry_{secrets.token_hex(4)}"
        self._owner = url
        self._database = parts.path.lstrip("/")
        self._is_mysql = parts.scheme == "mysql"
        self.url = parts._replace(netloc=f"{self.name}:x@{parts.hostname}:{parts.port}").geturl()

    def __enter__(self) -> User:
        secret = "IDENTIFIED BY" if self._is_mysql else "PASSWORD"
        execute(self._owner, f"CREATE USER {self.name} {secret} 'x'")
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._is_mysql:
            execute(self._owner, f"DROP OWNED BY {self.name}")
        execute(self._owner, f"DROP USER {self.name}")

    def run(self, statements: str) -> None:
        """Run the owner's statements, in which install.md's names stand for ours."""
        ours = statements.replace("`lake`", f"`{self._database}`")
        ours = re.sub(r"'telemetry'@'%'|\btelemetry\b", self.name, ours)
        for statement in filter(str.strip, ours.split(";")):
            execute(self._owner, statement)

    def grant_listed(self) -> None:
        for block in LISTED:
            if ("`" in block) == self._is_mysql:
                self.run(block)

    def revoke(self, right: str, table: str) -> None:
        """Take one right on one table, which MySQL can't as long as it is given for all."""
        if not self._is_mysql:
            self.run(f"REVOKE {right} ON {table} FROM telemetry")
            return
        self.run(f"REVOKE {right} ON `lake`.* FROM 'telemetry'@'%'")
        rows = execute(
            self._owner,
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()",
        )
        for (each,) in rows:
            if each != table:
                self.run(f"GRANT {right} ON `lake`.{each} TO 'telemetry'@'%'")


@pytest.fixture(params=["mariadb", "postgresql"])
def user(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[User]:
    url: str = request.getfixturevalue(f"{request.param}_url")
    migrate_by_command(url, tmp_path)
    with User(url) as user:
        user.grant_listed()
        yield user


def ways_to_remove(engine: Engine) -> Sequence[Callable[[], object]]:
    search = PersonSearch(engine, SECRET, "ann.lee", None)
    return [
        lambda: erase(engine, TombstoneKey(SECRET), search, search.people(), block=False),
        lambda: list(prune(engine, 1)),
    ]


def test_the_rights_that_are_listed_are_enough_beside_devlake(
    user: User, opened: Callable[[str], Engine], tmp_path: Path
) -> None:
    connection = add_connection(user.url)
    engine = opened(user.url)
    with Receiver(user.url, tmp_path) as receiver:
        assert receiver.send(report("ann.lee"), connection).status_code == 200
        counted = "SELECT COUNT(*) FROM _tool_developer_telemetry_machines"
        eventually(lambda: query(user.url, counted) == [(1,)], 15)
    for _ in extract(engine, connection, OVERWRITE, everything=True):
        pass
    for _ in convert(engine, connection, OVERWRITE, tasks=True):
        pass
    assert query(user.url, f"SELECT user_name FROM {ACCOUNT_TABLE}") == [("ann.lee",)]
    for remove in ways_to_remove(engine):
        remove()
    assert query(user.url, f"SELECT COUNT(*) FROM {RAW_TABLE}") == [(0,)]


@pytest.mark.parametrize("table", [TOOL_TABLE, ACCOUNT_TABLE])
def test_what_removes_rows_names_a_missing_right_before_it_begins(
    user: User, opened: Callable[[str], Engine], table: str
) -> None:
    add_connection(user.url)
    engine = opened(user.url)
    store(engine, [arrival()], {1: OVERWRITE})
    user.revoke("DELETE", table)

    for remove in ways_to_remove(engine):
        with pytest.raises(ConfigurationError, match=f"no right to DELETE on {table}, so nothing"):
            remove()

    assert query(user.url, f"SELECT COUNT(*) FROM {RAW_TABLE}") == [(1,)]
    assert query(user.url, f"SELECT COUNT(*) FROM {TOMBSTONE_TABLE}") == [(0,)]


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_migrating_names_a_missing_right_before_it_begins(
    request: pytest.FixtureRequest, opened: Callable[[str], Engine], kind: str
) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = {}"
    own = tables.format("DATABASE()" if kind == "mariadb" else "current_schema()")
    with User(url) as user:
        user.grant_listed()
        engine = opened(user.url)
        with pytest.raises(ConfigurationError, match="no right to CREATE"):
            migrate(engine)
        assert query(url, own) == []
        user.run(
            "GRANT CREATE, ALTER, DROP, INDEX, CREATE VIEW ON `lake`.* TO 'telemetry'@'%'"
            if kind == "mariadb"
            else "GRANT CREATE ON SCHEMA public TO telemetry"
        )
        engine.dispose()  # a session has the rights that there were when it began
        assert migrate(engine)
        engine.dispose()


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [("lake", True), ("la%", True), ("l_ke", True), (r"l\_ke", False), ("lak", False)],
)
def test_a_grants_pattern_covers_databases_as_mysql_reads_it(pattern: str, covered: bool) -> None:
    assert _covers(pattern, "lake") == covered
