"""The user that deploy/grafana makes reads the dashboards of groups, and nothing else of ours."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from sqlalchemy.exc import SQLAlchemyError

from dashboards.__main__ import PROVISIONED, files
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import open_engine
from developer_telemetry.database.migrate import migrate
from developer_telemetry.pipeline.figure_refresh import refresh_figures
from tests.support.dashboard_answers import Chosen, expand
from tests.support.devlake_tables import make_delivery_tables, make_devlake_tables
from tests.support.servers import create_database, drop_database, execute, in_database
from tests.support.telling_fleet import TODAY, Fleet

DEPLOY = Path(__file__).parents[2] / "deploy" / "grafana"
KINDS = {"mariadb": "mysql", "postgresql": "postgresql"}
USER = "telemetry_reader"
DENIED = (
    "_raw_developer_telemetry",
    "raw_developer_telemetry",
    "_tool_developer_metrics",
    "_tool_developer_telemetry_machines",
    "_tool_developer_telemetry_connections",
    "_tool_developer_telemetry_refusals",
    "_tool_developer_telemetry_refused_machines",
    "_tool_developer_telemetry_accesses",
    "accounts",
    "users",
    "user_accounts",
    "team_users",
    "cicd_tasks",
)


class Reader(NamedTuple):
    """A filled database, and the address with which the user of the script opens it."""

    kind: str
    url: str


@pytest.fixture(scope="module", params=KINDS)
def reader(request: pytest.FixtureRequest) -> Iterator[Reader]:
    kind = KINDS[request.param]
    url = in_database(
        request.getfixturevalue(f"{request.param}_server"), f"reader_{secrets.token_hex(6)}"
    )
    create_database(url)
    engine = open_engine(url)
    migrate(engine)
    make_devlake_tables(engine)
    make_delivery_tables(engine)
    fleet = Fleet(engine)
    fleet.report(range(6))
    for _ in refresh_figures(engine, TODAY):
        pass
    engine.dispose()
    password = secrets.token_hex(8)
    for statement in statements(kind, password):
        execute(url, statement)
    host = urlsplit(url).netloc.rpartition("@")[2]
    yield Reader(kind, url.replace(urlsplit(url).netloc, f"{USER}:{password}@{host}"))
    if kind == "mysql":
        execute(url, f"DROP USER {USER}")
    else:
        execute(url, f"DROP OWNED BY {USER}")
        execute(url, f"DROP ROLE {USER}")
    drop_database(url)


def statements(kind: str, password: str) -> list[str]:
    """Return the script's statements, with a password in its place."""
    text = (DEPLOY / f"reader.{kind}.sql").read_text(encoding="utf-8")
    assert text.count("'CHANGE-ME'") == 1
    bare = re.sub(r"^--.*$", "", text.replace("CHANGE-ME", password), flags=re.M)
    return [each.strip() for each in bare.split(";") if each.strip()]


def test_the_user_reads_every_panel_and_variable_of_the_dashboards_of_groups(
    reader: Reader,
) -> None:
    engine = open_engine(reader.url)
    asked = 0
    with engine.connect() as connection:
        for path, content in files():
            if path.parent == PROVISIONED / reader.kind and "fleet" not in path.name:
                page = json.loads(content)
                queries = [t["rawSql"] for p in page["panels"] for t in p.get("targets", [])]
                variables = page["templating"]["list"]
                queries += [each["query"] for each in variables if each["type"] == "query"]
                for query in queries:
                    sql = expand(query, reader.kind, 0, 1_800_000_000, Chosen())
                    if dialect_of(engine).placeholder == "%s":
                        sql = sql.replace("%", "%%")
                    connection.exec_driver_sql(sql).fetchall()
                    asked += 1
    engine.dispose()
    assert asked > 50


def test_the_user_reads_figures_and_cannot_change_them(reader: Reader) -> None:
    [(people, total)] = execute(
        reader.url,
        "SELECT people, total FROM telemetry_weeks WHERE figure = 'commits a week'",
    )
    assert (people, total) == (6, 63)
    engine = open_engine(reader.url)
    for statement in (
        "DELETE FROM telemetry_weeks",
        "UPDATE telemetry_computed SET smallest_group = 1",
        "CREATE TABLE mine (id INT)",
        "CREATE VIEW telemetry_mine AS SELECT * FROM _tool_developer_metrics",
    ):
        with pytest.raises(SQLAlchemyError), engine.begin() as connection:
            connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.mark.parametrize("table", DENIED)
def test_the_user_does_not_read_rows_of_people(reader: Reader, table: str) -> None:
    engine = open_engine(reader.url)
    with pytest.raises(SQLAlchemyError, match="denied"), engine.connect() as connection:
        connection.exec_driver_sql(f"SELECT COUNT(*) FROM {table}")
    engine.dispose()
