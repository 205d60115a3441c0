"""Whatever bodies come: answered with a refusal at worst, and the receiver lives."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.receivers import TOKEN, Receiver, ReloadingReceiver, add_connection, query

ONE = "/plugins/developer-telemetry/2/report"
MANY = "/plugins/developer-telemetry/2/reports"
HEADERS = {"authorization": f"Bearer {TOKEN}"}

texts = st.text(max_size=20) | st.sampled_from(["\x00", "\ud800", "\u202e", "é" * 300, "1e999"])
numbers = (
    st.integers()
    | st.floats()
    | st.sampled_from([2**63, -(2**63) - 1, 10**400, 1e308, -0.0, 10**15 + 0.5])
)
leaves = st.none() | st.booleans() | numbers | texts
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
repositories = st.lists(
    st.fixed_dictionaries(
        {"name": texts | anything},
        optional={"path": texts, "commits": anything, "branches_worked": anything},
    ),
    max_size=3,
)
metrics = st.fixed_dictionaries(
    {},
    optional={
        "active_hours": anything,
        "tools_used": anything,
        "projects": anything,
        "project_context": anything,
        "commands": st.dictionaries(texts, leaves, max_size=3) | anything,
        "git_activity": st.fixed_dictionaries(
            {}, optional={"total_commits": anything, "repositories": repositories | anything}
        )
        | anything,
        "development_activity": anything,
        "os_info": anything,
    },
)
# What is nearly a report goes deeper than what is nothing at all.
reports = st.fixed_dictionaries(
    {
        "developer": st.sampled_from(["ann", "Ann ", "josé"]) | texts,
        "date": st.sampled_from(["2026-11-23", "2026-11-23T10:00:00Z", "0999-01-01"]) | texts,
    },
    optional={
        "developer_id": anything,
        "hostname": anything,
        "email": anything,
        "name": anything,
        "metrics": metrics | anything,
        "active_hours": anything,
        "git_activity": anything,
    },
)


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    folder = tmp_path_factory.mktemp("fuzz")
    url = f"sqlite:///{folder}/telemetry.db"
    with ReloadingReceiver(url, folder) as receiver:
        assert add_connection(url) == 2
        pid = receiver.pid
        yield receiver
        assert receiver.running
        assert receiver.pid == pid
        assert receiver.status("/health/ready") == 200
    assert "ERROR" not in receiver.log
    assert "Traceback" not in receiver.log
    # Nothing went round by the spool, as it would if the database had choked on it.
    assert "go to the spool" not in receiver.log
    [(kept,)] = query(url, "SELECT COUNT(*) FROM _raw_developer_telemetry")
    assert kept > 50


def assert_told(answer: httpx.Response, statuses: set[int]) -> None:
    assert answer.status_code in statuses, answer.text
    content = answer.json()
    assert content["success"] is (answer.status_code == 200)
    assert content["message"]


def as_json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


@settings(max_examples=300)
@given(reports | anything, st.booleans())
def test_any_json_is_answered(receiver: Receiver, document: Any, escaped: bool) -> None:
    body = json.dumps(document).encode() if escaped else as_json(document)

    assert_told(receiver.client.post(ONE, content=body, headers=HEADERS), {200, 400})


@settings(max_examples=150)
@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf{}")
@example('{"developer": "ann", "date": "2026-11-23"}'.encode("utf-16"))
def test_any_bytes_are_answered(receiver: Receiver, body: bytes) -> None:
    assert_told(receiver.client.post(ONE, content=body, headers=HEADERS), {400})


@settings(max_examples=100)
@given(
    st.sampled_from([gzip.compress, zlib.compress, bytes]),
    reports.map(as_json) | st.binary(max_size=50),
    st.binary(max_size=3),
    st.integers(0, 400),
    st.sampled_from(["gzip", "deflate", "GZIP", "identity"]),
)
def test_any_damage_to_a_compressed_body_is_answered(
    receiver: Receiver, compress: Any, body: bytes, damage: bytes, at: int, encoding: str
) -> None:
    sent = compress(body)
    sent = sent[:at] + damage + sent[at + len(damage) :]

    answer = receiver.client.post(
        ONE, content=sent, headers={**HEADERS, "content-encoding": encoding}
    )

    assert_told(answer, {200, 400})


@settings(max_examples=150)
@given(st.lists(reports | anything, max_size=5), st.booleans(), st.binary(max_size=5))
def test_any_array_and_any_lines_are_answered(
    receiver: Receiver, documents: list[Any], lines: bool, damage: bytes
) -> None:
    texts = [as_json(each) for each in documents]
    body = b"\n".join(texts) if lines else b"[" + b",".join(texts) + b"]"
    middle = len(body) // 2

    for sent in (body, body[:middle] + damage + body[middle:]):
        answer = receiver.client.post(MANY, content=sent, headers=HEADERS)
        assert_told(answer, {200, 400})
        content = answer.json()
        statuses = [each["status"] for each in content["results"]]
        assert content["stored"] == statuses.count(200)
        assert content["refused"] == statuses.count(400)
        assert [each["index"] for each in content["results"]] == list(range(len(statuses)))


@settings(max_examples=60)
@given(st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=30))
def test_any_header_is_answered(receiver: Receiver, value: str) -> None:
    body = as_json({"developer": "ann", "date": "2026-11-23"})
    for name in ("content-type", "content-encoding", "x-request-id", "expect"):
        headers = [*HEADERS.items(), (name, value.strip())]
        sent = [(key.encode(), text.encode("latin-1")) for key, text in headers]
        answer = receiver.client.post(ONE, content=body, headers=sent)
        assert_told(answer, {200, 400, 415})


@settings(max_examples=60)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#")))
def test_any_path_is_answered(receiver: Receiver, path: str) -> None:
    for prefix in ("/", "/plugins/developer-telemetry/x"):
        url = httpx.URL(receiver.url).copy_with(raw_path=(prefix + path).encode())
        answer = receiver.client.request("POST", url, content=b"{}")
        assert answer.status_code in (400, 404, 405), answer.text
