"""The raw rows that a blueprint's run reads: those since the last run, or all.

Each subtask keeps a watermark of its own with each connection: it is a process of its own, and
any of them may be killed. It is a raw id up to which everything was committed when the subtask
began, for a writer takes its id some time before it commits. It isn't a time: clocks step, and
a report from a spool has arrived long before it is stored.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from developer_telemetry.constants import RAW_TABLE, RUN_TABLE
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import reading, transact
from developer_telemetry.storage.devlake_schema import read_running_flags

# The version of the mapping: raise it whenever the same reports would give other rows or accounts.
MAPPING = 3
# Longer than any transaction of a writer may take.
SETTLED_SECONDS = 600

EXTRACT = "extract"
CONVERT = "convert"

# Other inputs of the outcome are compared as one text, `settings`.
_COLUMNS = ("connection_id", "subtask", "settings", "raw_id", "report_id")


class Watermark(NamedTuple):
    """A raw row, identified by its report, too: after a restore another row may have its id."""

    raw_id: int
    report_id: str


NOWHERE = Watermark(0, "")


class Run(NamedTuple):
    """One subtask's run for a connection."""

    connection_id: int
    subtask: str
    settings: str
    above: int  # only raw rows with a greater id are new; 0 stands for everything
    next: Watermark  # where the run after this one is to begin


def begin(
    engine: Engine,
    connection_id: int,
    subtask: str,
    settings: str,
    everything: bool = False,
    is_scheduled: bool = False,
) -> Run:
    """Return the raw rows that a run has to read.

    `settings` names all that decides the outcome beside the reports. A run reads everything if
    `settings` changed, if `everything` is true, if no run was completed yet, or if DevLake runs
    anything but a scheduled blueprint. `is_scheduled` is true for a run that DevLake knows nothing
    of.
    """
    settings = f"{settings} {MAPPING}"
    everything = everything or not (is_scheduled or _is_scheduled(engine))
    with reading(engine).connect() as connection:
        upcoming = _settled(connection)
        above = 0 if everything else _last(connection, connection_id, subtask, settings)
    return Run(connection_id, subtask, settings, above, upcoming)


def complete(engine: Engine, run: Run) -> None:
    """Record where the next run begins; without this the next run repeats the work."""
    dialect = dialect_of(engine)
    tail = dialect.on_conflict(
        _COLUMNS[:2], [(column, dialect.new(column)) for column in _COLUMNS[2:]]
    )
    row = (run.connection_id, run.subtask, run.settings, *run.next)
    transact(engine, lambda connection: insert(connection, RUN_TABLE, _COLUMNS, [row], tail))


def has_settings(engine: Engine, connection_id: int, subtask: str, settings: str) -> Optional[bool]:
    """Return true if the last completed run had these settings; None if none was completed."""
    param = dialect_of(engine).placeholder
    with reading(engine).connect() as connection:
        recorded: Optional[str] = connection.exec_driver_sql(
            f"SELECT settings FROM {RUN_TABLE} WHERE connection_id = {param} AND subtask = {param}",
            (connection_id, subtask),
        ).scalar()
    return None if recorded is None else recorded == f"{settings} {MAPPING}"


def _last(connection: SqlConnection, connection_id: int, subtask: str, settings: str) -> int:
    """Return the watermark of the last completed run if it still holds, else 0."""
    param = dialect_of(connection).placeholder
    # Without that report, rows were deleted or restored, and other rows may be missing, too.
    raw_id: Optional[int] = connection.exec_driver_sql(
        f"SELECT r.id FROM {RUN_TABLE} u JOIN {RAW_TABLE} r ON r.id = u.raw_id"
        f" WHERE u.connection_id = {param} AND u.subtask = {param} AND u.settings = {param}"
        " AND r.report_id = u.report_id",
        (connection_id, subtask, settings),
    ).scalar()
    return raw_id or 0


def _settled(connection: SqlConnection) -> Watermark:
    """Return the highest raw id, of any connection, below which no row can still be committed."""
    row: Any = connection.exec_driver_sql(
        f"SELECT id, report_id FROM {RAW_TABLE}"
        f" WHERE stored_at < {dialect_of(connection).ago(SETTLED_SECONDS)}"
        " ORDER BY id DESC LIMIT 1"
    ).first()
    return Watermark(*row) if row else NOWHERE


def _is_scheduled(engine: Engine) -> bool:
    """Return true if every running task of ours in DevLake belongs to a scheduled run.

    The task doesn't say which connection it is for. So one that re-transforms or syncs all makes
    the others do everything, too; and so does a lack of this information.
    """
    try:
        with reading(engine).connect() as connection:
            pipelines = read_running_flags(connection)
    except DBAPIError:  # not DevLake's database, or one of a version without these columns
        return False
    return bool(pipelines) and not any(any(flags) for flags in pipelines)
