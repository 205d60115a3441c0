"""Words that MySQL reserves and MariaDB doesn't.

Tests run on MariaDB, which takes `SELECT 1 AS stored`; on MySQL that is a syntax error. So each
statement that a test sends to MariaDB through SQLAlchemy is searched for such names.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

# Those of MySQL 9.7 that MariaDB 10.11 takes as names of columns and tables; without what
# statements here use for what it means to both.
RESERVED = frozenset(
    (
        *("CUBE", "CUME_DIST", "DENSE_RANK", "EMPTY", "EXTERNAL", "FIRST_VALUE", "FUNCTION"),
        *("GENERATED", "GET", "GROUPING", "GROUPS", "IO_AFTER_GTIDS", "IO_BEFORE_GTIDS"),
        *("JSON_TABLE", "LAG", "LAST_VALUE", "LATERAL", "LEAD", "LIBRARY", "NTH_VALUE", "NTILE"),
        *("OF", "OPTIMIZER_COSTS", "PERCENT_RANK", "QUALIFY", "RANK", "ROW", "STORED", "SYSTEM"),
        *("TABLESAMPLE", "VIRTUAL"),
    )
)
# Literals, names in backquotes, comments of one line, and behind a dot every word is a name.
_ASIDE = re.compile(r"'(?:[^'\\]|\\.|'')*'|`[^`]*`|--[^\n]*|\.\w+")
# A function is called; a name never is.
_WORD = re.compile(r"\b[A-Za-z_]+\b(?!\s*\()")


def reserved_names(statement: str) -> set[str]:
    """Return the names in a statement that are reserved words of MySQL."""
    return {each.upper() for each in _WORD.findall(_ASIDE.sub(" ", statement))} & RESERVED


def search_statements() -> None:
    """Reject statements for MariaDB with reserved words of MySQL from now on."""
    event.listen(Engine, "before_cursor_execute", _search)


def _search(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
    if connection.dialect.name == "mysql":
        found = reserved_names(statement)
        assert not found, f"MySQL reserves {', '.join(sorted(found))}: {statement}"
