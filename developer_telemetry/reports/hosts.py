"""Recognize different hostnames of one machine.

A laptop is `Anns-Mac`, `anns-mac.local` and `anns-mac.corp.example` on one day, depending on its
network. Ambiguous names count as two machines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Callable, TypeVar

Item = TypeVar("Item")

# The ends of names that only mean the local network. The longest first.
LOCAL_ENDS = (".localdomain", ".home.arpa", ".local", ".home", ".lan")
# Bonjour adds a number to a name in use, even if the machine itself used the name before.
_NUMBERED = re.compile(r"(.+)-([2-9]|[1-9][0-9])\.local")

_SMALL = {ord(letter.upper()): letter for letter in "abcdefghijklmnopqrstuvwxyz"}


def machine_name(hostname: str) -> str:
    """Return a host's name in lower case, without a dot or a local domain at its end.

    `machine_name_sql` does the same in SQL. Only ASCII capitals change, since databases differ on
    others.
    """
    small = hostname.lower() if hostname.isascii() else hostname.translate(_SMALL)
    name = small.rstrip(".")
    for end in LOCAL_ENDS:
        if name.endswith(end) and len(name) > len(end):
            return name[: -len(end)]
    return name


def group_machines(hostnames: Iterable[str]) -> dict[str, str]:
    """Return the machine of each of the names under which one developer reported on one day.

    A name without a domain is the machine with this name and a domain, if there is exactly one.
    """
    names = {hostname: machine_name(hostname) for hostname in hostnames}
    with_domain: dict[str, set[str]] = {}
    for name in names.values():
        label, dot, _ = name.partition(".")
        if dot:
            with_domain.setdefault(label, set()).add(name)
    alone = {label: min(full) for label, full in with_domain.items() if len(full) == 1}
    return {hostname: alone.get(name, name) for hostname, name in names.items()}


def select_newest(
    items: Sequence[Item], hostname: Callable[[Item], str], age: Callable[[Item], tuple[int, int]]
) -> Sequence[Item]:
    """Return the newest of each machine's items, of one developer's day, in the order given."""
    if len(items) == 1:
        return items
    machines = group_machines(map(hostname, items))
    newest = {machines[hostname(item)]: age(item) for item in sorted(items, key=age)}
    return [item for item in items if newest[machines[hostname(item)]] == age(item)]


def family_name(hostname: str) -> str:
    """Return a machine's name without the number that Bonjour adds."""
    return _strip_number(hostname) or machine_name(hostname)


def may_be_renamed(one: str, other: str) -> bool:
    """Return true if Bonjour may have made one of two names from the other by a number."""
    base = _strip_number(one) or _strip_number(other)
    return (
        bool(base)
        and {family_name(one), family_name(other)} == {base}
        and (base in (machine_name(one), machine_name(other)))
    )


def _strip_number(hostname: str) -> str:
    match = _NUMBERED.fullmatch(hostname.translate(_SMALL).rstrip("."))
    return match[1] if match else ""
