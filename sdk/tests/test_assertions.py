"""Tests of the assertions that plugins use in their own tests: they fail when they should."""

from collections.abc import Iterable
from typing import Any, Optional

import pytest

from pydevlake import (
    Connection,
    Context,
    DomainType,
    Field,
    Plugin,
    RemoteScopeGroup,
    ScopeConfig,
    Stream,
    TestConnectionResult,
    ToolModel,
    ToolScope,
)
from pydevlake.domain_layer.crossdomain import Account, User
from pydevlake.domain_layer.devops import CicdScope
from pydevlake.testing import (
    ContextBuilder,
    assert_plugin_run,
    assert_stream_convert,
    assert_valid_plugin,
)


class Guest(ToolModel, table=True):
    __tablename__ = "_tool_hotel_guests"

    id: str = Field(primary_key=True)
    name: Optional[str]
    visits: int = 1


class Hotel(ToolScope, table=True):
    __tablename__ = "_tool_hotel_hotels"


class Guests(Stream):
    tool_model: Any = Guest
    domain_types: Any = [DomainType.CROSS]
    domain_models: Any = [Account]

    def collect(self, state: dict[str, Any], context: Context) -> Iterable[Any]:
        yield {"id": "1", "name": "Ann"}, state

    def convert(self, tool_model: Guest, context: Context) -> Iterable[Account]:
        for _ in range(tool_model.visits):
            yield Account(full_name=tool_model.name)


class HotelPlugin(Plugin):
    connection_type = Connection
    tool_scope_type = Hotel
    streams: Any = [Guests]

    def test_connection(self, connection: Connection) -> TestConnectionResult:
        works = connection.name != "closed"
        return TestConnectionResult(success=works, message="", status=200 if works else 503)

    def domain_scopes(self, tool_scope: Hotel) -> Iterable[Any]:
        yield CicdScope(name=tool_scope.name)

    def remote_scopes(self, connection: Connection, group_id: str) -> list[Any]:
        return [Hotel(id="h", name="Hotel")]

    def remote_scope_groups(self, connection: Connection) -> list[RemoteScopeGroup]:
        return [RemoteScopeGroup(id="g", name="Group")]


def test_a_sound_plugin_passes() -> None:
    assert_valid_plugin(HotelPlugin())
    assert_plugin_run(HotelPlugin(), Connection(id=1, name="open"))


def test_a_connection_that_does_not_work_fails() -> None:
    with pytest.raises(AssertionError, match="the connection doesn't work"):
        assert_plugin_run(HotelPlugin(), Connection(id=1, name="closed"))


class NeedyConfig(ScopeConfig):
    pattern: str


class Untyped(Guests):
    domain_types = []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "grand-hotel"}, "letters, digits and underscores"),
        ({"connection_type": ToolScope}, "connection_type is no subclass of Connection"),
        ({"scope_config_type": NeedyConfig}, "a scope config can't be made without values"),
        ({"streams": []}, "the plugin has no stream"),
        ({"streams": [Untyped]}, "untyped has no domain type"),
    ],
)
def test_an_unsound_plugin_fails(change: dict[str, Any], said: str) -> None:
    plugin: Any = type("HotelPlugin", (HotelPlugin,), change)
    with pytest.raises(AssertionError, match=said):
        assert_valid_plugin(plugin())


@pytest.fixture
def ctx() -> Context:
    builder = ContextBuilder(HotelPlugin).with_scope("h", name="Hotel")
    return builder.with_scope_config().with_connection(id=5).build()


def test_a_context_is_built_in_any_order(ctx: Context) -> None:
    assert (ctx.connection.id, ctx.scope.connection_id, ctx.scope.name) == (5, 5, "Hotel")
    assert isinstance(ctx.scope_config, ScopeConfig)


def test_an_equal_conversion_passes(ctx: Context) -> None:
    ann = Account(full_name="Ann")
    assert_stream_convert(HotelPlugin, "guests", {"id": "1", "name": "Ann"}, ann, ctx)
    raw = {"id": "1", "name": "Ann", "visits": 2}
    assert_stream_convert(HotelPlugin(), "guests", raw, [ann, ann], ctx)
    assert_stream_convert(HotelPlugin, "guests", {"id": "1", "visits": 0}, [], ctx)


@pytest.mark.parametrize(
    ("visits", "expected", "said"),
    [
        (1, [], "converts to 1 rows, not 0"),
        (0, [Account(full_name="Ann")], "converts to 0 rows, not 1"),
        (2, [Account(full_name="Ann")], "converts to 2 rows, not 1"),
        (1, [Account(full_name="Bob")], "full_name: 'Ann', not 'Bob'"),
        (1, [User(name="Ann")], "class: 'Account', not 'User'"),
    ],
)
def test_a_different_conversion_fails(
    ctx: Context, visits: int, expected: list[Any], said: str
) -> None:
    raw = {"id": "1", "name": "Ann", "visits": visits}
    with pytest.raises(AssertionError, match=said):
        assert_stream_convert(HotelPlugin, "guests", raw, expected, ctx)
