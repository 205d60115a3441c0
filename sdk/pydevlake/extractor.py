"""Extraction of a tool row from a raw JSON object by the model's fields."""

from typing import Any, TypeVar

from pydevlake.fields import read_attributes
from pydevlake.model import ToolModel

_Row = TypeVar("_Row", bound=ToolModel)
_MISSING = object()


def autoextract(json: dict[str, Any], model_cls: type[_Row]) -> _Row:
    """Fill a model's fields from a JSON object.

    A field with a `source` is read at that JSON pointer (RFC 6901), any other by its name or its
    camelCase name. A missing value becomes the field's default; ValueError if a required field's
    `source` is missing.
    """
    values: dict[str, Any] = {}
    for name, field in model_cls.model_fields.items():
        pointer = read_attributes(field).get("source")
        if pointer is None:
            value = json.get(name)
            if value is None:
                value = json.get(field.alias) if field.alias else None
        else:
            value = _resolve(json, pointer)
            if value is _MISSING and field.is_required():
                raise ValueError(
                    f"{model_cls.__name__}.{name} is required, and the raw data has no {pointer}"
                )
        if value is not _MISSING and (value is not None or field.is_required()):
            values[name] = value
    return model_cls(**values)


def _resolve(document: Any, pointer: str) -> Any:
    node = document
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and key in node:
            node = node[key]
        elif isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        else:
            return _MISSING
    return node
