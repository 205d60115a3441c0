"""Dashboard: changes of code on the machines, before and beside what is pushed."""

from __future__ import annotations

from collections.abc import Mapping

from dashboards.panels import Dashboard, Panel, Query, Row
from dashboards.sql import METRICS, SAMPLED, Sql


def total(column: str) -> Query:
    """Return the sum of a column."""

    def query(d: Sql) -> str:
        return f"SELECT COALESCE(SUM(m.{column}), 0) AS value FROM {METRICS} m WHERE {d.selected()}"

    return query


def by_week(columns: Mapping[str, str]) -> Query:
    """Return the sums of columns by week, each under a name."""

    def query(d: Sql) -> str:
        sums = ", ".join(f"SUM(m.{column}) AS {column}" for column in columns)
        shown = ", ".join(
            f"COALESCE({column}, 0) AS {d.quoted(name)}" for column, name in columns.items()
        )
        return f"""WITH {d.weeks()}, sums AS (
  SELECT {d.week("m.date")} AS week, {sums} FROM {METRICS} m
  WHERE {d.selected()} GROUP BY {d.week("m.date")}
)
SELECT weeks.week AS time, {shown}
FROM weeks LEFT JOIN sums ON sums.week = weeks.week ORDER BY weeks.week"""

    return query


def per_developer(d: Sql) -> str:
    return f"""WITH {d.weeks()}, developers AS (
  SELECT {d.week("m.date")} AS week, SUM(m.commits) AS value FROM {METRICS} m
  WHERE m.active_hours > 0 AND {d.selected()}
  GROUP BY {d.week("m.date")}, {d.person("m")}
), {d.quartiles("developers", "week")}
SELECT weeks.week AS time, q1 AS {d.quoted("first quartile")}, q2 AS median,
  q3 AS {d.quoted("third quartile")}
FROM weeks LEFT JOIN quartiles ON quartiles.week = weeks.week ORDER BY weeks.week"""


def repositories(d: Sql) -> str:
    sums = ", ".join(
        f"ROUND(SUM({column}) * MAX(weight)) AS {d.quoted(column.replace('_', ' '))}"
        for column in ("commits", "lines_added", "lines_deleted")
    )
    return f"""WITH {d.size()}, worked AS (
  SELECT {d.text("t.item")} AS item, t.commits, t.lines_added, t.lines_deleted, size.weight
  {d.sample(items=d.repositories("m.git_activity"))}
)
SELECT item AS repository, ROUND(COUNT(*) * MAX(weight)) AS {d.quoted("developer days")}, {sums}
FROM worked GROUP BY item ORDER BY COUNT(*) DESC, item"""


COMMITS_BY_WEEK = Panel(
    "Commits by Week",
    "Commits made on the machines, whether pushed or not. A commit that is rewritten counts again.",
    "timeseries",
    by_week({"commits": "commits"}),
    width=18,
    bars=True,
)
TESTS_BY_WEEK = Panel(
    "Test Runs and Builds beside Commits by Week",
    "Test runs and builds that a collector recognised among the commands of a day.",
    "timeseries",
    by_week({"test_runs": "test runs", "builds": "builds", "commits": "commits"}),
)
REPOSITORIES = Panel(
    "Repositories [Selected Time Range]",
    "By the days on which developers worked in them. Repositories of one name are one." + SAMPLED,
    "table",
    repositories,
)

CODE = Dashboard(
    "developer-telemetry-code.json",
    "code",
    "Developer Telemetry: Code on the Machine",
    """- Use Cases: see work on code where it happens, before it is pushed, and how testing goes \
with it.
- Data Source Required: Developer Telemetry. Team and project need DevLake's users, teams and \
projects.
- Counted: what git and the shell of a machine know of a day. A repository without a name, work on \
servers and merges by a web page are not in it. Lines and commits measure neither value nor people.\
""",
    (
        Row(
            "Commits",
            (
                Panel(
                    "Commits [Selected Time Range]",
                    "Commits made on the machines, whether pushed or not.",
                    "stat",
                    total("commits"),
                    width=6,
                ),
                COMMITS_BY_WEEK,
                Panel(
                    "Commits of a Developer's Week",
                    "Median and quartiles of developers with at least one active hour in it.",
                    "timeseries",
                    per_developer,
                    width=24,
                ),
            ),
        ),
        Row(
            "Lines, Files and Repositories",
            (
                Panel(
                    "Lines Added and Deleted by Week",
                    "Of the commits made in the week. Generated and vendored files are in it.",
                    "timeseries",
                    by_week({"lines_added": "added", "lines_deleted": "deleted"}),
                ),
                Panel(
                    "Files Changed by Week",
                    "A file counts once for each report in which it changed.",
                    "timeseries",
                    by_week({"files_changed": "files"}),
                    bars=True,
                ),
                REPOSITORIES._replace(width=24),
            ),
        ),
        Row(
            "Tests and Builds",
            (
                Panel(
                    "Test Runs [Selected Time Range]",
                    "Test runs that a collector recognised.",
                    "stat",
                    total("test_runs"),
                    width=6,
                ),
                TESTS_BY_WEEK._replace(width=18),
            ),
        ),
    ),
)
