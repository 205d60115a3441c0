"""The field declaration that knows DevLake's own marks."""

from typing import Any, Optional

import sqlmodel


def Field(
    *args: Any,
    primary_key: bool = False,
    auto_increment: Optional[bool] = None,
    source: Optional[str] = None,
    schema_extra: Optional[dict[str, Any]] = None,
    **kwargs: Any,
) -> Any:
    """Declare a model's field like `sqlmodel.Field`, with three marks more.

    `primary_key` and `auto_increment` also reach the JSON schema, from which DevLake's server
    makes the table. `source` is a JSON pointer (RFC 6901) that says where `autoextract` finds
    the value. `schema_extra` is added to the field's JSON schema.
    """
    marks = dict(schema_extra or {})
    if source is not None:
        marks["source"] = source
    if primary_key:
        marks["primaryKey"] = True
        # SQLModel refuses the argument, even when false, beside an `sa_column`.
        kwargs["primary_key"] = True
    if auto_increment is not None:
        marks["autoIncrement"] = auto_increment
    if marks:
        kwargs["schema_extra"] = {"json_schema_extra": marks}
    return sqlmodel.Field(*args, **kwargs)


def marks_of(field: Any) -> dict[str, Any]:
    """Return the marks that `Field` added to the JSON schema of a pydantic field."""
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {}
