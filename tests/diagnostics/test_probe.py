"""A look at the receiver through its report URLs: who gets an answer, and what it says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import httpx
import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.connections.crypto import encrypt
from developer_telemetry.constants import PROBE_TABLE
from developer_telemetry.database.engine import open_engine
from developer_telemetry.diagnostics.probe import (
    HEADER,
    Question,
    State,
    left_behind,
    new_nonce,
    read_header,
    was_left,
)
from tests.support.receivers import (
    SECRET,
    TOKEN,
    Impatient,
    Receiver,
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
STATE = State("a", "1", 1, 0, None, "", "", 0, 0.0, 0, False, 1, 2, 3, 0)


class Place:
    """A receiver, its database, and a connection."""

    def __init__(self, receiver: Receiver, url: str) -> None:
        self.receiver = receiver
        self.url = url
        self.connection = add_connection(url)

    def ask(
        self, question: Question, path: str = PATHS[0], to: Optional[int] = None
    ) -> httpx.Response:
        address = path.format(to or question.connection_id)
        return self.receiver.client.get(address, headers=question.headers)

    def question(self, token: str = TOKEN, nonce: str = "") -> Question:
        return Question(self.connection, token, nonce or new_nonce())

    def state(self, nonce: str = "") -> State:
        question = self.question(nonce=nonce)
        answer = self.ask(question)
        assert answer.status_code == 200, answer.text
        state = question.open(answer.json()["sealed"])
        assert state is not None
        return state


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("probe")
    url = f"sqlite:///{folder}/telemetry.db"
    with Impatient(url, folder) as receiver:
        yield Place(receiver, url)
    assert "Traceback" not in receiver.log


@pytest.fixture
def engine_here(place: Place) -> Iterator[Engine]:
    engine = open_engine(place.url)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("path", PATHS)
def test_whoever_knows_the_token_learns_the_state_at_each_report_path(
    place: Place, path: str
) -> None:
    question = place.question()

    answer = place.ask(question, path)

    assert answer.status_code == 200
    assert answer.headers[HEADER] == "answered"
    state = question.open(answer.json()["sealed"])
    assert state is not None
    assert abs(state.clock_us / 1e6 - time.time()) < 5
    assert (state.problem, state.outage, state.waiting, state.set_aside) == ("", "", 0, 0)
    assert state.spool_max_bytes == 512 << 20
    assert state.disk_free_bytes > 0
    assert TOKEN not in answer.text


def test_nobody_else_can_read_the_answer(place: Place) -> None:
    question = place.question()
    sealed = place.ask(question).json()["sealed"]

    assert question._replace(token="another").open(sealed) is None
    assert question._replace(nonce=new_nonce()).open(sealed) is None
    assert question.open("AAAA" + sealed[4:]) is None
    assert question.open(sealed[:20]) is None
    assert question.open("no base64!") is None
    assert question.open(sealed) is not None


def test_an_answer_that_was_changed_is_none() -> None:
    question = Question(1, TOKEN, new_nonce())

    assert question.open(question.seal(STATE)) == STATE
    assert question.seal(STATE) != question.seal(STATE)
    assert Question(1, "x", question.nonce).seal(STATE) != question.seal(STATE)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_what_asks_nothing_is_not_allowed(place: Place, method: str) -> None:
    answer = place.receiver.client.request(method, PATHS[0].format(place.connection))

    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"
    assert HEADER not in answer.headers


@pytest.mark.parametrize(
    "header", ["", "x", "0" * 32, f"{'0' * 32} {'0' * 63}", f"{'G' * 32} {'0' * 64}", "é"]
)
def test_a_header_that_is_no_question_is_not_one(place: Place, header: str) -> None:
    path = PATHS[0].format(place.connection)

    sent = {HEADER.encode(): header.encode("latin-1")}
    answer = place.receiver.client.get(path, headers=sent)

    assert read_header(header) is None
    assert answer.status_code == 405


def test_only_get_is_a_question(place: Place) -> None:
    headers = place.question().headers
    path = PATHS[0].format(add_connection(place.url))

    assert place.receiver.client.put(path, headers=headers).status_code == 405
    answer = place.receiver.client.post(path, headers=headers, json=report("nobody"))
    assert answer.status_code == 401


def test_a_report_beside_a_question_is_stored_like_any_other(place: Place) -> None:
    sent = place.receiver.send(
        report("asker"), place.connection, x_telemetry_probe=place.question().headers[HEADER]
    )

    assert sent.json() == {"success": True, "message": "report stored"}


def test_who_does_not_know_the_token_is_turned_away_and_not_counted(place: Place) -> None:
    answer = place.ask(place.question(token="a guess"))

    assert answer.status_code == 401
    assert answer.headers[HEADER] == "refused"
    assert answer.json() == {"success": False, "message": "the token is not this connection's"}
    figures = place.receiver.client.get("/metrics").text
    assert f'telemetry_refusals_total{{connection="{place.connection}"' not in figures


def test_a_proof_for_one_connection_is_none_for_another(place: Place) -> None:
    other = add_connection(place.url)

    assert place.ask(place.question(), to=other).status_code == 401


@pytest.mark.parametrize("number", ["987654", "x", "-1"])
def test_an_unknown_connection_is_said(place: Place, number: str) -> None:
    path = PATHS[0].format(number)

    answer = place.receiver.client.get(path, headers=place.question().headers)

    assert answer.status_code == 404
    assert answer.headers[HEADER] == "refused"


def test_a_connection_without_a_token_has_nothing_to_prove(place: Place) -> None:
    number = add_connection(place.url, token=None)

    answer = place.ask(Question(number, "", new_nonce()))

    assert answer.status_code == 401
    assert "no secret token" in answer.json()["message"]


def test_a_token_that_can_not_be_decrypted_is_said(place: Place) -> None:
    number = add_connection(place.url)
    secret = encrypt(TOKEN, "another secret")
    query(
        place.url,
        "UPDATE _tool_developer_telemetry_connections"
        f" SET secret_token = '{secret}' WHERE id = {number}",
    )

    answer = place.ask(Question(number, TOKEN, new_nonce()))

    assert answer.status_code == 503
    assert "ENCRYPTION_SECRET is not DevLake's" in answer.json()["message"]


def test_the_previous_token_counts_while_it_is_valid(place: Place) -> None:
    number = add_connection(place.url, token="new")
    old = Question(number, "old", new_nonce())
    rotating = (
        "UPDATE _tool_developer_telemetry_connections SET"
        f" previous_secret_token = '{encrypt('old', SECRET)}', previous_token_until = "
    )

    query(place.url, f"{rotating} {int(time.time()) + 600} WHERE id = {number}")
    eventually(lambda: place.ask(old).status_code == 200, seconds=10)
    assert old.open(place.ask(old).json()["sealed"]) is not None
    assert place.ask(Question(number, "new", new_nonce())).status_code == 200

    query(place.url, f"{rotating} 1 WHERE id = {number}")
    eventually(lambda: place.ask(old).status_code == 401, seconds=10)


def test_the_same_database_is_known_by_what_was_left_there(
    place: Place, engine_here: Engine
) -> None:
    nonce = new_nonce()

    with left_behind(engine_here, nonce):
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

    with left_behind(engine, "mine"), left_behind(engine, "theirs"):
        assert was_left(engine, "mine")
        assert was_left(engine, "theirs")
        assert not was_left(engine, "Mine")

    with engine.connect() as connection:
        assert connection.exec_driver_sql(f"SELECT COUNT(*) FROM {PROBE_TABLE}").scalar() == 0
