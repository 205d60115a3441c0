"""The dashboard Delivery: activity at machines beside what DevLake knows of delivery.

All figures about people are read from the views of figures of groups. Builds, deployments and
incidents are DevLake's own rows.
"""

from __future__ import annotations

from dashboards.groups import (
    EMPTY,
    FIGURES_COMPUTED,
    SMALLEST_GROUP,
    quartile_columns,
    value_of,
)
from dashboards.panels import Dashboard, Panel, Row
from dashboards.sql import PERIODS, WEEKS, Sql

TIMES = ("coding time", "pickup time", "review time", "cycle time")
LINKS = (
    (
        "authors linked",
        "Authors of pull requests who are linked to a user",
        "Let users.csv and user_account_mapping.csv of the org plugin name them; run its"
        " connectUserAccountsExact.",
    ),
    (
        "authors with telemetry",
        "Authors of pull requests with telemetry",
        "Set up collectors for authors who do not report, with the address in git that DevLake"
        " knows.",
    ),
    (
        "developers linked",
        "Developers with telemetry who are linked to a user",
        "Add the missing to users.csv, under the address or name that their reports have;"
        " pseudonyms can not be linked.",
    ),
    (
        "developers who are authors",
        "Developers with telemetry who are authors of pull requests",
        "Collect the repositories they work in; link their accounts there. Some write no pull"
        " requests.",
    ),
)


def _group(grouped_by: str) -> str:
    variable = f"${{{grouped_by}:sqlstring}}"
    return f"""((f.grouped_by = 'everybody' AND '' IN ({variable}))
    OR (f.grouped_by = '{grouped_by}' AND f.group_id IN ({variable})))"""


def weekly(d: Sql, figure: str, grouped_by: str = "team") -> str:
    """Return the query for the quartiles of a figure by week."""
    return f"""WITH {d.weeks()}
SELECT weeks.week AS time, {quartile_columns(d)}
FROM weeks LEFT JOIN {WEEKS} f ON f.week = weeks.week
  AND f.figure = '{figure}' AND {_group(grouped_by)}
ORDER BY weeks.week"""


def _activity_columns(d: Sql) -> str:
    columns = [
        (value_of("hours a day", "people"), "developers"),
        (value_of("hours a day", "number"), "developer days"),
        (value_of("hours a day", "median"), "active hours"),
        (value_of("projects a day", "median"), "projects a day"),
        (value_of("pull requests", "people"), "authors"),
        (value_of("pull requests", "number"), "pull requests"),
        *((value_of(time, "median"), time) for time in TIMES),
    ]
    return ",\n  ".join(f"{value} AS {d.quoted(name)}" for value, name in columns)


def beside_by_week(d: Sql) -> str:
    return f"""SELECT f.week AS week, {_activity_columns(d)}
FROM {WEEKS} f
WHERE f.week BETWEEN {d.first_day} AND {d.last_day} AND {_group("team")}
  AND f.figure IN ('hours a day', 'projects a day', 'pull requests', {_listed(TIMES)})
GROUP BY f.week ORDER BY f.week DESC"""


def beside_by_team(d: Sql) -> str:
    return f"""SELECT t.name AS team, {_activity_columns(d)}
FROM {PERIODS} f JOIN teams t ON {d.exact("t.id")} = f.group_id
WHERE f.period = 'half year' AND f.grouped_by = 'team'
  AND f.figure IN ('hours a day', 'projects a day', 'pull requests', {_listed(TIMES)})
GROUP BY t.id, t.name ORDER BY t.name, t.id"""


def _listed(figures: tuple[str, ...]) -> str:
    return ", ".join(f"'{figure}'" for figure in figures)


def links(d: Sql) -> str:
    steps = "\n  UNION ALL ".join(
        f"SELECT {n} AS position, '{figure}' AS figure, '{step}' AS step, '{advice}' AS advice"
        for n, (figure, step, advice) in enumerate(LINKS)
    )
    return f"""WITH steps AS (
  {steps}
)
SELECT step AS {d.quoted("who")}, f.share AS share, f.number AS {d.quoted("of")},
  advice AS {d.quoted("to raise it")}
FROM steps LEFT JOIN {PERIODS} f ON f.figure = {d.exact("steps.figure")}
  AND f.grouped_by = 'everybody'
ORDER BY position"""


def links_by_team(d: Sql) -> str:
    columns = ",\n  ".join(
        f"{value_of(figure, 'share')} AS {d.quoted(name)}"
        for figure, name in (
            ("members with telemetry", "with telemetry"),
            ("members who are authors", "authors"),
            ("members with both", "both"),
        )
    )
    return f"""SELECT t.name AS team, MAX(f.people) AS members, {columns}
FROM {PERIODS} f JOIN teams t ON {d.exact("t.id")} = f.group_id
WHERE f.figure IN ('members with telemetry', 'members who are authors', 'members with both')
GROUP BY t.id, t.name ORDER BY t.name, t.id"""


def assistant_days(d: Sql) -> str:
    return f"""WITH {d.weeks()}
SELECT weeks.week AS time, f.share AS {d.quoted("developer days with an assistant")}
FROM weeks LEFT JOIN {WEEKS} f ON f.week = weeks.week
  AND f.figure = 'assistant days' AND {_group("team")}
ORDER BY weeks.week"""


def _with_and_without(d: Sql, name: str) -> str:
    sides = ",\n  ".join(
        f"{value_of(f'{name} {side} assistant', 'median')} AS {d.quoted(f'{side} assistant')}"
        for side in ("with", "without")
    )
    return f"""WITH {d.weeks()}
SELECT weeks.week AS time, {sides}
FROM weeks LEFT JOIN {WEEKS} f ON f.week = weeks.week
  AND f.figure IN ('{name} with assistant', '{name} without assistant') AND {_group("team")}
GROUP BY weeks.week ORDER BY weeks.week"""


def merged_with_and_without(d: Sql) -> str:
    return _with_and_without(d, "merged")


def cycle_with_and_without(d: Sql) -> str:
    return _with_and_without(d, "cycle time")


def assistants_in_half_a_year(d: Sql) -> str:
    def side(word: str, position: int) -> str:
        merged, cycle = f"merged {word} assistant", f"cycle time {word} assistant"
        columns = [
            f"{value_of(merged, 'people')} AS developers",
            f"{value_of(merged, 'number')} AS {d.quoted('developer weeks')}",
            *(
                f"{value_of(merged, column)} AS {d.quoted(f'merged a week, {title}')}"
                for column, title in QUARTILES
            ),
            f"{value_of(cycle, 'number')} AS {d.quoted('pull requests')}",
            *(
                f"{value_of(cycle, column)} AS {d.quoted(f'cycle time, {title}')}"
                for column, title in QUARTILES
            ),
        ]
        listed = ", ".join(columns)
        return f"""SELECT {position} AS position, '{word} assistant' AS weeks, {listed}
  FROM {PERIODS} f WHERE f.period = 'half year' AND f.figure IN ('{merged}', '{cycle}')
    AND {_group("team")}"""

    titles = ["developers", "developer weeks"]
    titles += [f"merged a week, {title}" for _, title in QUARTILES] + ["pull requests"]
    titles += [f"cycle time, {title}" for _, title in QUARTILES]
    selected = ", ".join(d.quoted(title) for title in titles)
    return f"""SELECT weeks, {selected} FROM (
  {side("with", 1)}
  UNION ALL {side("without", 2)}
) sides ORDER BY position"""


QUARTILES = (
    ("first_quartile", "first quartile"),
    ("median", "median"),
    ("third_quartile", "third quartile"),
)


def _in_project(d: Sql, scope: str) -> str:
    return f"""('' IN (${{project:sqlstring}}) OR {scope} IN (
      SELECT p.row_id FROM project_mapping p
      WHERE p.{d.quoted("table")} = 'cicd_scopes'
        AND p.project_name IN (${{project:sqlstring}})))"""


def _builds(d: Sql) -> str:
    """CTE `builds`: finished pipelines by week, those of deployments left out."""
    day = d.date_of("c.finished_date")
    return f"""builds AS (
  SELECT {d.week(day)} AS week, COUNT(*) AS builds,
    100.0 * SUM(CASE WHEN c.result = 'FAILURE' THEN 1 ELSE 0 END) / COUNT(*) AS failed
  FROM cicd_pipelines c
  WHERE {day} BETWEEN {d.first_day} AND {d.last_day} AND c.status = 'DONE'
    AND c.result IN ('SUCCESS', 'FAILURE') AND COALESCE(c.type, '') <> 'DEPLOYMENT'
    AND {_in_project(d, "c.cicd_scope_id")}
  GROUP BY {d.week(day)}
)"""


def _changes(d: Sql) -> str:
    """CTEs that end in `changes`: deployments to production by week, as DevLake counts them."""
    day = f"MAX({d.date_of('c.finished_date')})"
    return f"""deployments AS (
  SELECT c.cicd_deployment_id AS id, {day} AS day
  FROM cicd_deployment_commits c
  WHERE c.result = 'SUCCESS' AND c.environment = 'PRODUCTION'
    AND {_in_project(d, "c.cicd_scope_id")}
  GROUP BY c.cicd_deployment_id HAVING {day} BETWEEN {d.first_day} AND {d.last_day}
), failed AS (
  SELECT DISTINCT LEFT(r.deployment_id, 255) AS id
  FROM project_incident_deployment_relationships r JOIN incidents i ON i.id = r.id
), changes AS (
  SELECT {d.week("deployments.day")} AS week, COUNT(*) AS deployments,
    100.0 * COUNT(failed.id) / COUNT(*) AS failed
  FROM deployments LEFT JOIN failed ON failed.id = deployments.id
  GROUP BY {d.week("deployments.day")}
)"""


def tests_by_week(d: Sql) -> str:
    return weekly(d, "test runs", "project")


def builds_by_week(d: Sql) -> str:
    return weekly(d, "builds", "project")


def failures_by_week(d: Sql) -> str:
    return f"""WITH {d.weeks()}, {_builds(d)}, {_changes(d)}
SELECT weeks.week AS time, builds.failed AS {d.quoted("failed builds")},
  changes.failed AS {d.quoted("change failure rate")}
FROM weeks LEFT JOIN builds ON builds.week = weeks.week
LEFT JOIN changes ON changes.week = weeks.week ORDER BY weeks.week"""


def quality_by_week(d: Sql) -> str:
    return f"""WITH {d.weeks()}, {_builds(d)}, {_changes(d)}, local_runs AS (
  SELECT f.week, {value_of("test runs", "people")} AS people,
    {value_of("test runs", "number")} AS number, {value_of("test runs", "median")} AS test_runs,
    {value_of("builds", "median")} AS builds
  FROM {WEEKS} f WHERE f.figure IN ('test runs', 'builds') AND {_group("project")}
  GROUP BY f.week
)
SELECT weeks.week AS week, local_runs.people AS developers,
  local_runs.number AS {d.quoted("developer days")},
  local_runs.test_runs AS {d.quoted("local test runs a day")},
  local_runs.builds AS {d.quoted("local builds a day")},
  builds.builds AS {d.quoted("finished builds")}, builds.failed AS {d.quoted("failed builds")},
  changes.deployments AS deployments, changes.failed AS {d.quoted("change failure rate")}
FROM weeks LEFT JOIN local_runs ON local_runs.week = weeks.week
LEFT JOIN builds ON builds.week = weeks.week
LEFT JOIN changes ON changes.week = weeks.week ORDER BY weeks.week DESC"""


def _first_merges(d: Sql) -> str:
    columns = [
        f"{value_of('first merge happened', 'people')} AS developers",
        f"{value_of('first merge happened', 'share')} AS merged",
        *(
            f"{value_of('first merge', column)} AS {d.quoted(f'days, {title}')}"
            for column, title in QUARTILES
        ),
    ]
    return ", ".join(columns)


def first_merge_by_quarter(d: Sql) -> str:
    return f"""SELECT f.first_day AS {d.quoted("first report in the quarter from")},
  {_first_merges(d)}
FROM {PERIODS} f
WHERE f.period = 'quarter' AND f.figure IN ('first merge', 'first merge happened')
GROUP BY f.first_day ORDER BY f.first_day DESC"""


def first_merge_by_team(d: Sql) -> str:
    return f"""SELECT t.name AS team, {_first_merges(d)}
FROM {PERIODS} f JOIN teams t ON {d.exact("t.id")} = f.group_id
WHERE f.period = 'year' AND f.figure IN ('first merge', 'first merge happened')
GROUP BY t.id, t.name ORDER BY t.name, t.id"""


HALF_YEAR = " Of the last 26 complete weeks, whatever the range."
OF_ALL = " Of developers with at least one active hour, over all their accounts."
MERGED = " Of pull requests merged in the week, by authors who are linked to a user."
WEEKLY = " Quartiles by week (from Monday), complete weeks only; a week without a value has too few"


def _weekly_panel(figure: str, title: str, description: str, unit: str = "h") -> Panel:
    text = f"{description}{WEEKLY} people."

    def query(d: Sql) -> str:
        return weekly(d, figure)

    return Panel(title, text, "timeseries", query, unit=unit, empty=EMPTY, width=8)


DELIVERY_PAGE = Dashboard(
    "developer-telemetry-delivery.json",
    "delivery",
    "Developer Telemetry: Delivery",
    """- Use Cases: talk in a team about what goes along with its delivery. What goes along is not \
a cause.
- Data Source Required: Developer Telemetry; users and teams of the org plugin; pull requests, \
builds and deployments of other plugins; the DORA metrics of projects.
- Counted: groups of people alone, never fewer than the smallest group, over fixed weeks. Choose a \
team for the rows on activity and assistants, a project for the row on quality. \
Nobody is ranked or scored.""",
    (
        Row(
            "Who Is Linked",
            (
                Panel(
                    "Linking Quality",
                    "Everything below is about people who are in both sources; with a low share"
                    " it says little." + HALF_YEAR,
                    "table",
                    links,
                    empty=EMPTY,
                    width=16,
                    units=(("share", "percent"),),
                ),
                SMALLEST_GROUP,
                FIGURES_COMPUTED,
                Panel(
                    "Linked Members by Team",
                    "Shares of a team's members with telemetry, with pull requests, and with both,"
                    " in the order of the teams' names." + HALF_YEAR,
                    "table",
                    links_by_team,
                    empty=EMPTY,
                    width=24,
                    units=(
                        ("with telemetry", "percent"),
                        ("authors", "percent"),
                        ("both", "percent"),
                    ),
                ),
            ),
        ),
        Row(
            "Activity Beside Delivery",
            (
                _weekly_panel("hours a day", "Active Hours of a Developer's Day by Week", OF_ALL),
                _weekly_panel(
                    "projects a day", "Projects of a Developer's Day by Week", OF_ALL, "short"
                ),
                _weekly_panel("coding time", "Coding Time by Week", MERGED),
                _weekly_panel("pickup time", "Pickup Time by Week", MERGED),
                _weekly_panel("review time", "Review Time by Week", MERGED),
                _weekly_panel("cycle time", "Cycle Time by Week", MERGED),
                Panel(
                    "Activity Beside Delivery by Week",
                    "Medians, with the numbers of people and of values that they are of.",
                    "table",
                    beside_by_week,
                    empty=EMPTY,
                    width=24,
                    units=tuple((name, "h") for name in ("active hours", *TIMES)),
                ),
                Panel(
                    "Activity Beside Delivery by Team",
                    "Medians, in the order of the teams' names." + HALF_YEAR,
                    "table",
                    beside_by_team,
                    empty=EMPTY,
                    width=24,
                    units=tuple((name, "h") for name in ("active hours", *TIMES)),
                ),
            ),
        ),
        Row(
            "AI Assistants",
            (
                Panel(
                    "Developer Days with an AI Assistant by Week",
                    "Share of active days on which claude, codex, cursor, copilot, gemini or"
                    " windsurf is among tools or commands." + OF_ALL,
                    "timeseries",
                    assistant_days,
                    unit="percent",
                    empty=EMPTY,
                    width=8,
                ),
                Panel(
                    "Merged Pull Requests of a Developer's Week, with and without Assistant",
                    "Medians of authors with telemetry; a week is with an assistant if one was"
                    " seen on any of its days. Both sides are shown, or none.",
                    "timeseries",
                    merged_with_and_without,
                    empty=EMPTY,
                    width=8,
                ),
                Panel(
                    "Cycle Time, with and without Assistant",
                    "Medians of pull requests merged in such weeks.",
                    "timeseries",
                    cycle_with_and_without,
                    unit="h",
                    empty=EMPTY,
                    width=8,
                ),
                Panel(
                    "With and without Assistant",
                    "The same over half a year. Who uses an assistant, and for what, is not by"
                    " chance: a difference is no effect." + HALF_YEAR,
                    "table",
                    assistants_in_half_a_year,
                    empty=EMPTY,
                    width=24,
                    units=tuple((f"cycle time, {title}", "h") for _, title in QUARTILES),
                ),
            ),
        ),
        Row(
            "Quality",
            (
                Panel(
                    "Local Test Runs of a Developer's Day by Week",
                    "Of developers whose connection is in the project." + WEEKLY + " people.",
                    "timeseries",
                    tests_by_week,
                    empty=EMPTY,
                    width=8,
                ),
                Panel(
                    "Local Builds of a Developer's Day by Week",
                    "Of developers whose connection is in the project." + WEEKLY + " people.",
                    "timeseries",
                    builds_by_week,
                    empty=EMPTY,
                    width=8,
                ),
                Panel(
                    "Failed Builds and Change Failure Rate by Week",
                    "Share of DevLake's finished pipelines that failed, without deployments; share"
                    " of successful deployments to production that DevLake has an incident for.",
                    "timeseries",
                    failures_by_week,
                    unit="percent",
                    width=8,
                ),
                Panel(
                    "Local Runs Beside Failures by Week",
                    "Medians of local test runs and builds, with the numbers of people and days;"
                    " beside them DevLake's builds and deployments.",
                    "table",
                    quality_by_week,
                    width=24,
                    units=(("failed builds", "percent"), ("change failure rate", "percent")),
                ),
            ),
        ),
        Row(
            "First Merge",
            (
                Panel(
                    "Days from First Report to First Merged Pull Request by Quarter",
                    "Of developers who had merged nothing before their first report. merged: the"
                    " share that has merged something so far; the days are of these."
                    " Of everybody, whatever the team.",
                    "table",
                    first_merge_by_quarter,
                    empty=EMPTY,
                    units=(("merged", "percent"), *((f"days, {t}", "d") for _, t in QUARTILES)),
                ),
                Panel(
                    "Days from First Report to First Merged Pull Request by Team",
                    "The same of developers whose first report is at most 53 weeks old.",
                    "table",
                    first_merge_by_team,
                    empty=EMPTY,
                    units=(("merged", "percent"), *((f"days, {t}", "d") for _, t in QUARTILES)),
                ),
            ),
        ),
    ),
    about="delivery",
)
