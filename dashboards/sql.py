"""SQL that the dashboards' queries share; `dialects` has the words of each database.

Queries run on MySQL 8, MariaDB 10.6 and PostgreSQL 12 and later, in any time zone, collation and
SQL mode. Grafana inserts a variable's values as text, quotes doubled.
"""

from __future__ import annotations

RAW = "_raw_developer_telemetry"
METRICS = "_tool_developer_metrics"
MACHINES = "_tool_developer_telemetry_machines"
REFUSALS = "_tool_developer_telemetry_refusals"
REFUSED_MACHINES = "_tool_developer_telemetry_refused_machines"
CONNECTIONS = "_tool_developer_telemetry_connections"
# Figures of groups of people; a reader of the dashboards may read these alone of what is ours.
DAYS = "telemetry_days"
WEEKS = "telemetry_weeks"
PERIODS = "telemetry_periods"
COMPUTED = "telemetry_computed"


def few(condition: str) -> str:
    """1 or 0, which to compare with a number is to promise PostgreSQL few rows.

    It would expect so many as to compile the query for a second.
    """
    return f"CASE WHEN {condition} THEN 1 ELSE 0 END"


class Sql:
    """The words in which databases differ, a subclass for each, and whom a page is about.

    `about` is "fleet" where variables choose connections, projects, teams and developers, "groups"
    where one chooses a group, "team" where it chooses a team.
    """

    name = ""
    plugin = ""  # Grafana's id of the kind of its data source
    source = ""  # the uid that DevLake's image gives the data source
    first_day = ""
    last_day = ""

    def __init__(self, about: str = "fleet") -> None:
        self.about = about

    def quoted(self, name: str) -> str:
        """Return a column's name of several words."""
        return f'"{name}"'

    def week(self, day: str) -> str:
        """Return the Monday of a day's week."""
        raise NotImplementedError

    def weekday(self, day: str) -> str:
        """0 for Monday to 6 for Sunday."""
        raise NotImplementedError

    def day_number(self, day: str) -> str:
        """Days since 1970-01-01, a Thursday."""
        raise NotImplementedError

    def plus(self, day: str, days: str) -> str:
        """Return some days later."""
        raise NotImplementedError

    def epoch(self, moment: str) -> str:
        """Return a column with a time as seconds since 1970."""
        raise NotImplementedError

    def date_of(self, moment: str) -> str:
        """Return the day in UTC of a time in DevLake's tables."""
        raise NotImplementedError

    def exact(self, text: str) -> str:
        """Return a text of DevLake's tables, to be compared with ours byte by byte."""
        raise NotImplementedError

    def joined(self, *texts: str) -> str:
        """Texts and numbers one behind the other."""
        return f"CONCAT({', '.join(texts)})"

    def days(self) -> str:
        """CTEs that end in `days`, the selected days in a column `day`."""
        raise NotImplementedError

    def machines_by_date(self) -> str:
        """Return the query for how many `machines` reported about each `date`.

        Developers with one machine are counted without reading their reports.
        """
        several = few(f"""(m.connection_id, m.developer_id) IN (
      SELECT connection_id, developer_id FROM {MACHINES}
      GROUP BY connection_id, developer_id HAVING COUNT(*) > 1
    )""")
        rows = f"FROM {METRICS} m WHERE m.arrived_us > 0 AND {self.selected()}"
        return f"""SELECT date, SUM(machines) AS machines FROM (
    SELECT m.date, COUNT(*) AS machines {rows}
    AND {several} = 0
    GROUP BY m.date
    UNION ALL SELECT m.date, (
      SELECT COUNT(DISTINCT r.hostname) FROM {RAW} r WHERE r.connection_id = m.connection_id
        AND r.developer_id = m.developer_id AND r.date = m.date
    ) {rows}
    AND {several} = 1
  ) by_date GROUP BY date"""

    def variable_text(self, column: str) -> str:
        """Return a text as a variable's value, which a query then holds between quotes."""
        return column

    def linked(self) -> str:
        """Accounts `a` of ours with connection `c` and the user `ua` that each belongs to."""
        params = self.joined("'{\"ConnectionId\":'", "c.id", '\',"ScopeId":"all"}\'')
        return (
            f"accounts a JOIN {CONNECTIONS} c ON {self.exact('a._raw_data_params')} = {params}"
            " JOIN user_accounts ua ON ua.account_id = a.id"
        )

    def in_connections(self, alias: str) -> str:
        """Return the condition for a row of a chosen connection, of a chosen project."""
        scope = self.joined("'developer_telemetry:TelemetryScope:'", "c.id", "':all'")
        return f"""(0 IN (${{connection:csv}}) OR {alias}.connection_id IN (${{connection:csv}}))
    AND ('' IN (${{project:sqlstring}}) OR {alias}.connection_id IN (
      SELECT c.id FROM {CONNECTIONS} c
      JOIN project_mapping p ON {self.exact("p.row_id")} = {scope}
      WHERE p.project_name IN (${{project:sqlstring}})))"""

    def chosen(self, alias: str) -> str:
        """Return the condition for a row of a chosen developer, of a chosen team."""
        who = f"({alias}.connection_id, {alias}.developer_id)"
        team = self._linked_to(
            "JOIN team_users tu ON tu.user_id = ua.user_id WHERE tu.team_id IN (${team:sqlstring})"
        )
        return f"""{self.in_connections(alias)}
    AND ('' IN (${{team:sqlstring}}) OR {who} IN {team})
    AND ('' IN (${{developer:sqlstring}}) OR {alias}.developer_id IN (${{developer:sqlstring}}))"""

    def _linked_to(self, condition: str) -> str:
        """Return whose accounts are linked to some, found first: DISTINCT keeps MariaDB from
        asking for
        each row of the metrics anew."""
        return f"""(
      SELECT who.id, who.developer_id FROM (
        SELECT DISTINCT c.id, {self.exact("a.user_name")} AS developer_id
        FROM {self.linked()} {condition}
      ) who)"""

    def selected(self, alias: str = "m") -> str:
        """Return the condition for a row of the metrics that is chosen and of the selected days."""
        return f"""{alias}.date BETWEEN {self.first_day} AND {self.last_day}
    AND {self.chosen(alias)}"""

    def of_group(self) -> str:
        """Return the condition for a figure `f` of the chosen group."""
        if self.about == "team":
            return "f.grouped_by = 'team' AND f.group_id IN (${team:sqlstring})"
        # The variable has the kind of the group, a space, and its id.
        space = "POSITION(' ' IN ${group:sqlstring})"
        return f"""f.grouped_by = LEFT(${{group:sqlstring}}, {space} - 1)
  AND f.group_id = SUBSTRING(${{group:sqlstring}} FROM {space} + 1)"""

    def in_weeks(self) -> str:
        """Return the condition for a figure `f` of a selected week."""
        return f"f.week BETWEEN {self.week(self.first_day)} AND {self.last_day}"

    def weeks(self) -> str:
        """CTEs that end in `weeks`, the Mondays of the selected weeks in a column `week`."""
        return (
            f"{self.days()}, weeks AS (\n  SELECT DISTINCT {self.week('day')} AS week FROM days\n)"
        )

    def most(self, number: int) -> str:
        """Return the rest of a query: a series for each of the items with the most in `weekly`.

        That has `week`, `item`, `value` and what counts for being shown, `rank_by`. It is read
        once, since MariaDB works out a CTE anew for each place that names it: so weeks without an
        item come from the row of the week before them, or after all of them. They are 0 if they
        are in `shown`, the weeks with figures of the group.
        """
        by_item = "PARTITION BY item ORDER BY week"
        return f""", placed AS (
  SELECT week, item, value, SUM(rank_by) OVER (PARTITION BY item) AS total,
    LEAD(week) OVER ({by_item}) AS next_week, ROW_NUMBER() OVER ({by_item}) AS place
  FROM weekly
), ranked AS (
  SELECT week, item, value, next_week, place,
    DENSE_RANK() OVER (ORDER BY total DESC, item) AS position
  FROM placed
)
SELECT weeks.week AS time, item AS metric,
  CASE WHEN weeks.week = ranked.week THEN value WHEN shown.week IS NOT NULL THEN 0 END AS value
FROM ranked JOIN weeks ON (weeks.week >= ranked.week
    AND (next_week IS NULL OR weeks.week < next_week)) OR (place = 1 AND weeks.week < ranked.week)
LEFT JOIN shown ON shown.week = weeks.week
WHERE position <= {number} ORDER BY weeks.week, item"""
