"""No sender's body becomes a request, and nobody gets another's answer, whatever stands before us.

Directly: what two programs could read in two ways is refused, and its connection closed. Through
nginx: while attackers try, everybody else's reports lie in their own connections.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.project.test_nginx import front_proxy
from tests.support.lines import Line
from tests.support.nginx import NAME, Ingress
from tests.support.receivers import TOKEN, Receiver, add_connection, eventually, query, report
from tests.support.servers import HOST, ServerMissing
from tests.support.sites import missing

RAW = "_raw_developer_telemetry"
ROUTE = "/plugins/developer-telemetry/{}/report"
STRANGERS_TOKEN = "token-of-a-stranger"
# More than nginx sends and the receiver reads at a time.
LARGE = 400_000


class Lake(NamedTuple):
    """A receiver with one connection for those who are honest and one for a stranger."""

    receiver: Receiver
    url: str
    honest: int
    strange: int

    def line(self) -> Line:
        return Line(self.receiver)

    def stored(self, connection: int) -> list[str]:
        rows = query(
            self.url,
            f"SELECT developer_id FROM {RAW} WHERE connection_id = {connection} ORDER BY id",
        )
        return [developer for (developer,) in rows]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("smuggling")
    url = f"sqlite:///{folder}/telemetry.db"
    with Receiver(url, folder) as receiver:
        honest, strange = add_connection(url), add_connection(url, STRANGERS_TOKEN)
        lake = Lake(receiver, url, honest, strange)
        for connection, token in ((honest, TOKEN), (strange, STRANGERS_TOKEN)):
            sent = receiver.send(report("first"), connection, token)
            assert sent.status_code == 200
        yield lake
    assert "Traceback" not in receiver.log
    assert "ERROR" not in receiver.log


def request(
    connection: int,
    developer: str,
    *headers: str,
    token: str = TOKEN,
    start: str = "POST {} HTTP/1.1",
    framing: str = "length",
    padding: int = 0,
) -> bytes:
    """All of a request that brings a report, with its body framed one way, or not at all."""
    content = json.dumps(report(developer, padding="x" * padding)).encode()
    lines = [
        start.format(ROUTE.format(connection)),
        "Host: x",
        f"Authorization: Bearer {token}",
        *headers,
    ]
    if framing == "length":
        lines.append(f"Content-Length: {len(content)}")
    elif framing == "chunks":
        lines.append("Transfer-Encoding: chunked")
        content = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
    return "\r\n".join([*lines, "", ""]).encode() + content


CHANGES = {
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ"),
    "h2c-alone": ("Upgrade: h2c",),
    "websocket": (
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
    "tls": ("Connection: upgrade", "Upgrade: TLS/1.0"),
    "unknown": ("Connection: uPGRADE", "Upgrade: anything/9, h2c"),
    "expecting": ("Expect: 100-continue", "Connection: Upgrade", "Upgrade: h2c"),
    "none": (),
}


@pytest.mark.parametrize("pieces", ["whole", "body apart", "byte by byte"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("change", CHANGES)
def test_who_asks_for_another_protocol_is_read_as_everybody_else(
    lake: Lake, change: str, framing: str, pieces: str
) -> None:
    name = f"{change} {framing} {pieces}"
    sent = request(lake.honest, name, *CHANGES[change], framing=framing)
    head, end, body = sent.partition(b"\r\n\r\n")
    with lake.line() as line:
        if pieces == "whole":
            line.send(sent)
        elif pieces == "body apart":
            line.send(head + end)
            line.send(body)
        else:
            for position in range(len(sent)):
                line.send(sent[position : position + 1])
        answer = line.answer()
        if answer.status == 100:
            answer = line.answer()
        assert answer.status == 200
        assert "upgrade" not in answer.head.lower()
        # The connection goes on, with HTTP/1.1.
        line.send(request(lake.honest, f"{name} again"))
        assert line.answer().status == 200
    assert [each for each in lake.stored(lake.honest) if each.startswith(name)] == [
        name,
        f"{name} again",
    ]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("padding", [0, LARGE])
def test_a_body_never_becomes_a_request(lake: Lake, change: str, padding: int) -> None:
    hidden = request(lake.strange, f"hidden {change} {padding}", token=STRANGERS_TOKEN)
    body = b" " * padding + hidden
    head = "\r\n".join(
        [
            f"POST {ROUTE.format(lake.honest)} HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {TOKEN}",
            f"Content-Length: {len(body)}",
            *CHANGES[change],
            "",
            "",
        ]
    ).encode()
    with lake.line() as line:
        line.send(head)
        line.send(body)
        answer = line.answer()
        if answer.status == 100:
            answer = line.answer()
        assert answer.status == 400
        assert "not JSON" in str(answer.content["message"])
        line.send(request(lake.honest, "after it"))
        assert line.answer().status == 200
    assert f"hidden {change} {padding}" not in lake.stored(lake.strange)


HEADERS = f"Host: x\r\nAuthorization: Bearer {TOKEN}\r\n"
CHUNK = '42\r\n{"developer": "ambiguous", "date": "2026-11-23", "hostname": "lap"}\r\n'
BODY = '{"developer": "ambiguous", "date": "2026-11-23", "hostname": "lap"}'
START = "POST /plugins/developer-telemetry/2/report HTTP/1.1\r\n"
LENGTH = f"Content-Length: {len(BODY)}\r\n"
CODING = "Transfer-Encoding: chunked\r\n"
CHUNKS = f"{CHUNK}0\r\n\r\n"

AMBIGUOUS = {
    "both lengths": START + HEADERS + LENGTH + CODING + "\r\n" + CHUNKS,
    "both lengths, the other way": START + HEADERS + CODING + LENGTH + "\r\n" + CHUNKS,
    "length twice": START + HEADERS + LENGTH + LENGTH + "\r\n" + BODY,
    "two lengths": START + HEADERS + LENGTH + "Content-Length: 5\r\n\r\n" + BODY,
    "lengths in one": START + HEADERS + f"Content-Length: {len(BODY)}, {len(BODY)}\r\n\r\n" + BODY,
    "signed length": START + HEADERS + f"Content-Length: +{len(BODY)}\r\n\r\n" + BODY,
    "hexadecimal length": START + HEADERS + f"Content-Length: {len(BODY):#x}\r\n\r\n" + BODY,
    "length with a space": START + HEADERS + "Content-Length: 6 6\r\n\r\n" + BODY,
    "no length": START + HEADERS + "Content-Length: \r\n\r\n" + BODY,
    "endless length": START + HEADERS + f"Content-Length: {'9' * 40}\r\n\r\n" + BODY,
    "identity": START + HEADERS + "Transfer-Encoding: identity\r\n\r\n" + CHUNKS,
    "gzip, chunked": START + HEADERS + "Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "chunked, identity": START + HEADERS + "Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKS,
    "quoted": START + HEADERS + 'Transfer-Encoding: "chunked"\r\n\r\n' + CHUNKS,
    "xchunked": START + HEADERS + "Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "chunked with a control": START + HEADERS + "Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKS,
    "coding twice": START + HEADERS + CODING + CODING + "\r\n" + CHUNKS,
    "coding in 1.0": START.replace("1.1", "1.0") + HEADERS + CODING + "\r\n" + CHUNKS,
    "space before the colon": START + HEADERS + CODING.replace(":", " :") + "\r\n" + CHUNKS,
    "tab before the colon": START + HEADERS + LENGTH.replace(":", "\t:") + "\r\n" + BODY,
    "space before the name": START + " " + HEADERS + LENGTH + "\r\n" + BODY,
    "folded": START + HEADERS + "X-Long: a\r\n b\r\n" + LENGTH + "\r\n" + BODY,
    "folded length": START + HEADERS + "Content-Length:\r\n 66\r\n\r\n" + BODY,
    "no colon": START + HEADERS + "Content-Length 66\r\n" + LENGTH + "\r\n" + BODY,
    "no name": START + HEADERS + ": x\r\n" + LENGTH + "\r\n" + BODY,
    "LF alone": (START + HEADERS + LENGTH + "\r\n").replace("\r\n", "\n") + BODY,
    "LF in the headers": START + HEADERS + "X: y\n" + LENGTH + "\r\n" + BODY,
    "LF at the end": START + HEADERS + LENGTH + "\n" + BODY,
    "CR alone": START + HEADERS + "X: y\rContent-Length: 5\r\n" + LENGTH + "\r\n" + BODY,
    "CR CR LF": START + HEADERS + LENGTH.replace("\r\n", "\r\r\n") + "\r\n" + BODY,
    "NUL": START + HEADERS + "X: \x00y\r\n" + LENGTH + "\r\n" + BODY,
    "no host": START + f"Authorization: Bearer {TOKEN}\r\n" + LENGTH + "\r\n" + BODY,
    "two hosts": START + HEADERS + "Host: y\r\n" + LENGTH + "\r\n" + BODY,
    "two tokens": START + HEADERS + "Authorization: Bearer x\r\n" + LENGTH + "\r\n" + BODY,
    "leading space": " " + START + HEADERS + LENGTH + "\r\n" + BODY,
    "two empty lines first": "\r\n\r\n" + START + HEADERS + LENGTH + "\r\n" + BODY,
    "two spaces": START.replace("POST ", "POST  ") + HEADERS + LENGTH + "\r\n" + BODY,
    "tab for a space": START.replace("POST ", "POST\t") + HEADERS + LENGTH + "\r\n" + BODY,
    "small letters": START.replace("POST", "post") + HEADERS + LENGTH + "\r\n" + BODY,
    "small http": START.replace("HTTP", "http") + HEADERS + LENGTH + "\r\n" + BODY,
    "HTTP/0.9": "GET /health/live\r\n",
    "HTTP/0.9 with a body": START.replace(" HTTP/1.1", "") + HEADERS + LENGTH + "\r\n" + BODY,
    "HTTP/1.2": START.replace("1.1", "1.2") + HEADERS + LENGTH + "\r\n" + BODY,
    "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": "CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n",
    "CONNECT to a path": START.replace("POST", "CONNECT") + HEADERS + LENGTH + "\r\n" + BODY,
    "absolute": START.replace(" /", " http://x/") + HEADERS + LENGTH + "\r\n" + BODY,
    "asterisk": "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "no slash": START.replace(" /", " ") + HEADERS + LENGTH + "\r\n" + BODY,
    "control in the path": START.replace("report", "report\x01") + HEADERS + LENGTH + "\r\n" + BODY,
    "fragment": START.replace("report", "report#x") + HEADERS + LENGTH + "\r\n" + BODY,
    "too many headers": START + HEADERS + "X: y\r\n" * 200 + LENGTH + "\r\n" + BODY,
    "LF behind a size": START + HEADERS + CODING + "\r\n" + CHUNKS.replace("42\r\n", "42\n"),
    "LF behind a chunk": START + HEADERS + CODING + "\r\n" + CHUNKS.replace("}\r\n", "}\n"),
    "nothing behind a chunk": START + HEADERS + CODING + "\r\n" + CHUNKS.replace("}\r\n", "}"),
    "LF at the end of chunks": START + HEADERS + CODING + "\r\n" + CHUNK + "0\n\n",
    "LF in an extension": START + HEADERS + CODING + "\r\n" + CHUNKS.replace("42", "42;x\nf"),
    "space behind a size": START + HEADERS + CODING + "\r\n" + CHUNKS.replace("42", "42 "),
    "size with 0x": START + HEADERS + CODING + "\r\n" + CHUNKS.replace("42", "0x42"),
    "size with a sign": START + HEADERS + CODING + "\r\n" + CHUNKS.replace("42", "+42"),
    "size with a line": START + HEADERS + CODING + "\r\n" + CHUNKS.replace("42", "4_2"),
    "endless size": START + HEADERS + CODING + "\r\n" + CHUNKS.replace("42", "f" * 17),
    "no size": START + HEADERS + CODING + "\r\n" + CHUNKS.replace("42", ""),
    "chunk too long": START + HEADERS + CODING + "\r\n" + CHUNKS.replace("42", "2"),
    "folded trailer": START + HEADERS + CODING + "\r\n" + CHUNK + "0\r\nX: y\r\n z\r\n\r\n",
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_could_be_read_in_two_ways_is_refused_and_closed(lake: Lake, case: str) -> None:
    with lake.line() as line:
        line.send(AMBIGUOUS[case].encode("latin-1"))
        answer = line.answer()
        assert answer.status == 400, case
        assert answer.content["success"] is False
        assert "connection: close" in answer.head
        with suppress(OSError):
            line.send(request(lake.honest, "ambiguous behind it"))
        assert line.ended_within(5)
    assert not [each for each in lake.stored(lake.honest) if each.startswith("ambiguous")]


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_a_good_report_before_it_in_one_packet_is_answered(lake: Lake, case: str) -> None:
    good = request(lake.honest, f"before {case}")
    with lake.line() as line:
        line.send(good + AMBIGUOUS[case].encode("latin-1"))
        assert line.answer().status == 200
        # Two answers that a proxy did not ask for could become those of two others.
        line.ended_within(5)
    assert f"before {case}" in lake.stored(lake.honest)
    assert "ambiguous" not in lake.stored(lake.honest)


def test_who_is_refused_before_being_told_to_go_on_can_hide_nothing_behind(lake: Lake) -> None:
    head = request(lake.honest, "", "Expect: 100-continue", token="wrong").partition(b"{")[0]
    with lake.line() as line:
        line.send(head)
        answer = line.answer()
        assert (answer.status, "connection: close" in answer.head) == (401, True)
        with suppress(OSError):
            line.send(request(lake.honest, "in place of a body"))
        assert line.ended_within(5)
    assert "in place of a body" not in lake.stored(lake.honest)


def test_chunks_are_read_wherever_they_are_split(lake: Lake) -> None:
    content = json.dumps(report("in chunks")).encode()
    chunks = b"".join(b"%x;a=b\r\n%c\r\n" % (1, byte) for byte in content)
    sent = (
        request(lake.honest, "", "Transfer-Encoding: chunked", framing="").partition(b"{")[0]
        + chunks
        + b"000\r\nX-Trailer: y\r\n\r\n"
    )
    for size in (1, 7, len(sent)):
        with lake.line() as line:
            for start in range(0, len(sent), size):
                line.send(sent[start : start + size])
            assert line.answer().status == 200


# Through nginx


class Front(NamedTuple):
    """A proxy before the receiver, and what its paths begin with."""

    address: tuple[str, int]
    prefix: str


@pytest.fixture(scope="module", params=["own", "ingress", "ingress, unbuffered"])
def front(
    request: pytest.FixtureRequest, lake: Lake, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    with ExitStack() as stack:
        if request.param == "own":
            site = stack.enter_context(front_proxy(folder, lake.receiver.port))
            site.names.addresses[NAME] = HOST
            yield Front((HOST, site.proxy.port), "/api")
            return
        try:
            proxy = Ingress(lake.receiver.port, buffering=request.param == "ingress")
        except ServerMissing as error:
            missing(str(error))
        stack.enter_context(proxy)
        yield Front((HOST, proxy.port), "")


def attack(front: Front, sent: bytes) -> None:
    """Send something and look at no answer but the first bytes."""
    with socket.create_connection(front.address, 10) as attacker, suppress(OSError):
        attacker.settimeout(3)
        head, end, body = sent.partition(b"\r\n\r\n")
        attacker.sendall(head + end)
        attacker.sendall(body)
        attacker.recv(1)


def attacks(lake: Lake, prefix: str) -> Iterator[bytes]:
    """Requests whose body wants to be a request, in every way to say how long it is."""
    route = prefix + ROUTE.format(lake.strange)
    swallowing = (
        f"POST {route} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {STRANGERS_TOKEN}\r\n"
        "Content-Length: 3000\r\n\r\n"
    ).replace(prefix + "/plugins", "/plugins")
    asking = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    for change in CHANGES.values():
        for hidden in (swallowing, asking * 3):
            for padding in (0, LARGE):
                # Empty lines, which many a parser skips wherever it begins to read.
                body = ("\r\n" * (padding // 2) + hidden).encode()
                # A wrong token is looked up first, so that the body is all there by then.
                wrong = "Authorization: Bearer wrong"
                lines = [f"POST {route} HTTP/1.1", "Host: x", wrong, *change]
                length = f"Content-Length: {len(body)}"
                yield "\r\n".join([*lines, length, "", ""]).encode() + body
                coding = "Transfer-Encoding: chunked"
                chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
                yield "\r\n".join([*lines, coding, "", ""]).encode() + chunks
    for case in AMBIGUOUS.values():
        yield case.replace(START.split()[1], route).encode("latin-1") + asking.encode()


class Honest(threading.Thread):
    """Sends reports until it is told to end, and remembers each that was stored."""

    def __init__(self, front: Front, connection: int, name: str) -> None:
        super().__init__(daemon=True)
        self.front = front
        self.path = front.prefix + ROUTE.format(connection)
        self.name = name
        self.stored: list[str] = []
        self.wrong: list[str] = []
        self.ended = threading.Event()

    def run(self) -> None:
        host, port = self.front.address
        headers = {"Authorization": f"Bearer {TOKEN}"}
        address = f"http://{host}:{port}"
        with httpx.Client(base_url=address, timeout=30, trust_env=False, verify=False) as client:
            while not self.ended.is_set():
                developer = f"{self.name} {len(self.stored)}"
                answer = client.post(self.path, json=report(developer), headers=headers)
                if answer.status_code == 200 and answer.json()["message"] == "report stored":
                    self.stored.append(developer)
                else:
                    self.wrong.append(f"{answer.status_code} {answer.text}")


def test_everybodys_reports_lie_in_their_own_connection_while_strangers_try(
    lake: Lake, front: Front
) -> None:
    before = lake.stored(lake.strange)
    honest = [
        Honest(front, lake.honest, f"honest {front.address[1]} {number}") for number in range(3)
    ]
    for each in honest:
        each.start()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(partial(attack, front), attacks(lake, front.prefix)))
    for each in honest:
        each.ended.set()
    for each in honest:
        each.join(30)

    assert [wrong for each in honest for wrong in each.wrong] == []
    kept = set(lake.stored(lake.honest))
    expected = {developer for each in honest for developer in each.stored}
    assert len(expected) > 20
    assert expected <= kept
    assert lake.stored(lake.strange) == before


# Clients as they are

JAVA = """\
import java.net.URI;
import java.net.http.*;

class Send {
    public static void main(String[] given) throws Exception {
        var client = HttpClient.newHttpClient();
        for (int count = 0; count < 2; count++) {
            var request = HttpRequest.newBuilder(URI.create(given[0]))
                .header("Authorization", "Bearer " + given[1])
                .POST(HttpRequest.BodyPublishers.ofString(given[2])).build();
            var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode());
        }
    }
}
"""


def test_javas_own_client_which_asks_for_http_2_just_works(lake: Lake, tmp_path: Path) -> None:
    source = tmp_path / "Send.java"
    source.write_text(JAVA)
    url = lake.receiver.url + ROUTE.format(lake.honest)
    body = json.dumps(report("Java"))
    try:
        done = subprocess.run(
            ["java", "-XX:TieredStopAtLevel=1", str(source), url, TOKEN, body],
            capture_output=True,
            text=True,
            timeout=60,
        )
    except FileNotFoundError:
        pytest.skip("there is no Java here")
    assert done.stdout.split() == ["200", "200"], done.stderr
    assert lake.stored(lake.honest).count("Java") == 2


@pytest.mark.parametrize("version", ["--http2", "--http1.1", "--http1.0"])
def test_curl_works_with_whatever_version_it_asks_for(
    lake: Lake, tmp_path: Path, version: str
) -> None:
    url = lake.receiver.url + ROUTE.format(lake.honest)
    command = ["curl", "-sS", version, "--json", "@-", "-H", f"Authorization: Bearer {TOKEN}"]
    try:
        done = subprocess.run(
            [*command, "-w", " %{http_code}", "--noproxy", "*", url],
            input=json.dumps(report(f"curl {version}", padding="x" * 3000)),
            capture_output=True,
            text=True,
            timeout=30,
        )
    except FileNotFoundError:
        pytest.skip("there is no curl here")
    assert done.stdout.endswith(" 200"), done.stdout + done.stderr
    eventually(lambda: f"curl {version}" in lake.stored(lake.honest), 10)
