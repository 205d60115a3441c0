import ssl
import sys
from typing import Any, Optional

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pydevlake import database
from pydevlake.database import create_db_engine
from pydevlake.driver_options import DatabaseUrlError, mysql_options, postgresql_options

AWKWARD = "p@ss/w:o?r#d% "


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the arguments of an engine's driver."""

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
        "&autocommit=true&allowNativePasswords=true&connect_timeout=9"
    )
    assert arguments["charset"] == "utf8mb4"
    assert arguments["connect_timeout"] == 9
    foreign = {"parseTime", "loc", "timeout", "autocommit", "allowNativePasswords"}
    assert not foreign & set(arguments)


def test_mysql_speaks_utf8mb4_unless_told_otherwise(connected: Any) -> None:
    assert connected("mysql+pymysql://u:p@h/lake")["charset"] == "utf8mb4"
    assert connected("mysql+pymysql://u:p@h/lake?charset=latin1")["charset"] == "latin1"


@pytest.mark.parametrize("word", ["true", "TRUE", "1", "skip-verify", "Skip-Verify"])
def test_tls_is_turned_into_the_drivers_own_option(connected: Any, word: str) -> None:
    arguments = connected(f"mysql+pymysql://u:p@h/lake?tls={word}")
    checked = "skip" not in word.lower()
    assert "tls" not in arguments
    assert arguments["ssl"].check_hostname == checked
    assert arguments["ssl"].verify_mode == (ssl.CERT_REQUIRED if checked else ssl.CERT_NONE)
    assert "ssl_disabled" not in arguments


@pytest.mark.parametrize("query", ["tls=preferred", "ssl_mode=PREFERRED"])
def test_preferred_tls_is_left_to_the_driver(connected: Any, query: str) -> None:
    assert not {"ssl", "ssl_disabled"} & set(connected(f"mysql+pymysql://u:p@h/lake?{query}"))


@pytest.mark.parametrize("query", ["", "?tls=false", "?tls=0", "?ssl_disabled=1"])
def test_without_a_word_of_tls_there_is_none(connected: Any, query: str) -> None:
    arguments = connected(f"mysql+pymysql://u:p@h/lake{query}")
    assert arguments["ssl_disabled"] is True
    assert "ssl" not in arguments


@pytest.mark.parametrize(
    ("query", "mode"),
    [
        ("tls=true", "verify"),
        ("tls=true&ssl_ca=FILE", "verify"),
        ("tls=true&ca-cert=FILE", "verify"),
        ("tls=custom&ca-cert=FILE", "verify"),
        ("ssl_ca=FILE", "verify"),
        ("ssl_ca=FILE&ssl_disabled=0", "verify"),
        ("tls=true&ssl_ca=FILE&ssl_verify_cert=false&ssl_verify_identity=false", "verify"),
        ("ssl_ca=FILE&ssl_verify_identity=false", "verify-ca"),
        ("ssl_ca=FILE&ssl_mode=VERIFY_CA", "verify-ca"),
        ("ssl_ca=FILE&ssl_verify_cert=0", "skip-verify"),
        ("tls=skip-verify&ssl_ca=FILE", "skip-verify"),
        ("ssl_mode=REQUIRED", "skip-verify"),
    ],
)
def test_certificate_and_host_are_checked_unless_asked_otherwise(
    query: str, mode: str, authority: str
) -> None:
    options = dict(pair.split("=") for pair in query.replace("FILE", authority).split("&"))
    tls = mysql_options(options).tls
    assert tls is not None
    assert tls.mode == mode
    assert tls.ca == (authority if "FILE" in query else None)


def test_mysqlclient_gets_tls_as_a_mode(authority: str) -> None:
    modes = {
        "true": {"ssl_mode": "VERIFY_IDENTITY"},
        "skip-verify": {"ssl_mode": "REQUIRED"},
    }
    for word, expected in modes.items():
        tls = mysql_options({"tls": word}).tls
        assert tls is not None
        assert tls.arguments() == expected
        tls = mysql_options({"tls": word, "ssl_ca": authority}).tls
        assert tls is not None
        checked = {"ssl": {"ca": authority}} if word == "true" else {}
        assert tls.arguments() == {**expected, **checked}


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("mysql://u:p@h/lake?tls=yes", "tls must be true"),
        ("mysql://u:p@h/lake?tls=custom", "custom with ca-cert"),
        ("mysql://u:p@h/lake?ssl_mode=on", "ssl_mode must be one of DISABLED"),
        ("mysql://u:p@h/lake?tls=custom&ca-cert=/nowhere/ca.pem", "ca-cert can't be read"),
        ("mysql://u:p@h/lake?ssl_ca=/nowhere/ca.pem", "ssl_ca can't be read"),
        (f"mysql://u:p@h/lake?ssl_ca={__file__}", "files for TLS"),
        ("mysql://u:p@h/lake?timeout=5", "timeout is not a duration"),
        ("mysql://u:p@h/lake?no-such-option=1", "'no-such-option'"),
        ("postgres://u:p@h/lake?no-such-option=1", "'no-such-option'"),
        ("postgres://u:p@h/lake?sslmode=verify-full&sslrootcert=/nowhere/ca.pem", "sslrootcert"),
        ("postgres://u:p@h/lake?options=-B%205", "options are not all of the form"),
    ],
)
def test_what_an_option_can_not_be_is_named_in_one_line(url: str, named: str) -> None:
    with pytest.raises(DatabaseUrlError, match=named) as refused:
        create_db_engine(url)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("duration", "seconds"), [("5s", 5), ("1m30s", 90), ("300ms", 1), ("1h", 3600), ("1.5s", 2)]
)
def test_gos_timeouts_are_kept(connected: Any, duration: str, seconds: int) -> None:
    names = {"timeout": "connect", "readTimeout": "read", "writeTimeout": "write"}
    query = "&".join(f"{name}={duration}" for name in names)
    arguments = connected(f"mysql+pymysql://u:p@h/lake?{query}")
    assert [arguments[f"{name}_timeout"] for name in names.values()] == [seconds] * 3
    assert "read_timeout" not in connected("mysql+pymysql://u:p@h/lake?readTimeout=0")


def test_a_socket_may_stand_for_a_host(connected: Any) -> None:
    arguments = connected("mysql+pymysql://u:p@unix(/run/mysqld/mysqld.sock)/lake")
    assert arguments["unix_socket"] == "/run/mysqld/mysqld.sock"


def test_postgresql_gets_what_libpq_knows_and_makes_settings_of_the_rest(connected: Any) -> None:
    arguments = connected(
        "postgres://u:p@h/lake?sslmode=require&loc=UTC&charset=x&default_query_exec_mode=exec"
        "&application_name=lake&search_path=one,two&options=-c%20a.b=c%5C%20d%20--lock-timeout=5s"
    )
    assert arguments["sslmode"] == "require"
    assert arguments["application_name"] == "lake"
    assert not {"loc", "charset", "options", "search_path", "default_query_exec_mode"} & set(
        arguments
    )


@pytest.mark.parametrize(
    ("query", "settings"),
    [
        ("", {"timezone": "UTC"}),
        ("TimeZone=Asia/Tokyo", {"timezone": "Asia/Tokyo"}),
        ("time_zone=Asia/Tokyo", {"timezone": "Asia/Tokyo"}),
        ("search_path=one,two", {"timezone": "UTC", "search_path": "one,two"}),
        (
            "options=-c a.b=c\\ d --lock-timeout=5s -csearch_path=x",
            {"timezone": "UTC", "a.b": "c d", "lock_timeout": "5s", "search_path": "x"},
        ),
        ("prepare_threshold=3&sslmode=require&loc=UTC", {"timezone": "UTC"}),
    ],
)
def test_run_time_parameters_of_postgresql_are_known_from_options(
    query: str, settings: dict[str, str]
) -> None:
    options = dict(pair.split("=", 1) for pair in query.split("&")) if query else {}
    assert postgresql_options(options, psycopg=True).settings == settings


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_run_time_parameters_are_in_force_in_each_session(postgresql_url: str, driver: str) -> None:
    pytest.importorskip(driver)
    url = postgresql_url.replace("postgres://", f"postgresql+{driver}://")
    engine = create_db_engine(f"{url}&search_path=pg_catalog&statement_timeout=7s&a.b=it's")
    with engine.connect() as connection:
        for name, value in {
            "search_path": "pg_catalog",
            "statement_timeout": "7s",
            "a.b": "it's",
            "timezone": "UTC",
        }.items():
            assert connection.execute(text(f"SHOW {name}")).scalar() == value
            connection.rollback()
    engine.dispose()


@pytest.mark.parametrize("driver", ["pymysql", "mysqldb"])
def test_what_gos_driver_does_not_know_is_a_variable_of_mysqls_session(
    mariadb_url: str, driver: str
) -> None:
    pytest.importorskip({"pymysql": "pymysql", "mysqldb": "MySQLdb"}[driver])
    url = mariadb_url.replace("mysql://", f"mysql+{driver}://")
    engine = create_db_engine(f"{url}&wait_timeout=77&sql_mode=%27ANSI_QUOTES%27")
    with engine.connect() as connection:
        asked = text("SELECT @@wait_timeout, @@sql_mode")
        assert tuple(connection.execute(asked).one()) == (77, "ANSI_QUOTES")
        # Before SQLAlchemy looked at it.
        assert engine.dialect.identifier_preparer.initial_quote == '"'
    engine.dispose()


@pytest.mark.parametrize(
    ("kind", "option", "told"),
    [
        ("mariadb", "no_such_option=1", "Unknown system variable 'no_such_option'"),
        ("mariadb", "auth_plugin=x", "options can't be used"),
        ("postgresql", "no_such_option=1", 'unrecognized configuration parameter "no_such_option"'),
    ],
)
def test_an_option_that_nobody_knows_is_named_by_an_error_of_the_database(
    request: pytest.FixtureRequest, kind: str, option: str, told: str
) -> None:
    engine = create_db_engine(f"{request.getfixturevalue(f'{kind}_url')}&{option}")
    with pytest.raises(DBAPIError, match=told):
        engine.connect()
    engine.dispose()


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
