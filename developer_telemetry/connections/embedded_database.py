"""The embedded database: an SQLite file of our own, with the secret that encrypts its tokens."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Optional

from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError

from developer_telemetry.config import DATABASE_NAME, SECRET_NAME, SPOOL_NAME, Settings
from developer_telemetry.database.migrate import list_pending, migrate
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.private_files import make_folder, open_new

# Prefixes of our files in the data folder; `make demo` has a folder of its own in it.
_OWN_NAMES = (DATABASE_NAME, SECRET_NAME, SPOOL_NAME, "demo")


def require_database(settings: Settings) -> None:
    """Check that the settings' database and its secret exist, if it is embedded.

    Raises:
        ConfigurationError: One of them is missing; nothing was made.
    """
    if not settings.embedded:
        return
    path = _path(settings)
    if path is not None and not _has_content(path):
        raise ConfigurationError(
            f"there is no database at {path.absolute()}; set DB_URL or TELEMETRY_DATA_DIR, or make"
            " one with `developer-telemetry serve` or `developer-telemetry connect NAME`"
        )
    if not settings.encryption_secret:
        raise ConfigurationError(
            f"there is no encryption secret at {_secret_path(settings)}; set ENCRYPTION_SECRET or"
            " TELEMETRY_DATA_DIR to the secret that encrypted the tokens of this database"
        )


def require_schema(engine: Engine) -> None:
    """Check that an embedded database has all of our tables.

    Raises:
        ConfigurationError: A migration is pending.
    """
    missing = list_pending(engine)
    if missing:
        raise ConfigurationError(
            f"the database at {engine.url.database} lacks {len(missing)} of our migrations;"
            " `developer-telemetry migrate` applies them"
        )


def make_schema(settings: Settings, engine: Engine, announce: Callable[[str], None]) -> list[str]:
    """Migrate a database, making it if it is embedded; return the migrations that were applied."""
    path = _path(settings) if settings.embedded else None
    if path is not None and not _has_content(path):
        announce(f"A new database is made at {path.absolute()}")
    return migrate(engine)


def ensure_secret(settings: Settings, announce: Callable[[str], None]) -> Settings:
    """Return settings with a secret for an embedded database, made if there is none.

    Args:
        announce: Takes a line with the path of a new secret.

    Raises:
        ConfigurationError: The data folder can't be written.
    """
    if not settings.embedded:
        return settings
    in_data_dir = _path(settings) == settings.data_dir.absolute() / DATABASE_NAME
    if settings.encryption_secret and not in_data_dir:
        return settings
    try:
        make_folder(settings.data_dir, _OWN_NAMES)
        if settings.encryption_secret:
            return settings
        path = _secret_path(settings)
        _make_secret(path)
        announce(f"A new encryption secret is made at {path}")
        return settings._replace(encryption_secret=path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise ConfigurationError(
            f"can't keep data in {settings.data_dir.absolute()} ({error.strerror});"
            " set TELEMETRY_DATA_DIR to a folder that can be written"
        ) from None


def _make_secret(path: Path) -> None:
    # A hard link appears complete, so that two processes starting at once agree on one secret.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with open_new(draft) as file:
        file.write(secrets.token_hex(32).encode())
    try:
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def _path(settings: Settings) -> Optional[Path]:
    """Return the database's file; None for one in memory."""
    try:
        path = make_url(settings.db_url).database
    except ArgumentError:  # opening it reports what is wrong with the URL
        return None
    return Path(path) if path and path != ":memory:" else None


def _secret_path(settings: Settings) -> Path:
    return settings.data_dir.absolute() / SECRET_NAME


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False
