"""`doctor`: collect the facts of an installation, then judge them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from developer_telemetry.config import Settings
from developer_telemetry.connections.devlake_backend import DevLakeBackend
from developer_telemetry.diagnostics.check import Check
from developer_telemetry.diagnostics.checks import CHECKS
from developer_telemetry.diagnostics.facts import Facts, collect


def examine(
    settings: Settings, report_url: Callable[[int], str], devlake: Optional[DevLakeBackend]
) -> list[Check]:
    """Return all checks of one installation, in the order of docs/doctor.md.

    Args:
        settings: Those of this command; without a database, its checks are skipped.
        report_url: The address to which machines send the reports of a connection.
        devlake: None skips the checks of DevLake's server.
    """
    return run_checks(collect(settings, report_url, devlake))


def run_checks(facts: Facts) -> list[Check]:
    """Return all checks of these facts."""
    return [check for check_of in CHECKS for check in check_of(facts)]
