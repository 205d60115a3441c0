"""The collectors of a fleet by the User-Agents of their reports, and which of them are old."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple, Optional

# A version counts as available once this share of the machines with the same collector has it, so
# that a trial on a few machines does not make all others old.
AVAILABLE_SHARE = 0.1

# Programs that scripts send reports with: their versions are those of operating systems.
_CLIENTS = (
    *("curl", "wget", "mozilla", "go-http-client", "node", "node-fetch", "axios", "okhttp"),
    *("python-requests", "python-urllib", "python-httpx", "java", "ruby", "powershell"),
)
_NAME = re.compile(r"([A-Za-z][A-Za-z0-9_.-]{0,99})/v?(\d{1,9}(?:\.\d{1,9}){0,5})")

Version = tuple[int, ...]


class Collector(NamedTuple):
    """A collector's name and version."""

    name: str
    version: Version


def parse_collector(user_agent: str) -> Optional[Collector]:
    """Return the collector that a User-Agent begins with; None if it names none."""
    match = _NAME.match(user_agent)
    if match is None or match[1].lower() in _CLIENTS:
        return None
    version = [int(part) for part in match[2].split(".")]
    while version and not version[-1]:
        version.pop()  # 1.0 is 1
    return Collector(match[1].lower(), tuple(version))


def find_outdated(machines: Mapping[str, int]) -> dict[str, int]:
    """Return the User-Agents of collectors that are older than an available version.

    Args:
        machines: The number of machines by User-Agent; the result is a part of it.
    """
    versions: dict[str, Counter[Version]] = {}
    for user_agent, count in machines.items():
        collector = parse_collector(user_agent)
        if collector is not None:
            versions.setdefault(collector.name, Counter())[collector.version] += count
    newest = {name: _newest_available(counts) for name, counts in versions.items()}
    return {
        user_agent: count
        for user_agent, count in machines.items()
        if (collector := parse_collector(user_agent)) is not None
        and collector.version < newest[collector.name]
    }


def _newest_available(counts: Counter[Version]) -> Version:
    """Return the newest version that AVAILABLE_SHARE of the machines have, or a newer one."""
    total, reached = sum(counts.values()), 0
    for version in sorted(counts, reverse=True):
        reached += counts[version]
        if reached >= AVAILABLE_SHARE * total:
            return version
    raise AssertionError("unreachable")
