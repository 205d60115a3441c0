"""What a blueprint run does: collect (nothing to fetch), extract, convert.

The SDK's own subtasks would delete raw rows to fetch them anew and empty the tool layer before
filling it. Reports are pushed and can't be fetched again, so these subtasks delete nothing.
"""

from collections.abc import Iterable, Iterator

from developer_telemetry.accounts import convert, developers_above
from developer_telemetry.cicd import convert_tasks, remove_tasks
from developer_telemetry.dialects import Progress, prepare
from developer_telemetry.extraction import reextract
from developer_telemetry.merging import RAW_TABLE, strategy_of
from developer_telemetry.models import DeveloperMetrics
from developer_telemetry.runs import CONVERT, EXTRACT, begin, complete
from pydevlake import Context, DomainType, Stream
from pydevlake.message import RemoteProgress
from pydevlake.model import DomainModel
from pydevlake.subtasks import Collector, Convertor, Extractor


class ReportCollector(Collector):
    """Raw rows come from the receiver; there is nothing to collect."""

    def run(self, ctx: Context, sync_point_interval: int = 0) -> Iterator[RemoteProgress]:
        yield RemoteProgress(increment=0, current=0, total=0)


class ReportExtractor(Extractor):
    """Rewrite tool rows from raw rows."""

    def run(self, ctx: Context, sync_point_interval: int = 0) -> Iterator[RemoteProgress]:
        engine, connection_id = prepare(ctx.engine), ctx.connection.id
        strategy = strategy_of(ctx.connection.duplicate_strategy)
        run = begin(engine, connection_id, EXTRACT, strategy)
        yield from _messages(reextract(engine, connection_id, strategy, run.above))
        complete(engine, run)


class ReportConvertor(Convertor):
    """Make one account a developer and, where that is wanted, tasks of test runs and builds."""

    def run(self, ctx: Context, sync_point_interval: int = 0) -> Iterator[RemoteProgress]:
        engine, connection_id = prepare(ctx.engine), ctx.connection.id
        settings = strategy_of(ctx.connection.duplicate_strategy)
        if ctx.scope_config.test_and_build_tasks:
            settings += " tasks"
        run = begin(engine, connection_id, CONVERT, settings)
        developers = (
            sorted(developers_above(engine, connection_id, run.above)) if run.above else None
        )
        yield from _messages(convert(engine, connection_id, developers))
        if ctx.scope_config.test_and_build_tasks:
            yield from _messages(convert_tasks(engine, connection_id, developers))
        else:
            remove_tasks(engine, connection_id)
        complete(engine, run)


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


def _messages(steps: Iterable[Progress]) -> Iterator[RemoteProgress]:
    before = 0
    for done, total in steps:
        yield RemoteProgress(increment=done - before, current=done, total=total)
        before = done
