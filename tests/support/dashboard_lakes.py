"""Databases of DevLake with made-up rows, and what dashboards show of them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy.engine import Engine

from dashboards.dialects import DATABASES
from dashboards.panels import Dashboard, dashboard
from developer_telemetry.database.bulk_insert import insert_typed
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import open_engine
from developer_telemetry.database.migrate import migrate
from developer_telemetry.pipeline.figure_refresh import refresh_figures
from tests.support.dashboard_answers import Chosen, Rows, expand
from tests.support.devlake_tables import make_delivery_tables, make_devlake_tables
from tests.support.servers import create_database, drop_database, in_database


class Range(NamedTuple):
    """The selected seconds since 1970."""

    start: int
    end: int


@contextmanager
def empty_lake(server: str) -> Iterator[Engine]:
    """Make a database with our tables and DevLake's; drop it at the end."""
    url = in_database(server, f"telemetry_test_{secrets.token_hex(6)}")
    create_database(url)
    engine = open_engine(url)
    migrate(engine)
    make_devlake_tables(engine)
    make_delivery_tables(engine)
    yield engine
    engine.dispose()
    drop_database(url)


def fill_tables(engine: Engine, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Insert the rows of each table, all of which have the columns of its first."""
    with engine.begin() as connection:
        for table, own in rows.items():
            columns = list(own[0])
            values = [[row[column] for column in columns] for row in own]
            insert_typed(connection, table, columns, values, "")


def refresh(engine: Engine, today: date) -> None:
    """Compute all figures."""
    for _ in refresh_figures(engine, today):
        pass


def database_of(engine: Engine) -> str:
    """Return the name under which dashboards know the kind of database."""
    return {"mariadb": "mysql"}.get(engine.dialect.name, engine.dialect.name)


def made_page(engine: Engine, page: Dashboard) -> Mapping[str, Any]:
    """Return a page as it is made for the kind of database."""
    [sql] = [each for each in DATABASES if each.name == database_of(engine)]
    return dashboard(page, sql(page.about))


def answers(engine: Engine, page: Dashboard, within: Range, chosen: Chosen) -> dict[str, Rows]:
    """Return the rows of each panel of a page, by title."""
    database = database_of(engine)
    return {
        panel["title"]: shown(
            engine, expand(panel["targets"][0]["rawSql"], database, *within, chosen)
        )
        for panel in made_page(engine, page)["panels"]
        if "targets" in panel
    }


def shown(engine: Engine, query: str) -> Rows:
    """Return the rows of a query, dates as ISO texts and times in seconds."""
    if dialect_of(engine).placeholder == "%s":
        query = query.replace("%", "%%")
    with engine.connect() as connection:
        return [tuple(map(_plain, row)) for row in connection.exec_driver_sql(query)]


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        return int(aware.timestamp())
    return str(value) if isinstance(value, date) else value
