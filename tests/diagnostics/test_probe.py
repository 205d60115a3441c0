"""`GET` of a report URL: who gets the receiver's state, and what everybody else gets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.connections.crypto import encrypt
from developer_telemetry.constants import PROBE_TABLE
from developer_telemetry.database.engine import open_engine
from developer_telemetry.diagnostics.probe import (
    HEADER,
    ProbeRequest,
    ReceiverState,
    has_nonce,
    new_nonce,
    parse_nonce,
    stored_nonce,
)
from tests.support.receivers import (
    SECRET,
    TOKEN,
    Receiver,
    ReloadingReceiver,
    add_connection,
    eventually,
    query,
    report,
)

PATHS = [
    f"{prefix}{path}"
    for prefix in ("", "/api")
    for path in (
        "/plugins/developer-telemetry/{}/report",
        "/plugins/developer_telemetry/connections/{}/report",
        "/rest/plugins/developer_telemetry/connections/{}/report",
        "/plugins/developer-telemetry/{}/reports",
    )
]


class Place:
    """A receiver, its database, and a connection."""

    def __init__(self, receiver: Receiver, url: str) -> None:
        self.receiver = receiver
        self.url = url
        self.connection = add_connection(url)

    def ask(
        self, path: str = PATHS[0], to: int = 0, token: str = TOKEN, query: str = ""
    ) -> httpx.Response:
        headers = ProbeRequest(token, "").headers
        address = path.format(to or self.connection)
        return self.receiver.client.get(f"{address}{query}", headers=headers)

    def state(self, nonce: str = "") -> ReceiverState:
        question = ProbeRequest(TOKEN, nonce or new_nonce())
        answer = self.receiver.client.get(
            PATHS[0].format(self.connection), headers=question.headers, params=question.query
        )
        assert answer.status_code == 200, answer.text
        state = question.read(answer.json())
        assert state is not None
        return state


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("probe")
    url = f"sqlite:///{folder}/telemetry.db"
    with ReloadingReceiver(url, folder) as receiver:
        yield Place(receiver, url)
    assert "Traceback" not in receiver.log


@pytest.fixture
def engine_here(place: Place) -> Iterator[Engine]:
    engine = open_engine(place.url)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("path", PATHS)
def test_the_token_shows_the_state_at_each_report_path(place: Place, path: str) -> None:
    nonce = new_nonce()

    answer = place.ask(path, query=f"?nonce={nonce}")

    assert answer.status_code == 200
    assert answer.headers[HEADER] == "answered"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["success"] is True
    state = ProbeRequest(TOKEN, nonce).read(answer.json())
    assert state is not None
    assert abs(state.clock_us / 1e6 - time.time()) < 5
    assert (state.problem, state.outage, state.waiting, state.set_aside) == ("", "", 0, 0)
    assert state.spool_max_bytes == 512 << 20
    assert state.disk_free_bytes > 0
    assert TOKEN not in answer.text


def test_an_answer_to_an_earlier_question_is_none(place: Place) -> None:
    question = ProbeRequest(TOKEN, new_nonce())
    content = place.ask(query=f"?nonce={question.nonce}").json()

    assert question.read(content) is not None
    assert question._replace(nonce=new_nonce()).read(content) is None
    assert question.read({**content, "receiver": {}}) is None
    assert question.read({}) is None


@pytest.mark.parametrize(
    "query",
    ["", "?", "?nonce=", f"?nonce={'0' * 31}", f"?nonce={'G' * 32}", f"?announce={'0' * 32}"],
)
def test_without_a_nonce_no_databases_are_compared(place: Place, query: str) -> None:
    content = place.ask(query=query).json()

    assert parse_nonce(query[1:].encode()) == ""
    assert content["nonce"] == ""
    assert content["receiver"]["same_database"] is None


def test_a_nonce_may_have_company_in_the_query(place: Place) -> None:
    content = place.ask(query=f"?a=b&nonce={'0' * 32}&c=d").json()

    assert content["nonce"] == "0" * 32
    assert content["receiver"]["same_database"] is False


@pytest.mark.parametrize("method", ["HEAD", "PUT", "PATCH", "DELETE"])
def test_other_methods_are_not_allowed(place: Place, method: str) -> None:
    path = PATHS[0].format(place.connection)

    answer = place.receiver.client.request(method, path, headers=ProbeRequest(TOKEN, "").headers)

    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, POST"
    assert answer.headers["Cache-Control"] == "no-store"
    assert HEADER not in answer.headers


def test_a_report_with_a_query_is_stored_like_any_other(place: Place) -> None:
    path = PATHS[0].format(place.connection)

    sent = place.receiver.client.post(
        f"{path}?nonce={new_nonce()}", headers=ProbeRequest(TOKEN, "").headers, json=report("asker")
    )

    assert sent.json() == {"success": True, "message": "report stored"}


STRANGERS = {
    "nothing": ({}, "token is missing; send `Authorization: Bearer TOKEN`"),
    "a guess": ({"Authorization": "Bearer guess"}, "the token is not this connection's"),
    "basic auth": ({"Authorization": "Basic Og=="}, "the token is not this connection's"),
    "an empty token": ({"Authorization": "Bearer"}, "the token is not this connection's"),
}


@pytest.mark.parametrize("kind", STRANGERS)
@pytest.mark.parametrize("path", PATHS)
def test_a_stranger_learns_nothing_not_even_which_connections_are_open(
    place: Place, path: str, kind: str
) -> None:
    headers, message = STRANGERS[kind]
    is_open = add_connection(place.url, token=None)

    answers = [
        place.receiver.client.get(path.format(number), headers=headers)
        for number in (place.connection, is_open)
    ]

    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers[HEADER] == "refused"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json() == {"success": False, "message": message}
    with_token, without = (dict(answer.headers) for answer in answers)
    assert {**with_token, "date": ""} == {**without, "date": ""}


def test_strangers_are_not_counted_as_refusals(place: Place) -> None:
    number = add_connection(place.url)

    assert place.ask(to=number, token="a guess").status_code == 401

    figures = place.receiver.client.get("/metrics").text
    assert f'telemetry_refusals_total{{connection="{number}"' not in figures


def test_the_token_of_one_connection_is_none_for_another(place: Place) -> None:
    other = add_connection(place.url, token="another")

    assert place.ask(to=other).status_code == 401


@pytest.mark.parametrize("number", ["987654", "x", "-1"])
def test_an_unknown_connection_is_reported(place: Place, number: str) -> None:
    answer = place.receiver.client.get(
        PATHS[0].format(number), headers=ProbeRequest(TOKEN, "").headers
    )

    assert answer.status_code == 404
    assert answer.headers[HEADER] == "refused"
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_token_that_can_not_be_decrypted_is_reported(place: Place) -> None:
    number = add_connection(place.url)
    secret = encrypt(TOKEN, "another secret")
    query(
        place.url,
        "UPDATE _tool_developer_telemetry_connections"
        f" SET secret_token = '{secret}' WHERE id = {number}",
    )

    answer = place.ask(to=number)

    assert answer.status_code == 503
    assert "ENCRYPTION_SECRET is not DevLake's" in answer.json()["message"]


def test_the_previous_token_counts_while_it_is_valid(place: Place) -> None:
    number = add_connection(place.url, token="new")
    rotating = (
        "UPDATE _tool_developer_telemetry_connections SET"
        f" previous_secret_token = '{encrypt('old', SECRET)}', previous_token_until = "
    )

    query(place.url, f"{rotating} {int(time.time()) + 600} WHERE id = {number}")
    eventually(lambda: place.ask(to=number, token="old").status_code == 200, seconds=10)
    assert place.ask(to=number, token="new").status_code == 200

    query(place.url, f"{rotating} 1 WHERE id = {number}")
    eventually(lambda: place.ask(to=number, token="old").status_code == 401, seconds=10)


def test_the_same_database_is_known_by_what_was_left_there(
    place: Place, engine_here: Engine
) -> None:
    nonce = new_nonce()

    with stored_nonce(engine_here, nonce):
        assert place.state(nonce).same_database is True
        assert place.state().same_database is False

    assert place.state(nonce).same_database is False


def test_a_database_that_can_not_be_asked_is_neither(place: Place) -> None:
    query(place.url, f"ALTER TABLE {PROBE_TABLE} RENAME TO moved_away")
    try:
        assert place.state().same_database is None
    finally:
        query(place.url, f"ALTER TABLE moved_away RENAME TO {PROBE_TABLE}")


def test_what_waits_while_the_database_is_away_is_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    with Receiver(url, tmp_path) as receiver:
        place = Place(receiver, url)
        query(url, "ALTER TABLE _tool_developer_metrics RENAME TO moved_away")
        assert receiver.send(report("ann"), place.connection).status_code == 200

        state = place.state()
        assert state.waiting == 1
        assert "_tool_developer_metrics" in state.outage
        assert state.problem == ""
        assert 0 <= state.oldest_seconds < 30

        query(url, "ALTER TABLE moved_away RENAME TO _tool_developer_metrics")
        eventually(lambda: (place.state().waiting, place.state().outage) == (0, ""), seconds=15)


def test_what_is_left_goes_again_and_takes_along_what_was_forgotten(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO {PROBE_TABLE} (nonce, left_us) VALUES ('forgotten', 1)"
        )

    with stored_nonce(engine, "mine"), stored_nonce(engine, "theirs"):
        assert has_nonce(engine, "mine")
        assert has_nonce(engine, "theirs")
        assert not has_nonce(engine, "Mine")

    with engine.connect() as connection:
        assert connection.exec_driver_sql(f"SELECT COUNT(*) FROM {PROBE_TABLE}").scalar() == 0
