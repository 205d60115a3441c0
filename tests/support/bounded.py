"""Run readers of the raw layer in a process of their own, with a limit on its memory.

    python -m tests.support.bounded URL MEBIBYTES

The limit is on top of the memory at the start. Each step prints a line with its name and its peak
of memory in MiB. A step that needs more ends with a traceback.
"""

from __future__ import annotations

import re
import resource
import sys
import tempfile
import threading
from pathlib import Path
from typing import Callable

import msgspec
from sqlalchemy.engine import Engine

from developer_telemetry.constants import OVERWRITE, SUM
from developer_telemetry.database.engine import open_engine
from developer_telemetry.database.migrate import migrate
from developer_telemetry.pipeline.extract import reextract
from developer_telemetry.privacy.person_data import ErasureEnd, PersonData
from developer_telemetry.privacy.person_search import Person, PersonSearch
from developer_telemetry.storage.writer import store
from developer_telemetry.transfer.backup import back_up, make_header
from developer_telemetry.transfer.backup_file import BackupWriter, open_backup, read_backup
from developer_telemetry.transfer.exporter import ExportSelection, read_raw_rows, read_tool_rows
from developer_telemetry.transfer.restorer import Restorer
from tests.support.factories import arrival, body

HEAVY = "ann.lee"
EMAIL = "ann@example.com"
MEBIBYTE = 1 << 20


def insert_heavy_day(engine: Engine, hosts: int) -> None:
    """Insert a day of so many hosts, each with the largest body that a receiver accepts.

    Each body also names thousands of tools of its own.
    """
    tools = [f"HOST-{n:06}" for n in range(12_000)]
    rest = "x" * (3 * MEBIBYTE)
    metrics = {"active_hours": 0.25, "tools_used": tools}
    sent = body(developer=HEAVY, email=EMAIL, hostname="HOST", metrics=metrics, rest=rest)
    assert 3 * MEBIBYTE < len(sent) < 4 * MEBIBYTE
    light = arrival(body(developer=HEAVY))
    for host in range(hosts):
        payload = sent.decode().replace("HOST", f"{host:04}")
        report = msgspec.structs.replace(light.report, payload=payload, hostname=f"{host:04}")
        one = arrival(body(), after=host)._replace(report=report)
        store(engine, [one], {1: OVERWRITE})


def push(engine: Engine) -> None:
    store(engine, [arrival(developer=HEAVY, hostname="new", after=1e6)], {1: SUM})


def extract(engine: Engine) -> None:
    list(reextract(engine, 1, SUM))


def extract_new(engine: Engine) -> None:
    list(reextract(engine, 1, SUM, above=1))


def search(engine: Engine) -> None:
    assert PersonSearch(engine, "secret", EMAIL).people() == [Person(1, HEAVY)]


def export(engine: Engine) -> None:
    assert (
        sum(len(row["payload"]) > MEBIBYTE for row in read_raw_rows(engine, ExportSelection())) > 10
    )
    assert len(list(read_tool_rows(engine, ExportSelection(connection_id=1)))) == 1


def back_up_and_restore(engine: Engine) -> None:
    with tempfile.TemporaryDirectory() as folder:
        other = open_engine(f"sqlite:///{folder}/other.db")
        migrate(other)
        with open_backup(f"{folder}/backup") as file:
            writer = BackupWriter(file, make_header(engine, "secret"))
            written = list(back_up(engine, writer))[-1]
            writer.finish()
        with read_backup(f"{folder}/backup") as reader:
            assert list(Restorer(other, reader).restore())[-1] == written
        other.dispose()


def erase(engine: Engine) -> None:
    PersonData(engine, Person(1, HEAVY), []).remove_days(
        SUM, ErasureEnd(1, 0)
    )  # the other hosts stay


STEPS: list[Callable[[Engine], None]] = [
    push,
    extract,
    extract_new,
    search,
    export,
    back_up_and_restore,
    erase,
]


def main(url: str, mebibytes: int) -> None:
    threading.stack_size(MEBIBYTE)  # stacks count from the start
    engine = open_engine(url)
    store(engine, [arrival(developer="bob", connection_id=2)], {2: SUM})
    list(reextract(engine, 2, SUM))
    limit = _kibibytes("VmData") * 1024 + mebibytes * MEBIBYTE
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    for step in STEPS:
        Path("/proc/self/clear_refs").write_text("5")
        before = _kibibytes("VmRSS")
        step(engine)
        print(step.__name__, (_kibibytes("VmHWM") - before) // 1024, flush=True)


def _kibibytes(name: str) -> int:
    [found] = re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
