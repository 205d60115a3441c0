"""The cost of a run of the collector, on a home with 200 repositories and a long history.

    python -m benchmarks.collector

Prints time, memory and bytes read of the first run, of one without and of one with new work;
beside them those of `find` over the home and `git log` in each repository, which the public script
calls each hour.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from developer_telemetry.receiver.collector_archive import build_archive

REPOSITORIES = 200
LINES = 100_000
FOLDERS = 10  # of installed packages in each repository, with 20 files each
AUTHOR = "bench@example.com"

# What is measured runs below this, which sees the sums of its children.
MEASURE = """
import os, resource, subprocess, sys, time
start = time.perf_counter()
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
took = time.perf_counter() - start
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
counts = dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())
print(status, took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, counts["rchar"])
"""
RUN = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    "from collector.runs import run_once; from collector.settings import Settings;"
    "run_once(Settings('http://127.0.0.1:9/x', state=sys.argv[2], name_salt='00' * 16))"
)


class Cost(NamedTuple):
    """Seconds on the clock and of the processor, MiB of memory, MiB read."""

    seconds: float
    processor: float
    memory: float
    read: float


def make_home(home: Path) -> None:
    """Make the repositories, each with installed packages, and the history."""
    home.mkdir()
    (home / ".gitconfig").write_text(f"[user]\n\tname = B\n\temail = {AUTHOR}\n", encoding="utf-8")
    template = home / "code" / "r0"
    template.mkdir(parents=True)
    (template / ".gitignore").write_text("node_modules\n", encoding="utf-8")
    for number in range(20):
        (template / f"{number}.py").write_text("line\n" * 100, encoding="utf-8")
    for number in range(FOLDERS):
        package = template / "node_modules" / f"package{number}"
        package.mkdir(parents=True)
        for file in range(20):
            (package / f"{file}.js").touch()
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "all"]):
        subprocess.run(["git", *command], cwd=template, check=True, env=environment(home))
    for number in range(1, REPOSITORIES):
        copy = home / "code" / f"group{number % 10}" / f"r{number}"
        copy.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", str(template), str(copy)], check=True)
    now = int(time.time())
    with (home / ".zsh_history").open("w", encoding="utf-8") as history:
        for number in range(LINES):
            history.write(f": {now - 100 * (LINES - number)}:0;git commit -m 'change {number}'\n")


def environment(home: Path) -> dict[str, str]:
    """Return an environment with this home alone."""
    return {"HOME": str(home), "PATH": os.environ["PATH"]}


def measure(home: Path, *command: str) -> Cost:
    """Run a command and return its cost."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command],
        env=environment(home),
        capture_output=True,
        text=True,
        check=True,
    )
    status, seconds, processor, kibibytes, read = map(float, done.stdout.split())
    if status:
        raise SystemExit(f"{command} failed: {done.stderr}")
    return Cost(seconds, processor, kibibytes / 1024, read / 1024 / 1024)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        home, archive = Path(folder) / "home", Path(folder) / "collector.pyz"
        make_home(home)
        archive.write_bytes(build_archive())
        run = (sys.executable, "-c", RUN, str(archive), str(Path(folder) / "state"))
        costs = {"first run": measure(home, *run)}
        costs["nothing new"] = measure(home, *run)
        work = home / "code" / "group1" / "r1"
        (work / "new.py").write_text("new\n", encoding="utf-8")
        for command in (["add", "new.py"], ["commit", "--quiet", "-m", "new"]):
            subprocess.run(["git", *command], cwd=work, check=True, env=environment(home))
        with (home / ".zsh_history").open("a", encoding="utf-8") as history:
            history.write(f": {int(time.time())}:0;make test\n" * 20)
        costs["new work"] = measure(home, *run)
        script = (
            f"find {home} -type d -name .git 2>/dev/null | while read -r d; do"
            f' git -C "$d/.." log --all --author={AUTHOR} --since=midnight --numstat; done'
        )
        costs["the public script's find and git log"] = measure(home, "sh", "-c", script)
    print(f"{'':40}{'seconds':>10}{'processor':>11}{'MiB':>7}{'MiB read':>10}")
    for name, cost in costs.items():
        print(f"{name:40}{cost[0]:10.2f}{cost[1]:11.2f}{cost[2]:7.0f}{cost[3]:10.1f}")


if __name__ == "__main__":
    main()
