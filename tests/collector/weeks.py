"""Weeks of work with everything that goes wrong, and what each day must be in the end.

The network fails as `Weather` says: it is away, refuses, hangs, lies. In between runs are killed at
random moments, meet a full disk, run twice at once, and see a clock that is wrong.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Optional

import httpx

from collector import sender
from tests.support.developers import Developer, seconds

ROOT = Path(__file__).parents[2]
FIRST = date(2026, 11, 2)
COMMANDS = ["git push", "make test", "npm run build", "docker ps", "go test ./...", "claude"]
COUNTED = ["git", "make test", "npm build", "docker", "go test", "claude"]
SHELLS = ["zsh", "fish", "bash with times"]
# Runs in a process of its own, to be killed or to run beside another.
RUN = """
import sys
sys.path.insert(0, sys.argv[1])
from collector import sender
from collector.errors import AnotherRun
from collector.runs import run_once
from collector.settings import Settings
import json
sender.TIMEOUT_SECONDS = float(sys.argv[4])
try:
    run_once(Settings(**json.loads(sys.argv[2])), float(sys.argv[3]))
except AnotherRun:
    sys.exit(3)
"""


class Weather:
    """A proxy before the receiver, whose answers change."""

    KINDS = ("fine", "fine", "away", "502", "413", "401", "hangs", "a page", "503 after it")

    def __init__(self, receiver_url: str) -> None:
        self.kind = "fine"
        self.delivered: Counter[str] = Counter()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, content, headers = owner.answer(
                    receiver_url + self.path, body, self.headers
                )
                if status == 0:
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

            def handle(self) -> None:
                with suppress(OSError):  # the run was killed while it sent
                    super().handle()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, url: str, body: bytes, headers: Any) -> tuple[int, bytes, dict[str, str]]:
        if self.kind == "hangs":
            time.sleep(0.5)
            return 0, b"", {}
        if self.kind == "away":
            return 0, b"", {}
        if self.kind == "a page":
            return 200, b"<html>sign in</html>", {}
        if self.kind in ("502", "413", "401"):
            return int(self.kind), b"", {}
        sent = {"Authorization": headers["Authorization"]}
        try:
            reply = httpx.post(url, content=body, headers=sent, trust_env=False, timeout=30)
        except httpx.HTTPError:  # the receiver has ended, as the test has
            return 0, b"", {}
        if self.kind == "503 after it":  # the report is stored, and its answer gets lost
            return 503, b"", {"Retry-After": "1800"}
        self.delivered[str(json.loads(body)["date"])] += 1
        return reply.status_code, reply.content, {}


@dataclass
class Expected:
    """The work of a day."""

    hours: set[int] = field(default_factory=set)
    commands: Counter[str] = field(default_factory=Counter)
    commits: int = 0
    lines: int = 0


class Weeks:
    """Work for weeks; `rows` of the tool layer must be `days` in the end."""

    def __init__(self, ann: Developer, weather: Weather, seed: int) -> None:
        self.days: dict[str, Expected] = {}
        self.events: Counter[str] = Counter()
        self._ann = ann
        self._weather = weather
        self._random = random.Random(seed)

    def live(self, days: int, kills: int) -> None:
        """Work on each day, and in the end have good weather for two days."""
        self._ann.run(f"{FIRST} 00:01")
        dates = [FIRST + timedelta(days=number) for number in range(days)]
        kill_days = Counter(self._random.choices([str(one) for one in dates], k=kills))
        for day in map(str, dates):
            for hour in sorted(self._random.sample(range(7, 23), 5)):
                self._work(day, hour)
                self._change_weather(self._random.choice(Weather.KINDS))
                self._run(f"{day} {hour:02}:50")
            for _ in range(kill_days[day]):
                self._work(day, 23)
                self._kill(f"{day} 23:40")
        self._change_weather("fine")
        for number in range(days, days + 3):
            self._ann.run(f"{FIRST + timedelta(days=number)} 00:10")

    def _change_weather(self, kind: str) -> None:
        self._weather.kind = kind
        sender.TIMEOUT_SECONDS = 0.3 if kind == "hangs" else 30.0

    def _work(self, day: str, hour: int) -> None:
        expected = self.days.setdefault(day, Expected())
        expected.hours.add(hour)
        for _ in range(self._random.randint(1, 4)):
            number = self._random.randrange(len(COMMANDS))
            at = f"{day} {hour:02}:{self._random.randint(0, 39):02}"
            self._ann.type(COMMANDS[number], at, self._random.choice(SHELLS))
            expected.commands[COUNTED[number]] += 1
        if self._random.random() < 0.3:
            lines = self._random.randint(1, 9)
            name = self._random.choice(["shop", "code/billing"])
            # A second of its own: a person makes no two commits in one.
            expected.commits += 1
            expected.lines += lines
            at = f"{day} {hour:02}:{self._random.randint(0, 39):02}"
            self._ann.commit(name, at, lines=lines, file=f"{expected.commits}.py")

    def _run(self, at: str) -> None:
        way = self._random.choice(["plain", "plain", "plain", "twice", "full disk", "clock"])
        self.events[f"{way}, {self._weather.kind}"] += 1
        if way == "twice":
            both = [self._start(at), self._start(at)]
            assert {process.wait(60) for process in both} <= {0, 3}
        elif way == "full disk":
            self._run_on_full_disk(at)
        elif way == "clock":
            year = self._random.choice(["2019", "2029"])
            self._start(year + at[4:]).wait(60)
        else:
            self._ann.run(at)

    def _start(self, at: str) -> subprocess.Popen[bytes]:
        settings = json.dumps(self._ann.settings._asdict())
        arguments = [str(ROOT), settings, repr(seconds(at)), repr(sender.TIMEOUT_SECONDS)]
        return subprocess.Popen([sys.executable, "-c", RUN, *arguments])

    def _kill(self, at: str) -> None:
        self.events["killed"] += 1
        process = self._start(at)
        time.sleep(self._random.uniform(0.05, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait()

    def _run_on_full_disk(self, at: str) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
        try:
            self._ann.run(at)
        except Exception:  # it can't write; which statement meets that first is by chance
            self.events["disk full"] += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)


def differences(days: dict[str, Expected], rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the days whose row is not what was done, each with both."""
    wrong = {}
    for day, expected in days.items():
        row = rows.get(day)
        done = {
            "active_hours": len(expected.hours),
            "command_counts": dict(expected.commands),
            "commits": expected.commits,
            "lines_added": expected.lines,
        }
        stored: Optional[dict[str, Any]] = row and {
            **{name: row[name] for name in ("active_hours", "commits", "lines_added")},
            "command_counts": json.loads(row["command_counts"]),
        }
        if stored != done:
            wrong[day] = {"done": done, "stored": stored}
    return wrong
