import json
import logging
import os
import sys
from datetime import datetime, timezone
from enum import Enum
from types import ModuleType
from typing import Any, Optional

import pytest
from pydantic import AnyUrl, SecretStr, ValidationError, field_validator

from pydevlake import Connection, DomainType, Field, ScopeConfig, ToolModel, ToolScope, domain_id
from pydevlake.extractor import autoextract
from pydevlake.message import PipelineTask, RemoteScope, TestConnectionResult
from pydevlake.model import raw_data_params
from pydevlake.naming import plural
from pydevlake.pipeline_tasks import RefDiffOptions, gitextractor, refdiff


class Shade(Enum):
    DARK = "dark"
    LIGHT = "light"


class Lamp(ToolModel, table=True):
    __tablename__ = "_tool_lamps_lamps"

    serial: str = Field(primary_key=True)
    room: str = Field(primary_key=True)
    shade: Optional[Shade]
    bought_at: Optional[datetime]
    watts: int = Field(source="/power/watts", default=40)
    maker: Optional[str] = Field(source="/makers/0/na~1me")

    @field_validator("room", mode="before")
    @classmethod
    def _trim(cls, room: Any) -> Any:
        return room.strip() if isinstance(room, str) else room


class LampConnection(Connection):
    token: SecretStr
    organization: Optional[str]


def test_optional_without_a_default_is_none() -> None:
    connection = LampConnection(name="c", token="t")
    assert connection.organization is None
    assert connection.proxy is None
    assert connection.id is None


def test_a_connection_demands_its_fields() -> None:
    with pytest.raises(ValidationError, match="token"):
        LampConnection(name="c")


@pytest.mark.parametrize(
    ("given", "proxy"),
    [("", None), (None, None), ("http://proxy:3128/", AnyUrl("http://proxy:3128/"))],
)
def test_an_empty_proxy_is_none(given: Any, proxy: Any) -> None:
    assert LampConnection(name="c", token="t", proxy=given).proxy == proxy


def test_a_secret_is_not_shown() -> None:
    connection = LampConnection(name="c", token="hunter2")
    assert connection.token.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(connection) + connection.json()


def test_fields_are_read_in_either_case_and_unknown_ones_ignored() -> None:
    snake = ToolScope(id="s", name="n", connection_id=3, scope_config_id=4, nothing="known")
    camel = ToolScope(id="s", name="n", connectionId=3, scopeConfigId=4)
    assert snake == camel
    assert json.loads(snake.json(by_alias=True, exclude_none=True)) == {
        "id": "s",
        "name": "n",
        "connectionId": 3,
        "scopeConfigId": 4,
    }
    assert snake.dict(exclude_none=True)["connection_id"] == 3


def test_a_row_converts_what_it_is_given() -> None:
    lamp = Lamp(serial=12, room=" attic ", shade="dark", boughtAt="2024-05-06T07:08:09Z")
    assert (lamp.serial, lamp.room, lamp.shade) == ("12", "attic", Shade.DARK)
    assert lamp.bought_at == datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
    assert lamp.watts == 40


def test_a_row_leaves_out_what_does_not_fit_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "pydevlake"):
        lamps = [Lamp(serial=each, watts="many") for each in ("a", "b")]
    assert [lamp.watts for lamp in lamps] == [40, 40]
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "Lamp.watts is left empty where a value doesn't fit"
    ]


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in a plugin's folder, `shop`."""
    module: Any = ModuleType("store.models")
    module.__file__ = os.path.join(os.sep, "plugins", "shop", "store", "models.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return "store.models"


def test_ids_are_made_of_plugin_class_connection_and_key(
    monkeypatch: pytest.MonkeyPatch, shop: str
) -> None:
    monkeypatch.setattr(Lamp, "__module__", shop)
    assert Lamp(connection_id=3, serial="x", room="y").domain_id() == "shop:Lamp:3:x:y"
    assert domain_id(Lamp, 3, "x") == "shop:Lamp:3:x"

    class Shelf(ToolScope):
        __module__ = shop

    assert Shelf(id="s", name="n", connection_id=3).domain_id() == "shop:Shelf:3:s"


def test_a_table_is_named_after_its_plugin_and_class(shop: str) -> None:
    class StoreConnection(Connection):
        __module__ = shop

    assert StoreConnection.__tablename__ == "_tool_shop_storeconnections"


def test_a_class_of_no_file_belongs_to_its_top_level_module() -> None:
    class Typed(ToolScope):
        __module__ = "shell.session"

    assert Typed(id="s", name="n", connection_id=3).domain_id() == "shell:Typed:3:s"


def test_a_plugin_may_choose_its_own_ids() -> None:
    class Fixed(ToolScope):
        def domain_id(self) -> str:
            return f"fixed:{self.id}"

    assert Fixed(id="s", name="n").domain_id() == "fixed:s"


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("all", '{"ConnectionId":1,"ScopeId":"all"}'),
        ("žluť", '{"ConnectionId":1,"ScopeId":"žluť"}'),
        ('a"b', '{"ConnectionId":1,"ScopeId":"a\\"b"}'),
        # Go escapes what HTML could take for a tag.
        ("a<b>&c", '{"ConnectionId":1,"ScopeId":"a\\u003cb\\u003e\\u0026c"}'),
    ],
)
def test_params_are_written_as_go_writes_them(scope: str, expected: str) -> None:
    assert raw_data_params(1, scope) == expected


@pytest.mark.parametrize("entities", [None, [], ["CROSS"]])
def test_all_domains_are_wanted_unless_some_are_named(entities: Any) -> None:
    config = ScopeConfig(entities=entities)
    expected = list(DomainType) if entities is None else [DomainType(each) for each in entities]
    assert config.domain_types == expected
    assert ScopeConfig().domain_types == list(DomainType)


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("build", "builds"),
        ("repository", "repositories"),
        ("survey", "surveys"),
        ("branch", "branches"),
        ("box", "boxes"),
        ("status", "statuses"),
        ("analysis", "analyses"),
        ("salesperson", "salespeople"),
        ("gitrepositoryconfig", "gitrepositoryconfigs"),
    ],
)
def test_tables_are_named_in_the_plural(noun: str, expected: str) -> None:
    assert plural(noun) == expected


def test_autoextract_follows_names_aliases_and_pointers() -> None:
    lamp = autoextract(
        {
            "serial": "x",
            "room": "attic",
            "shade": "light",
            "boughtAt": "2024-05-06",
            "power": {"watts": 60},
            "makers": [{"na/me": "Ann"}],
        },
        Lamp,
    )
    assert (lamp.serial, lamp.shade, lamp.watts, lamp.maker) == ("x", Shade.LIGHT, 60, "Ann")
    assert lamp.bought_at == datetime(2024, 5, 6)


@pytest.mark.parametrize("raw", [{}, {"power": {}}, {"power": None}, {"power": []}])
def test_autoextract_falls_back_to_the_default(raw: dict[str, Any]) -> None:
    lamp = autoextract({"serial": "x", **raw}, Lamp)
    assert (lamp.watts, lamp.maker) == (40, None)


def test_autoextract_demands_a_required_source() -> None:
    class Strict(ToolModel):
        size: int = Field(source="/a/b")

    with pytest.raises(ValueError, match=r"Strict\.size is required.*no /a/b"):
        autoextract({"a": {}}, Strict)


def test_a_scope_is_sent_with_the_fields_of_its_own_class() -> None:
    class Bulb(ToolScope):
        colour: str

    scope = RemoteScope(id="b", name="B", parent_id="g", data=Bulb(id="b", name="B", colour="red"))
    sent = json.loads(scope.model_dump_json(by_alias=True, exclude_none=True))
    assert sent["data"] == {"id": "b", "name": "B", "colour": "red"}
    assert (sent["type"], sent["parentId"]) == ("scope", "g")


def test_a_task_is_written_in_camel_case_and_made_in_snake_case() -> None:
    task = PipelineTask(plugin="org", skip_on_fail=True, subtasks=["a"], options={})
    assert task.model_dump(by_alias=True) == {
        "plugin": "org",
        "skipOnFail": True,
        "subtasks": ["a"],
        "options": {},
    }


def test_a_task_may_be_read_back() -> None:
    task = PipelineTask(plugin="org", skip_on_fail=True)
    assert PipelineTask.model_validate_json(task.model_dump_json(by_alias=True)) == task


@pytest.mark.parametrize("status", [200, 503])
def test_a_test_result_is_made_of_an_http_answer(status: int) -> None:
    class Response:
        pass

    response: Any = Response()
    response.status = status
    result = TestConnectionResult.from_api_response(response)
    assert (result.success, result.status) == (status == 200, status)
    assert result.message == f"Connection {'successful' if status == 200 else 'failed'}"
    assert TestConnectionResult.from_api_response(response, "hm").message == "hm"


def test_tasks_of_other_plugins() -> None:
    clone = gitextractor("https://example.org/r", "r", "id", None, no_shallow_clone=True)
    assert (clone.plugin, clone.options["repoId"]) == ("gitextractor", "id")
    assert clone.options["noShallowClone"] is True
    assert refdiff("id").options["tagsLimit"] == 10
    assert refdiff("id", RefDiffOptions.model_validate({"tagsLimit": 3})).options["tagsLimit"] == 3
