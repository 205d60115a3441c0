"""A test report, processed like a real one up to the commit and then rolled back."""

from __future__ import annotations

import time
from typing import Callable, NamedTuple

from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.connections.registry import Connection
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.errors import TelemetryError
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.reports.parser import parse
from developer_telemetry.storage.writer import probe_store

BODY = b'{"developer": "test report", "date": "2000-01-01", "metrics": {"active_hours": 1}}'


class SelfTestStep(NamedTuple):
    """The outcome of one step of a test report."""

    name: str
    succeeded: bool
    detail: str


class SelfTest:
    """Runs test reports.

    `admit` raises a TelemetryError for a connection that accepts no reports.
    """

    def __init__(self, engine: Engine, admit: Callable[[Connection], object], spool: Spool) -> None:
        self._engine = engine
        self._admit = admit
        self._spool = spool

    def run(self, connection: Connection) -> list[SelfTestStep]:
        """Return the steps of a test report to `connection`, with the outcome of each.

        It blocks; call it from a thread.
        """
        return [
            _step("Connection and token", "accepted", lambda: self._admit(connection)),
            _step("Body", "read", lambda: parse(BODY)),
            _step("Database", "wrote it to both layers and rolled that back", self._probe),
            self._spool_step(),
        ]

    def _probe(self) -> None:
        probe_store(self._engine)

    def _spool_step(self) -> SelfTestStep:
        if self._spool.full:
            return SelfTestStep(
                "Spool", False, "full: while the database is away, no report can be stored"
            )
        return SelfTestStep("Spool", True, "has room for reports while the database is away")


def _step(name: str, success: str, work: Callable[[], object]) -> SelfTestStep:
    started = time.perf_counter()
    try:
        work()
    except TelemetryError as error:
        return SelfTestStep(name, False, str(error))
    except SQLAlchemyError as error:
        return SelfTestStep(
            name, False, f"{describe_error(error)}; until that is fixed, reports wait in the spool"
        )
    return SelfTestStep(name, True, f"{success} ({(time.perf_counter() - started) * 1000:.0f} ms)")
