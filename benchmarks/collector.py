"""Measure a run of the collector, on a home with many repositories and a long history.

Beside the first run, one without and one with new work are `find` over the home and `git log` in
each repository, which the public script calls each hour.

    python -m benchmarks.collector
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from benchmarks.page import PAGE, put, table
from developer_telemetry.receiver.collector_archive import build_archive

TITLE = "The collector"
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


class Sizes(NamedTuple):
    """The sizes of the home."""

    repositories: int
    lines: int


class Cost(NamedTuple):
    """Seconds on the clock and of the processor, MiB of memory, MiB read."""

    seconds: float
    processor: float
    memory: float
    read: float


def make_home(home: Path, sizes: Sizes) -> None:
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
    for number in range(1, sizes.repositories):
        copy = home / "code" / f"group{number % 10}" / f"r{number}"
        copy.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", str(template), str(copy)], check=True)
    now = int(time.time())
    with (home / ".zsh_history").open("w", encoding="utf-8") as history:
        for number in range(sizes.lines):
            history.write(
                f": {now - 100 * (sizes.lines - number)}:0;git commit -m 'change {number}'\n"
            )


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


def measure_all(folder: Path, sizes: Sizes) -> dict[str, Cost]:
    """Measure each kind of run, in this order."""
    home, archive = folder / "home", folder / "collector.pyz"
    make_home(home, sizes)
    archive.write_bytes(build_archive())
    run = (sys.executable, "-c", RUN, str(archive), str(folder / "state"))
    costs = {"first run": measure(home, *run), "nothing new": measure(home, *run)}
    work = home / "code" / "r0"
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
    costs["the public script's `find` and `git log`"] = measure(home, "sh", "-c", script)
    return costs


def report(costs: dict[str, Cost], sizes: Sizes) -> str:
    """Return the section of the page."""
    rows = [
        (
            name,
            f"{cost.seconds:.2f}",
            f"{cost.processor:.2f}",
            f"{cost.memory:.0f}",
            f"{cost.read:.1f}",
        )
        for name, cost in costs.items()
    ]
    head = ("run", "s", "processor s", "peak memory MiB", "MiB read")
    return f"""
A home with {sizes.repositories:,} repositories, each with {FOLDERS * 20} files of installed
packages, and a zsh history of {sizes.lines:,} lines. The figures include the start of Python and
every `git` that is called; the first run searches the home.

{table(head, rows)}
"""


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Run it all and renew the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--repositories", type=int, default=REPOSITORIES, help="in the home")
    parser.add_argument("--lines", type=int, default=LINES, help="of the history")
    parser.add_argument("--output", type=Path, default=PAGE, help="the page to renew")
    options = parser.parse_args(arguments)
    sizes = Sizes(options.repositories, options.lines)
    with tempfile.TemporaryDirectory() as folder:
        text = report(measure_all(Path(folder), sizes), sizes)
    put(options.output, TITLE, text)
    print(text)


if __name__ == "__main__":
    main()
