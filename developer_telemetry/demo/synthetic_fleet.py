"""The people of a made-up fleet, and what they do at their machines day by day.

Part time, holidays, illness, week-ends, second machines and fashions are in it; what becomes of the
reports on their way is for `demo` to say.
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
    """A team: its projects, its zone (hours from UTC), and the tools it uses most."""

    name: str
    projects: tuple[str, ...]
    zone: int
    tools: tuple[str, ...]


TEAMS = (
    Team("Checkout", ("web-shop", "payments", "tax-rules"), 1, ("node", "vscode", "docker")),
    Team("Platform", ("cluster", "observability", "base-images"), 1, ("go", "goland", "kubectl")),
    Team("Data", ("warehouse", "forecasts", "events"), 0, ("python", "pycharm", "jupyter")),
    Team("Mobile", ("ios-app", "android-app", "design-kit"), -5, ("xcode", "gradle", "node")),
    Team("Search", ("search-api", "ranking", "crawler"), 5, ("java", "intellij", "maven")),
    Team("Developers' tools", ("build-farm", "customer's-cli"), -8, ("go", "make", "vim")),
)

# Share of people who use a tool at the start and at the end; below 0 nobody does yet, or any more.
FASHIONS = {
    "git": (1.0, 1.0),
    "docker": (0.55, 0.6),
    "vscode": (0.6, 0.5),
    "vim": (0.2, 0.18),
    "python": (0.4, 0.45),
    "node": (0.35, 0.35),
    "make": (0.25, 0.25),
    "kubectl": (0.2, 0.25),
    "claude": (-0.25, 0.5),
    "cursor": (-0.05, 0.3),
    "uv": (0.02, 0.35),
    "eclipse": (0.15, -0.1),
    "svn": (0.07, -0.1),
}
# How often in an hour, at most.
COMMANDS = {"git": 14, "ls": 9, "docker": 5, "make": 3, "npm": 6, "pytest": 4, "kubectl": 3}
HOLIDAYS = {(1, 1), (5, 1), (12, 24), (12, 25), (12, 26), (12, 31)}

FIRST_NAMES = (
    "Ada Amir Anna Bao Carla Chidi Dana Elif Emil Fatou Felix Gita Hana Hugo Ines Ivan Jonas Kaito "
    "Lea Liam Mara Maeve Mia Nils Noor Olga Omar Pia Ravi Rosa Sam Selin Tariq Tom Uma Vera Wei "
    "Yara Zoë Zita"
)
LAST_NAMES = (
    "Adeyemi Bauer Costa Dubois Eriksen Fischer García Haddad Ivanova Jensen Kim Lopez Meyer "
    "Nakamura O'Brien Okafor Patel Quist Rossi Sato Silva Tanaka Ünal Virtanen Wagner Yilmaz Zhang"
)


class Machine(NamedTuple):
    """A computer, on which days it could report, and whether its collector counts commands."""

    hostname: str
    first: date
    last: date
    counts_commands: bool


class Developer(NamedTuple):
    """Someone who reports. `email` and `name` are empty where git has none."""

    id: str
    name: str
    email: str
    team: Team
    connection: str
    first: date
    last: date
    hours: int  # of a usual day
    days_off: tuple[int, ...]  # weekdays, Monday is 0
    machines: tuple[Machine, ...]


def developer(random: Random, number: int, first: date, last: date) -> Developer:
    """Make up number so-and-so of a fleet that reports from the first day to the last."""
    first_name, family, login = _name(number)
    team = TEAMS[number % len(TEAMS)] if number < 6 else random.choice(TEAMS)
    span = (last - first).days
    joined = first + timedelta(days=random.randrange(span) if random.random() < 0.15 else 0)
    left = last
    if random.random() < 0.1:
        left = joined + timedelta(days=random.randint(0, (last - joined).days))
    anonymous = random.random() < 0.07
    part_time = random.random() < 0.2
    contractor = number % 5 == 4
    return Developer(
        id=f"ACME\\{login}" if random.random() < 0.1 else login,
        name="" if anonymous else f"{first_name} {family}",
        email="" if anonymous else f"{login}@example.com",
        team=team,
        connection=CONTRACTORS if contractor else STAFF,
        first=joined,
        last=left,
        hours=random.choice((4, 5)) if part_time else random.choice((5, 6, 6, 7)),
        days_off=random.choice(((4,), (2,), (0, 1))) if part_time else (),
        machines=_machines(random, login, joined, left, contractor),
    )


def _name(number: int) -> tuple[str, str, str]:
    """First and last name, and a login of them that nobody else has."""
    first, last = FIRST_NAMES.split(), LAST_NAMES.split()
    rounds, index = divmod(number, len(first) * len(last))
    first_name = first[index % len(first)]
    family = last[(index + index // len(first)) % len(last)]
    return first_name, family, f"{first_name}.{family}{rounds or ''}".lower()


def _machines(
    random: Random, login: str, first: date, last: date, contractor: bool
) -> tuple[Machine, ...]:
    owner = login.split(".")[0]
    names = (
        f"{owner}s-macbook.local",
        f"{owner}-thinkpad",
        f"DESKTOP-{random.randrange(1 << 24):06X}",
    )
    count = 1 + (random.random() < (0.7 if contractor else 0.25)) + (random.random() < 0.05)
    machines = []
    for name in random.sample(names, count):
        quiet = last
        # On Linux collectors stop for reasons of their own.
        if "thinkpad" in name and random.random() < 0.4 and last > first:
            quiet = first + timedelta(days=random.randrange((last - first).days))
        machines.append(Machine(name, first, quiet, random.random() < 0.6))
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
        """Every report with the time at which it set out, machine by machine."""
        days = self._days()
        for index, machine in enumerate(self._developer.machines):
            yield from self._of_machine(machine, index, days)

    def _days(self) -> list[date]:
        developer = self._developer
        span = (developer.last - developer.first).days + 1
        return [day for n in range(span) if self._works(day := developer.first + timedelta(n))]

    def _works(self, day: date) -> bool:
        if day in self._absences or (day.month, day.day) in HOLIDAYS:
            return False
        if day.weekday() > 4:
            return self._random.random() < 0.05
        return day.weekday() not in self._developer.days_off and self._random.random() > 0.02

    def _plan_absences(self) -> set[date]:
        absent: set[date] = set()
        # About three holidays a year, of one or two weeks.
        for _ in range(max(1, self._length // 120)):
            start = self._first + timedelta(days=self._random.randrange(self._length))
            absent.update(start + timedelta(n) for n in range(self._random.choice((7, 7, 14))))
        return absent

    def _of_machine(
        self, machine: Machine, index: int, days: list[date]
    ) -> Iterator[tuple[int, bytes]]:
        random = self._random
        used = [
            day
            for day in days
            if machine.first <= day <= machine.last and (index == 0 or random.random() < 0.3)
        ]
        for day, following in zip(used, [*used[1:], None]):
            done = self._day(machine, index, day)
            travelling = random.random() < 0.03
            if not travelling:
                yield self._at(day, 9, 150), _body(self._developer, machine, day, done, 0.25)
            body = _body(self._developer, machine, day, done, 1)
            if random.random() < 0.35:  # left running over night
                yield self._at(day + timedelta(1), 0, 20), body
            elif following:
                yield self._at(following, 8, 50), body

    def _at(self, day: date, hour: int, minutes: int) -> int:
        """Return a moment within so many minutes from an hour in the developer's zone."""
        start = epoch_us(datetime.combine(day, time(hour), timezone.utc))
        moment = start - self._developer.team.zone * HOUR_US
        return moment + self._random.randrange(minutes * MINUTE_US)

    def _day(self, machine: Machine, index: int, day: date) -> dict[str, Any]:
        random, developer = self._random, self._developer
        usual = developer.hours if index == 0 and day.weekday() < 5 else 2
        hours = max(1, min(14, round(random.gauss(usual, 1.2))))
        projects = random.sample(developer.team.projects, random.choice((1, 1, 2, 2)))
        if random.random() < 0.1:
            projects.append("handbook")
        done: dict[str, Any] = {
            "active_hours": hours,
            "tools_used": sorted(self._tools(day)),
            "projects": projects,
            "repositories": {project: self._repository() for project in projects},
            "tests": max(0, round(random.gauss(hours, 3))),
            "builds": max(0, round(random.gauss(hours / 2, 1.5))),
        }
        if machine.counts_commands:
            names = random.sample(sorted(COMMANDS), 4)
            done["commands"] = {name: random.randint(1, COMMANDS[name] * hours) for name in names}
        return done

    def _tools(self, day: date) -> Iterator[str]:
        elapsed = (day - self._first).days / self._length
        for tool, (start, end) in FASHIONS.items():
            share = start + (end - start) * elapsed
            if self._tastes[tool] < share and self._random.random() < 0.85:
                yield tool
        for tool in self._developer.team.tools:
            if tool not in FASHIONS and self._random.random() < 0.8:
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
    developer: Developer, machine: Machine, day: date, done: Mapping[str, Any], part: float
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
        for name, counts in done["repositories"].items()
    ]
    metrics: dict[str, Any] = {
        "active_hours": round(done["active_hours"] * part),
        "tools_used": done["tools_used"],
        "projects": done["projects"],
        "git_activity": {
            **{
                f"total_{count}": sum(repository[count] for repository in repositories)
                for count in REPOSITORY_COUNTS
            },
            "repositories": repositories,
        },
        "development_activity": {
            "test_runs_detected": int(done["tests"] * part),
            "build_commands_detected": int(done["builds"] * part),
        },
    }
    if "commands" in done:
        metrics["commands"] = {name: int(n * part) for name, n in done["commands"].items()}
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
