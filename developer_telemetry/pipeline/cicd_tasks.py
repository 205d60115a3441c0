"""Write test runs and builds as tasks of DevLake's domain layer, if a scope config enables it.

A day's test runs are one task and its builds another, since a report has only their number. They
have no pipeline, no environment and no result, and are no deployments, so DORA's metrics do not
count them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Optional

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import RAW_TABLE, TASK_TABLE, TOOL_TABLE
from developer_telemetry.database.bulk_insert import MAX_ROWS, batches, insert
from developer_telemetry.database.dialects.base import flat
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.domain_texts import read_table_texts
from developer_telemetry.database.engine import Progress, reading, transact
from developer_telemetry.reports.daily_metrics import build_raw_params
from developer_telemetry.storage.devlake_schema import (
    TASK_KINDS,
    TaskKind,
    make_scope_id,
    make_task_id,
)
from developer_telemetry.storage.raw_reports import START


class Task(NamedTuple):
    """One row of DevLake's `cicd_tasks`, its fields in the order of `TASK_COLUMNS`."""

    id: str
    name: str
    pipeline_id: str
    cicd_scope_id: str
    result: str
    status: str
    original_status: str
    original_result: str
    type: str
    environment: str
    duration_sec: int
    created_date: str
    started_date: str
    finished_date: str
    created_at: Any
    updated_at: Any
    raw_data_params: str
    raw_data_table: str
    raw_data_id: int
    raw_data_remark: str


TASK_COLUMNS = tuple(f"_{name}" if name.startswith("raw_data") else name for name in Task._fields)


def convert_tasks(
    engine: Engine, connection_id: int, developers: Optional[Sequence[str]] = None
) -> Iterator[Progress]:
    """Write the tasks of a connection's tool rows, of all or of some developers.

    Yields after each batch; the total is not known.
    """
    done = 0
    for chunk in _batch_developers(developers):
        last = START
        while True:
            days = _read_days_after(engine, connection_id, last, chunk)
            if not days:
                break
            transact(engine, partial(_rewrite_tasks, connection_id=connection_id, days=days))
            last = (days[-1].developer_id, str(days[-1].date))
            done += len(days)
            yield Progress(done, done)


def remove_tasks(engine: Engine, connection_id: int) -> None:
    """Delete all tasks of a connection, in a transaction of its own."""
    param = dialect_of(engine).placeholder
    statement = (
        f"DELETE FROM {TASK_TABLE} WHERE _raw_data_params = {param} AND _raw_data_table = {param}"
    )
    origin = (build_raw_params(connection_id), RAW_TABLE)
    transact(engine, lambda connection: connection.exec_driver_sql(statement, origin))


def _batch_developers(developers: Optional[Sequence[str]]) -> Iterator[Optional[Sequence[str]]]:
    """Yield the developers in batches for one statement; None means all developers."""
    if developers is None:
        yield None
        return
    for start in range(0, len(developers), MAX_ROWS):
        yield developers[start : start + MAX_ROWS]


def _read_days_after(
    engine: Engine,
    connection_id: int,
    last: tuple[str, str],
    developers: Optional[Sequence[str]],
) -> Sequence[Any]:
    """Return the next batch of tool rows, in order, after developer and date `last`."""
    param = dialect_of(engine).placeholder
    among = ""
    if developers is not None:
        among = f" AND developer_id IN ({', '.join([param] * len(developers))})"
    with reading(engine).connect() as connection:
        # Written out, because MySQL walks no index for (a, b) > (x, y).
        return connection.exec_driver_sql(
            "SELECT developer_id, date, test_runs, builds, updated_at, _raw_data_id"
            f" FROM {TOOL_TABLE} WHERE connection_id = {param}{among}"
            f" AND developer_id >= {param} AND (developer_id > {param} OR date > {param})"
            f" ORDER BY developer_id, date LIMIT {MAX_ROWS}",
            (connection_id, *(developers or ()), last[0], *last),
        ).fetchall()


def _rewrite_tasks(connection: SqlConnection, connection_id: int, days: Sequence[Any]) -> None:
    """Write the tasks of these tool rows; delete those whose number has become zero."""
    tasks: list[Task] = []
    gone: list[str] = []
    texts = read_table_texts(connection, TASK_TABLE)
    for day in days:
        for kind in TASK_KINDS:
            identity = make_task_id(kind, connection_id, day.developer_id, str(day.date), texts)
            number = getattr(day, kind.column)
            if number > 0:
                tasks.append(_build_task(identity, kind, number, connection_id, day))
            else:
                gone.append(identity)
    dialect = dialect_of(connection)
    changing = [column for column in TASK_COLUMNS if column not in ("id", "created_at")]
    tail = dialect.on_conflict(("id",), [(column, dialect.new(column)) for column in changing])
    insert(connection, TASK_TABLE, TASK_COLUMNS, sorted(tasks), tail)
    _delete_tasks(connection, sorted(gone))


def _delete_tasks(connection: SqlConnection, ids: Sequence[str]) -> None:
    param = dialect_of(connection).placeholder
    for batch in batches(connection, [(task,) for task in ids]):
        marks = ", ".join([param] * len(batch))
        connection.exec_driver_sql(f"DELETE FROM {TASK_TABLE} WHERE id IN ({marks})", flat(batch))


def _build_task(identity: str, kind: TaskKind, number: int, connection_id: int, day: Any) -> Task:
    # A report has neither the time of day nor the duration.
    midnight = f"{day.date} 00:00:00.000"
    return Task(
        id=identity,
        name=f"{number} {kind.noun}{'' if number == 1 else 's'}",
        pipeline_id="",
        cicd_scope_id=make_scope_id(connection_id),
        result="",
        status="DONE",
        original_status="",
        original_result="",
        type=kind.type,
        environment="",
        duration_sec=0,
        created_date=midnight,
        started_date=midnight,
        finished_date=midnight,
        created_at=day.updated_at,
        updated_at=day.updated_at,
        raw_data_params=build_raw_params(connection_id),
        raw_data_table=RAW_TABLE,
        raw_data_id=day._raw_data_id or 0,
        raw_data_remark="",
    )
