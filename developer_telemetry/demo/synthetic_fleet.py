"""The people of a made-up fleet, and their days at their machines.

They join and leave, take holidays, use second machines and follow fashions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone
from random import Random
from typing import Any, NamedTuple

from developer_telemetry.constants import OVERWRITE, SUM
from developer_telemetry.reports.parser import REPOSITORY_COUNTS

CONNECTIONS = {"Product engineering": OVERWRITE, "Contractors' machines": SUM}
STAFF, CONTRACTORS = CONNECTIONS

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US


class Team(NamedTuple):
    """A team and its projects."""

    name: str
    projects: tuple[str, ...]


TEAMS = (
    Team("Checkout", ("web-shop", "payments", "tax-rules")),
    Team("Platform", ("cluster", "observability", "base-images")),
    Team("Mobile", ("ios-app", "android-app", "design-kit")),
    Team("Developers' tools", ("build-farm", "linters", "customer's-cli")),
)

# The share of people who use a tool, at the start and at the end; below 0 it is not in use.
FASHIONS = {
    "git": (1.0, 1.0),
    "docker": (0.55, 0.6),
    "vscode": (0.6, 0.5),
    "python": (0.4, 0.45),
    "claude": (-0.25, 0.5),
    "eclipse": (0.15, -0.1),
}
# The most calls in an hour.
COMMANDS = {"git": 14, "ls": 9, "docker": 5, "make": 3, "npm": 6, "pytest": 4}
HOLIDAYS = {(1, 1), (5, 1), (12, 25)}

FIRST_NAMES = (
    "Ada Amir Bao Carla Dana Emil Fatou Gita Hugo Ines Jonas Kaito Lea Noor Olga Ravi Sam Zoë"
)
LAST_NAMES = "Bauer Costa Dubois García Haddad Jensen Kim Meyer O'Brien Patel Sato Ünal Zhang"


class Machine(NamedTuple):
    """A computer, and the days between which it reports."""

    hostname: str
    first: date
    last: date


class Developer(NamedTuple):
    """A person with machines. `email` and `name` are empty where git has none."""

    id: str
    name: str
    email: str
    team: Team
    connection: str
    first: date
    last: date
    machines: tuple[Machine, ...]


def developer(random: Random, number: int, first: date, last: date) -> Developer:
    """Make up the developer `number` of a fleet that reports from the first day to the last."""
    name, login = _name(number)
    joined, left = first, last
    if random.random() < 0.15:
        joined += timedelta(days=random.randrange((last - first).days))
    if random.random() < 0.1:
        left = joined + timedelta(days=random.randint(0, (last - joined).days))
    is_anonymous = random.random() < 0.07
    is_contractor = number % 5 == 4
    return Developer(
        id=login,
        name="" if is_anonymous else name,
        email="" if is_anonymous else f"{login}@example.com",
        team=TEAMS[number % len(TEAMS)],
        connection=CONTRACTORS if is_contractor else STAFF,
        first=joined,
        last=left,
        machines=_machines(random, login, joined, left, 0.7 if is_contractor else 0.25),
    )


def _name(number: int) -> tuple[str, str]:
    """Return a name, and a login that no other number has."""
    first_names, last_names = FIRST_NAMES.split(), LAST_NAMES.split()
    rounds, index = divmod(number, len(first_names) * len(last_names))
    first = first_names[index % len(first_names)]
    last = last_names[(index + index // len(first_names)) % len(last_names)]
    return f"{first} {last}", f"{first}.{last}{rounds or ''}".lower()


def _machines(
    random: Random, login: str, first: date, last: date, share_of_two: float
) -> tuple[Machine, ...]:
    owner = login.partition(".")[0]
    names = random.sample((f"{owner}s-macbook.local", f"{owner}-thinkpad"), 2)
    machines = []
    for name in names[: 1 + (random.random() < share_of_two)]:
        quiet = last
        if random.random() < 0.2 and last > first:
            quiet = first + timedelta(days=random.randrange((last - first).days))
        machines.append(Machine(name, first, quiet))
    return tuple(machines)


class Diary:
    """The days of one developer, and the reports of their machines."""

    def __init__(self, random: Random, developer: Developer, first: date, last: date) -> None:
        self._random = random
        self._developer = developer
        self._first = first
        self._length = max(1, (last - first).days)
        self._tastes = {tool: random.random() for tool in FASHIONS}
        self._absences = self._plan_absences()

    def reports(self) -> Iterator[tuple[int, bytes]]:
        """Yield all reports with the times at which they are sent, machine by machine."""
        days = self._days()
        for index, machine in enumerate(self._developer.machines):
            yield from self._reports_of(machine, index, days)

    def _days(self) -> list[date]:
        developer = self._developer
        span = (developer.last - developer.first).days + 1
        return [day for n in range(span) if self._works(day := developer.first + timedelta(n))]

    def _works(self, day: date) -> bool:
        if day in self._absences or (day.month, day.day) in HOLIDAYS:
            return False
        return self._random.random() < (0.05 if day.weekday() > 4 else 0.95)

    def _plan_absences(self) -> set[date]:
        absent: set[date] = set()
        for _ in range(max(1, self._length // 120)):
            start = self._first + timedelta(days=self._random.randrange(self._length))
            absent.update(start + timedelta(n) for n in range(10))
        return absent

    def _reports_of(
        self, machine: Machine, index: int, days: list[date]
    ) -> Iterator[tuple[int, bytes]]:
        random = self._random
        used = [
            day
            for day in days
            if machine.first <= day <= machine.last and (index == 0 or random.random() < 0.3)
        ]
        for day, following in zip(used, [*used[1:], None]):
            work = self._day(index, day)
            yield self._at(day, 9, 150), _body(self._developer, machine, day, work, 0.25)
            body = _body(self._developer, machine, day, work, 1)
            if random.random() < 0.35:  # the machine runs over night
                yield self._at(day + timedelta(1), 0, 20), body
            elif following:
                yield self._at(following, 8, 50), body

    def _at(self, day: date, hour: int, minutes: int) -> int:
        """Return a moment within so many minutes after an hour."""
        start = epoch_us(datetime.combine(day, time(hour), timezone.utc))
        return start + self._random.randrange(minutes * MINUTE_US)

    def _day(self, index: int, day: date) -> dict[str, Any]:
        random = self._random
        usual = 6 if index == 0 and day.weekday() < 5 else 2
        hours = max(1, min(14, round(random.gauss(usual, 1.2))))
        projects = random.sample(self._developer.team.projects, random.choice((1, 2)))
        commands = random.sample(sorted(COMMANDS), 4)
        return {
            "active_hours": hours,
            "tools_used": sorted(self._tools(day)),
            "projects": projects,
            "repositories": {project: self._repository() for project in projects},
            "tests": max(0, round(random.gauss(hours, 3))),
            "builds": max(0, round(random.gauss(hours / 2, 1.5))),
            "commands": {name: random.randint(1, COMMANDS[name] * hours) for name in commands},
        }

    def _tools(self, day: date) -> Iterator[str]:
        elapsed = (day - self._first).days / self._length
        for tool, (start, end) in FASHIONS.items():
            share = start + (end - start) * elapsed
            if self._tastes[tool] < share and self._random.random() < 0.85:
                yield tool

    def _repository(self) -> dict[str, int]:
        commits = max(0, round(self._random.gauss(1.6, 1.5)))
        added = sum(int(self._random.expovariate(1 / 35)) for _ in range(commits))
        return {
            "commits": commits,
            "lines_added": added,
            "lines_deleted": int(added * self._random.random()),
            "files_changed": min(added, commits * self._random.randint(1, 5)),
        }


def _body(
    developer: Developer, machine: Machine, day: date, work: Mapping[str, Any], part: float
) -> bytes:
    """Return the body that the collector's script sends after a `part` of the day."""
    home = f"/home/{developer.id}/code"
    repositories = [
        {
            "path": f"{home}/{name}",
            "branches_worked": ["main"],
            "name": name,
            **{count: int(number * part) for count, number in counts.items()},
        }
        for name, counts in work["repositories"].items()
    ]
    metrics: dict[str, Any] = {
        "active_hours": round(work["active_hours"] * part),
        "tools_used": work["tools_used"],
        "projects": work["projects"],
        "git_activity": {
            **{
                f"total_{count}": sum(repository[count] for repository in repositories)
                for count in REPOSITORY_COUNTS
            },
            "repositories": repositories,
        },
        "development_activity": {
            "test_runs_detected": int(work["tests"] * part),
            "build_commands_detected": int(work["builds"] * part),
        },
        "commands": {name: int(count * part) for name, count in work["commands"].items()},
    }
    document = {
        "date": day.isoformat(),
        "developer": developer.id,
        "hostname": machine.hostname,
        "email": developer.email,
        "name": developer.name,
        "metrics": metrics,
    }
    return json.dumps(document, ensure_ascii=False, indent=2).encode()


def epoch_us(moment: datetime) -> int:
    """Return a moment as UTC microseconds since 1970, without fractions of a second."""
    return int(moment.timestamp()) * 1_000_000
