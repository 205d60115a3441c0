"""The dialect of an engine or a connection."""

from __future__ import annotations

from typing import Union

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.database.dialects.base import Dialect
from developer_telemetry.database.dialects.mysql import MySQL
from developer_telemetry.database.dialects.postgresql import PostgreSQL
from developer_telemetry.database.dialects.sqlite import SQLite

Database = Union[Engine, SqlConnection]


_DIALECTS: dict[str, Dialect] = {
    "mysql": MySQL(),
    "mariadb": MySQL(),
    "postgresql": PostgreSQL(),
    "sqlite": SQLite(),
}


def dialect_of(database: Database) -> Dialect:
    """Return the dialect that an engine or a connection speaks."""
    return _DIALECTS[database.dialect.name]
