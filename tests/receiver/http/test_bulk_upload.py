"""Many reports in one body: taken apart wherever it is split, each answered for itself."""

from __future__ import annotations

import gzip
import json
import random
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from developer_telemetry.errors import ReportRefused
from developer_telemetry.receiver.http.bulk_upload import Result
from developer_telemetry.receiver.http.responses import bulk_answer
from developer_telemetry.reports.json_splitter import MAX_CHARACTERS, split_reports
from tests.support.receivers import (
    TOKEN,
    Receiver,
    ReloadingReceiver,
    add_connection,
    eventually,
    query,
    report,
)

MEBIBYTE = 1 << 20
PATH = "/plugins/developer-telemetry/{}/reports"
RAW = "_raw_developer_telemetry"
TOOL = "_tool_developer_metrics"

# Texts with everything in them that could be taken for the end of an element.
texts = st.text(st.sampled_from('ab\\"[]{},:\n\té漢🔑 ')) | st.text(max_size=5)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
space = st.sampled_from(["", " ", "\n", "\r\n\t "])


def split(body: bytes, at: list[int]) -> list[bytes]:
    borders = sorted({0, len(body), *(each % (len(body) + 1) for each in at)})
    return [body[start:end] for start, end in zip(borders, borders[1:])]


borders = st.lists(st.integers(0, 10_000), max_size=20)


@given(st.lists(documents, max_size=6), st.booleans(), space, space, borders)
@example([{"a": '\\"]'}], False, "", "", list(range(100)))
def test_an_array_is_taken_apart_wherever_it_is_split(
    sent: list[Any], escaped: bool, before: str, between: str, at: list[int]
) -> None:
    elements = (json.dumps(each, ensure_ascii=escaped) for each in sent)
    body = f"{before}[{between}{f'{between},{before}'.join(elements)}{before}]{between}".encode()

    found = list(split_reports(split(body, at)))

    assert [json.loads(each) for each in found] == sent
    assert found == [each.strip() for each in found]


@given(st.lists(documents, max_size=6), st.booleans(), space, space, borders)
def test_an_array_is_taken_apart_alike_where_long_elements_are_skipped(
    sent: list[Any], escaped: bool, before: str, between: str, at: list[int]
) -> None:
    elements = (json.dumps(each, ensure_ascii=escaped) for each in sent)
    body = f"{before}[{between}{f'{between},{before}'.join(elements)}{before}]{between}".encode()

    module = "developer_telemetry.reports.json_splitter"
    with patch.multiple(module, SHORT=0, LEAST_SKIPPED=2, MOST_SKIPPED=16):
        found = list(split_reports(split(body, at)))

    assert [json.loads(each) for each in found] == sent


@given(st.lists(documents, max_size=6), st.sampled_from(["\n", "\r\n", "\n\n"]), borders)
def test_lines_are_taken_apart_wherever_they_are_split(
    sent: list[Any], end: str, at: list[int]
) -> None:
    # A list first would make it an array.
    lines = [json.dumps(each, ensure_ascii=False) for each in [{}, *sent]]

    for body in (end.join(lines), end.join(lines) + end):
        assert list(split_reports(split(body.encode(), at))) == lines


def outcome(pieces: list[bytes]) -> tuple[list[str], str]:
    found = []
    try:
        for each in split_reports(pieces):
            found.append(each)
    except ReportRefused as error:
        return found, str(error)
    return found, ""


@given(st.text(st.sampled_from('ab\\"[]{},\n 1')).map(lambda text: "[" + text), borders)
@example('["\\', [1, 2])
def test_a_broken_array_gives_the_same_wherever_it_is_split(text: str, at: list[int]) -> None:
    assert outcome(split(text.encode(), at)) == outcome([text.encode()])


@given(st.binary(max_size=100), borders)
def test_any_bytes_give_the_same_wherever_they_are_split(body: bytes, at: list[int]) -> None:
    assert outcome(split(body, at)) == outcome([body])


@pytest.mark.parametrize("piece", [1 << 16, 8 * MEBIBYTE])
@pytest.mark.parametrize("filler", ["x", '\\"', "é", "{}"])
def test_a_report_too_long_is_cut_and_its_neighbours_are_not(filler: str, piece: int) -> None:
    text = filler * (MAX_CHARACTERS // len(filler) + 1)
    huge = f'{{"x": [{text}]}}' if filler == "{}" else f'{{"x": "{text}"}}'
    for body in (f"[1, {huge} ,2]", f'{{"first": 1}}\n{huge}\n2'):
        sent = body.encode()
        pieces = [sent[start : start + piece] for start in range(0, len(sent), piece)]

        before, cut, after = split_reports(pieces)

        assert before in ("1", '{"first": 1}')
        assert len(cut) > MAX_CHARACTERS
        assert after == "2"


def test_blank_space_costs_no_memory_and_no_time() -> None:
    blank = [b" \n" * 32_768] * 500
    started = time.monotonic()

    assert list(split_reports(blank)) == []
    assert list(split_reports([*blank, b"[", *blank, b"1,", *blank, b"2]", *blank])) == [
        "1",
        "2",
    ]

    assert time.monotonic() - started < 60


class Lake(NamedTuple):
    receiver: Receiver
    url: str
    connection: int
    summing: int

    def send(self, body: bytes | list[Any], connection: int = 0, **headers: str) -> httpx.Response:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        options: dict[str, Any] = {"path": PATH, **headers}
        return self.receiver.send(sent, connection or self.connection, **options)

    def kept(self, prefix: str) -> list[str]:
        """The developers with this prefix in the order of their reports' arrival."""
        rows = query(
            self.url,
            f"SELECT developer_id FROM {RAW} WHERE developer_id LIKE '{prefix} 0%'"
            " ORDER BY arrived_us, id",
        )
        return [developer for (developer,) in rows]

    def hours(self, developer: str) -> Any:
        [(hours,)] = query(
            self.url, f"SELECT active_hours FROM {TOOL} WHERE developer_id = '{developer}'"
        )
        return hours


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("bulk")
    url = f"sqlite:///{folder}/telemetry.db"
    with ReloadingReceiver(url, folder) as receiver:
        yield Lake(receiver, url, add_connection(url), add_connection(url, strategy="sum"))
    assert "ERROR" not in receiver.log
    assert "Traceback" not in receiver.log


def many(prefix: str, count: int) -> list[dict[str, Any]]:
    return [report(f"{prefix} {number:05}") for number in range(count)]


def lines(reports: list[Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in reports)


@pytest.mark.parametrize("prefix", ["", "/api"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("form", ["array", "lines"])
def test_an_array_and_lines_are_taken_plain_or_compressed(
    lake: Lake, prefix: str, form: str, compressed: bool
) -> None:
    name = f"{form} {compressed} {prefix.strip('/')}"
    sent = many(name, 3)
    body = json.dumps(sent, indent=1).encode() if form == "array" else lines(sent)
    encoding = "gzip" if compressed else "identity"
    body = gzip.compress(body) if compressed else body

    answer = lake.send(body, path=prefix + PATH, content_encoding=encoding)

    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "message": "3 reports stored, 0 refused",
        "stored": 3,
        "refused": 0,
        "results": [{"index": index, "status": 200, "message": "stored"} for index in range(3)],
    }
    assert lake.kept(name) == [each["developer"] for each in sent]


def test_each_report_is_kept_as_its_own_text(lake: Lake) -> None:
    one = '{ "developer":"own text",\r\n "date": "2026-11-23", "x": "é, ]" }'
    other = '{"date":"2026-11-24","developer":"own text"}'

    assert lake.send(f"[\n {one} ,{other}\n]".encode()).status_code == 200

    rows = query(lake.url, f"SELECT payload FROM {RAW} WHERE developer_id = 'own text' ORDER BY id")
    assert rows == [(one,), (other,)]


def test_the_order_of_the_array_is_the_order_of_arrival(lake: Lake) -> None:
    numbers = list(range(1, 21))
    random.Random(4).shuffle(numbers)
    metrics = [{"active_hours": number} for number in numbers]
    sent = [report("in order", metrics=each) for each in metrics]

    for connection in (lake.connection, lake.summing):
        assert lake.send(sent, connection).status_code == 200

    rows = query(
        lake.url,
        f"SELECT connection_id, active_hours FROM {TOOL} WHERE developer_id = 'in order'",
    )
    assert sorted(rows) == [(lake.connection, numbers[-1]), (lake.summing, numbers[-1])]
    arrivals = query(
        lake.url,
        f"SELECT payload FROM {RAW} WHERE developer_id = 'in order'"
        f" AND connection_id = {lake.connection} ORDER BY arrived_us",
    )
    assert [json.loads(text)["metrics"]["active_hours"] for (text,) in arrivals] == numbers


def test_bad_reports_are_answered_beside_good_ones(lake: Lake) -> None:
    sent = [
        *(json.dumps(each) for each in many("beside", 1)),
        '{"developer": "nobody"}',
        '"text"',
        "nonsense",
        '{"developer": "a\\u0000b", "date": "2026-11-23"}',
        "[" * 100 + "]" * 100,
        *(json.dumps(each) for each in many("beside", 2)[1:]),
        "",
        "{}",
    ]

    answer = lake.send(f"[{','.join(sent)}]".encode())

    assert answer.status_code == 200
    content = answer.json()
    assert (content["success"], content["stored"], content["refused"]) == (True, 2, 7)
    results = content["results"]
    assert [each["index"] for each in results] == list(range(9))
    assert [each["status"] for each in results] == [200, 400, 400, 400, 400, 400, 200, 400, 400]
    fields = [each.get("field") for each in results]
    assert fields == [None, "date", *["body"] * 4, None, "body", "developer"]
    assert lake.kept("beside") == ["beside 00000", "beside 00001"]


def test_lines_that_are_no_report_are_answered_beside_good_ones(lake: Lake) -> None:
    body = b"{\n" + lines(many("line", 1)) + b'\n{"developer": "cut\n' + lines(many("line", 2)[1:])

    results = lake.send(body).json()["results"]

    assert [each["status"] for each in results] == [400, 200, 400, 200]
    assert lake.kept("line") == ["line 00000", "line 00001"]


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (b"", 0),
        (b"[]", 0),
        (b" \n ", 0),
        (b"{}", 1),
        (b"[{}, 1]", 2),
        (b"[", 1),
        (b"nonsense", 1),
        (b"\xff\xfe", 1),
        (b"[\xff]", 1),
    ],
)
def test_a_body_without_a_valid_report_is_refused(lake: Lake, body: bytes, refused: int) -> None:
    answer = lake.send(body)

    assert answer.status_code == 400
    content = answer.json()
    assert (content["success"], content["stored"], content["refused"]) == (False, 0, refused)
    assert [each["status"] for each in content["results"]] == [400] * refused


BROKEN = {
    "cut after a comma": (b",", "the array has no end"),
    "cut in a report": (b', {"developer": "cut', "the array has no end"),
    "no end": (b" ", "the array has no end"),
    "two arrays": (b"] []", "there is text after the array"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_came_before_the_body_broke_is_kept(lake: Lake, case: str) -> None:
    end, message = BROKEN[case]
    sent = json.dumps(many(case, 2)).encode()[:-1]

    answer = lake.send(sent + end)

    assert answer.status_code == 200
    *results, last = answer.json()["results"]
    # One at the end of what has no end may have been meant to go on.
    whole = 1 if case == "no end" else 2
    assert [each["status"] for each in results] == [200] * whole
    assert (last["status"], last["field"]) == (400, "body")
    assert message in last["message"]
    assert lake.kept(case) == [f"{case} 00000", f"{case} 00001"][:whole]


@pytest.mark.parametrize("form", ["array", "lines"])
def test_a_report_that_is_not_utf_8_is_refused_for_itself(lake: Lake, form: str) -> None:
    name = f"utf {form}"
    first, second = (json.dumps(each).encode() for each in many(name, 2))
    bad = [first[:-1] + b', "x": "\xff"}', first[:-1] + b', "x": "\xed\xb2\x80"}', b"\xc3"]
    sent = [first, *bad, second]

    answer = lake.send(b"[" + b",".join(sent) + b"]" if form == "array" else b"\n".join(sent))

    results = answer.json()["results"]
    assert [each["status"] for each in results] == [200, 400, 400, 400, 200]
    assert all("not UTF-8" in each["message"] for each in results[1:4])
    assert lake.kept(name) == [f"{name} 00000", f"{name} 00001"]


def test_a_compressed_body_that_ends_early_keeps_what_could_be_read(lake: Lake) -> None:
    noise = random.Random(1)
    sent = [report(f"cut {n:05}", x=noise.randbytes(500).hex()) for n in range(400)]
    body = gzip.compress(json.dumps(sent).encode())

    answer = lake.send(body[: len(body) // 2], content_encoding="gzip")

    assert answer.status_code == 200
    content = answer.json()
    assert 100 < content["stored"] < 300
    assert content["refused"] == 1
    assert "ends too early" in content["results"][-1]["message"]
    assert len(lake.kept("cut")) == content["stored"]


def test_10000_reports_are_taken_and_one_more_is_too_much(lake: Lake) -> None:
    sent = many("ten thousand", 10_001)

    answer = lake.send(sent[:-1])

    assert answer.status_code == 200
    assert answer.json()["stored"] == 10_000
    assert {each["status"] for each in answer.json()["results"]} == {200}
    assert lake.kept("ten thousand") == [each["developer"] for each in sent[:-1]]

    answer = lake.send(gzip.compress(lines(sent)), content_encoding="gzip")

    assert answer.status_code == 413
    content = answer.json()
    assert (content["success"], content["stored"], content["refused"]) == (False, 10_000, 1)
    last = content["results"][-1]
    assert (last["index"], last["status"]) == (10_000, 413)
    assert "send the rest in another" in last["message"]


def test_at_most_five_mebibytes_are_sent(lake: Lake) -> None:
    sent = json.dumps(many("five", 1)).encode()

    assert lake.send(sent + b" " * (5 * MEBIBYTE - len(sent))).status_code == 200
    answer = lake.send(sent + b" " * (5 * MEBIBYTE + 1 - len(sent)))

    assert answer.status_code == 413
    assert len(lake.kept("five")) == 1


def test_64_mebibytes_inflate_in_flat_memory_and_one_byte_more_is_too_much(lake: Lake) -> None:
    filler = "x" * MEBIBYTE
    start = lines([report(f"inflated {number:05}", x=filler) for number in range(63)])
    room = 64 * MEBIBYTE - len(start)
    last = report("inflated 00063", x="")
    last["x"] = "x" * (room - len(lines([last])))
    before = lake.receiver.memory()

    fits = lake.send(gzip.compress(start + lines([last]), 1), content_encoding="gzip")

    assert fits.status_code == 200, fits.text
    assert fits.json()["stored"] == 64
    assert lake.receiver.peak() - before < 60

    over = lake.send(gzip.compress(start + lines([last]) + b"\n", 1), content_encoding="gzip")

    assert over.status_code == 413
    assert "inflates above 67108864 bytes" in over.json()["results"][-1]["message"]
    assert over.json()["stored"] == 63


def test_one_huge_report_costs_its_neighbours_nothing(lake: Lake) -> None:
    first, second = many("neighbour", 2)
    huge = report("huge", x="x" * (20 * MEBIBYTE))
    before = lake.receiver.memory()

    body = gzip.compress(json.dumps([first, huge, second]).encode(), 1)
    answer = lake.send(body, content_encoding="gzip")

    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [each["status"] for each in results] == [200, 400, 200]
    assert "leave it out" in results[1]["message"]
    assert lake.kept("neighbour") == ["neighbour 00000", "neighbour 00001"]
    assert lake.receiver.peak() - before < 60


def test_a_report_of_four_mebibytes_is_taken_as_when_it_is_sent_alone(lake: Lake) -> None:
    large = report("four mebibytes", x="")
    large["x"] = "x" * (MAX_CHARACTERS - len(json.dumps(large)))

    body = json.dumps([large, {**large, "x": large["x"] + "x"}]).encode()
    results = lake.send(gzip.compress(body), content_encoding="gzip").json()["results"]

    assert [each["status"] for each in results] == [200, 400]


def test_single_reports_are_answered_promptly_while_many_are_read(lake: Lake) -> None:
    # Hard to read: brackets, and no end of a report.
    body = gzip.compress(b"[[" + b"[]," * (3 * MEBIBYTE))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lake.send, body, content_encoding="gzip")
        seconds = []
        while not reading.done():
            started = time.monotonic()
            answer = lake.receiver.send(report("meanwhile"), lake.connection)
            seconds.append(time.monotonic() - started)
            assert answer.status_code == 200
    assert reading.result().status_code == 400
    assert sorted(seconds)[len(seconds) // 2] < 0.25
    assert len(seconds) > 3


def test_as_everywhere_a_token_is_needed(lake: Lake) -> None:
    def status(token: str | None, connection: int = lake.connection) -> int:
        return lake.receiver.send(lines(many("x", 1)), connection, token, path=PATH).status_code

    assert status(TOKEN) == 200
    assert status(None) == 401
    assert status("wrong") == 401
    assert status(TOKEN, 999_999) == 404
    assert lake.receiver.client.get(PATH.format(lake.connection)).status_code == 401
    answer = lake.receiver.client.delete(PATH.format(lake.connection))
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    assert lake.send(b"[]", content_encoding="br").status_code == 415


def test_too_many_such_bodies_at_once_are_asked_to_come_back(lake: Lake) -> None:
    def half() -> httpx.Response:
        def body() -> Iterator[bytes]:
            yield lines(many("at once", 1))
            assert all_sent.wait(30)

        return lake.receiver.client.post(
            PATH.format(lake.connection),
            content=body(),
            headers={"authorization": f"Bearer {TOKEN}"},
        )

    def turned_away() -> float:
        figures = lake.receiver.client.get("/metrics").text
        found = re.search(r'telemetry_request_seconds_count{status="503"} (\S+)', figures)
        return float(found[1]) if found else 0

    all_sent = threading.Event()
    before = turned_away()
    with ThreadPoolExecutor(12) as pool:
        sending = [pool.submit(half) for _ in range(12)]
        try:
            eventually(lambda: turned_away() == before + 4, seconds=10)
        finally:
            all_sent.set()
    answers = [each.result() for each in sending]
    assert sorted(each.status_code for each in answers) == [200] * 8 + [503] * 4
    assert all("retry-after" in each.headers for each in answers if each.status_code == 503)
    assert lake.send(many("at once", 1)).status_code == 200


def test_what_could_not_be_kept_is_told_and_sending_all_of_it_again_mends_it(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    with ReloadingReceiver(url, tmp_path, TELEMETRY_SPOOL_MAX_MB="1") as receiver:
        lake = Lake(receiver, url, add_connection(url), add_connection(url, strategy="sum"))
        git = [{"total_commits": number} for number in range(40)]
        sent: list[Any] = [
            report("again", metrics={"git_activity": each}, x="x" * 100_000) for each in git
        ]
        sent.insert(1, {})
        query(url, f"ALTER TABLE {TOOL} RENAME TO away")

        answers = [lake.send(sent, each) for each in (lake.connection, lake.summing)]

        query(url, f"ALTER TABLE away RENAME TO {TOOL}")
        kept = 0
        for answer in answers:
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            content = answer.json()
            statuses = [each["status"] for each in content["results"]]
            assert len(statuses) == 41
            assert statuses[1] == 400
            assert set(statuses) <= {200, 400, 503}
            assert content["stored"] == statuses.count(200)
            assert content["refused"] == 1
            kept += statuses.count(200)
        assert kept < 80

        for connection in (lake.connection, lake.summing):
            eventually(partial(all_kept, lake, sent, connection), seconds=20)
        rows = f"SELECT connection_id, commits FROM {TOOL} ORDER BY connection_id"
        expected = [(lake.connection, 39), (lake.summing, 39)]
        eventually(lambda: drained(receiver), seconds=20)
        assert query(url, rows) == expected
        # The raw layer has twice what was kept twice: each time it was another report.
        [(count,)] = query(url, f"SELECT COUNT(*) FROM {RAW}")
        assert count >= 80 + kept


def all_kept(lake: Lake, sent: list[Any], connection: int) -> bool:
    answer = lake.send(sent, connection)
    return answer.status_code == 200 and answer.json()["stored"] == 40


def drained(receiver: Receiver) -> bool:
    return "telemetry_spool_reports 0.0" in receiver.client.get("/metrics").text


RESULTS = {
    "all kept": ([200, 200], 200),
    "some refused": ([200, 400], 200),
    "all refused": ([400, 400], 400),
    "none": ([], 400),
    "one lost": ([200, 400, 503], 503),
    "all lost": ([503], 503),
    "too much": ([200, 413], 413),
    "too much at once": ([413], 413),
    "lost and too much": ([200, 503, 413], 503),
}


@pytest.mark.parametrize("case", RESULTS)
def test_the_answer_as_a_whole_follows_from_its_reports(case: str) -> None:
    statuses, status = RESULTS[case]

    answer = bulk_answer([Result(index, each, "") for index, each in enumerate(statuses)])

    content = json.loads(answer.body)
    assert answer.status == status
    assert content["success"] is (status == 200)
    assert len(content["results"]) == len(statuses)
    assert (b"retry-after" in dict(answer.headers)) is (status == 503)
