"""Bodies as collectors send them, and what becomes of them.

`payloads/` holds pairs: NAME.body, the exact bytes of a request, and NAME.json, the tool row that
they have to give (its JSON columns written as JSON) or the refusal.
"""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from developer_telemetry.errors import ReportRefused
from developer_telemetry.reports.daily_metrics import ToolRow
from developer_telemetry.reports.parser import parse
from tests.support.examples import examples
from tests.support.factories import body, row_of

PAYLOADS = Path(__file__).parents[1] / "payloads"
JSON_COLUMNS = (
    "tools_used",
    "project_context",
    "command_counts",
    "os_info",
    "git_activity",
    "development_activity",
)
NUMBERS = ("commits", "lines_added", "lines_deleted", "files_changed", "test_runs", "builds")
# What every row has besides what comes out of the body.
FRAME = {"connection_id", "arrived_us", "created_at", "updated_at"}
PROVENANCE = {name for name in ToolRow._fields if name.startswith("raw_data_")}


def cases(kind: str) -> list[Any]:
    """The golden files that expect a `row` or that expect to be `refused`, by name."""
    found = []
    for path in sorted(PAYLOADS.glob("*.json")):
        expected = json.loads(path.read_text(encoding="utf-8"))
        if kind in expected:
            sent = path.with_suffix(".body").read_bytes()
            found.append(pytest.param(sent, expected[kind], id=path.stem))
    return found


def as_text(value: object) -> str:
    """JSON as the tool layer has it: sorted keys, no spaces, every character as itself."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def test_each_body_has_its_expectation() -> None:
    bodies = {path.stem for path in PAYLOADS.glob("*.body")}
    assert bodies == {path.stem for path in PAYLOADS.glob("*.json")}
    assert len(cases("row")) + len(cases("refused")) == len(bodies)


@pytest.mark.parametrize(("sent", "expected"), cases("row"))
def test_body_gives_exactly_this_row(sent: bytes, expected: dict[str, Any]) -> None:
    for column in JSON_COLUMNS:
        expected[column] = as_text(expected[column])
    row = row_of(sent)._asdict()
    assert {name: row[name] for name in row if name not in FRAME | PROVENANCE} == expected


@pytest.mark.parametrize(("sent", "expected"), cases("row"))
def test_payload_is_the_body_as_it_came(sent: bytes, expected: dict[str, Any]) -> None:
    assert parse(sent).payload.encode() == sent


@pytest.mark.parametrize(("sent", "expected"), cases("row"))
def test_text_read_back_from_the_raw_layer_gives_the_same_report(
    sent: bytes, expected: dict[str, Any]
) -> None:
    assert parse(parse(sent).payload) == parse(sent)


@pytest.mark.parametrize(("sent", "expected"), cases("refused"))
def test_body_is_refused_and_the_field_named(sent: bytes, expected: dict[str, str]) -> None:
    with pytest.raises(ReportRefused, match=re.escape(expected["says"])) as refusal:
        parse(sent)
    assert refusal.value.field == expected["field"]


@pytest.mark.parametrize(("sent", "expected"), cases("refused"))
def test_refusal_says_nothing_of_what_the_body_holds(sent: bytes, expected: dict[str, str]) -> None:
    with pytest.raises(ReportRefused) as refusal:
        parse(sent)
    assert "ann" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 150


@pytest.mark.parametrize("unclosed", [False, True], ids=["closed", "unclosed"])
@pytest.mark.parametrize("inside", ["[", '{"a":'], ids=["lists", "objects"])
def test_nesting_that_no_decoder_survives_is_refused(inside: str, unclosed: bool) -> None:
    close = {"[": "]", '{"a":': "}"}[inside]
    deep = inside * 200_000 + "0" + close * (0 if unclosed else 200_000)
    with pytest.raises(ReportRefused, match="deeper than 64 levels"):
        parse('{"developer":"ann.lee","date":"2026-11-23","extra":' + deep + "}")


def test_counts_that_together_pass_a_bigint_are_held_inside_it() -> None:
    repositories = [{"name": "large", "lines_added": 10**15}] * 10_000
    row = row_of(body(git_activity={"repositories": repositories}))
    assert row.lines_added == 10**15
    assert json.loads(row.git_activity)["repositories"][0]["lines_added"] == 10**15


def test_a_long_text_full_of_path_marks_is_read_in_linear_time() -> None:
    # Quadratic, this would take an hour; the limit on every test's time would stop it.
    text = "/ ~" + " ~" * 1_000_000
    assert len(row_of(body(metrics={"commands": {text: 1}})).command_counts) < 300


FIELDS = """
    developer developer_id date email name hostname metrics active_hours tools_used commands
    projects project_context git_activity development_activity os_info path repositories
    branches_worked commits lines_added lines_deleted files_changed total_commits
    total_lines_added total_lines_deleted total_files_changed test_runs_detected
    build_commands_detected
"""
KNOWN_FIELDS = st.sampled_from(re.findall(r"\w+", FIELDS))
# Surrogates and NUL included, which JSON can spell and no database can hold.
TEXTS = st.text(st.characters(), max_size=12) | st.sampled_from(
    ["/home/ann/x", "~/x/", "C:\\x\\", "1e999", "nan", " 7 ", "x" * 300, "🐙" * 300, "2026-11-23"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=0, max_value=30).map(lambda power: 10 ** (power * power))
    | st.floats()
    | TEXTS
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inside: (
        st.lists(inside, max_size=5)
        | st.dictionaries(KNOWN_FIELDS | TEXTS, inside, max_size=5)
        | st.dictionaries(KNOWN_FIELDS, inside, max_size=12)
    ),
    max_leaves=25,
)
DAYS = st.dates(min_value=date(1000, 1, 1)).map(str) | TEXTS
REPORTS = st.builds(
    lambda known, rest: {**rest, **known},
    st.fixed_dictionaries({"developer": TEXTS | st.integers(), "date": DAYS}),
    st.dictionaries(KNOWN_FIELDS, DOCUMENTS, max_size=12),
)


@examples(300)
@given(DOCUMENTS | REPORTS)
def test_any_json_fits_the_tables_or_is_refused(document: object) -> None:
    assert_kept_or_refused(json.dumps(document).encode())


@examples(100)
@given(REPORTS)
def test_any_json_in_utf8_fits_the_tables_or_is_refused(document: object) -> None:
    text = json.dumps(document, ensure_ascii=False)
    assert_kept_or_refused(text.encode("utf-8", "surrogatepass"))


@examples(100)
@given(st.binary(max_size=60))
@example(b"\xff\xfe{\x00}\x00")
@example(b"\xef\xbb\xbf\xef\xbb\xbf{}")
def test_any_bytes_fit_the_tables_or_are_refused(sent: bytes) -> None:
    assert_kept_or_refused(sent)
    assert_kept_or_refused(b'{"developer":"ann.lee","date":"2026-11-23","name":' + sent + b"}")


def assert_kept_or_refused(sent: bytes) -> None:
    try:
        report = parse(sent)
    except ReportRefused:
        return
    assert report.payload.encode() == sent
    row = row_of(sent)
    assert_fits(row)
    assert parse(report.payload) == report
    # Added up with itself, as another host's report would be, it fits as well.
    assert_fits(row_of(*[sent] * 3))


def assert_fits(row: ToolRow) -> None:
    for text in (row.developer_id, row.email, row.name, row.hostname):
        assert len(text) <= 255
        assert text == text.strip()
    assert row.developer_id
    assert str(date.fromisoformat(row.date)) == row.date
    assert row.date >= "1000-01-01"
    assert 0 <= row.active_hours <= 24
    assert type(row.active_hours) is int
    for column in NUMBERS:
        number = getattr(row, column)
        assert type(number) is int
        assert 0 <= number < 2**63
    for column in JSON_COLUMNS:
        text = getattr(row, column)
        assert text == as_text(json.loads(text))
        assert "/home/ann" not in text
    for value in row:
        if isinstance(value, str):
            value.encode()
            assert "\x00" not in value
