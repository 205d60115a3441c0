"""Metrics for Prometheus. Labels have few values: ids of existing connections, and fixed words."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterable
from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from developer_telemetry import __version__
from developer_telemetry.storage.fleet.fleet_counts import FleetCounts

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The receiver's counters and gauges. All methods may be called from any thread."""

    def __init__(self) -> None:
        # Without this, each counter would have a second series with its creation time.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        by_connection = ["connection"]
        self._reports = self._counter(
            "telemetry_reports", "Reports by outcome", [*by_connection, "outcome"]
        )
        self._refusals = self._counter(
            "telemetry_refusals", "Reports refused, by reason", [*by_connection, "reason"]
        )
        self._drained = self._counter(
            "telemetry_drained", "Spooled reports stored in the database", []
        )
        self._dropped = self._counter(
            "telemetry_dropped", "Spooled reports deleted by an operator", []
        )
        self._conversions = self._counter(
            "telemetry_conversions",
            "Conversions of reports to accounts by this receiver, by outcome",
            [*by_connection, "outcome"],
        )
        self._accounts = self._counter(
            "telemetry_conversion_accounts", "Accounts written by conversions", by_connection
        )
        self._links = self._counter(
            "telemetry_conversion_links", "Accounts linked to users by conversions", by_connection
        )
        self._seconds = Histogram(
            "telemetry_request_seconds",
            "Time from a report's headers to its answer",
            ["status"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._batch = Histogram(
            "telemetry_batch_reports",
            "Reports in one transaction",
            buckets=SIZES,
            registry=self._registry,
        )
        # Looking up the labels of each answer takes as long as the observation.
        self._seconds_of = cache(self._seconds.labels)
        build = Info("telemetry_build", "The running release", registry=self._registry)
        build.info({"version": __version__})

    def stored(self, connection_ids: Iterable[int]) -> None:
        """Count one committed transaction, with a report for each of `connection_ids`."""
        ids = list(connection_ids)
        self._batch.observe(len(ids))
        for connection_id, count in Counts(ids).items():
            self._reports.labels(connection_id, "stored").inc(count)

    def spooled(self, connection_ids: Iterable[int]) -> None:
        """Count reports that were synced to the spool, one for each of `connection_ids`."""
        for connection_id in connection_ids:
            self._reports.labels(connection_id, "spooled").inc()

    def set_aside(self, connection_id: int) -> None:
        """Count a report that moved to the dead letters."""
        self._reports.labels(connection_id, "set_aside").inc()

    def refused(self, connection_id: int, reason: str) -> None:
        """Count a report that was answered with any status but 200."""
        self._reports.labels(connection_id, "refused").inc()
        self._refusals.labels(connection_id, reason).inc()

    def drained(self, count: int) -> None:
        """Count reports that were stored from the spool."""
        self._drained.inc(count)

    def dropped(self, count: int) -> None:
        """Count spooled reports of a deleted connection that an operator had deleted."""
        self._dropped.inc(count)

    def converted(self, connection_id: int, accounts: int, links: int, has_failed: bool) -> None:
        """Count a conversion and the rows that it has written."""
        self._conversions.labels(connection_id, "failed" if has_failed else "completed").inc()
        self._accounts.labels(connection_id).inc(accounts)
        self._links.labels(connection_id).inc(links)

    def answered(self, status: int, seconds: float) -> None:
        """Observe the time to the answer of a request for a report route."""
        self._seconds_of(status).observe(seconds)

    def gauge(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Add a gauge; `value` is called for each scrape."""
        Gauge(name, help_text, registry=self._registry).set_function(value)

    def fleet(self, read: Callable[[], FleetCounts]) -> None:
        """Add the numbers of machines; `read` is called for each scrape."""
        self._registry.register(_FleetCollector(read))

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, help_text: str, labels: list[str]) -> Counter:
        return Counter(name, help_text, labels, registry=self._registry)


class _FleetCollector(Collector):
    """Gauges of machines, whose connections and versions may be others at each scrape."""

    def __init__(self, read: Callable[[], FleetCounts]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that no figure is read before the first scrape."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield all gauges."""
        counts = self._read()
        states = GaugeMetricFamily(
            "telemetry_machines",
            "Machines by state, the same from every receiver",
            labels=["connection", "state"],
        )
        for (number, state), count in sorted(counts.states.items()):
            states.add_metric([str(number), state], count)
        versions = GaugeMetricFamily(
            "telemetry_collector_machines",
            "Machines that report, by the version of their collector",
            labels=["connection", "version"],
        )
        for (number, version), count in sorted(counts.versions.items()):
            versions.add_metric([str(number), version], count)
        seconds = GaugeMetricFamily(
            "telemetry_refused_machine_seconds",
            "Longest time for which all reports of a machine have been refused, 0 for none",
            labels=["connection"],
        )
        for number, value in sorted(counts.refused_seconds.items()):
            seconds.add_metric([str(number)], value)
        return (states, versions, seconds)
