"""The plugin that DevLake calls, through `run.sh`."""

from collections.abc import Iterable
from typing import Any

import developer_telemetry.database.migrations  # noqa: F401  (registers the schema's history)
from developer_telemetry.constants import SCOPE_ID, SCOPE_NAME, strategy_of
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.models import (
    Machine,
    TelemetryConnection,
    TelemetryScope,
    TelemetryScopeConfig,
    make_scope,
)
from developer_telemetry.pipeline.streams import Reports
from pydevlake import DomainScope, Plugin, RemoteScopeGroup, TestConnectionResult
from pydevlake.message import PipelineTask, PluginInfo
from pydevlake.model_info import DynamicModelInfo


class DeveloperTelemetryPlugin(Plugin):
    """Developer telemetry: reports pushed from developers' machines."""

    name = "developer_telemetry"
    description = "Daily reports pushed from developers' machines"
    connection_type = TelemetryConnection
    tool_scope_type = TelemetryScope
    scope_config_type = TelemetryScopeConfig
    streams = [Reports]

    def test_connection(self, connection: TelemetryConnection) -> TestConnectionResult:
        """Check what an operator can get wrong; there is no data source to test."""
        try:
            strategy_of(connection.duplicate_strategy)
        except ConfigurationError as error:
            return TestConnectionResult(success=False, message=str(error), status=400)
        token = connection.secret_token
        if token is not None and token.get_secret_value():
            message = "Ready. Machines send their reports with the secret token as Bearer token."
        else:
            # DevLake passes no token on when it tests a connection that is already saved.
            message = (
                "Ready. No secret token came with this test: a saved connection keeps its own;"
                " a new one without a token accepts reports from anyone."
            )
        return TestConnectionResult(success=True, message=message, status=200)

    def remote_scope_groups(self, connection: TelemetryConnection) -> list[RemoteScopeGroup]:
        return [RemoteScopeGroup(id=SCOPE_ID, name=SCOPE_NAME)]

    def remote_scopes(self, connection: TelemetryConnection, group_id: str) -> list[TelemetryScope]:
        return [make_scope()]

    def domain_scopes(self, tool_scope: TelemetryScope) -> Iterable[DomainScope]:
        from pydevlake.domain_layer.devops import CicdScope

        yield CicdScope(name=tool_scope.name)

    def extra_stages(
        self, scope_config_pairs: list[Any], connection: TelemetryConnection
    ) -> list[list[PipelineTask]]:
        """Add a last stage that links the accounts to DevLake's users."""
        if any(config.keep_accounts_unlinked for _, config in scope_config_pairs):
            return []
        link = PipelineTask(
            plugin="org",
            subtasks=["connectUserAccountsExact"],
            options={"connectionId": connection.id},
        )
        return [[link]]

    def plugin_info(self) -> PluginInfo:
        """Add the table of machines, so that DevLake's data deletion empties it."""
        info = super().plugin_info()
        info.tool_model_infos.append(DynamicModelInfo.from_model(Machine))
        return info


if __name__ == "__main__":
    DeveloperTelemetryPlugin.start()
