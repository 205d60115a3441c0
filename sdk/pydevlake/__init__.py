"""Write Apache DevLake plugins in Python."""

import gc

# Each call is a process that imports hundreds of modules. Their objects stay, so collections of
# garbage would waste a tenth of the call's time.
_collects = gc.isenabled()
gc.disable()
try:
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
finally:
    if _collects:
        gc.enable()

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
