"""The words of MySQL and MariaDB, and those of PostgreSQL."""

from __future__ import annotations

from dashboards.sql import METRICS, SPACE, Sql


class MySQL(Sql):
    """MySQL and MariaDB."""

    name = "mysql"
    plugin = "mysql"
    source = "devlake-mysql-api"
    first_day = "DATE_ADD(DATE '1970-01-01', INTERVAL $__unixEpochFrom() DIV 86400 DAY)"
    last_day = "DATE_ADD(DATE '1970-01-01', INTERVAL $__unixEpochTo() DIV 86400 DAY)"
    lot_bits = 32

    def quoted(self, name: str) -> str:
        return f"`{name}`"

    def week(self, day: str) -> str:
        return f"DATE_SUB({day}, INTERVAL WEEKDAY({day}) DAY)"

    def month(self, day: str) -> str:
        return f"DATE_SUB({day}, INTERVAL DAYOFMONTH({day}) - 1 DAY)"

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

    def text(self, item: str) -> str:
        return f"{item} COLLATE utf8mb4_bin"

    def items(self, lists: str) -> str:
        return self._table(lists, "$[*]", "item VARCHAR(255) PATH '$'")

    def count_items(self, lists: str) -> str:
        return f"JSON_LENGTH({self._valid(lists, '[]')})"

    def counts(self, counts: str) -> str:
        keys = f"JSON_KEYS({self._valid(counts, '{}')})"
        return f"JSON_TABLE({keys}, '$[*]' COLUMNS (item VARCHAR(255) PATH '$')) t"

    def number(self, counts: str) -> str:
        return f"CAST(JSON_EXTRACT({counts}, CONCAT('$.', JSON_QUOTE(t.item))) AS SIGNED)"

    def repositories(self, git: str) -> str:
        columns = ", ".join(
            f"{column} BIGINT PATH '$.{column}'"
            for column in ("commits", "lines_added", "lines_deleted")
        )
        return self._table(git, "$.repositories[*]", f"item VARCHAR(255) PATH '$.name', {columns}")

    def person_of(self, connection: str, developer: str) -> str:
        # MySQL 9.6 and later have no MD5.
        return f"UNHEX(LEFT(SHA2({self.joined(connection, SPACE, developer)}, 256), 32))"

    def lot(self, alias: str) -> str:
        return f"CRC32({self.joined(f'{alias}.connection_id', SPACE, f'{alias}.developer_id')})"

    def looked_up(self) -> str:
        return f"""STRAIGHT_JOIN {METRICS} m ON m.connection_id = s.connection_id
    AND m.developer_id = s.developer_id AND m.date = s.date"""

    def variable_text(self, column: str) -> str:
        return f"REPLACE({column}, '\\\\', '\\\\\\\\')"

    def _table(self, text: str, path: str, columns: str) -> str:
        return f"JSON_TABLE({self._valid(text, '[]')}, '{path}' COLUMNS ({columns})) t"

    def _valid(self, text: str, empty: str) -> str:
        # Rows of the Go plugin may hold anything; ours are not looked through twice.
        valid = f"m.arrived_us > 0 OR JSON_VALID({text})"
        return f"CASE WHEN {valid} THEN {text} ELSE '{empty}' END"


class PostgreSQL(Sql):
    """PostgreSQL."""

    name = "postgresql"
    plugin = "grafana-postgresql-datasource"
    source = "devlake-postgres-api"
    first_day = "(DATE '1970-01-01' + ($__unixEpochFrom() / 86400)::int)"
    last_day = "(DATE '1970-01-01' + ($__unixEpochTo() / 86400)::int)"
    lot_bits = 31

    def week(self, day: str) -> str:
        return f"({day} - (EXTRACT(ISODOW FROM {day})::int - 1))"

    def month(self, day: str) -> str:
        return f"({day} - (EXTRACT(DAY FROM {day})::int - 1))"

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

    def text(self, item: str) -> str:
        return f'{item} COLLATE "C"'

    def person_of(self, connection: str, developer: str) -> str:
        return f"MD5({self.joined(connection, SPACE, developer)})"

    def lot(self, alias: str) -> str:
        who = f"{alias}.connection_id || {SPACE} || {alias}.developer_id"
        return f"(hashtext({who}) & {(1 << self.lot_bits) - 1})::bigint"

    def looked_up(self) -> str:
        # OFFSET keeps it from reading the whole table instead.
        return f"""CROSS JOIN LATERAL (
    SELECT r.* FROM {METRICS} r WHERE r.connection_id = s.connection_id
      AND r.developer_id = s.developer_id AND r.date = s.date OFFSET 0
  ) m"""

    def items(self, lists: str) -> str:
        return f"json_array_elements_text({lists}::json) t(item)"

    def count_items(self, lists: str) -> str:
        return f"COALESCE(json_array_length({lists}::json), 0)"

    def counts(self, counts: str) -> str:
        return f"json_each_text({counts}::json) t(item, number)"

    def number(self, counts: str) -> str:
        return "t.number::bigint"

    def repositories(self, git: str) -> str:
        columns = "name text, commits bigint, lines_added bigint, lines_deleted bigint"
        return (
            "LATERAL (SELECT name AS item, commits, lines_added, lines_deleted"
            f" FROM json_to_recordset({git}::json -> 'repositories') r({columns})) t"
        )


DATABASES: tuple[type[Sql], ...] = (MySQL, PostgreSQL)
