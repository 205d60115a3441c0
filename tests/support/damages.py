"""Kinds of damage to a file on disk, for tests of recovery."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path


def truncate(file: Path) -> None:
    """Cut off the second half."""
    os.truncate(file, file.stat().st_size // 2)


def flip_bits(file: Path) -> None:
    """Invert 4 KiB in the middle."""
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4096] = bytes(255 - byte for byte in data[middle : middle + 4096])
    file.write_bytes(data)


def empty(file: Path) -> None:
    """Make the file empty."""
    os.truncate(file, 0)


def replace(file: Path) -> None:
    """Replace the file by one that is no database."""
    file.write_bytes(b"no database at all\n" * 1000)


def zero_the_header(file: Path) -> None:
    """Overwrite the header that identifies a database."""
    data = bytearray(file.read_bytes())
    data[:100] = bytes(100)
    file.write_bytes(data)


def change_version(file: Path) -> None:
    """Set a layout version of an unknown release."""
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA user_version = 99")
