import copy
from typing import Any, Callable

import pytest

from pydevlake.testing import assert_valid_plugin_info


def model(**properties: Any) -> dict[str, Any]:
    return {
        "table_name": "_tool_x_things",
        "json_schema": {"type": "object", "properties": {"id": {"type": "integer"}, **properties}},
    }


VALID: dict[str, Any] = {
    "name": "x_y",
    "description": "",
    "plugin_path": "/plugins/x/run.sh",
    "extension": "datasource",
    "connection_model_info": model(token={"type": "string", "format": "password"}),
    "scope_model_info": model(),
    "scope_config_model_info": model(),
    "tool_model_infos": [model()],
    "subtask_metas": [
        {
            "name": "Collect Things",
            "entry_point_name": "collect",
            "arguments": ["things"],
            "required": False,
            "enabled_by_default": False,
            "description": "Collect things",
            "domain_types": ["CROSS"],
        }
    ],
    "migration_scripts": [
        {
            "name": "init",
            "version": 20240101000000,
            "operations": [
                {"type": "execute", "sql": "SELECT 1", "dialect": "mysql", "ignore_error": False},
                {"type": "create_table", "model_info": model()},
            ],
        }
    ],
}


def test_what_the_server_takes_passes() -> None:
    assert_valid_plugin_info(VALID)


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    *way, key, value = path

    def change(info: dict[str, Any]) -> None:
        at: Any = info
        for step in way:
            at = at[step]
        at[key] = value

    return change


def field(described: Any) -> Callable[[dict[str, Any]], None]:
    return put("tool_model_infos", 0, "json_schema", "properties", "id", described)


OPTIONAL = {"anyOf": [{"type": "string"}, {"type": "null"}]}
OPERATIONS = ("migration_scripts", 0, "operations")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("name", ""), "name: a text is needed"),
        (put("name", "x-y"), "name: letters, digits and underscores only"),
        (put("plugin_path", "run.sh"), "plugin_path: an absolute path"),
        (put("extension", "database"), "extension: unknown"),
        (put("connection_model_info", None), "connection_model_info: a model is needed"),
        (put("scope_config_model_info", None), "scope_config_model_info: a model is needed"),
        (put("tool_model_infos", {}), "tool_model_infos: a list is needed"),
        (put("tool_model_infos", 0, "table_name", "a b"), "no name for a table"),
        (put("tool_model_infos", 0, "json_schema", {}), "no properties"),
        (put("tool_model_infos", 0, "json_schema", "required", ["no"]), "requires no, which"),
        (field(OPTIONAL), "the type has to be one text, not None"),
        (field({**OPTIONAL, "type": "string"}), "doesn't read anyOf"),
        (field({"$ref": "#/$defs/Mood"}), "doesn't read $ref"),
        (field({"enum": ["a", "b"]}), "the type has to be one text"),
        (field({"const": "a"}), "the type has to be one text"),
        (field({"type": ["string", "null"]}), "the type has to be one text"),
        (field({"type": "null"}), "knows no type 'null'"),
        (field({"type": "integer", "primaryKey": "yes"}), "primaryKey is true or false"),
        (field({"type": "integer", "format": "password"}), "only a text can be a password"),
        (field(None), "a description is needed"),
        (put("subtask_metas", 0, "entry_point_name", "load"), "no such verb"),
        (put("subtask_metas", 0, "description", ""), "description: a text is needed"),
        (put("subtask_metas", 0, "arguments", "things"), "arguments: a list of texts"),
        (put("subtask_metas", 0, "domain_types", []), "domain_types: a list of texts"),
        (put("subtask_metas", 0, "domain_types", ["ALL"]), "unknown 'ALL'"),
        (put("subtask_metas", 0, "required", "no"), "required: true or false"),
        (put("subtask_metas", VALID["subtask_metas"] * 2), "is there 2 times"),
        (put("migration_scripts", VALID["migration_scripts"] * 2), "is there 2 times"),
        (put("migration_scripts", 0, "version", 20240101), "YYYYMMDDhhmmss"),
        (put("migration_scripts", 0, "version", 20241301000000), "YYYYMMDDhhmmss"),
        (put("migration_scripts", 0, "version", "20240101000000"), "YYYYMMDDhhmmss"),
        (put("migration_scripts", 0, "name", ""), "name: a text is needed"),
        (put("migration_scripts", 0, {}), "a script with operations"),
        (put(*OPERATIONS, 0, "dialect", "sqlite"), "unknown dialect 'sqlite'"),
        (put(*OPERATIONS, 0, "sql", None), "(execute): sql is missing"),
        (put(*OPERATIONS, 0, "type", "truncate"), "unknown operation 'truncate'"),
        (put(*OPERATIONS, 1, "model_info", None), "(create_table): model_info is missing"),
        (put(*OPERATIONS, 1, "model_info", model(a=OPTIONAL)), "model_info.a: the type has"),
    ],
)
def test_what_the_server_refuses_is_named(
    change: Callable[[dict[str, Any]], None], said: str
) -> None:
    info = copy.deepcopy(VALID)
    change(info)
    with pytest.raises(AssertionError) as refused:
        assert_valid_plugin_info(info)
    assert said in str(refused.value)
    assert "DevLake's server would refuse this plugin" in str(refused.value)
