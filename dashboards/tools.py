"""Which tools and commands do people use, and how does their use change?"""

from __future__ import annotations

from dashboards.groups import COMPLETE, EMPTY, SMALLEST_GROUP
from dashboards.panels import Dashboard, Panel, Query, Row
from dashboards.sql import WEEKS, Sql

SHOWN = 10


def most_by_week(figure: str, value: str, rank_by: str) -> Query:
    """Return the query for the items with the most of a column, a series each."""

    def query(d: Sql) -> str:
        return f"""WITH {d.weeks()}, weekly AS (
  SELECT f.week, f.item, f.{value} AS value, f.{rank_by} AS rank_by
  FROM {WEEKS} f WHERE f.figure = '{figure}' AND {d.in_weeks()} AND {d.of_group()}
), shown AS (
  SELECT f.week FROM {WEEKS} f
  WHERE f.figure = 'hours a week' AND {d.in_weeks()} AND {d.of_group()}
){d.most(SHOWN)}"""

    return query


def tools(d: Sql) -> str:
    middle = d.plus(d.first_day, f"({d.day_number(d.last_day)} - {d.day_number(d.first_day)}) / 2")
    return f"""WITH size AS (
  SELECT SUM(f.people) AS developers FROM {WEEKS} f
  WHERE f.figure = 'hours a week' AND {d.in_weeks()} AND {d.of_group()}
), shares AS (
  SELECT f.item, 100.0 * SUM(f.people) / MAX(size.developers) AS share,
    MIN(f.week) AS first_week, MAX(f.week) AS last_week
  FROM size CROSS JOIN {WEEKS} f WHERE f.figure = 'tool' AND {d.in_weeks()} AND {d.of_group()}
  GROUP BY f.item
)
SELECT item AS tool, share, first_week AS {d.quoted("first week")},
  last_week AS {d.quoted("last week")},
  CASE WHEN first_week > {middle} THEN 'new' WHEN last_week < {middle} THEN 'gone' ELSE '' END
    AS {d.quoted("in this range")}
FROM shares ORDER BY share DESC, item"""


def commands(d: Sql) -> str:
    return f"""SELECT f.item AS command, SUM(f.total) AS times,
  SUM(f.number) AS {d.quoted("developer days")}
FROM {WEEKS} f WHERE f.figure = 'command' AND {d.in_weeks()} AND {d.of_group()}
GROUP BY f.item ORDER BY SUM(f.total) DESC, f.item"""


COMMON = " One is shown of groups in which enough people use it, and enough or none don't."
TOOLS_BY_WEEK = Panel(
    "Share of Developers Who Use a Tool by Week [10 Most Used]",
    "Of developers with at least one active hour in the week. The ten tools most used over the"
    " range; the table has all." + COMMON + COMPLETE,
    "timeseries",
    most_by_week("tool", "share", "people"),
    unit="percent",
    width=20,
    empty=EMPTY,
)

TOOLS = Dashboard(
    "developer-telemetry-tools.json",
    "tools",
    "Developer Telemetry: Tools and Commands",
    """- Use Cases: see what spreads and what fades among tools, and what is typed most.
- Data Source Required: Developer Telemetry. Team and project need DevLake's users, teams and \
projects.
- Counted: groups of people alone, never fewer than the smallest group, over complete weeks: tools \
that a collector saw installed or running, by its own list. Commands only from collectors that \
count them; a command's arguments are never sent.""",
    (
        Row(
            "Tools",
            (
                TOOLS_BY_WEEK,
                SMALLEST_GROUP,
                Panel(
                    "Tools: Most Used, New and Gone",
                    "Share of developers' weeks. New: first seen in the second half of the range;"
                    " gone: last seen in the first." + COMMON,
                    "table",
                    tools,
                    width=24,
                    units=(("share", "percent"),),
                    empty=EMPTY,
                ),
            ),
        ),
        Row(
            "Commands",
            (
                Panel(
                    "Commands Run by Week [10 Most Run]",
                    "The ten commands most run over the range; the table has all."
                    + COMMON
                    + COMPLETE,
                    "timeseries",
                    most_by_week("command", "total", "total"),
                    empty=EMPTY,
                ),
                Panel(
                    "Commands Most Run [Selected Time Range]",
                    "How often, and on how many developers' days." + COMMON,
                    "table",
                    commands,
                    empty=EMPTY,
                ),
            ),
        ),
    ),
    about="groups",
)
