"""Queries and panels about groups of people, which read the views of figures alone.

The receiver computes the figures, none of which is about fewer people than the smallest group.
"""

from __future__ import annotations

from collections.abc import Mapping

from dashboards.panels import Panel, Query
from dashboards.sql import COMPUTED, DAYS, WEEKS, Sql

EMPTY = "Nothing, or a group that is too small"
# What panels say of the weeks that they show.
COMPLETE = " Complete weeks from Monday; a week without a value has too few people."
OF_EVERYBODY = " Of everybody, whatever group is selected."


def quartile_columns(d: Sql) -> str:
    """Return the columns of a distribution under the names that panels show."""
    first, third = d.quoted("first quartile"), d.quoted("third quartile")
    return f"f.first_quartile AS {first}, f.median AS median, f.third_quartile AS {third}"


def value_of(figure: str, column: str) -> str:
    """Return a column of one figure, for a query that groups rows of several."""
    return f"MAX(CASE WHEN f.figure = '{figure}' THEN f.{column} END)"


def weekly(figure: str) -> Query:
    """Return the query for the quartiles of a figure by week."""

    def query(d: Sql) -> str:
        return f"""WITH {d.weeks()}
SELECT weeks.week AS time, {quartile_columns(d)}
FROM weeks LEFT JOIN {WEEKS} f ON f.week = weeks.week AND f.figure = '{figure}' AND {d.of_group()}
ORDER BY weeks.week"""

    return query


def totals_by_week(names: Mapping[str, str], column: str = "total") -> Query:
    """Return the query for sums by week, of figures with the names under which they are shown."""

    def query(d: Sql) -> str:
        figures = ", ".join(f"'{figure}'" for figure in names)
        columns = ", ".join(
            f"{value_of(figure, column)} AS {d.quoted(name)}" for figure, name in names.items()
        )
        return f"""WITH {d.weeks()}
SELECT weeks.week AS time, {columns}
FROM weeks LEFT JOIN {WEEKS} f ON f.week = weeks.week AND f.figure IN ({figures})
  AND {d.of_group()}
GROUP BY weeks.week ORDER BY weeks.week"""

    return query


def total(figure: str) -> Query:
    """Return the query for the sum of a figure over the selected weeks."""

    def query(d: Sql) -> str:
        return f"""SELECT SUM(f.total) AS value FROM {WEEKS} f
WHERE f.figure = '{figure}' AND {d.in_weeks()} AND {d.of_group()}"""

    return query


def newest(figure: str, column: str) -> Query:
    """Return the query for a column of the last week that is shown."""

    def query(d: Sql) -> str:
        return f"""SELECT f.{column} AS value FROM {WEEKS} f
WHERE f.figure = '{figure}' AND {d.in_weeks()} AND {d.of_group()}
ORDER BY f.week DESC LIMIT 1"""

    return query


def daily(column: str) -> Query:
    """Return the query for a column of everybody's active hours by day, or their quartiles."""

    def query(d: Sql) -> str:
        columns = quartile_columns(d) if column == "quartiles" else f"f.{column} AS {column}"
        return f"""WITH {d.days()}
SELECT days.day AS time, {columns}
FROM days LEFT JOIN {DAYS} f ON f.day = days.day AND f.figure = 'hours a day'
ORDER BY days.day"""

    return query


def smallest_group(d: Sql) -> str:
    """Return the query for the smallest group."""
    return f"SELECT smallest_group AS value FROM {COMPUTED}"


def computed(d: Sql) -> str:
    """Return the query for the time of the computation, in milliseconds."""
    return f"SELECT FLOOR(computed_us / 1000) AS value FROM {COMPUTED}"


SMALLEST_GROUP = Panel(
    "Smallest Group",
    "No figure is about fewer people: the largest setting of all connections. 1 switches the"
    " protection off.",
    "stat",
    smallest_group,
    empty="Not computed so far",
    width=4,
)
FIGURES_COMPUTED = Panel(
    "Figures Computed",
    "When the receiver computed all figures about people; it does so every one to six hours.",
    "stat",
    computed,
    unit="dateTimeFromNow",
    empty="Not computed so far",
    width=4,
)
