"""A developer with a home, at work at chosen times: real git, histories as shells write them.

    ann = Developer(tmp_path)
    ann.run(at="2026-11-02 09:00")
    ann.commit("shop", at="2026-11-02 10:20", lines=3)
    ann.type("git push", at="2026-11-02 10:21")
    ann.run(at="2026-11-02 10:30")
    assert ann.report("2026-11-02")["metrics"]["active_hours"] == 1

Times are local; files have the times of the work, not those of the test.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

from collector.errors import AnotherRun
from collector.figures import NameRules, build_report
from collector.runs import read_identity, run_once
from collector.settings import Settings
from collector.store import Store

EMAIL = "ann@example.com"
NOWHERE = "http://127.0.0.1:9/plugins/developer-telemetry/1/report"


def seconds(at: str) -> float:
    """Return a local time in seconds."""
    return time.mktime(time.strptime(at, "%Y-%m-%d %H:%M"))


class Developer:
    """One home; whoever makes it has set HOME to `home` (the fixture `ann` does)."""

    def __init__(self, folder: Path, url: str = NOWHERE, token: str = "") -> None:
        self.home = folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.settings = Settings(
            url=url,
            token=token,
            developer="ann",
            state=str(folder / "state"),
            name_salt="5a" * 16,
            roots=[str(self.home)],
        )
        (self.home / ".gitconfig").write_text(
            f"[user]\n\tname = Ann Lee\n\temail = {EMAIL}\n[init]\n\tdefaultBranch = main\n"
            '[protocol "file"]\n\tallow = always\n[commit]\n\tgpgsign = false\n',
            encoding="utf-8",
        )

    # Work.

    def git(self, repository: str, *arguments: str, at: str, **environment: str) -> str:
        """Run git in a repository below the home, as if it were `at`."""
        when = f"{int(seconds(at))} {time.strftime('%z', time.localtime(seconds(at)))}"
        done = subprocess.run(
            ["git", "-C", str(self.home / repository), *arguments],
            env={
                **os.environ,
                "HOME": str(self.home),
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_AUTHOR_DATE": when,
                "GIT_COMMITTER_DATE": when,
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        self._settle(repository, at)
        return done.stdout.strip()

    def repository(self, name: str, at: str) -> Path:
        """Make a repository, unless it is there."""
        path = self.home / name
        if not path.exists():
            path.mkdir(parents=True)
            self.git(name, "init", "--quiet", at=at)
        return path

    def write(self, file: str, text: str, at: str) -> None:
        """Write a file of the home."""
        path = self.home / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (seconds(at), seconds(at)))

    def commit(
        self, name: str, at: str, lines: int = 1, file: str = "code.py", message: str = "work"
    ) -> str:
        """Add lines to a file of a repository, commit it and return the id."""
        path = self.repository(name, at) / file
        with path.open("a", encoding="utf-8") as text:
            text.writelines(f"line {time.monotonic_ns()} {line}\n" for line in range(lines))
        self.git(name, "add", file, at=at)
        self.git(name, "commit", "--quiet", "--message", message, at=at)
        return self.git(name, "rev-parse", "HEAD", at=at)

    def _settle(self, repository: str, at: str) -> None:
        """Give the files that git has just written the time of the work."""
        now, when = time.time(), seconds(at)
        for folder, _, files in os.walk(self.home / repository):
            for name in files:
                path = os.path.join(folder, name)
                if now - 3600 < os.lstat(path).st_mtime <= now + 60:
                    os.utime(path, (when, when))

    def type(self, line: str, at: str, shell: str = "zsh") -> None:
        """Add a line to a shell's history, as the shell does."""
        when = int(seconds(at))
        files = {
            "zsh": (".zsh_history", f": {when}:0;{line}\n"),
            "bash": (".bash_history", f"{line}\n"),
            "bash with times": (".bash_history", f"#{when}\n{line}\n"),
            "fish": (".local/share/fish/fish_history", f"- cmd: {line}\n  when: {when}\n"),
        }
        name, text = files[shell]
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as history:
            history.write(text)
        os.utime(path, (when, when))

    # The collector.

    def run(self, at: str) -> None:
        """Have the collector run, in this process."""
        with suppress(AnotherRun):
            run_once(self.settings, seconds(at))

    @property
    def store(self) -> Store:
        """The store, opened anew."""
        return Store(self.settings.state)

    def report(self, day: str) -> Optional[dict[str, Any]]:
        """Return the report of a day as it would be sent now; None if there is nothing to send."""
        store = self.store
        try:
            repositories = [state.repository for state in store.repositories(with_gone=True)]
            rules = NameRules(self.settings, repositories)
            for stored in store.days():
                if stored.day == day:
                    return build_report(store, stored, read_identity(self.settings), rules)
            return None
        finally:
            store.close()

    def metrics(self, day: str) -> Any:
        """Return the metrics of a day, in JSON's types."""
        report = self.report(day)
        assert report is not None, f"no report of {day}"
        return json.loads(json.dumps(report["metrics"]))
