"""One team, or one person: reached by links, through DevLake's accounts, users and teams."""

from __future__ import annotations

from dashboards.activity import (
    ACTIVE,
    ACTIVE_BY_DAY,
    HOURS_BY_DAY,
    HOURS_BY_WEEK,
    PROJECTS_A_DAY,
    TOTAL_HOURS_BY_WEEK,
    WEEKDAY_HOURS,
)
from dashboards.code import COMMITS_BY_WEEK, REPOSITORIES, TESTS_BY_WEEK
from dashboards.panels import Dashboard, Panel, Row
from dashboards.sql import METRICS, Sql
from dashboards.tools import COMMANDS_BY_WEEK, TOOLS_BY_WEEK


def members(d: Sql) -> str:
    return f"""SELECT u.name AS person, COUNT(DISTINCT a.id) AS accounts,
  {d.variable_text("u.id")} AS {d.quoted("key")}
FROM team_users tu JOIN users u ON u.id = tu.user_id
LEFT JOIN (
  SELECT a.id, ua.user_id FROM {d.linked()}
) a ON a.user_id = u.id
WHERE tu.team_id IN (${{team:sqlstring}})
GROUP BY u.id, u.name ORDER BY u.name, u.id"""


def hours_of_days(d: Sql) -> str:
    return f"""WITH {d.days()}, hours AS (
  SELECT m.date, SUM(m.active_hours) AS hours FROM {METRICS} m
  WHERE {d.selected()} GROUP BY m.date
)
SELECT days.day AS time, COALESCE(hours, 0) AS hours
FROM days LEFT JOIN hours ON hours.date = days.day ORDER BY days.day"""


def projects(d: Sql) -> str:
    return f"""WITH worked AS (
  SELECT {d.text("t.item")} AS item, m.date
  FROM {METRICS} m, {d.items("m.project_context")} WHERE {d.selected()}
)
SELECT item AS project, COUNT(DISTINCT date) AS days, MIN(date) AS {d.quoted("first day")},
  MAX(date) AS {d.quoted("last day")}
FROM worked GROUP BY item ORDER BY COUNT(DISTINCT date) DESC, item"""


PRIVACY = "E-mail addresses are not shown, and nobody is ranked."

TEAM = Dashboard(
    "developer-telemetry-team.json",
    "team",
    "Developer Telemetry: Team",
    f"""- Use Cases: talk about a team's rhythm and tools within the team.
- Data Source Required: Developer Telemetry, with its accounts linked to the users of DevLake's \
teams.
- Counted: reports of the accounts whose users are in the team today, for all of the range. \
{PRIVACY}""",
    (
        Row(
            "Members",
            (
                Panel(
                    "Members",
                    "By name, with the number of telemetry accounts that are linked to each.",
                    "table",
                    members,
                    width=12,
                    linked="person",
                    link=("user", "See the person", "person"),
                ),
                ACTIVE._replace(width=12),
            ),
        ),
        Row("Activity", (HOURS_BY_DAY._replace(width=24), HOURS_BY_WEEK, WEEKDAY_HOURS)),
        Row("Days", (ACTIVE_BY_DAY._replace(width=12), PROJECTS_A_DAY)),
        Row("Tools and Code", (TOOLS_BY_WEEK, COMMITS_BY_WEEK._replace(width=12), TESTS_BY_WEEK)),
    ),
    about="team",
)

PERSON = Dashboard(
    "developer-telemetry-person.json",
    "person",
    "Developer Telemetry: Person",
    f"""- Use Cases: look at one's own data, or at somebody's with them.
- Data Source Required: Developer Telemetry, with its accounts linked to DevLake's users.
- Counted: reports of all accounts that are linked to the person. {PRIVACY}""",
    (
        Row(
            "Activity",
            (
                Panel(
                    "Active Hours by Day",
                    "Hours in which a machine saw activity; 0 where nothing was reported.",
                    "timeseries",
                    hours_of_days,
                    unit="h",
                    width=24,
                    bars=True,
                ),
                TOTAL_HOURS_BY_WEEK,
                PROJECTS_A_DAY,
            ),
        ),
        Row(
            "Projects and Commands",
            (
                Panel(
                    "Projects [Selected Time Range]",
                    "On how many days each was reported.",
                    "table",
                    projects,
                ),
                COMMANDS_BY_WEEK,
            ),
        ),
        Row("Code", (COMMITS_BY_WEEK._replace(width=24), TESTS_BY_WEEK, REPOSITORIES)),
    ),
    about="user",
)
