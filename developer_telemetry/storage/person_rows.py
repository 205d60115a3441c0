"""The rows of one developer of one connection, in any table that names a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy.engine import Connection as SqlConnection

from developer_telemetry.constants import ACCOUNT_TABLE, RAW_TABLE, TASK_TABLE
from developer_telemetry.database.bulk_insert import MAX_KEYS, batches
from developer_telemetry.database.dialects.base import flat
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.domain_texts import read_table_texts
from developer_telemetry.reports.daily_metrics import build_raw_params
from developer_telemetry.storage.devlake_schema import TASK_KINDS, make_account_id, make_task_id
from developer_telemetry.storage.tables import PersonKey, Table

_DATE = "YYYY-MM-DD"


class RowCondition(NamedTuple):
    """A condition of SQL and its parameters."""

    sql: str
    parameters: tuple[Any, ...]


def build_conditions(
    connection: SqlConnection, table: Table, connection_id: int, developer_id: str
) -> Iterator[RowCondition]:
    """Return conditions that together select a developer's rows of a table, and no row twice."""
    param = dialect_of(connection).placeholder
    if table.key is PersonKey.DEVELOPER:
        sql = f"connection_id = {param} AND developer_id = {param}"
        yield RowCondition(sql, (connection_id, developer_id))
        return
    ids = [
        make_account_id(connection_id, developer_id, read_table_texts(connection, ACCOUNT_TABLE))
    ]
    if table.key is PersonKey.TASK:
        ids = _task_ids(connection, connection_id, developer_id)
    for batch in batches(connection, [(domain_id,) for domain_id in ids], MAX_KEYS):
        marks = ", ".join([param] * len(batch))
        yield RowCondition(f"{table.id_column} IN ({marks})", flat(batch))


def _task_ids(connection: SqlConnection, connection_id: int, developer_id: str) -> list[str]:
    """Return the ids of a developer's tasks, also of days that were pruned since."""
    # Every date has the same length, so all ids have the same start.
    texts = read_table_texts(connection, TASK_TABLE)
    starts = [
        make_task_id(kind, connection_id, developer_id, _DATE, texts)[: -len(_DATE)]
        for kind in TASK_KINDS
    ]
    param = dialect_of(connection).placeholder
    alike = " OR ".join([f"SUBSTR(id, 1, {param}) = {param}"] * len(starts))
    rows = connection.exec_driver_sql(
        f"SELECT id FROM {TASK_TABLE} WHERE _raw_data_params = {param}"
        f" AND _raw_data_table = {param} AND ({alike})",
        (
            build_raw_params(connection_id),
            RAW_TABLE,
            *(value for start in starts for value in (len(start), start)),
        ),
    )
    # Other ids may be equal by the table's collation.
    return sorted(row[0] for row in rows if row[0][: -len(_DATE)] in starts)
