"""The rows that a viewer of the page selects by the fields of its address."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Optional
from urllib.parse import urlencode

# The days that figures and charts may cover, each with its title.
RANGES = {7: "7 days", 28: "4 weeks", 91: "13 weeks"}
DEFAULT_DAYS = 28
# A list of days of work covers at most this many: the database sorts all of them.
LISTED_DAYS = 7

# The states of machines to list: keys of AGE_CLASSES, and those of `fleet_queries.list_machines`.
STATES = {
    "": "all in use",
    "day": "heard from in the last 24 hours",
    "days": "heard from 1 to 3 days ago",
    "week": "heard from 3 to 7 days ago",
    "quiet": "quiet for 7 days or more",
    "month": "quiet for 1 to 4 weeks",
    "older": "quiet for longer",
    "outdated": "with an old collector",
    "retired": "retired",
}

# Days before have no reports, and the first days of the calendar have none before them.
FIRST_YEAR = 2000
MAX_TEXT = 100
MAX_NAME = 255
MAX_PAGES = 1_000
MAX_DIGITS = 18


class Selection(NamedTuple):
    """The rows to show, their order and the page of them; empty fields select all."""

    connection_id: int = 0
    days: int = DEFAULT_DAYS
    text: str = ""
    state: str = ""
    reason: str = ""
    tool: str = ""
    first: Optional[datetime.date] = None
    last: Optional[datetime.date] = None
    # The key of a column; a minus before it reverses the order.
    sort: str = ""
    page: int = 1

    @property
    def base(self) -> Selection:
        """Return the part that all figures of the page share: the connection and the days."""
        return Selection(connection_id=self.connection_id, days=self.days)

    def address(self, path: str, **changes: Any) -> str:
        """Return the relative address of this selection with some fields changed.

        It is the address of the first page unless `page` is changed.
        """
        fields = self._replace(**{"page": 1, **changes})
        query = {
            FIELDS[name]: value
            for name, value in fields._asdict().items()
            if value != Selection._field_defaults[name]
        }
        return f"{path}?{urlencode(query)}" if query else path

    def fields(self, names: Iterable[str]) -> list[tuple[str, Any]]:
        """Return the named fields that select, as a form sends them."""
        values = self._asdict()
        return [
            (FIELDS[name], values[name])
            for name in names
            if values[name] != Selection._field_defaults[name]
        ]

    def listed_days(self, today: datetime.date) -> tuple[datetime.date, datetime.date]:
        """Return the first and the last day of the days of work to list."""
        last = min(self.last or today, today)
        most = self.days if self.tool else LISTED_DAYS
        earliest = last - datetime.timedelta(days=most - 1)
        return max(self.first or earliest, earliest), last


# The names of the fields in addresses.
FIELDS = {
    **{name: name for name in Selection._fields},
    "connection_id": "connection",
    "text": "q",
    "first": "from",
    "last": "to",
}


def parse_selection(query: Mapping[str, str]) -> Selection:
    """Return the selection of an address; a field that is invalid selects all."""
    days = parse_number(query.get("days", ""))
    state = query.get("state", "")
    return Selection(
        connection_id=parse_number(query.get("connection", "")),
        days=days if days in RANGES else DEFAULT_DAYS,
        text=parse_text(query.get("q", ""), MAX_TEXT),
        state=state if state in STATES else "",
        reason=parse_text(query.get("reason", ""), MAX_TEXT),
        tool=parse_text(query.get("tool", ""), MAX_NAME),
        first=_parse_day(query.get("from", "")),
        last=_parse_day(query.get("to", "")),
        sort=parse_text(query.get("sort", ""), MAX_TEXT),
        page=min(max(1, parse_number(query.get("page", ""))), MAX_PAGES),
    )


def parse_number(text: str) -> int:
    """Return the number that a text of digits contains, 0 for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else 0


def parse_text(text: str, limit: int) -> str:
    """Return a text without what no database stores, and no longer than `limit`."""
    stored = text.encode("utf-8", "replace").decode()
    return stored.replace("\x00", "").strip()[:limit]


def _parse_day(text: str) -> Optional[datetime.date]:
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError:
        return None
    return day if day.year >= FIRST_YEAR else None
