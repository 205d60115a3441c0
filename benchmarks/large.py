"""Fill a database with years of a large fleet: tool rows, statistics and people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

from sqlalchemy.engine import Engine

from developer_telemetry.connections.registry import create, new_token
from developer_telemetry.constants import MACHINE_TABLE, RAW_TABLE, REFUSAL_TABLE, TOOL_TABLE
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import transact
from developer_telemetry.demo.seed import arrivals, fleet
from developer_telemetry.demo.synthetic_fleet import CONNECTIONS
from developer_telemetry.reports.daily_metrics import (
    TOOL_COLUMNS,
    ReceivedReport,
    ToolRow,
    build_tool_row,
)
from developer_telemetry.storage.writer import RAW_COLUMNS
from tests.support.devlake_tables import make_delivery_tables
from tests.support.receivers import SECRET

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
# The number of people with generated days; all others repeat these with other numbers.
PATTERNS = 32
TEAMS = 20
# The period whose rows are stored together, in the order of arrival.
STEP_DAYS = 30
PATTERN = "pattern"
ROOM_BYTES = 2 << 30

# The tables of DevLake's `org` plugin that dashboards read.
_DEVLAKE = {
    "users": "id VARCHAR(255) PRIMARY KEY, email VARCHAR(255), name VARCHAR(255)",
    "user_accounts": "account_id VARCHAR(255) PRIMARY KEY, user_id VARCHAR(255)",
    "projects": "name VARCHAR(255) PRIMARY KEY",
    "project_mapping": "project_name VARCHAR(255), {table} VARCHAR(255), row_id VARCHAR(255)",
}


def patterns(days: int) -> tuple[list[ToolRow], list[str]]:
    """Return newly generated people and their days of work."""
    made = fleet(PATTERNS, days, 1, NOW)
    ids = {name: number + 1 for number, name in enumerate(CONNECTIONS)}
    newest: dict[tuple[int, str, str], ReceivedReport] = {}
    for number, item in enumerate(arrivals(made, ids)):
        newest[item.key] = item._replace(raw_id=number + 1)
    rows = [build_tool_row([item], item.arrived_us) for _, item in sorted(newest.items())]
    return rows, sorted({row.developer_id for row in rows})


def fill(engine: Engine, rows: int, days: int) -> int:
    """Fill a migrated database with at least `rows` tool rows; return the number of developers."""
    part, people = patterns(days)
    copies = -(-rows // len(part))
    for name, strategy in CONNECTIONS.items():
        create(engine, SECRET, name, new_token(), strategy)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {PATTERN} AS SELECT * FROM {TOOL_TABLE}")
        connection.exec_driver_sql("CREATE TABLE copies (n INT PRIMARY KEY)")
        numbers = ", ".join(f"({number})" for number in range(1, copies + 1))
        connection.exec_driver_sql(f"INSERT INTO copies VALUES {numbers}")
    transact(engine, lambda to: insert(to, PATTERN, TOOL_COLUMNS, part, ""))
    make_delivery_tables(engine)
    quoted = engine.dialect.identifier_preparer.quote("table")
    with engine.begin() as connection:
        for table, columns in _DEVLAKE.items():
            connection.exec_driver_sql(f"CREATE TABLE {table} ({columns.format(table=quoted)})")
    with _roomy(engine):
        for statement in (*_rows(days), *_counts(), *_people()):
            with engine.begin() as connection:
                connection.exec_driver_sql(statement)
    analyze = "ANALYZE TABLE" if dialect_of(engine).name == "mysql" else "ANALYZE"
    with engine.begin() as connection:
        for table in (RAW_TABLE, TOOL_TABLE, MACHINE_TABLE, "accounts", "team_users", *_DEVLAKE):
            connection.exec_driver_sql(f"{analyze} {table}").close()
    return copies * len(people)


@contextmanager
def _roomy(engine: Engine) -> Iterator[None]:
    """Raise MariaDB's memory in this context; otherwise storing takes many times as long."""
    if dialect_of(engine).name != "mysql":
        yield
        return
    setting = "innodb_buffer_pool_size"
    with engine.connect() as connection:
        before = connection.exec_driver_sql(f"SELECT @@{setting}").scalar_one()
        connection.exec_driver_sql(f"SET GLOBAL {setting} = {ROOM_BYTES}")
        yield
        connection.exec_driver_sql(f"SET GLOBAL {setting} = {before}")


def _rows(days: int) -> Iterator[str]:
    """Store tool rows and two raw rows for each, in the order of arrival."""
    other = {
        "developer_id": "CONCAT(developer_id, '-', n)",
        "name": "CONCAT(name, ' ', n)",
        # Counts that are unique on that day, so that few of these texts are equal.
        "command_counts": "REPLACE(command_counts, '\":', CONCAT('\":', n))",
        "git_activity": "REPLACE(git_activity, 'commits\":', CONCAT('commits\":', n))",
    }
    columns = ", ".join(TOOL_COLUMNS)
    values = ", ".join(other.get(column, column) for column in TOOL_COLUMNS)
    first = NOW.date() - timedelta(days=days + 1)
    while first <= NOW.date():
        following = first + timedelta(days=STEP_DAYS)
        between = f"date >= DATE '{first}' AND date < DATE '{following}'"
        yield (
            f"INSERT INTO {TOOL_TABLE} ({columns}) SELECT {values} FROM {PATTERN} CROSS JOIN copies"
            f" WHERE {between} ORDER BY date, n, developer_id"
        )
        for earlier in (4 * 3_600_000_000, 0):
            identity = "MD5(CONCAT(connection_id, ' ', developer_id, ' ', date, ' ', {}))"
            yield (
                f"INSERT INTO {RAW_TABLE} ({', '.join(RAW_COLUMNS)}) SELECT _raw_data_params,"
                f" connection_id, '{{}}', created_at, {identity.format(earlier)}, developer_id,"
                f" date, hostname, arrived_us - {earlier} FROM {TOOL_TABLE}"
                f" WHERE {between} ORDER BY date, arrived_us"
            )
        first = following


def _counts() -> Iterator[str]:
    """Yield the statements that write the statistics of a receiver."""
    yield (
        f"INSERT INTO {MACHINE_TABLE} (connection_id, developer_id, hostname, first_seen,"
        " last_seen, reports, _raw_data_params) SELECT connection_id, developer_id, hostname,"
        " MIN(created_at), MAX(created_at), COUNT(*), MIN(params)"
        f" FROM {RAW_TABLE} GROUP BY connection_id, developer_id, hostname"
    )
    yield (
        f"INSERT INTO {REFUSAL_TABLE} SELECT connection_id, date, 'token', COUNT(*)"
        f" FROM {PATTERN} GROUP BY connection_id, date"
    )


def _people() -> Iterator[str]:
    """Yield the statements that write accounts, users, a few teams, and a project a connection."""
    account = "CONCAT('developer_telemetry:Account:', connection_id, ':', developer_id)"
    user = "CONCAT('user ', connection_id, ' ', developer_id)"
    recognized = (
        f"(SELECT DISTINCT connection_id, developer_id, _raw_data_params FROM {MACHINE_TABLE}) m"
    )
    yield (
        "INSERT INTO accounts (id, user_name, _raw_data_params)"
        f" SELECT {account}, developer_id, _raw_data_params FROM {recognized}"
    )
    yield f"INSERT INTO users (id, name) SELECT {user}, developer_id FROM {recognized}"
    yield f"INSERT INTO user_accounts SELECT {account}, {user} FROM {recognized}"
    for number in range(TEAMS):
        yield f"INSERT INTO teams (id, name) VALUES ('{number}', 'Team {number}')"
    yield (
        "INSERT INTO team_users (team_id, user_id)"
        " SELECT numbered.place, numbered.id FROM (SELECT id,"
        f" MOD(ROW_NUMBER() OVER (ORDER BY id), {TEAMS}) AS place FROM users) numbered"
    )
    for connection_id, name in enumerate(CONNECTIONS, 1):
        name = name.replace("'", "''")
        scope = f"developer_telemetry:TelemetryScope:{connection_id}:all"
        yield f"INSERT INTO projects VALUES ('{name}')"
        yield f"INSERT INTO project_mapping (project_name, row_id) VALUES ('{name}', '{scope}')"
