"""The collector as one file, which machines fetch from the receiver.

    python developer_telemetry/receiver/collector_archive.py dist/developer-telemetry-collector.pyz

The same sources give the same bytes, on any machine: files in order of name, without times, owners
and compression.
"""

from __future__ import annotations

import io
import re
import sys
import zipfile
from functools import lru_cache
from pathlib import Path

# In a wheel the sources are beside this file; in a checkout they are at its top.
FOLDERS = (Path(__file__).parent / "collector", Path(__file__).parents[2] / "collector")
SHEBANG = b"#!/usr/bin/env python3\n"
MAIN = "from collector.cli import main\n\nmain()\n"
FIRST_DAY = (1980, 1, 1, 0, 0, 0)


def _sources() -> Path:
    """Return the folder of the collector's sources."""
    return next(folder for folder in FOLDERS if (folder / "version.py").exists())


@lru_cache(maxsize=1)
def collector_version() -> str:
    """Return the version of the collector that this receiver serves."""
    text = (_sources() / "version.py").read_text(encoding="utf-8")
    version: str = re.findall(r'^VERSION = "(.+)"$', text, re.M)[0]
    return version


@lru_cache(maxsize=1)
def build_archive() -> bytes:
    """Return the zipapp."""
    folder = _sources()
    content = io.BytesIO(SHEBANG)
    content.seek(0, io.SEEK_END)
    with zipfile.ZipFile(content, "a", zipfile.ZIP_STORED) as archive:
        _add(archive, "__main__.py", MAIN)
        for path in sorted(folder.rglob("*.py"), key=lambda path: path.as_posix()):
            name = "collector/" + path.relative_to(folder).as_posix()
            _add(archive, name, path.read_text(encoding="utf-8"))
    return content.getvalue()


def _add(archive: zipfile.ZipFile, name: str, text: str) -> None:
    entry = zipfile.ZipInfo(name, FIRST_DAY)
    entry.create_system = 3  # Unix, wherever it is built
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, text.encode("utf-8"))


def main() -> None:
    """Write the file that the command line names."""
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(build_archive())
    target.chmod(0o755)


if __name__ == "__main__":
    main()
