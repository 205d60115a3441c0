import datetime
import re
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, Optional, Union

import pytest
import sqlmodel
from pydantic import AnyUrl, BaseModel, SecretStr

from pydevlake import Connection, Field, ScopeConfig, ToolModel
from pydevlake.model_info import DynamicModelInfo


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(Enum):
    SMALL = 1
    LARGE = 2


class Options(BaseModel):
    depth: Optional[int] = 3
    parent: Optional["Options"] = None


def described(annotation: Any, default: Any = None) -> dict[str, Any]:
    """Return the description of a field of the type."""
    model = type(
        "Thing",
        (ScopeConfig,),
        {"__annotations__": {"some_field": annotation}, "__module__": __name__},
    )
    schema = DynamicModelInfo.from_model(model).json_schema
    field: dict[str, Any] = schema["properties"]["someField"]
    assert field.pop("title", None) is not None or "enum" in field or "properties" in field
    return field


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, {"type": "integer"}),
        (Optional[int], {"type": "integer"}),
        (Optional[float], {"type": "number"}),
        (Optional[bool], {"type": "boolean"}),
        (Optional[str], {"type": "string"}),
        (Optional[datetime.datetime], {"type": "string", "format": "date-time"}),
        (datetime.date, {"type": "string", "format": "date"}),
        (Optional[SecretStr], {"type": "string", "format": "password", "writeOnly": True}),
        (Optional[AnyUrl], {"type": "string", "format": "uri", "minLength": 1}),
        (Optional[re.Pattern], {"type": "string", "format": "regex"}),
        (Optional[Colour], {"type": "string", "enum": ["red", "blue"]}),
        (Size, {"type": "integer", "enum": [1, 2]}),
        (Literal["all"], {"type": "string", "const": "all"}),
        (Optional[list[Colour]], None),
        (list[Any], {"type": "array", "items": {}}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Union[int, float], {"type": "number"}),
        (Union[int, str, None], {"type": "string"}),
    ],
)
def test_every_field_has_one_type(annotation: Any, expected: Optional[dict[str, Any]]) -> None:
    field = described(annotation)
    assert isinstance(field["type"], str)
    if expected is not None:
        assert field == expected or {**field, **expected} == field


def test_a_decimal_is_a_number() -> None:
    assert described(Optional[Decimal])["type"] == "number"


def test_a_nested_model_is_an_object_without_references() -> None:
    field = described(Optional[Options])
    assert field["type"] == "object"
    assert field["properties"]["depth"] == {"type": "integer", "title": "Depth", "default": 3}
    assert "$ref" not in str(field)
    assert "anyOf" not in str(field)


def test_a_field_of_any_type_is_refused_by_name() -> None:
    class Vague(ScopeConfig):
        whatever: Any = None

    with pytest.raises(ValueError, match=r"Vague\.whatever: DevLake's server needs one type"):
        DynamicModelInfo.from_model(Vague)


def test_marks_reach_the_schema() -> None:
    class Marked(ToolModel):
        key: str = Field(primary_key=True)
        other_key: int = sqlmodel.Field(primary_key=True)
        deep: Optional[str] = Field(source="/a/b", schema_extra={"hint": "deep"}, max_length=9)

    info = DynamicModelInfo.from_model(Marked)
    properties = info.json_schema["properties"]
    assert properties["key"]["primaryKey"] is True
    assert properties["connectionId"] == {
        "type": "integer",
        "primaryKey": True,
        "autoIncrement": False,
        "title": properties["connectionId"]["title"],
    }
    assert properties["deep"]["source"] == "/a/b"
    assert properties["deep"]["hint"] == "deep"
    assert properties["deep"]["maxLength"] == 9
    assert info.json_schema["required"] == ["key", "otherKey"]


def test_a_key_of_a_table_declared_with_sqlmodels_field_is_marked() -> None:
    class KeyedBySqlmodel(ToolModel, table=True):
        item_key: str = sqlmodel.Field(primary_key=True)

    properties = DynamicModelInfo.from_model(KeyedBySqlmodel).json_schema["properties"]
    assert properties["itemKey"]["primaryKey"] is True


def test_origin_columns_keep_their_names() -> None:
    properties = DynamicModelInfo.from_model(ToolModel).json_schema["properties"]
    assert {"_raw_data_params", "_raw_data_table", "_raw_data_id", "_raw_data_remark"} <= set(
        properties
    )


def test_a_table_may_be_named() -> None:
    class Named(Connection):
        __tablename__ = "_tool_other_connections"

    assert DynamicModelInfo.from_model(Named).table_name == "_tool_other_connections"
