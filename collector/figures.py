"""Make the report of a day from what the store has of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any, Dict, FrozenSet, List, NamedTuple, Optional

from collector.catalogue import BUILD, TEST
from collector.evidence import Repository
from collector.settings import Settings
from collector.store import Day, Store

MOST_BRANCHES = 100


class Identity(NamedTuple):
    """The person of a report, and the page key of the machine."""

    developer: str
    email: str
    name: str
    page_key: Sequence[int] = ()


class NameRules:
    """The rules by which repositories are left out, or sent under another name."""

    def __init__(self, settings: Settings, repositories: Sequence[Repository]) -> None:
        self._salt = settings.name_salt
        self._repositories = {repository.key: repository for repository in repositories}
        self.excluded = self.matching(settings.excluded)
        self._hidden = self.matching(settings.hidden)

    def matching(self, patterns: Sequence[str]) -> FrozenSet[str]:
        """Return the keys of the repositories that paths or folder names mean."""
        return frozenset(
            key
            for key, repository in self._repositories.items()
            if any(matches(repository, pattern) for pattern in patterns)
        )

    def hides(self, key: str) -> bool:
        """Return true if a repository's name is not sent."""
        return key in self._hidden

    def name(self, key: str) -> str:
        """Return the name under which a repository is sent."""
        repository = self._repositories.get(key)
        name = repository.name if repository else "unknown"
        if not self.hides(key):
            return name
        return "hidden-" + hashlib.sha256((self._salt + name).encode("utf-8")).hexdigest()[:10]


def matches(repository: Repository, pattern: str) -> bool:
    """Return true if a folder's name, or the path of a folder at or above it, is the pattern."""
    if os.sep not in pattern and "/" not in pattern:
        return repository.name == pattern
    folder = os.path.normcase(os.path.join(pattern, ""))
    paths = (repository.path, repository.key)
    return any(os.path.normcase(os.path.join(path, "")).startswith(folder) for path in paths)


def build_report(
    store: Store, day: Day, identity: Identity, rules: NameRules
) -> Optional[Dict[str, Any]]:
    """Return the report of a day; None if there was no work on it, and none was sent before."""
    hours = {(hour, source) for hour, source in store.day_hours(day.day)}
    hours = {(hour, source) for hour, source in hours if source not in rules.excluded}
    commands = store.day_commands(day.day)
    git_activity = _git_activity(store, day.day, rules)
    has_work = hours or commands or git_activity["total_commits"]
    if not has_work and day.delivered_at is None:
        return None
    keys = {source for _, source in hours} & {
        state.repository.key for state in store.repositories(with_gone=True)
    }
    counts: Dict[str, int] = {}
    for name, _, count in commands:
        counts[name] = counts.get(name, 0) + count
    report: Dict[str, Any] = {
        "date": day.day,
        "developer": identity.developer,
        "hostname": day.hostname,
        "email": identity.email,
        "name": identity.name,
        "metrics": {
            "active_hours": len({hour for hour, _ in hours}),
            "tools_used": sorted(set(store.day_tools(day.day)) | ({"git"} if keys else set())),
            "commands": dict(sorted(counts.items())),
            "projects": sorted({rules.name(key) for key in keys}),
            "os_info": day.os_info,
            "git_activity": git_activity,
            "development_activity": {
                "test_runs_detected": _runs(commands, TEST),
                "build_commands_detected": _runs(commands, BUILD),
            },
        },
    }
    if identity.page_key:
        report["page_key"] = list(identity.page_key)
    return report


def _runs(commands: Sequence[Any], kind: str) -> int:
    return sum(count for _, run, count in commands if run == kind)


def _git_activity(store: Store, day: str, rules: NameRules) -> Dict[str, Any]:
    """Return the commits of a day; one that several clones have counts in the first."""
    repositories: Dict[str, Dict[str, Any]] = {}
    counted = set()
    for key, id, added, deleted, files in store.day_commits(day):
        if key in rules.excluded or id in counted:
            continue
        counted.add(id)
        sums = repositories.setdefault(rules.name(key), _empty(rules.name(key)))
        sums["commits"] += 1
        sums["lines_added"] += added
        sums["lines_deleted"] += deleted
        sums["files_changed"] += files
    for key, branch in store.day_branches(day):
        sums = repositories.get(rules.name(key), {})
        branches: List[str] = sums.get("branches_worked", [])
        is_named = key not in rules.excluded and not rules.hides(key)
        if is_named and branch not in branches and len(branches) < MOST_BRANCHES:
            branches.append(branch)
    listed = [repositories[name] for name in sorted(repositories)]
    return {
        "total_commits": sum(one["commits"] for one in listed),
        "total_lines_added": sum(one["lines_added"] for one in listed),
        "total_lines_deleted": sum(one["lines_deleted"] for one in listed),
        "total_files_changed": sum(one["files_changed"] for one in listed),
        "repositories": listed,
    }


def _empty(name: str) -> Dict[str, Any]:
    return {
        "name": name,
        "commits": 0,
        "lines_added": 0,
        "lines_deleted": 0,
        "files_changed": 0,
        "branches_worked": [],
    }


def encode_report(report: Dict[str, Any]) -> bytes:
    """Return the body of a report, as it is sent and as `show` prints it."""
    text = json.dumps(report, indent=2, ensure_ascii=False)
    # A name of the system that is not in its own encoding has characters that UTF-8 lacks.
    return text.encode("utf-8", "replace")
