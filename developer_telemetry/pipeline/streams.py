"""The steps of a blueprint's run: collect (nothing to fetch), extract, convert.

The SDK's own subtasks would delete raw rows to fetch them anew and empty the tool layer before
filling it. Reports are pushed and can't be fetched again, so these subtasks delete nothing.
They import their work when they run, since no other call of the plugin needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from developer_telemetry.constants import RAW_TABLE, strategy_of
from developer_telemetry.models import DeveloperMetrics
from pydevlake import Context, DomainType, Stream
from pydevlake.message import RemoteProgress
from pydevlake.model import DomainModel
from pydevlake.subtasks import Collector, Convertor, Extractor

if TYPE_CHECKING:
    from developer_telemetry.database.engine import Progress


class ReportCollector(Collector):
    """Raw rows come from the receiver; there is nothing to collect."""

    def run(self, ctx: Context, sync_point_interval: int = 0) -> Iterator[RemoteProgress]:
        yield RemoteProgress(increment=0, current=0, total=0)


class ReportExtractor(Extractor):
    """Rewrite tool rows from raw rows."""

    def run(self, ctx: Context, sync_point_interval: int = 0) -> Iterator[RemoteProgress]:
        from developer_telemetry.pipeline.ownership import record_devlake
        from developer_telemetry.pipeline.runner import extract

        record_devlake(ctx.engine)
        strategy = strategy_of(ctx.connection.duplicate_strategy)
        yield from _to_messages(extract(ctx.engine, ctx.connection.id, strategy))


class ReportConvertor(Convertor):
    """Make one account a developer and, if enabled, tasks of test runs and builds."""

    def run(self, ctx: Context, sync_point_interval: int = 0) -> Iterator[RemoteProgress]:
        from developer_telemetry.pipeline.ownership import record_devlake
        from developer_telemetry.pipeline.runner import convert

        record_devlake(ctx.engine)
        strategy = strategy_of(ctx.connection.duplicate_strategy)
        tasks = bool(ctx.scope_config.test_and_build_tasks)
        yield from _to_messages(convert(ctx.engine, ctx.connection.id, strategy, tasks))


class Reports(Stream):
    """The reports of a connection."""

    def __init__(self, plugin_name: str) -> None:
        super().__init__(plugin_name)
        self.collector = ReportCollector(self)
        self.extractor = ReportExtractor(self)
        self.convertor = ReportConvertor(self)

    tool_model = DeveloperMetrics
    domain_types: list[DomainType] = [DomainType.CROSS]
    raw_model_table = RAW_TABLE

    @property
    def domain_models(self) -> list[type[DomainModel]]:
        from pydevlake.domain_layer.crossdomain import Account

        return [Account]


def _to_messages(steps: Iterable[Progress]) -> Iterator[RemoteProgress]:
    before = 0
    for done, total in steps:
        yield RemoteProgress(increment=done - before, current=done, total=total)
        before = done
