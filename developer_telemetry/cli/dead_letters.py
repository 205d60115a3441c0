"""The commands about dead letters, the reports that the database refused for good."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from developer_telemetry.cli.common import (
    AS_JSON,
    YES,
    clear_errors,
    confirm,
    is_terminal,
    require_database,
    say,
    table,
)
from developer_telemetry.config import Settings, load_settings
from developer_telemetry.errors import TelemetryError, Unavailable
from developer_telemetry.printable import iso_time, printable_json

if TYPE_CHECKING:
    from developer_telemetry.receiver.ingest.spool import DeadLetter

# How long a running receiver is waited for, and the time between two looks at its spool.
PATIENCE_SECONDS = 15.0
POLL_SECONDS = 0.1
SET_ASIDE_AGAIN = 1

dead_letters = typer.Typer(
    no_args_is_help=True,
    help="See the reports that the database refused for good, and store or delete them.",
)

Reports = Annotated[
    Optional[list[str]], typer.Argument(metavar="[REPORT]...", help="Their ids; all without one.")
]


@dead_letters.command("list")
def show(as_json: bool = AS_JSON) -> None:
    """List the reports in the spool that the database refused, with the reasons."""
    with clear_errors():
        from developer_telemetry.reports.daily_metrics import format_timestamp

        rows = [
            {
                "report": letter.report.report_id,
                "connection": letter.report.connection_id,
                "arrived": format_timestamp(letter.report.arrived_us),
                "reason": letter.reason,
                "body": letter.report.payload,
            }
            for letter in _read(load_settings(), None)
        ]
        if as_json:
            say(printable_json([{**row, "arrived": iso_time(str(row["arrived"]))} for row in rows]))
            return
        if not rows:
            say("no report was set aside")
            return
        head = ["report", "connection", "arrived (UTC)", "reason"]
        say(*table([head, *([str(cell) for cell in row.values()][:4] for row in rows)]))


@dead_letters.command()
def retry(reports: Reports = None, as_json: bool = AS_JSON) -> None:
    """Store them as other reports of the spool, for example after an upgrade that reads them.

    Exits with 1 if the database refuses one of them again.
    """
    with clear_errors():
        settings = load_settings()
        ids = [letter.report.report_id for letter in _read(settings, reports)]
        is_running = _apply(settings, ids, is_retry=True)
        again, waiting = _await_outcome(settings, ids, PATIENCE_SECONDS if is_running else 0)
        stored = len(ids) - len(again) - waiting
        if as_json:
            counts = {"stored": stored, "set_aside_again": len(again), "waiting": waiting}
            say(printable_json(counts))
        elif not ids:
            say("no report was set aside")
        else:
            say(*_describe(stored, again, waiting, is_running))
        if again:
            raise typer.Exit(SET_ASIDE_AGAIN)


def _describe(
    stored: int, again: "list[DeadLetter]", waiting: int, is_running: bool
) -> "list[str]":
    lines = [f"{stored} reports are stored"] if stored else []
    lines += [f"{letter.report.report_id} is set aside again: {letter.reason}" for letter in again]
    if waiting:
        when = "once it can" if is_running else "when it starts"
        lines.append(f"{waiting} reports wait in the spool; the receiver stores them {when}")
    return lines


@dead_letters.command()
def export(
    reports: Reports = None,
    output: Annotated[
        Optional[Path],
        typer.Option("--output", "-o", help="The file, .gz compresses; else standard output."),
    ] = None,
) -> None:
    """Write them as lines of JSON for `import`, each with the reason; they stay in the spool."""
    with clear_errors():
        from developer_telemetry.constants import RAW_TABLE
        from developer_telemetry.transfer.exporter import ExportOutput, open_output
        from developer_telemetry.transfer.input_files import TABLE

        letters = _read(load_settings(), reports)
        with open_output(output) as file:
            to = ExportOutput(
                file, as_csv=False, on_terminal=output is None and is_terminal(sys.stdout)
            )
            for letter in letters:
                row = {
                    TABLE: RAW_TABLE,
                    "report_id": letter.report.report_id,
                    "connection_id": letter.report.connection_id,
                    "arrived_us": letter.report.arrived_us,
                    "reason": letter.reason,
                    "payload": letter.report.payload,
                }
                to.write(row)
        say(f"{to.rows} reports exported", err=True)


@dead_letters.command()
def drop(
    reports: Reports = None,
    yes: bool = YES,
    as_json: bool = AS_JSON,
) -> None:
    """Delete them; they are stored nowhere else."""
    with clear_errors():
        settings = load_settings()
        ids = [letter.report.report_id for letter in _read(settings, reports)]
        say(f"Spool: {settings.spool_dir.absolute()}", err=True)
        if ids:
            confirm(f"Delete {len(ids)} reports that are stored nowhere else?", yes)
            _apply(settings, ids, is_retry=False)
        say(printable_json({"deleted": len(ids)}) if as_json else f"{len(ids)} reports are deleted")


def _read(settings: Settings, report_ids: Optional[list[str]]) -> "list[DeadLetter]":
    """Return the dead letters with these ids, or all of them without ids.

    Raises:
        TelemetryError: One of the ids is not among them.
    """
    from developer_telemetry.receiver.ingest.spool import dead_letters as read

    if not settings.spool_dir.is_dir():
        require_database(settings)
    letters = read(settings.spool_dir)
    if not report_ids:
        return letters
    missing = set(report_ids) - {letter.report.report_id for letter in letters}
    if missing:
        raise TelemetryError(
            f"no report {', '.join(sorted(missing))} was set aside;"
            " `developer-telemetry dead-letters list` shows those that were"
        )
    return [letter for letter in letters if letter.report.report_id in report_ids]


def _apply(settings: Settings, report_ids: "list[str]", is_retry: bool) -> bool:
    """Retry or delete dead letters, by the running receiver if there is one; return true then."""
    from developer_telemetry.errors import SpoolInUse
    from developer_telemetry.receiver.ingest.decisions import ask_about_letters
    from developer_telemetry.receiver.ingest.spool import Spool

    if not report_ids:
        return False
    try:
        spool = Spool(settings.spool_dir, settings.spool_max_bytes)
    except SpoolInUse:
        if not ask_about_letters(settings.spool_dir, report_ids, is_retry, PATIENCE_SECONDS):
            raise Unavailable(
                "the running receiver has not done it yet; it does as soon as it can, and its log"
                " says why not now"
            ) from None
        return True
    try:
        spool.retry_letters(report_ids) if is_retry else spool.drop_letters(report_ids)
    finally:
        spool.close()
    return False


def _await_outcome(
    settings: Settings, report_ids: "list[str]", seconds: float
) -> "tuple[list[DeadLetter], int]":
    """Return those that were set aside again, and the number of those that still wait."""
    from developer_telemetry.receiver.ingest.spool import find_reports

    ends_at = time.monotonic() + seconds
    while True:
        letters, waiting = find_reports(settings.spool_dir, report_ids)
        if not waiting or time.monotonic() > ends_at:
            return letters, waiting
        time.sleep(POLL_SECONDS)
