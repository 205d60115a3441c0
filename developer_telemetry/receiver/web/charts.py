"""Charts of the page, computed from counts.

Horizontal positions are percentages and vertical ones are pixels, so that a chart fills any width
and its texts keep their size.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Optional

from developer_telemetry.receiver.web.data.day_queries import FEWEST_PEOPLE, Hours
from developer_telemetry.receiver.web.data.fleet_queries import MachineDay

# Room above the highest value for its label, and below the plot for the days, in pixels.
TOP, PLOT, BOTTOM = 16.0, 140.0, 24.0


# The first and the last of consecutive days.
Days = tuple[datetime.date, datetime.date]


class Bar(NamedTuple):
    """A rectangle; a browser shows `tooltip` under the pointer."""

    left: float
    width: float
    top: float
    height: float
    tooltip: str
    days: Optional[Days] = None  # the days whose rows it counts; None if no list has them
    median: Optional[float] = None  # vertical position; None for a bar that shows no spread


class Label(NamedTuple):
    """A text on an axis; a narrow screen hides the optional ones."""

    position: float
    text: str
    is_optional: bool = False


class Row(NamedTuple):
    """A row of the table beside a chart, and the days whose rows it counts, if a list has them."""

    cells: Sequence[str]
    days: Optional[Days] = None


class Chart(NamedTuple):
    """Bars between axes, and the same values as a table for readers who can't see the bars."""

    bars: Sequence[Bar]
    grid: Sequence[Label]
    axis: Sequence[Label]
    head: Sequence[str]
    rows: Sequence[Row]
    # A sentence about values that are not shown.
    note: str = ""
    height: float = TOP + PLOT + BOTTOM
    floor: float = TOP + PLOT


class Spread(NamedTuple):
    """The quartiles of active hours a day, and the number of days."""

    lower: float
    median: float
    upper: float
    days: int

    def sentence(self, week: datetime.date) -> str:
        """Return the quartiles as a tooltip."""
        return (
            f"Week of {short(week)}: half of all days between {self.lower:g} h and"
            f" {self.upper:g} h, median {self.median:g} h, of {self.days:,} days"
        )

    def row(self, week: datetime.date) -> Sequence[str]:
        """Return the quartiles as a row of the chart's table."""
        quartiles = (f"{value:g}" for value in (self.lower, self.median, self.upper))
        return (full(week), *quartiles, f"{self.days:,}")


def reports_by_day(days: Sequence[datetime.date], hours: Hours) -> Chart:
    """Return a chart with a bar for each day that has reports."""
    counts = {day: sum(hours.get(day, {}).values()) for day in days}
    bars, grid = _bars_by_day(days, counts)
    rows = [Row((full(day), f"{counts[day]:,}"), (day, day)) for day in reversed(days)]
    return Chart(
        [bar._replace(days=(days[column], days[column])) for column, bar in bars],
        grid,
        _axis_of_days(days),
        ("Day", "Reports"),
        rows,
    )


def reports_of_machine(days: Sequence[datetime.date], reported: Sequence[MachineDay]) -> Chart:
    """Return a chart of one machine's reports by day, and when the last of each day arrived."""
    counts = {day.day: day.reports for day in reported}
    bars, grid = _bars_by_day(days, counts)
    rows = [
        Row((full(day.day), f"{day.reports:,}", f"{day.arrived:%Y-%m-%d %H:%M} UTC"))
        for day in reported
    ]
    head = ("Day", "Reports", "Newest report")
    return Chart([bar for _, bar in bars], grid, _axis_of_days(days), head, rows)


def _bars_by_day(
    days: Sequence[datetime.date], counts: Mapping[datetime.date, int]
) -> tuple[list[tuple[int, Bar]], list[Label]]:
    """Return a bar for each day that has reports, with the day's position, and the scale."""
    highest = nice_maximum(max(counts.values(), default=0))
    slot = 100 / len(days)
    bars = []
    for column, day in enumerate(days):
        if count := counts.get(day):
            tooltip = f"{full(day)}: {plural(count)}"
            bars.append((column, _bar(slot * column, slot, count / highest, tooltip)))
    return bars, _grid(highest)


def _axis_of_days(days: Sequence[datetime.date]) -> list[Label]:
    """Return labels for the days of a week, or for as many Mondays as have room."""
    slot = 100 / len(days)
    if len(days) <= 7:
        return [
            Label(slot * (column + 0.5), short(day), bool(column % 2))
            for column, day in enumerate(days)
        ]
    mondays = [column for column, day in enumerate(days) if day.weekday() == 0]
    step = 1 if len(mondays) <= 7 else 2
    return [
        Label(slot * (column + 0.5), short(days[column]), bool(number % (2 * step)))
        for number, column in enumerate(mondays)
        if number % step == 0 and slot * column < 94
    ]


def hours_by_week(
    days: Sequence[datetime.date], hours: Hours, hidden: Collection[datetime.date] = ()
) -> Chart:
    """Return a chart of each week's quartiles of active hours a day.

    Args:
        days: The days of all weeks; the first one is a Monday.
        hours: Counts of days by active hours.
        hidden: The Mondays of weeks that are left out, as too few people have active hours.
    """
    weeks = sorted({monday(day) for day in days})
    spreads = {week: None if week in hidden else spread(hours, week) for week in weeks}
    highest = nice_maximum(max((s.upper for s in spreads.values() if s), default=1))
    slot = 100 / len(weeks)
    bars, rows = [], []
    for column, week in enumerate(weeks):
        quartiles = spreads[week]
        if quartiles is not None:
            period = (week, week + datetime.timedelta(days=6))
            bar = _spread_bar(slot * column, slot, quartiles, highest, week)
            bars.append(bar._replace(days=period))
            rows.append(Row(quartiles.row(week), period))
    axis = [
        Label(slot * (column + 0.5), short(week), len(weeks) > 6 and bool(column % 4))
        for column, week in enumerate(weeks)
        if column % 2 == 0 or len(weeks) <= 6
    ]
    head = ("Week of", "Lower quartile", "Median", "Upper quartile", "Days reported")
    return Chart(bars, _grid(highest), axis, head, rows[::-1], _note(len(hidden)))


def _note(hidden: int) -> str:
    if not hidden:
        return ""
    weeks = "1 week" if hidden == 1 else f"{hidden} weeks"
    return f"Left out: {weeks} with active hours of fewer than {FEWEST_PEOPLE} people."


def weeks_of(hours: Hours) -> list[datetime.date]:
    """Return the Mondays of the weeks that have days."""
    return sorted({monday(day) for day in hours})


def spread(hours: Hours, week: datetime.date) -> Optional[Spread]:
    """Return the quartiles of one week's active hours a day; None without an active day.

    Args:
        hours: counts of days; those without an active hour are left out.
        week: its first day.
    """
    counts: dict[int, int] = {}
    for offset in range(7):
        for active, count in hours.get(week + datetime.timedelta(days=offset), {}).items():
            if active > 0:
                counts[active] = counts.get(active, 0) + count
    total = sum(counts.values())
    if not total:
        return None
    lower, median, upper = (_quantile(counts, total, share) for share in (0.25, 0.5, 0.75))
    return Spread(lower, median, upper, total)


def _quantile(counts: dict[int, int], total: int, share: float) -> float:
    """Interpolate between the two nearest values, as spreadsheets do."""
    rank = share * (total - 1)
    below, above = (_nth(counts, rounded(rank)) for rounded in (math.floor, math.ceil))
    return round(below + (above - below) * (rank - math.floor(rank)), 2)


def _nth(counts: dict[int, int], rank: int) -> int:
    """Return the value at a rank, from 0, among values that occur `counts` times."""
    for value in sorted(counts):
        rank -= counts[value]
        if rank < 0:
            return value
    raise AssertionError("unreachable")


def shares(counts: Iterable[int]) -> list[tuple[float, float]]:
    """Return the start and the length of each count on a bar that is 100 long."""
    counts = list(counts)
    total = sum(counts) or 1
    parts, start = [], 0.0
    for count in counts:
        parts.append((start, 100 * count / total))
        start += 100 * count / total
    return parts


def nice_maximum(value: float) -> float:
    """Return the end of an axis up to `value`, at least 4: four steps divide it into round numbers.

    The result is `value` itself or the next such number above it.
    """
    value = max(value, 1)
    power = 10 ** math.floor(math.log10(value))
    steps = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)
    highest = next(step * power for step in steps if step * power >= value)
    return highest if highest >= 4 else 4


def _grid(highest: float) -> list[Label]:
    return [
        Label(TOP + PLOT * (1 - part / 4), f"{highest * part / 4:,g}") for part in range(4, -1, -1)
    ]


def _bar(left: float, slot: float, share: float, tooltip: str) -> Bar:
    """Return a bar from the floor up to `share` (0 to 1) of the plot's height."""
    height = max(1.5, PLOT * share)  # one report among thousands stays visible
    return Bar(left + slot * 0.14, slot * 0.72, TOP + PLOT - height, height, tooltip)


def _spread_bar(
    left: float, slot: float, quartiles: Spread, highest: float, week: datetime.date
) -> Bar:
    """Return a bar from the lower to the upper quartile, with the median on it."""
    bar = _bar(left, slot, quartiles.upper / highest, quartiles.sentence(week))
    height = max(3.0, PLOT * (quartiles.upper - quartiles.lower) / highest)
    median = TOP + PLOT * (1 - quartiles.median / highest)
    return bar._replace(height=height, median=min(median, TOP + PLOT - 3))


def monday(day: datetime.date) -> datetime.date:
    """Return the first day of the week of `day`."""
    return day - datetime.timedelta(days=day.weekday())


def short(day: datetime.date) -> str:
    """Format a day as in `3 Nov`."""
    return f"{day.day} {day:%b}"


def full(day: datetime.date) -> str:
    """Format a day as in `Mon 3 Nov 2026`."""
    return f"{day:%a} {day.day} {day:%b %Y}"


def plural(count: int) -> str:
    """Format a count as in `1 report` and `2 reports`."""
    return f"{count:,} report{'' if count == 1 else 's'}"
