"""When do people work at their machines, and on how many things at once?"""

from __future__ import annotations

from dashboards.panels import Dashboard, Panel, Row
from dashboards.sql import METRICS, SAMPLED, Sql

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _quartile_columns(d: Sql) -> str:
    return f"q1 AS {d.quoted('first quartile')}, q2 AS median, q3 AS {d.quoted('third quartile')}"


def median_hours(d: Sql) -> str:
    return f"""WITH hours AS (
  SELECT 1 AS everything, m.active_hours AS value FROM {METRICS} m
  WHERE m.active_hours > 0 AND {d.selected()}
), {d.quartiles("hours", "everything")}
SELECT q2 AS value FROM quartiles"""


def hours_by_day(d: Sql) -> str:
    return f"""WITH {d.days()}, hours AS (
  SELECT m.date, m.active_hours AS value FROM {METRICS} m
  WHERE m.active_hours > 0 AND {d.selected()}
), {d.quartiles("hours", "date")}
SELECT days.day AS time, {_quartile_columns(d)}
FROM days LEFT JOIN quartiles ON quartiles.date = days.day ORDER BY days.day"""


def hours_by_week(d: Sql) -> str:
    return f"""WITH {d.weeks()}, hours AS (
  SELECT {d.week("m.date")} AS week, SUM(m.active_hours) AS value FROM {METRICS} m
  WHERE m.active_hours > 0 AND {d.selected()}
  GROUP BY {d.week("m.date")}, {d.person("m")}
), {d.quartiles("hours", "week")}
SELECT weeks.week AS time, {_quartile_columns(d)}
FROM weeks LEFT JOIN quartiles ON quartiles.week = weeks.week ORDER BY weeks.week"""


def total_hours_by_week(d: Sql) -> str:
    return f"""WITH {d.weeks()}, hours AS (
  SELECT {d.week("m.date")} AS week, SUM(m.active_hours) AS hours FROM {METRICS} m
  WHERE {d.selected()} GROUP BY {d.week("m.date")}
)
SELECT weeks.week AS time, COALESCE(hours, 0) AS hours
FROM weeks LEFT JOIN hours ON hours.week = weeks.week ORDER BY weeks.week"""


def hours_by_team(d: Sql) -> str:
    # Few rows are left of a fleet's when each person's days are counted, before teams are joined.
    return f"""WITH members AS (
  SELECT DISTINCT tu.team_id, {d.person_of("c.id", d.exact("a.user_name"))} AS person
  FROM {d.linked()} JOIN team_users tu ON tu.user_id = ua.user_id
), days AS (
  SELECT {d.person("m")} AS person, m.active_hours AS value, COUNT(*) AS number
  FROM {METRICS} m WHERE m.active_hours > 0 AND {d.selected()}
  GROUP BY {d.person("m")}, m.active_hours
), counted AS (
  SELECT members.team_id, days.value, SUM(days.number) AS number
  FROM members JOIN days ON days.person = members.person GROUP BY members.team_id, days.value
), {d.quartiles_of_counted("team_id")}
SELECT t.name AS team, q1 AS {d.quoted("first quartile")}, q2 AS median,
  q3 AS {d.quoted("third quartile")}, days AS {d.quoted("active developer days")},
  hours AS {d.quoted("sum of hours")}, {d.variable_text("t.id")} AS {d.quoted("key")}
FROM teams t JOIN quartiles ON quartiles.team_id = t.id ORDER BY t.name, t.id"""


def hours_by_weekday(d: Sql) -> str:
    names = " UNION ALL ".join(
        f"SELECT {n} AS n, '{name}' AS name" for n, name in enumerate(WEEKDAYS)
    )
    first, last = (d.day_number(f"{which}(m.date)") for which in ("MIN", "MAX"))
    each_day = range(len(WEEKDAYS))
    sums = ", ".join(
        f"SUM(CASE WHEN {d.weekday('m.date')} = {n} THEN m.active_hours ELSE 0 END) AS hours_{n}"
        for n in each_day
    )
    hours = " ".join(f"WHEN {n} THEN hours_{n}" for n in each_day)
    # 1970-01-05, day 4, was a Monday.
    count = "FLOOR((last_day - 4 - n) / 7.0) - FLOOR((first_day - 5 - n) / 7.0)"
    return f"""WITH weekdays AS (
  {names}
), people AS (
  SELECT {first} AS first_day, {last} AS last_day, {sums}
  FROM {METRICS} m WHERE {d.selected()} GROUP BY {d.person("m")}
), known AS (
  SELECT n, SUM({count}) AS days, SUM(CASE n {hours} END) AS hours
  FROM people CROSS JOIN weekdays GROUP BY n
)
SELECT weekdays.name AS weekday,
  COALESCE(1.0 * known.hours / NULLIF(known.days, 0), 0) AS {d.quoted("hours a developer")}
FROM weekdays LEFT JOIN known ON known.n = weekdays.n ORDER BY weekdays.n"""


def active_developers(d: Sql) -> str:
    return f"""SELECT COUNT(*) AS value FROM (
  SELECT {d.person("m")} AS person FROM {METRICS} m WHERE m.active_hours > 0 AND {d.selected()}
  GROUP BY {d.person("m")}
) people"""


def _active_by(d: Sql, period: str, start: str) -> str:
    return f"""WITH {d.days()}, periods AS (
  SELECT DISTINCT {period} AS start FROM days
), active AS (
  SELECT start, COUNT(*) AS developers FROM (
    SELECT {start} AS start, {d.person("m")} AS person FROM {METRICS} m
    WHERE m.active_hours > 0 AND {d.selected()} GROUP BY {start}, {d.person("m")}
  ) people GROUP BY start
)
SELECT periods.start AS time, COALESCE(developers, 0) AS developers
FROM periods LEFT JOIN active ON active.start = periods.start ORDER BY periods.start"""


def active_by_day(d: Sql) -> str:
    # A developer has one row a day.
    return f"""WITH {d.days()}, active AS (
  SELECT m.date, COUNT(*) AS developers FROM {METRICS} m
  WHERE m.active_hours > 0 AND {d.selected()} GROUP BY m.date
)
SELECT days.day AS time, COALESCE(developers, 0) AS developers
FROM days LEFT JOIN active ON active.date = days.day ORDER BY days.day"""


def active_by_week(d: Sql) -> str:
    return _active_by(d, d.week("day"), d.week("m.date"))


def active_by_month(d: Sql) -> str:
    return _active_by(d, d.month("day"), d.month("m.date"))


def projects_a_day(d: Sql) -> str:
    several = "SUM(CASE WHEN projects > 2 THEN 1 ELSE 0 END)"
    return f"""WITH {d.weeks()}, {d.size()}, counted AS (
  SELECT {d.week("m.date")} AS week, {d.count_items("m.project_context")} AS projects
  {d.sample("s.active_hours > 0")}
), averages AS (
  SELECT week, AVG(1.0 * projects) AS mean, 100.0 * {several} / COUNT(*) AS share
  FROM counted GROUP BY week
)
SELECT weeks.week AS time, mean AS {d.quoted("projects a day (mean)")},
  share AS {d.quoted("days with three or more")}
FROM weeks LEFT JOIN averages ON averages.week = weeks.week ORDER BY weeks.week"""


HOURS_BY_DAY = Panel(
    "Active Hours of a Developer's Day",
    "Median and quartiles of the developers with at least one active hour on the day: who"
    " reported none, or nothing, is not in them, so a day with none has no value.",
    "timeseries",
    hours_by_day,
    unit="h",
    width=18,
)
HOURS_BY_WEEK = Panel(
    "Active Hours of a Developer's Week",
    "Median and quartiles of each developer's sum over a week (from Monday), of those with at"
    " least one active hour. The first and the last week may be cut by the range.",
    "timeseries",
    hours_by_week,
    unit="h",
)
TOTAL_HOURS_BY_WEEK = Panel(
    "Sum of Active Hours by Week",
    "All active hours reported for the days of a week. Grows with the number of developers.",
    "timeseries",
    total_hours_by_week,
    unit="h",
    bars=True,
)
WEEKDAY_HOURS = Panel(
    "Mean Active Hours of a Developer by Day of the Week",
    "Over all days of the range from a developer's first to last report in it, whether reported"
    " or not: holidays, days off and unreported days count as 0 hours.",
    "barchart",
    hours_by_weekday,
    unit="h",
)
ACTIVE = Panel(
    "Active Developers [Selected Time Range]",
    "Developers with at least one active hour in the range.",
    "stat",
    active_developers,
    width=6,
)
ACTIVE_BY_DAY = Panel(
    "Active Developers by Day",
    "Developers with at least one active hour on the day.",
    "timeseries",
    active_by_day,
    width=18,
)
PROJECTS_A_DAY = Panel(
    "Projects of an Active Developer's Day [Each Week]",
    "How many projects were worked on between which attention went back and forth: the mean, and"
    " the share of days with three or more. Reported projects only." + SAMPLED,
    "timeseries",
    projects_a_day,
    units=(("days with three or more", "percent"),),
)

ACTIVITY = Dashboard(
    "developer-telemetry-activity.json",
    "activity",
    "Developer Telemetry: Activity",
    """- Use Cases: see the rhythm of work: how long, on which days, on how many projects at once.
- Data Source Required: Developer Telemetry. Team and project need DevLake's users, teams and \
projects.
- Counted: hours in which a machine saw activity, 24 a day at most. Not counted: meetings, \
reading, thinking, and work on machines without a collector. These are no hours of work, and say \
nothing about a person's performance.""",
    (
        Row(
            "Active Hours",
            (
                Panel(
                    "Median Active Hours of a Developer's Day",
                    "Of all days with at least one active hour.",
                    "stat",
                    median_hours,
                    unit="h",
                    width=6,
                ),
                HOURS_BY_DAY,
                HOURS_BY_WEEK,
                TOTAL_HOURS_BY_WEEK,
                Panel(
                    "Active Hours of a Developer's Day by Team",
                    "Median and quartiles of days with at least one active hour, in the order of"
                    " the teams' names. Who is in two teams counts in both.",
                    "table",
                    hours_by_team,
                    linked="team",
                    link=("team", "See the team", "team"),
                ),
                WEEKDAY_HOURS,
            ),
        ),
        Row(
            "Active Developers",
            (
                ACTIVE,
                ACTIVE_BY_DAY,
                Panel(
                    "Active Developers by Week",
                    "Developers with at least one active hour in the week (from Monday).",
                    "timeseries",
                    active_by_week,
                    bars=True,
                ),
                Panel(
                    "Active Developers by Month",
                    "Developers with at least one active hour in the month, as far as it is in"
                    " the range.",
                    "timeseries",
                    active_by_month,
                    bars=True,
                ),
            ),
        ),
        Row("Context Switching", (PROJECTS_A_DAY._replace(width=24),)),
    ),
)
