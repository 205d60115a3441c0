"""The sample plugin, called as DevLake's server calls one."""

import json
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pydevlake.testing import assert_valid_plugin_info

from .harness import CONNECTION, SAMPLE, Call, call, context, seconds_since, start

ENTRIES = [
    {
        "id": 1,
        "guest": {"name": "Ann"},
        "mood": "happy",
        "text": "Lovely",
        "writtenAt": "2024-05-06T09:08:09+02:00",
        "rating": {"stars": 5},
    },
    {"id": 2, "guest": {"name": "Bob"}, "mood": "grumpy", "unknown": True},
    {"id": 3, "guest": {"name": "Hidden Harry"}, "mood": "happy"},
]


class Lobby:
    """A guestbook's source and a database with the tables that the server would have made."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "lobby.json"
        self.file = folder / "lake.db"
        self.url = f"sqlite:///{self.file}"
        self.put(ENTRIES)
        with closing(sqlite3.connect(self.file)) as database:
            database.executescript(
                """
                CREATE TABLE _tool_guestbook_entries (connection_id BIGINT, id BIGINT, guest TEXT,
                    mood TEXT, body TEXT, written_at DATETIME, stars BIGINT, created_at DATETIME,
                    updated_at DATETIME, _raw_data_params TEXT, _raw_data_table TEXT,
                    _raw_data_id BIGINT, _raw_data_remark TEXT, PRIMARY KEY (connection_id, id));
                CREATE TABLE _tool_guestbook_replies (connection_id BIGINT, id TEXT,
                    entry_id BIGINT, text TEXT, created_at DATETIME, updated_at DATETIME,
                    _raw_data_params TEXT, _raw_data_table TEXT, _raw_data_id BIGINT,
                    _raw_data_remark TEXT, PRIMARY KEY (connection_id, id));
                CREATE TABLE accounts (id TEXT PRIMARY KEY, email TEXT, full_name TEXT,
                    user_name TEXT, avatar_url TEXT, organization TEXT, created_date DATETIME,
                    status BIGINT, created_at DATETIME, updated_at DATETIME,
                    _raw_data_params TEXT, _raw_data_table TEXT, _raw_data_id BIGINT,
                    _raw_data_remark TEXT);
                """
            )

    def put(self, entries: list[Any]) -> None:
        self.source.write_text(json.dumps(entries))

    def run(self, *steps: str, stream: str = "entries", **more: Any) -> list[list[Any]]:
        """Runs steps of a stream and returns the progress of each."""
        progress = []
        for step in steps:
            answer = call(step, context(self.url, str(self.source), **more), stream)
            assert (answer.status, answer.err) == (0, "")
            progress.append(answer.documents)
        return progress

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.file)) as database:
            return database.execute(query).fetchall()


@pytest.fixture
def lobby(tmp_path: Path) -> Lobby:
    return Lobby(tmp_path)


@pytest.fixture(scope="module")
def plugin_info() -> dict[str, Any]:
    (info,) = call("plugin-info").documents
    assert isinstance(info, dict)
    return info


@pytest.mark.parametrize("verb", ["plugin-info", "plugin_info"])
def test_a_plugin_says_what_it_is_made_of(verb: str) -> None:
    answer = call(verb, config={"log_level": "info"})
    assert (answer.status, answer.out, answer.err) == (0, "", "")
    (info,) = answer.documents
    assert_valid_plugin_info(info)
    assert info["name"] == "guestbook"
    assert info["plugin_path"] == str(SAMPLE / "run.sh")
    assert [each["name"] for each in info["subtask_metas"]] == [
        "Collect Entries",
        "Extract Entries",
        "Convert Entries",
        "Collect Replies",
        "Extract Replies",
        "Convert Replies",
    ]
    assert [each["table_name"] for each in info["tool_model_infos"]] == [
        "_tool_guestbook_entries",
        "_tool_guestbook_replies",
    ]
    assert [each["version"] for each in info["migration_scripts"]] == [
        20240102030405,
        20240203040506,
    ]
    assert answer.lines[0] == json.dumps(info, separators=(",", ":"), ensure_ascii=False) + "\n"
    assert "null" not in answer.lines[0]


def test_optional_fields_secrets_and_enumerations_have_one_type(
    plugin_info: dict[str, Any],
) -> None:
    connection = plugin_info["connection_model_info"]["json_schema"]
    assert connection["properties"]["token"]["format"] == "password"
    assert connection["properties"]["organization"]["type"] == "string"
    assert connection["required"] == ["name", "token"]
    entry = plugin_info["tool_model_infos"][0]["json_schema"]["properties"]
    assert entry["mood"] == {"enum": ["happy", "grumpy"], "title": "Mood", "type": "string"}
    assert entry["guest"]["source"] == "/guest/name"
    assert entry["guest"]["maxLength"] == 100
    assert entry["connectionId"]["primaryKey"] is True
    assert entry["connectionId"]["autoIncrement"] is False
    assert entry["writtenAt"]["format"] == "date-time"
    config = plugin_info["scope_config_model_info"]["json_schema"]["properties"]
    assert config["refdiff"]["type"] == "object"
    assert config["entities"]["items"]["type"] == "string"


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("good", {"success": True, "message": "Connection successful", "status": 200}),
        ("bad", {"success": False, "message": "Connection failed", "status": 401}),
    ],
)
def test_a_connection_is_tested_without_its_name(token: str, expected: dict[str, Any]) -> None:
    answer = call("test-connection", {"proxy": "", "token": token, "unknownKey": 1})
    assert answer.documents == [expected]


@pytest.mark.parametrize("group", ["", None])
def test_groups_are_listed_without_a_group_id(group: Any) -> None:
    answer = call("remote-scopes", CONNECTION, group)
    assert answer.documents == [{"id": "shelf", "name": "Shelf", "type": "group"}]


def test_the_scopes_of_a_group_are_listed_with_all_their_fields() -> None:
    (scope,) = call("remote-scopes", CONNECTION, "shelf").documents
    assert scope == {
        "id": "b1",
        "name": "Lobby",
        "type": "scope",
        "parentId": "shelf",
        "data": {
            "id": "b1",
            "name": "Lobby",
            "source": "lobby.json",
            "connectionId": 7,
            "_raw_data_params": '{"ConnectionId":7,"ScopeId":"b1"}',
            "_raw_data_table": "_raw_guestbook_scopes",
        },
    }


def test_a_pipeline_has_the_subtasks_of_the_wanted_domains() -> None:
    # Both ways to write a key.
    scope = {
        "id": "b1",
        "name": "Lobby",
        "connection_id": 7,
        "source": "s",
        "openedAt": "2024-01-01T00:00:00Z",
    }
    pairs = [[scope, None], [{**scope, "id": "b2"}, {"id": 1, "entities": ["CROSS"]}]]
    (pipeline,) = call("make_pipeline", pairs, CONNECTION).documents
    own: dict[str, Any] = {
        "plugin": "guestbook",
        "skipOnFail": False,
        "subtasks": [
            f"{step} {stream}"
            for stream in ("Entries", "Replies")
            for step in ("Collect", "Extract", "Convert")
        ],
        "options": {
            "scopeId": "b1",
            "scopeName": "Lobby",
            "connectionId": 7,
            "fullName": "Lobby",
        },
    }
    assert pipeline["plan"][0][0] == own
    assert [task["plugin"] for task in pipeline["plan"][0]] == ["guestbook", "gitextractor"]
    assert pipeline["plan"][1] == [{**own, "options": {**own["options"], "scopeId": "b2"}}]
    cicd, repo = pipeline["scopes"][:2]
    assert (cicd["type_name"], repo["type_name"]) == ("CicdScope", "Repo")
    assert json.loads(cicd["data"]) == {
        "id": "guestbook:Book:7:b1",
        "name": "Lobby",
        "createdDate": "2024-01-01T00:00:00Z",
        "_raw_data_params": '{"ConnectionId":7,"ScopeId":"b1"}',
        "_raw_data_table": "_raw_guestbook_scopes",
    }
    assert json.loads(repo["data"])["forked_from"] == "https://example.org"


def test_three_steps_take_raw_data_to_the_domain_layer(lobby: Lobby) -> None:
    config = {"id": 1, "hiddenPattern": "^Hidden"}
    progress = lobby.run("collect", "extract", "convert", scope_config=config)
    assert progress == [[{"increment": 3, "current": 3, "total": 0}]] * 3
    raw = lobby.rows("SELECT params, data, url, input FROM _raw_guestbook_entries ORDER BY id")
    params = '{"ConnectionId":7,"ScopeId":"b1"}'
    assert [json.loads(row[1]) for row in raw] == ENTRIES
    assert {(row[0], row[2], json.loads(row[3])["book"]) for row in raw} == {
        (params, "https://guests.example.org/entries", "b1")
    }
    assert lobby.rows(
        "SELECT connection_id, id, guest, mood, body, written_at, stars, _raw_data_params,"
        " _raw_data_table, _raw_data_id FROM _tool_guestbook_entries ORDER BY id LIMIT 2"
    ) == [
        (7, 1, "Ann", "Happy", "Lovely", "2024-05-06 07:08:09.000000", 5, params,
         "_raw_guestbook_entries", 1),
        (7, 2, "Bob", "Grumpy", None, None, 3, params, "_raw_guestbook_entries", 2),
    ]  # fmt: skip
    assert lobby.rows(
        "SELECT id, full_name, user_name, _raw_data_id, _raw_data_params FROM accounts ORDER BY id"
    ) == [
        ("guestbook:Entry:7:1", "Ann", "happy", 1, params),
        ("guestbook:Entry:7:2", "Bob", "grumpy", 2, params),
    ]
    assert lobby.rows(
        "SELECT subtask_name, connection_id, completed IS NOT NULL, state"
        " FROM _pydevlake_subtask_runs ORDER BY id"
    ) == [
        ("Collect Entries", 7, 1, '{"last": 3}'),
        ("Extract Entries", 7, 1, "{}"),
        ("Convert Entries", 7, 1, "{}"),
    ]


def test_a_stream_skips_a_scope_that_it_does_not_run_on(lobby: Lobby) -> None:
    answer = call("collect", context(lobby.url, "no replies"), "replies")
    assert (answer.status, answer.lines, answer.err) == (0, [], "")
    assert "does not run on scope Lobby" in answer.out


@pytest.fixture
def endless(lobby: Lobby) -> Iterator[Call]:
    running = start("collect", context(lobby.url, "endless"), "entries")
    yield running
    running.process.kill()
    running.process.wait()


def test_sigterm_rolls_back_to_the_last_sync_point(lobby: Lobby, endless: Call) -> None:
    json.loads(endless.next_line())
    endless.process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    answer = endless.finish()
    assert seconds_since(sent) < 5
    assert (answer.status, answer.err) == (143, "")
    assert "cancelled" in answer.out
    assert all(json.loads(line) for line in answer.lines)
    ((rows,),) = lobby.rows("SELECT count(*) FROM _raw_guestbook_entries")
    assert rows >= 100
    assert rows % 100 == 0
    ((completed, state),) = lobby.rows("SELECT completed, state FROM _pydevlake_subtask_runs")
    assert completed is None
    assert json.loads(state) == {"last": rows - 1}


def test_sigterm_ends_a_step_that_waits_for_its_source(lobby: Lobby) -> None:
    waiting = start("collect", context(lobby.url, "silent"), "entries")
    waiting.next_line()
    waiting.process.send_signal(signal.SIGTERM)
    assert waiting.finish().status == 143
    assert lobby.rows("SELECT count(*) FROM _raw_guestbook_entries") == [(0,)]


@pytest.mark.parametrize("driver", ["another error", "no error", "forgotten"])
def test_sigterm_is_a_cancel_whatever_a_driver_makes_of_it(lobby: Lobby, driver: str) -> None:
    waiting = start("collect", context(lobby.url, driver), "entries")
    waiting.next_line()
    waiting.process.send_signal(signal.SIGTERM)
    answer = waiting.finish()
    assert (answer.status, answer.err) == (143, "")
    assert "was cancelled" in answer.out


@pytest.mark.parametrize(
    ("database", "sleep"),
    [("mariadb_url", "SELECT SLEEP(300)"), ("postgresql_url", "SELECT pg_sleep(300)")],
)
def test_sigterm_ends_a_step_in_the_middle_of_a_statement(
    request: pytest.FixtureRequest, database: str, sleep: str
) -> None:
    waiting = start("collect", context(request.getfixturevalue(database), sleep), "entries")
    waiting.next_line()
    waiting.process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    assert waiting.finish().status == 143
    assert seconds_since(sent) < 5


def test_a_silent_step_repeats_its_progress_within_two_seconds(lobby: Lobby) -> None:
    waiting = start("collect", context(lobby.url, "silent"), "entries")
    waiting.next_line()
    heard = time.monotonic()
    assert json.loads(waiting.next_line()) == {"increment": 0, "current": 0, "total": 0}
    assert seconds_since(heard) < 2
    waiting.process.send_signal(signal.SIGTERM)
    waiting.finish()


def test_a_failing_step_rolls_back_and_says_why_in_one_line(lobby: Lobby) -> None:
    answer = call("collect", context(lobby.url, "broken"), "entries")
    assert answer.status == 1
    assert answer.err == (
        "collect entries (connection 7, scope b1) failed: RuntimeError: the guestbook burnt down."
        " Log level debug shows where.\n"
    )
    assert lobby.rows("SELECT count(*) FROM _raw_guestbook_entries") == [(0,)]
    assert lobby.rows("SELECT count(*) FROM _pydevlake_subtask_runs") == [(0,)]


def test_log_level_debug_adds_the_traceback(lobby: Lobby) -> None:
    broken = context(lobby.url, "broken")
    answer = call("collect", broken, "entries", config={"log_level": "debug"})
    assert answer.status == 1
    assert answer.err.startswith("Traceback")
    assert answer.err.splitlines()[-1].startswith("collect entries (connection 7")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-verb", '""'], "there is no verb 'no-such-verb'. Use one of plugin-info,"),
        (["test-connection", '""', "{broken"], "an argument is no JSON document"),
        (["test-connection", '""'], "it got 1 arguments. Call it as test-connection CONFIG CON"),
        (["test-connection", '""', '"text"'], "connection is no JSON object"),
        (["make-pipeline", '""', "{}", "{}"], "scope_config_pairs is no JSON array"),
        (["test-connection", '""', "{}"], "GuestbookConnection is not valid: token: Field req"),
        (["collect", '""', "{}", '"entries"'], "the context lacks db_url, connection, scope"),
    ],
)
def test_a_call_that_makes_no_sense_fails_in_one_line(arguments: list[str], said: str) -> None:
    answer = Call(*arguments).finish()
    assert (answer.status, answer.lines) == (1, [])
    assert answer.err.count("\n") == 1
    assert said in answer.err


@pytest.mark.parametrize(
    ("db_url", "said"),
    [
        ("oracle://u:hunter2@h/lake", "The database URL (oracle://...) can't be read: write it as"),
        ("mysql://u:hunter2@h:x/lake", "can't be read: write it as"),
        ("sqlite:////no/such/folder/lake.db", "the database refuses: unable to open"),
    ],
)
def test_a_database_that_can_not_be_used_is_named_without_its_password(
    db_url: str, said: str
) -> None:
    answer = call("extract", context(db_url, "x"), "entries")
    assert answer.status == 1
    assert answer.err.count("\n") == 1
    assert said in answer.err
    assert "hunter2" not in answer.err + answer.out


def test_an_unknown_stream_is_answered_with_the_known_ones(lobby: Lobby) -> None:
    answer = call("convert", context(lobby.url, "x"), "visitors")
    assert answer.status == 1
    assert "guestbook has no stream 'visitors', only entries, replies" in answer.err


def test_a_statement_that_fails_is_told_without_its_parameters(lobby: Lobby) -> None:
    lobby.run("collect")
    with closing(sqlite3.connect(lobby.file)) as database:
        database.execute("DROP TABLE _tool_guestbook_entries")
    answer = call("extract", context(lobby.url, "x"), "entries")
    assert answer.status == 1
    assert answer.err.count("\n") == 1
    assert "no such table: _tool_guestbook_entries" in answer.err
    assert "ConnectionId" not in answer.err


def test_an_answer_above_five_mebibytes_is_a_failure() -> None:
    answer = call("remote-scopes", CONNECTION, "attic")
    assert (answer.status, answer.lines) == (1, [])
    assert answer.err.count("\n") == 1
    assert "no line above 5242880" in answer.err


def test_a_missing_descriptor_for_answers_is_named() -> None:
    answer = Call("plugin-info", '""', answers=False).finish()
    assert answer.status == 1
    assert "file descriptor 3, to which the answer is written, is not open" in answer.err


def test_a_person_gets_help() -> None:
    answer = Call("--help").finish()
    assert answer.status == 0
    assert "make_pipeline" in answer.out + answer.err
