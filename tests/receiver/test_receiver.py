"""Test what a collector meets: routes, bodies, refusals. Over a socket, on the embedded
database."""

from __future__ import annotations

import gzip
import http.client
import json
import zlib
from collections.abc import Iterator
from typing import Any, Callable, Optional

import httpx
import pytest

from tests.support.receivers import DAY, TOKEN, Receiver, add_connection, query, report

ROUTES = [
    prefix + path
    for prefix in ("", "/api")
    for path in (
        "/plugins/developer-telemetry/{}/report",
        "/plugins/developer_telemetry/connections/{}/report",
        "/rest/plugins/developer_telemetry/connections/{}/report",
    )
]
ACTIVITY = {
    "git_activity": {"total_commits": 2, "repositories": [{"name": "billing", "commits": 2}]},
    "development_activity": {"test_runs_detected": 1, "build_commands_detected": 3},
}
SHAPES: dict[str, dict[str, Any]] = {
    "specification": {"metrics": {"active_hours": 5, "commands": {"git": 4}, "projects": ["shop"]}},
    "script": {"metrics": {"active_hours": 5, "tools_used": ["git"], **ACTIVITY}},
    "flat": {"active_hours": 5, "project_context": [{"name": "shop"}], **ACTIVITY},
}
MEBIBYTE = 1 << 20
FIRST_ROUTE = ROUTES[0].format(1)


class Lake:
    """The receiver that these tests share, its database, and a connection that takes `TOKEN`."""

    def __init__(self, receiver: Receiver, url: str, connection: int) -> None:
        self.receiver = receiver
        self.url = url
        self.connection = connection

    def send(self, body: Any, **options: Any) -> httpx.Response:
        return self.receiver.send(body, self.connection, **options)

    def payloads(self, developer: str) -> list[str]:
        return [
            payload
            for (payload,) in query(
                self.url,
                f"SELECT payload FROM raw_developer_telemetry WHERE id IN (SELECT id FROM"
                f" _raw_developer_telemetry WHERE developer_id = '{developer}') ORDER BY id",
            )
        ]

    def reports(self) -> int:
        [(count,)] = query(self.url, "SELECT COUNT(*) FROM _raw_developer_telemetry")
        assert isinstance(count, int)
        return count


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("receiver")
    url = f"sqlite:///{folder}/telemetry.db"
    with Receiver(url, folder) as receiver:
        yield Lake(receiver, url, add_connection(url))
    # Whatever senders sent, it was no error of the receiver's.
    assert "ERROR" not in receiver.log
    assert "Traceback" not in receiver.log


@pytest.fixture
def developer(request: pytest.FixtureRequest) -> str:
    """One that no other test uses."""
    name: str = request.node.name
    return name[:200].encode("ascii", "replace").decode().replace("'", "")


def assert_refused(answer: httpx.Response, status: int, message: str = "") -> dict[str, Any]:
    """That it has DevLake's shape and nothing that a collector might follow."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert "location" not in answer.headers
    content: dict[str, Any] = answer.json()
    assert content["success"] is False
    assert message in content["message"]
    return content


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("route", ROUTES)
def test_each_route_takes_each_shape(lake: Lake, developer: str, route: str, shape: str) -> None:
    body = report(developer, **SHAPES[shape])
    if shape == "flat":
        body["developer_id"] = body.pop("developer")

    answer = lake.send(body, path=route)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"success": True, "message": "report stored"}
    assert [json.loads(payload) for payload in lake.payloads(developer)] == [body]
    hours = f"SELECT active_hours FROM _tool_developer_metrics WHERE developer_id = '{developer}'"
    assert query(lake.url, hours) == [(5,)]


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/json; charset=latin-1",
        "multipart/form-data; boundary=x",
        "nonsense",
    ],
)
def test_any_content_type_is_read_as_json(
    lake: Lake, developer: str, content_type: Optional[str]
) -> None:
    headers = {} if content_type is None else {"content_type": content_type}

    answer = lake.send(json.dumps(report(developer)).encode(), **headers)

    assert answer.status_code == 200
    assert len(lake.payloads(developer)) == 1


def test_the_body_is_kept_to_the_letter(lake: Lake, developer: str) -> None:
    text = (
        f'{{ "date":"{DAY}",\r\n\t"developer": "{developer}" ,'
        ' "name":"Jos\\u00e9 é 漢 🔑","x":1.0}\n'
    )

    assert lake.send(text.encode()).status_code == 200

    assert lake.payloads(developer) == [text]


def bare_deflate(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


COMPRESSIONS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip in capitals": ("GZIP", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "deflate with zlib's header": ("deflate", zlib.compress),
    "bare deflate": ("deflate", bare_deflate),
    "none": ("identity", bytes),
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressed_bodies_are_read(lake: Lake, developer: str, compression: str) -> None:
    encoding, compress = COMPRESSIONS[compression]
    text = json.dumps(report(developer, filler="x" * 10_000))

    answer = lake.send(compress(text.encode()), content_encoding=encoding)

    assert answer.status_code == 200
    assert lake.payloads(developer) == [text]


def test_a_gzip_body_of_several_members_is_read(lake: Lake, developer: str) -> None:
    text = json.dumps(report(developer))
    body = gzip.compress(text[:20].encode()) + gzip.compress(text[20:].encode())

    assert lake.send(body, content_encoding="gzip").status_code == 200

    assert lake.payloads(developer) == [text]


@pytest.mark.parametrize("compression", ["gzip", "deflate with zlib's header", "bare deflate"])
@pytest.mark.parametrize("sent", [0.02, 0.5, 0.99])
def test_a_truncated_body_is_refused(
    lake: Lake, developer: str, compression: str, sent: float
) -> None:
    encoding, compress = COMPRESSIONS[compression]
    whole = compress(json.dumps(report(developer)).encode())

    answer = lake.send(whole[: int(len(whole) * sent) or 1], content_encoding=encoding)

    [fault] = assert_refused(answer, 400, "ends too early")["errors"]
    assert fault["field"] == "body"
    assert lake.payloads(developer) == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("body", [b'{"developer": "ann"}', b"\x1f\x8b\xff\xff\xff", b"\xff" * 99])
def test_a_body_that_is_not_compressed_as_it_says_is_refused(
    lake: Lake, encoding: str, body: bytes
) -> None:
    answer = lake.send(body, content_encoding=encoding)

    [fault] = assert_refused(answer, 400)["errors"]
    assert fault["field"] == "body"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "utf-8", "gzip2"])
def test_an_unknown_encoding_is_refused(lake: Lake, developer: str, encoding: str) -> None:
    answer = lake.send(report(developer), content_encoding=encoding)

    assert_refused(answer, 415, "send gzip, deflate or plain JSON")
    assert lake.payloads(developer) == []


def test_a_chunked_body_is_read(lake: Lake, developer: str) -> None:
    text = json.dumps(report(developer))

    answer = lake.receiver.client.post(
        ROUTES[0].format(lake.connection),
        content=(text[at : at + 7].encode() for at in range(0, len(text), 7)),
        headers={"authorization": f"Bearer {TOKEN}"},
    )

    assert "content-length" not in answer.request.headers
    assert answer.status_code == 200
    assert lake.payloads(developer) == [text]


def test_a_sender_that_asks_first_is_told_to_go_on(lake: Lake, developer: str) -> None:
    body = json.dumps(report(developer)).encode()
    connection = http.client.HTTPConnection("127.0.0.1", lake.receiver.port, timeout=30)
    connection.putrequest("POST", ROUTES[0].format(lake.connection))
    connection.putheader("Authorization", f"Bearer {TOKEN}")
    connection.putheader("Expect", "100-continue")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()

    assert connection.sock.recv(1000).startswith(b"HTTP/1.1 100 ")
    connection.send(body)
    assert connection.getresponse().status == 200
    connection.close()


def padded(developer: str, size: int) -> bytes:
    """A report of exactly `size` bytes."""
    empty = json.dumps(report(developer, filler="")).encode()
    return json.dumps(report(developer, filler="x" * (size - len(empty)))).encode()


def test_a_body_of_a_mebibyte_is_taken_and_one_byte_more_is_not(lake: Lake, developer: str) -> None:
    assert lake.send(padded(developer, MEBIBYTE)).status_code == 200

    answer = lake.send(padded(developer, MEBIBYTE + 1))

    assert_refused(answer, 413, "send less")
    assert len(lake.payloads(developer)) == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_far_too_large_is_answered_all_the_same(lake: Lake, chunked: bool) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * MEBIBYTE

    answer = lake.receiver.client.post(
        ROUTES[0].format(lake.connection),
        content=chunks() if chunked else b" " * (20 * MEBIBYTE),
        headers={"authorization": f"Bearer {TOKEN}"},
    )

    assert_refused(answer, 413)


@pytest.mark.parametrize("compression", ["gzip", "deflate with zlib's header", "bare deflate"])
def test_the_limit_after_decompression_is_four_mebibytes(
    lake: Lake, developer: str, compression: str
) -> None:
    encoding, compress = COMPRESSIONS[compression]

    def send(size: int) -> httpx.Response:
        return lake.send(compress(padded(developer, size)), content_encoding=encoding)

    assert send(4 * MEBIBYTE).status_code == 200
    assert_refused(send(4 * MEBIBYTE + 1), 413, "send less")
    assert len(lake.payloads(developer)) == 1


def test_a_decompression_bomb_is_refused(lake: Lake) -> None:
    bomb = gzip.compress(b" " * (300 * MEBIBYTE), compresslevel=9)
    many = gzip.compress(b" " * MEBIBYTE) * 100

    assert_refused(lake.send(bomb, content_encoding="gzip"), 413)
    assert_refused(lake.send(many, content_encoding="gzip"), 413)


REFUSED = {
    "nothing": (b"", "body"),
    "not JSON": (b"developer=ann&date=2026-11-23", "body"),
    "half an object": (b'{"developer": "ann", "date"', "body"),
    "two objects": (b'{"developer": "a", "date": "2026-11-23"} {}', "body"),
    "not UTF-8": (b'{"developer": "ann\xff", "date": "2026-11-23"}', "body"),
    "a list": (b'[{"developer": "ann", "date": "2026-11-23"}]', "body"),
    "null": (b"null", "body"),
    "a text": (b'"ann"', "body"),
    "NaN": (b'{"developer": "ann", "date": "2026-11-23", "active_hours": NaN}', "body"),
    "no developer": (b'{"date": "2026-11-23"}', "developer"),
    "blank developer": (b'{"developer": "  ", "date": "2026-11-23"}', "developer"),
    "null developer": (b'{"developer": null, "date": "2026-11-23"}', "developer"),
    "developer too long": (
        b'{"developer": "%s", "date": "2026-11-23"}' % (b"d" * 256),
        "developer",
    ),
    "developer_id too long": (
        b'{"developer_id": "%s", "date": "2026-11-23"}' % (b"d" * 256),
        "developer_id",
    ),
    "no date": (b'{"developer": "ann"}', "date"),
    "null date": (b'{"developer": "ann", "date": null}', "date"),
    "date as a number": (b'{"developer": "ann", "date": 20261123}', "date"),
    "date of another style": (b'{"developer": "ann", "date": "23.11.2026"}', "date"),
    "no such day": (b'{"developer": "ann", "date": "2026-02-30"}', "date"),
    "NUL": (b'{"developer": "a\\u0000b", "date": "2026-11-23"}', "body"),
    "NUL elsewhere": (b'{"developer": "ann", "date": "2026-11-23", "x": ["\\u0000"]}', "body"),
    "lone surrogate": (b'{"developer": "ann", "date": "2026-11-23", "\\ud800": 1}', "body"),
    "deep nesting": (
        b'{"developer": "ann", "date": "2026-11-23", "x": %s1%s}' % (b"[" * 999, b"]" * 999),
        "body",
    ),
    "abysmal nesting": (b"[" * 500_000, "body"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_body_that_can_not_be_kept_is_refused_by_the_fields_name(lake: Lake, case: str) -> None:
    body, field = REFUSED[case]
    before = lake.reports()

    content = assert_refused(lake.send(body), 400)

    [fault] = content["errors"]
    assert fault["field"] == field
    assert content["message"] == f"{field}: {fault['message']}"
    assert "\n" not in content["message"]
    assert lake.reports() == before


@pytest.mark.parametrize("connection", ["999999", "0", "-1", "1.0", "one", "%C2%B2", "9" * 30])
def test_an_unknown_connection_is_not_found(lake: Lake, connection: str) -> None:
    answer = lake.send(report("ann"), path=ROUTES[0].replace("{}", connection))

    assert_refused(answer, 404, "no such connection")


@pytest.mark.parametrize(
    "path",
    [
        FIRST_ROUTE + "/",
        "/" + FIRST_ROUTE,
        FIRST_ROUTE.replace("/report", "//report"),
        "/api/" + FIRST_ROUTE,
        "/api/api" + FIRST_ROUTE,
        FIRST_ROUTE.replace("report", "reporting"),
        "/plugins/developer-telemetry/report",
        "/plugins/developer_telemetry/connections",
        "/nowhere",
        "/health",
        "/health/ready/",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_path_is_not_found_and_never_a_redirect(lake: Lake, method: str, path: str) -> None:
    # httpx would tidy a path of two slashes up.
    connection = http.client.HTTPConnection("127.0.0.1", lake.receiver.port, timeout=30)
    connection.request(method, path, body=b"{}" if method == "POST" else None)
    answer = connection.getresponse()

    assert answer.status == 404
    assert answer.getheader("content-type") == "application/json"
    assert answer.getheader("location") is None
    assert json.loads(answer.read())["success"] is False
    connection.close()


@pytest.mark.parametrize("method", ["HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("route", ROUTES)
def test_only_get_and_post_are_allowed(lake: Lake, method: str, route: str) -> None:
    answer = lake.receiver.client.request(method, route.format(lake.connection))

    if method == "HEAD":
        assert (answer.status_code, answer.content) == (405, b"")
    else:
        assert_refused(answer, 405, "send a report with POST")
    assert answer.headers["allow"] == "GET, POST"


def test_a_query_is_passed_over(lake: Lake, developer: str) -> None:
    assert lake.send(report(developer), path=ROUTES[0] + "?try=1").status_code == 200


@pytest.mark.parametrize(("path", "message"), [("live", "alive"), ("ready", "ready")])
def test_health_is_answered_in_the_same_shape(lake: Lake, path: str, message: str) -> None:
    answer = lake.receiver.client.get(f"/health/{path}")

    assert answer.status_code == 200
    assert answer.json() == {"success": True, "message": message}
    assert_refused(lake.receiver.client.post(f"/health/{path}"), 405)


def test_a_sender_that_goes_away_in_the_middle_leaves_nothing(lake: Lake, developer: str) -> None:
    body = json.dumps(report(developer)).encode()
    connection = http.client.HTTPConnection("127.0.0.1", lake.receiver.port, timeout=30)
    connection.putrequest("POST", ROUTES[0].format(lake.connection))
    connection.putheader("Authorization", f"Bearer {TOKEN}")
    connection.putheader("Content-Length", str(len(body) + 1))
    connection.endheaders(body)
    connection.close()

    # The same report again, whole: when it is stored, the half one would be, too.
    assert lake.send(body).status_code == 200
    assert len(lake.payloads(developer)) == 1
