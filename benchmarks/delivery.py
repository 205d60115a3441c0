"""Pull requests, builds and deployments of a large fleet, in DevLake's tables."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Any

from sqlalchemy.engine import Engine

from benchmarks.large import NOW
from developer_telemetry.constants import LINK_TABLE
from developer_telemetry.database.bulk_insert import insert_typed
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import transact
from developer_telemetry.storage.devlake_schema import (
    DEPLOYMENT_COMMIT_TABLE,
    INCIDENT_LINK_TABLE,
    INCIDENT_TABLE,
    METRIC_TABLE,
    PIPELINE_TABLE,
    PULL_REQUEST_TABLE,
    USER_TABLE,
)

SHOWN_DAYS = 184
# As many builds as pull requests, a deployment of so many, and an incident of so many deployments.
DEPLOYED, FAILED = 25, 10
SCOPE = "scope"

Rows = dict[str, list[dict[str, Any]]]


def fill_delivery(engine: Engine, pull_requests: int) -> None:
    """Add so many pull requests of the last six months, builds and deployments."""
    with engine.connect() as connection:
        users = [row[0] for row in connection.exec_driver_sql(f"SELECT id FROM {USER_TABLE}")]
    random = Random("delivery")
    for rows in (_pull_requests(random, users, pull_requests), _builds(random, pull_requests)):
        for table, own in rows.items():
            _store(engine, table, own)


def _store(engine: Engine, table: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        columns = list(rows[0])
        values = [[row[column] for column in columns] for row in rows]
        transact(engine, lambda to: insert_typed(to, table, columns, values, ""))
    analyze = "ANALYZE TABLE" if dialect_of(engine).name == "mysql" else "ANALYZE"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"{analyze} {table}").close()


def _pull_requests(random: Random, users: list[str], number: int) -> Rows:
    rows: Rows = {
        LINK_TABLE: [{"account_id": f"git {user}"[:100], "user_id": user} for user in users],
        PULL_REQUEST_TABLE: [],
        METRIC_TABLE: [],
    }
    for n in range(number):
        merged = _moment(random)
        minutes = [random.randrange(3000) for _ in range(3)]
        rows[PULL_REQUEST_TABLE].append(
            {
                "id": f"pull {n}",
                "author_id": rows[LINK_TABLE][random.randrange(len(users))]["account_id"],
                "created_date": str(merged - timedelta(minutes=sum(minutes[1:]))),
                "merged_date": str(merged),
            }
        )
        times = dict(zip(("pr_coding_time", "pr_pickup_time", "pr_review_time"), minutes))
        metric = {"id": f"pull {n}", "project_name": "p", "pr_cycle_time": sum(minutes)}
        rows[METRIC_TABLE].append({**metric, **times})
    return rows


def _builds(random: Random, number: int) -> Rows:
    incidents = list(_incidents(number // DEPLOYED))
    deployed = {"result": "SUCCESS", "environment": "PRODUCTION"}
    return {
        PIPELINE_TABLE: [
            {**_run(random, f"build {n}"), "result": "SUCCESS" if n % 9 else "FAILURE"}
            for n in range(number)
        ],
        DEPLOYMENT_COMMIT_TABLE: [
            {
                **_run(random, f"commit {n}"),
                **deployed,
                "cicd_deployment_id": f"deployment {n}",
                "commit_sha": str(n),
            }
            for n in range(number // DEPLOYED)
        ],
        INCIDENT_TABLE: [{"id": incident} for incident, _ in incidents],
        INCIDENT_LINK_TABLE: [
            {"id": incident, "project_name": "p", "deployment_id": deployment}
            for incident, deployment in incidents
        ],
    }


def _incidents(deployments: int) -> Iterator[tuple[str, str]]:
    for n in range(0, deployments, FAILED):
        yield f"incident {n}", f"deployment {n}"


def _run(random: Random, identity: str) -> dict[str, Any]:
    finished = str(_moment(random))
    return {"id": identity, "cicd_scope_id": SCOPE, "status": "DONE", "finished_date": finished}


def _moment(random: Random) -> datetime:
    moment = NOW - timedelta(minutes=random.randrange(SHOWN_DAYS * 24 * 60))
    return moment.replace(tzinfo=None, microsecond=0)
