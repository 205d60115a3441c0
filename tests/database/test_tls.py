"""Test that TLS is used where it is asked for, and that a server with another name is refused."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from developer_telemetry.database.engine import open_engine
from developer_telemetry.database.error_texts import describe_error
from tests.support.certificates import Authority
from tests.support.servers import HOST, MariaDB, PostgreSQL, Server, unprivileged
from tests.support.sites import own_server

# Another address of the same servers, which their certificates don't name.
OTHER_HOST = "127.0.0.2"

MODULES = {"pymysql": "pymysql", "mysqldb": "MySQLdb", "psycopg": "psycopg", "psycopg2": "psycopg2"}


class Place(NamedTuple):
    """A server with TLS, the authority of its certificate, and one that nobody trusts."""

    server: Server
    authority: Authority
    stranger: Authority

    def url(self, driver: str, query: str, host: str = HOST) -> str:
        """Its address for a driver; CA, STRANGER, CERT and KEY in the query stand for files."""
        client = self.authority.certify("client")
        files = {
            "CA": self.authority.certificate,
            "STRANGER": self.stranger.certificate,
            "CERT": client.certificate,
            "KEY": client.key,
        }
        for name, file in files.items():
            query = query.replace(f"={name}", f"={file}")
        scheme, _, rest = self.server.url("").partition("://")
        database = "postgres" if scheme == "postgres" else "mysql"
        scheme = {"postgres": "postgresql"}.get(scheme, scheme)
        address = rest.partition("/")[0].replace(HOST, host)
        return f"{scheme}+{driver}://{address}/{database}?{query}"


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    own = authority.certify(HOST)
    arguments = [
        f"--bind-address={HOST},{OTHER_HOST}",
        f"--ssl-cert={own.certificate}",
        f"--ssl-key={own.key}",
        f"--ssl-ca={authority.certificate}",
    ]
    with own_server(lambda: MariaDB(arguments=arguments)) as server:
        yield Place(server, authority, Authority(folder, "stranger"))


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Place]:
    # Not below pytest's folder, which the server's user may not enter.
    with tempfile.TemporaryDirectory(prefix="tls-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        authority = Authority(folder)
        own = authority.certify(HOST, unprivileged())
        settings = {
            "listen_addresses": f"{HOST},{OTHER_HOST}",
            "ssl": "on",
            "ssl_cert_file": str(own.certificate),
            "ssl_key_file": str(own.key),
            "ssl_ca_file": str(authority.certificate),
        }
        with own_server(lambda: PostgreSQL(settings)) as server:
            yield Place(server, authority, Authority(folder, "stranger"))


def cipher(url: str) -> str:
    """Return what the session is encrypted by, "" if it is not; as our engines open it."""
    engine = open_engine(url)
    question = (
        "SELECT CASE WHEN ssl THEN cipher ELSE '' END FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        if engine.dialect.name == "postgresql"
        else "SHOW SESSION STATUS LIKE 'Ssl_cipher'"
    )
    try:
        with engine.connect() as connection:
            return str(connection.execute(text(question)).one()[-1])
    finally:
        engine.dispose()


@pytest.fixture(params=["pymysql", "mysqldb"])
def mysql_driver(request: pytest.FixtureRequest) -> str:
    return _installed(request.param)


@pytest.fixture(params=["psycopg", "psycopg2"])
def postgresql_driver(request: pytest.FixtureRequest) -> str:
    return _installed(request.param)


def _installed(driver: str) -> str:
    if find_spec(MODULES[driver]) is None:
        pytest.skip(f"{MODULES[driver]} is not installed")
    return driver


@pytest.mark.parametrize(
    "query",
    [
        "tls=custom&ca-cert=CA",
        "tls=true&ssl_ca=CA",
        "ssl_ca=CA",
        "ssl_mode=VERIFY_IDENTITY&ssl_ca=CA",
        "tls=true&ssl_ca=CA&ssl_cert=CERT&ssl_key=KEY",
        "tls=skip-verify",
        "tls=skip-verify&ssl_ca=STRANGER",
    ],
)
def test_mysql_is_encrypted_as_the_url_asks(mariadb: Place, mysql_driver: str, query: str) -> None:
    assert cipher(mariadb.url(mysql_driver, query))


def test_mysql_is_encrypted_if_it_can_be_where_that_is_preferred(
    mariadb: Place, mariadb_server: str
) -> None:
    # MariaDB's own library, and so mysqlclient with it, prefers not to.
    assert cipher(mariadb.url("pymysql", "tls=preferred"))
    without_tls = mariadb_server.replace("mysql://", "mysql+pymysql://")
    assert cipher(f"{without_tls}&tls=preferred") == ""


@pytest.mark.parametrize("query", ["", "tls=false"])
def test_mysql_is_not_encrypted_unless_asked(mariadb: Place, query: str) -> None:
    assert cipher(mariadb.url("pymysql", query)) == ""


@pytest.mark.parametrize(
    ("query", "host"),
    [
        ("tls=true", HOST),
        ("tls=true&ssl_ca=STRANGER", HOST),
        ("tls=custom&ca-cert=STRANGER", HOST),
        ("ssl_ca=STRANGER", HOST),
        ("tls=true&ssl_ca=STRANGER&ssl_verify_cert=false", HOST),
        ("tls=true&ssl_ca=CA", OTHER_HOST),
        ("tls=custom&ca-cert=CA", OTHER_HOST),
        ("tls=true&ssl_ca=CA&ssl_verify_identity=false", OTHER_HOST),
    ],
)
def test_mysql_with_another_certificate_is_turned_down(
    mariadb: Place, mysql_driver: str, query: str, host: str
) -> None:
    with pytest.raises(DBAPIError) as refused:
        cipher(mariadb.url(mysql_driver, query, host))
    assert any(
        word in describe_error(refused.value).lower() for word in ("certificate", "ssl", "tls")
    )


@pytest.mark.parametrize(
    ("query", "host"),
    [
        ("sslmode=verify-full&sslrootcert=CA", HOST),
        ("sslmode=verify-full&sslrootcert=CA&sslcert=CERT&sslkey=KEY", HOST),
        ("sslmode=verify-ca&sslrootcert=CA", OTHER_HOST),
        ("sslmode=require", HOST),
    ],
)
def test_postgresql_is_encrypted_as_the_url_asks(
    postgresql: Place, postgresql_driver: str, query: str, host: str
) -> None:
    assert cipher(postgresql.url(postgresql_driver, query, host))


@pytest.mark.parametrize(
    ("query", "host"),
    [
        ("sslmode=verify-full&sslrootcert=STRANGER", HOST),
        ("sslmode=require&sslrootcert=STRANGER", HOST),
        ("sslmode=verify-full&sslrootcert=CA", OTHER_HOST),
    ],
)
def test_postgresql_with_another_certificate_is_turned_down(
    postgresql: Place, postgresql_driver: str, query: str, host: str
) -> None:
    with pytest.raises(DBAPIError, match="certificate"):
        cipher(postgresql.url(postgresql_driver, query, host))


def test_a_server_without_tls_is_turned_down_by_who_asks_for_it(mariadb_server: str) -> None:
    url = mariadb_server.replace("mysql://", "mysql+pymysql://")
    with pytest.raises(DBAPIError, match=r"(?i)ssl|tls"):
        cipher(f"{url}&tls=skip-verify")
