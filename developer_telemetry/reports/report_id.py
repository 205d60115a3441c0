"""Ids of reports: UUIDs of version 7, which sort by the time in their first 48 bits."""

from __future__ import annotations

import os
import random

# Seeded by the system once: a call of the system for each id takes ten times as long, and ids need
# to be unique, not secret.
_RANDOM = random.Random()
if hasattr(os, "register_at_fork"):  # on Windows there are no forks
    # Two processes with the same numbers would make the same ids, and one report would be lost.
    os.register_at_fork(after_in_child=_RANDOM.seed)


def report_id(arrived_us: int) -> str:
    """Return a new id for a report that arrived at this time, in microseconds since 1970."""
    return uuid7(arrived_us // 1000, _RANDOM.getrandbits(80))


def uuid7(milliseconds: int, bits: int) -> str:
    """Return the UUID of version 7 of a time since 1970; of 80 `bits` it holds 74."""
    value = (milliseconds & (1 << 48) - 1) << 80 | bits
    value = value & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
