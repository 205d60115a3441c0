"""The record of looks at people's rows: who looked at whom, when and by what means.

It has no data of the rows. A look is recorded before the rows are shown, and they are not shown if
it can't be recorded.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Collection, Sequence
from functools import partial
from typing import NamedTuple

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import ACCESS_TABLE
from developer_telemetry.database.bulk_insert import MAX_KEYS, insert
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import database_now_us, transact

# The means by which rows were shown.
PAGE = "page"
EXPORT = "export"
ERASE = "erase"
OWN_PAGE = "me"

# The same look within this time is recorded once.
REPEATED_US = 60_000_000
MOST_LOOKS = 500

_MAX_TEXT = 255
_PERSON = ("connection_id", "developer_id")
_COLUMNS = (*_PERSON, "looked_us", "who", "how", "what")


class Look(NamedTuple):
    """A look at a person's rows.

    Attributes:
        how: PAGE, EXPORT, ERASE or OWN_PAGE.
        what: The kind of rows in words.
    """

    who: str
    how: str
    what: str


class RecordedLook(NamedTuple):
    """A look of the record; `looked_us` is UTC in microseconds since 1970."""

    looked_us: int
    who: str
    how: str
    what: str


def record_look(engine: Engine, people: Collection[tuple[int, str]], look: Look) -> None:
    """Record a look at the rows of people, each of them a connection and a developer."""
    cut = Look(*(text[:_MAX_TEXT] for text in look))
    keys = sorted(set(people))
    # Short transactions: on SQLite, reports wait for them.
    for start in range(0, len(keys), MAX_KEYS):
        transact(engine, partial(_record, keys=keys[start : start + MAX_KEYS], look=cut))


def _record(connection: SqlConnection, keys: Sequence[tuple[int, str]], look: Look) -> None:
    now = database_now_us(connection)
    repeated = _find_repeated(connection, keys, look, now)
    rows = [(*key, now, *look) for key in keys if key not in repeated]
    if rows:
        insert(connection, ACCESS_TABLE, _COLUMNS, rows, "")


def _find_repeated(
    connection: SqlConnection, keys: Sequence[tuple[int, str]], look: Look, now: int
) -> set[tuple[int, str]]:
    dialect = dialect_of(connection)
    param = dialect.placeholder
    rows = connection.exec_driver_sql(
        f"SELECT {', '.join(_PERSON)} FROM {ACCESS_TABLE} WHERE looked_us > {param}"
        f" AND who = {param} AND how = {param} AND what = {param}"
        f" AND {dialect.in_condition(_PERSON, len(keys))}",
        (now - REPEATED_US, *look, *dialect.parameters(_PERSON, keys)),
    )
    return {(row[0], row[1]) for row in rows}


def read_looks(connection: SqlConnection, person: tuple[int, str]) -> list[RecordedLook]:
    """Return the newest MOST_LOOKS looks at a person's rows, the newest first."""
    param = dialect_of(connection).placeholder
    rows = connection.exec_driver_sql(
        f"SELECT looked_us, who, how, what FROM {ACCESS_TABLE}"
        f" WHERE connection_id = {param} AND developer_id = {param}"
        f" ORDER BY looked_us DESC, id DESC LIMIT {MOST_LOOKS}",
        person,
    )
    return [RecordedLook(*row) for row in rows]


def name_system_user() -> str:
    """Return the user who runs a command, and the machine, as in `ann on app-1`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"user {os.getuid()}"
    before = os.environ.get("SUDO_USER")
    name = f"{before} as {user}" if before and before != user else user
    return f"{name} on {socket.gethostname()}"
