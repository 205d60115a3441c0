"""Test what a session keeps of rights and settings must not outlive their return."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pymysql
import pytest

from developer_telemetry.constants import RAW_TABLE
from tests.support.receivers import Receiver, add_connection, eventually, migrate, query, report
from tests.support.servers import execute

# A round of checks, an attempt of the drain, and time to spare.
BACK_SECONDS = 15.0


class Lent:
    """A user of its own for a receiver, whose rights the test gives and takes."""

    def __init__(self, server: str, url: str) -> None:
        self._server = server
        self.name = f"lent_{secrets.token_hex(4)}"
        self.database = urlsplit(url).path.lstrip("/")
        parts = urlsplit(url)
        self.url = parts._replace(
            netloc=f"{self.name}:secret@{parts.hostname}:{parts.port}"
        ).geturl()

    def run(self, *statements: str) -> None:
        """Run statements as the server's own user, in which `{user}` is the lent one.

        Statements that one gives as its answer are run as well.
        """
        for statement in statements:
            written = statement.format(user=self.name, database=self.database)
            for (answer,) in execute(self._server, written):
                if isinstance(answer, str):
                    with suppress(pymysql.err.MySQLError):  # the session has ended by itself
                        execute(self._server, answer)


@pytest.fixture
def mariadb_user(mariadb_server: str, mariadb_url: str) -> Iterator[Lent]:
    lent = Lent(mariadb_server, mariadb_url)
    lent.run("CREATE USER {user} IDENTIFIED BY 'secret'")
    yield lent
    lent.run("DROP USER {user}", "DROP ROLE IF EXISTS {user}_role")


@pytest.fixture
def postgresql_user(postgresql_server: str, postgresql_url: str) -> Iterator[Lent]:
    lent = Lent(postgresql_url, postgresql_url)
    lent.run("CREATE USER {user} PASSWORD 'secret'")
    yield lent
    lent.run("DROP OWNED BY {user}", "DROP ROLE {user}")


@pytest.mark.parametrize(
    ("give", "take"),
    [
        (["GRANT ALL ON *.* TO {user}"], ["REVOKE INSERT, UPDATE ON *.* FROM {user}"]),
        (
            [
                "CREATE ROLE IF NOT EXISTS {user}_role",
                "GRANT ALL ON *.* TO {user}_role",
                "GRANT {user}_role TO {user}",
                # In MariaDB's words and in MySQL's.
                "SET DEFAULT ROLE {user}_role /*M! FOR */ /*!80000 TO */ {user}",
                "GRANT SELECT ON *.* TO {user}",
            ],
            ["REVOKE {user}_role FROM {user}"],
        ),
    ],
    ids=["all", "role"],
)
def test_mariadb_takes_reports_again_when_rights_are_given_back(
    mariadb_url: str, mariadb_user: Lent, tmp_path: Path, give: list[str], take: list[str]
) -> None:
    migrate(mariadb_url, tmp_path)
    connection = add_connection(mariadb_url)
    mariadb_user.run(*give)
    with Receiver(mariadb_user.url, tmp_path) as receiver:
        # MySQL has no KILL USER.
        end = "SELECT concat('KILL ', id) FROM information_schema.processlist WHERE user = '{user}'"
        take = [*take, end]
        _lend_and_return(receiver, mariadb_url, mariadb_user, connection, give, take)


@pytest.mark.parametrize(
    ("give", "take"),
    [
        (
            ["ALTER ROLE {user} RESET search_path"],
            ["ALTER ROLE {user} SET search_path = nowhere"],
        ),
        (
            ["ALTER ROLE {user} RESET role"],
            ["ALTER ROLE {user} SET role = pg_read_all_stats"],
        ),
    ],
    ids=["search_path", "role"],
)
def test_postgresql_takes_reports_again_when_rights_are_given_back(
    postgresql_url: str, postgresql_user: Lent, tmp_path: Path, give: list[str], take: list[str]
) -> None:
    migrate(postgresql_url, tmp_path)
    connection = add_connection(postgresql_url)
    postgresql_user.run(
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO {user}",
        "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {user}",
        "GRANT pg_read_all_stats TO {user}",
    )
    end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{user}'"
    with Receiver(postgresql_user.url, tmp_path) as receiver:
        take = [*take, end]
        _lend_and_return(receiver, postgresql_url, postgresql_user, connection, give, take)


def _lend_and_return(
    receiver: Receiver,
    url: str,
    lent: Lent,
    connection: int,
    give: list[str],
    take: list[str],
) -> None:
    def kept() -> int:
        [(count,)] = query(url, f"SELECT COUNT(*) FROM {RAW_TABLE}")
        return int(count)

    assert receiver.send(report("before"), connection).status_code == 200
    # The sessions end with it, since some rights last as long as the session that has got them,
    # and so does their lack.
    lent.run(*take)
    answers = [receiver.send(report(f"meanwhile {each}"), connection) for each in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    lent.run(*give)
    eventually(lambda: kept() == 4, BACK_SECONDS)
    assert receiver.send(report("after"), connection).status_code == 200
    eventually(lambda: kept() == 5, BACK_SECONDS)
    eventually(lambda: "telemetry_database_up 1" in receiver.client.get("/metrics").text, 10)


def test_a_database_that_was_made_anew_is_found_again(
    mariadb_server: str, mariadb_url: str, tmp_path: Path
) -> None:
    migrate(mariadb_url, tmp_path)
    connection = add_connection(mariadb_url)
    name = urlsplit(mariadb_url).path.lstrip("/")
    with Receiver(mariadb_url, tmp_path) as receiver:
        assert receiver.send(report("before"), connection).status_code == 200
        execute(mariadb_server, f"DROP DATABASE {name}")
        execute(mariadb_server, f"CREATE DATABASE {name}")
        migrate(mariadb_url, tmp_path)
        assert add_connection(mariadb_url) == connection

        assert receiver.send(report("after"), connection).status_code == 200

        rows = f"SELECT developer_id FROM {RAW_TABLE}"
        eventually(lambda: query(mariadb_url, rows) == [("after",)], BACK_SECONDS)
