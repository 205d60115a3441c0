"""Rewrite the tool layer from the raw layer, as a blueprint's run does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy.engine import Connection, Engine

from developer_telemetry.dialects import Progress, batches, dialect_of, flat, transact
from developer_telemetry.merging import KEY_COLUMNS, SUM
from developer_telemetry.raw import Key, count_keys, keys_after, rows_from_raw
from developer_telemetry.storage import TOOL_TABLE, UNWRITTEN, claim, upsert_tool


def reextract(engine: Engine, connection_id: int, strategy: str) -> Iterator[Progress]:
    """Rewrite a connection's tool rows from its raw rows, while reports go on arriving.

    Nothing is deleted and no row is away at any moment. Yields after each batch.
    """
    total = count_keys(engine, connection_id)
    done = 0
    last: tuple[str, str] = ("", "0001-01-01")
    while True:
        keys = keys_after(engine, connection_id, last)
        if not keys:
            return

        def rewrite(connection: Connection, keys: Sequence[Key] = keys) -> None:
            if strategy == SUM:
                claim(connection, keys)
            upsert_tool(connection, rows_from_raw(connection, keys, strategy))
            if strategy == SUM:
                _release(connection, keys)

        transact(engine, rewrite)
        last = keys[-1][1:]
        done += len(keys)
        yield Progress(done, max(done, total))


def _release(connection: Connection, keys: Sequence[Key]) -> None:
    """Take back claimed rows whose raw rows were deleted before they could be read."""
    dialect = dialect_of(connection)
    for batch in batches(connection, keys):
        connection.exec_driver_sql(
            f"DELETE FROM {TOOL_TABLE} WHERE arrived_us = {UNWRITTEN} AND "
            + dialect.in_rows(KEY_COLUMNS, len(batch)),
            flat(batch),
        )
