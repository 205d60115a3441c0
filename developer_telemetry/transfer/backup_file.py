"""The file of a backup: lines of JSON, gzipped, for any tool that reads these.

The first line has what a restore needs to know before the rows. Each row is a line with the name of
its table. The last line counts the rows of each table and has the SHA-256 of their lines, so
databases with equal rows have equal sums, of any kind.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Optional

import msgspec

from developer_telemetry.errors import ConfigurationError
from developer_telemetry.private_files import is_device, open_new, replace_file

FORMAT = 1
STANDARD = "-"  # output or input
# A third larger than with the default level, in a third of the time.
_LEVEL = 3
_GZIP = b"\x1f\x8b"
_TABLE = "table"
_END = b'{"rows":'


class BackupHeader(msgspec.Struct):
    """The first line."""

    backup: int  # the version of the format
    release: str
    schema: int  # the version of the newest migration
    made_at: str
    database: str
    secret: str  # the fingerprint of a key made of ENCRYPTION_SECRET


class BackupManifest(msgspec.Struct):
    """The last line."""

    rows: dict[str, int]  # by table
    sha256: str


class BackupWriter:
    """Writes a header, rows and their manifest."""

    def __init__(self, file: IO[bytes], header: BackupHeader) -> None:
        self._file = file
        self._rows: Counter[str] = Counter()
        self._digest = hashlib.sha256()
        file.write(msgspec.json.encode(header) + b"\n")

    def write(self, table: str, row: Mapping[str, Any]) -> None:
        """Write a row."""
        line = msgspec.json.encode({_TABLE: table, **row}) + b"\n"
        self._digest.update(line)
        self._file.write(line)
        self._rows[table] += 1

    def finish(self) -> BackupManifest:
        """Write the manifest and return it."""
        manifest = BackupManifest(dict(self._rows), self._digest.hexdigest())
        self._file.write(msgspec.json.encode(manifest) + b"\n")
        return manifest


class BackupReader:
    """Reads a header at once, and rows as they are needed.

    Raises:
        ConfigurationError: The file is no backup, is damaged, or is of a newer release.
    """

    def __init__(self, name: str, file: io.BufferedReader) -> None:
        self._name = name
        is_packed = file.peek(len(_GZIP))[: len(_GZIP)] == _GZIP
        self._file: Any = gzip.GzipFile(fileobj=file) if is_packed else file
        self.header = self._read_header()
        self.manifest: Optional[BackupManifest] = None

    def _read_header(self) -> BackupHeader:
        try:
            header = msgspec.json.decode(next(self._lines(), b""), type=BackupHeader)
        except msgspec.MsgspecError:
            raise ConfigurationError(
                f"{self._name} is no backup; `developer-telemetry backup` makes them, and"
                " `developer-telemetry import` reads exports and reports"
            ) from None
        if header.backup > FORMAT:
            raise ConfigurationError(
                f"{self._name} was made by release {header.release}; update developer-telemetry"
            )
        return header

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each row with its table; compare their sum with the manifest at the end."""
        digest = hashlib.sha256()
        rows: Counter[str] = Counter()
        for line in self._lines():
            if line.startswith(_END):
                self.manifest = self._decode(line, BackupManifest)
                break
            digest.update(line)
            row = self._decode(line, dict[str, Any])
            table = row.pop(_TABLE, "")
            rows[table] += 1
            yield table, row
        if self.manifest != BackupManifest(dict(rows), digest.hexdigest()):
            raise self.make_error(
                "its end is missing" if self.manifest is None else "its sum differs"
            )

    def _lines(self) -> Iterator[bytes]:
        try:
            while line := self._file.readline():
                yield line
        except (OSError, EOFError, zlib.error) as error:
            raise self.make_error(str(error)) from None

    def _decode(self, line: bytes, kind: Any) -> Any:
        try:
            return msgspec.json.decode(line, type=kind)
        except msgspec.MsgspecError as error:
            raise self.make_error(str(error)) from None

    def make_error(self, reason: str) -> ConfigurationError:
        """Return the error for a file that can't be restored."""
        return ConfigurationError(
            f"{self._name} is damaged or incomplete ({reason}); nothing was restored: use another"
            " backup"
        )


@contextmanager
def open_backup(name: str) -> Iterator[IO[bytes]]:
    """Yield a compressed private file that appears once complete, or standard output for `-`.

    Raises:
        ConfigurationError: It can't be written.
    """
    path = None if name == STANDARD else Path(name)
    try:
        with (
            (
                _open_standard_output()
                if path is None
                else open_new(path)
                if is_device(path)
                else replace_file(path)
            ) as file,
            gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed,
        ):
            yield packed  # type: ignore[misc]  # as good for writing
    except BrokenPipeError:  # the reader has closed the pipe
        raise
    except OSError as error:
        raise ConfigurationError(
            f"can't write {name} ({error.strerror}); name another file"
        ) from None


@contextmanager
def _open_standard_output() -> Iterator[IO[bytes]]:
    file: Optional[IO[bytes]] = getattr(sys.stdout, "buffer", None)
    if file is None or sys.stdout.isatty():
        raise ConfigurationError("a backup is no text for a terminal; name a file")
    yield file
    file.flush()


@contextmanager
def read_backup(name: str) -> Iterator[BackupReader]:
    """Yield the reader of a file, or of standard input for `-`.

    Raises:
        ConfigurationError: It can't be read, or is no backup.
    """
    is_named = name != STANDARD
    try:
        with open(name if is_named else sys.stdin.fileno(), "rb", closefd=is_named) as file:
            yield BackupReader(name, file)
    except OSError as error:
        raise ConfigurationError(f"can't read {name} ({error.strerror}); fix the path") from None
