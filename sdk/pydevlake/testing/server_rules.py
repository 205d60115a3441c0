"""The rules of DevLake's server for a PluginInfo when it loads a plugin."""

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

# The types for which the server makes Go fields.
_TYPES = ("integer", "number", "boolean", "string", "array", "object")
_DOMAIN_TYPES = ("CODE", "TICKET", "CODEREVIEW", "CROSS", "CICD", "CODEQUALITY")
_VERBS = ("collect", "extract", "convert")
_EXTENSIONS = ("", "metric", "datasource")
_DIALECTS = ("mysql", "postgres")
# The deletion of a scope's data inserts table names, and so the plugin's, into SQL unescaped.
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_TABLE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.]*")

# The required keys of each operation, with the types of their values.
_OPERATIONS: dict[str, dict[str, type]] = {
    "execute": {"sql": str},
    "add_column": {"table": str, "column": str, "column_type": str},
    "drop_column": {"table": str, "column": str},
    "rename_column": {"table": str, "old_name": str, "new_name": str},
    "drop_table": {"table": str},
    "rename_table": {"old_name": str, "new_name": str},
    "create_table": {"model_info": dict},
}


def assert_valid_plugin_info(info: dict[str, Any]) -> None:
    """Fail, naming every fault, unless the server would load a plugin that answered `info`.

    `info` is the JSON document that `plugin-info` writes.
    """
    faults = list(_faults(info))
    assert not faults, "DevLake's server would refuse this plugin:\n" + "\n".join(faults)


def _faults(info: dict[str, Any]) -> Iterator[str]:
    for key in ("name", "plugin_path"):
        if not isinstance(info.get(key), str) or not info[key]:
            yield f"{key}: a text is needed, not {info.get(key)!r}"
    if not _NAME.fullmatch(str(info.get("name"))):
        yield f"name: letters, digits and underscores only, not {info.get('name')!r}"
    if not Path(str(info.get("plugin_path"))).is_absolute():
        yield f"plugin_path: an absolute path is needed, not {info.get('plugin_path')!r}"
    if info.get("extension", "") not in _EXTENSIONS:
        yield f"extension: unknown {info['extension']!r}"
    for key in ("connection_model_info", "scope_model_info", "scope_config_model_info"):
        yield from _model_faults(key, info.get(key))
    for key, check in (
        ("tool_model_infos", _model_faults),
        ("subtask_metas", _subtask_faults),
        ("migration_scripts", _script_faults),
    ):
        listed = info.get(key)
        if not isinstance(listed, list):
            yield f"{key}: a list is needed, not {listed!r}"
            continue
        for index, item in enumerate(listed):
            yield from check(f"{key}[{index}]", item)
    yield from _repetitions(info)


def _model_faults(where: str, model: Any) -> Iterator[str]:
    if not isinstance(model, dict):
        yield f"{where}: a model is needed, not {model!r}"
        return
    if not _TABLE.fullmatch(str(model.get("table_name", ""))):
        yield f"{where}.table_name: no name for a table: {model.get('table_name')!r}"
    properties = (model.get("json_schema") or {}).get("properties")
    if not isinstance(properties, dict):
        yield f"{where}.json_schema: no properties"
        return
    for name, described in properties.items():
        yield from _property_faults(f"{where}.{name}", described)
    for name in model["json_schema"].get("required", []):
        if name not in properties:
            yield f"{where}: requires {name}, which it does not have"


def _property_faults(where: str, described: Any) -> Iterator[str]:
    if not isinstance(described, dict):
        yield f"{where}: a description is needed, not {described!r}"
        return
    kind = described.get("type")
    if not isinstance(kind, str):
        yield f"{where}: the type has to be one text, not {kind!r}"
    elif kind not in _TYPES:
        yield f"{where}: the server knows no type {kind!r}"
    for keyword in ("$ref", "anyOf", "oneOf", "allOf"):
        if keyword in described:
            yield f"{where}: the server doesn't read {keyword}"
    for marker in ("primaryKey", "autoIncrement"):
        if not isinstance(described.get(marker, False), bool):
            yield f"{where}: {marker} is true or false, not {described[marker]!r}"
    if described.get("format") == "password" and kind != "string":
        yield f"{where}: only a text can be a password"


def _subtask_faults(where: str, meta: Any) -> Iterator[str]:
    if not isinstance(meta, dict):
        yield f"{where}: a description is needed, not {meta!r}"
        return
    for key in ("name", "description"):
        if not isinstance(meta.get(key), str) or not meta[key]:
            yield f"{where}.{key}: a text is needed, not {meta.get(key)!r}"
    if meta.get("entry_point_name") not in _VERBS:
        yield f"{where}.entry_point_name: no such verb: {meta.get('entry_point_name')!r}"
    for key in ("required", "enabled_by_default"):
        if not isinstance(meta.get(key, False), bool):
            yield f"{where}.{key}: true or false is needed, not {meta[key]!r}"
    if not _texts(meta.get("arguments")):
        yield f"{where}.arguments: a list of texts is needed, not {meta.get('arguments')!r}"
    domain_types = meta.get("domain_types")
    if not _texts(domain_types) or not domain_types:
        yield f"{where}.domain_types: a list of texts is needed, not {domain_types!r}"
    else:
        for unknown in sorted(set(domain_types) - set(_DOMAIN_TYPES)):
            yield f"{where}.domain_types: unknown {unknown!r}"


def _script_faults(where: str, script: Any) -> Iterator[str]:
    if not isinstance(script, dict) or not isinstance(script.get("operations"), list):
        yield f"{where}: a script with operations is needed"
        return
    if not isinstance(script.get("name"), str) or not script["name"]:
        yield f"{where}.name: a text is needed, not {script.get('name')!r}"
    version = script.get("version")
    try:
        if type(version) is not int or len(str(version)) != 14:
            raise ValueError(version)
        datetime.strptime(str(version), "%Y%m%d%H%M%S")
    except ValueError:
        yield f"{where}.version: YYYYMMDDhhmmss is needed, not {version!r}"
    for index, operation in enumerate(script["operations"]):
        yield from _operation_faults(f"{where}.operations[{index}]", operation)


def _operation_faults(where: str, operation: Any) -> Iterator[str]:
    kind = operation.get("type") if isinstance(operation, dict) else None
    if kind not in _OPERATIONS:
        yield f"{where}: unknown operation {kind!r}"
        return
    for key, wanted in _OPERATIONS[kind].items():
        if not isinstance(operation.get(key), wanted):
            yield f"{where} ({kind}): {key} is missing or of a wrong type"
    if kind == "execute" and operation.get("dialect") not in (None, *_DIALECTS):
        yield f"{where} (execute): unknown dialect {operation['dialect']!r}"
    if kind == "create_table":
        yield from _model_faults(f"{where}.model_info", operation.get("model_info"))


def _repetitions(info: dict[str, Any]) -> Iterator[str]:
    for key, name in (("subtask_metas", "name"), ("migration_scripts", "version")):
        listed = info.get(key)
        values = [item.get(name) for item in listed if isinstance(item, dict)] if listed else []
        for value in dict.fromkeys(values):
            if values.count(value) > 1:
                yield f"{key}: {name} {value!r} is there {values.count(value)} times"


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
