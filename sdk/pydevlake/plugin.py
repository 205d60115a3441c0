"""A plugin: its name, its connection, and its pipelines."""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Optional

from pydevlake.context import Context
from pydevlake.logger import logger
from pydevlake.message import (
    DynamicDomainScope,
    PipelineData,
    PipelineTask,
    PluginInfo,
    RemoteProgress,
    RemoteScope,
    RemoteScopeGroup,
    RemoteScopeTreeNode,
    SubtaskMeta,
    TestConnectionResult,
)
from pydevlake.migration import MIGRATION_SCRIPTS
from pydevlake.model import ScopeConfig, ToolScope, raw_data_params
from pydevlake.model_info import DynamicModelInfo
from pydevlake.stream import Stream
from pydevlake.subtasks import Subtask

ScopeConfigPair = tuple[ToolScope, ScopeConfig]


class Plugin(ABC):
    """Base of a plugin's main class, which ends its module with `MyPlugin.start()`.

    A plugin gets connections, scopes and configurations as objects of its declared types.
    Parameters are Any here, so that an override can name its own.
    """

    def __init__(self) -> None:
        self._streams: dict[str, Stream] = {}
        for declared in self.streams:
            stream = declared(self.name) if isinstance(declared, type) else declared
            self._streams[stream.name] = stream

    @property
    def name(self) -> str:
        """Return the name for table names and routes: letters, digits and underscores only."""
        return type(self).__name__.lower().removesuffix("plugin")

    @property
    def description(self) -> str:
        return f"{self.name} plugin"

    @property
    @abstractmethod
    def connection_type(self) -> Any:
        """Return the subclass of Connection."""

    @property
    @abstractmethod
    def tool_scope_type(self) -> Any:
        """Return the subclass of ToolScope."""

    @property
    def scope_config_type(self) -> Any:
        return ScopeConfig

    @property
    @abstractmethod
    def streams(self) -> list[Any]:
        """Return streams or their classes, in the order in which a pipeline runs them."""

    @abstractmethod
    def test_connection(self, connection: Any) -> TestConnectionResult:
        """Test the connection. Raises if the test is not possible."""

    @abstractmethod
    def domain_scopes(self, tool_scope: Any) -> Iterable[Any]:
        """Return the domain scopes of a scope."""

    @abstractmethod
    def remote_scopes(self, connection: Any, group_id: str) -> Iterable[Any]:
        """Return the scopes in a group."""

    @abstractmethod
    def remote_scope_groups(self, connection: Any) -> Iterable[RemoteScopeGroup]:
        """Return the groups from which scopes are chosen."""

    @property
    def subtasks(self) -> list[Subtask]:
        return [subtask for stream in self._streams.values() for subtask in stream.subtasks]

    def get_stream(self, stream_name: str) -> Stream:
        stream = self._streams.get(stream_name)
        if stream is None:
            raise ValueError(
                f"{self.name} has no stream {stream_name!r}, only {', '.join(self._streams)}"
            )
        return stream

    def collect(self, ctx: Context, stream: str) -> Iterator[RemoteProgress]:
        return self._run(ctx, stream, "collector")

    def extract(self, ctx: Context, stream: str) -> Iterator[RemoteProgress]:
        return self._run(ctx, stream, "extractor")

    def convert(self, ctx: Context, stream: str) -> Iterator[RemoteProgress]:
        return self._run(ctx, stream, "convertor")

    def _run(self, ctx: Context, stream_name: str, subtask: str) -> Iterator[RemoteProgress]:
        stream = self.get_stream(stream_name)
        if stream.should_run_on(ctx.scope):
            yield from getattr(stream, subtask).run(ctx)
        else:
            logger.info("Stream %s does not run on scope %s", stream.name, ctx.scope.name)

    def make_remote_scopes(
        self, connection: Any, group_id: Optional[str] = None
    ) -> Iterator[RemoteScopeTreeNode]:
        """Return the groups, or the scopes of one group."""
        if not group_id:
            yield from self.remote_scope_groups(connection)
            return
        for scope in self.remote_scopes(connection, group_id):
            scope.connection_id = connection.id
            self._set_origin(scope, connection, scope.id)
            yield RemoteScope(id=scope.id, parent_id=group_id, name=scope.name, data=scope)

    def make_pipeline(self, scope_config_pairs: list[Any], connection: Any) -> PipelineData:
        """Return the plan and the domain scopes for the scopes of a blueprint."""
        scopes = []
        for tool_scope, _ in scope_config_pairs:
            for scope in self.domain_scopes(tool_scope):
                scope.id = tool_scope.domain_id()
                self._set_origin(scope, connection, tool_scope.id)
                data = scope.json(exclude_unset=True, exclude_none=True, by_alias=True)
                scopes.append(DynamicDomainScope(type_name=type(scope).__name__, data=data))
        return PipelineData(
            plan=self.make_pipeline_plan(scope_config_pairs, connection), scopes=scopes
        )

    def make_pipeline_plan(
        self, scope_config_pairs: list[Any], connection: Any
    ) -> list[list[PipelineTask]]:
        """Return one stage for each scope, then the extra ones."""
        return [
            *(
                self.make_pipeline_stage(scope, config, connection)
                for scope, config in scope_config_pairs
            ),
            *self.extra_stages(scope_config_pairs, connection),
        ]

    def extra_stages(
        self, scope_config_pairs: list[Any], connection: Any
    ) -> list[list[PipelineTask]]:
        """Return stages to run after those of the scopes; none unless overridden."""
        return []

    def make_pipeline_stage(self, scope: Any, config: Any, connection: Any) -> list[PipelineTask]:
        """Return the plugin's own task for a scope, then the extra ones."""
        options = {
            "scopeId": scope.id,
            "scopeName": scope.name,
            "connectionId": connection.id,
            "fullName": scope.name,
        }
        own = PipelineTask(
            plugin=self.name, subtasks=self.select_subtasks(scope, config), options=options
        )
        return [own, *self.extra_tasks(scope, config, connection)]

    def extra_tasks(self, scope: Any, config: Any, connection: Any) -> list[PipelineTask]:
        """Return tasks to run in parallel to a scope's own; none unless overridden."""
        return []

    def select_subtasks(self, scope: Any, config: Any) -> list[str]:
        """Return the subtasks of the streams for this scope and the configured domains."""
        return [
            subtask.name
            for stream in self._streams.values()
            if set(stream.domain_types) & set(config.domain_types) and stream.should_run_on(scope)
            for subtask in stream.subtasks
        ]

    def plugin_info(self) -> PluginInfo:
        models = [stream.tool_model for stream in self._streams.values() if stream.tool_model]
        return PluginInfo(
            name=self.name,
            description=self.description,
            plugin_path=self._plugin_path(),
            connection_model_info=DynamicModelInfo.from_model(self.connection_type),
            scope_model_info=DynamicModelInfo.from_model(self.tool_scope_type),
            scope_config_model_info=DynamicModelInfo.from_model(self.scope_config_type),
            # Two streams may share a model.
            tool_model_infos=[
                DynamicModelInfo.from_model(model) for model in dict.fromkeys(models)
            ],
            subtask_metas=[_meta(subtask) for subtask in self.subtasks],
            migration_scripts=MIGRATION_SCRIPTS,
        )

    def _set_origin(self, scope: Any, connection: Any, scope_id: str) -> None:
        scope.raw_data_params = raw_data_params(connection.id, scope_id)
        scope.raw_data_table = f"_raw_{self.name}_scopes"

    def _plugin_path(self) -> str:
        """Return the plugin's run.sh, which is beside the folder of its package."""
        file = sys.modules[type(self).__module__].__file__ or ""
        path = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(file))), "run.sh")
        if not os.access(path, os.X_OK):
            raise FileNotFoundError(f"{path} is missing or not executable: DevLake starts it")
        return path

    @classmethod
    def start(cls) -> None:
        """Run the command line and end the process with its status."""
        from pydevlake.commands import main

        sys.exit(main(cls, sys.argv[1:]))


def _meta(subtask: Subtask) -> SubtaskMeta:
    return SubtaskMeta(
        name=subtask.name,
        entry_point_name=subtask.verb,
        arguments=[subtask.stream.name],
        required=False,
        enabled_by_default=False,
        description=subtask.description,
        domain_types=[domain_type.value for domain_type in subtask.stream.domain_types],
    )
