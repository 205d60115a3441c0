"""Figures of groups of people in periods: distributions, sums and shares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import NamedTuple, Optional

from developer_telemetry.pipeline.visible_groups import Group, Values

DAY, WEEK, MONTH = "day", "week", "month"
QUARTER, HALF_YEAR, YEAR = "quarter", "half year", "year"


class Period(NamedTuple):
    """A span of time by its kind and first day."""

    grain: str
    start: date


class Figure(NamedTuple):
    """One figure of one group in one period, a row of the table.

    It is a share in percent or a distribution; `number` is how many values it is of, `total` their
    sum. `item` is the tool, command or repository that it is about, if any.
    """

    figure: str
    grain: str
    start: date
    grouped_by: str
    group_id: str
    people: int
    number: int
    share: Optional[float] = None
    first_quartile: Optional[float] = None
    median: Optional[float] = None
    third_quartile: Optional[float] = None
    total: Optional[float] = None
    item: str = ""


def summarize(figure: str, period: Period, values: Values, groups: Iterable[Group]) -> list[Figure]:
    """Return the distribution of the values of each group, and their sum."""
    rows = []
    for group in groups:
        numbers = sorted(number for person in group.people for number in values[person])
        key = (figure, *period, group.grouped_by, group.id)
        quartiles = take_quartiles(numbers)
        rows.append(
            Figure(*key, len(group.people), len(numbers), None, *quartiles, float(sum(numbers)))
        )
    return rows


def summarize_share(
    figure: str, period: Period, values: Values, groups: Iterable[Group]
) -> list[Figure]:
    """Return the share of each group's values that are 1 instead of 0."""
    rows = []
    for group in groups:
        numbers = [number for person in group.people for number in values[person]]
        share = 100.0 * sum(numbers) / len(numbers)
        key = (figure, *period, group.grouped_by, group.id)
        rows.append(Figure(*key, len(group.people), len(numbers), share))
    return rows


def take_quartiles(
    ranked: Sequence[float],
) -> tuple[Optional[float], Optional[float], Optional[float]]:
    """Return the smallest values that a quarter, half and three quarters don't exceed."""
    if not ranked:
        return None, None, None
    first, median, third = (ranked[math.ceil(n * len(ranked) / 4) - 1] for n in (1, 2, 3))
    return first, median, third


def monday_of(day: date) -> date:
    """Return the first day of a day's week."""
    return day - timedelta(days=day.weekday())
