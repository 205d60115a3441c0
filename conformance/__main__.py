"""Try the plugin and the SDK with the genuine DevLake, and write the outcomes to a page.

    python -m conformance --devlake "~/may ~/june" --lake "~/may/bin/lake ~/june/bin/lake" \\
        --go-plugins "~/may/bin/plugins ~/june/bin/plugins"

DevLake's files are neither copied nor changed; all files of the trials are removed. Exits with 0 if
all steps succeed, with 1 if one fails, with 2 if a requirement is missing.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple

from conformance import page
from conformance.devlakes import DevLake, Missing, by_sdk, devlakes, revision
from conformance.environments import ROOT
from conformance.lake import resources_of
from conformance.lanes import TABLES, Database, Lane, install, try_sdks, try_servers
from conformance.outcomes import STOP, Table, Unmet, failures
from tests.support.servers import MariaDB, PostgreSQL, Running, ServerMissing


class Choice(NamedTuple):
    """The operator's choice: DevLakes, the oldest first, and perhaps a MySQL."""

    devlakes: list[DevLake]
    mysql: str = ""

    @property
    def with_server(self) -> list[DevLake]:
        return [item for item in self.devlakes if item.lake]

    def databases(self) -> dict[str, Callable[[], Database]]:
        """Return the databases for their servers, by their names on the page."""
        ours: dict[str, Callable[[], Database]] = {"MariaDB": MariaDB, "PostgreSQL": PostgreSQL}
        return {**ours, "MySQL": lambda: Running("mysql", self.mysql)} if self.mysql else ours


def options(arguments: Sequence[str]) -> Choice:
    parser = argparse.ArgumentParser(prog="python -m conformance")
    for name in ("--devlake", "--lake", "--go-plugins", "--mysql"):
        parser.add_argument(name, default="")
    results = parser.parse_args(arguments)
    return Choice(devlakes(results.devlake, results.lake, results.go_plugins), results.mysql)


def main(arguments: Sequence[str]) -> int:
    try:
        with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
            return _try_all(options(arguments), Path(folder))
    except (Missing, ServerMissing) as missing:
        print(missing, file=sys.stderr)
        return 2


def _try_all(have: Choice, folder: Path) -> int:
    used = {"this project": revision(ROOT) or "unknown: no git checkout"}
    for item in have.devlakes:
        used[f"DevLake {item.name}"] = item.revision
    try:
        groups = by_sdk(have.devlakes)
        for item in have.with_server:
            used[f"server of {item.name}"] = f"the binary with the SHA-256 {item.digest}"
            resources_of(item.binary, item.checkout)
        if _uncommitted():
            print("uncommitted changes are not tried", file=sys.stderr)
        print("installing the plugin", flush=True)
        plugins, installed = install(groups, folder)
    except Unmet as reason:
        raise Missing(str(reason)) from None
    lanes: list[Callable[[], Lane]] = [partial(try_sdks, groups, plugins, folder)]
    if have.with_server:
        for name, make in have.databases().items():
            lanes.append(partial(try_servers, name, make, have.with_server, plugins, folder))
    done = _side_by_side(lanes)
    for results in (installed, *(lane.used for lane in done)):
        used.update(results)
    tables = [
        Table(title, [column for lane in done for column in lane.columns[title]], text)
        for title, text in TABLES.items()
    ]
    page.write(used, tables)
    faults = failures(tables)
    print(
        "\n".join(["", *faults, f"{len(faults)} failed; written to {page.PAGE.relative_to(ROOT)}"])
    )
    return 1 if faults else 0


def _side_by_side(lanes: Sequence[Callable[[], Lane]]) -> list[Lane]:
    """Run lanes at the same time: each mostly waits for its own databases and servers."""
    with ThreadPoolExecutor(len(lanes)) as pool:
        running = [pool.submit(lane) for lane in lanes]
        try:
            return [item.result() for item in running]
        except BaseException:
            STOP.set()
            raise


def _uncommitted() -> str:
    command = ["git", "-C", str(ROOT), "status", "--porcelain"]
    return subprocess.run(command, capture_output=True, text=True).stdout


if __name__ == "__main__":
    # After `kill` or a CI's timeout, this still stops its child processes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
