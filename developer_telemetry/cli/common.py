"""Functions that all commands share: the database, errors, questions, tables of text."""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Optional, TextIO

import typer
from sqlalchemy.engine import Engine
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from developer_telemetry.config import Settings
from developer_telemetry.errors import ConfigurationError, TelemetryError, Unavailable
from developer_telemetry.printable import printable
from developer_telemetry.receiver.listen_addresses import answering_host

if TYPE_CHECKING:
    from developer_telemetry.connections.registry import Connection

# Exit codes, as docs/scripts.md lists them. 75 is EX_TEMPFAIL, for which a service manager may
# start a program again; 130 is the code of shells for Ctrl+C.
CHECK_FAILED = 1
USAGE_ERROR = 2
TRY_AGAIN = 75
CANCELLED = 130

CONNECTION = typer.Option(
    None, "--connection", metavar="NAME", help="Its name or id; all connections without it."
)
YES = typer.Option(False, "--yes", help="Do it without a question.")
AS_JSON = typer.Option(False, "--json", help="Print JSON (docs/scripts.md).")


class OutputFailed(TelemetryError):
    """The output of a command can't be written."""


@contextmanager
def clear_errors() -> Iterator[None]:
    """Show an error in one line; exit with 2 if the operator can fix the cause, 75 if time can."""
    try:
        yield
    except TelemetryError as error:
        say_error(str(error))
        raise typer.Exit(TRY_AGAIN if isinstance(error, Unavailable) else USAGE_ERROR) from None
    except SQLAlchemyError as error:
        from developer_telemetry.database.error_texts import describe_error

        say_error(f"the database reports: {describe_error(error)}; check DB_URL and the server")
        # The driver's own error: the server may be away, or refuse for the moment.
        is_away = isinstance(error, (OperationalError, InterfaceError))
        raise typer.Exit(TRY_AGAIN if is_away else USAGE_ERROR) from None


def confirm(question: str, yes: bool) -> None:
    """Return if `yes` is set or a person at a terminal agrees; else end the command.

    The command has shown before what it is going to do.

    Raises:
        ConfigurationError: There is no terminal to ask at (exit code 2).
        typer.Exit: The answer is no (exit code 130).
    """
    if yes:
        return
    if not is_terminal(sys.stdin):
        raise ConfigurationError("nothing was changed; give --yes to do it where nobody can answer")
    try:
        is_agreed = typer.confirm(printable(question), err=True)
    except typer.Abort:  # Ctrl+C or Ctrl+D, which end no line
        is_agreed = False
        say(err=True)
    if not is_agreed:
        say("cancelled", err=True)
        raise typer.Exit(CANCELLED)


def is_terminal(stream: Optional[TextIO]) -> bool:
    """Return true if a person sees what is written to a stream, or types what is read from it."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def engine_of(settings: Settings) -> Engine:
    """Return the settings' database, as it is."""
    from developer_telemetry.database.engine import open_engine

    try:
        return open_engine(settings.db_url)
    except ValueError as error:  # of the SDK, about the URL
        raise ConfigurationError(f"DB_URL: {error}") from None


def read_environment(devlake_url: Optional[str]) -> dict[str, str]:
    """Return the environment, with DevLake's address in place of DEVLAKE_URL unless it is None."""
    environment = dict(os.environ)
    if devlake_url is not None:
        environment.update(DEVLAKE_URL=devlake_url, DEVLAKE_URL_FILE="")
    return environment


def require_database(settings: Settings) -> None:
    """End the command if the embedded database is not there; make nothing."""
    from developer_telemetry.connections import embedded_database

    embedded_database.require_database(settings)


def open_database(settings: Settings) -> Engine:
    """Return an engine for the settings' database, which has to be there."""
    from developer_telemetry.connections import embedded_database

    require_database(settings)
    engine = engine_of(settings)
    if settings.embedded:
        embedded_database.require_schema(engine)
    return engine


def make_database(settings: Settings) -> tuple[Engine, Settings]:
    """Return an engine for the settings' database, and the settings with its secret.

    An embedded database and its secret are made as needed, each with a line that names its path.
    Only `serve`, `demo`, `connect`, `migrate` and `import` use this.
    """
    from developer_telemetry.connections import embedded_database

    settings = embedded_database.ensure_secret(settings, announce)
    engine = engine_of(settings)
    if settings.embedded:
        embedded_database.make_schema(settings, engine, announce)
    return engine, settings


def announce(line: str) -> None:
    """Print a line about a new file on standard error; standard output is for results."""
    say(line, err=True)


def say_database(engine: Engine) -> None:
    """Name the database before a command deletes from it."""
    from developer_telemetry.database.engine import address_of

    say(f"Database: {address_of(engine)}", err=True)


def chosen(engine: Engine, settings: Settings, name: Optional[str]) -> "list[Connection]":
    """Return the connection of that name or id, or all connections for None."""
    from developer_telemetry.connections.registry import find_by_name_or_id

    connections = _all_connections(engine, settings)
    return connections if name is None else [find_by_name_or_id(connections, name)]


def chosen_id(engine: Engine, settings: Settings, name: Optional[str]) -> Optional[int]:
    """Return the id of the connection of that name or id; None for None.

    The id may be that of a deleted connection, of which rows may be left.
    """
    if name is None:
        return None
    ids = [str(connection.id) for connection in _all_connections(engine, settings)]
    is_deleted = name.strip().isdecimal() and name.strip() not in ids
    return int(name) if is_deleted else chosen(engine, settings, name)[0].id


def _all_connections(engine: Engine, settings: Settings) -> "list[Connection]":
    from developer_telemetry.connections.registry import Connections
    from developer_telemetry.storage.devlake_schema import require_tables

    require_tables(engine)
    registry = Connections(engine, settings.encryption_secret)
    registry.reload()
    return list(registry.all())


def report_url(settings: Settings, connection_id: int) -> str:
    """Return the address for machines: the public one, or else the receiver's own."""
    from developer_telemetry.connections.report_url import report_url as join

    return join(base_url(settings), connection_id)


def base_url(settings: Settings) -> str:
    """Return the receiver's public address, or else its own."""
    return settings.public_url or f"http://{answering_host(settings.host)}:{settings.port}"


def collector_config(url: str, token: str) -> dict[str, str]:
    """Return the part of a collector's config.json with the address and the token."""
    return {"webhook_url": url, "api_key": token}


def curl_line(url: str, token: str) -> str:
    """Return a command that sends a first report, to paste into a shell.

    `token` may be `$TOKEN`, which the shell replaces, or empty if none is needed.
    """
    body = {
        "developer": "ann.lee",
        "date": date.today().isoformat(),
        "hostname": "anns-laptop",
        "email": "ann.lee@example.com",
        "name": "Ann Lee",
        "metrics": {"active_hours": 6, "tools_used": ["git", "vscode"], "projects": ["web-shop"]},
    }
    header = f"Authorization: Bearer {token}"
    header = f'"{header}"' if token == "$TOKEN" else shlex.quote(header)
    header = f" -H {header}" if token else ""
    return f"curl {url}{header} -d '{json.dumps(body)}'"


def table(rows: list[list[str]]) -> list[str]:
    """Return rows of cells as lines with aligned columns; the first row is the head."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in shown
    ]


def say(*lines: str, err: bool = False) -> None:
    """Print lines, each of them made `printable`; an empty line without arguments."""
    with output_errors("standard error" if err else "standard output"):
        for line in lines or ("",):
            typer.echo(printable(line), err=err)


def say_error(message: str) -> None:
    """Print the line with which a command fails."""
    say_marked("error:", "red", message, err=True)


def say_marked(word: str, color: str, text: str, err: bool = False) -> None:
    """Print a line that begins with a word, which has a color on a terminal."""
    stream = sys.stderr if err else sys.stdout
    if is_terminal(stream) and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb":
        word = typer.style(word, fg=color)
    with output_errors("standard error" if err else "standard output"):
        typer.echo(f"{word} {printable(text)}", err=err)


@contextmanager
def output_errors(name: str) -> Iterator[None]:
    """Report that an output can't be written; end the command if its reader has closed it."""
    try:
        yield
    except BrokenPipeError:
        raise typer.Exit(1) from None
    except OSError as error:
        raise OutputFailed(f"can't write to {name}: {error.strerror}") from None
