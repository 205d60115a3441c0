"""Options of a database URL, translated from DevLake's drivers for Go to those for Python."""

import math
import os
import re
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

# Options of Go's MySQL driver without effect here: drivers for Python have it always on,
# always off, or leave it to the caller.
_GO_MYSQL = {
    "allowAllFiles", "allowCleartextPasswords", "allowFallbackToPlaintext",
    "allowNativePasswords", "allowOldPasswords", "autocommit", "checkConnLiveness",
    "clientFoundRows", "collation", "columnsWithAlias", "compress", "connectionAttributes",
    "interpolateParams", "loc", "maxAllowedPacket", "multiStatements", "parseTime",
    "rejectReadOnly", "serverPubKey", "timeTruncate",
}  # fmt: skip
# Its timeouts, and their names in PyMySQL and mysqlclient.
_GO_TIMEOUTS = {
    "timeout": "connect_timeout",
    "readTimeout": "read_timeout",
    "writeTimeout": "write_timeout",
}
_MYSQL_ARGUMENTS = {
    "auth_plugin", "binary_prefix", "bind_address", "charset", "client_flag", "connect_timeout",
    "defer_connect", "init_command", "local_infile", "max_allowed_packet", "named_pipe",
    "program_name", "read_default_file", "read_default_group", "read_timeout",
    "server_public_key", "server_public_key_path", "unix_socket", "use_unicode", "write_timeout",
}  # fmt: skip
# Any of these enables TLS, if no other option sets its mode.
_MYSQL_FILES = {
    "ca-cert": "ca",
    "ssl_ca": "ca",
    "ssl_capath": "capath",
    "ssl_cert": "cert",
    "ssl_key": "key",
    "ssl_key_password": "password",
    "ssl_cipher": "cipher",
}
_MYSQL_TLS = {*_MYSQL_FILES, "tls", "ssl_mode", "ssl_disabled", "ssl_verify_cert",
              "ssl_verify_identity"}  # fmt: skip

# Options of DevLake's MySQL URLs and Go's PostgreSQL drivers that are no settings.
_GO_POSTGRESQL = {
    "charset", "loc", "parseTime", "default_query_exec_mode", "statement_cache_capacity",
    "statement_cache_mode", "description_cache_capacity", "min_read_buffer_size",
    "binary_parameters", "disable_prepared_binary_result",
}  # fmt: skip
_LIBPQ = {
    "application_name", "channel_binding", "client_encoding", "connect_timeout", "dbname",
    "fallback_application_name", "gssdelegation", "gssencmode", "gsslib", "hostaddr",
    "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "krbsrvname",
    "load_balance_hosts", "max_protocol_version", "min_protocol_version", "passfile", "password",
    "port", "require_auth", "requirepeer", "service", "ssl_max_protocol_version",
    "ssl_min_protocol_version", "sslcert", "sslcertmode", "sslcompression", "sslcrl",
    "sslcrldir", "sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni",
    "target_session_attrs", "tcp_user_timeout", "user",
}  # fmt: skip
_POSTGRESQL_FILES = ("sslrootcert", "sslcert", "sslkey")
# psycopg's own; off by default, since poolers lose a session's prepared statements.
_PSYCOPG = {"prepare_threshold"}
_ZONES = {"timezone", "time_zone"}

_SETTING = re.compile(r"@{0,2}[A-Za-z_][A-Za-z0-9_.]*")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_COMMAND_LINE = re.compile(r"(?:-c\s*|--)([A-Za-z_][A-Za-z0-9_.-]*)=((?:\\.|[^\s\\])*)\s*")


class DatabaseUrlError(ValueError):
    """The URL can't be used, or no driver for it is installed."""


class Tls(NamedTuple):
    """The encryption: `mode` is preferred, skip-verify, verify-ca or verify; the others are files.

    Only `verify`, the default, checks that the certificate is the host's.
    """

    mode: str
    ca: Optional[str] = None
    capath: Optional[str] = None
    cert: Optional[str] = None
    key: Optional[str] = None
    password: Optional[str] = None
    cipher: Optional[str] = None

    def context(self) -> ssl.SSLContext:
        """Return PyMySQL's context; raise OSError or ssl.SSLError if the files can't be read."""
        context = ssl.create_default_context(cafile=self.ca, capath=self.capath)
        # Certificates made by MySQL's own installation violate the strict standard.
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        context.check_hostname = self.mode == "verify"
        if self.mode == "skip-verify":
            context.verify_mode = ssl.CERT_NONE
        if self.cert:
            context.load_cert_chain(self.cert, self.key, self.password)
        if self.cipher:
            context.set_ciphers(self.cipher)
        return context

    def arguments(self) -> dict[str, Any]:
        """Return mysqlclient's arguments."""
        modes = {"skip-verify": "REQUIRED", "verify-ca": "VERIFY_CA", "verify": "VERIFY_IDENTITY"}
        # MariaDB's library always checks the certificate if an authority is named.
        authority = () if self.mode == "skip-verify" else ("ca", "capath")
        names = (*authority, "cert", "key", "cipher")
        files = {name: getattr(self, name) for name in names if getattr(self, name)}
        return {"ssl_mode": modes[self.mode], **({"ssl": files} if files else {})}


class Options(NamedTuple):
    """The meaning of a URL's options."""

    arguments: dict[str, Any]  # of the driver's connect
    settings: dict[str, str]  # of the session, set by statements after the connect
    tls: Optional[Tls] = None  # MySQL's; PostgreSQL's is among the arguments


def mysql_options(query: Mapping[str, str]) -> Options:
    """Return the meaning of a URL's options for go-sql-driver/mysql, unknown ones as variables.

    Options of PyMySQL and mysqlclient are passed on.
    """
    arguments: dict[str, Any] = {}
    settings: dict[str, str] = {}
    for name, value in query.items():
        if name in _GO_TIMEOUTS:
            seconds = _parse_seconds(name, value)
            if seconds:
                arguments.setdefault(_GO_TIMEOUTS[name], seconds)
        elif name in _MYSQL_ARGUMENTS:
            arguments[name] = int(value) if value.isdecimal() else value
        elif name not in _GO_MYSQL and name not in _MYSQL_TLS:
            settings[_require_setting_name(name)] = value
    # Go takes a list and uses the first one that the server has.
    arguments["charset"] = query.get("charset", "utf8mb4").split(",")[0]
    return Options(arguments, settings, _mysql_tls(query))


def _mysql_tls(query: Mapping[str, str]) -> Optional[Tls]:
    mode = _mysql_tls_mode(query)
    if mode == "off":
        return None
    files = {_MYSQL_FILES[name]: value for name, value in query.items() if name in _MYSQL_FILES}
    for name, path in query.items():
        if _MYSQL_FILES.get(name) in ("ca", "cert", "key"):
            _require_readable(name, path)
    tls = Tls(mode, **files)
    try:
        tls.context()
    except (OSError, ssl.SSLError) as error:
        raise DatabaseUrlError(
            f"The files for TLS that the database URL names can't be used ({error}): check that"
            " they are certificates and keys in PEM format, and that key and certificate match."
        ) from None
    return tls


def _mysql_tls_mode(query: Mapping[str, str]) -> str:
    mode = query.get("tls", "").lower()
    if mode in ("false", "0"):
        return "off"
    if mode in ("skip-verify", "preferred"):
        return mode
    if mode in ("true", "1"):
        return "verify"
    if mode == "custom" and "ca-cert" in query:
        return "verify"
    if mode:
        raise DatabaseUrlError(
            "The database URL's tls must be true, false, skip-verify, preferred, or custom with"
            " ca-cert=FILE."
        )
    # The names of MySQL's own programs and PyMySQL.
    modes = {"DISABLED": "off", "PREFERRED": "preferred", "REQUIRED": "skip-verify",
             "VERIFY_CA": "verify-ca", "VERIFY_IDENTITY": "verify"}  # fmt: skip
    mode = query.get("ssl_mode", "").upper()
    if mode:
        if mode not in modes:
            raise DatabaseUrlError(
                f"The database URL's ssl_mode must be one of {', '.join(modes)}."
            )
        return modes[mode]
    if _is_on(query, "ssl_disabled") or not any(name in _MYSQL_TLS for name in query):
        return "off"
    if _is_off(query, "ssl_verify_cert"):
        return "skip-verify"
    return "verify-ca" if _is_off(query, "ssl_verify_identity") else "verify"


def _is_on(query: Mapping[str, str], name: str) -> bool:
    return name in query and not _is_off(query, name)


def _is_off(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").lower() in ("0", "false", "off", "no")


def postgresql_options(query: Mapping[str, str], psycopg: bool) -> Options:
    """Return the meaning of a URL's options for pgx, with those unknown to libpq as parameters.

    Only libpq's options are used for the connection: poolers would refuse the others, and `options`
    as well. `psycopg` is true for psycopg 3, which has one more option.
    """
    arguments: dict[str, Any] = {}
    # Times are sent as UTC without a zone, so the session needs this zone.
    settings: dict[str, str] = {"timezone": "UTC"}
    for name, value in query.items():
        if name == "options":
            settings.update(_parse_command_line(value))
        elif name.lower() in _ZONES:
            settings["timezone"] = value
        elif name in ("database", "dbname"):
            arguments["dbname"] = value
        elif name in _PSYCOPG:
            if psycopg:
                arguments[name] = int(value) if value.isdecimal() else None
        elif name in _LIBPQ:
            arguments[name] = value
            if name in _POSTGRESQL_FILES and query.get("sslmode") != "disable":
                _require_readable(name, value)
        elif name not in _GO_POSTGRESQL:
            settings[_require_setting_name(name)] = value
    return Options(arguments, settings)


def _parse_command_line(options: str) -> dict[str, str]:
    """Return the settings in a server's command line, `-c name=value` or `--name=value`."""
    settings: dict[str, str] = {}
    position = 0
    options = options.strip()
    while position < len(options):
        match = _COMMAND_LINE.match(options, position)
        if match is None:
            raise DatabaseUrlError(
                "The database URL's options are not all of the form `-c name=value`: write them so,"
                " or each as an option of its own, as in &search_path=devlake."
            )
        settings[match[1].replace("-", "_")] = re.sub(r"\\(.)", r"\1", match[2])
        position = match.end()
    return settings


def _require_setting_name(name: str) -> str:
    if not _SETTING.fullmatch(name):
        raise DatabaseUrlError(
            f"The database URL's option {name!r} is unknown to its drivers and its server:"
            " correct or remove it."
        )
    return name


def _require_readable(name: str, path: str) -> None:
    if path == "system" and name == "sslrootcert":
        return
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise DatabaseUrlError(
            f"The database URL's {name} can't be read ({path}: {os.strerror(error.errno or 0)}):"
            " correct the path, or make the file readable."
        ) from None


def _parse_seconds(name: str, duration: str) -> int:
    """Return a duration in Go's notation, rounded up to a whole second; 0 for none."""
    parts = _DURATION.findall(duration)
    if "".join(number + unit for number, unit in parts) != duration or not parts:
        if duration == "0":
            return 0
        raise DatabaseUrlError(
            f"The database URL's {name} is not a duration: write it as 30s, 500ms or 1m30s."
        )
    return math.ceil(sum(float(number) * _SECONDS[unit] for number, unit in parts))
