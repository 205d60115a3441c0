"""Files taken apart into items, and those that can't be imported written down."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from developer_telemetry.errors import ConfigurationError
from developer_telemetry.reports.json_splitter import MAX_CHARACTERS
from developer_telemetry.transfer import input_files as archives
from developer_telemetry.transfer.input_files import PIECE, InputFiles, InputItem, RejectFile

ONE = {"developer": "ann.lee", "tools": ["git", {"a": "}\n{"}], "date": "2026-11-23"}
TWO = {"developer": "zoë", "nested": [{"x": {}}]}


def items(*paths: Path) -> list[InputItem]:
    return list(InputFiles(map(str, paths)).items())


def items_of(folder: Path, content: bytes) -> list[InputItem]:
    path = folder / "reports"
    path.write_bytes(content)
    return items(path)


def lines(*documents: object, indent: int | None = None) -> bytes:
    texts = (json.dumps(each, ensure_ascii=False, indent=indent) for each in documents)
    return b"".join(text.encode() + b"\n" for text in texts)


@pytest.mark.parametrize(
    "content",
    [
        lines(ONE, TWO),
        lines(ONE, TWO).rstrip(),
        lines(ONE, TWO).replace(b"\n", b"\r\n\r\n"),
        b"\xef\xbb\xbf" + lines(ONE, TWO),
        lines(ONE, TWO, indent=2),
        b"  " + lines(ONE) + b"  " + lines(TWO),
        lines(ONE) + lines(TWO, indent=4),
        lines(ONE, indent=4) + b"\n\n" + lines(TWO),
        lines([ONE, TWO]),
        lines([ONE, TWO], indent=2),
        b"\n [ " + lines(ONE) + b",\n" + lines(TWO) + b"]\n\n",
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_files_of_any_layout_hold_the_same_reports(
    tmp_path: Path, content: bytes, pack: type[bytes]
) -> None:
    found = items_of(tmp_path, pack(content))
    assert [json.loads(each.content) for each in found] == [ONE, TWO]
    assert not any(each.fault for each in found)


@pytest.mark.parametrize("indent", [None, 0, 3])
def test_a_file_of_one_object_is_one_report_to_the_letter(
    tmp_path: Path, indent: int | None
) -> None:
    content = json.dumps(ONE, indent=indent).encode()
    [item] = items_of(tmp_path, content + b"\n")
    assert item == InputItem(str(tmp_path / "reports"), "the file", content)


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_a_report_of_any_size_is_read_with_the_next_one(tmp_path: Path, size: int) -> None:
    long = b'{"long": "' + b"x" * (size - 12) + b'"}'
    assert [each.content for each in items_of(tmp_path, long)] == [long]
    found = items_of(tmp_path, long + b"\n" + lines(TWO))
    assert [each.content for each in found] == [long, lines(TWO).strip()]


@pytest.mark.parametrize("content", [b"", b"\n \n", b"[]", b"# only a remark\n"])
def test_a_file_without_reports_has_no_items(tmp_path: Path, content: bytes) -> None:
    assert items_of(tmp_path, content) == []


def test_what_is_broken_does_not_spoil_its_neighbours(tmp_path: Path) -> None:
    good = json.dumps(TWO).encode()
    found = items_of(
        tmp_path,
        b"\n".join(
            [
                b'{"developer": "cut off',
                good,
                b"no JSON at all",
                b'{"one": 1} {"two": 2}',
                good,
                b"}",
                b"{",
                b'  "no end": 1,',
                good,
                b"\xff\xfe not UTF-8",
            ]
        ),
    )
    assert [(each.position, each.content) for each in found] == [
        ("line 1", b'{"developer": "cut off'),
        ("line 2", good),
        ("line 3", b"no JSON at all"),
        ("line 4", b'{"one": 1} {"two": 2}'),
        ("line 5", good),
        ("line 6", b"}"),
        ("line 7", b'{\n  "no end": 1,'),
        ("line 9", good),
        ("line 10", b"\xff\xfe not UTF-8"),
    ]


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_without_bounds_is_cut_and_the_next_one_read(tmp_path: Path, end: bytes) -> None:
    long = b'{"developer": "' + b"x" * (2 * MAX_CHARACTERS) + b'"}'
    found = items_of(tmp_path, lines(ONE) + long + end)
    later = items_of(tmp_path, lines(ONE) + long + b"\n" + lines(TWO))
    for each in (found, later):
        assert each[1].position == "line 2"
        assert each[1].fault == f"above {MAX_CHARACTERS} bytes, of which the first are shown"
        assert long.startswith(each[1].content)
        assert len(each[1].content) < 1000
    assert len(found) == 2
    assert json.loads(later[2].content) == TWO


def test_lines_that_never_become_a_report_are_cut(tmp_path: Path) -> None:
    found = items_of(
        tmp_path, b"{\n" + (b'"a' + b"a" * 10_000 + b'": 1,\n') * (MAX_CHARACTERS // 5_000)
    )
    assert found[0].fault.startswith("above")
    assert len(found[0].content) < 1000


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_of_a_torn_archive_as_much_is_read_as_there_is(tmp_path: Path, kept: float) -> None:
    documents = [{**ONE, "salt": os.urandom(500).hex()} for _ in range(2000)]
    packed = gzip.compress(lines(*documents))
    *found, half, torn = items_of(tmp_path, packed[: int(len(packed) * kept)])
    assert torn.fault.startswith("can't be read to its end")
    assert len(found) > 2000 * (kept - 0.2)
    whole = lines(*documents)
    assert b"".join(each.content + b"\n" for each in [*found, half]).rstrip() in whole


def test_an_array_without_an_end_gives_what_it_has(tmp_path: Path) -> None:
    first, *_, end = items_of(tmp_path, lines([ONE, TWO])[:-20])
    assert json.loads(first.content) == ONE
    assert end.fault == "the array has no end; send all of it"


def test_folders_give_what_is_named_like_reports_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b/2.json", "b/1.ndjson", "a.JSONL.gz", "c.csv", "notes.md", "b/x.tmp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(lines({"file": name}))
    archives = InputFiles([str(tmp_path)])
    read = [json.loads(each.content)["file"] for each in archives.items() if not each.fault]
    assert read == ["a.JSONL.gz", "c.csv", "b/1.ndjson", "b/2.json"]
    assert archives.passed_over == 2
    assert archives.size == archives.read == sum(os.path.getsize(each) for each in archives.files)


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no file or folder"):
        InputFiles([str(tmp_path / "nothing")])


def test_cells_of_csv_come_as_they_were(tmp_path: Path) -> None:
    content = (
        '"table","number","text","null","empty"\r\n'
        '"t",5,"a ""b"", c\nand {""d"": 1}\r\n",,""\r\n'
        '"t",6,"x",,"y"'
    )
    found = items_of(tmp_path, content.encode())
    assert [json.loads(each.content) for each in found] == [
        {
            "table": "t",
            "number": "5",
            "text": 'a "b", c\nand {"d": 1}\r\n',
            "null": None,
            "empty": "",
        },
        {"table": "t", "number": "6", "text": "x", "null": None, "empty": "y"},
    ]
    assert [each.position for each in found] == ["line 2", "line 5"]


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (b'"t",1,2', "not 2 cells of CSV"),
        (b'"t"', "not 2 cells of CSV"),
        (b'"t"x,1', "not 2 cells of CSV"),
        (b'"t","\xff"', "not UTF-8"),
    ],
)
def test_a_record_that_is_no_csv_is_named(tmp_path: Path, record: bytes, fault: str) -> None:
    found = items_of(tmp_path, b"table,number\n" + record + b"\n" + b'"t",7\n')
    assert found[0].content == record
    assert found[0].fault.startswith(fault)
    assert json.loads(found[1].content) == {"table": "t", "number": "7"}


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_any_bytes_are_taken_apart_without_losing_a_report(
    tmp_path_factory: pytest.TempPathFactory, rubbish: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    good = json.dumps(ONE).encode()
    content = b"\n".join(b"\n".join([each, good]) for each in [b"?", *rubbish])
    found = [each.content for each in items_of(folder, content)]
    assert found.count(good) == len(rubbish) + 1


def test_rejects_can_be_imported_once_they_are_mended(tmp_path: Path) -> None:
    path = tmp_path / "errors.txt"
    rejects = RejectFile(path, [])
    assert not path.exists()
    broken = json.dumps(ONE, indent=2).encode()[:-1]
    refused = [
        (InputItem("a.json", "line 3", json.dumps(TWO).encode()), "no\nreason"),
        (InputItem("b\udcff.json", "the file", broken), "not JSON"),
    ]
    rejects.add(refused[:1])
    rejects.add(refused[1:])
    rejects.close()
    assert path.read_bytes().splitlines()[0] == b"# a.json line 3: no reason"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.content for each in items(path)] == [item.content.rstrip() for item, _ in refused]
    path.write_bytes(path.read_bytes().rstrip() + b"\n}")
    assert [json.loads(each.content) for each in items(path)] == [TWO, ONE]


def test_rejects_never_replace_what_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "errors.txt"
    path.write_bytes(lines(ONE))
    with pytest.raises(ConfigurationError, match="name another file with --errors"):
        RejectFile(path, ["-", str(tmp_path / "." / "errors.txt")])
    assert path.read_bytes() == lines(ONE)


KINDS = {
    "UTF-16": '{"developer": "ann"}'.encode("utf-16"),
    "UTF-16 text": '[{"developer": "ann"}]'.encode("utf-16-le"),
    "UTF-16 text; save": '{"developer": "ann"}'.encode("utf-16-be"),
    "UTF-32": '{"developer": "ann"}'.encode("utf-32"),
    "zip": b"PK\x03\x04" + bytes(40),
    "bzip2": bz2.compress(b"{}"),
    "xz": lzma.compress(b"{}"),
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(40),
    "compressed twice": gzip.compress(gzip.compress(b"{}")),
    "picture": b"\xff\xd8\xff\xe0" + bytes(40),
    "PDF": b"%PDF-1.7\n",
    "SQLite": b"SQLite format 3\0" + bytes(40),
    "sign-in page": b"\n<!DOCTYPE html><html>",
    "no text": b"abc\0def",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_a_file_that_is_none_of_ours_is_called_what_it_is(
    tmp_path: Path, kind: str, packed: bool
) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(gzip.compress(KINDS[kind]) if packed else KINDS[kind])

    [item] = InputFiles([str(path)]).items()

    assert item.is_file
    assert item.fault.startswith("it is ")
    assert kind in item.fault


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_archive_is_called_one(tmp_path: Path, mode: str) -> None:
    (tmp_path / "a.json").write_text("{}")
    with tarfile.open(tmp_path / "b.json", mode) as archive:  # type: ignore[call-overload]
        archive.add(tmp_path / "a.json")

    [item] = InputFiles([str(tmp_path / "b.json")]).items()

    assert item.fault == "it is a tar archive; unpack it"


def test_a_failure_of_any_kind_is_the_files_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps({"of": name}))
    real = archives._is_object

    def fails(content: bytes) -> bool:
        if b"a.json" in content:
            raise MemoryError("zoë")
        return real(content)

    monkeypatch.setattr(archives, "_is_object", fails)

    found = list(InputFiles([str(tmp_path)]).items())

    assert [os.path.basename(each.source) for each in found] == ["a.json", "b.json"]
    assert [bool(each.fault) for each in found] == [True, False]
