"""Texts in DevLake's own tables, which MySQL may have in another character set than ours.

Ours are always utf8mb4 and compare byte by byte. DevLake's have the database's default from when
they were made. It may ignore case or accents, or lack characters such as emojis.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from sqlalchemy.engine import Connection as SqlConnection

from developer_telemetry.database.dialects.lookup import dialect_of

EXACT = ("utf8mb4_bin", "utf8mb4_0900_bin", "utf8mb4_nopad_bin")
# MySQL's name of a character set and Python's.
_CODECS = {"latin1": "cp1252", "latin2": "iso8859-2", "ascii": "ascii", "gbk": "gbk"}
_UTF8 = ("utf8mb4", "utf16", "utf32", "binary")
_UTF8_OF_3_BYTES = ("utf8", "utf8mb3", "ucs2")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TableTexts(NamedTuple):
    """The way a table of DevLake compares texts: `exact` if no two ids are equal to it."""

    exact: bool = True
    charset: str = "utf8mb4"

    def key(self, developer_id: str) -> str:
        """Return a developer's part of an id; hashed if another may be equal to it in the table."""
        if self.exact or _is_plain(developer_id):
            return developer_id
        return hash_developer(developer_id)

    def text(self, value: str) -> str:
        """Return a text in which characters that the table lacks are replaced."""
        if self.charset in _UTF8:
            return value
        if self.charset in _UTF8_OF_3_BYTES:
            return "".join(letter if letter <= "\uffff" else REPLACEMENT for letter in value)
        codec = _CODECS.get(self.charset, "ascii")
        return value.encode(codec, "replace").decode(codec)


# Any table of PostgreSQL and SQLite, and MySQL's as DevLake sets them up.
EXACTLY = TableTexts()


def read_table_texts(connection: SqlConnection, table: str) -> TableTexts:
    """Return the way a table compares texts, by its column `id` or else its first with text."""
    if dialect_of(connection).name != "mysql":
        return EXACTLY
    row = connection.exec_driver_sql(
        "SELECT character_set_name, collation_name FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND table_name = %s AND collation_name IS NOT NULL"
        " ORDER BY column_name <> 'id', ordinal_position LIMIT 1",
        (table,),
    ).first()
    return TableTexts(row[1] in EXACT, row[0]) if row else EXACTLY


def find_inexact_tables(connection: SqlConnection, tables: tuple[str, ...]) -> dict[str, str]:
    """Return those tables that compare loosely or lack characters, with their collations."""
    if dialect_of(connection).name != "mysql":
        return {}
    placeholders = ", ".join(["%s"] * len(tables))
    rows = connection.exec_driver_sql(
        "SELECT table_name, MIN(collation_name) FROM information_schema.columns"
        f" WHERE table_schema = DATABASE() AND table_name IN ({placeholders})"
        f" AND collation_name NOT IN ({', '.join(['%s'] * len(EXACT))})"
        " GROUP BY table_name ORDER BY table_name",
        (*tables, *EXACT),
    )
    return {str(row[0]): str(row[1]) for row in rows}


def hash_developer(developer_id: str) -> str:
    """Return the hash that replaces a developer in an id that can't hold the name."""
    return hashlib.sha256(developer_id.encode()).hexdigest()


def _is_plain(developer_id: str) -> bool:
    """Return true if no other plain name is equal to it by any collation."""
    return (
        developer_id.isascii()
        and developer_id.isprintable()
        and developer_id == developer_id.lower().rstrip()
    )
