"""The raw rows that a blueprint's run reads: those since the last run, or all.

Each subtask, a process of its own that may be killed, has a watermark for each connection. It is
the raw id up to which everything was committed when the subtask began, since a writer takes its id
some time before it commits. It isn't a time: clocks step, and a report from a spool has arrived
long before it is stored.
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
    above: int  # only raw rows with a greater id are new; 0 means all
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

    `settings` names all inputs other than the reports. A run reads everything if `settings`
    changed, if `everything` is true, if no run was completed yet, or if DevLake runs anything but a
    scheduled blueprint. `is_scheduled` is true for a run outside of DevLake.
    """
    settings = f"{settings} {MAPPING}"
    everything = everything or not (is_scheduled or _is_scheduled(engine))
    with reading(engine).connect() as connection:
        upcoming = _read_settled(connection)
        above = 0 if everything else _read_last(connection, connection_id, subtask, settings)
    return Run(connection_id, subtask, settings, above, upcoming)


def complete(engine: Engine, run: Run) -> None:
    """Record the start of the next run, which otherwise repeats the work."""
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


def _read_last(connection: SqlConnection, connection_id: int, subtask: str, settings: str) -> int:
    """Return the watermark of the last completed run if it still holds, else 0."""
    param = dialect_of(connection).placeholder
    # If that report is missing, rows were deleted or restored, and others may be missing, too.
    raw_id: Optional[int] = connection.exec_driver_sql(
        f"SELECT r.id FROM {RUN_TABLE} u JOIN {RAW_TABLE} r ON r.id = u.raw_id"
        f" WHERE u.connection_id = {param} AND u.subtask = {param} AND u.settings = {param}"
        " AND r.report_id = u.report_id",
        (connection_id, subtask, settings),
    ).scalar()
    return raw_id or 0


def _read_settled(connection: SqlConnection) -> Watermark:
    """Return the highest raw id, of all connections, below which no row can still be committed."""
    row: Any = connection.exec_driver_sql(
        f"SELECT id, report_id FROM {RAW_TABLE}"
        f" WHERE stored_at < {dialect_of(connection).ago(SETTLED_SECONDS)}"
        " ORDER BY id DESC LIMIT 1"
    ).first()
    return Watermark(*row) if row else NOWHERE


def _is_scheduled(engine: Engine) -> bool:
    """Return true if every running task of ours in DevLake belongs to a scheduled run.

    A task does not name its connection. So if one re-transforms or syncs all, the others do
    everything, too; they also do so without this information.
    """
    try:
        with reading(engine).connect() as connection:
            pipelines = read_running_flags(connection)
    except DBAPIError:  # not DevLake's database, or one of a version without these columns
        return False
    return bool(pipelines) and not any(any(flags) for flags in pipelines)
