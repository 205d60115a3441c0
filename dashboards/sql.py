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
DELIVERY = "_tool_developer_telemetry_delivery"

SPACE = "' '"

# Texts of so many developers' days are read at most: of more, databases need seconds. Then some
# developers stand for all, drawn by lots that are the same each time.
SAMPLE_DAYS = 20_000
SAMPLED = (
    f" Where more than {SAMPLE_DAYS:,} days of developers are selected, this is an estimate from"
    f" about {SAMPLE_DAYS:,}: all those of some developers, who are drawn by lot."
)


def few(condition: str) -> str:
    """1 or 0, which to compare with a number is to promise PostgreSQL few rows.

    It would expect so many as to compile the query for a second.
    """
    return f"CASE WHEN {condition} THEN 1 ELSE 0 END"


class Sql:
    """The words in which databases differ, a subclass for each, and whom a page is about.

    `about` is "fleet" where variables choose connections, projects, teams and developers, "team"
    or "user" where one of these is all that is chosen.
    """

    name = ""
    plugin = ""  # Grafana's id of the kind of its data source
    source = ""  # the uid that DevLake's image gives the data source
    first_day = ""
    last_day = ""
    lot_bits = 0

    def __init__(self, about: str = "fleet") -> None:
        self.about = about

    def quoted(self, name: str) -> str:
        """Return a column's name of several words."""
        return f'"{name}"'

    def week(self, day: str) -> str:
        """Return the Monday of a day's week."""
        raise NotImplementedError

    def month(self, day: str) -> str:
        """Return the first of a day's month."""
        raise NotImplementedError

    def weekday(self, day: str) -> str:
        """0 for Monday to 6 for Sunday."""
        raise NotImplementedError

    def day_number(self, day: str) -> str:
        """Days since 1970-01-01, a Thursday."""
        raise NotImplementedError

    def person(self, alias: str) -> str:
        """Return who a row is about, in few characters: temporary tables have room for the
        longest."""
        return self.person_of(f"{alias}.connection_id", f"{alias}.developer_id")

    def person_of(self, connection: str, developer: str) -> str:
        """As `person`, for two columns."""
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

    def text(self, item: str) -> str:
        """Return an item of a JSON list, compared byte by byte."""
        raise NotImplementedError

    def items(self, lists: str) -> str:
        """Each `item` of the JSON list in a column, for a FROM clause behind a comma."""
        raise NotImplementedError

    def count_items(self, lists: str) -> str:
        """Return how long the JSON list in a column is."""
        raise NotImplementedError

    def counts(self, counts: str) -> str:
        """Each `item` of the JSON object of counts in a column, for a FROM clause."""
        raise NotImplementedError

    def number(self, counts: str) -> str:
        """Return the count of an `item` of `counts`."""
        raise NotImplementedError

    def repositories(self, git: str) -> str:
        """Return the repositories of a `git_activity`, with their counts, for a FROM clause."""
        raise NotImplementedError

    def lot(self, alias: str) -> str:
        """Return a whole number from 0 to below 2**LOT_BITS, drawn for a row's developer."""
        raise NotImplementedError

    def size(self) -> str:
        """Return a CTE `size`: how many selected `days` there are, and how many each one read
        stands for.

        That is their `weight`, 1 unless there are more than SAMPLE_DAYS.
        """
        weight = f"CASE WHEN days > {SAMPLE_DAYS} THEN 1.0 * days / {SAMPLE_DAYS} ELSE 1 END"
        return f"""size AS (
  SELECT days, {weight} AS weight FROM (
    SELECT COUNT(*) AS days FROM {METRICS} m WHERE {self.selected()}
  ) counted
)"""

    def in_sample(self, alias: str) -> str:
        """Return the condition for a selected row of a developer in the sample."""
        drawn = f"{self.lot(alias)} * size.days < {SAMPLE_DAYS << self.lot_bits}"
        return f"{self.selected(alias)}\n    AND {few(drawn)} = 1"

    def sample(self, condition: str = "", items: str = "") -> str:
        """FROM and WHERE that read texts of the metrics `m`, and of `items` in these.

        They need `size`, whose columns may be read too. `condition`, if any, is about `s`, which
        has what is in the index of days: so only rows of the sample are looked up.
        """
        more = f" AND {condition}" if condition else ""
        unfolded = f",\n    {items}" if items else ""
        return f"""FROM size CROSS JOIN {METRICS} s {self.looked_up()}{unfolded}
  WHERE {self.in_sample("s")}{more}"""

    def looked_up(self) -> str:
        """Return the join of the metrics `m` to `s` by its key, one by one: there are few."""
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
        """Return the condition for a row of the person whom the page is about."""
        who = f"({alias}.connection_id, {alias}.developer_id)"
        team = self._linked_to(
            "JOIN team_users tu ON tu.user_id = ua.user_id WHERE tu.team_id IN (${team:sqlstring})"
        )
        if self.about == "team":
            return f"{who} IN {team}"
        if self.about == "user":
            return f"{who} IN {self._linked_to('WHERE ua.user_id IN (${user:sqlstring})')}"
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

    def weeks(self) -> str:
        """CTEs that end in `weeks`, the Mondays of the selected weeks in a column `week`."""
        return (
            f"{self.days()}, weeks AS (\n  SELECT DISTINCT {self.week('day')} AS week FROM days\n)"
        )

    def most(self, number: int) -> str:
        """Return the rest of a query: a series for each of the items with the most in `weekly`.

        That has `week`, `item`, `value` and what counts for being shown, `rank_by`. It is read
        once, since MariaDB works out a CTE anew for each place that names it: so weeks without an
        item, which are 0, come from the row of the week before them, or after all of them.
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
  CASE WHEN weeks.week = ranked.week THEN value ELSE 0 END AS value
FROM ranked JOIN weeks ON (weeks.week >= ranked.week
    AND (next_week IS NULL OR weeks.week < next_week)) OR (place = 1 AND weeks.week < ranked.week)
WHERE position <= {number} ORDER BY weeks.week, item"""

    def quartiles(self, source: str, group: str) -> str:
        """CTEs that end in `quartiles` of `value` in `source` by `group`.

        Values are few whole numbers, so they are counted first and never sorted one by one.
        """
        return f"""counted AS (
  SELECT {group}, value, COUNT(*) AS number FROM {source} GROUP BY {group}, value
), {self.quartiles_of_counted(group)}"""

    def quartiles_of_counted(self, group: str) -> str:
        """CTEs from `counted`, with `number` times a `value` in a `group`, to `quartiles`.

        Each, `q1` to `q3`, is the least value that a quarter, half or three quarters of all don't
        exceed; beside them stand how many there are and their sum.
        """

        def least(quarters: int) -> str:
            return f"MIN(CASE WHEN 4 * upto >= {quarters} * total THEN value END) AS q{quarters}"

        return f"""summed AS (
  SELECT {group}, value, number, SUM(number) OVER (PARTITION BY {group} ORDER BY value) AS upto,
    SUM(number) OVER (PARTITION BY {group}) AS total
  FROM counted
), quartiles AS (
  SELECT {group}, {least(1)}, {least(2)}, {least(3)}, SUM(number) AS days,
    SUM(number * value) AS hours
  FROM summed GROUP BY {group}
)"""
