"""The commands `backup` and `restore`."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from sqlalchemy.engine import Engine

from developer_telemetry.cli.common import (
    AS_JSON,
    announce,
    clear_errors,
    engine_of,
    open_database,
    say,
    say_database,
    table,
)
from developer_telemetry.cli.reports import show_progress
from developer_telemetry.config import SECRET_NAME, Settings, load_settings
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.printable import printable_json

# Progress is shown every so many rows.
SHOWN_ROWS = 1_000


def backup(
    file: Annotated[
        str, typer.Argument(help="The file, which is always gzipped; - for standard output.")
    ],
    as_json: bool = AS_JSON,
) -> None:
    """Write all that is stored into one file, for `restore`.

    That is connections, their tokens as they are encrypted, settings, reports, days, machines and
    erasures; but not ENCRYPTION_SECRET, nor what waits in the spools of receivers.
    """
    with clear_errors():
        from developer_telemetry.storage.devlake_schema import require_tables
        from developer_telemetry.transfer.backup import back_up, make_header
        from developer_telemetry.transfer.backup_file import STANDARD, BackupWriter, open_backup

        settings = load_settings()
        engine = open_database(settings)
        require_tables(engine)
        with open_backup(file) as output:
            writer = BackupWriter(output, make_header(engine, settings.encryption_secret))
            _watch("backing up", back_up(engine, writer))
            manifest = writer.finish()
        _say_rows(manifest, as_json, err=file == STANDARD)
        say("A restore needs this ENCRYPTION_SECRET, too; it is not in the file.", err=True)


def restore(
    file: Annotated[str, typer.Argument(help="A file of `backup`; - for standard input.")],
    as_json: bool = AS_JSON,
) -> None:
    """Write a backup into an empty database of any kind: all of it, or nothing.

    Connections keep their ids, so that the addresses on machines stay right.
    """
    with clear_errors():
        from developer_telemetry.transfer.backup_file import read_backup
        from developer_telemetry.transfer.restorer import Restorer, require_compatible

        settings = load_settings()
        with read_backup(file) as reader:
            _require_secret(settings)
            require_compatible(reader.header, settings.encryption_secret)
            restorer = Restorer(_make_empty_database(settings), reader)
            _watch("restoring", restorer.restore())
        _say_rows(reader.manifest, as_json)
        if restorer.links_left_out:
            say(
                f"{restorer.links_left_out} links of accounts to users are left out: the database"
                " has no such users",
                err=True,
            )


def _require_secret(settings: Settings) -> None:
    if not settings.encryption_secret:
        raise ConfigurationError(
            "there is no ENCRYPTION_SECRET; set it to that of the backup, or copy its file to"
            f" {settings.data_dir.absolute() / SECRET_NAME}"
        )


def _make_empty_database(settings: Settings) -> Engine:
    """Return an engine for a database with our tables and no rows in them, made if it is ours."""
    from developer_telemetry.connections import embedded_database
    from developer_telemetry.database.engine import reading
    from developer_telemetry.transfer.restorer import require_empty

    settings = embedded_database.ensure_secret(settings, announce)
    engine = engine_of(settings)
    say_database(engine)
    with reading(engine).connect() as connection:
        require_empty(connection)  # before it is migrated
    embedded_database.make_schema(settings, engine, announce)
    return engine


def _watch(label: str, steps: Iterator[int]) -> None:
    """Go through steps, which yield a number of rows, under a progress bar."""
    shown = 0
    with show_progress(label) as show:
        for rows in steps:
            if rows - shown >= SHOWN_ROWS:
                shown = rows
                show(rows, None, f"{rows} rows")


def _say_rows(manifest: Any, as_json: bool, err: bool = False) -> None:
    from developer_telemetry.storage.tables import BACKUP_TABLES

    if as_json:
        say(printable_json({"rows": manifest.rows, "sha256": manifest.sha256}), err=err)
        return
    rows = [
        [source.label, str(manifest.rows[source.name])]
        for source in BACKUP_TABLES
        if source.name in manifest.rows
    ]
    say(*table([["what", "rows"], *rows]), f"SHA-256 of the rows: {manifest.sha256}", err=err)
