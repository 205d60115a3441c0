"""The command `developer-telemetry` with all its subcommands."""

import io
import logging
import os
import re
import sys
import traceback
from contextlib import suppress
from typing import Any

import typer

from developer_telemetry import __version__
from developer_telemetry.cli.backup import backup, restore
from developer_telemetry.cli.common import CANCELLED, OutputFailed, say
from developer_telemetry.cli.connections import connect, connections
from developer_telemetry.cli.dead_letters import dead_letters
from developer_telemetry.cli.disclosure import me_link, processing_record
from developer_telemetry.cli.doctor import doctor
from developer_telemetry.cli.fleet import machines
from developer_telemetry.cli.machines import send_test, status, watch
from developer_telemetry.cli.privacy import erase, prune
from developer_telemetry.cli.reports import export, import_reports, reextract
from developer_telemetry.cli.server import demo, migrate, serve
from developer_telemetry.cli.spool import spool
from developer_telemetry.cli.tokens import token
from developer_telemetry.config import SETTINGS
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.printable import printable
from developer_telemetry.receiver.logging import PlainLines

app = typer.Typer(
    no_args_is_help=True,
    # Tables of options cut long names off on a terminal of 80 columns.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Developer telemetry for Apache DevLake: receive reports from machines, and manage them.",
    epilog="Settings come from the environment: "
    + ", ".join(setting.name for setting in SETTINGS)
    + ".",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"developer-telemetry {__version__}")
        raise typer.Exit


@app.callback()
def _take_global_options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    pass


app.command()(serve)
app.command()(migrate)
app.command()(connect)
app.add_typer(connections, name="connections")
app.add_typer(token, name="token")
app.command(name="import")(import_reports)
app.command()(export)
app.command()(backup)
app.command()(restore)
app.command()(reextract)
app.command()(prune)
app.command()(erase)
app.command(name="me-link")(me_link)
app.command(name="processing-record")(processing_record)
app.command()(doctor)
app.command()(status)
app.add_typer(machines, name="machines")
app.command(name="send-test")(send_test)
app.command()(watch)
app.command()(demo)
app.add_typer(dead_letters, name="dead-letters")
app.add_typer(spool, name="spool")

# Some environments set a width that is not the terminal's, and libraries fail if it is no number.
_WIDTHS = ("COLUMNS", "LINES", "TERMINAL_WIDTH")


def main() -> None:
    """Run the command; report an error that its environment causes in one line."""
    _prepare()
    try:
        os.getcwd()
        status = _run_app()
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else 1 if ending.code else 0
    except KeyboardInterrupt:  # before the command began
        status = _failed(typer.Abort())
    except FileNotFoundError as error:
        status = _failed(error if error.filename else _FolderGone())
    except Exception as error:
        status = _failed(error)
    raise SystemExit(_flushed(status))


def _run_app() -> int:
    try:
        return int(app(prog_name="developer-telemetry", standalone_mode=False) or 0)
    except Exception as error:
        if type(error).__name__ != "NoArgsIsHelpError":
            raise
        text = str(error)
    # Nothing is wrong, and the text is our own.
    say(*text.split("\n"))
    return 0


class _FolderGone(OutputFailed):
    def __str__(self) -> str:
        return "the folder in which this command runs no longer exists; change to another one"


def _prepare() -> None:
    for name in _WIDTHS:
        if not re.fullmatch("[1-9][0-9]{0,2}", os.environ.get(name, "1")):
            del os.environ[name]
    for stream in (sys.stdout, sys.stderr):
        # Characters that an encoding lacks are shown as escapes.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(PlainLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.raiseExceptions = False


def _failed(error: Exception) -> int:
    """Report an error that the command does not handle, and return the exit status."""
    if isinstance(error, (BrokenPipeError, typer.Exit)):  # an output's reader has closed it
        return 1
    if isinstance(error, typer.Abort):  # Ctrl+C, or the end of what is typed at a question
        with suppress(Exception):
            say("cancelled", err=True)
        return CANCELLED
    if hasattr(error, "format_message"):
        return _misused(error)
    if os.environ.get("TELEMETRY_LOG_LEVEL", "").lower() == "debug":
        traceback.print_exception(type(error), error, error.__traceback__)
    kind = type(error).__name__
    if isinstance(error, OutputFailed):
        message = str(error)
    elif isinstance(error, OSError) and error.strerror:
        message = f"{error.filename or 'the output'}: {error.strerror}"
    else:
        message = (
            f"unexpected {kind}: {describe_error(error)}; TELEMETRY_LOG_LEVEL=debug shows where"
        )
    with suppress(Exception):
        # Not through `say`, which may be what failed.
        sys.stderr.write(f"error: {printable(message)}\n")
        sys.stderr.flush()
    return 1


def _misused(error: Any) -> int:
    """Report wrong arguments; the message repeats them, so it is made printable."""
    error.message = printable(error.message)
    with suppress(OSError, ValueError):
        error.show()
    return int(error.exit_code)


def _flushed(status: int) -> int:
    """Write buffered output now: at its end, Python reports a failure in several lines."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            status = status or (_failed(error) if isinstance(error, OSError) else 1)
            # It would be tried again, and fail again.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return status


if __name__ == "__main__":
    main()
