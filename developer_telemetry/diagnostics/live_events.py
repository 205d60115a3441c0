"""Reports and refusals as they arrive, by polling, which works on any database."""

from __future__ import annotations

from typing import NamedTuple, Union

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import DAY_US, RAW_TABLE, REFUSAL_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import now_us, reading
from developer_telemetry.diagnostics.connection_status import text_of_moment
from developer_telemetry.reports.daily_metrics import format_timestamp

# Writers don't commit in the order of ids, so these last rows are read again.
ROWS_ANEW = 500
# Only an import stores that many between two calls.
ROWS_AT_ONCE = 2_000


class Arrived(NamedTuple):
    """A report that was stored; `arrived` is UTC."""

    id: int
    connection: int
    developer: str
    host: str
    date: str
    arrived: str


class Refused(NamedTuple):
    """A count of new refusals of a connection for a reason; `noticed` is UTC."""

    connection: int
    reason: str
    count: int  # type: ignore[assignment]  # not the tuple's
    noticed: str


Event = Union[Arrived, Refused]


class Watch:
    """The events in the raw layer and the counts of refusals, from its creation on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = reading(engine)
        self._seen: set[int] = set()
        with self._engine.connect() as connection:
            newest = connection.exec_driver_sql(f"SELECT MAX(id) FROM {RAW_TABLE}").scalar() or 0
            self._above = max(0, newest - ROWS_ANEW)
            self._arrived(connection)
            self._refusals = self._counts(connection)

    def read_events(self) -> list[Event]:
        """Return the events since the last call, reports first."""
        with self._engine.connect() as connection:
            arrived = self._arrived(connection)
            before, self._refusals = self._refusals, self._counts(connection)
        noticed = format_timestamp(now_us())
        return [
            *arrived,
            *(
                Refused(key[0], key[2], count - before.get(key, 0), noticed)
                for key, count in self._refusals.items()
                if count > before.get(key, 0)
            ),
        ]

    def _arrived(self, connection: SqlConnection) -> list[Arrived]:
        rows = connection.exec_driver_sql(
            "SELECT id, connection_id, developer_id, hostname, date, created_at"
            f" FROM {RAW_TABLE} WHERE id > {dialect_of(connection).placeholder}"
            f" ORDER BY id LIMIT {ROWS_ANEW + ROWS_AT_ONCE}",
            (self._above,),
        ).fetchall()
        new = [row for row in rows if row[0] not in self._seen]
        if rows:
            self._above = max(self._above, rows[-1][0] - ROWS_ANEW)
        self._seen = {row[0] for row in rows if row[0] > self._above}
        return [
            Arrived(row[0], row[1], row[2], row[3], str(row[4]), text_of_moment(row[5]))
            for row in new
        ]

    def _counts(self, connection: SqlConnection) -> dict[tuple[int, str, str], int]:
        # Yesterday's, too, since counts are written some seconds later.
        since = format_timestamp(now_us() - DAY_US)[:10]
        rows = connection.exec_driver_sql(
            f"SELECT connection_id, day, reason, count FROM {REFUSAL_TABLE}"
            f" WHERE day >= {dialect_of(connection).placeholder} ORDER BY connection_id, reason",
            (since,),
        )
        return {(row[0], str(row[1]), row[2]): int(row[3]) for row in rows}
