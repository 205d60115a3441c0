"""Checks of a plugin's parts, and of the complete plugin against a source."""

import re
from collections.abc import Iterable
from typing import Any, Optional, Union

from pydantic import ValidationError
from sqlmodel import SQLModel, create_engine

from pydevlake.context import Context
from pydevlake.message import PipelineTask, RemoteScopeGroup
from pydevlake.model import (
    Connection,
    DomainModel,
    DomainScope,
    DomainType,
    ScopeConfig,
    ToolModel,
    ToolScope,
)
from pydevlake.plugin import Plugin
from pydevlake.stream import Stream

_TIMES_OF_STORING = ("created_at", "updated_at")


class ContextBuilder:
    """Makes a context with objects of a plugin's own types, on an empty database in memory."""

    def __init__(self, plugin: Union[Plugin, type[Plugin]]) -> None:
        self.plugin = _make_plugin(plugin)
        self.connection: Any = None
        self.scope: Any = None
        self.scope_config: Any = None

    def with_connection(
        self, id: int = 1, name: str = "test_connection", **fields: Any
    ) -> "ContextBuilder":
        self.connection = self.plugin.connection_type(id=id, name=name, **fields)
        return self

    def with_scope(
        self, id: str = "s", name: str = "test_scope", **fields: Any
    ) -> "ContextBuilder":
        self.scope = self.plugin.tool_scope_type(id=id, name=name, **fields)
        return self

    def with_scope_config(
        self, id: int = 1, name: str = "test_config", **fields: Any
    ) -> "ContextBuilder":
        self.scope_config = self.plugin.scope_config_type(id=id, name=name, **fields)
        return self

    def build(self) -> Context:
        if self.scope is not None and self.connection is not None:
            self.scope.connection_id = self.connection.id
        engine = create_engine("sqlite://")
        return Context(engine, self.connection, self.scope, self.scope_config)


def assert_stream_convert(
    plugin: Union[Plugin, type[Plugin]],
    stream_name: str,
    raw: dict[str, Any],
    expected: Union[DomainModel, Iterable[DomainModel]],
    ctx: Optional[Context] = None,
) -> None:
    """Extract one raw object, convert the row, and compare the results.

    The rows have to be as many as expected, in order, of the same classes, and equal in every
    field but the times of storing.
    """
    stream = _make_plugin(plugin).get_stream(stream_name)
    tool_model = stream.extract(raw)
    if ctx is not None and ctx.connection is not None:
        tool_model.connection_id = ctx.connection.id
    actual = [_comparable(row) for row in _rows(stream.convert(tool_model, ctx))]  # type: ignore[arg-type]
    wanted = [_comparable(row) for row in _rows(expected)]
    assert len(actual) == len(wanted), (
        f"{stream_name} converts to {len(actual)} rows, not {len(wanted)}: {actual}"
    )
    for index, (row, want) in enumerate(zip(actual, wanted)):
        different = [key for key in {**want, **row} if row.get(key) != want.get(key)]
        assert not different, f"row {index} of {stream_name} differs:\n" + "\n".join(
            f"  {key}: {row.get(key)!r}, not {want.get(key)!r}" for key in different
        )


def assert_stream_run(
    stream: Stream, connection: Connection, scope: ToolScope, scope_config: ScopeConfig
) -> None:
    """Run all three steps of a stream to their end, on a database in memory.

    The database has every table of the models that were imported so far.
    """
    scope.connection_id = connection.id
    engine = create_engine("sqlite://")
    SQLModel.metadata.create_all(engine)
    try:
        for subtask in stream.subtasks:
            for _ in subtask.run(Context(engine, connection, scope, scope_config)):
                pass
    finally:
        engine.dispose()


def assert_valid_plugin(plugin: Plugin) -> None:
    """Check a plugin's declarations, without its source."""
    name = plugin.name
    assert isinstance(name, str), "a plugin's name is a text"
    assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name), (
        f"the name {name!r} has to be of letters, digits and underscores"
    )
    assert isinstance(plugin.description, str), "a plugin's description is a text"
    for key, base in (
        ("connection_type", Connection),
        ("tool_scope_type", ToolScope),
        ("scope_config_type", ScopeConfig),
    ):
        assert issubclass(getattr(plugin, key), base), f"{key} is no subclass of {base.__name__}"
    try:
        plugin.scope_config_type()
    except ValidationError as error:
        raise AssertionError(f"a scope config can't be made without values: {error}") from None
    assert isinstance(plugin.streams, list), "streams is no list"
    assert plugin.streams, "the plugin has no stream"
    for stream in _streams(plugin):
        assert isinstance(stream, Stream), f"{stream!r} is no stream"
        assert isinstance(stream.name, str), "a stream's name is a text"
        assert issubclass(stream.tool_model, ToolModel), (
            f"{stream.name}: the tool model is no ToolModel"
        )
        assert stream.domain_types, f"{stream.name} has no domain type"
        assert all(isinstance(item, DomainType) for item in stream.domain_types), (
            f"{stream.name}: its domain types are no DomainTypes"
        )


def assert_valid_domain_scopes(plugin: Plugin, tool_scope: ToolScope) -> list[DomainScope]:
    scopes = list(plugin.domain_scopes(tool_scope))
    assert scopes, "the scope has no domain scope"
    assert all(isinstance(item, DomainScope) for item in scopes), "not all are DomainScopes"
    return scopes


def assert_valid_remote_scope_groups(
    plugin: Plugin, connection: Connection
) -> list[RemoteScopeGroup]:
    groups = list(plugin.remote_scope_groups(connection))
    assert groups, "the connection has no scope groups"
    for group in groups:
        assert isinstance(group, RemoteScopeGroup), f"{group!r} is no RemoteScopeGroup"
        assert group.name, f"the group {group.id!r} has no name"
    return groups


def assert_valid_remote_scopes(
    plugin: Plugin, connection: Connection, group_id: str
) -> list[ToolScope]:
    scopes = list(plugin.remote_scopes(connection, group_id))
    assert scopes, f"the group {group_id!r} has no scopes"
    assert all(isinstance(item, ToolScope) for item in scopes), "not all are ToolScopes"
    return scopes


def assert_valid_pipeline_plan(
    plugin: Plugin, connection: Connection, tool_scope: ToolScope, scope_config: ScopeConfig
) -> list[list[PipelineTask]]:
    plan = plugin.make_pipeline_plan([(tool_scope, scope_config)], connection)
    assert plan, "the plan has no stage"
    assert all(plan), "a stage has no task"
    return plan


def assert_plugin_run(
    plugin: Plugin, connection: Connection, scope_config: Optional[ScopeConfig] = None
) -> None:
    """Check a plugin against its source, and run each stream on the first scope found."""
    assert_valid_plugin(plugin)
    tested = plugin.test_connection(connection)
    assert tested.success, f"the connection doesn't work: {tested.message}"
    groups = assert_valid_remote_scope_groups(plugin, connection)
    scope = assert_valid_remote_scopes(plugin, connection, groups[0].id)[0]
    scope.connection_id = connection.id
    assert_valid_domain_scopes(plugin, scope)
    config = scope_config or plugin.scope_config_type()
    assert_valid_pipeline_plan(plugin, connection, scope, config)
    for stream in _streams(plugin):
        assert_stream_run(stream, connection, scope, config)


def _make_plugin(plugin: Union[Plugin, type[Plugin]]) -> Plugin:
    return plugin() if isinstance(plugin, type) else plugin


def _streams(plugin: Plugin) -> list[Any]:
    return [item(plugin.name) if isinstance(item, type) else item for item in plugin.streams]


def _rows(converted: Any) -> list[Any]:
    if converted is None:
        return []
    return [converted] if isinstance(converted, SQLModel) else list(converted)


def _comparable(row: SQLModel) -> dict[str, Any]:
    fields = type(row).model_fields
    values = {name: getattr(row, name) for name in fields if name not in _TIMES_OF_STORING}
    return {"class": type(row).__name__, **values}
