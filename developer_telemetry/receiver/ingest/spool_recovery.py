"""Files of the spool that the disk damaged: noticed, moved aside, read as far as they can be."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

_SUFFIX = ".damaged-"


def find_fault(path: Path, layout: int) -> str:
    """Return why the file can't be used as it is, "" if it can or doesn't exist."""
    if not path.exists():
        return ""
    if not path.stat().st_size:
        return "the file is empty"
    try:
        with closing(sqlite3.connect(path)) as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version != layout:
                return f"its layout is version {version}, not {layout}"
            outcome = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
            return "" if outcome == "ok" else str(outcome)
    except sqlite3.DatabaseError as error:
        return str(error)


def move_aside(path: Path) -> Path:
    """Give a file another name, with what belongs to it; return that name."""
    aside = path.with_name(f"{path.name}{_SUFFIX}{time.time_ns()}")
    for suffix in ("-journal", ""):
        with suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
    return aside


def list_moved_aside(path: Path) -> list[Path]:
    """Return the files that `move_aside` made of one of this name, with what belongs to them."""
    return sorted(path.parent.glob(f"{path.name}{_SUFFIX}*"))


def salvage(path: Path, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a damaged file, from its start and then from its end, as far as it
    reads."""
    for order in ("ASC", "DESC"):
        with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(path)) as database:
            # With this set SQLite reads what there is of a file that lost its end.
            database.execute("PRAGMA writable_schema = ON")
            yield from database.execute(
                f"SELECT {columns} FROM {table} NOT INDEXED ORDER BY position {order}"
            )
            return
