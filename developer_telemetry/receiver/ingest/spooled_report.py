"""A report in the spool, and its conversion from and to a received one."""

from __future__ import annotations

import zlib
from typing import NamedTuple, Optional

from developer_telemetry.errors import ReportRefused
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.reports.parser import Report, parse
from developer_telemetry.storage.tombstones import (
    Tombstones,
)


class SpooledReport(NamedTuple):
    """A report in the spool: the values of the raw layer, and none parsed from the body."""

    report_id: str
    connection_id: int
    arrived_us: int
    payload: str
    epoch: int = 0  # of the receiver's knowledge of erasures when it arrived

    @property
    def checksum(self) -> int:
        """The checksum that reveals damage by the disk; SQLite has none."""
        fields = f"{self.report_id}\n{self.connection_id}\n{self.arrived_us}\n{self.payload}"
        return zlib.crc32(fields.encode())


def make_spooled_report(arrival: ReceivedReport) -> SpooledReport:
    """Return the part of an arrival that the spool keeps."""
    return SpooledReport(
        arrival.report_id,
        arrival.connection_id,
        arrival.arrived_us,
        arrival.report.payload,
        arrival.epoch,
    )


def restore_report(spooled: SpooledReport, report: Report) -> ReceivedReport:
    """Return the received report of a spooled one."""
    return ReceivedReport(
        spooled.report_id,
        spooled.connection_id,
        spooled.arrived_us,
        report,
        epoch=spooled.epoch,
    )


def is_erased(tombstones: Tombstones, report: SpooledReport) -> bool:
    """Return true if a report is, or may be, of a person erased since its arrival."""
    arrival = parse_spooled(report)
    if arrival is None:
        return tombstones.may_be_covered(report.connection_id, report.arrived_us, report.epoch)
    return tombstones.covers(arrival)


def parse_spooled(report: SpooledReport) -> Optional[ReceivedReport]:
    """Return a report of the spool as it arrived; None if the disk damaged it."""
    try:
        return restore_report(report, parse(report.payload))
    except ReportRefused:  # a damaged report names no person
        return None
