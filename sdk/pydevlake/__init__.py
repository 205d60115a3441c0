"""Write Apache DevLake plugins in Python."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydevlake.imports import without_collections
from pydevlake.logger import logger

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
_MODULES = {
    "Context": "context",
    "Field": "fields",
    "Plugin": "plugin",
    "RemoteScopeGroup": "message",
    "ScopeConfigPair": "plugin",
    "Stream": "stream",
    "Substream": "stream",
    "TestConnectionResult": "message",
}

if TYPE_CHECKING:
    from pydevlake.context import Context
    from pydevlake.fields import Field
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
else:

    def __getattr__(name: str) -> Any:
        # Imported when it is used: a program that only opens DevLake's database needs no models,
        # and saves 15 MiB of memory.
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        with without_collections():
            module = import_module(f"pydevlake.{_MODULES.get(name, 'model')}")
        return getattr(module, name)
