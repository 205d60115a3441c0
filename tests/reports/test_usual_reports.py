"""A body as the collector's script sends it is read faster, and to the same report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional, Union, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from developer_telemetry.errors import ReportRefused
from developer_telemetry.reports import parser
from developer_telemetry.reports.parser import MAX_COUNT, TEXT_LIMIT, Report

PAYLOADS = Path(__file__).parents[1] / "payloads"
# The shapes that the collector's script and its specification send.
USUAL = ("shape-script-2026", "shape-specification")

ODD: list[Any] = [
    *(None, True, "", " ", "x", "/home/ann/code/x", "x" * (TEXT_LIMIT + 1), "1,5", "2026-11-23"),
    *(0, -1, 1.0, 2.5, MAX_COUNT + 1, -MAX_COUNT - 1, 10**400),
    *([], {}, [None], ["a", "a", " a "], [{"name": "a"}], {"a": 1}, {" a": 1, "a": 2.5}),
]


def script_body() -> dict[str, Any]:
    body: dict[str, Any] = json.loads((PAYLOADS / "shape-script-2026.body").read_text())
    body["metrics"]["commands"] = {"git": 3, "make": 1}
    return body


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the paths of all fields and items of a document."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [inner for key, item in items for inner in [(*path, key), *places(item, (*path, key))]]


def changed(body: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return a body whose field at `path` has another value; `...` removes it."""
    document = json.loads(json.dumps(body))
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return cast("dict[str, Any]", document)


def outcome(text: str, usual: bool) -> Union[Report, str, None]:
    """Return the report or the text of its refusal; None if it is not read as a usual one."""
    try:
        return parser._parse_usual(text) if usual else parser.read(*parser.decode(text))
    except ReportRefused as error:
        return f"{error.field}: {error}"


def assert_same(text: str) -> Optional[Report]:
    fast = outcome(text, usual=True)
    if fast is not None:
        assert repr(fast) == repr(outcome(text, usual=False))
    return fast if isinstance(fast, Report) else None


@pytest.mark.parametrize("name", USUAL)
def test_the_scripts_bodies_are_usual(name: str) -> None:
    report = assert_same((PAYLOADS / f"{name}.body").read_text())
    assert report is not None
    assert report.is_exact


def test_commands_that_exceed_the_range_together_are_not_exact() -> None:
    body = script_body()
    body["metrics"]["commands"] = {"git": MAX_COUNT, " git": MAX_COUNT}
    report = assert_same(json.dumps(body))
    assert report is not None
    assert not report.is_exact


def test_two_repositories_of_one_name_are_not_exact() -> None:
    body = script_body()
    repositories = body["metrics"]["git_activity"]["repositories"]
    repositories.append(repositories[0])
    report = assert_same(json.dumps(body))
    assert report is not None
    assert not report.is_exact


@pytest.mark.parametrize("path", sorted(PAYLOADS.glob("*.body")), ids=lambda path: path.stem)
def test_every_payload_is_read_alike(path: Path) -> None:
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        return  # refused before it is read
    assert_same(text)


@pytest.mark.parametrize("path", places(script_body()), ids=lambda path: ".".join(map(str, path)))
def test_every_field_may_hold_anything(path: tuple[Any, ...]) -> None:
    for value in [..., *ODD]:
        assert_same(json.dumps(changed(script_body(), path, value), ensure_ascii=False))


FIELDS = (*parser.NUMBER_FIELDS, "tools_used", "projects", "project_context", "git_commits")


@pytest.mark.parametrize("field", [*FIELDS, "os_info", "timestamp", "developer_id", "more"])
@pytest.mark.parametrize("inside", [True, False])
def test_every_further_field_may_hold_anything(field: str, inside: bool) -> None:
    path = ("metrics", field) if inside else (field,)
    for value in ODD:
        assert_same(json.dumps(changed(script_body(), path, value), ensure_ascii=False))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(places(script_body())),
            st.one_of(st.sampled_from(ODD), st.text(), st.integers(), st.floats(allow_nan=False)),
        ),
        max_size=3,
    )
)
def test_any_changes_together_are_read_alike(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    body = script_body()
    for path, value in changes:
        try:
            body = changed(body, path, value)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took it away
    assert_same(json.dumps(body, ensure_ascii=False))
