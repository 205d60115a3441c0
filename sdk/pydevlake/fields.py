"""The declaration of fields, with DevLake's own attributes."""

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
    """Declare a model's field like `sqlmodel.Field`, with three more attributes.

    `primary_key` and `auto_increment` are also in the JSON schema, from which DevLake's server
    makes the table. `source` is a JSON pointer (RFC 6901) to the value for `autoextract`.
    `schema_extra` is added to the field's JSON schema.
    """
    attributes = dict(schema_extra or {})
    if source is not None:
        attributes["source"] = source
    if primary_key:
        attributes["primaryKey"] = True
        # SQLModel refuses the argument, even when false, together with `sa_column`.
        kwargs["primary_key"] = True
    if auto_increment is not None:
        attributes["autoIncrement"] = auto_increment
    if attributes:
        kwargs["schema_extra"] = {"json_schema_extra": attributes}
    return sqlmodel.Field(*args, **kwargs)


def read_attributes(field: Any) -> dict[str, Any]:
    """Return the attributes that `Field` added to the JSON schema of a pydantic field."""
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {}
