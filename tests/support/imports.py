"""Imports into a database, without the command around them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional

from sqlalchemy.engine import Engine

from developer_telemetry.connections.registry import Connection
from developer_telemetry.storage.tombstones import TombstoneCache, TombstoneKey
from developer_telemetry.transfer.import_reader import ImportDefaults, ImportReader
from developer_telemetry.transfer.importer import ImportCounts, Importer
from developer_telemetry.transfer.input_files import InputFiles, InputItem
from tests.support.layers import STRATEGIES
from tests.support.receivers import SECRET
from tests.support.rows import add_connections

CONNECTIONS = {
    number: Connection(number, f"fleet {number}", None, strategy)
    for number, strategy in STRATEGIES.items()
}


class Done(NamedTuple):
    """The outcome of an import."""

    counts: ImportCounts
    refused: list[tuple[InputItem, str]]


def imported(
    engine: Engine,
    *paths: Path,
    to: Optional[int] = None,
    connections: Mapping[int, Connection] = CONNECTIONS,
    **given: Any,
) -> Done:
    """Import files, all into the connection `to` if one is named."""
    archives = InputFiles(map(str, paths))
    batches = ImportReader(connections, to, ImportDefaults(**given)).batches(archives)
    erased = TombstoneCache(engine, TombstoneKey(SECRET))
    add_connections(engine, connections)
    steps = list(Importer(engine, erased, connections).store(batches))
    assert steps[-1].counts.read == archives.size
    return Done(steps[-1].counts, [each for step in steps for each in step.refused])


def file_of(folder: Path, *bodies: bytes, name: str = "reports.ndjson") -> Path:
    """Write a file with these bodies, each on its own lines."""
    path = folder / name
    path.write_bytes(b"".join(body.strip() + b"\n" for body in bodies))
    return path
