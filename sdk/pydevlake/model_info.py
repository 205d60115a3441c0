"""The description of a model from which DevLake's server makes a Go struct and a table.

The server needs exactly one string `type` in each property. pydantic writes an optional value as
`anyOf` with null, an enumeration as a `$ref` and a constant without a type: all are flattened.
"""

from typing import Any

from pydantic import BaseModel
from sqlmodel import SQLModel

from pydevlake.model import primary_key_names

_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
# Keywords that hold values and not schemas. A default of null is left out.
_PLAIN_VALUES = ("default", "enum", "const", "examples")


class DynamicModelInfo(BaseModel):
    json_schema: dict[str, Any]
    table_name: str

    @staticmethod
    def from_model(model_class: type[SQLModel]) -> "DynamicModelInfo":
        """Describe a model. ValueError names a field whose type the server can't take."""
        return DynamicModelInfo(
            json_schema=_server_schema(model_class), table_name=str(model_class.__tablename__)
        )


def _server_schema(model: type[SQLModel]) -> dict[str, Any]:
    raw = model.model_json_schema(by_alias=True)
    definitions = raw.pop("$defs", {})
    schema: dict[str, Any] = _flatten(raw, definitions, ())
    for name, described in schema["properties"].items():
        if not isinstance(described.get("type"), str):
            raise ValueError(
                f"{model.__name__}.{name}: DevLake's server needs one type for a field and finds "
                "none here. Declare it as a string, a number, a boolean, a time, a list or a dict."
            )
    for key in primary_key_names(model):
        alias = model.model_fields[key].alias or key
        # A key declared with sqlmodel's own Field lacks the attribute.
        schema["properties"][alias]["primaryKey"] = True
    return schema


def _flatten(node: Any, definitions: dict[str, Any], seen: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_flatten(item, definitions, seen) for item in node]
    if not isinstance(node, dict):
        return node
    node = dict(node)
    reference = node.pop("$ref", None)
    if reference is not None:
        name = reference.rsplit("/", 1)[-1]
        if name in seen:
            # A recursive model would not end; for the server it is JSON as well.
            return {"type": "object", **node}
        return {**_flatten(definitions[name], definitions, (*seen, name)), **node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":
            flat[key] = {
                name: _flatten(element, definitions, seen) for name, element in value.items()
            }
        elif key not in _PLAIN_VALUES:
            flat[key] = _flatten(value, definitions, seen)
        elif value is not None:
            flat[key] = value
    return _add_type(_replace_choice(flat))


def _replace_choice(node: dict[str, Any]) -> dict[str, Any]:
    """Replace `anyOf`, `oneOf` or `allOf` by the one alternative for all values."""
    for keyword in ("anyOf", "oneOf", "allOf"):
        if keyword not in node:
            continue
        node = dict(node)
        alternatives = [element for element in node.pop(keyword) if element.get("type") != "null"]
        node.pop("discriminator", None)
        types = {element.get("type") for element in alternatives}
        if len(alternatives) == 1:
            node = {**alternatives[0], **node}
        elif len(types) == 1:
            node["type"] = types.pop()
        elif types <= {"integer", "number"} or types == {"number", "string"}:
            # A decimal is written as a number or as its text.
            node["type"] = "number"
        elif types <= {"integer", "number", "string", "boolean"}:
            node["type"] = "string"
    return node


def _add_type(node: dict[str, Any]) -> dict[str, Any]:
    """Add the type that an enumeration or a constant leaves out."""
    values = node.get("enum", [node["const"]] if "const" in node else None)
    if "type" in node or not values:
        return node
    types = {_JSON_TYPES.get(type(value)) for value in values}
    return {**node, "type": types.pop() or "string" if len(types) == 1 else "string"}
