"""The last use of each token, which receivers write some seconds late."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import TOKEN_USE_TABLE
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import now_us, reading, transact
from developer_telemetry.storage.connection_locks import lock_connections

# A connection and the fingerprint of a token.
TokenKey = tuple[int, str]


class TokenUses:
    """The times of last uses, noted by one thread and written by another."""

    def __init__(self) -> None:
        # There are no more entries than tokens, since no other one is accepted.
        self._used: dict[TokenKey, int] = {}
        self._written: dict[TokenKey, int] = {}

    def note(self, connection_id: int, fingerprint: str) -> None:
        """Note that a token was accepted now."""
        self._used[connection_id, fingerprint] = now_us()

    def flush(self, engine: Engine) -> None:
        """Write the uses since the last call; the next call repeats it if this fails."""
        used = dict(self._used)
        changed = {key: moment for key, moment in used.items() if self._written.get(key) != moment}
        if changed:
            transact(engine, partial(_write, uses=changed), awaits_locks=False)
            self._written = used


def _write(connection: SqlConnection, uses: Mapping[TokenKey, int]) -> None:
    present = lock_connections(connection, {key[0] for key in uses})
    dialect = dialect_of(connection)
    # Another receiver may have seen the token later.
    latest = dialect.latest
    newest = f"{latest}({TOKEN_USE_TABLE}.last_used_us, {dialect.new('last_used_us')})"
    keys = ("connection_id", "fingerprint")
    insert(
        connection,
        TOKEN_USE_TABLE,
        (*keys, "last_used_us"),
        [(*key, moment) for key, moment in sorted(uses.items()) if key[0] in present],
        dialect.on_conflict(keys, [("last_used_us", newest)]),
    )


def read_token_uses(engine: Engine, connection_id: int) -> dict[str, int]:
    """Return the last use of each token of a connection, by its fingerprint."""
    with reading(engine).connect() as connection:
        rows = connection.exec_driver_sql(
            f"SELECT fingerprint, last_used_us FROM {TOKEN_USE_TABLE}"
            f" WHERE connection_id = {dialect_of(engine).placeholder}",
            (connection_id,),
        )
        return {row[0]: int(row[1]) for row in rows}
