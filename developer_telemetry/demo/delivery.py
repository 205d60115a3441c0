"""Made-up users, teams, pull requests, builds, deployments and incidents of a made-up fleet.

They go into DevLake's own tables, and only where these exist and are empty. All ids begin with
`demo:`, which no plugin of DevLake uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from random import Random
from typing import Any, NamedTuple, Optional

from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import ACCOUNT_TABLE, LINK_TABLE
from developer_telemetry.database.bulk_insert import insert_typed
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.domain_texts import read_table_texts
from developer_telemetry.database.engine import reading, transact
from developer_telemetry.demo.synthetic_fleet import TEAMS, Developer
from developer_telemetry.storage.devlake_schema import (
    CICD_SCOPE_TABLE,
    DEPLOYMENT_COMMIT_TABLE,
    DEPLOYMENT_TABLE,
    INCIDENT_LINK_TABLE,
    INCIDENT_TABLE,
    ISSUE_TABLE,
    MAPPING_TABLE,
    METRIC_TABLE,
    PIPELINE_TABLE,
    PROJECTS_TABLE,
    PULL_REQUEST_TABLE,
    TEAM_TABLE,
    TEAM_USER_TABLE,
    USER_TABLE,
    make_account_id,
    make_scope_id,
)

# Rows of one of these are somebody's; the connections' runs fill the others.
OWN_TABLES = (
    USER_TABLE,
    LINK_TABLE,
    TEAM_TABLE,
    TEAM_USER_TABLE,
    PROJECTS_TABLE,
    MAPPING_TABLE,
    PULL_REQUEST_TABLE,
    METRIC_TABLE,
    PIPELINE_TABLE,
    DEPLOYMENT_TABLE,
    DEPLOYMENT_COMMIT_TABLE,
    ISSUE_TABLE,
    INCIDENT_TABLE,
    INCIDENT_LINK_TABLE,
)
# The other made-up accounts, scopes and so on begin with it.
PREFIX = "demo:"
# One project a connection.
PROJECTS = ("Shop", "Back office")
# One developer in so many is in no list of users, and one writes no pull requests.
UNLISTED, WITHOUT_PULL_REQUESTS = 11, 9
MINUTES_OF_A_DAY = 24 * 60

Row = dict[str, Any]
Rows = dict[str, list[Row]]


class Span(NamedTuple):
    """The days of which there are rows."""

    first: date
    last: date

    def days(self) -> Iterator[date]:
        """Yield the working days."""
        for number in range((self.last - self.first).days):
            day = self.first + timedelta(days=number)
            if day.weekday() < 5:
                yield day


def is_fillable(engine: Engine) -> Optional[bool]:
    """Return true if DevLake's tables are empty, false if one is not, None without tables."""
    with reading(engine).connect() as connection:
        schema = inspect(connection)
        tables = (*OWN_TABLES, CICD_SCOPE_TABLE)
        if not all(schema.has_table(table) for table in tables):
            return None
        return not any(
            connection.exec_driver_sql(f"SELECT 1 FROM {table} LIMIT 1").first()
            for table in OWN_TABLES
        )


def fill_devlake(
    engine: Engine, people: Sequence[Developer], ids: Mapping[str, int], span: Span, seed: int
) -> None:
    """Store a made-up delivery of these people in DevLake's empty tables."""
    random = Random(f"delivery {seed}")

    def store(connection: SqlConnection) -> None:
        texts = read_table_texts(connection, ACCOUNT_TABLE)
        accounts = {
            person.id: make_account_id(ids[person.connection], person.id, texts)
            for person in people
        }
        for rows in (
            _make_people(people, accounts),
            _make_projects(),
            _make_pull_requests(random, people, list(ids), span),
            _make_builds(random, span),
        ):
            _insert(connection, rows)
        _add_mapping(connection, list(ids.values()))

    transact(engine, store)


def _insert(connection: SqlConnection, rows: Rows) -> None:
    for table, own in rows.items():
        if own:
            columns = list(own[0])
            values = [[_as_text(row[column]) for column in columns] for row in own]
            insert_typed(connection, table, columns, values, "")


def _as_text(value: Any) -> Any:
    return value.strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, datetime) else value


def _add_mapping(connection: SqlConnection, connection_ids: Sequence[int]) -> None:
    """Map the scopes of builds and ours to projects; one column has a reserved word as its name."""
    quoted = connection.dialect.identifier_preparer.quote("table")
    param = dialect_of(connection).placeholder
    ours = [make_scope_id(number) for number in connection_ids]
    for number, (project, scope) in enumerate(zip(PROJECTS, ours)):
        for row_id in (f"{PREFIX}scope:{number}", scope):
            connection.exec_driver_sql(
                f"INSERT INTO {MAPPING_TABLE} (project_name, {quoted}, row_id)"
                f" VALUES ({param}, {param}, {param})",
                (project, CICD_SCOPE_TABLE, row_id),
            )


def _make_people(people: Sequence[Developer], accounts: Mapping[str, str]) -> Rows:
    rows: Rows = {
        USER_TABLE: [],
        ACCOUNT_TABLE: [],
        LINK_TABLE: [],
        TEAM_USER_TABLE: [],
        TEAM_TABLE: [
            {"id": f"{PREFIX}{number}", "name": team.name, "sorting_index": number}
            for number, team in enumerate(TEAMS, 1)
        ],
    }
    for number, person in enumerate(people):
        user, author = f"{PREFIX}user:{number}", _author(number)
        name = person.name or person.id
        rows[ACCOUNT_TABLE].append({"id": author, "user_name": person.id, "full_name": name})
        if number % UNLISTED == UNLISTED - 1:
            continue
        rows[USER_TABLE].append({"id": user, "email": person.email, "name": name})
        team = f"{PREFIX}{TEAMS.index(person.team) + 1}"
        rows[TEAM_USER_TABLE].append({"team_id": team, "user_id": user})
        for account in (accounts[person.id], author):
            rows[LINK_TABLE].append({"account_id": account, "user_id": user})
    return rows


def _author(number: int) -> str:
    return f"{PREFIX}account:{number}"


def _make_projects() -> Rows:
    return {
        PROJECTS_TABLE: [{"name": name, "description": "made up"} for name in PROJECTS],
        CICD_SCOPE_TABLE: [
            {"id": f"{PREFIX}scope:{number}", "name": name} for number, name in enumerate(PROJECTS)
        ],
    }


def _make_pull_requests(
    random: Random, people: Sequence[Developer], connections: Sequence[str], span: Span
) -> Rows:
    """Make pull requests, more of them towards the end, and slower ones in the middle."""
    rows: Rows = {PULL_REQUEST_TABLE: [], METRIC_TABLE: []}
    for number, person in enumerate(people):
        if number % WITHOUT_PULL_REQUESTS == WITHOUT_PULL_REQUESTS - 1:
            continue
        project = PROJECTS[connections.index(person.connection) % len(PROJECTS)]
        for day in Span(max(span.first, person.first), min(span.last, person.last)).days():
            elapsed = (day - span.first).days / max(1, (span.last - span.first).days)
            if random.random() < 0.25 + 0.25 * elapsed:
                slow = 1 + 2 * elapsed * (1 - elapsed)
                _add_pull_request(random, rows, _author(number), person.id, project, day, slow)
    return rows


def _add_pull_request(
    random: Random, rows: Rows, author: str, name: str, project: str, day: date, slow: float
) -> None:
    number = len(rows[PULL_REQUEST_TABLE]) + 1
    coding, pickup, review = (
        round(random.expovariate(1 / (slow * days * MINUTES_OF_A_DAY))) for days in (1.2, 0.4, 0.7)
    )
    merged = _at(day, 15) + timedelta(minutes=random.randrange(120))
    created = merged - timedelta(minutes=pickup + review)
    identity = f"{PREFIX}pull:{number}"
    rows[PULL_REQUEST_TABLE].append(
        {
            "id": identity,
            "base_repo_id": f"{PREFIX}repo:{PROJECTS.index(project)}",
            "status": "MERGED",
            "title": f"Change {number}",
            "author_id": author,
            "author_name": name,
            "pull_request_key": number,
            "created_date": created,
            "merged_date": merged,
            "closed_date": merged,
        }
    )
    rows[METRIC_TABLE].append(
        {
            "id": identity,
            "project_name": project,
            "pr_coding_time": coding,
            "pr_pickup_time": pickup,
            "pr_review_time": review,
            "pr_cycle_time": coding + pickup + review,
            "pr_created_date": created,
            "pr_merged_date": merged,
        }
    )


def _make_builds(random: Random, span: Span) -> Rows:
    """Make builds, deployments, and the incidents of some of these."""
    rows: Rows = {
        PIPELINE_TABLE: [],
        DEPLOYMENT_TABLE: [],
        DEPLOYMENT_COMMIT_TABLE: [],
        ISSUE_TABLE: [],
        INCIDENT_TABLE: [],
        INCIDENT_LINK_TABLE: [],
    }
    for day in span.days():
        for number in range(len(PROJECTS)):
            for hour in range(8, 18, 2):
                result = "FAILURE" if random.random() < 0.12 else "SUCCESS"
                run = _make_run(f"{PREFIX}build:{number}:{day}:{hour}", number, _at(day, hour))
                rows[PIPELINE_TABLE].append({**run, "result": result, "type": "BUILD"})
            if random.random() < 0.6:
                _add_deployment(random, rows, number, day)
    return rows


def _make_run(identity: str, number: int, finished: datetime) -> Row:
    return {
        "id": identity,
        "cicd_scope_id": f"{PREFIX}scope:{number}",
        "name": "main",
        "status": "DONE",
        "created_date": finished - timedelta(minutes=12),
        "started_date": finished - timedelta(minutes=11),
        "finished_date": finished,
        "duration_sec": 660.0,
    }


def _add_deployment(random: Random, rows: Rows, number: int, day: date) -> None:
    identity = f"{PREFIX}deployment:{number}:{day}"
    run = _make_run(identity, number, _at(day, 17))
    deployed = {**run, "result": "SUCCESS", "environment": "PRODUCTION"}
    rows[DEPLOYMENT_TABLE].append(deployed)
    commit = {"cicd_deployment_id": identity, "commit_sha": f"{random.getrandbits(160):040x}"}
    rows[DEPLOYMENT_COMMIT_TABLE].append({**deployed, **commit})
    if random.random() < 0.15:
        incident = f"{PREFIX}incident:{number}:{day}"
        times = {"created_date": _at(day, 19), "resolution_date": _at(day, 22)}
        issue = {"id": incident, "title": "Incident", "status": "DONE", **times}
        rows[ISSUE_TABLE].append({**issue, "type": "INCIDENT"})
        rows[INCIDENT_TABLE].append(issue)
        rows[INCIDENT_LINK_TABLE].append(
            {"id": incident, "project_name": PROJECTS[number], "deployment_id": identity}
        )


def _at(day: date, hour: int) -> datetime:
    return datetime.combine(day, time(hour), timezone.utc)
