"""The plugin written with the SDK's own subtasks, which handle one row at a time.

python -m benchmarks.sample VERB CONFIG CONTEXT rows
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy.engine import Engine
from sqlmodel import Session

from developer_telemetry.main import DeveloperTelemetryPlugin
from developer_telemetry.models import DeveloperMetrics
from developer_telemetry.reports.daily_metrics import build_raw_params
from pydevlake import Context, DomainType, Stream
from pydevlake.domain_layer.crossdomain import Account

JSON_COLUMNS = ("git_activity", "development_activity")


class Rows(Stream):
    """Reports, mapped by the SDK's methods alone."""

    tool_model = DeveloperMetrics
    domain_types: Any = [DomainType.CROSS]
    domain_models: Any = [Account]

    def extract(self, raw_data: dict[str, Any]) -> DeveloperMetrics:
        metrics = raw_data["metrics"]
        git, development = (metrics[column] for column in JSON_COLUMNS)
        return DeveloperMetrics(
            developer_id=raw_data["developer"],
            date=raw_data["date"],
            email=raw_data["email"],
            name=raw_data["name"],
            hostname=raw_data["hostname"],
            active_hours=metrics["active_hours"],
            tools_used=json.dumps(metrics["tools_used"]),
            project_context=json.dumps(metrics["projects"]),
            command_counts="{}",
            os_info="{}",
            git_activity=json.dumps(git),
            development_activity=json.dumps(development),
            commits=git["total_commits"],
            lines_added=git["total_lines_added"],
            lines_deleted=git["total_lines_deleted"],
            files_changed=git["total_files_changed"],
            test_runs=development["test_runs_detected"],
            builds=development["build_commands_detected"],
        )

    def convert(self, tool_model: DeveloperMetrics, context: Context) -> Iterable[Account]:
        yield Account(
            email=tool_model.email, full_name=tool_model.name, user_name=tool_model.developer_id
        )


class SamplePlugin(DeveloperTelemetryPlugin):
    """The same connection and scope, another stream."""

    streams = [Rows]


def seed(engine: Engine, connection_id: int, payloads: Iterable[str]) -> None:
    """Make and fill the raw table of `Rows`, as the SDK does."""
    params = build_raw_params(connection_id)
    with Session(engine) as session:
        model = Rows(SamplePlugin.name).raw_model(session)
        session.add_all(model(params=params, data=payload.encode()) for payload in payloads)
        session.commit()


if __name__ == "__main__":
    SamplePlugin.start()
