"""Column types for the tables that DevLake's server makes."""

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Dialect, Enum, Integer
from sqlalchemy.types import TypeDecorator, TypeEngine


def utc_now() -> datetime:
    """Return the present time in UTC, without a time zone, as in the tables."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


class Moment(TypeDecorator[datetime]):
    """A time in UTC. Drivers for MySQL drop a time zone without converting: this converts."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return _to_naive_utc(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return _to_naive_utc(value)


def _to_naive_utc(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(timezone.utc).replace(tzinfo=None)
    return value


def fit_server(column: "Column[Any]") -> None:
    """Give a column the type that DevLake's server gives it, or one that binds to it.

    The server makes a BIGINT of every integer and text of every enumeration. Psycopg 3 names the
    type of each value it sends, so a native enumeration or a value above 31 bits would fail.
    """
    column.type = _server_type(column.type)


def _server_type(declared: "TypeEngine[Any]") -> "TypeEngine[Any]":
    if isinstance(declared, Enum) and declared.native_enum and declared.enum_class:
        return Enum(declared.enum_class, native_enum=False, length=255)
    if type(declared) is Integer:
        # SQLite generates ids only in a column declared INTEGER.
        return BigInteger().with_variant(Integer(), "sqlite")
    # Newer versions of SQLModel declare a time with a type of their own, around DateTime.
    if isinstance(declared, DateTime) or isinstance(getattr(declared, "impl", None), DateTime):
        return Moment()
    return declared
