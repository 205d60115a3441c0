"""The three steps of a stream: collect, extract, convert."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Optional

from sqlalchemy import delete, tuple_
from sqlmodel import Session, SQLModel, select

from pydevlake.columns import utc_now
from pydevlake.context import Context
from pydevlake.message import RemoteProgress
from pydevlake.model import (
    DomainModel,
    NoPKModel,
    SubtaskRun,
    make_table,
    primary_key_names,
    raw_data_params,
)

State = dict[str, Any]

# Rows held in memory at a time.
_PAGE = 500
_SECONDS_BETWEEN_PROGRESS = 2.0


class Subtask:
    """One step; a subclass defines its records and how each is processed."""

    verb = ""

    def __init__(self, stream: Any) -> None:
        # A `Stream`. Any, since a plugin's subtasks read fields of its own class.
        self.stream = stream

    @property
    def name(self) -> str:
        return f"{self.verb.capitalize()} {self.stream.name.capitalize()}"

    @property
    def description(self) -> str:
        return f"{self.verb.capitalize()} {self.stream.plugin_name} {self.stream.name.lower()}"

    def run(self, ctx: Context, sync_point_interval: int = 100) -> Iterator[RemoteProgress]:
        """Process all records, yielding progress.

        Unless the run is incremental, an earlier run's rows of the scope are deleted first. The
        work is committed together with the state after every `sync_point_interval` records. If the
        run ends early, the work after the last commit is rolled back.
        """
        self.prepare(ctx)
        # Rows stay readable after a commit; otherwise each would be read again.
        with Session(ctx.engine, expire_on_commit=False) as session:
            state: State = {}
            if ctx.incremental:
                state = self._last_state(session, ctx)
            run = self._start(session, ctx)
            if not ctx.incremental:
                self.delete(session, ctx)
            done = reported = 0
            reported_at = time.monotonic()
            for data, next_state in self.fetch(state, session, ctx):
                self.process(data, session, ctx)
                state = next_state
                done += 1
                at_sync_point = done % sync_point_interval == 0
                if at_sync_point:
                    run.state = json.dumps(state)
                    session.commit()
                if at_sync_point or time.monotonic() - reported_at >= _SECONDS_BETWEEN_PROGRESS:
                    yield RemoteProgress(increment=done - reported, current=done)
                    reported, reported_at = done, time.monotonic()
            run.state = json.dumps(state)
            run.completed = utc_now()
            session.commit()
            if done != reported:
                yield RemoteProgress(increment=done - reported, current=done)

    def prepare(self, ctx: Context) -> None:
        """Make the tables that the step needs of its own, before its transaction begins."""
        make_table(ctx.engine, SubtaskRun.__table__)  # type: ignore[attr-defined]
        with Session(ctx.engine) as session:
            self.stream.raw_model(session)

    def fetch(self, state: State, session: Session, ctx: Context) -> Iterable[tuple[Any, State]]:
        """Yield pairs of a record and the state from which a later run may continue."""
        raise NotImplementedError

    def process(self, data: Any, session: Session, ctx: Context) -> None:
        """Process one record that `fetch` yielded."""
        raise NotImplementedError

    def delete(self, session: Session, ctx: Context) -> None:
        """Delete the rows of earlier runs for the scope."""
        raise NotImplementedError

    def _start(self, session: Session, ctx: Context) -> SubtaskRun:
        run = SubtaskRun(
            subtask_name=self.name,
            connection_id=ctx.connection.id,
            started=utc_now(),
            state=json.dumps({}),
        )
        session.add(run)
        return run

    def _last_state(self, session: Session, ctx: Context) -> State:
        query = (
            select(SubtaskRun)
            .where(SubtaskRun.subtask_name == self.name)
            .where(SubtaskRun.connection_id == ctx.connection.id)
            .where(SubtaskRun.completed != None)  # noqa: E711
            .order_by(SubtaskRun.started.desc(), SubtaskRun.id.desc())  # type: ignore[attr-defined,union-attr]
            .limit(1)
        )
        last = session.exec(query).first()
        state: State = json.loads(last.state) if last else {}
        return state

    def _params(self, ctx: Context) -> str:
        return raw_data_params(ctx.connection.id, ctx.scope.id)


class Collector(Subtask):
    """Stores the stream's collected data in its raw table."""

    verb = "collect"

    def fetch(self, state: State, session: Session, ctx: Context) -> Iterable[tuple[Any, State]]:
        collected: Optional[Iterable[tuple[Any, State]]] = self.stream.collect(state, ctx)
        return collected or ()

    def process(self, data: Any, session: Session, ctx: Context) -> None:
        url, request = "", ""
        if isinstance(data, Mapping):
            data = dict(data)
            url = data.pop("x_request_url", "")
            request = data.pop("x_request_input", "")
        raw_model = self.stream.raw_model(session)
        session.add(
            raw_model(
                params=self._params(ctx),
                data=json.dumps(data).encode(),
                url=url,
                input=json.dumps(request).encode(),
            )
        )

    def delete(self, session: Session, ctx: Context) -> None:
        raw_model = self.stream.raw_model(session)
        session.execute(delete(raw_model).where(raw_model.params == self._params(ctx)))


class SubstreamCollector(Collector):
    """Collects for each tool row of the parent stream."""

    def fetch(self, state: State, session: Session, ctx: Context) -> Iterable[tuple[Any, State]]:
        for parent in _read_scope_rows(session, self.stream.parent_stream.tool_model, ctx):
            yield from self.stream.collect(state, ctx, parent) or ()


class Extractor(Subtask):
    """Makes tool rows of raw rows."""

    verb = "extract"

    def fetch(self, state: State, session: Session, ctx: Context) -> Iterable[tuple[Any, State]]:
        raw_model = self.stream.raw_model(session)
        scope_rows = raw_model.params == self._params(ctx)
        for raw in _read_pages(session, raw_model, scope_rows):
            yield raw, state

    def process(self, data: Any, session: Session, ctx: Context) -> None:
        row = self.stream.extract(json.loads(data.data))
        row.set_raw_origin(data)
        row.connection_id = ctx.connection.id
        _save(session, row)

    def delete(self, session: Session, ctx: Context) -> None:
        _delete_scope_rows(session, self.stream.tool_model, ctx)


class Convertor(Subtask):
    """Makes domain rows of tool rows."""

    verb = "convert"

    def fetch(self, state: State, session: Session, ctx: Context) -> Iterable[tuple[Any, State]]:
        for row in _read_scope_rows(session, self.stream.tool_model, ctx):
            yield row, state

    def process(self, data: Any, session: Session, ctx: Context) -> None:
        converted = self.stream.convert(data, ctx)
        if converted is None:
            return
        # A model is iterable, too: over its fields.
        rows: Iterable[Any] = [converted] if isinstance(converted, SQLModel) else converted
        for row in rows:
            row.set_tool_origin(data)
            if isinstance(row, DomainModel):
                row.id = data.domain_id()
            _save(session, row)

    def delete(self, session: Session, ctx: Context) -> None:
        for model in self.stream.domain_models or ():
            _delete_scope_rows(session, model, ctx)


def _save(session: Session, row: NoPKModel) -> None:
    row.set_updated_at()
    if row.created_at is None:
        # Unset, not empty: an existing row keeps its time of creation.
        row.__dict__.pop("created_at", None)
    session.merge(row)


def _delete_scope_rows(session: Session, model: Any, ctx: Context) -> None:
    params = raw_data_params(ctx.connection.id, ctx.scope.id)
    session.execute(delete(model).where(model.raw_data_params == params))


def _read_scope_rows(session: Session, model: Any, ctx: Context) -> Iterator[Any]:
    params = raw_data_params(ctx.connection.id, ctx.scope.id)
    return _read_pages(session, model, model.raw_data_params == params)


def _read_pages(session: Session, model: Any, condition: Any) -> Iterator[Any]:
    """Read rows in the order of their key, a page at a time.

    A cursor over all of them would end at the first sync point's commit.
    """
    key = [getattr(model, name) for name in primary_key_names(model)]
    after: Optional[tuple[Any, ...]] = None
    while True:
        query = select(model).where(condition).order_by(*key).limit(_PAGE)
        if after is not None:
            query = query.where(tuple_(*key) > tuple_(*after))
        page = session.exec(query).all()
        yield from page
        if len(page) < _PAGE:
            return
        after = tuple(getattr(page[-1], column.key) for column in key)
