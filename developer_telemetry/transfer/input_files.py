"""Split files of reports into one item a report, in constant memory.

A file may hold a JSON object, one on each line, several printed over many lines, a JSON array, or
the CSV of our export, each also gzipped.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple, Optional

import msgspec

from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.errors import ConfigurationError, ReportRefused
from developer_telemetry.printable import escape_json, printable
from developer_telemetry.private_files import open_new
from developer_telemetry.reports.json_splitter import MAX_CHARACTERS, split_reports

STANDARD_INPUT = "-"
# The names of files that are read from a folder; a named file may have any.
SUFFIXES = (".json", ".ndjson", ".jsonl", ".csv")
COMPRESSED = ".gz"
PIECE = 1 << 18
# The first column of every row that our export writes.
TABLE = "table"

_GZIP = b"\x1f\x8b"
_CSV_HEADS = (f'"{TABLE}",'.encode(), f"{TABLE},".encode())
_CSV_CELL = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^",]*))(,|\Z)')
# Where a spreadsheet reads a formula: at the start of a cell, and after characters that may end a
# cell, such as the semicolon in many countries.
_FORMULA = re.compile("(\\A|[;|\t\r\n])('*)(?=[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20])")
_DEFUSED = re.compile(_FORMULA.pattern.replace("('*)", "'('*)"))
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


# Names, and starts of names, of files that macOS and archives add.
_ADDED_NAMES = ("._", ".DS_Store")
_ADDED_FOLDERS = ("__MACOSX", ".Trashes", ".Spotlight-V100")
# First bytes of files that can't be imported, and the remedy.
_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xfe\0\0", "UTF-32 text; save it as UTF-8"),
    (b"\0\0\xfe\xff", "UTF-32 text; save it as UTF-8"),
    (b"\xff\xfe", "UTF-16 text; save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text; save it as UTF-8"),
    (b"PK\x03\x04", "a zip archive or an office document; unpack it, or save it as CSV"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"BZh", "compressed by bzip2; unpack it with `bunzip2`"),
    (b"\xfd7zXZ\0", "compressed by xz; unpack it with `unxz`"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it with `unzstd`"),
    (b"\x04\x22\x4d\x18", "compressed by lz4; unpack it with `unlz4`"),
    (b"\x1f\x9d", "compressed by compress; unpack it with `uncompress`"),
    (_GZIP, "compressed twice; unpack it once with `gunzip`"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it"),
    (b"\x89PNG\r\n", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"II*\0", "a picture"),
    (b"MM\0*", "a picture"),
    (b"%PDF-", "a PDF document"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"bplist00", "a property list of macOS"),
    (b"\0\x05\x16\x07", "a file that macOS adds; the file itself has no `._`"),
    (b"\xd0\xcf\x11\xe0", "an office document; save it as CSV"),
    (b"\x7fELF", "a program"),
)
_TAR = (257, b"ustar")
_LINE_OF_REPORT = re.compile(rb"^[{\[]\s*(?:[\"{}\]]|$)", re.MULTILINE)


class InputItem(NamedTuple):
    """One item of a file; `fault` is the reason if it is no report."""

    source: str  # the file's path
    position: str  # such as "line 17"
    content: bytes
    fault: str = ""

    @property
    def is_file(self) -> bool:
        """Return true if the file can't be read, false if it is one report."""
        return bool(self.fault) and not self.content


class InputFiles:
    """The named files and the files of named folders, in a fixed order.

    Raises:
        ConfigurationError: None of the names exists.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.files: list[str] = []
        self.passed_over = 0  # entries of folders without one of `SUFFIXES`, or no files
        self.empty: list[str] = []  # files without an item
        self.read = 0  # bytes, of `size`
        paths = list(names)
        missing = [name for name in paths if name != STANDARD_INPUT and not os.path.lexists(name)]
        if missing == paths:
            raise ConfigurationError(f"there is no file or folder {missing[0]}; fix the path")
        for name in paths:
            self._add(name)
        self.size: Optional[int] = None  # of all files together; None if unknown
        if STANDARD_INPUT not in self.files:
            self.size = sum(map(_read_size, self.files))

    def _add(self, name: str) -> None:
        if not os.path.isdir(name):
            self.files.append(name)
            return
        for folder, inside, files in os.walk(name):
            inside[:] = sorted(name for name in inside if name not in _ADDED_FOLDERS)
            for file in sorted(files):
                path = os.path.join(folder, file)
                if file.startswith(_ADDED_NAMES):
                    continue
                # Reading a pipe could wait for ever.
                is_file = os.path.isfile(path) or not os.path.exists(path)
                if is_file and file.lower().removesuffix(COMPRESSED).endswith(SUFFIXES):
                    self.files.append(path)
                else:
                    self.passed_over += 1

    def items(self) -> Iterator[InputItem]:
        """Yield the items of all files; an unreadable file, or rest of one, is one with a fault."""
        for name in self.files:
            try:
                with _open(name) as file:
                    content = _Content(file, self)
                    reader = io.BufferedReader(content, PIECE)
                    if reader.peek(1):
                        yield from _read_items(name, reader)
                    elif not content.fault:
                        self.empty.append(name)
                    fault = content.fault
            except ReportRefused as error:
                fault = str(error)
            except Exception as error:  # the next file may be readable
                fault = _describe_unreadable(error)
            if fault:
                yield InputItem(name, "the file", b"", fault)


def _describe_unreadable(error: Exception) -> str:
    return f"can't be read to its end: {getattr(error, 'strerror', None) or describe_error(error)}"


def _read_size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # reported when it is read
        return 0


def _describe_unsupported(head: bytes) -> str:
    """Return the kind of a file that can't be imported, by its first bytes; else an empty text."""
    for start, kind in _KINDS:
        if head.startswith(start):
            return kind
    position, magic = _TAR
    if head[position:].startswith(magic):
        return "a tar archive; unpack it"
    if head[4:8] == b"ftyp" or (head.startswith(b"RIFF") and head[8:12] in (b"WEBP", b"AVI ")):
        return "a picture or film"
    if re.match(rb"\s*<(!doctype|html|\?xml)", head[:200], re.IGNORECASE):
        return "a page or XML, such as a sign-in page in place of a download"
    if head[:2] in (b"{\0", b"[\0", b"\0{", b"\0["):
        return "UTF-16 text; save it as UTF-8"
    # A file after a crash has NULs as well, besides whole reports.
    return "no text" if b"\0" in head[:1024] and not _LINE_OF_REPORT.search(head) else ""


class _Content(io.RawIOBase):
    """A file's content, inflated; it ends with a `fault` at the first unreadable byte."""

    def __init__(self, file: IO[bytes], archives: InputFiles) -> None:
        self.fault = ""
        packed = io.BufferedReader(_Counted(file, archives), PIECE)
        is_packed = packed.peek(len(_GZIP))[: len(_GZIP)] == _GZIP
        self._file = gzip.GzipFile(fileobj=packed) if is_packed else packed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            piece = self._file.read1(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            self.fault = _describe_unreadable(error)
            return 0
        buffer[: len(piece)] = piece
        return len(piece)


class _Counted(io.RawIOBase):
    """A file that counts the bytes that were read."""

    def __init__(self, file: IO[bytes], archives: InputFiles) -> None:
        self._file = file
        self._archives = archives

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(len(buffer))
        buffer[: len(piece)] = piece
        self._archives.read += len(piece)
        return len(piece)


def _open(name: str) -> IO[bytes]:
    if name == STANDARD_INPUT:
        return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    return open(name, "rb", buffering=0)


def _read_items(source: str, file: IO[bytes]) -> Iterator[InputItem]:
    head = file.read(PIECE)
    if kind := _describe_unsupported(head):
        raise ReportRefused("", f"it is {kind}")
    is_all = len(head) < PIECE
    start = head.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if start.startswith(b"{") and not _is_object(start.partition(b"\n")[0]):
        head += file.read(MAX_CHARACTERS + 1 - len(head))
        is_all = len(head) <= MAX_CHARACTERS
        start = head.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if is_all and _is_object(start):
        yield InputItem(source, "the file", start.rstrip())
    elif start.startswith(b"["):
        yield from _split_array(source, chain([head], iter(lambda: file.read(PIECE), b"")))
    elif start.startswith(_CSV_HEADS):
        yield from _split_records(source, _Numbered(head, file))
    else:
        yield from _split_blocks(source, _Numbered(head, file))


def _is_object(content: bytes) -> bool:
    try:
        msgspec.json.decode(content, type=msgspec.Raw)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return content.startswith(b"{")


def _split_array(source: str, pieces: Iterable[bytes]) -> Iterator[InputItem]:
    for number, text in enumerate(split_reports(pieces), 1):
        content = text.encode("utf-8", "surrogateescape")
        yield _make_item(source, f"element {number}", content)


def _make_item(source: str, position: str, content: bytes) -> InputItem:
    if len(content) > MAX_CHARACTERS:
        # Only the start, to identify it: it may be a gigabyte.
        fault = f"above {MAX_CHARACTERS} bytes, of which the first are shown"
        return InputItem(source, position, content[:200], fault)
    return InputItem(source, position, content)


class _Numbered:
    """The lines of a file with their numbers; too long lines are cut."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._head = io.BytesIO(head.removeprefix(_BYTE_ORDER_MARK))
        self._file = file

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        number = 0
        while line := self._line():
            number += 1
            yield number, line

    def _line(self) -> bytes:
        line = self._piece()
        if len(line) > MAX_CHARACTERS:
            piece = line
            while piece and not piece.endswith(b"\n"):
                piece = self._piece()
        return line

    def _piece(self) -> bytes:
        line = self._head.readline()
        if not line.endswith(b"\n"):
            line += self._file.readline(MAX_CHARACTERS + 1)
        return line


def _split_blocks(source: str, lines: Iterable[tuple[int, bytes]]) -> Iterator[InputItem]:
    """Yield an item for each line, or for several lines where a report was printed over several.

    A report starts at a line with a brace at its start, so an invalid one does not affect the next.
    """
    block: list[bytes] = []
    first = size = 0
    for number, line in lines:
        comment = line.startswith(b"#")
        if block and (
            comment or line.startswith(b"{") or _is_complete(block) or size > MAX_CHARACTERS
        ):
            yield _make_item(source, f"line {first}", b"".join(block).strip())
            block, size = [], 0
        if comment or not (block or line.strip()):
            continue
        if not block:
            first = number
        block.append(line)
        size += len(line)
    if block:
        yield _make_item(source, f"line {first}", b"".join(block).strip())


def _is_complete(block: Sequence[bytes]) -> bool:
    """Return true if a report ends with the last of these lines, and none begins next."""
    last = block[-1].rstrip()
    if len(block) > 1:
        return last == b"}"
    return not last.startswith(b"{") or (last.endswith(b"}") and _is_object(last))


def _split_records(source: str, lines: Iterable[tuple[int, bytes]]) -> Iterator[InputItem]:
    """Yield the rows of a CSV file as JSON objects; a cell that is empty without quotes is null."""
    columns: list[Optional[str]] = []
    for number, record in _complete_records(lines):
        position = f"line {number}"
        try:
            cells = _parse_cells(record.decode("utf-8").rstrip("\r\n"))
        except UnicodeDecodeError:
            yield InputItem(source, position, record.strip(), "not UTF-8; save the file as UTF-8")
            continue
        if not columns:
            columns = cells
        elif len(cells) == len(columns):
            yield _make_item(source, position, msgspec.json.encode(dict(zip(columns, cells))))
        else:
            fault = f"not {len(columns)} cells of CSV, as in the first line"
            yield InputItem(source, position, record.strip()[:MAX_CHARACTERS], fault)


def _complete_records(lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Yield records; within a quoted cell, which may span lines, the number of quotes is odd."""
    record: list[bytes] = []
    first = size = quotes = 0
    for number, line in lines:
        first = first if record else number
        record.append(line)
        size += len(line)
        quotes += line.count(b'"')
        if quotes % 2 == 0 or size > MAX_CHARACTERS:
            yield first, b"".join(record)
            record = []
            size = quotes = 0
    if record:
        yield first, b"".join(record)


def _parse_cells(record: str) -> list[Optional[str]]:
    """Return a record's cells; none if it is invalid."""
    cells: list[Optional[str]] = []
    position = 0
    while match := _CSV_CELL.match(record, position):
        quoted, plain, end = match.groups()
        cells.append(plain or None if quoted is None else _restore_cell(quoted.replace('""', '"')))
        position = match.end()
        if not end:
            return cells
    return []


def defuse_cell(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would run as a formula.

    An import removes it again, so the imported text equals the exported one.
    """
    return _FORMULA.sub(r"\1'\2", text)


def _restore_cell(text: str) -> str:
    return _DEFUSED.sub(r"\1\2", text)


class RejectFile:
    """A file for items that can't be imported, each after a line with the reason.

    An import of the file skips these lines, once its items are fixed.
    """

    def __init__(self, path: Path, sources: Iterable[str]) -> None:
        """Raise `ConfigurationError` if the file is one of those that are imported."""
        self.path = path
        self._file: Optional[IO[bytes]] = None
        if path.exists() and any(map(path.samefile, filter(os.path.exists, sources))):
            raise ConfigurationError(f"{path} is imported itself; name another file with --errors")

    def add(self, refused: Iterable[tuple[InputItem, str]]) -> None:
        """Write items and reasons; the file is made with the first."""
        for item, reason in refused:
            if self._file is None:
                self._file = self._open()
            why = printable(" ".join(f"{item.source} {item.position}: {reason}".split()))
            content = escape_json(item.content.decode("utf-8", "backslashreplace"))
            self._file.write(f"# {why}\n{content}\n".encode())
        if self._file is not None:
            self._file.flush()

    def _open(self) -> IO[bytes]:
        try:
            return open_new(self.path)  # private, since it holds people's reports
        except OSError as error:
            raise ConfigurationError(
                f"can't write {self.path} ({error.strerror}); name another file with --errors"
            ) from None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
