"""Which tools and commands do people use, and how does their use change?"""

from __future__ import annotations

from dashboards.panels import Dashboard, Panel, Row
from dashboards.sql import METRICS, SAMPLED, Sql

SHOWN = 10


def _items(d: Sql) -> str:
    """CTEs that end in `items`: which `item` was used how often, in which `week`.

    `developers` is how many were active in that week, `everybody` the sum of it over the weeks.
    Taken from the last report of each one's week, since all of them would have to be united.
    """
    return f"""{d.size()}, last_days AS (
  SELECT {d.week("m.date")} AS week, m.connection_id, m.developer_id, MAX(m.date) AS date
  FROM size CROSS JOIN {METRICS} m WHERE m.active_hours > 0 AND {d.in_sample("m")}
  GROUP BY {d.week("m.date")}, m.connection_id, m.developer_id
), numbered AS (
  SELECT week, connection_id, developer_id, date, COUNT(*) OVER (PARTITION BY week) AS developers,
    COUNT(*) OVER () AS everybody
  FROM last_days
), items AS (
  SELECT s.week, {d.text("t.item")} AS item, s.developers, s.everybody
  FROM numbered s {d.looked_up()},
    {d.items("m.tools_used")}
)"""


def tools_by_week(d: Sql) -> str:
    return f"""WITH {d.weeks()}, {_items(d)}, weekly AS (
  SELECT week, item, 100.0 * COUNT(*) / MAX(developers) AS value, COUNT(*) AS rank_by
  FROM items GROUP BY week, item
){d.most(SHOWN)}"""


def tools(d: Sql) -> str:
    middle = d.plus(d.first_day, f"({d.day_number(d.last_day)} - {d.day_number(d.first_day)}) / 2")
    return f"""WITH {_items(d)}, shares AS (
  SELECT item, 100.0 * COUNT(*) / MAX(everybody) AS share, MIN(week) AS first_week,
    MAX(week) AS last_week
  FROM items GROUP BY item
)
SELECT item AS tool, share, first_week AS {d.quoted("first week")},
  last_week AS {d.quoted("last week")},
  CASE WHEN first_week > {middle} THEN 'new' WHEN last_week < {middle} THEN 'gone' ELSE '' END
    AS {d.quoted("in this range")}
FROM shares ORDER BY share DESC, item"""


def _commands(d: Sql) -> str:
    return f"""{d.size()}, used AS (
  SELECT {d.week("m.date")} AS week, {d.text("t.item")} AS item,
    {d.number("m.command_counts")} AS number, size.weight
  {d.sample(items=d.counts("m.command_counts"))}
)"""


def commands(d: Sql) -> str:
    return f"""WITH {_commands(d)}
SELECT item AS command, ROUND(SUM(number) * MAX(weight)) AS times,
  ROUND(COUNT(*) * MAX(weight)) AS {d.quoted("developer days")}
FROM used GROUP BY item ORDER BY SUM(number) DESC, item"""


def commands_by_week(d: Sql) -> str:
    return f"""WITH {d.weeks()}, {_commands(d)}, weekly AS (
  SELECT week, item, ROUND(SUM(number) * MAX(weight)) AS value, SUM(number) AS rank_by
  FROM used GROUP BY week, item
){d.most(SHOWN)}"""


BASIS = (
    " Of developers with at least one active hour in the week (from Monday), by the last such day"
    " that each reported in it."
) + SAMPLED
TOOLS_BY_WEEK = Panel(
    "Share of Developers Who Use a Tool by Week [10 Most Used]",
    "The ten tools most used over the range; the table has all." + BASIS,
    "timeseries",
    tools_by_week,
    unit="percent",
    width=24,
)
COMMANDS_BY_WEEK = Panel(
    "Commands Run by Week [10 Most Run]",
    "The ten commands most run over the range; the table has all." + SAMPLED,
    "timeseries",
    commands_by_week,
)

TOOLS = Dashboard(
    "developer-telemetry-tools.json",
    "tools",
    "Developer Telemetry: Tools and Commands",
    """- Use Cases: see what spreads and what fades among tools, and what is typed most.
- Data Source Required: Developer Telemetry. Team and project need DevLake's users, teams and \
projects.
- Counted: tools that a collector saw installed or running, by its own list. Commands only from \
collectors that count them; a command's arguments are never sent.""",
    (
        Row(
            "Tools",
            (
                TOOLS_BY_WEEK,
                Panel(
                    "Tools: Most Used, New and Gone",
                    "Share of developers' weeks. New: first seen in the second half of the range;"
                    " gone: last seen in the first." + BASIS,
                    "table",
                    tools,
                    width=24,
                    units=(("share", "percent"),),
                ),
            ),
        ),
        Row(
            "Commands",
            (
                COMMANDS_BY_WEEK,
                Panel(
                    "Commands Most Run [Selected Time Range]",
                    "How often, and on how many developers' days." + SAMPLED,
                    "table",
                    commands,
                ),
            ),
        ),
    ),
)
