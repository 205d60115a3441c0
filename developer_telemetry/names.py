"""Names that DevLake and its operators know, apart from what works with them.

Most calls of the plugin need no more of us than these, and each is a process of its own.
"""

from __future__ import annotations

from typing import Optional

from developer_telemetry.errors import ConfigurationError

RAW_TABLE = "_raw_developer_telemetry"
TOOL_TABLE = "_tool_developer_metrics"
SCOPE_ID = "all"

OVERWRITE = "overwrite"
SUM = "sum"


def strategy_of(text: Optional[str]) -> str:
    """The strategy that a connection's field names; an empty one means the default."""
    strategy = (text or "").strip().lower() or OVERWRITE
    if strategy not in (OVERWRITE, SUM):
        raise ConfigurationError(
            f"duplicateStrategy is {text!r}; set it to {OVERWRITE!r} or {SUM!r}"
        )
    return strategy
