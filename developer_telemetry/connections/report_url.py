"""The paths under which a receiver accepts reports, and the URL for machines."""

from __future__ import annotations

# The first is ours, for machines; the others are those of DevLake's own plugins, behind its server
# and behind its front proxy.
REPORT_PATHS = (
    "/plugins/developer-telemetry/{connection_id}/report",
    "/plugins/developer_telemetry/connections/{connection_id}/report",
    "/rest/plugins/developer_telemetry/connections/{connection_id}/report",
)
COLLECTOR_PATH = "/plugins/developer-telemetry/collector.pyz"
# The version of the collector that a receiver sends there.
COLLECTOR_HEADER = "X-Collector-Version"
BULK_PATH = "/plugins/developer-telemetry/{connection_id}/reports"


def report_url(base_url: str, connection_id: int) -> str:
    """Return the URL for a connection's reports.

    Args:
        base_url: Scheme, host and port, and the path of a proxy, without a slash at its end.
    """
    return base_url + REPORT_PATHS[0].format(connection_id=connection_id)


def devlake_path(connection_id: int) -> str:
    """Return the path with which the allowed path of one of DevLake's API keys is compared."""
    return REPORT_PATHS[1].format(connection_id=connection_id)
