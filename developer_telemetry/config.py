"""The settings that come from the environment, each declared once: name, default and purpose."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Optional, Union
from urllib.parse import urlsplit

from developer_telemetry.errors import ConfigurationError

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

ADMIN_TOKEN_LENGTH = 16
# Names in the data folder.
DATABASE_NAME = "telemetry.db"
SECRET_NAME = "encryption_secret"
SPOOL_NAME = "spool"


# Variables that Kubernetes makes of a service whose name begins with `telemetry`.
_OF_KUBERNETES = re.compile(r"TELEMETRY_.*(_SERVICE_(HOST|PORT.*)|_PORT|_PORT_\d+_(TCP|UDP).*)")


class Setting(NamedTuple):
    """One environment variable. `NAME_FILE` may name a file that holds the value instead."""

    name: str
    default: str
    help: str


SETTINGS = (
    Setting(
        "DB_URL",
        "",
        "DevLake's database, in DevLake's own style or SQLAlchemy's;"
        " without it an SQLite file in TELEMETRY_DATA_DIR; its options mean what they mean to"
        " DevLake, so there is TLS to MySQL only where `tls` (or `ssl_ca`) asks for it",
    ),
    Setting(
        "ENCRYPTION_SECRET",
        "",
        "DevLake's secret, with which tokens are encrypted in the database;"
        " on SQLite one is made and kept in TELEMETRY_DATA_DIR if it isn't set, by `serve`, `demo`,"
        " `connect`, `migrate` and `import`",
    ),
    Setting(
        "TELEMETRY_STANDALONE",
        "false",
        "true, for a DevLake that does not load the plugin: `serve` and `migrate` create and update"
        " our tables in DevLake's database, as `migrate --standalone` does",
    ),
    Setting("TELEMETRY_DATA_DIR", "data", "where the embedded database and its secret are kept"),
    Setting(
        "TELEMETRY_HOST",
        "127.0.0.1",
        "the address or name to listen on; 0.0.0.0 for all addresses of IPv4, :: for all of IPv6"
        " and of IPv4",
    ),
    Setting("TELEMETRY_PORT", "8090", "the port to listen on"),
    Setting(
        "TELEMETRY_REQUIRE_TOKEN",
        "false",
        "true refuses reports to a connection that has no secret token",
    ),
    Setting(
        "TELEMETRY_TRUSTED_PROXIES",
        "",
        "addresses or networks of proxies in front of the receiver, separated by commas, such as"
        " 172.16.0.0/12: of their X-Forwarded-For the receiver takes the address of a refused"
        " machine; without it that is the address of the last proxy",
    ),
    Setting(
        "TELEMETRY_RETIRE_DAYS",
        "30",
        "the days without a report after which a machine is retired by itself and no longer counts"
        " as quiet, 0 for never; its next report restores it",
    ),
    Setting(
        "TELEMETRY_PRIVACY_CONTACT",
        "",
        "who answers people's questions about what is stored of them: a name, an e-mail address or"
        " a URL, shown on their own page and in the processing record",
    ),
    Setting(
        "TELEMETRY_SPOOL_DIR",
        "",
        "where reports wait on local disk while the database is away, each receiver its own;"
        " `spool` in TELEMETRY_DATA_DIR without it",
    ),
    Setting("TELEMETRY_SPOOL_MAX_MB", "512", "how much may wait there, in MiB"),
    Setting(
        "TELEMETRY_ADMIN_TOKEN",
        "",
        "what an operator signs in with to see the page at `/`, 16 characters or more; without it"
        " that page opens on this machine alone, and with the embedded database alone",
    ),
    Setting(
        "TELEMETRY_PUBLIC_URL",
        "",
        "where machines reach the receiver, such as https://devlake.example.com/api, for the"
        " addresses that commands print; without it DevLake's front proxy if DEVLAKE_URL is one,"
        " else the address to listen on",
    ),
    Setting(
        "DEVLAKE_URL",
        "",
        "DevLake's own address, such as https://devlake.example.com: commands about connections"
        " then go through its API, without it straight to the database",
    ),
    Setting("DEVLAKE_API_KEY", "", "a DevLake API key to show there, with the allowed path `.*`"),
    Setting(
        "DEVLAKE_USER",
        "",
        "in place of a key, a user of the front proxy's basic auth, or any name where DevLake's own"
        " server asks for one",
    ),
    Setting("DEVLAKE_PASSWORD", "", "that user's password"),
    Setting(
        "DEVLAKE_FORWARDED_USER",
        "",
        "whom DevLake's server takes commands for (X-Forwarded-User), where it has a"
        " FORWARDED_USER_SECRET; with a key as well on releases that need both",
    ),
    Setting("DEVLAKE_FORWARDED_USER_SECRET", "", "that FORWARDED_USER_SECRET of DevLake's server"),
    Setting("TELEMETRY_LOG_FORMAT", "text", "text or json"),
    Setting("TELEMETRY_LOG_LEVEL", "info", "debug, info, warning or error"),
)


class DevLakeAccess(NamedTuple):
    """The URL of DevLake's API and the credentials for it.

    These are a key, a user with a password, or none; also the user whom a proxy has admitted, with
    the secret that DevLake shares with the proxy.
    """

    url: str
    api_key: str = ""
    user: str = ""
    password: str = ""
    forwarded_user: str = ""
    forwarded_secret: str = ""


class Settings(NamedTuple):
    """The values in force.

    `db_url` is empty if no database is needed and none is set. `encryption_secret` is empty if none
    is set and the data folder has none.
    """

    db_url: str
    encryption_secret: str
    host: str
    port: int
    require_token: bool
    log_level: str
    log_format: str
    spool_dir: Path
    spool_max_bytes: int
    embedded: bool  # the database is an SQLite file of our own
    admin_token: str = ""
    public_url: str = ""
    devlake: Optional[DevLakeAccess] = None
    data_dir: Path = Path("data")
    standalone: bool = False  # we look after our tables in DevLake's database
    trusted_proxies: tuple[Network, ...] = ()
    retire_days: int = 30  # 0 for never
    privacy_contact: str = ""


def list_unknown_settings(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return remarks about variables that begin like our settings and are none."""
    names = [setting.name for setting in SETTINGS]
    remarks = []
    for name in sorted(environment):
        plain = name[: -len("_FILE")] if name.endswith("_FILE") else name
        is_ours = name.startswith("TELEMETRY_") and not _OF_KUBERNETES.fullmatch(name)
        if is_ours and plain not in names:
            close = difflib.get_close_matches(plain, names, 1)
            meant = f"; did you mean {close[0]}?" if close else " (docs/settings.md lists all)"
            remarks.append(f"there is no setting {name}, so it has no effect{meant}")
    return remarks


def load_settings(
    environment: Mapping[str, str] = os.environ, with_database: bool = True
) -> Settings:
    """Return the settings; this makes no file, no folder and no secret.

    Without `with_database`, no database has to be set.

    Raises:
        ConfigurationError: A value is not valid, or a file that holds one can't be read.
    """
    values = {setting.name: _value(environment, setting) for setting in SETTINGS}
    folder = Path(values["TELEMETRY_DATA_DIR"])
    db_url, secret = values["DB_URL"], values["ENCRYPTION_SECRET"].strip()
    if with_database:
        db_url, secret = _database(db_url, secret, folder)
    return Settings(
        db_url=db_url,
        encryption_secret=secret,
        host=_host(values["TELEMETRY_HOST"]),
        port=_number(values, "TELEMETRY_PORT", 1, 65535),
        require_token=_switch(values, "TELEMETRY_REQUIRE_TOKEN"),
        log_level=_word(values, "TELEMETRY_LOG_LEVEL", ("debug", "info", "warning", "error")),
        log_format=_word(values, "TELEMETRY_LOG_FORMAT", ("text", "json")),
        spool_dir=Path(values["TELEMETRY_SPOOL_DIR"] or folder / SPOOL_NAME),
        spool_max_bytes=_number(values, "TELEMETRY_SPOOL_MAX_MB", 1, 1 << 20) << 20,
        embedded=db_url.startswith("sqlite"),
        admin_token=_admin_token(values["TELEMETRY_ADMIN_TOKEN"].strip()),
        public_url=_address(values, "TELEMETRY_PUBLIC_URL"),
        devlake=_devlake(values),
        data_dir=folder,
        standalone=_switch(values, "TELEMETRY_STANDALONE"),
        trusted_proxies=_networks(values, "TELEMETRY_TRUSTED_PROXIES"),
        retire_days=_number(values, "TELEMETRY_RETIRE_DAYS", 0, 36_500),
        privacy_contact=values["TELEMETRY_PRIVACY_CONTACT"].strip(),
    )


def _host(text: str) -> str:
    # As in a URL, or as other programs write "all of them".
    host = text.strip()
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    return "::" if host == "*" else host


def _value(environment: Mapping[str, str], setting: Setting) -> str:
    path = environment.get(f"{setting.name}_FILE")
    if not path:
        return environment.get(setting.name) or setting.default
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(
            f"{setting.name}_FILE: can't read {path} ({why}); fix the path, its rights or the file"
        ) from None


def _database(db_url: str, secret: str, folder: Path) -> tuple[str, str]:
    """Return the URL and the secret to use: the set ones, else those of the data folder."""
    url = db_url or f"sqlite:///{folder.absolute() / DATABASE_NAME}"
    if url.startswith("sqlite"):
        return url, secret or _embedded_secret(folder / SECRET_NAME)
    if not secret:
        raise ConfigurationError(
            "ENCRYPTION_SECRET is not set; give it the value that DevLake's server has"
        )
    return url, secret


def _embedded_secret(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise ConfigurationError(
            f"can't read the encryption secret in {path.absolute()} ({reason});"
            " fix the rights of the file, or set ENCRYPTION_SECRET or TELEMETRY_DATA_DIR"
        ) from None


def _admin_token(token: str) -> str:
    # Guessing is not slowed down, but a token of this length is not guessed.
    if token and len(token) < ADMIN_TOKEN_LENGTH:
        raise ConfigurationError(
            f"TELEMETRY_ADMIN_TOKEN is shorter than {ADMIN_TOKEN_LENGTH} characters;"
            " set it to a longer secret, such as `openssl rand -hex 16` prints"
        )
    return token


def _devlake(values: Mapping[str, str]) -> Optional[DevLakeAccess]:
    url = _address(values, "DEVLAKE_URL")
    if not url:
        return None
    key, user, password = (
        values[name].strip() for name in ("DEVLAKE_API_KEY", "DEVLAKE_USER", "DEVLAKE_PASSWORD")
    )
    if key and (user or password):
        raise ConfigurationError(
            "DEVLAKE_API_KEY and DEVLAKE_USER are both set; DevLake takes one of them at a time"
        )
    if bool(user) != bool(password):
        raise ConfigurationError("set DEVLAKE_USER and DEVLAKE_PASSWORD together, or neither")
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError("DEVLAKE_API_KEY is no key; copy it again as DevLake showed it")
    if ":" in user:
        raise ConfigurationError(
            "DEVLAKE_USER has a colon in it, which ends the name in basic auth; put what follows it"
            " into DEVLAKE_PASSWORD, or choose another user"
        )
    return DevLakeAccess(url, key, user, password, *_forwarded(values))


def _forwarded(values: Mapping[str, str]) -> tuple[str, str]:
    names = ("DEVLAKE_FORWARDED_USER", "DEVLAKE_FORWARDED_USER_SECRET")
    user, secret = (values[name].strip() for name in names)
    if bool(user) != bool(secret):
        raise ConfigurationError(f"set {names[0]} and {names[1]} together, or neither")
    for name, value in zip(names, (user, secret)):
        if not (value.isascii() and value.isprintable()):
            raise ConfigurationError(f"{name} can't be sent as a header; give it in ASCII letters")
    return user, secret


def _address(values: Mapping[str, str], name: str) -> str:
    text = values[name].strip().rstrip("/")
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is no number, or half an IPv6 address
        valid = False
    if not valid or parts.username or parts.query or parts.fragment or not text.isprintable():
        # The value may hold a password, so the message does not repeat it.
        raise ConfigurationError(
            f"{name} is no address; set it to one such as https://devlake.example.com"
            " (a user and a password go into DEVLAKE_USER and DEVLAKE_PASSWORD)"
        )
    return text


def _networks(values: Mapping[str, str], name: str) -> tuple[Network, ...]:
    texts = filter(None, map(str.strip, values[name].split(",")))
    try:
        return tuple(ipaddress.ip_network(text, strict=False) for text in texts)
    except ValueError as error:
        raise ConfigurationError(
            f"{name}: {error}; set it to addresses or networks such as 10.0.0.5,172.16.0.0/12"
        ) from None


def _number(values: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = values[name]
    if text.isascii() and text.isdigit() and least <= int(text[:9]) <= most:
        return int(text)
    raise ConfigurationError(f"{name} is {text!r}; set it to a number from {least} to {most}")


def _switch(values: Mapping[str, str], name: str) -> bool:
    return _word(values, name, ("true", "false", "1", "0", "yes", "no", "on", "off")) in (
        "true",
        "1",
        "yes",
        "on",
    )


def _word(values: Mapping[str, str], name: str, words: Sequence[str]) -> str:
    word = values[name].strip().lower()
    if word not in words:
        *first, last = words
        raise ConfigurationError(
            f"{name} is {values[name]!r}; set it to {', '.join(first)} or {last}"
        )
    return word
