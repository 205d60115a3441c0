"""A test report: it goes the way of a real one, up to the commit, and leaves nothing behind."""

from __future__ import annotations

import time
from typing import Callable, NamedTuple

from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.connections.registry import Connection
from developer_telemetry.database.engine import reason
from developer_telemetry.errors import TelemetryError
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.reports.parser import parse
from developer_telemetry.storage.writer import probe

BODY = b'{"developer": "test report", "date": "2000-01-01", "metrics": {"active_hours": 1}}'


class Step(NamedTuple):
    """One part of the way, whether it went well, and what there is to say."""

    name: str
    well: bool
    said: str


class SelfTest:
    """Takes test reports; `run` is called from a thread."""

    def __init__(self, engine: Engine, admit: Callable[[Connection], object], spool: Spool) -> None:
        self._engine = engine
        self._admit = admit
        self._spool = spool

    def run(self, connection: Connection) -> list[Step]:
        """What a report to `connection` meets, one step after the other."""
        return [
            _step("Connection and token", "let in", lambda: self._admit(connection)),
            _step("Body", "read", lambda: parse(BODY)),
            _step("Database", "wrote it to both layers, then took it back", self._probe),
            self._room(),
        ]

    def _probe(self) -> None:
        probe(self._engine)

    def _room(self) -> Step:
        if self._spool.full:
            return Step("Spool", False, "full: without the database no report can be kept")
        return Step("Spool", True, "has room for reports while the database is away")


def _step(name: str, done: str, work: Callable[[], object]) -> Step:
    started = time.perf_counter()
    try:
        work()
    except TelemetryError as error:
        return Step(name, False, str(error))
    except SQLAlchemyError as error:
        return Step(name, False, f"{reason(error)}; reports wait in the spool meanwhile")
    return Step(name, True, f"{done} ({(time.perf_counter() - started) * 1000:.0f} ms)")
