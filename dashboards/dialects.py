"""The words of MySQL and MariaDB, and those of PostgreSQL."""

from __future__ import annotations

from dashboards.sql import Sql


class MySQL(Sql):
    """MySQL and MariaDB."""

    name = "mysql"
    plugin = "mysql"
    source = "devlake-mysql-api"
    first_day = "DATE_ADD(DATE '1970-01-01', INTERVAL $__unixEpochFrom() DIV 86400 DAY)"
    last_day = "DATE_ADD(DATE '1970-01-01', INTERVAL $__unixEpochTo() DIV 86400 DAY)"

    def quoted(self, name: str) -> str:
        return f"`{name}`"

    def week(self, day: str) -> str:
        return f"DATE_SUB({day}, INTERVAL WEEKDAY({day}) DAY)"

    def weekday(self, day: str) -> str:
        return f"WEEKDAY({day})"

    def day_number(self, day: str) -> str:
        return f"DATEDIFF({day}, DATE '1970-01-01')"

    def plus(self, day: str, days: str) -> str:
        return f"DATE_ADD({day}, INTERVAL {days} DAY)"

    def epoch(self, moment: str) -> str:
        # Not UNIX_TIMESTAMP, which would take it for a time of the session's zone.
        return f"TIMESTAMPDIFF(SECOND, TIMESTAMP '1970-01-01 00:00:00', {moment})"

    def date_of(self, moment: str) -> str:
        return f"DATE({moment})"

    def exact(self, text: str) -> str:
        return f"CONVERT({text} USING utf8mb4) COLLATE utf8mb4_bin"

    def days(self) -> str:
        # Recursion would end after a thousand days.
        digits = " UNION ALL ".join(f"SELECT {n}" for n in range(1, 10))
        number = "a.n + 10 * b.n + 100 * c.n + 1000 * e.n"
        return f"""digits AS (
  SELECT 0 AS n UNION ALL {digits}
), days AS (
  SELECT {self.plus(self.first_day, number)} AS day
  FROM digits a CROSS JOIN digits b CROSS JOIN digits c CROSS JOIN digits e
  WHERE {number} <= DATEDIFF({self.last_day}, {self.first_day})
)"""

    def variable_text(self, column: str) -> str:
        return f"REPLACE({column}, '\\\\', '\\\\\\\\')"


class PostgreSQL(Sql):
    """PostgreSQL."""

    name = "postgresql"
    plugin = "grafana-postgresql-datasource"
    source = "devlake-postgres-api"
    first_day = "(DATE '1970-01-01' + ($__unixEpochFrom() / 86400)::int)"
    last_day = "(DATE '1970-01-01' + ($__unixEpochTo() / 86400)::int)"

    def week(self, day: str) -> str:
        return f"({day} - (EXTRACT(ISODOW FROM {day})::int - 1))"

    def weekday(self, day: str) -> str:
        return f"(EXTRACT(ISODOW FROM {day})::int - 1)"

    def day_number(self, day: str) -> str:
        return f"({day} - DATE '1970-01-01')"

    def plus(self, day: str, days: str) -> str:
        return f"({day} + ({days})::int)"

    def epoch(self, moment: str) -> str:
        return f"FLOOR(EXTRACT(EPOCH FROM {moment}))"

    def date_of(self, moment: str) -> str:
        return f"({moment} AT TIME ZONE 'UTC')::date"

    def exact(self, text: str) -> str:
        return f'{text} COLLATE "C"'

    def days(self) -> str:
        span = f"{self.last_day} - {self.first_day}"
        return f"""days AS (
  SELECT {self.first_day} + n AS day FROM generate_series(0, {span}) n
)"""


DATABASES: tuple[type[Sql], ...] = (MySQL, PostgreSQL)
