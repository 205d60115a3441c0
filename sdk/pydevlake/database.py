"""SQLAlchemy engines for DevLake's database URL."""

import re
import ssl
from contextlib import closing
from importlib import import_module
from typing import Any, NamedTuple, Optional
from urllib.parse import parse_qsl, unquote

from sqlalchemy.engine import URL, Engine
from sqlalchemy.engine import Connection as SqlConnection

from pydevlake.driver_options import (
    DatabaseUrlError,
    Options,
    mysql_options,
    postgresql_options,
)

_BACKENDS = {
    "mysql": "mysql",
    "mariadb": "mysql",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "pg": "postgresql",
    "sqlite": "sqlite",
}
# SQLAlchemy's name of a driver and its module, the preferred one first.
_DRIVERS = {
    "mysql": {"mysqldb": "MySQLdb", "pymysql": "pymysql"},
    "postgresql": {"psycopg": "psycopg", "psycopg2": "psycopg2"},
}
_PACKAGES = {"mysql": "PyMySQL[rsa]", "postgresql": "psycopg[binary]"}
_SCHEME = re.compile(r"([a-z0-9]+)(?:\+([a-z0-9]+))?://", re.IGNORECASE)
_HOST = r"(?:\[[^\]]*\]|[^/?#:@\[\](),]*)(?::\d*)?"
_ADDRESS = (
    r"(?:(?P<net>tcp|unix)\((?P<address>[^()]*)\)"
    rf"|(?P<hosts>{_HOST}(?:,{_HOST})*))"
    r"/(?P<name>[^/?#]*)(?:\?(?P<query>[^?]*))?"
)
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:]*)(?::(\d*))?")
# The first matching pattern is used: user and password as in a URL, or else a password with any
# unescaped characters. That one ends at the last @ before an address.
_SERVERS = (
    re.compile(r"(?:(?P<user>[^:@/?#]*)(?::(?P<password>[^@/?#]*))?@)?" + _ADDRESS),
    re.compile(r"(?P<user>[^:/]*)(?::(?P<password>.*))?@" + _ADDRESS, re.DOTALL),
)


class _Server(NamedTuple):
    user: Optional[str]
    password: Optional[str]
    hosts: list[str]
    ports: list[str]  # as many; "" for the usual one
    socket: Optional[str]
    name: Optional[str]
    query: dict[str, str]


def create_db_engine(db_url: str, **options: Any) -> Engine:
    """Make an engine, without connecting, for a URL in Go's style or in SQLAlchemy's.

    Understood are `mysql://user:password@host:3306/lake?charset=utf8mb4&parseTime=True&loc=UTC`,
    `user:password@tcp(host:3306)/lake`, `postgres://user:password@host:5432/lake?sslmode=disable`,
    `mysql+pymysql://...`, `postgresql+psycopg://...` and `sqlite:///file.db`. Special characters
    in a password may be percent-encoded or not. Unless the URL names a driver, mysqlclient is
    taken before PyMySQL and psycopg 3 before psycopg2.

    Options have the meaning of DevLake's own drivers. MySQL: `tls=true`, `skip-verify`,
    `preferred`, or `custom` with `ca-cert=FILE`; without one of them, and without an `ssl_ca` or
    the like, there is no TLS. Unless it is `skip-verify` or `preferred`, certificate and host are
    checked. Options unknown to the driver are variables of the session. PostgreSQL: options unknown
    to libpq are run-time parameters of the session, such as `search_path`. They are set by a
    statement, since poolers refuse them earlier; behind a pooler of transactions in each
    transaction. Sessions use utf8mb4 and UTC by default (`charset`, `TimeZone`).

    PostgreSQL may have several hosts, as `postgres://user:password@one:5432,two:5433/lake` or, in
    SQLAlchemy's way, `postgresql://user:password@/lake?host=one:5432&host=two:5433`. The first
    that takes writes is used, unless `target_session_attrs` differs.

    `options` are for SQLAlchemy's `create_engine`.

    DatabaseUrlError (a ValueError) if the URL can't be read or no driver is installed; its text
    never has the password.
    """
    from sqlalchemy import create_engine, event

    db_url = db_url.strip()
    scheme = _SCHEME.match(db_url)
    # Go's own spelling of a MySQL address, with tcp(...) or unix(...), has no scheme.
    backend = _BACKENDS.get(scheme[1].lower()) if scheme else "mysql"
    if backend is None or not (scheme or "(" in db_url):
        raise _make_url_error(f"{scheme[1]}://..." if scheme else "no scheme")
    if backend == "sqlite":
        return create_engine(db_url, **options)
    server = _parse(db_url[scheme.end() :] if scheme else db_url, backend)
    if backend == "mysql" and len(server.hosts) > 1:
        raise DatabaseUrlError(
            "The database URL (mysql://...) names several hosts, which MySQL's drivers can't choose"
            " from: name one address that always leads to the primary."
        )
    driver = (scheme and scheme[2]) or _installed_driver(backend)
    port = int(server.ports[0]) if len(server.hosts) == 1 and server.ports[0] else None
    host = ",".join(server.hosts) or None
    url = URL.create(f"{backend}+{driver}", server.user, server.password, host, port, server.name)
    # Pinged before use: servers close idle connections.
    options = {"pool_pre_ping": True, **options}
    if backend == "mysql":
        url_options = mysql_options(server.query)
        arguments = _mysql_arguments(server, url_options, driver)
    else:
        url_options = postgresql_options(server.query, psycopg=driver == "psycopg")
        arguments = _postgresql_arguments(server, url_options)
    engine = create_engine(url, connect_args=arguments, **options)
    event.listen(engine, "do_connect", _Connector(url_options))
    if backend == "postgresql":
        event.listen(engine, "begin", _set_in_transaction)
    return engine


def _parse(remainder: str, backend: str) -> _Server:
    match = _SERVERS[0].fullmatch(remainder) or _SERVERS[1].fullmatch(remainder)
    if match is None:
        raise _make_url_error(f"{backend}://...")
    # Go's spelling with tcp(...) takes user and password literally.
    decode = str if match["net"] else unquote
    query = parse_qsl(match["query"] or "")
    addresses = [match["address"] if match["net"] == "tcp" else match["hosts"] or ""]
    if backend == "postgresql":
        addresses += [value for key, value in query if key == "host"]
        query = [(key, value) for key, value in query if key != "host"]
    hosts = _hosts(",".join(filter(None, addresses)), backend)
    return _Server(
        user=decode(match["user"]) if match["user"] else None,
        password=decode(match["password"]) if match["password"] else None,
        hosts=[host for host, _ in hosts],
        ports=[port for _, port in hosts],
        socket=match["address"] if match["net"] == "unix" else None,
        name=unquote(match["name"]) or None,
        query=dict(query),
    )


def _hosts(addresses: str, backend: str) -> list[tuple[str, str]]:
    """Return the host and port of each address in a list with commas."""
    hosts: list[tuple[str, str]] = []
    for address in filter(None, addresses.split(",")):
        match = _HOST_AND_PORT.fullmatch(address)
        if match is None:
            raise _make_url_error(f"{backend}://...")
        hosts.append((match[1].strip("[]"), match[2] or ""))
    return hosts


def _make_url_error(what: str) -> DatabaseUrlError:
    return DatabaseUrlError(
        f"The database URL ({what}) can't be read: write it as"
        " mysql://user:password@host:3306/name, postgres://user:password@host:5432/name or"
        " sqlite:///file.db."
    )


def _installed_driver(backend: str) -> str:
    for driver, module in _DRIVERS[backend].items():
        try:
            import_module(module)
        except ImportError:
            # It is missing, or its C library is.
            continue
        return driver
    raise DatabaseUrlError(
        f"No driver for {backend} is installed: run `pip install '{_PACKAGES[backend]}'`."
    )


def _mysql_arguments(server: _Server, url_options: Options, driver: str) -> dict[str, Any]:
    arguments = dict(url_options.arguments)
    if server.socket:
        arguments["unix_socket"] = server.socket
    if url_options.tls is None:
        if driver == "pymysql":
            # Its default tries TLS, and reads all certificates of the system for each connection.
            arguments["ssl_disabled"] = True
    elif url_options.tls.mode != "preferred" and driver != "pymysql":
        arguments.update(url_options.tls.arguments())
    return arguments


def _postgresql_arguments(server: _Server, url_options: Options) -> dict[str, Any]:
    arguments = dict(url_options.arguments)
    if len(server.hosts) > 1:
        if any(server.ports):
            arguments["port"] = ",".join(server.ports)
        arguments.setdefault("target_session_attrs", "read-write")
    return arguments


class _Connector:
    """Connects with a URL's options, and makes the session's settings before any other listener.

    The driver's errors about unknown options or files become errors of the database.
    """

    def __init__(self, url_options: Options) -> None:
        self._settings = url_options.settings
        tls = url_options.tls
        self._tls = tls if tls is not None and tls.mode != "preferred" else None

    def __call__(self, dialect: Any, record: Any, args: Any, arguments: dict[str, Any]) -> Any:
        # SQLAlchemy calls no other listener after one that has connected.
        for other in dialect.dispatch.do_connect:
            if other is not self:
                other(dialect, record, args, arguments)
        connection = self._connection(dialect, args, arguments)
        try:
            # PyMySQL before 1.2 continues without encryption if the server has no TLS.
            if self._tls and not getattr(connection, "_secure", True):
                raise dialect.loaded_dbapi.OperationalError(
                    "the server has no TLS, which the database URL asks for"
                )
            self._make_settings(connection, dialect.name, record.info)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connection(self, dialect: Any, args: Any, arguments: dict[str, Any]) -> Any:
        try:
            if self._tls and dialect.driver == "pymysql":
                # Its files may have changed.
                arguments = {**arguments, "ssl": self._tls.context()}
            return dialect.connect(*args, **arguments)
        except (TypeError, ValueError, OSError, ssl.SSLError) as error:
            raise dialect.loaded_dbapi.OperationalError(
                f"the database URL's options can't be used: {error}"
            ) from error

    def _make_settings(self, connection: Any, name: str, info: dict[str, Any]) -> None:
        if name != "postgresql":
            _set_variables(connection, self._settings)
            return
        info["pooled"] = _is_pooled(connection)
        if info["pooled"]:
            info["settings of the url"] = self._settings
        else:
            with closing(connection.cursor()) as cursor:
                cursor.execute(*_make_config_query(self._settings, local=False))
        connection.commit()


def _set_variables(connection: Any, settings: dict[str, str]) -> None:
    with closing(connection.cursor()) as cursor:
        for name, value in settings.items():
            # As SQL, like Go's driver: a text has its own quotes.
            cursor.execute(f"SET {name} = {value}")


def _make_config_query(settings: dict[str, str], local: bool) -> tuple[str, tuple[str, ...]]:
    """Return a query that makes settings, and its values; `local` ones last for a transaction."""
    calls = ", ".join([f"set_config(%s, %s, {str(local).lower()})"] * len(settings))
    return f"SELECT {calls}", tuple(item for pair in settings.items() for item in pair)


def _is_pooled(connection: Any) -> bool:
    """Return true if a pooler between us and PostgreSQL answers for the session.

    Then the next transaction may have another session.
    """
    with closing(connection.cursor()) as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [answers] = cursor.fetchone()
    return bool(answers != connection.info.backend_pid)


def _set_in_transaction(connection: SqlConnection) -> None:
    settings = connection.info.get("settings of the url")
    if settings:
        connection.exec_driver_sql(*_make_config_query(settings, local=True))
