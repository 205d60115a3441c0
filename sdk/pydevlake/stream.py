"""A stream: one kind of data from its source through the three layers."""

from collections.abc import Iterable
from typing import Any, Optional

from sqlalchemy import Table
from sqlmodel import Session

from pydevlake.context import Context
from pydevlake.extractor import autoextract
from pydevlake.model import RawModel, ToolModel, ToolScope, make_table
from pydevlake.subtasks import Collector, Convertor, Extractor, SubstreamCollector, Subtask

# By table. SQLAlchemy itself keeps a class only while it is used.
_RAW_MODELS: dict[str, type[RawModel]] = {}


class Stream:
    """Collects raw data, extracts tool rows from it, converts those to domain rows.

    A plugin's stream sets `tool_model`, `domain_types` and `domain_models`, and overrides
    `collect`, `extract` and `convert` as needed.
    """

    tool_model: Any = None  # type[ToolModel]
    domain_types: Any = ()  # Sequence[DomainType]
    # The tables that a new conversion empties of the scope's rows first.
    domain_models: Any = None  # Optional[Sequence[type[NoPKModel]]]

    def __init__(self, plugin_name: str) -> None:
        self.plugin_name = plugin_name
        self.collector: Subtask = Collector(self)
        self.extractor: Subtask = Extractor(self)
        self.convertor: Subtask = Convertor(self)
        self._raw_model: Optional[type[RawModel]] = None

    @property
    def subtasks(self) -> list[Subtask]:
        return [self.collector, self.extractor, self.convertor]

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    @property
    def qualified_name(self) -> str:
        return f"{self.plugin_name}_{self.name}"

    @property
    def raw_model_table(self) -> str:
        return f"_raw_{self.qualified_name}"

    def raw_model(self, session: Session) -> type[RawModel]:
        """Return the model of the stream's raw table, which is made if it doesn't exist."""
        if self._raw_model is None:
            model = _find_model(self.raw_model_table)
            make_table(session.get_bind(), _table_of(model))
            self._raw_model = model
        return self._raw_model

    def collect(self, state: dict[str, Any], context: Context) -> Iterable[Any]:
        """Yield pairs of a raw JSON value and the state after it.

        `state` is that of the last pair of the last completed run; it is empty unless the run is
        incremental. `x_request_url` and `x_request_input` of a raw object are stored in columns.
        """
        raise NotImplementedError(f"{type(self).__name__} collects nothing: override `collect`.")

    def extract(self, raw_data: dict[str, Any]) -> ToolModel:
        row: ToolModel = autoextract(raw_data, self.tool_model)
        return row

    def convert(self, tool_model: Any, context: Context) -> Any:
        """Return a domain row, an iterable of them, or None."""
        raise NotImplementedError(f"{type(self).__name__} converts nothing: override `convert`.")

    def should_run_on(self, scope: ToolScope) -> bool:
        return True


class Substream(Stream):
    """A stream that collects something for each tool row of its `parent_stream`."""

    parent_stream: Any = None  # type[Stream]

    def __init__(self, plugin_name: str) -> None:
        super().__init__(plugin_name)
        self.collector = SubstreamCollector(self)

    def collect(  # type: ignore[override]
        self, state: dict[str, Any], context: Context, parent: Any
    ) -> Iterable[Any]:
        """Like a stream's, with the parent's tool row."""
        raise NotImplementedError(f"{type(self).__name__} collects nothing: override `collect`.")


def _find_model(name: str) -> type[RawModel]:
    if name not in _RAW_MODELS:
        declared = [item.class_ for item in RawModel._sa_registry.mappers]
        # A plugin may have declared the table itself.
        recognized = [item for item in declared if item.__tablename__ == name]
        _RAW_MODELS[name] = recognized[0] if recognized else _make_model(name)
    return _RAW_MODELS[name]


def _make_model(name: str) -> type[RawModel]:
    metaclass: Any = type(RawModel)
    # Named after the table: SQLAlchemy warns of two classes with one name.
    model: type[RawModel] = metaclass(
        f"Raw{name}", (RawModel,), {"__tablename__": name, "__module__": __name__}, table=True
    )
    return model


def _table_of(model: Any) -> Table:
    table: Table = model.__table__
    return table
