"""The three steps on each database, in tables as DevLake's server makes them."""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any, Optional

import pytest
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import Engine, Table, event, text

from pydevlake import Connection, Context, DomainType, Field, ScopeConfig, Stream, Substream
from pydevlake.database import create_db_engine
from pydevlake.model import DomainModel, SubtaskRun, ToolModel, ToolScope
from pydevlake.subtasks import Collector

PARAMS = '{"ConnectionId":7,"ScopeId":"b1"}'
NOON = datetime(2024, 5, 6, 12, tzinfo=timezone.utc)


class Kind(Enum):
    BUG = "bug"
    IDEA = "idea"


class Note(ToolModel, table=True):
    __tablename__ = "_tool_notes_notes"

    id: str = Field(primary_key=True)
    kind: Optional[Kind]
    size: Optional[int]
    written_at: Optional[datetime]


class Remark(ToolModel, table=True):
    __tablename__ = "_tool_notes_remarks"

    id: str = Field(primary_key=True)


class Issue(DomainModel, table=True):
    __tablename__ = "test_issues"

    title: Optional[str]


class Notes(Stream):
    tool_model = Note
    domain_types = [DomainType.TICKET]
    domain_models = [Issue]

    def __init__(self, source: list[dict[str, Any]]) -> None:
        super().__init__("notes")
        self.source = source

    def collect(self, state: dict[str, Any], context: Context) -> Iterable[Any]:
        for number, note in enumerate(self.source, start=1):
            if number > state.get("seen", 0):
                yield note, {"seen": number}

    def convert(self, tool_model: Note, context: Context) -> Any:
        if tool_model.kind is Kind.BUG:
            return Issue(title=f"{tool_model.id} of {tool_model.size}")
        return None


class Remarks(Substream):
    tool_model = Remark
    domain_types = [DomainType.TICKET]
    parent_stream = Notes

    def collect(  # type: ignore[override]
        self, state: dict[str, Any], context: Context, parent: Note
    ) -> Iterable[Any]:
        yield {"id": f"on {parent.id}"}, state


# What the server's migrations make of a BIGINT, a key, a text and a time.
TYPES = {
    "mysql": ("BIGINT", "VARCHAR(255)", "LONGTEXT", "DATETIME(3)"),
    "postgresql": ("BIGINT", "VARCHAR(255)", "TEXT", "TIMESTAMPTZ"),
    "sqlite": ("BIGINT", "VARCHAR(255)", "TEXT", "DATETIME"),
}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_db_engine(database_url)
    number, key, long, time = TYPES[engine.dialect.name]
    rest = (
        f"created_at {time}, updated_at {time}, _raw_data_params {key}, _raw_data_table {key},"
        f" _raw_data_id {number}, _raw_data_remark {long}"
    )
    keys = f"connection_id {number}, id {key}, PRIMARY KEY (connection_id, id)"
    with engine.begin() as connection:
        for statement in (
            f"CREATE TABLE _tool_notes_notes (kind {long}, size {number}, written_at {time},"
            f" {rest}, {keys})",
            f"CREATE TABLE _tool_notes_remarks ({rest}, {keys})",
            f"CREATE TABLE test_issues (id {key} PRIMARY KEY, title {long}, {rest})",
        ):
            connection.execute(text(statement))
    yield engine
    engine.dispose()


def context(engine: Engine, scope: str = "b1", incremental: bool = False) -> Context:
    return Context(
        engine,
        Connection(id=7, name="c"),
        ToolScope(id=scope, name="S", connection_id=7),
        ScopeConfig(),
        {"incremental": incremental},
    )


def run(stream: Stream, ctx: Context, *steps: str) -> list[tuple[int, int]]:
    progress: list[tuple[int, int]] = []
    for step in steps or ("collector", "extractor", "convertor"):
        progress += [(each.increment, each.current) for each in getattr(stream, step).run(ctx)]
    return progress


def rows(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def note(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"n{number:05}", "kind": "bug", "size": number, **more}


def test_rows_fit_the_servers_columns(engine: Engine) -> None:
    tokyo = timezone(timedelta(hours=9))
    written = NOON.astimezone(tokyo).isoformat()
    notes = Notes([note(1, size=2**40, writtenAt=written), {"id": "žluťoučký", "kind": "idea"}])
    run(notes, context(engine))
    assert rows(
        engine,
        "SELECT connection_id, id, kind, size, _raw_data_params, _raw_data_table"
        " FROM _tool_notes_notes ORDER BY id",
    ) == [
        (7, "n00001", "BUG", 2**40, PARAMS, "_raw_notes_notes"),
        (7, "žluťoučký", "IDEA", None, PARAMS, "_raw_notes_notes"),
    ]
    assert rows(engine, "SELECT id, title, _raw_data_params FROM test_issues") == [
        (notes_id("n00001"), f"n00001 of {2**40}", PARAMS)
    ]
    (moment,) = rows(engine, "SELECT written_at FROM _tool_notes_notes WHERE id = 'n00001'")[0]
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    assert moment.replace(tzinfo=None) == NOON.replace(tzinfo=None)


def notes_id(key: str) -> str:
    return Note(connection_id=7, id=key).domain_id()


def test_a_time_is_read_back_as_utc(engine: Engine) -> None:
    seen = []

    class Reading(Notes):
        name = "notes"

        def convert(self, tool_model: Note, context: Context) -> None:
            seen.append(tool_model.written_at)

    run(Reading([note(1, writtenAt="2024-05-06T21:00:00+09:00")]), context(engine))
    assert seen == [NOON.replace(tzinfo=None)]


def test_a_raw_row_holds_what_came_and_more_than_64_kib(engine: Engine) -> None:
    long = note(1, text="ž" * 100_000)
    run(Notes([long]), context(engine), "collector")
    ((params, data, url, request),) = rows(
        engine, "SELECT params, data, url, input FROM _raw_notes_notes"
    )
    assert json.loads(bytes(data)) == long
    assert (params, url, json.loads(bytes(request))) == (PARAMS, "", "")


def test_progress_comes_at_every_sync_point_and_at_the_end(engine: Engine) -> None:
    notes = Notes([note(number) for number in range(1, 251)])
    ctx = context(engine)
    for step in ("collector", "extractor", "convertor"):
        progress = run(notes, ctx, step)
        assert sum(increment for increment, _ in progress) == 250
        assert {100, 200, 250} <= {current for _, current in progress}
    assert rows(engine, "SELECT count(*) FROM test_issues") == [(250,)]


def test_more_rows_than_a_page_are_each_read_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pydevlake.subtasks._PAGE", 7)
    notes = Notes([note(number) for number in range(1, 22)])
    ctx = context(engine)
    assert run(notes, ctx) == [(21, 21)] * 3
    assert rows(engine, "SELECT count(*) FROM test_issues") == [(21,)]


def test_a_new_run_replaces_what_was_made_of_its_scope_alone(engine: Engine) -> None:
    run(Notes([note(1), note(2)]), context(engine))
    run(Notes([note(3)]), context(engine, scope="b2"))
    run(Notes([note(2)]), context(engine))
    assert rows(engine, "SELECT id FROM _tool_notes_notes ORDER BY id") == [
        ("n00002",),
        ("n00003",),
    ]
    assert rows(engine, "SELECT count(*) FROM _raw_notes_notes") == [(2,)]
    assert rows(engine, "SELECT count(*) FROM test_issues") == [(2,)]


def test_an_incremental_run_goes_on_from_the_last_completed_state(engine: Engine) -> None:
    source = [note(1), note(2)]
    notes = Notes(source)
    run(notes, context(engine), "collector", "extractor")
    made = rows(engine, "SELECT created_at FROM _tool_notes_notes ORDER BY id")
    source.append(note(3))
    again = context(engine, incremental=True)
    assert run(notes, again, "collector") == [(1, 1)]
    run(notes, again, "extractor")
    assert rows(engine, "SELECT count(*) FROM _raw_notes_notes") == [(3,)]
    # Rows that were there keep the time of their making.
    assert rows(engine, "SELECT created_at FROM _tool_notes_notes ORDER BY id")[:2] == made
    states = rows(engine, "SELECT subtask_name, state FROM _pydevlake_subtask_runs ORDER BY id")
    assert states == [
        ("Collect Notes", '{"seen": 2}'),
        ("Extract Notes", "{}"),
        ("Collect Notes", '{"seen": 3}'),
        ("Extract Notes", "{}"),
    ]


def test_a_failed_run_keeps_what_was_committed_and_is_not_completed(engine: Engine) -> None:
    class Failing(Notes):
        name = "notes"

        def collect(self, state: dict[str, Any], context: Context) -> Iterable[Any]:
            yield from super().collect(state, context)
            raise RuntimeError("gone")

    stream = Failing([note(number) for number in range(1, 151)])
    with pytest.raises(RuntimeError, match="gone"):
        run(stream, context(engine), "collector")
    assert rows(engine, "SELECT count(*) FROM _raw_notes_notes") == [(100,)]
    assert rows(engine, "SELECT connection_id, state, completed FROM _pydevlake_subtask_runs") == [
        (7, '{"seen": 100}', None)
    ]


def test_a_step_that_is_closed_early_rolls_back(engine: Engine) -> None:
    steps = Notes([note(number) for number in range(1, 250)]).collector.run(context(engine))
    next(iter(steps))
    steps.close()  # type: ignore[attr-defined]
    assert rows(engine, "SELECT count(*) FROM _raw_notes_notes") == [(100,)]


@pytest.mark.parametrize("incremental", [True, False])
def test_a_substream_collects_for_each_row_of_its_parent(engine: Engine, incremental: bool) -> None:
    run(Notes([note(1), note(2)]), context(engine), "collector", "extractor")
    remarks = Remarks("notes")
    run(remarks, context(engine, incremental=incremental), "collector", "extractor")
    assert rows(engine, "SELECT id FROM _tool_notes_remarks ORDER BY id") == [
        ("on n00001",),
        ("on n00002",),
    ]


def test_two_streams_of_one_name_share_the_raw_table(engine: Engine) -> None:
    run(Notes([note(1)]), context(engine), "collector")
    run(Notes([]), context(engine), "extractor")
    assert rows(engine, "SELECT id FROM _tool_notes_notes") == [("n00001",)]


def test_the_first_runs_of_two_connections_at_the_same_time_both_make_the_table(
    engine: Engine, database_url: str
) -> None:
    another = create_db_engine(database_url)

    def make_first(table: Table, connection: SqlConnection, **_: Any) -> None:
        if connection.engine is engine:
            # As MySQL's CREATE TABLE begins. There, who looked for the table keeps it from others.
            connection.connection.commit()
            table.create(another)

    event.listen(Table, "before_create", make_first)
    try:
        run(Notes([note(1)]), context(engine), "collector")
    finally:
        event.remove(Table, "before_create", make_first)
        another.dispose()
    assert rows(engine, "SELECT count(*) FROM _pydevlake_subtask_runs") == [(1,)]


def test_a_step_has_the_names_that_the_server_shows() -> None:
    collector = Notes([]).collector
    assert isinstance(collector, Collector)
    assert (collector.name, collector.verb) == ("Collect Notes", "collect")
    assert collector.description == "Collect notes notes"
    assert SubtaskRun.__tablename__ == "_pydevlake_subtask_runs"
