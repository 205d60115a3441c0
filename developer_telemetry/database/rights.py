"""Check the rights that a piece of work needs in the database before the work begins.

Without one of them it would stop half-way: with a person's tombstone committed and the rows not
deleted, or with only some of the tables made. Each right is tried by a statement that changes no
row, since rights depend on too much to be read: roles, schemas, columns, owners.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from developer_telemetry.constants import FIGURE_VIEWS
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.errors import ConfigurationError

Needs = Mapping[str, Sequence[str]]  # verbs by table

_TRIALS = {
    "SELECT": "SELECT {column} FROM {table} WHERE 1 = 0",
    "INSERT": "INSERT INTO {table} SELECT * FROM {table} WHERE 1 = 0",
    "UPDATE": "UPDATE {table} SET {column} = {column} WHERE 1 = 0",
    "DELETE": "DELETE FROM {table} WHERE 1 = 0",
}
_SCHEMA_RIGHTS = ("CREATE", "ALTER", "DROP", "INDEX", "CREATE VIEW", "SELECT", "INSERT", "UPDATE")
_GRANT = re.compile(r"GRANT (.*) ON (?:TABLE )?[`\"](.*?)[`\"]\.\* TO|GRANT (.*) ON \*\.\* TO")


def require_rights(engine: Engine, needs: Needs, locked: Sequence[str] = ()) -> None:
    """Raise ConfigurationError, naming what is missing on which table, unless all is allowed.

    Args:
        engine: One of ours.
        needs: The verbs for each table, which must exist.
        locked: Tables that are locked as a whole meanwhile.
    """
    if dialect_of(engine).name == "sqlite":
        return  # a file has one right for all
    engine.dispose()  # a session may keep the rights that there were when it began
    missing = [*_list_missing(engine, needs), *_not_lockable(engine, locked)]
    if missing:
        raise ConfigurationError(
            f"the database's user has no right to {', '.join(missing)}, so nothing was begun;"
            " grant what docs/install.md lists and try again"
        )


def _list_missing(engine: Engine, needs: Needs) -> Iterator[str]:
    for table, verbs in needs.items():
        for verb in verbs:
            if not _is_allowed(
                engine, _TRIALS[verb].format(table=table, column=_column(engine, table))
            ):
                yield f"{verb} on {table}"


def _column(engine: Engine, table: str) -> str:
    from sqlalchemy import inspect

    return str(inspect(engine).get_columns(table)[0]["name"])


def _not_lockable(engine: Engine, tables: Sequence[str]) -> Iterator[str]:
    for table in tables:
        if not _is_allowed(engine, *dialect_of(engine).await_writers(table)):
            yield f"LOCK TABLES ({table})"


def _is_allowed(engine: Engine, *statements: str) -> bool:
    dialect = dialect_of(engine)
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
            connection.rollback()
    except DBAPIError as error:
        if dialect.is_denied(error.orig):
            return False
        if not dialect.is_conflict(error):
            raise
    return True


def require_schema(connection: SqlConnection) -> None:
    """Raise ConfigurationError unless tables can be made and changed in the connection's schema."""
    queries = {"mysql": _mysql_schema, "postgres": _postgresql_schema}
    fetch = queries.get(dialect_of(connection).name)
    missing = fetch(connection) if fetch is not None else []
    if missing:
        raise ConfigurationError(
            f"the database's user has no right to {', '.join(missing)} in this database, so nothing"
            " was changed; grant what docs/install.md lists and try again"
        )


def _mysql_schema(connection: SqlConnection) -> list[str]:
    database = str(connection.exec_driver_sql("SELECT DATABASE()").scalar())
    granted: set[str] = set()
    for (line,) in connection.exec_driver_sql("SHOW GRANTS"):
        match = _GRANT.match(line)
        if match is None:
            if " ON " not in line:
                return []  # a role, whose rights are not in this list
            continue
        pattern = match[2]
        if pattern is None or _covers(pattern, database):
            granted.update(verb.strip() for verb in (match[1] or match[3]).split(","))
    if "ALL PRIVILEGES" in granted or "ALL" in granted:
        return []
    return [right for right in _SCHEMA_RIGHTS if right not in granted]


def _covers(pattern: str, database: str) -> bool:
    """Return true if a grant's pattern of databases (`%`, `_`, backslashes) matches this one."""
    parts: list[str] = []
    for escaped, wild, plain in re.findall(r"\\(.)|([%_])|(.)", pattern):
        parts.append({"%": ".*", "_": "."}[wild] if wild else re.escape(escaped or plain))
    return re.fullmatch("".join(parts), database) is not None


def _postgresql_schema(connection: SqlConnection) -> list[str]:
    def fetch(query: str) -> Any:
        return connection.exec_driver_sql(query).scalar()

    if not fetch("SELECT has_schema_privilege(current_schema(), 'CREATE')"):
        return ["CREATE"]
    views = ", ".join(f"'{view}'" for view in FIGURE_VIEWS)
    others = connection.exec_driver_sql(
        "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
        " AND relkind IN ('r', 'v') AND (relname LIKE '\\_tool\\_developer%%'"
        " OR relname LIKE '\\_raw\\_developer%%' OR relname LIKE 'raw\\_developer%%'"
        f" OR relname IN ({views}))"
        " AND NOT pg_has_role(relowner, 'USAGE') ORDER BY relname",
        (),
    )
    return [f"ALTER {row[0]} (it is another owner's)" for row in others]
