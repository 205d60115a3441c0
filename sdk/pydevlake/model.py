"""The models of connections, scopes, and rows of the raw, tool and domain layers."""

import json
import logging
from collections.abc import Iterable
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Optional, Union, get_args, get_origin

from pydantic import AnyUrl, BaseModel, ConfigDict, ValidationError, field_validator
from sqlalchemy import Column, LargeBinary, Table, Text
from sqlalchemy import inspect as inspect_mapped
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import declared_attr
from sqlmodel import SQLModel

from pydevlake.columns import fit_server, utc_now
from pydevlake.fields import Field, read_attributes
from pydevlake.naming import camel_case, plugin_name_of, plural

_log = logging.getLogger("pydevlake")
_unfit_fields: set[str] = set()
_ESCAPED_BY_GO = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


class _Scratch(BaseModel):
    """A holder of a row's values while they are converted to the row's types, one by one."""


class Base(SQLModel):
    """A base that lets models in pydantic's older style run on today's pydantic and SQLAlchemy.

    `Optional[X]` without a default means None. A row (`table=True`) converts its values (aliases,
    enumerations, times) without validation: a missing field stays unset, an unfit value is logged
    once and left out. Other models are validated as usual.
    """

    # A call of a plugin uses few of the imported models. A model built late also has the defaults
    # that are added below.
    model_config = ConfigDict(coerce_numbers_to_str=True, defer_build=True)  # type: ignore[assignment]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for field in cls.model_fields.values():
            if field.is_required() and _is_optional(field.annotation):
                field.default = None

    @classmethod
    def __table_cls__(cls, *args: Any, **kwargs: Any) -> Table:
        for arg in args:
            if isinstance(arg, Column):
                fit_server(arg)
        return Table(*args, **kwargs)

    def __init__(self, **data: Any) -> None:
        super().__init__(**(_convert_values(type(self), data) if is_table(type(self)) else data))

    # Methods of pydantic 1, without pydantic 2's warnings about them.
    def dict(self, **kwargs: Any) -> Any:
        return self.model_dump(**kwargs)

    def json(self, **kwargs: Any) -> str:
        return self.model_dump_json(**kwargs)


def is_table(model: type[SQLModel]) -> bool:
    """Return true if the model was declared with `table=True`."""
    return bool(model.model_config.get("table"))


def _is_optional(annotation: Any) -> bool:
    # A union is Union[X, None] or, on newer Pythons, X | None (a type of its own).
    is_union = get_origin(annotation) is Union or type(annotation).__name__ == "UnionType"
    return is_union and type(None) in get_args(annotation)


def _convert_values(model: type[SQLModel], data: dict[str, Any]) -> dict[str, Any]:
    scratch = _Scratch()
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        key = field.alias if field.alias in data else name
        if key not in data:
            continue
        if data[key] is None:
            values[name] = None
            continue
        try:
            model.__pydantic_validator__.validate_assignment(scratch, name, data[key])
            values[name] = scratch.__dict__[name]
        except ValidationError as error:
            _log_unfit_once(f"{model.__name__}.{name}", error.errors()[0]["msg"])
    for name in model.__sqlmodel_relationships__:
        if name in data:
            values[name] = data[name]
    return values


def _log_unfit_once(field: str, reason: str) -> None:
    if field not in _unfit_fields:
        _unfit_fields.add(field)
        _log.warning("%s is left empty where a value doesn't fit: %s", field, reason)


def _set_updated_at(row: Any) -> None:
    if row.updated_at is None:
        row.updated_at = utc_now()


class Model(Base):
    """A model with a number for an id and the times of its making and last change."""

    id: Optional[int] = Field(default=None, primary_key=True)
    created_at: Optional[datetime] = Field(default=None, sa_column_kwargs={"default": utc_now})
    updated_at: Optional[datetime] = Field(
        default=None, sa_column_kwargs={"default": utc_now, "onupdate": utc_now}
    )

    def set_updated_at(self) -> None:
        _set_updated_at(self)


class ToolTable(Base):
    """A model of the tool layer. Fields are written in camelCase and read in either case.

    The table is `_tool_<plugin>_<plural of the class>`, the plugin taken from the folder that
    holds the package. Set `__tablename__` to depend on neither.
    """

    model_config = ConfigDict(alias_generator=camel_case, populate_by_name=True)

    if TYPE_CHECKING:
        __tablename__: ClassVar[Any]
    else:

        @declared_attr
        def __tablename__(cls) -> str:
            return f"_tool_{plugin_name_of(cls)}_{plural(cls.__name__.lower())}"


class Connection(ToolTable, Model):
    """The address of a plugin's source, and the secret to read it. The server keeps the table."""

    name: str = Field(unique=True)
    proxy: Optional[AnyUrl] = None

    @field_validator("proxy", mode="before")
    @classmethod
    def _no_proxy(cls, proxy: Any) -> Any:
        return None if proxy == "" else proxy


class DomainType(Enum):
    CODE = "CODE"
    TICKET = "TICKET"
    CODE_REVIEW = "CODEREVIEW"
    CROSS = "CROSS"
    CICD = "CICD"
    CODE_QUALITY = "CODEQUALITY"


class ScopeConfig(ToolTable, Model):
    """An operator's settings for a scope. The server keeps the table."""

    name: str = Field(default="default")
    domain_types: list[DomainType] = Field(default=list(DomainType), alias="entities")
    connection_id: Optional[int] = None

    @field_validator("domain_types", mode="before")
    @classmethod
    def _all_domain_types(cls, domain_types: Any) -> Any:
        return list(DomainType) if domain_types is None else domain_types


class RawModel(Base):
    """A row of a raw table: a source's answer, unchanged."""

    id: Optional[int] = Field(default=None, primary_key=True)
    params: str = Field(default="", index=True)
    # With this length MySQL makes a LONGBLOB; a plain BLOB has at most 64 KiB.
    data: bytes = Field(default=b"", sa_type=LargeBinary(2**32 - 1))
    url: str = Field(default="", sa_type=Text)
    input: bytes = b""
    created_at: datetime = Field(default_factory=utc_now)


class RawDataOrigin(Base):
    """The raw row that a row was made of. DevLake deletes a scope's data by these columns."""

    raw_data_params: Optional[str] = Field(
        default=None, alias="_raw_data_params", sa_column_kwargs={"name": "_raw_data_params"}
    )
    raw_data_table: Optional[str] = Field(
        default=None, alias="_raw_data_table", sa_column_kwargs={"name": "_raw_data_table"}
    )
    raw_data_id: Optional[int] = Field(
        default=None, alias="_raw_data_id", sa_column_kwargs={"name": "_raw_data_id"}
    )
    raw_data_remark: Optional[str] = Field(
        default=None, alias="_raw_data_remark", sa_column_kwargs={"name": "_raw_data_remark"}
    )

    def set_raw_origin(self, raw: RawModel) -> None:
        self.raw_data_id = raw.id
        self.raw_data_params = raw.params
        self.raw_data_table = str(raw.__tablename__)

    def set_tool_origin(self, tool_model: "RawDataOrigin") -> None:
        self.raw_data_id = tool_model.raw_data_id
        self.raw_data_params = tool_model.raw_data_params
        self.raw_data_table = tool_model.raw_data_table


class NoPKModel(RawDataOrigin):
    """A row with its origin and its times; subclasses declare the primary key."""

    created_at: Optional[datetime] = Field(default=None, sa_column_kwargs={"default": utc_now})
    updated_at: Optional[datetime] = Field(
        default=None, sa_column_kwargs={"default": utc_now, "onupdate": utc_now}
    )

    def set_updated_at(self) -> None:
        _set_updated_at(self)


class ToolModel(ToolTable, NoPKModel):
    """A row of the tool layer: one thing of the source, in the source's own terms."""

    connection_id: Optional[int] = Field(default=None, primary_key=True, auto_increment=False)

    def domain_id(self) -> str:
        """Return the id of the domain row made of this row. A plugin may override it."""
        return domain_id(type(self), self.connection_id, *self.primary_keys())

    def primary_keys(self) -> Iterable[object]:
        """Return the values of the primary key, in order, without the connection's id."""
        for name in primary_key_names(type(self)):
            if name != "connection_id":
                yield getattr(self, name)


class DomainModel(NoPKModel):
    """A row of the domain layer, in DevLake's own terms."""

    id: Optional[str] = Field(default=None, primary_key=True)


class ToolScope(ToolModel):
    """A part of the source that an operator can choose to collect: a repository, a board."""

    id: str = Field(primary_key=True)
    name: str
    scope_config_id: Optional[int] = None


class DomainScope(DomainModel):
    """A scope in DevLake's own terms: Repo, CicdScope, Board or CqProject."""


class SubtaskRun(Base, table=True):
    """A run of a subtask for a connection, and the state from which the next run continues."""

    __tablename__ = "_pydevlake_subtask_runs"

    id: Optional[int] = Field(default=None, primary_key=True)
    subtask_name: str
    connection_id: int
    started: datetime
    completed: Optional[datetime] = None
    # A JSON object of plain values.
    state: str = Field(sa_type=Text)


def make_table(engine: Any, table: Table) -> None:
    """Make a table unless it exists; another process may do the same at the same time."""
    try:
        table.create(engine, checkfirst=True)
    except DBAPIError:
        # It may be there by now. Whatever else is wrong still is.
        table.create(engine, checkfirst=True)


def primary_key_names(model: type[SQLModel]) -> list[str]:
    """Return the fields of a model's primary key, in the table's order."""
    if is_table(model):
        mapper: Any = inspect_mapped(model)
        return [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    return [
        name
        for name, field in model.model_fields.items()
        if read_attributes(field).get("primaryKey")
    ]


def domain_id(model_type: type, connection_id: Optional[int], *keys: object) -> str:
    """Return the id of a tool row's domain row: `<plugin>:<class>:<connection>:<keys>`."""
    return ":".join(
        [plugin_name_of(model_type), model_type.__name__, str(connection_id), *map(str, keys)]
    )


def raw_data_params(connection_id: Optional[int], scope_id: Optional[str]) -> str:
    """Return the text that links a row to its scope, in the exact form of DevLake's server."""
    params = {"ConnectionId": connection_id, "ScopeId": scope_id}
    text = json.dumps(params, separators=(",", ":"), ensure_ascii=False)
    return text.translate(_ESCAPED_BY_GO)
