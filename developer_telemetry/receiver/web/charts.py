"""From figures to shapes. Horizontal places are percentages and vertical ones pixels, so that a
picture fills any width and its texts keep their size."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Optional

from developer_telemetry.receiver.web.queries import Hours

# Room above the highest value for its label, and below the plot for the days.
TOP, PLOT, BOTTOM = 16.0, 140.0, 24.0
HOURS_A_DAY = 24


class Bar(NamedTuple):
    """A rectangle; `said` is shown when it is pointed at."""

    left: float
    width: float
    top: float
    height: float
    said: str
    middle: Optional[float] = None  # of a spread: where its median is


class Label(NamedTuple):
    """A text on an axis; every second one on the lower axis gives way on a narrow screen."""

    place: float
    text: str
    gives_way: bool = False


class Chart(NamedTuple):
    """Bars between axes, and the same as rows of texts for whoever can't see them."""

    bars: Sequence[Bar]
    grid: Sequence[Label]
    axis: Sequence[Label]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    height: float = TOP + PLOT + BOTTOM
    floor: float = TOP + PLOT


class Spread(NamedTuple):
    """The middle half of some values, their median, and how many they are."""

    lower: float
    median: float
    upper: float
    days: int


def reports_by_day(days: Sequence[datetime.date], hours: Hours) -> Chart:
    """A bar for each day's reports."""
    counts = {day: sum(hours.get(day, {}).values()) for day in days}
    highest = nice_maximum(max(counts.values()))
    slot = 100 / len(days)
    bars = [
        _bar(slot * place, slot, counts[day] / highest, f"{full(day)}: {plural(counts[day])}")
        for place, day in enumerate(days)
        if counts[day]
    ]
    mondays = [place for place, day in enumerate(days) if day.weekday() == 0]
    axis = [
        Label(slot * (place + 0.5), short(days[place]), bool(number % 4))
        for number, place in enumerate(mondays)
        if number % 2 == 0 and slot * place < 94
    ]
    rows = [(full(day), f"{counts[day]:,}") for day in reversed(days)]
    return Chart(bars, _grid(highest), axis, ("Day", "Reports"), rows)


def hours_by_week(days: Sequence[datetime.date], hours: Hours) -> Chart:
    """For each week the middle half of active hours a day, and their median."""
    weeks = sorted({monday(day) for day in days})
    spreads = {week: spread(hours, week) for week in weeks}
    highest = nice_maximum(max((each.upper for each in spreads.values() if each), default=1))
    slot = 100 / len(weeks)
    bars, rows = [], []
    for place, week in enumerate(weeks):
        found = spreads[week]
        if found is None:
            continue
        said = (
            f"Week of {short(week)}: half of all days between {found.lower:g} h and"
            f" {found.upper:g} h, median {found.median:g} h, of {found.days:,} days"
        )
        bar = _bar(slot * place, slot, found.upper / highest, said)
        height = max(3.0, PLOT * (found.upper - found.lower) / highest)
        middle = TOP + PLOT * (1 - found.median / highest)
        bars.append(bar._replace(height=height, middle=min(middle, TOP + PLOT - 3)))
        numbers = (f"{value:g}" for value in (found.lower, found.median, found.upper))
        rows.append((full(week), *numbers, f"{found.days:,}"))
    axis = [
        Label(slot * (place + 0.5), short(week), bool(place % 4))
        for place, week in enumerate(weeks)
        if place % 2 == 0
    ]
    head = ("Week of", "Lower quartile", "Median", "Upper quartile", "Days reported")
    return Chart(bars, _grid(highest), axis, head, rows[::-1])


def spread(hours: Hours, week: datetime.date) -> Optional[Spread]:
    """Quartiles of the active hours of one week's days with any; None if there are none."""
    counts: dict[int, int] = {}
    for back in range(7):
        for active, count in hours.get(week + datetime.timedelta(days=back), {}).items():
            if active > 0:
                counts[active] = counts.get(active, 0) + count
    total = sum(counts.values())
    if not total:
        return None
    lower, median, upper = (_quantile(counts, total, share) for share in (0.25, 0.5, 0.75))
    return Spread(lower, median, upper, total)


def _quantile(counts: dict[int, int], total: int, share: float) -> float:
    """Between the two values nearest to that share of all, as spreadsheets do it."""
    place = share * (total - 1)
    below, above = (_nth(counts, step(place)) for step in (math.floor, math.ceil))
    return round(below + (above - below) * (place - math.floor(place)), 2)


def _nth(counts: dict[int, int], place: int) -> int:
    for value in sorted(counts):
        place -= counts[value]
        if place < 0:
            return value
    raise AssertionError("unreachable")


def shares(counts: Iterable[int]) -> list[tuple[float, float]]:
    """Where on a bar of 100 each of these counts starts, and how long it is."""
    counts = list(counts)
    total = sum(counts) or 1
    placed, start = [], 0.0
    for count in counts:
        placed.append((start, 100 * count / total))
        start += 100 * count / total
    return placed


def nice_maximum(value: float) -> float:
    """The next number above that four steps reach in round numbers."""
    value = max(value, 1)
    power = 10 ** math.floor(math.log10(value))
    steps = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)
    highest = next(step * power for step in steps if step * power >= value)
    return highest if highest >= 4 else 4


def _grid(highest: float) -> list[Label]:
    return [
        Label(TOP + PLOT * (1 - part / 4), f"{highest * part / 4:,g}") for part in range(4, -1, -1)
    ]


def _bar(left: float, slot: float, share: float, said: str) -> Bar:
    height = max(1.5, PLOT * share)  # one report among thousands still shows
    return Bar(left + slot * 0.14, slot * 0.72, TOP + PLOT - height, height, said)


def monday(day: datetime.date) -> datetime.date:
    """The first day of its week."""
    return day - datetime.timedelta(days=day.weekday())


def short(day: datetime.date) -> str:
    """As in `3 Nov`."""
    return f"{day.day} {day:%b}"


def full(day: datetime.date) -> str:
    """As in `Mon 3 Nov 2026`."""
    return f"{day:%a} {day.day} {day:%b %Y}"


def plural(count: int) -> str:
    """As in `1 report` and `2 reports`."""
    return f"{count:,} report{'' if count == 1 else 's'}"
