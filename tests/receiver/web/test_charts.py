"""The page's pictures: what is drawn is what was counted."""

from __future__ import annotations

import statistics
from datetime import date

import pytest

from developer_telemetry.receiver.web import charts, queries

TODAY = queries.today()


def test_quartiles_are_those_of_the_values_themselves() -> None:
    values = [1, 1, 2, 5, 6, 6, 6, 7, 9, 0]
    week = charts.monday(TODAY)
    hours = {week: {value: values.count(value) for value in values}}
    worked = [value for value in values if value]

    found = charts.spread(hours, week)

    assert found is not None
    quartiles = statistics.quantiles(worked, n=4, method="inclusive")
    assert list(found) == [*quartiles, len(worked)]
    assert charts.spread({week: {0: 3}}, week) is None


def test_bars_are_in_proportion_and_say_what_they_are() -> None:
    days = queries.days_before(date(2026, 11, 23), 10)
    hours = {days[2]: {5: 30, 0: 10}, days[9]: {4: 1}}

    chart = charts.reports_by_day(days, hours)

    assert [bar.tooltip for bar in chart.bars] == [
        "Mon 16 Nov 2026: 40 reports",
        "Mon 23 Nov 2026: 1 report",
    ]
    assert chart.bars[0].height == charts.PLOT
    assert chart.bars[0].top + chart.bars[0].height == chart.floor
    assert [line.text for line in chart.grid] == ["40", "30", "20", "10", "0"]
    assert ("Mon 16 Nov 2026", "40") in chart.rows
    assert len(chart.rows) == 10


@pytest.mark.parametrize(
    ("value", "highest"), [(0, 4), (3, 4), (5, 6), (40, 40), (41, 60), (4321, 6000), (9999, 10000)]
)
def test_an_axis_ends_in_a_round_number(value: float, highest: float) -> None:
    assert charts.nice_maximum(value) == highest
