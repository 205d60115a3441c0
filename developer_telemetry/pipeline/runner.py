"""The subtasks of a blueprint's run, on the reports that each run has to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Optional

from sqlalchemy.engine import Engine

from developer_telemetry.database.advisory_lock import hold_connection
from developer_telemetry.database.engine import Progress, prepare
from developer_telemetry.pipeline.accounts import NewestRaw, read_newest_above
from developer_telemetry.pipeline.accounts import convert_accounts as convert_accounts
from developer_telemetry.pipeline.cicd_tasks import convert_tasks, remove_tasks
from developer_telemetry.pipeline.extract import reextract
from developer_telemetry.pipeline.watermarks import CONVERT, EXTRACT, begin, complete


def extract(
    engine: Engine, connection_id: int, strategy: str, everything: bool = False
) -> Iterator[Progress]:
    """Rewrite tool rows from new raw rows, or from all of them if asked for or due."""
    prepare(engine)
    with hold_connection(engine, connection_id) as still_alone:
        run = begin(engine, connection_id, EXTRACT, strategy, everything)
        for progress in reextract(engine, connection_id, strategy, run.above):
            yield progress
            still_alone()
        complete(engine, run)


def convert(
    engine: Engine, connection_id: int, strategy: str, tasks: bool, everything: bool = False
) -> Iterator[Progress]:
    """Make accounts of the developers with new raw rows since the last run.

    With `tasks`, test runs and builds become tasks, too; without, all such tasks are deleted.
    """
    prepare(engine)
    settings = f"{strategy} tasks" if tasks else strategy
    with hold_connection(engine, connection_id) as still_alone:
        run = begin(engine, connection_id, CONVERT, settings, everything)
        new = read_newest_above(engine, connection_id, run.above) if run.above else None
        for progress in _converted(engine, connection_id, tasks, new):
            yield progress
            still_alone()
        complete(engine, run)


def _converted(
    engine: Engine, connection_id: int, tasks: bool, new: Optional[Mapping[str, NewestRaw]]
) -> Iterator[Progress]:
    accounts = 0
    for accounts, total in convert_accounts(engine, connection_id, new):
        yield Progress(accounts, total)
    if tasks:
        developers = None if new is None else sorted(new)
        for done, _ in convert_tasks(engine, connection_id, developers):
            yield Progress(accounts + done, accounts + done)
    else:
        remove_tasks(engine, connection_id)
