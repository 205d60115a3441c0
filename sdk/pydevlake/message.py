"""A plugin's answers to DevLake's server: one JSON document each."""

from typing import Any, Literal, Optional, Protocol

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SerializeAsAny

from pydevlake.migration import MigrationScript
from pydevlake.model import ToolScope
from pydevlake.model_info import DynamicModelInfo


class Message(BaseModel):
    """One JSON document on file descriptor 3."""

    # A call writes one or two kinds of them.
    model_config = ConfigDict(defer_build=True)


def _camel(name: str, alias: str, **kwargs: Any) -> Any:
    # Not `alias`: for type checkers that would be the only name of the argument.
    return Field(validation_alias=AliasChoices(name, alias), serialization_alias=alias, **kwargs)


class SubtaskMeta(BaseModel):
    name: str
    entry_point_name: str
    required: bool
    enabled_by_default: bool
    description: str
    domain_types: list[str]
    arguments: Optional[list[str]] = None


class PluginInfo(Message):
    """The description of a plugin for the server that loads it, with keys in snake_case."""

    name: str
    description: str
    connection_model_info: DynamicModelInfo
    scope_model_info: DynamicModelInfo
    scope_config_model_info: Optional[DynamicModelInfo] = None
    tool_model_infos: list[DynamicModelInfo]
    migration_scripts: list[MigrationScript]
    plugin_path: str
    subtask_metas: list[SubtaskMeta]
    extension: str = "datasource"


class RemoteProgress(Message):
    """A subtask's progress: records since the last message, so far, and in all (0: unknown)."""

    increment: int = 0
    current: int = 0
    total: int = 0


class PipelineTask(Message):
    plugin: str
    skip_on_fail: bool = _camel("skip_on_fail", "skipOnFail", default=False)
    subtasks: list[str] = Field(default_factory=list)
    options: dict[str, Any] = Field(default_factory=dict)


class DynamicDomainScope(Message):
    """A domain scope: the Go struct's name, and its JSON as a string."""

    type_name: str
    data: str


class PipelineData(Message):
    plan: list[list[PipelineTask]]
    scopes: list[DynamicDomainScope]


class RemoteScopeTreeNode(Message):
    id: str
    name: str


class RemoteScopeGroup(RemoteScopeTreeNode):
    type: Literal["group"] = "group"


class RemoteScope(RemoteScopeTreeNode):
    type: Literal["scope"] = "scope"
    parent_id: str = _camel("parent_id", "parentId")
    data: SerializeAsAny[ToolScope]


class ApiResponse(Protocol):
    """The part of an HTTP client's answer that shows whether a connection works."""

    @property
    def status(self) -> int: ...


class TestConnectionResult(Message):
    """The result of a connection test; `status` becomes the HTTP status of the server's answer."""

    __test__ = False  # pytest would take the class for a test

    success: bool
    message: str
    status: int

    @staticmethod
    def from_api_response(
        response: ApiResponse, message: Optional[str] = None
    ) -> "TestConnectionResult":
        success = response.status == 200
        default = "Connection successful" if success else "Connection failed"
        return TestConnectionResult(
            success=success, message=message or default, status=response.status
        )
