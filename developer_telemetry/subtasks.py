"""The subtasks of a blueprint's run, on the part of the reports that each run has to look at."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.engine import Engine

from developer_telemetry.accounts import convert as convert_accounts
from developer_telemetry.accounts import developers_above
from developer_telemetry.cicd import convert_tasks, remove_tasks
from developer_telemetry.database import Progress, prepare
from developer_telemetry.extraction import reextract
from developer_telemetry.runs import CONVERT, EXTRACT, begin, complete


def extract(
    engine: Engine, connection_id: int, strategy: str, everything: bool = False
) -> Iterator[Progress]:
    """Rewrite tool rows from raw rows: of what is new or, if that is wanted or due, of all."""
    prepare(engine)
    run = begin(engine, connection_id, EXTRACT, strategy, everything)
    yield from reextract(engine, connection_id, strategy, run.above)
    complete(engine, run)


def convert(
    engine: Engine, connection_id: int, strategy: str, tasks: bool, everything: bool = False
) -> Iterator[Progress]:
    """Make accounts of the developers whose rows `extract` has looked at since the last time.

    With `tasks`, test runs and builds become tasks, too; without, there are none of them left.
    """
    prepare(engine)
    settings = f"{strategy} tasks" if tasks else strategy
    run = begin(engine, connection_id, CONVERT, settings, everything)
    developers = sorted(developers_above(engine, connection_id, run.above)) if run.above else None
    accounts = 0
    for accounts, total in convert_accounts(engine, connection_id, developers):
        yield Progress(accounts, total)
    if tasks:
        for done, _ in convert_tasks(engine, connection_id, developers):
            yield Progress(accounts + done, accounts + done)
    else:
        remove_tasks(engine, connection_id)
    complete(engine, run)
