"""The page's pictures: what is drawn is what was counted."""

from __future__ import annotations

import statistics
from datetime import date, datetime, timezone

import pytest

from developer_telemetry.receiver.web import charts
from developer_telemetry.receiver.web.data import queries
from developer_telemetry.receiver.web.data.fleet_queries import MachineDay

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
    assert (("Mon 16 Nov 2026", "40"), (days[2], days[2])) in chart.rows
    assert chart.bars[0].days == (days[2], days[2])
    assert len(chart.rows) == 10


def test_weeks_of_few_people_are_left_out() -> None:
    days = queries.days_before(date(2026, 11, 29), 21)
    hours = {days[0]: {5: 30}, days[7]: {6: 2}, days[14]: {7: 30}}

    chart = charts.hours_by_week(days, hours, {days[7]})

    assert [row.cells[2] for row in chart.rows] == ["7", "5"]
    assert chart.bars[1].days == (days[14], days[20])
    assert chart.note == "Left out: 1 week with active hours of fewer than 5 people."
    assert not charts.hours_by_week(days, hours, {days[0], days[7], days[14]}).bars


def test_a_machines_reports_have_a_bar_a_day() -> None:
    days = queries.days_before(date(2026, 11, 29), 7)
    arrived = datetime(2026, 11, 28, 9, 30, tzinfo=timezone.utc)

    chart = charts.reports_of_machine(days, [MachineDay(days[5], 2, arrived)])

    assert [bar.tooltip for bar in chart.bars] == ["Sat 28 Nov 2026: 2 reports"]
    assert chart.rows == [(("Sat 28 Nov 2026", "2", "2026-11-28 09:30 UTC"), None)]
    assert [label.text for label in chart.axis] == [charts.short(day) for day in days]
    assert charts.reports_of_machine(days, []).bars == []


@pytest.mark.parametrize(
    ("value", "highest"), [(0, 4), (3, 4), (5, 6), (40, 40), (41, 60), (4321, 6000), (9999, 10000)]
)
def test_an_axis_ends_in_a_round_number(value: float, highest: float) -> None:
    assert charts.nice_maximum(value) == highest
