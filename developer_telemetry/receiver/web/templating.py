"""Templates of the page; they escape every value."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from developer_telemetry import __version__
from developer_telemetry.receiver.web.charts import short
from developer_telemetry.receiver.web.data.fleet_queries import age_class
from developer_telemetry.receiver.web.listing import machine_address
from developer_telemetry.receiver.web.selection import RANGES, STATES

# The seconds in each unit of time, and its name.
_UNITS = (
    (86_400 * 365, "year"),
    (86_400 * 7, "week"),
    (86_400, "day"),
    (3_600, "hour"),
    (60, "minute"),
)


def format_age(moment: Optional[datetime.datetime]) -> str:
    """Format a moment as in `3 minutes ago`."""
    if moment is None:
        return "never"
    age = (datetime.datetime.now(datetime.timezone.utc) - moment).total_seconds()
    for seconds, unit in _UNITS:
        if age >= seconds:
            return f"{format_count(age // seconds, unit)} ago"
    return "just now"


def format_count(number: float, noun: str) -> str:
    """Format a count as in `1 machine` and `1,200 machines`."""
    return f"{number:,.0f} {noun}{'' if number == 1 else 's'}"


def format_moment(moment: Optional[datetime.datetime]) -> str:
    """Format a moment as in `2026-11-23 20:26 UTC`."""
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else ""


def format_change(now: int, before: int) -> str:
    """Format the change since the week before as in `4 % more than the week before`."""
    if now == before:
        return "as many as the week before"
    share = round(100 * abs(now - before) / before) if before else 100
    if share >= 100:
        return f"{before:,} the week before"
    word = "more" if now > before else "fewer"
    return f"{max(share, 1)}\N{NO-BREAK SPACE}% {word} than the week before"


def capitalize(text: str) -> str:
    """Return a text with a capital at its start."""
    return text[:1].upper() + text[1:]


def format_size(number: float) -> str:
    """Format a number of bytes as in `3.2 MiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:,.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} GiB"


_environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    auto_reload=False,  # as an installed release never changes
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals.update(release=__version__, ranges=RANGES, states=STATES)
_environment.filters.update(
    ago=format_age,
    of=format_count,
    stamp=format_moment,
    size=format_size,
    change=format_change,
    short=short,
    address=machine_address,
    age_class=age_class,
    sentence=capitalize,
)


def render(name: str, values: Mapping[str, Any]) -> str:
    """Return a template with its values filled in; the first time, the template is compiled."""
    return _environment.get_template(name).render(values)
