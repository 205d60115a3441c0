"""Describe the processing of people's data by the settings in force, in English or German.

The text is for a works council or a data-protection officer. All that depends on a setting is in
`RecordFacts`; the languages have the same sentences for the same facts.
"""

from __future__ import annotations

from datetime import datetime, timezone
from enum import Enum
from typing import NamedTuple, Optional

from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.config import Settings
from developer_telemetry.constants import (
    CONNECTION_TABLE,
    SUM,
    TOMBSTONE_TABLE,
    TOOL_TABLE,
    smallest_group_of,
    strategy_of,
)
from developer_telemetry.database.engine import address_of, reading
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.privacy.record_phrases import ENGLISH, GERMAN, Language, Phrases
from developer_telemetry.storage.tables import PARAMS, TABLES


class PageAccess(Enum):
    """The people for whom the page of operators opens."""

    ADMIN_TOKEN = "admin token"
    LOCAL = "local"
    NOBODY = "nobody"


class ConnectionFacts(NamedTuple):
    """A connection's settings, and how many people it has rows of."""

    id: int
    name: str
    strip_paths: bool
    pseudonyms: bool
    raw_retention_days: int
    tool_retention_days: int
    smallest_group: int
    adds_up: bool
    developers: int


class ErasureFacts(NamedTuple):
    """Erasures so far: their number, those that block later reports, and the last day of one."""

    erased: int
    blocked: int
    last_day: str


class RecordFacts(NamedTuple):
    """All that the text depends on."""

    written: str
    release: str
    database: str
    public_url: str
    contact: str
    page_access: PageAccess
    retire_days: int
    connections: tuple[ConnectionFacts, ...]
    erasures: ErasureFacts
    # The tables with people's rows, each with the columns that may hold a person.
    tables: tuple[tuple[str, tuple[str, ...]], ...]


def read_facts(
    engine: Engine, settings: Settings, release: str, only: Optional[int] = None
) -> RecordFacts:
    """Return the facts of all connections, or of the connection `only`."""
    with reading(engine).connect() as connection:
        existing = inspect(connection).get_table_names()
        return RecordFacts(
            written=f"{datetime.now(timezone.utc):%Y-%m-%d}",
            release=release,
            database=address_of(engine),
            public_url=settings.public_url,
            contact=settings.privacy_contact,
            page_access=_page_access(settings),
            retire_days=settings.retire_days,
            connections=tuple(_read_connections(connection, only)),
            erasures=_read_erasures(connection, only),
            tables=tuple(
                (table.name, tuple(name for name in table.personal if name != PARAMS))
                for table in TABLES
                if table.personal and table.name in existing
            ),
        )


def _page_access(settings: Settings) -> PageAccess:
    if settings.admin_token:
        return PageAccess.ADMIN_TOKEN
    return PageAccess.LOCAL if settings.embedded else PageAccess.NOBODY


def _read_connections(connection: SqlConnection, only: Optional[int]) -> list[ConnectionFacts]:
    developers = {
        row[0]: int(row[1])
        for row in connection.exec_driver_sql(
            f"SELECT connection_id, COUNT(DISTINCT developer_id) FROM {TOOL_TABLE}"
            " GROUP BY connection_id"
        )
    }
    rows = connection.exec_driver_sql(
        "SELECT id, name, strip_paths, pseudonyms, raw_retention_days, tool_retention_days,"
        f" smallest_group, duplicate_strategy FROM {CONNECTION_TABLE} ORDER BY id"
    )
    return [
        ConnectionFacts(
            id=row[0],
            name=row[1],
            strip_paths=bool(row[2]),
            pseudonyms=bool(row[3]),
            raw_retention_days=int(row[4] or 0),
            tool_retention_days=int(row[5] or 0),
            smallest_group=smallest_group_of(row[6]),
            adds_up=_adds_up(row[7]),
            developers=developers.get(row[0], 0),
        )
        for row in rows
        if only in (None, row[0])
    ]


def _adds_up(strategy: Optional[str]) -> bool:
    try:
        return strategy_of(strategy) == SUM
    except ConfigurationError:  # receivers use the default
        return False


def _read_erasures(connection: SqlConnection, only: Optional[int]) -> ErasureFacts:
    rows = [
        (int(row[1]), bool(row[2]))
        for row in connection.exec_driver_sql(
            f"SELECT connection_id, erased_us, blocked FROM {TOMBSTONE_TABLE}"
        )
        if only is None or row[0] in (0, only)
    ]
    # An erasure writes several rows: one for each id and address, at the same time.
    times = {erased_us for erased_us, _ in rows}
    blocking = {erased_us for erased_us, is_blocked in rows if is_blocked}
    last = max(times, default=0)
    day = f"{datetime.fromtimestamp(last / 1e6, timezone.utc):%Y-%m-%d}" if last else ""
    return ErasureFacts(len(times), len(blocking), day)


def write_record(facts: RecordFacts, language: Language) -> str:
    """Return the record as Markdown."""
    phrases = GERMAN if language is Language.GERMAN else ENGLISH
    sections = [
        _introduce(facts, phrases),
        phrases.collected,
        phrases.purpose,
        _locate(facts, phrases),
        _list_readers(facts, phrases),
        *(_describe_connection(connection, phrases) for connection in facts.connections),
        _describe_erasures(facts, phrases),
        phrases.rights.format(contact=_escape(facts.contact) or phrases.operators),
    ]
    return "\n\n".join(section.strip() for section in sections) + "\n"


def _introduce(facts: RecordFacts, phrases: Phrases) -> str:
    return phrases.introduction.format(
        written=facts.written,
        release=facts.release,
        contact=_escape(facts.contact) or phrases.no_contact,
    )


def _locate(facts: RecordFacts, phrases: Phrases) -> str:
    lines = [f"| `{name}` | {', '.join(columns)} |" for name, columns in facts.tables]
    return "\n".join(
        [
            phrases.location.format(
                database=facts.database, url=facts.public_url or phrases.no_public_url
            ),
            *lines,
            "",
            phrases.spool,
        ]
    )


def _list_readers(facts: RecordFacts, phrases: Phrases) -> str:
    page = {
        PageAccess.ADMIN_TOKEN: phrases.page_by_token,
        PageAccess.LOCAL: phrases.page_locally,
        PageAccess.NOBODY: phrases.page_closed,
    }[facts.page_access]
    retired = phrases.retired.format(days=facts.retire_days)
    retired = retired if facts.retire_days else phrases.never_retired
    return phrases.readers.format(page=page, retired=retired)


def _describe_connection(connection: ConnectionFacts, phrases: Phrases) -> str:
    tool_days = connection.tool_retention_days
    # Reports are removed with their rows at the latest.
    raw_days = min(filter(None, (connection.raw_retention_days, tool_days)), default=0)
    group = phrases.group if connection.smallest_group > 1 else phrases.no_group
    lines = [
        phrases.connection.format(name=_escape(connection.name), id=connection.id),
        "",
        f"- {phrases.people.format(count=connection.developers)}",
        f"- {group.format(count=connection.smallest_group)}",
        f"- {phrases.raw_retention.format(days=_describe_days(raw_days, phrases))}",
        f"- {phrases.tool_retention.format(days=_describe_days(tool_days, phrases))}",
        f"- {phrases.paths_removed if connection.strip_paths else phrases.paths_stored}",
        f"- {phrases.pseudonyms if connection.pseudonyms else phrases.names}",
        f"- {phrases.adds_up if connection.adds_up else phrases.newest_counts}",
    ]
    return "\n".join(lines)


def _describe_days(days: int, phrases: Phrases) -> str:
    return phrases.days.format(count=days) if days else phrases.without_limit


def _describe_erasures(facts: RecordFacts, phrases: Phrases) -> str:
    erasures = facts.erasures
    if not erasures.erased:
        return phrases.erasures.format(count=phrases.no_erasure)
    count = phrases.some_erasures.format(
        count=erasures.erased, day=erasures.last_day, blocked=erasures.blocked
    )
    return phrases.erasures.format(count=count)


def _escape(text: str) -> str:
    """Return a text without characters that Markdown takes for markup, in one line."""
    words = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#|" else letter for letter in words)
