"""Read rows about people from DevLake's tables and ours, for figures of groups."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, timezone
from functools import lru_cache
from typing import Any, NamedTuple, Optional

import msgspec
from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection

from developer_telemetry.constants import (
    ACCOUNT_TABLE,
    CONNECTION_TABLE,
    LINK_TABLE,
    TOOL_TABLE,
    smallest_group_of,
)
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.domain_texts import EXACTLY, TableTexts, read_table_texts
from developer_telemetry.storage.devlake_schema import (
    DELIVERY_TABLES,
    MAPPING_TABLE,
    METRIC_TABLE,
    PULL_REQUEST_TABLE,
    TEAM_USER_TABLE,
    make_account_id,
    make_scope_id,
)

# As an item of a JSON list or a key of a JSON object, also with more words: "claude-code".
ASSISTANTS = ("claude", "codex", "cursor", "copilot", "gemini", "windsurf")
_ASSISTANT = re.compile(
    rf'"(?:github[ _-])?(?:{"|".join(ASSISTANTS)})(?:[ ._-][^"]*)?"', re.IGNORECASE
)

ITEM_LENGTH = 255

Developer = tuple[int, str]  # connection and id


class Connection(NamedTuple):
    """A connection, and the days for which its tool rows are stored, 0 for ever."""

    id: int
    smallest_group: int
    retention_days: int


class People(NamedTuple):
    """The users of accounts, teams, projects, and the settings of connections."""

    connections: Sequence[Connection]
    users: Mapping[str, str]  # of accounts, by the account's id
    teams: Mapping[str, AbstractSet[str]]  # users by team
    projects: Mapping[str, AbstractSet[int]]  # connections by project
    texts: TableTexts

    def find_user(self, developer: Developer) -> Optional[str]:
        """Return the user to whom a developer's account belongs."""
        return self.users.get(make_account_id(*developer, self.texts))

    def find_person(self, developer: Developer, email: Optional[str] = None) -> str:
        """Return a user, or what tells a developer without one from others.

        In doubt two accounts are one person, who would be two of the smallest group otherwise.
        """
        return self.find_user(developer) or f"? {(email or developer[1]).lower()}"


class Day(NamedTuple):
    """A person's day with activity, over all their accounts."""

    hours: int
    connections: AbstractSet[int]
    projects: AbstractSet[str] = frozenset()
    tools: AbstractSet[str] = frozenset()
    commands: Mapping[str, int] = {}
    repositories: Mapping[str, int] = {}  # commits by name
    has_assistant: bool = False
    commits: int = 0
    lines_added: int = 0
    lines_deleted: int = 0
    files_changed: int = 0
    test_runs: int = 0
    builds: int = 0

    def joined(self, other: Day) -> Day:
        """Return what two accounts of one person report about a day."""
        return Day(
            min(24, self.hours + other.hours),
            self.connections | other.connections,
            self.projects | other.projects,
            self.tools | other.tools,
            _add_counts(self.commands, other.commands),
            _add_counts(self.repositories, other.repositories),
            self.has_assistant or other.has_assistant,
            *map(sum, zip(self[7:], other[7:])),
        )


def _add_counts(one: Mapping[str, int], other: Mapping[str, int]) -> Mapping[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


class PullRequest(NamedTuple):
    """A merged pull request of a user; times are in hours, None if DevLake has none."""

    user: str
    merged: date
    coding: Optional[float]
    pickup: Optional[float]
    review: Optional[float]
    cycle: Optional[float]


def has_delivery(connection: SqlConnection) -> bool:
    """Return true if the database has DevLake's tables of people and of pull requests."""
    schema = inspect(connection)
    return all(schema.has_table(table) for table in DELIVERY_TABLES)


def read_connections(connection: SqlConnection) -> list[Connection]:
    """Return all connections."""
    rows = connection.exec_driver_sql(
        f"SELECT id, smallest_group, tool_retention_days FROM {CONNECTION_TABLE}"
    )
    return [Connection(int(row[0]), smallest_group_of(row[1]), int(row[2])) for row in rows]


def read_people(connection: SqlConnection) -> People:
    """Return users, teams, projects and the settings of connections.

    Without DevLake's tables there are connections alone.
    """
    connections = read_connections(connection)
    if not has_delivery(connection):
        return People(connections, {}, {}, {}, EXACTLY)
    users = connection.exec_driver_sql(f"SELECT account_id, user_id FROM {LINK_TABLE}")
    linked = {row[0]: row[1] for row in users if row[1]}
    members: dict[str, set[str]] = {}
    for team, user in connection.exec_driver_sql(f"SELECT team_id, user_id FROM {TEAM_USER_TABLE}"):
        members.setdefault(team, set()).add(user)
    ours = {make_scope_id(one.id): one.id for one in connections}
    projects: dict[str, set[int]] = {}
    for project, scope in connection.exec_driver_sql(
        f"SELECT project_name, row_id FROM {MAPPING_TABLE}"
    ):
        if scope in ours:
            projects.setdefault(project, set()).add(ours[scope])
    texts = read_table_texts(connection, ACCOUNT_TABLE)
    return People(connections, linked, members, projects, texts)


_NUMBERS = "commits, lines_added, lines_deleted, files_changed, test_runs, builds"


def read_days(
    connection: SqlConnection, people: People, first: date, last: date
) -> dict[tuple[str, date], Day]:
    """Return the days with activity between two dates, by person and date."""
    param = dialect_of(connection).placeholder
    rows = connection.exec_driver_sql(
        "SELECT connection_id, developer_id, email, date, active_hours, project_context,"
        f" tools_used, command_counts, git_activity, {_NUMBERS} FROM {TOOL_TABLE}"
        f" WHERE date BETWEEN {param} AND {param} AND active_hours > 0",
        (str(first), str(last)),
    )
    days: dict[tuple[str, date], Day] = {}
    persons: dict[Developer, str] = {}
    for number, developer, email, day, hours, projects, tools, commands, git, *numbers in rows:
        who = (int(number), str(developer))
        if who not in persons:
            persons[who] = people.find_person(who, email)
        one = Day(
            int(hours),
            frozenset([who[0]]),
            _read_names(projects),
            _read_names(tools),
            _read_counts(commands),
            _read_repositories(git),
            uses_assistant(tools) or uses_assistant(commands),
            *map(int, numbers),
        )
        key = (persons[who], to_date(day))
        days[key] = days[key].joined(one) if key in days else one
    return days


def uses_assistant(texts: Optional[str]) -> bool:
    """Return true if a JSON text names an AI assistant among tools or commands."""
    return bool(texts and _ASSISTANT.search(texts))


# A developer's lists are mostly the same from day to day.
@lru_cache(maxsize=4096)
def _read_names(text: Optional[str]) -> AbstractSet[str]:
    names = _decode(text)
    items = map(_clean, map(str, names)) if isinstance(names, list) else ()
    return frozenset(filter(None, items))


def _read_counts(text: Optional[str]) -> Mapping[str, int]:
    counts = _decode(text)
    if not isinstance(counts, dict):
        return {}
    return _sum_counts(counts.items())


def _read_repositories(text: Optional[str]) -> Mapping[str, int]:
    activity = _decode(text)
    listed = activity.get("repositories") if isinstance(activity, dict) else None
    repositories = listed if isinstance(listed, list) else []
    return _sum_counts(
        (str(one.get("name") or ""), one.get("commits"))
        for one in repositories
        if isinstance(one, dict)
    )


def _sum_counts(counts: Iterable[tuple[str, Any]]) -> Mapping[str, int]:
    sums: dict[str, int] = {}
    for name, count in counts:
        item = _clean(name)
        if item:
            sums[item] = sums.get(item, 0) + (count if isinstance(count, int) else 0)
    return sums


def _clean(item: str) -> str:
    """Return a name as every database stores and compares it."""
    return item.replace("\0", "").strip()[:ITEM_LENGTH].rstrip()


def _decode(text: Optional[str]) -> Any:
    try:
        return msgspec.json.decode(text) if text else None
    except msgspec.DecodeError:  # of rows that another plugin wrote
        return None


def read_pull_requests(connection: SqlConnection, people: People, since: date) -> list[PullRequest]:
    """Return the pull requests of users that were merged since a date."""
    param = dialect_of(connection).placeholder
    rows = connection.exec_driver_sql(
        "SELECT p.id, p.author_id, p.merged_date, m.pr_coding_time, m.pr_pickup_time,"
        f" m.pr_review_time, m.pr_cycle_time FROM {PULL_REQUEST_TABLE} p"
        f" LEFT JOIN {METRIC_TABLE} m ON m.id = p.id WHERE p.merged_date >= {param}",
        (str(since),),
    )
    # Of a pull request in several projects there are several rows with the same times.
    pull_requests: dict[str, PullRequest] = {}
    for identity, author, merged, *minutes in rows:
        user = people.users.get(author)
        if user:
            pull_requests[identity] = PullRequest(user, to_date(merged), *map(_to_hours, minutes))
    return list(pull_requests.values())


def read_first_merges(connection: SqlConnection, people: People) -> dict[str, date]:
    """Return the day of each user's first merged pull request."""
    first: dict[str, date] = {}
    for author, merged in connection.exec_driver_sql(
        f"SELECT author_id, MIN(merged_date) FROM {PULL_REQUEST_TABLE}"
        " WHERE merged_date IS NOT NULL GROUP BY author_id"
    ):
        user = people.users.get(author)
        if user:
            first[user] = min(to_date(merged), first.get(user, date.max))
    return first


def read_authors(connection: SqlConnection, since: date) -> set[str]:
    """Return the accounts that have opened a pull request since a date."""
    param = dialect_of(connection).placeholder
    rows = connection.exec_driver_sql(
        f"SELECT DISTINCT author_id FROM {PULL_REQUEST_TABLE} WHERE created_date >= {param}",
        (str(since),),
    )
    return {row[0] for row in rows if row[0]}


def read_spans(connection: SqlConnection) -> dict[Developer, tuple[date, date]]:
    """Return the first and the last stored day of each developer."""
    rows = connection.exec_driver_sql(
        f"SELECT connection_id, developer_id, MIN(date), MAX(date) FROM {TOOL_TABLE}"
        " GROUP BY connection_id, developer_id"
    )
    return {(int(row[0]), str(row[1])): (to_date(row[2]), to_date(row[3])) for row in rows}


def to_date(value: Any) -> date:
    """Return the day in UTC of what a driver returns for a date or a time."""
    if isinstance(value, datetime):
        return (value.astimezone(timezone.utc) if value.tzinfo else value).date()
    return value if isinstance(value, date) else date.fromisoformat(str(value)[:10])


def _to_hours(minutes: Optional[int]) -> Optional[float]:
    return None if minutes is None else float(minutes) / 60
