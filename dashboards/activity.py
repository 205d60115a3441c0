"""When do people work at their machines, and on how many things at once?"""

from __future__ import annotations

from dashboards.groups import (
    COMPLETE,
    EMPTY,
    FIGURES_COMPUTED,
    OF_EVERYBODY,
    SMALLEST_GROUP,
    daily,
    newest,
    totals_by_week,
    value_of,
    weekly,
)
from dashboards.panels import Dashboard, Panel, Row
from dashboards.sql import DAYS, PERIODS, WEEKS, Sql

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def teams_of_last_week(d: Sql) -> str:
    return f"""WITH newest AS (
  SELECT MAX(f.week) AS week FROM {WEEKS} f
  WHERE f.figure = 'hours a day' AND f.grouped_by = 'everybody' AND {d.in_weeks()}
)
SELECT t.name AS team, {value_of("hours a week", "people")} AS developers,
  {value_of("hours a day", "number")} AS {d.quoted("active developer days")},
  {value_of("hours a day", "first_quartile")} AS {d.quoted("first quartile")},
  {value_of("hours a day", "median")} AS median,
  {value_of("hours a day", "third_quartile")} AS {d.quoted("third quartile")},
  {value_of("hours a week", "total")} AS {d.quoted("sum of hours")},
  {d.variable_text("t.id")} AS {d.quoted("key")}
FROM newest JOIN {WEEKS} f ON f.week = newest.week JOIN teams t ON {d.exact("t.id")} = f.group_id
WHERE f.figure IN ('hours a day', 'hours a week') AND f.grouped_by = 'team'
GROUP BY t.id, t.name ORDER BY t.name, t.id"""


def hours_by_weekday(d: Sql) -> str:
    names = " UNION ALL ".join(
        f"SELECT {n} AS n, '{name}' AS name" for n, name in enumerate(WEEKDAYS)
    )
    return f"""WITH weekdays AS (
  {names}
), sums AS (
  SELECT {d.weekday("f.day")} AS n, SUM(f.total) / SUM(f.number) AS hours
  FROM {DAYS} f WHERE f.figure = 'hours a day' AND f.day BETWEEN {d.first_day} AND {d.last_day}
  GROUP BY {d.weekday("f.day")}
)
SELECT weekdays.name AS weekday, sums.hours AS {d.quoted("hours a developer")}
FROM weekdays LEFT JOIN sums ON sums.n = weekdays.n ORDER BY weekdays.n"""


def active_by_month(d: Sql) -> str:
    return f"""SELECT f.first_day AS time, f.people AS developers
FROM {PERIODS} f
WHERE f.period = 'month' AND f.figure = 'active developers' AND {d.of_group()}
  AND f.first_day BETWEEN {d.first_day} AND {d.last_day}
ORDER BY f.first_day"""


def projects_a_day(d: Sql) -> str:
    mean = f"{value_of('projects a day', 'total')} / {value_of('projects a day', 'number')}"
    return f"""WITH {d.weeks()}
SELECT weeks.week AS time, {mean} AS {d.quoted("projects a day (mean)")},
  {value_of("days with many projects", "share")} AS {d.quoted("days with three or more")}
FROM weeks LEFT JOIN {WEEKS} f ON f.week = weeks.week
  AND f.figure IN ('projects a day', 'days with many projects') AND {d.of_group()}
GROUP BY weeks.week ORDER BY weeks.week"""


HOURS_OF_DAYS = Panel(
    "Active Hours of a Developer's Day by Week",
    "Median and quartiles of the days with at least one active hour: days without a report are"
    " not in them." + COMPLETE,
    "timeseries",
    weekly("hours a day"),
    unit="h",
    empty=EMPTY,
)
HOURS_BY_WEEK = Panel(
    "Active Hours of a Developer's Week",
    "Median and quartiles of each developer's sum over a week, of those with at least one active"
    " hour." + COMPLETE,
    "timeseries",
    weekly("hours a week"),
    unit="h",
    empty=EMPTY,
)
TOTAL_HOURS_BY_WEEK = Panel(
    "Sum of Active Hours by Week",
    "All active hours reported for the days of a week. Grows with the number of developers."
    + COMPLETE,
    "timeseries",
    totals_by_week({"hours a week": "hours"}),
    unit="h",
    bars=True,
    empty=EMPTY,
)
ACTIVE = Panel(
    "Active Developers [Last Week of Selected Time Range]",
    "Developers with at least one active hour in the last complete week that has enough of them.",
    "stat",
    newest("hours a week", "people"),
    width=6,
    empty=EMPTY,
)
ACTIVE_BY_WEEK = Panel(
    "Active Developers by Week",
    "Developers with at least one active hour in the week." + COMPLETE,
    "timeseries",
    totals_by_week({"hours a week": "developers"}, "people"),
    bars=True,
    empty=EMPTY,
)
PROJECTS_A_DAY = Panel(
    "Projects of an Active Developer's Day [Each Week]",
    "How many projects were worked on between which attention went back and forth: the mean, and"
    " the share of days with three or more. Reported projects only." + COMPLETE,
    "timeseries",
    projects_a_day,
    units=(("days with three or more", "percent"),),
    empty=EMPTY,
)

ACTIVITY = Dashboard(
    "developer-telemetry-activity.json",
    "activity",
    "Developer Telemetry: Activity",
    """- Use Cases: see the rhythm of work: how long, on which days, on how many projects at once.
- Data Source Required: Developer Telemetry. Team and project need DevLake's users, teams and \
projects.
- Counted: groups of people alone, never fewer than the smallest group, over complete weeks: hours \
in which a machine saw activity, 24 a day at most. Not counted: meetings, reading, thinking, and \
work on machines without a collector. These are no hours of work, and say nothing about a person's \
performance.""",
    (
        Row(
            "Active Hours",
            (
                Panel(
                    "Median Active Hours of a Developer's Day [Last Week of Selected Time Range]",
                    "Of the days with at least one active hour in the last complete week that has"
                    " enough people.",
                    "stat",
                    newest("hours a day", "median"),
                    unit="h",
                    width=4,
                    empty=EMPTY,
                ),
                HOURS_OF_DAYS,
                SMALLEST_GROUP,
                FIGURES_COMPUTED,
                HOURS_BY_WEEK,
                TOTAL_HOURS_BY_WEEK,
                Panel(
                    "Active Hours of a Developer's Day by Team [Last Week of Selected Time Range]",
                    "Median and quartiles of days with at least one active hour, in the order of"
                    " the teams' names. Who is in two teams counts in both. Teams that are too"
                    " small, or of which a few people would be left beside others, are missing.",
                    "table",
                    teams_of_last_week,
                    linked="team",
                    link=("team", "See the team", "team"),
                    empty=EMPTY,
                ),
                Panel(
                    "Active Hours of a Developer's Day [Everybody]",
                    "Median and quartiles of everybody with at least one active hour on the day."
                    " A day on which too few people were active has no value and counts nowhere."
                    + OF_EVERYBODY,
                    "timeseries",
                    daily("quartiles"),
                    unit="h",
                    empty=EMPTY,
                ),
                Panel(
                    "Mean Active Hours of a Developer by Day of the Week [Everybody]",
                    "Over the days with at least one active hour." + OF_EVERYBODY,
                    "barchart",
                    hours_by_weekday,
                    unit="h",
                    width=24,
                    empty=EMPTY,
                ),
            ),
        ),
        Row(
            "Active Developers",
            (
                ACTIVE,
                Panel(
                    "Active Developers by Day [Everybody]",
                    "Developers with at least one active hour on the day." + OF_EVERYBODY,
                    "timeseries",
                    daily("people"),
                    width=18,
                    empty=EMPTY,
                ),
                ACTIVE_BY_WEEK,
                Panel(
                    "Active Developers by Month",
                    "Developers with at least one active hour in the month, as far as its weeks"
                    " are complete.",
                    "timeseries",
                    active_by_month,
                    bars=True,
                    empty=EMPTY,
                ),
            ),
        ),
        Row("Context Switching", (PROJECTS_A_DAY._replace(width=24),)),
    ),
    about="groups",
)
