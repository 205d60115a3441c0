"""The owner of the schema, and the last conversions where receivers convert reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from sqlalchemy.engine import Engine

from developer_telemetry.constants import CONNECTION_TABLE
from developer_telemetry.database.engine import reading
from developer_telemetry.database.schema_owner import (
    SchemaOwner,
    read_owner,
    read_owner_since_us,
)
from developer_telemetry.printable import iso_time
from developer_telemetry.reports.daily_metrics import format_timestamp
from developer_telemetry.storage.conversions import (
    OVERDUE_SECONDS,
    Conversion,
    is_overdue,
    read_conversions,
)

OWNER_NAMES = {
    SchemaOwner.DEVLAKE: "DevLake's server",
    SchemaOwner.STANDALONE: "the receiver (standalone)",
}

# The longest list of names in the line of the page.
MAX_LISTED = 5


class Ownership(NamedTuple):
    """The owner of the schema, and since when (UTC); "" without a record."""

    owner: SchemaOwner
    since: str

    def __str__(self) -> str:
        since = f", since {self.since} UTC" if self.since else ""
        return f"{OWNER_NAMES[self.owner]} applies migrations and converts reports{since}"

    def to_json(self) -> dict[str, Optional[str]]:
        """Return the JSON object that `status` prints."""
        return {"owner": self.owner.value, "since": iso_time(self.since)}


class ConversionStatus(NamedTuple):
    """A connection, its last conversion if any, and whether reports wait too long for the next."""

    connection_id: int
    name: str
    last: Optional[Conversion]
    is_overdue: bool

    def __str__(self) -> str:
        if self.last is None:
            return "not converted so far"
        counts = [
            f"{count} {noun}"
            for count, noun in (
                (self.last.accounts, "accounts"),
                (self.last.tasks, "tasks"),
                (self.last.links, "links"),
            )
        ]
        wrote = f"wrote {', '.join(counts)}"
        when = f"last converted at {format_timestamp(self.last.ended_us)} UTC"
        return f"{when}: {self.last.error}; {wrote}" if self.last.error else f"{when}; {wrote}"

    def to_json(self) -> Optional[dict[str, Any]]:
        """Return the JSON object that `status` prints; None without a conversion."""
        if self.last is None:
            return None
        return {
            "ended": iso_time(self.last.ended_us),
            "accounts": self.last.accounts,
            "tasks": self.last.tasks,
            "links": self.last.links,
            "error": self.last.error,
            "overdue": self.is_overdue,
        }


def read_ownership(engine: Engine) -> Ownership:
    """Return the owner of the schema."""
    with reading(engine).connect() as connection:
        since_us = read_owner_since_us(connection)
        return Ownership(
            read_owner(connection), "" if since_us is None else format_timestamp(since_us)
        )


def read_conversion_statuses(engine: Engine) -> list[ConversionStatus]:
    """Return all connections by id; none where DevLake converts reports."""
    with reading(engine).connect() as connection:
        if read_owner(connection) is SchemaOwner.DEVLAKE:
            return []
        conversions = read_conversions(connection)
        rows = connection.exec_driver_sql(
            f"SELECT id, name FROM {CONNECTION_TABLE} ORDER BY id"
        ).fetchall()
        return [
            ConversionStatus(
                int(row[0]),
                row[1],
                conversions.get(row[0]),
                is_overdue(connection, row[0], conversions.get(row[0])),
            )
            for row in rows
        ]


def describe_conversions(ownership: Ownership, statuses: Sequence[ConversionStatus]) -> str:
    """Return one line: the owner of the schema, the last conversion, and what is wrong."""
    sentences = [str(ownership)]
    converted = [(status.last.ended_us, status) for status in statuses if status.last]
    if converted:
        _, newest = max(converted)
        sentences.append(f"connection {newest.connection_id} ({newest.name}): {newest}")
    elif ownership.owner is SchemaOwner.STANDALONE:
        sentences.append("no report was converted so far")
    failed = [status for status in statuses if status.last and status.last.error]
    if failed:
        sentences.append(f"failed for {_list_names(failed)}")
    overdue = [status for status in statuses if status.is_overdue]
    if overdue:
        sentences.append(
            f"overdue for {_list_names(overdue)}: reports have waited for more than"
            f" {OVERDUE_SECONDS // 60} minutes"
        )
    return "; ".join(sentences)


def _list_names(statuses: Sequence[ConversionStatus]) -> str:
    listed = ", ".join(status.name for status in statuses[:MAX_LISTED])
    more = f" and {len(statuses) - MAX_LISTED} more" if len(statuses) > MAX_LISTED else ""
    return f"{listed}{more}"
