"""From the database URL that DevLake is configured with to an SQLAlchemy engine."""

import re
from importlib import import_module
from typing import Any, NamedTuple, Optional
from urllib.parse import parse_qsl, unquote

from sqlalchemy.engine import URL, Engine

_BACKENDS = {
    "mysql": "mysql",
    "mariadb": "mysql",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "sqlite": "sqlite",
}
# SQLAlchemy's name of a driver and the module it needs, the preferred one first.
_DRIVERS = {
    "mysql": {"mysqldb": "MySQLdb", "pymysql": "pymysql"},
    "postgresql": {"psycopg": "psycopg", "psycopg2": "psycopg2"},
}
_PACKAGES = {"mysql": "PyMySQL", "postgresql": "psycopg[binary]"}
# Options of Go's MySQL driver that the ones for Python don't know.
_GO_ONLY = {
    "allowAllFiles", "allowCleartextPasswords", "allowFallbackToPlaintext",
    "allowNativePasswords", "allowOldPasswords", "checkConnLiveness", "clientFoundRows",
    "collation", "columnsWithAlias", "connectionAttributes", "interpolateParams", "loc",
    "maxAllowedPacket", "multiStatements", "parseTime", "readTimeout", "rejectReadOnly",
    "serverPubKey", "timeTruncate", "timeout", "writeTimeout",
}  # fmt: skip

_SCHEME = re.compile(r"([a-z0-9]+)(?:\+([a-z0-9]+))?://", re.IGNORECASE)
_HOST = r"(?:\[[^\]]*\]|[^/?#:@\[\](),]*)(?::\d*)?"
_ADDRESS = (
    r"(?:(?P<net>tcp|unix)\((?P<address>[^()]*)\)"
    rf"|(?P<hosts>{_HOST}(?:,{_HOST})*))"
    r"/(?P<name>[^/?#]*)(?:\?(?P<query>[^?]*))?"
)
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:]*)(?::(\d*))?")
# The first that fits is taken: user and password as a URL has them, and else a password with
# any character in it, unescaped. That one ends at the last @ that leaves an address behind it.
_SERVERS = (
    re.compile(r"(?:(?P<user>[^:@/?#]*)(?::(?P<password>[^@/?#]*))?@)?" + _ADDRESS),
    re.compile(r"(?P<user>[^:/]*)(?::(?P<password>.*))?@" + _ADDRESS, re.DOTALL),
)


class DatabaseUrlError(ValueError):
    """The URL can't be used as it stands, or no driver for it is installed."""


class _Server(NamedTuple):
    user: Optional[str]
    password: Optional[str]
    hosts: list[str]
    ports: list[str]  # as many; "" for the usual one
    socket: Optional[str]
    name: Optional[str]
    query: dict[str, str]


def create_db_engine(db_url: str, **options: Any) -> Engine:
    """Makes an engine, without connecting, for a URL in Go's style or in SQLAlchemy's.

    Understood are `mysql://user:password@host:3306/lake?charset=utf8mb4&parseTime=True&loc=UTC`,
    `user:password@tcp(host:3306)/lake`, `postgres://user:password@host:5432/lake?sslmode=disable`,
    `mysql+pymysql://...`, `postgresql+psycopg://...` and `sqlite:///file.db`. Special characters
    in a password may be percent-encoded or not. Unless the URL names a driver, mysqlclient is
    taken before PyMySQL and psycopg 3 before psycopg2. MySQL speaks utf8mb4 unless told otherwise;
    PyMySQL speaks TLS, as Go does, only if `tls` is `true`, `skip-verify` or `preferred`, or if an
    option of its own (`ssl_ca` and so on) asks for it. A PostgreSQL session is in UTC unless
    `TimeZone` says otherwise.

    PostgreSQL may have several hosts, as `postgres://user:password@one:5432,two:5433/lake` or, in
    SQLAlchemy's way, `postgresql://user:password@/lake?host=one:5432&host=two:5433`. The first
    that takes writes is connected to, unless `target_session_attrs` says otherwise.

    `options` go to SQLAlchemy's `create_engine`.

    DatabaseUrlError (a ValueError) if the URL can't be read or no driver is installed; its text
    never holds the password.
    """
    from sqlalchemy import create_engine

    db_url = db_url.strip()
    scheme = _SCHEME.match(db_url)
    # Go's own spelling of a MySQL address, with tcp(...) or unix(...), has no scheme.
    backend = _BACKENDS.get(scheme[1].lower()) if scheme else "mysql"
    if backend is None or not (scheme or "(" in db_url):
        raise _unreadable(f"{scheme[1]}://..." if scheme else "no scheme")
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
    arguments = _mysql_arguments if backend == "mysql" else _postgresql_arguments
    # Pinged before use: servers close idle connections.
    options = {"pool_pre_ping": True, **options}
    return create_engine(url, connect_args=arguments(server, driver), **options)


def _parse(rest: str, backend: str) -> _Server:
    match = _SERVERS[0].fullmatch(rest) or _SERVERS[1].fullmatch(rest)
    if match is None:
        raise _unreadable(f"{backend}://...")
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
    """Host and port of each address in a list with commas."""
    hosts: list[tuple[str, str]] = []
    for address in filter(None, addresses.split(",")):
        match = _HOST_AND_PORT.fullmatch(address)
        if match is None:
            raise _unreadable(f"{backend}://...")
        hosts.append((match[1].strip("[]"), match[2] or ""))
    return hosts


def _unreadable(what: str) -> DatabaseUrlError:
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
            # Not there, or there without the C library that it needs.
            continue
        return driver
    raise DatabaseUrlError(
        f"No driver for {backend} is installed: run `pip install '{_PACKAGES[backend]}'`."
    )


def _mysql_arguments(server: _Server, driver: str) -> dict[str, Any]:
    options = {key: value for key, value in server.query.items() if key not in _GO_ONLY}
    tls = options.pop("tls", "false").lower()
    arguments: dict[str, Any] = {
        key: int(value) if value.isdecimal() else value for key, value in options.items()
    }
    # Go takes a list and uses the first one that the server has.
    arguments["charset"] = options.get("charset", "utf8mb4").split(",")[0]
    if server.socket:
        arguments["unix_socket"] = server.socket
    if tls not in ("false", "0", "preferred"):
        arguments.update(_mysql_tls(tls, driver))
    elif tls != "preferred" and driver == "pymysql" and not any(map(_is_of_tls, options)):
        # By itself it would try, and read all certificates of the system for each connection.
        arguments["ssl_disabled"] = True
    return arguments


def _is_of_tls(option: str) -> bool:
    return option.startswith("ssl")


def _mysql_tls(tls: str, driver: str) -> dict[str, Any]:
    """`skip-verify` encrypts and trusts any certificate; `true` checks it and its host name."""
    trusting = tls == "skip-verify"
    if driver == "pymysql":
        return {"ssl": {"check_hostname": not trusting, "verify_mode": not trusting}}
    return {"ssl_mode": "REQUIRED" if trusting else "VERIFY_IDENTITY"}


def _postgresql_arguments(server: _Server, driver: str) -> dict[str, Any]:
    arguments = dict(server.query)
    for foreign in ("charset", "loc", "parseTime"):
        arguments.pop(foreign, None)
    zone = arguments.pop("TimeZone", "UTC")
    # Times go out as UTC without a zone; the session has to take them so.
    arguments["options"] = f"{arguments.get('options', '')} -c timezone={zone}".strip()
    if len(server.hosts) > 1:
        if any(server.ports):
            arguments["port"] = ",".join(server.ports)
        arguments.setdefault("target_session_attrs", "read-write")
    return arguments
