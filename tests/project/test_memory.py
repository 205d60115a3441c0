"""However much lies in the raw layer, what reads it takes little memory."""

from __future__ import annotations

import subprocess
import sys

from sqlalchemy.engine import Engine

from tests.support import bounded

HOSTS = 30  # of nearly 4 MiB each
LIMIT = 72  # MiB beside what the process has anyway


def test_a_day_of_many_long_bodies_is_added_up_and_read_in_little_memory(
    engine: Engine, migrated_url: str
) -> None:
    bounded.insert_heavy_day(engine, HOSTS)

    done = subprocess.run(
        [sys.executable, "-m", "tests.support.bounded", migrated_url, str(LIMIT)],
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    steps = [line.split()[0] for line in done.stdout.splitlines()]
    assert steps == [step.__name__ for step in bounded.STEPS]
