"""The subtasks of a blueprint's run, on the reports that the run has to read.

Without the plugin in DevLake, a receiver calls `convert_new` for all of them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import NamedTuple, Optional

from sqlalchemy.engine import Engine

from developer_telemetry.database.advisory_lock import hold_connection
from developer_telemetry.database.engine import Progress, prepare
from developer_telemetry.pipeline.accounts import NewestRaw, read_newest_above
from developer_telemetry.pipeline.accounts import convert_accounts as convert_accounts
from developer_telemetry.pipeline.cicd_tasks import convert_tasks, remove_tasks
from developer_telemetry.pipeline.extract import reextract
from developer_telemetry.pipeline.user_links import link_accounts
from developer_telemetry.pipeline.watermarks import CONVERT, EXTRACT, begin, complete, has_settings
from developer_telemetry.storage.conversions import ConversionOptions


class Converted(NamedTuple):
    """The rows that a conversion has written so far; tasks are counted by their days."""

    accounts: int = 0
    tasks: int = 0
    links: int = 0


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
    with hold_connection(engine, connection_id) as still_alone:
        run = begin(engine, connection_id, CONVERT, _settings(strategy, tasks), everything)
        new = read_newest_above(engine, connection_id, run.above) if run.above else None
        for progress, _ in _count_converted(engine, connection_id, tasks, new):
            yield progress
            still_alone()
        complete(engine, run)


def convert_new(
    engine: Engine,
    connection_id: int,
    strategy: str,
    options: ConversionOptions,
    links_all: bool = True,
) -> Generator[Converted, None, None]:
    """Do the work of a scheduled run of a blueprint, and link accounts to users.

    Receivers write tool rows with their reports, so these are rewritten only after a change of the
    strategy, or by a release that reads reports in another way.

    The caller holds the connection's lock, and checks it after each step.
    """
    converted = Converted()
    has_same = has_settings(engine, connection_id, EXTRACT, strategy)
    everything = has_same is False
    if not has_same:
        run = begin(engine, connection_id, EXTRACT, strategy, everything, is_scheduled=True)
        # Without an earlier run, receivers have written all rows with their reports.
        if everything:
            for _ in reextract(engine, connection_id, strategy, run.above):
                yield converted
        complete(engine, run)
    settings = _settings(strategy, options.with_tasks)
    run = begin(engine, connection_id, CONVERT, settings, everything, is_scheduled=True)
    new = read_newest_above(engine, connection_id, run.above) if run.above else None
    for _, converted in _count_converted(
        engine, connection_id, options.with_tasks, new, is_gentle=True
    ):
        yield converted
    if options.with_links:
        developers = None if links_all or new is None else sorted(new)
        for links in link_accounts(engine, connection_id, developers):
            converted = converted._replace(links=links)
            yield converted
    complete(engine, run)


def _settings(strategy: str, tasks: bool) -> str:
    return f"{strategy} tasks" if tasks else strategy


def _count_converted(
    engine: Engine,
    connection_id: int,
    tasks: bool,
    new: Optional[Mapping[str, NewestRaw]],
    is_gentle: bool = False,
) -> Iterator[tuple[Progress, Converted]]:
    accounts = 0
    for accounts, total in convert_accounts(engine, connection_id, new, is_gentle):
        yield Progress(accounts, total), Converted(accounts)
    if tasks:
        developers = None if new is None else sorted(new)
        for done, _ in convert_tasks(engine, connection_id, developers):
            yield Progress(accounts + done, accounts + done), Converted(accounts, done)
    else:
        remove_tasks(engine, connection_id)
