"""Test how raw reports are read."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import Connection as SqlConnection

from developer_telemetry.constants import OVERWRITE, SUM
from developer_telemetry.database.engine import open_engine
from developer_telemetry.database.migrate import migrate
from developer_telemetry.storage.raw_reports import read_newest
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival

REPORTS = 400
# MIN over a day's window read a row for each pair of the day's reports.
ROWS_READ_A_REPORT = 20


@pytest.mark.parametrize("strategy", [SUM, OVERWRITE])
def test_a_day_of_many_reports_is_read_by_their_number(mariadb_url: str, strategy: str) -> None:
    engine = open_engine(mariadb_url)
    migrate(engine)
    reports = [arrival(hostname=f"host-{n % 2}", after=n) for n in range(REPORTS)]
    store(engine, reports, {1: strategy})
    with engine.connect() as connection:
        before = _rows_read(connection)
        newest = read_newest(connection, [reports[0].key], strategy)
        rows_read = _rows_read(connection) - before
    engine.dispose()
    assert len(newest) == (2 if strategy == SUM else 1)
    assert {row.first_us for row in newest} == {min(report.arrived_us for report in reports)}
    assert REPORTS <= rows_read <= REPORTS * ROWS_READ_A_REPORT


def _rows_read(connection: SqlConnection) -> int:
    rows = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'", ()).fetchall()
    return sum(int(row[1]) for row in rows)
