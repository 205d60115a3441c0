"""Writes Apache DevLake plugins in Python."""

from pydevlake.context import Context
from pydevlake.fields import Field
from pydevlake.logger import logger
from pydevlake.message import RemoteScopeGroup, TestConnectionResult
from pydevlake.model import (
    Connection,
    DomainScope,
    DomainType,
    ScopeConfig,
    ToolModel,
    ToolScope,
    domain_id,
)
from pydevlake.plugin import Plugin, ScopeConfigPair
from pydevlake.stream import Stream, Substream

__all__ = [
    "Connection",
    "Context",
    "DomainScope",
    "DomainType",
    "Field",
    "Plugin",
    "RemoteScopeGroup",
    "ScopeConfig",
    "ScopeConfigPair",
    "Stream",
    "Substream",
    "TestConnectionResult",
    "ToolModel",
    "ToolScope",
    "domain_id",
    "logger",
]
