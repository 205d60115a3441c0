"""Commands about the reports that are stored."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Callable, Optional

import typer
from sqlalchemy.engine import Engine

from developer_telemetry.cli.common import (
    AS_JSON,
    CHECK_FAILED,
    CONNECTION,
    chosen,
    chosen_id,
    clear_errors,
    is_terminal,
    make_database,
    open_database,
    say,
)
from developer_telemetry.config import load_settings
from developer_telemetry.errors import TelemetryError
from developer_telemetry.printable import printable_json

# Files that are named on the screen; the file for errors has all that can't be imported.
MOST_FILES = 50
# An export prints its progress every so many rows.
SHOWN_ROWS = 1_000
# The names of what `--json` prints of an import.
IMPORT_COUNTS = ("stored", "already_stored", "days", "left_out", "erased", "refused")


class Layer(str, Enum):
    """A layer that can be exported by itself."""

    RAW = "raw"
    TOOL = "tool"


class Format(str, Enum):
    """The format of an export."""

    NDJSON = "ndjson"
    CSV = "csv"


def import_reports(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Files or folders with reports or our exports, also gzipped; - for standard input."
        ),
    ],
    connection: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME",
            help="The name or id of the one that gets all; without it an export's rows go to their"
            " own.",
        ),
    ] = None,
    developer: Annotated[
        str,
        typer.Option(help="Whose reports it is that don't say so, as a collector's own archive."),
    ] = "",
    hostname: Annotated[str, typer.Option(help="The machine of reports that name none.")] = "",
    email: Annotated[str, typer.Option(help="The e-mail address for reports without one.")] = "",
    name: Annotated[str, typer.Option(help="The person's name for reports without one.")] = "",
    date_from_name: Annotated[
        bool,
        typer.Option(
            "--date-from-name", help="Take the day from the file's name where a report has none."
        ),
    ] = False,
    errors: Annotated[
        Optional[Path],
        typer.Option(help="File for what can't be imported; else import-errors-TIME.txt."),
    ] = None,
    as_json: bool = AS_JSON,
) -> None:
    """Store reports from files. What is stored already is passed over, so it may be repeated."""
    with clear_errors():
        from developer_telemetry.storage.tombstones import TombstoneCache, TombstoneKey
        from developer_telemetry.transfer.import_reader import ImportDefaults, ImportReader
        from developer_telemetry.transfer.importer import ImportCounts, Importer
        from developer_telemetry.transfer.input_files import InputFiles, RejectFile

        archives = InputFiles(files)
        started = datetime.now(timezone.utc)
        rejects = RejectFile(
            errors or Path(f"import-errors-{started:%Y%m%d-%H%M%S}.txt"), archives.files
        )
        engine, settings = make_database(load_settings())
        connections = {target.id: target for target in chosen(engine, settings, None)}
        defaults = ImportDefaults(developer, hostname, email, name, date_from_name)
        target_id = chosen_id(engine, settings, connection)
        batches = ImportReader(connections, target_id, defaults).batches(archives)
        erased = TombstoneCache(engine, TombstoneKey(settings.encryption_secret))
        counts = ImportCounts()
        files_at_fault: list[str] = []
        with show_progress("importing") as show:
            for step in Importer(engine, erased, connections).store(batches):
                counts = step.counts
                rejects.add(step.refused)
                files_at_fault += [
                    f"{item.source}: {why}" for item, why in step.refused if item.is_file
                ]
                show(
                    counts.read,
                    archives.size,
                    f"{counts.stored} stored, {counts.already_stored} already stored",
                )
        rejects.close()
        empty = [f"{name}: nothing is in it" for name in archives.empty]
        print_first_faults([*files_at_fault, *empty])
        if as_json:
            result = {
                **{name: getattr(counts, name) for name in IMPORT_COUNTS},
                "files_passed_over": archives.passed_over,
                "errors": str(rejects.path) if counts.refused else None,
            }
            say(printable_json(result))
        else:
            say(*_summary(counts, archives.passed_over, rejects.path))
        if counts.refused:
            raise typer.Exit(CHECK_FAILED)


def print_first_faults(lines: Sequence[str]) -> None:
    """Print lines on standard error; of many, the first MOST_FILES."""
    if lines:
        say(*lines[:MOST_FILES], err=True)
    if len(lines) > MOST_FILES:
        say(f"and {len(lines) - MOST_FILES} more files", err=True)


def _summary(counts: Any, passed_over: int, rejects: Path) -> list[str]:
    """Return lines about what was imported, and what was not."""
    lines = {
        "stored already, passed over": counts.already_stored,
        "days without a report behind them": counts.days,
        "rows left out that follow from the reports": counts.left_out,
        "rows left out of people who were erased": counts.erased,
        "files in folders passed over for their names": passed_over,
        "can't be imported": counts.refused,
    }
    summary = [f"reports stored: {counts.stored}"]
    summary += [f"{what}: {count}" for what, count in lines.items() if count]
    if counts.refused:
        summary.append(
            f"{rejects} has them with their reasons; correct them there, then import that file"
        )
    return summary


def export(
    output: Annotated[
        Optional[Path],
        typer.Option("--output", "-o", help="The file, .gz compresses; else standard output."),
    ] = None,
    layer: Annotated[
        Optional[Layer],
        typer.Option(help="raw: reports as received; tool: the days made of them; else both."),
    ] = None,
    format: Annotated[
        Format, typer.Option(help="csv takes one layer, ndjson takes all.")
    ] = Format.NDJSON,
    connection: Optional[str] = CONNECTION,
    since: Annotated[
        Optional[datetime], typer.Option(formats=["%Y-%m-%d"], help="The first day of reports.")
    ] = None,
    until: Annotated[
        Optional[datetime], typer.Option(formats=["%Y-%m-%d"], help="The last day of reports.")
    ] = None,
    developer: Annotated[
        Optional[str],
        typer.Option(help="An id or e-mail address: all that is stored of this person."),
    ] = None,
) -> None:
    """Write what is stored, for `import`, for other tools, or for a person who asks for it."""
    with clear_errors():
        from developer_telemetry.privacy.person_search import PersonSearch
        from developer_telemetry.transfer.exporter import ExportOutput, ExportSelection, open_output

        if format is Format.CSV and layer is None:
            raise TelemetryError("a CSV file holds one table: say which with --layer raw or tool")
        settings = load_settings()
        engine = open_database(settings)
        only = chosen_id(engine, settings, connection)
        wanted = ExportSelection(only, _day(since), _day(until))
        if developer is not None:
            people = PersonSearch(engine, settings.encryption_secret, developer, only).people()
            if not people:
                raise TelemetryError(f"nothing is stored of {developer!r}; check the spelling")
            wanted = wanted._replace(developers=people)
            _record_look(engine, people, layer)
        # Among rows on a terminal, a bar would be in the way.
        with open_output(output) as file, show_progress("exporting", output is not None) as show:
            to = ExportOutput(
                file, format is Format.CSV, output is None and is_terminal(sys.stdout)
            )
            for row in _exported(engine, wanted, layer):
                to.write(row)
                if to.rows % SHOWN_ROWS == 0:
                    show(to.rows, None, f"{to.rows} rows")
        if not to.rows:
            chosen(engine, settings, connection)  # is there such a connection?
        say(f"{to.rows} rows exported", err=True)
        if to.formulas:
            say(
                f"{to.formulas} cells look like formulas (=, +, -, @): an apostrophe before them"
                " keeps a spreadsheet from running them, and an import takes it off again",
                err=True,
            )


def _record_look(engine: Engine, people: Sequence[tuple[int, str]], layer: Optional[Layer]) -> None:
    from developer_telemetry.privacy.access_log import EXPORT, Look, name_system_user, record_look

    what = {None: "all rows", Layer.RAW: "reports", Layer.TOOL: "days"}[layer]
    record_look(engine, people, Look(name_system_user(), EXPORT, what))


def _exported(engine: Engine, wanted: Any, layer: Optional[Layer]) -> Iterator[dict[str, Any]]:
    from developer_telemetry.transfer.exporter import (
        read_derived_rows,
        read_raw_rows,
        read_tool_rows,
    )

    if layer is not Layer.TOOL:
        yield from read_raw_rows(engine, wanted)
    if layer is not Layer.RAW:
        yield from read_tool_rows(engine, wanted)
    if layer is None and wanted.developers is not None:
        yield from read_derived_rows(engine, wanted.developers)


def _day(moment: Optional[datetime]) -> Optional[str]:
    return None if moment is None else moment.date().isoformat()


def reextract(connection: Optional[str] = CONNECTION, as_json: bool = AS_JSON) -> None:
    """Rewrite tool rows and accounts from the raw reports, as a blueprint's run does."""
    with clear_errors():
        from developer_telemetry.database.advisory_lock import hold_connection
        from developer_telemetry.pipeline.accounts import convert_accounts
        from developer_telemetry.pipeline.runner import extract

        settings = load_settings()
        engine = open_database(settings)
        done = []
        for target in chosen(engine, settings, connection):
            who = f"connection {target.id}"
            steps = extract(engine, target.id, target.strategy, everything=True)
            reports = _watched(f"{who}, reports", steps)
            with hold_connection(engine, target.id):
                accounts = _watched(f"{who}, accounts", convert_accounts(engine, target.id))
            done.append({"connection": target.id, "reports": reports, "accounts": accounts})
            if not as_json:
                say(f"{who}: {reports} reports, {accounts} accounts")
        if as_json:
            say(printable_json(done))


def _watched(label: str, steps: Iterator[Any]) -> int:
    """Go through steps under a progress bar; how much was done in the end."""
    done = 0
    with show_progress(label) as show:
        for done, total in steps:
            show(done, total, "")
    return done


@contextmanager
def show_progress(
    label: str, wanted: bool = True
) -> Iterator[Callable[[int, Optional[int], str], None]]:
    """Yield a progress bar, where somebody looks; takes how much is done, of how much, and a
    remark."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[remark]}", markup=False))
    shown = wanted and console.is_terminal
    with Progress(*columns, console=console, disable=not shown) as bar:
        task = bar.add_task(label, total=None, remark="")

        def show(done: int, total: Optional[int], remark: str) -> None:
            bar.update(task, completed=done, total=total, remark=remark)

        yield show
