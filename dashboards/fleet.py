"""Do machines report, how fresh is what they say, and what was refused?"""

from __future__ import annotations

from dashboards.panels import Dashboard, Panel, Row
from dashboards.sql import MACHINES, METRICS, REFUSALS, REFUSED_MACHINES, Sql
from developer_telemetry.reports.refusal_reasons import TITLES

QUIET_DAYS = 7
END = "$__unixEpochTo()"
AGES = ("1: up to a day", "2: up to 3 days", "3: up to 7 days", "4: up to 30 days", "5: older")


def _reported(d: Sql) -> str:
    """Return the chosen machines in use, with their silence before the end of the range."""
    return (
        f"SELECT m.connection_id, m.developer_id, m.hostname, m.reports, m.last_seen,"
        " m.user_agent,"
        f" {END} - {d.epoch('m.last_seen')} AS age FROM {MACHINES} m"
        f" WHERE {d.epoch('m.first_seen')} <= {END} AND m.retired_us = 0"
        f" AND {d.chosen('m')}"
    )


def machines_heard(d: Sql) -> str:
    return f"""SELECT COUNT(*) AS value FROM (
  {_reported(d)}
) known WHERE age <= {QUIET_DAYS} * 86400"""


def machines_by_day(d: Sql) -> str:
    return f"""WITH {d.days()}, reporting AS (
  {d.machines_by_date()}
)
SELECT days.day AS time, COALESCE(machines, 0) AS machines
FROM days LEFT JOIN reporting ON reporting.date = days.day ORDER BY days.day"""


def developers_by_day(d: Sql) -> str:
    return f"""WITH {d.days()}, reporting AS (
  SELECT m.date, COUNT(*) AS developers FROM {METRICS} m WHERE {d.selected()}
  GROUP BY m.date
)
SELECT days.day AS time, COALESCE(developers, 0) AS developers
FROM days LEFT JOIN reporting ON reporting.date = days.day ORDER BY days.day"""


def freshness(d: Sql) -> str:
    day = 86400
    ages = " UNION ALL ".join(f"SELECT '{age}' AS newest" for age in AGES)
    return f"""WITH ages AS (
  {ages}
), known AS (
  SELECT CASE WHEN age <= {day} THEN '{AGES[0]}' WHEN age <= {3 * day} THEN '{AGES[1]}'
    WHEN age <= {7 * day} THEN '{AGES[2]}' WHEN age <= {30 * day} THEN '{AGES[3]}'
    ELSE '{AGES[4]}' END AS newest, COUNT(*) AS machines
  FROM (
    {_reported(d)}
  ) machines GROUP BY 1
)
SELECT ages.newest, COALESCE(machines, 0) AS machines
FROM ages LEFT JOIN known ON known.newest = ages.newest ORDER BY ages.newest"""


def quiet_machines(d: Sql) -> str:
    return f"""SELECT developer_id AS developer, hostname AS machine,
  last_seen AS {d.quoted("last heard from")}, age AS silence, reports
FROM (
  {_reported(d)}
) known
WHERE age > {QUIET_DAYS} * 86400 AND age <= {END} - $__unixEpochFrom()
ORDER BY developer_id, hostname"""


def collectors(d: Sql) -> str:
    return f"""SELECT CASE WHEN user_agent = '' THEN 'unknown' ELSE user_agent END AS collector,
  COUNT(*) AS machines, MAX(last_seen) AS {d.quoted("last heard from")}
FROM (
  {_reported(d)}
) known
GROUP BY user_agent ORDER BY COUNT(*) DESC, user_agent"""


def coverage(d: Sql) -> str:
    linked = f"SELECT c.id AS connection_id, {d.exact('a.user_name')} AS developer_id"
    return f"""WITH known AS (
  SELECT DISTINCT m.connection_id, m.developer_id FROM {MACHINES} m WHERE {d.chosen("m")}
), reporting AS (
  SELECT DISTINCT m.connection_id, m.developer_id FROM {METRICS} m WHERE {d.selected()}
), linked AS (
  SELECT DISTINCT m.connection_id, m.developer_id FROM (
    {linked} FROM {d.linked()}
  ) m WHERE {d.chosen("m")}
)
SELECT (SELECT COUNT(*) FROM reporting) AS {d.quoted("with a report in the range")},
  (SELECT COUNT(*) FROM known) AS {d.quoted("known by a machine")},
  (SELECT COUNT(*) FROM linked) AS {d.quoted("linked to a user")}"""


def _refusals(d: Sql) -> str:
    return (
        f"SELECT m.day, m.reason, SUM(m.count) AS refused FROM {REFUSALS} m"
        f" WHERE m.day BETWEEN {d.first_day} AND {d.last_day} AND {d.in_connections('m')}"
        " GROUP BY m.day, m.reason"
    )


def refused(d: Sql) -> str:
    return f"SELECT COALESCE(SUM(refused), 0) AS value FROM ({_refusals(d)}) refusals"


def refused_by_day(d: Sql) -> str:
    return f"""WITH {d.days()}, refusals AS (
  {_refusals(d)}
), reasons AS (SELECT DISTINCT reason FROM refusals)
SELECT days.day AS time, reasons.reason AS metric, COALESCE(refused, 0) AS value
FROM days CROSS JOIN reasons
LEFT JOIN refusals ON refusals.day = days.day AND refusals.reason = reasons.reason
ORDER BY days.day, reasons.reason"""


def refused_machines(d: Sql) -> str:
    titles = " ".join(f"WHEN '{reason}' THEN '{quoted(title)}'" for reason, title in TITLES.items())
    return f"""SELECT m.developer_id AS developer, m.hostname AS machine, m.address,
  CASE m.reason {titles} ELSE m.reason END AS reason, m.message, m.count AS reports,
  FLOOR(m.first_us / 1000) AS first, FLOOR(m.last_us / 1000) AS last
FROM {REFUSED_MACHINES} m
WHERE m.last_us / 1000000.0 BETWEEN $__unixEpochFrom() AND {END} AND {d.in_connections("m")}
ORDER BY m.last_us DESC, m.id"""


def quoted(text: str) -> str:
    """Return a text as it is written between quotes."""
    return text.replace("'", "''")


def late(d: Sql) -> str:
    # Arrivals are in microseconds; rows of the Go plugin have none (0).
    days = f"FLOOR(m.arrived_us / 86400000000.0) - {d.day_number('m.date')}"
    return f"""WITH {d.weeks()}, delays AS (
  SELECT {d.week("m.date")} AS week, {days} AS days FROM {METRICS} m
  WHERE m.arrived_us > 0 AND {d.selected()}
), counted AS (
  SELECT week, SUM(CASE WHEN days <= 1 THEN 1 ELSE 0 END) AS next_day,
    SUM(CASE WHEN days BETWEEN 2 AND 3 THEN 1 ELSE 0 END) AS days_later,
    SUM(CASE WHEN days > 3 THEN 1 ELSE 0 END) AS much_later
  FROM delays GROUP BY week
)
SELECT weeks.week AS time, COALESCE(next_day, 0) AS {d.quoted("by the next day")},
  COALESCE(days_later, 0) AS {d.quoted("2 or 3 days later")},
  COALESCE(much_later, 0) AS {d.quoted("more than 3 days later")}
FROM weeks LEFT JOIN counted ON counted.week = weeks.week ORDER BY weeks.week"""


FLEET = Dashboard(
    "developer-telemetry-fleet.json",
    "fleet",
    "Developer Telemetry: Fleet",
    """- Use Cases: see whether machines report, how fresh their reports are, and what was refused.
- Data Source Required: Developer Telemetry. Team and project need DevLake's users, teams and \
projects.
- Counted: reports that arrived. A machine that is switched off, or whose collector was never \
installed, is not known here. Freshness compares with the end of the selected range: leave that \
at *now*.""",
    (
        Row(
            "Who Reports",
            (
                Panel(
                    "Machines Heard From [Last 7 Days of Selected Time Range]",
                    "Machines whose newest report came in the 7 days before the end of the range.",
                    "stat",
                    machines_heard,
                    width=6,
                ),
                Panel(
                    "Machines with a Report about the Day",
                    "Machines that reported on a day, by the day that the report is about. A"
                    " developer with two machines counts twice. The newest days fill up later:"
                    " most whole days are sent on the next working day.",
                    "timeseries",
                    machines_by_day,
                    width=18,
                ),
                Panel(
                    "Coverage: Developers",
                    "Developers with a report about the selected days, all developers that a"
                    " machine ever reported for, and those whose account is linked to a user of"
                    " DevLake, without which they belong to no team.",
                    "stat",
                    coverage,
                    width=6,
                ),
                Panel(
                    "Developers with a Report about the Day",
                    "One row of the tool layer is one developer's day.",
                    "timeseries",
                    developers_by_day,
                    width=18,
                ),
            ),
        ),
        Row(
            "Freshness",
            (
                Panel(
                    "Machines by Age of Newest Report",
                    "How long before the end of the range each machine was last heard from.",
                    "barchart",
                    freshness,
                ),
                Panel(
                    "Quiet Machines [Silent for More than 7 Days]",
                    "Machines last heard from within the range, but not in its last 7 days: away,"
                    " replaced, or with a collector that stopped. Retired machines are left out.",
                    "table",
                    quiet_machines,
                    empty="No machine is quiet",
                    units=(("silence", "s"),),
                ),
                Panel(
                    "Machines by Collector",
                    "The name and version that each machine's newest report was sent with. Retired"
                    " machines are left out. docs/collector.md describes how to update them.",
                    "table",
                    collectors,
                    width=24,
                    empty="No machine has reported",
                ),
            ),
        ),
        Row(
            "Refused and Late",
            (
                Panel(
                    "Refused Reports [Selected Time Range]",
                    "How often a report was refused. A machine offers the same one again every"
                    " hour, so this is no number of reports lost.",
                    "stat",
                    refused,
                    thresholds=((1, "orange"), (100, "red")),
                    width=6,
                ),
                Panel(
                    "Refused Reports by Day and Reason",
                    "token: none or a wrong one; size: too large; encoding: unknown; else the"
                    " field at fault. By connection and project only: a refused report may have no"
                    " known person.",
                    "timeseries",
                    refused_by_day,
                    width=18,
                    stacked=True,
                    bars=True,
                ),
                Panel(
                    "Refused Machines [Last 14 Days at Most]",
                    "Machines whose reports were refused, and why, the last first. Such a machine"
                    " sends no other report until that one is fixed. Of a sender without a valid"
                    " token only the address is recorded.",
                    "table",
                    refused_machines,
                    width=24,
                    empty="No machine was refused",
                    units=(("first", "dateTimeAsIso"), ("last", "dateTimeAsIso")),
                ),
                Panel(
                    "Developer Days by Arrival of Their Newest Report [Each Week]",
                    "Between the day of the work and the day (UTC) on which its newest report"
                    " arrived. Weekends add 2 or 3 days.",
                    "timeseries",
                    late,
                    width=24,
                    stacked=True,
                    bars=True,
                ),
            ),
        ),
    ),
    since="now-7d",
)
