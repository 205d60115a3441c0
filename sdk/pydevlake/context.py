"""The context of a subtask's run."""

from typing import Any, Optional

from sqlalchemy.engine import Engine

from pydevlake.model import Connection, ScopeConfig, ToolScope


class Context:
    """The database, the connection, the scope with its configuration, and the task's options."""

    def __init__(
        self,
        engine: Engine,
        connection: Connection,
        scope: ToolScope,
        scope_config: ScopeConfig,
        options: Optional[dict[str, Any]] = None,
    ) -> None:
        self.engine = engine
        # Any: a plugin's subtasks read the fields of its own connection and scope models.
        self.connection: Any = connection
        self.scope: Any = scope
        self.scope_config: Any = scope_config
        self.options = options or {}

    @property
    def incremental(self) -> bool:
        """Return true if the run continues from the last one's state."""
        return self.options.get("incremental") is True
