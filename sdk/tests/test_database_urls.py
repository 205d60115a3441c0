import sys
from typing import Any, Optional

import pytest
from sqlalchemy import text

from pydevlake import database
from pydevlake.database import DatabaseUrlError, create_db_engine

AWKWARD = "p@ss/w:o?r#d% "


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What an engine's driver would be called with."""

    def arguments(url: str) -> dict[str, Any]:
        engine = create_db_engine(url)
        seen: dict[str, Any] = {}

        def connect(*args: Any, **kwargs: Any) -> None:
            seen.update(kwargs)
            raise engine.dialect.loaded_dbapi.Error("not today")

        monkeypatch.setattr(engine.dialect.loaded_dbapi, "connect", connect)
        with pytest.raises(Exception, match="not today"):
            engine.connect()
        return seen

    return arguments


@pytest.mark.parametrize(
    ("url", "driver", "host", "port", "name"),
    [
        ("mysql://u:p@h:3307/lake?charset=utf8mb4&parseTime=True&loc=UTC", None, "h", 3307, "lake"),
        ("mysql://u:p@h/lake", None, "h", None, "lake"),
        ("mariadb://u:p@h/lake", None, "h", None, "lake"),
        ("u:p@tcp(h:3307)/lake?parseTime=True", None, "h", 3307, "lake"),
        ("mysql://u:p@tcp(h:3307)/lake", None, "h", 3307, "lake"),
        ("mysql+pymysql://u:p@h:3307/lake", "pymysql", "h", 3307, "lake"),
        ("mysql://u:p@[::1]:3307/lake", None, "::1", 3307, "lake"),
        ("postgres://u:p@h:5433/lake?sslmode=disable", None, "h", 5433, "lake"),
        ("postgresql://u:p@h/lake", None, "h", None, "lake"),
        ("postgresql+psycopg://u:p@h/lake", "psycopg", "h", None, "lake"),
    ],
)
def test_both_styles_of_url_name_the_same_server(
    url: str, driver: str, host: str, port: int, name: str
) -> None:
    made = create_db_engine(url).url
    assert (made.username, made.password) == ("u", "p")
    assert (made.host, made.port, made.database) == (host, port, name)
    assert made.get_backend_name() == ("postgresql" if "postgres" in url else "mysql")
    assert driver in (None, made.get_driver_name())


@pytest.mark.parametrize(
    ("written", "password"),
    [
        ("p%40ss%2Fw%3Ao%3Fr%23d%25%20", AWKWARD),
        (AWKWARD, AWKWARD),
        ("50%off", "50%off"),
        ("a@b@c", "a@b@c"),
        ("user@host:3306/other", "user@host:3306/other"),
        ("a://b", "a://b"),
        ("(tcp)", "(tcp)"),
        ("ключ", "ключ"),
        ("", None),
    ],
)
@pytest.mark.parametrize("start", ["mysql://", "postgres://", "mysql+pymysql://"])
def test_a_password_may_hold_any_character(start: str, written: str, password: str) -> None:
    made = create_db_engine(f"{start}merico:{written}@db.example.org:1234/lake?x=1").url
    assert (made.username, made.password) == ("merico", password)
    assert (made.host, made.port, made.database) == ("db.example.org", 1234, "lake")


def test_gos_own_spelling_takes_a_password_literally() -> None:
    made = create_db_engine("merico:p%40@s(s)@tcp(h:3306)/lake?parseTime=true").url
    assert (made.username, made.password, made.host) == ("merico", "p%40@s(s)", "h")


@pytest.mark.parametrize(
    ("url", "user", "password", "host"),
    [
        ("postgres://user@tenant:p@h/lake", "user@tenant", "p", "h"),
        ("postgres://h/lake", None, None, "h"),
        ("postgres://u@h/lake", "u", None, "h"),
        ("postgres://u:p@h/lake?application_name=a@b/c", "u", "p", "h"),
        ("root:a://b@tcp(h:3306)/lake", "root", "a://b", "h"),
    ],
)
def test_an_at_sign_elsewhere_does_not_end_the_password(
    url: str, user: str, password: str, host: str
) -> None:
    made = create_db_engine(url).url
    assert (made.username, made.password, made.host) == (user, password, host)


def test_options_for_gos_driver_stay_away_from_pythons(connected: Any) -> None:
    arguments = connected(
        "mysql+pymysql://u:p@h/lake?charset=utf8mb4,utf8&parseTime=True&loc=UTC&timeout=5s"
        "&readTimeout=1m&allowNativePasswords=true&connect_timeout=9"
    )
    assert arguments["charset"] == "utf8mb4"
    assert arguments["connect_timeout"] == 9
    assert not {"parseTime", "loc", "timeout", "readTimeout", "allowNativePasswords"} & set(
        arguments
    )


def test_mysql_speaks_utf8mb4_unless_told_otherwise(connected: Any) -> None:
    assert connected("mysql+pymysql://u:p@h/lake")["charset"] == "utf8mb4"
    assert connected("mysql+pymysql://u:p@h/lake?charset=latin1")["charset"] == "latin1"


@pytest.mark.parametrize(
    ("tls", "expected"),
    [
        ("true", {"check_hostname": True, "verify_mode": True}),
        ("skip-verify", {"check_hostname": False, "verify_mode": False}),
        ("preferred", None),
        ("false", None),
    ],
)
def test_tls_is_turned_into_the_drivers_own_option(connected: Any, tls: str, expected: Any) -> None:
    arguments = connected(f"mysql+pymysql://u:p@h/lake?tls={tls}")
    assert "tls" not in arguments
    assert arguments.get("ssl") == expected


@pytest.mark.parametrize(
    ("query", "disabled"),
    [
        ("", True),
        ("?tls=false", True),
        ("?tls=preferred", False),
        ("?tls=true", False),
        ("?ssl_ca=/etc/ssl/ca.pem", False),
        ("?ssl_disabled=1", True),
    ],
)
def test_without_a_word_of_tls_there_is_none(connected: Any, query: str, disabled: bool) -> None:
    arguments = connected(f"mysql+pymysql://u:p@h/lake{query}")
    assert arguments.get("ssl_disabled", False) == disabled


def test_mysqlclient_gets_tls_as_a_mode() -> None:
    assert database._mysql_tls("true", "mysqldb") == {"ssl_mode": "VERIFY_IDENTITY"}
    assert database._mysql_tls("skip-verify", "mysqldb") == {"ssl_mode": "REQUIRED"}


def test_a_socket_may_stand_for_a_host(connected: Any) -> None:
    arguments = connected("mysql+pymysql://u:p@unix(/run/mysqld/mysqld.sock)/lake")
    assert arguments["unix_socket"] == "/run/mysqld/mysqld.sock"


def test_postgresql_keeps_sslmode_and_lives_in_utc(connected: Any) -> None:
    arguments = connected("postgres://u:p@h/lake?sslmode=require&loc=UTC&charset=x")
    assert arguments["sslmode"] == "require"
    assert arguments["options"] == "-c timezone=UTC"
    assert not {"loc", "charset"} & set(arguments)
    assert (
        connected("postgres://u:p@h/lake?TimeZone=Asia/Tokyo&options=-c%20a=b")["options"]
        == "-c a=b -c timezone=Asia/Tokyo"
    )


@pytest.mark.parametrize(
    ("url", "hosts", "ports"),
    [
        ("postgres://u:p@one:5433,two:5434/lake", "one,two", "5433,5434"),
        ("postgres://u:p@one,two/lake?sslmode=disable", "one,two", None),
        ("postgres://u:p@one,two:5434/lake", "one,two", ",5434"),
        ("postgres://u:p@[::1]:5433,[::2]:5434/lake", "::1,::2", "5433,5434"),
        ("postgresql+psycopg://u:p@/lake?host=one:5433&host=two:5434", "one,two", "5433,5434"),
        ("postgresql://u:p@/lake?host=one,two&port=5433,5434", "one,two", "5433,5434"),
        ("postgres://u:p@ss,w:o@one:5433,two:5434/lake", "one,two", "5433,5434"),
    ],
)
def test_of_several_hosts_postgresql_takes_the_one_that_writes(
    connected: Any, url: str, hosts: str, ports: Optional[str]
) -> None:
    arguments = connected(url)
    assert (arguments["host"], arguments.get("port")) == (hosts, ports)
    assert arguments["user"] == "u"
    assert arguments["target_session_attrs"] == "read-write"
    wish = f"{url}{'&' if '?' in url else '?'}target_session_attrs=any"
    assert connected(wish)["target_session_attrs"] == "any"


@pytest.mark.parametrize("folder", ["/run/postgresql", "%2Frun%2Fpostgresql"])
def test_postgresql_may_be_reached_by_a_socket(connected: Any, folder: str) -> None:
    arguments = connected(f"postgresql://u:p@/lake?host={folder}")
    assert arguments["host"] == "/run/postgresql"
    assert not {"port", "target_session_attrs"} & set(arguments)


@pytest.mark.parametrize("address", ["one:3306,two:3306", "one,two", "tcp(one:3306,two:3306)"])
def test_several_hosts_of_mysql_are_refused(address: str) -> None:
    with pytest.raises(DatabaseUrlError, match="one address that always leads to the primary"):
        create_db_engine(f"mysql://u:hunter2@{address}/lake")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "lake",
        "oracle://u:hunter2@h/lake",
        "mysql://u:hunter2@h",
        "mysql://u:hunter2@h:port/lake",
        "u:hunter2@tcp(h:port)/lake",
        "postgresql://u:hunter2@/lake?host=h:port",
        "u:hunter2@h/lake",
    ],
)
def test_an_unreadable_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(DatabaseUrlError, match="write it as") as refused:
        create_db_engine(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "first", "package"),
    [("mysql://u:p@h/lake", "MySQLdb", "PyMySQL"), ("postgres://u:p@h/lake", "psycopg", "psycopg")],
)
def test_a_missing_driver_is_named(
    monkeypatch: pytest.MonkeyPatch, url: str, first: str, package: str
) -> None:
    for modules in database._DRIVERS.values():
        for module in modules.values():
            monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DatabaseUrlError, match=f"pip install '{package}"):
        create_db_engine(url)


def test_an_engine_works_on_each_database(database_url: str) -> None:
    engine = create_db_engine(database_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 'žluťoučký 🐎'")).scalar() == "žluťoučký 🐎"
    engine.dispose()


def test_sqlite_is_taken_as_it_is() -> None:
    assert create_db_engine("sqlite:////tmp/lake.db").url.database == "/tmp/lake.db"
    assert create_db_engine("sqlite://").url.database is None
