"""Ids of reports: UUIDs of version 7, which sort by the time of arrival."""

from __future__ import annotations

import random

# Seeded by the system. Asking that for each id lets the other threads in, and takes ten times as
# long; ids need to be unique, not secret.
_RANDOM = random.Random()


def report_id(arrived_us: int) -> str:
    """Return a new UUID of version 7; its first 48 bits are the time in milliseconds."""
    random_bits = _RANDOM.getrandbits(80)
    value = (arrived_us // 1000 & (1 << 48) - 1) << 80 | random_bits
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
