"""The day before which a connection's reports have been pruned.

Reports of earlier days may be incomplete, so the tool rows of these days are not rewritten.
"""

from __future__ import annotations

from sqlalchemy.engine import Connection as SqlConnection

from developer_telemetry.constants import HORIZON_TABLE
from developer_telemetry.database.dialects.lookup import dialect_of

# The earliest that a report may have and a database can hold.
FIRST_DAY = "1000-01-01"


def read_first_day(connection: SqlConnection, connection_id: int) -> str:
    """Return the first day, as YYYY-MM-DD, that was not pruned; `FIRST_DAY` if none was."""
    param = dialect_of(connection).placeholder
    row = connection.exec_driver_sql(
        f"SELECT raw_before FROM {HORIZON_TABLE} WHERE connection_id = {param}", (connection_id,)
    ).scalar()
    return str(row or FIRST_DAY)
