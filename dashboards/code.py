"""Dashboard: changes of code on the machines, before and beside what is pushed."""

from __future__ import annotations

from dashboards.groups import (
    COMPLETE,
    EMPTY,
    SMALLEST_GROUP,
    total,
    totals_by_week,
    weekly,
)
from dashboards.panels import Dashboard, Panel, Row
from dashboards.sql import WEEKS, Sql


def repositories(d: Sql) -> str:
    return f"""SELECT f.item AS repository, SUM(f.number) AS {d.quoted("developer days")},
  SUM(f.total) AS commits
FROM {WEEKS} f WHERE f.figure = 'repository' AND {d.in_weeks()} AND {d.of_group()}
GROUP BY f.item ORDER BY SUM(f.number) DESC, f.item"""


COMMITS_BY_WEEK = Panel(
    "Commits by Week",
    "Commits made on the machines, whether pushed or not. A commit that is rewritten counts again."
    + COMPLETE,
    "timeseries",
    totals_by_week({"commits a week": "commits"}),
    bars=True,
    empty=EMPTY,
)
TESTS_BY_WEEK = Panel(
    "Test Runs and Builds beside Commits by Week",
    "Test runs and builds that a collector recognised among the commands of a day." + COMPLETE,
    "timeseries",
    totals_by_week(
        {
            "test runs a week": "test runs",
            "builds a week": "builds",
            "commits a week": "commits",
        }
    ),
    empty=EMPTY,
)

CODE = Dashboard(
    "developer-telemetry-code.json",
    "code",
    "Developer Telemetry: Code on the Machine",
    """- Use Cases: see work on code where it happens, before it is pushed, and how testing goes \
with it.
- Data Source Required: Developer Telemetry. Team and project need DevLake's users, teams and \
projects.
- Counted: groups of people alone, never fewer than the smallest group, over complete weeks: what \
git and the shell of a machine know of days with an active hour. A repository without a name, work \
on servers and merges by a web page are not in it. Lines and commits measure neither value nor \
people.""",
    (
        Row(
            "Commits",
            (
                Panel(
                    "Commits [Selected Time Range]",
                    "Commits made on the machines, whether pushed or not, in the complete weeks.",
                    "stat",
                    total("commits a week"),
                    width=4,
                    empty=EMPTY,
                ),
                COMMITS_BY_WEEK._replace(width=16),
                SMALLEST_GROUP,
                Panel(
                    "Commits of a Developer's Week",
                    "Median and quartiles of developers with at least one active hour in it."
                    + COMPLETE,
                    "timeseries",
                    weekly("commits a week"),
                    width=24,
                    empty=EMPTY,
                ),
            ),
        ),
        Row(
            "Lines, Files and Repositories",
            (
                Panel(
                    "Lines Added and Deleted by Week",
                    "Of the commits made in the week. Generated and vendored files are in it."
                    + COMPLETE,
                    "timeseries",
                    totals_by_week(
                        {"lines added a week": "added", "lines deleted a week": "deleted"}
                    ),
                    empty=EMPTY,
                ),
                Panel(
                    "Files Changed by Week",
                    "A file counts once for each report in which it changed." + COMPLETE,
                    "timeseries",
                    totals_by_week({"files changed a week": "files"}),
                    bars=True,
                    empty=EMPTY,
                ),
                Panel(
                    "Repositories [Selected Time Range]",
                    "By the days on which developers worked in them. Repositories of one name are"
                    " one. One is shown of groups in which enough people worked in it, and enough"
                    " or none did not.",
                    "table",
                    repositories,
                    width=24,
                    empty=EMPTY,
                ),
            ),
        ),
        Row(
            "Tests and Builds",
            (
                Panel(
                    "Test Runs [Selected Time Range]",
                    "Test runs that a collector recognised, in the complete weeks.",
                    "stat",
                    total("test runs a week"),
                    width=6,
                    empty=EMPTY,
                ),
                TESTS_BY_WEEK._replace(width=18),
            ),
        ),
    ),
    about="groups",
)
