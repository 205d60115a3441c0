"""Reports out of files, on every database: what becomes of them, and of those already there."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from random import Random
from typing import Any, Callable

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.constants import (
    MACHINE_TABLE,
    OVERWRITE,
    RAW_TABLE,
    SUM,
    TOMBSTONE_TABLE,
    TOOL_TABLE,
)
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.storage.tombstones import TombstoneKey
from developer_telemetry.storage.writer import store
from developer_telemetry.transfer.exporter import ExportSelection
from developer_telemetry.transfer.exporter import read_tool_rows as exported_days
from developer_telemetry.transfer.import_reader import BATCH_REPORTS, make_archive_id
from developer_telemetry.transfer.importer import ImportCounts
from tests.support.factories import START_US, arrival, body
from tests.support.imports import file_of, imported
from tests.support.layers import BOTH, STRATEGIES, insert_go_plugin_row, rewritten, traffic
from tests.support.receivers import (
    SECRET,
    add_connection,
    environment,
    eventually,
    migrate,
    query,
    run_command,
)
from tests.support.rows import Row, raw_rows, rows, tool_row_of, tool_rows
from tests.support.warm_starts import COMMAND

CONNECTION_OF = {OVERWRITE: 1, SUM: 2}
# As the collector keeps a day that it has sent: who and where are not in it.
ARCHIVE = {
    "date": "2026-11-23",
    "hours_collected": [9, 10],
    "tools_used": ["git", "go"],
    "projects": ["billing"],
    "git_activity": {
        "total_commits": 2,
        "repositories": [{"name": "billing", "path": "/home/ann/billing", "commits": 2}],
    },
    "development_activity": {"test_runs_detected": 1, "build_commands_detected": 0},
    "api_connections": {},
    "active_hours": 2,
}


def archive(folder: Path, name: str = "daily_2026-11-23.json", **fields: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps({**ARCHIVE, **fields}, indent=2))
    return path


def without_ids(found: list[Row]) -> list[Row]:
    return [{k: v for k, v in row.items() if k not in ("id", "_raw_data_id")} for row in found]


def everything(engine: Engine) -> tuple[list[Row], list[Row]]:
    return raw_rows(engine), tool_rows(engine)


# What a collector keeps --------------------------------------------------------------------------


def test_a_collectors_own_archive_becomes_the_report_that_it_was(
    engine: Engine, tmp_path: Path
) -> None:
    path = archive(tmp_path)
    who: dict[str, Any] = {
        "developer": "ann.lee",
        "hostname": "laptop",
        "email": "ann@example.com",
        "name": "Ann",
    }
    done = imported(engine, path, to=1, **who)
    assert done.counts == ImportCounts(read=path.stat().st_size, stored=1)
    [raw] = raw_rows(engine)
    assert json.loads(raw["payload"]) == {**ARCHIVE, **who}
    assert raw["payload"].startswith(path.read_text()[:-1].rstrip())  # to the letter
    row = tool_row_of(engine)
    assert row["_raw_data_id"] == raw["id"]
    assert row["arrived_us"] == raw["arrived_us"] == 0
    assert row["created_at"] == row["updated_at"] == raw["created_at"] == "2026-11-23 00:00:00.000"
    assert {name: row[name] for name in ("email", "name", "hostname", "active_hours")} == {
        "email": "ann@example.com",
        "name": "Ann",
        "hostname": "laptop",
        "active_hours": 2,
    }
    assert (row["commits"], row["test_runs"]) == (2, 1)
    assert "/home" not in row["git_activity"]


def test_what_a_report_says_counts_and_not_what_was_given(engine: Engine, tmp_path: Path) -> None:
    said = body(developer_id="zoë", developer=" ", hostname="tower", email="", name=None)
    lines = file_of(tmp_path, b" ".join(said.split()), b"{ }")
    done = imported(
        engine, lines, to=1, developer="ann.lee", hostname="laptop", email="a@x", name='"Q"'
    )
    assert done.counts.stored == 1
    row = tool_row_of(engine)
    assert (row["developer_id"], row["hostname"]) == ("zoë", "tower")
    assert (row["email"], row["name"]) == ("a@x", '"Q"')
    assert [reason.split(":")[0] for _, reason in done.refused] == ["date"]


def test_a_day_comes_from_the_files_name_if_wanted(engine: Engine, tmp_path: Path) -> None:
    undated = json.dumps({"developer": "ann.lee"}).encode()
    path = file_of(tmp_path, undated, body(date="2026-11-20"), name="daily_2026-11-21.ndjson")
    assert imported(engine, path, to=1).counts.refused == 1
    done = imported(engine, path, to=1, date_from_name=True)
    assert (done.counts.stored, done.counts.already_stored) == (1, 1)
    assert [row["date"] for row in tool_rows(engine)] == ["2026-11-20", "2026-11-21"]
    nameless = file_of(tmp_path, undated, name="2026-11-215.ndjson")
    assert imported(engine, nameless, to=1, date_from_name=True).counts.refused == 1


# Once is enough ----------------------------------------------------------------------------------


@BOTH
def test_an_import_done_twice_changes_nothing(
    engine: Engine, tmp_path: Path, strategy: str
) -> None:
    bodies = [
        body(hostname=f"host {n % 3}", date=f"2026-11-{n % 9 + 1:02}", x=n) for n in range(40)
    ]
    path = file_of(tmp_path, *(b" ".join(each.split()) for each in [*bodies, bodies[0]]))
    to = CONNECTION_OF[strategy]
    done = imported(engine, path, to=to)
    assert (done.counts.stored, done.counts.already_stored, done.counts.refused) == (40, 1, 0)
    before = everything(engine)
    machines = rows(engine, MACHINE_TABLE, ("hostname", "reports", "last_seen"), "hostname")
    assert [each["reports"] for each in machines] == [14, 13, 13]
    again = imported(engine, path, to=to)
    assert (again.counts.stored, again.counts.already_stored, again.counts.refused) == (0, 41, 0)
    assert everything(engine) == before
    assert rewritten(engine) == before[1]
    assert machines == rows(engine, MACHINE_TABLE, ("hostname", "reports", "last_seen"), "hostname")


def test_the_identity_of_an_archives_report_follows_from_its_content() -> None:
    one = make_archive_id(1, "2026-11-23", "body")
    assert one == make_archive_id(1, "2026-11-23", "body")
    assert one[:15] == "01a205b3-d000-7"  # of version 7, at the start of the day
    others = [make_archive_id(2, "2026-11-23", "body"), make_archive_id(1, "2026-11-23", "other")]
    assert len({one, *others}) == 3
    assert one < make_archive_id(1, "2026-11-24", "body")
    assert make_archive_id(1, "1000-01-01", "body")[:13] == "00000000-0000"


def test_several_reports_of_one_batch_are_one_row_each(engine: Engine, tmp_path: Path) -> None:
    count = BATCH_REPORTS + 1
    path = file_of(
        tmp_path,
        *(
            json.dumps({"developer": "a", "date": "2026-11-23", "n": n}).encode()
            for n in range(count)
        ),
    )
    assert imported(engine, path, to=1).counts.stored == count
    # Of reports without an arrival the later one counts.
    assert json.loads(raw_rows(engine)[-1]["payload"])["n"] == count - 1
    assert tool_row_of(engine)["_raw_data_id"] == raw_rows(engine)[-1]["id"]


# Beside what is there ----------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("first", ["pushed", "archived"])
def test_an_archive_never_replaces_what_arrived(
    engine: Engine, tmp_path: Path, strategy: str, first: str
) -> None:
    to = CONNECTION_OF[strategy]
    pushed = arrival(connection_id=to, hostname="laptop", active_hours=7)
    path = archive(tmp_path)

    def push() -> None:
        store(engine, [pushed], STRATEGIES)

    def bring() -> None:
        assert imported(engine, path, to=to, developer="ann.lee", hostname="laptop").counts.stored

    for each in (push, bring) if first == "pushed" else (bring, push):
        each()
    row = tool_row_of(engine)
    assert (row["active_hours"], row["arrived_us"]) == (7, START_US)
    assert row["created_at"] == row["updated_at"] == "2026-11-23 20:26:40.123"
    assert rewritten(engine) == [row]


def test_an_archive_leaves_rows_of_the_go_plugin_as_they_are(
    engine: Engine, tmp_path: Path
) -> None:
    insert_go_plugin_row(engine)
    before = tool_rows(engine)
    assert imported(engine, archive(tmp_path), to=1, developer="ann.lee").counts.stored == 1
    assert tool_rows(engine) == before
    assert rewritten(engine) == before
    store(engine, [arrival(active_hours=7)], STRATEGIES)
    row = tool_row_of(engine)
    assert (row["active_hours"], row["created_at"]) == (7, "2026-11-23 20:26:40.123")
    assert rewritten(engine) == [row]


def test_under_sum_an_archive_adds_its_host_and_needs_to_name_it(
    engine: Engine, tmp_path: Path
) -> None:
    store(engine, [arrival(connection_id=2, hostname="tower", active_hours=3)], STRATEGIES)
    path = archive(tmp_path)
    done = imported(engine, path, to=2, developer="ann.lee")
    [(item, reason)] = done.refused
    assert item.source == str(path)
    assert reason.startswith("hostname: missing, and connection 2 adds up the hosts of a day")
    assert tool_row_of(engine)["active_hours"] == 3
    assert imported(engine, path, to=2, developer="ann.lee", hostname="laptop").counts.stored == 1
    row = tool_row_of(engine)
    assert (row["active_hours"], row["hostname"], row["arrived_us"]) == (5, "tower", START_US)
    assert row["created_at"] == "2026-11-23 20:26:40.123"
    assert rewritten(engine) == [row]


@pytest.mark.parametrize("seed", range(3))
def test_in_any_order_pushes_and_archives_give_what_an_extract_gives(
    engine: Engine, seed: int
) -> None:
    random = Random(seed)
    arrivals = [
        each._replace(arrived_us=random.choice([0, 0, each.arrived_us]))
        for each in traffic(seed, 60)
    ]
    random.shuffle(arrivals)
    while arrivals:
        count = random.randint(1, 12)
        store(engine, arrivals[:count], STRATEGIES)
        del arrivals[:count]
    stored = tool_rows(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {TOOL_TABLE}")
    assert rewritten(engine) == stored


def test_who_was_erased_does_not_come_back(engine: Engine, tmp_path: Path) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO {TOMBSTONE_TABLE} (connection_id, subject, erased_us)"
            f" VALUES (0, '{TombstoneKey(SECRET).developer('ann.lee')}', {START_US})"
        )
    path = archive(tmp_path)
    done = imported(engine, path, to=1, developer="ann.lee")
    assert (done.counts.stored, done.counts.erased) == (0, 1)
    assert everything(engine) == ([], [])
    assert imported(engine, path, to=1, developer="zoë").counts.stored == 1


# What can't be imported --------------------------------------------------------------------------


def test_a_bad_report_is_named_and_the_others_are_stored(engine: Engine, tmp_path: Path) -> None:
    path = file_of(
        tmp_path,
        b'{"developer": "ann.lee", "date": "2026-11-23"}',
        b'{"developer": "ann.lee", "date": "yesterday"}',
        b"[1]",
        b'{"developer": "zo\xff", "date": "2026-11-23"}',
        b'{"table": "_raw_developer_telemetry", "report_id": 5}',
        b'{"table": "_raw_developer_telemetry", "report_id": "x", "connection_id": 1,'
        b' "arrived_us": 1, "payload": "{}"}',
        b'{"table": "_tool_developer_metrics", "connection_id": 1}',
        b'{"developer": "zo\\u00eb", "date": "2026-11-23", "table": 7}',
    )
    done = imported(engine, path, to=1)
    assert (done.counts.stored, done.counts.refused) == (2, 6)
    reasons = {item.position: reason for item, reason in done.refused}
    assert reasons["line 2"] == (
        "date: missing or not a date; send it as YYYY-MM-DD, or take it from the file's name with"
        " --date-from-name"
    )
    assert reasons["line 3"].startswith("body: not an object")
    assert reasons["line 4"].startswith("body: not UTF-8")
    assert reasons["line 5"].startswith("expected `str`, got `int`")
    assert reasons["line 6"].startswith("developer: missing")
    assert reasons["line 7"].startswith("object missing required field")
    assert [row["developer_id"] for row in tool_rows(engine)] == ["ann.lee", "zoë"]


def test_a_report_that_the_database_refuses_is_named(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from developer_telemetry.storage import writer as storage

    real = storage._build_raw_row

    def refused(each: Any) -> tuple[Any, ...]:
        # Nothing else that passes our checks is known to be refused by all of them.
        return real(each) if each.report.developer_id != "zoë" else (None, *real(each)[1:])

    monkeypatch.setattr(storage, "_build_raw_row", refused)
    people = [body(developer=name) for name in ("ann.lee", "zoë", "liam")]
    done = imported(engine, file_of(tmp_path, *(b" ".join(each.split()) for each in people)), to=1)
    assert [item.position for item, _ in done.refused] == ["line 2"]
    assert "null" in done.refused[0][1].lower()
    assert [row["developer_id"] for row in tool_rows(engine)] == ["ann.lee", "liam"]


@pytest.mark.parametrize(
    ("to", "line", "message"),
    [
        (None, b"{}", "there are 2 connections; name the one for these reports"),
        (
            None,
            b'{"table": "_raw_developer_telemetry", "report_id": "x", "connection_id": 9,'
            b' "arrived_us": 1, "payload": "{}"}',
            "there is no connection '9'",
        ),
    ],
)
def test_a_report_for_no_connection_is_refused_and_the_next_one_read(
    migrated: Callable[[str], str],
    opened: Callable[[str], Engine],
    tmp_path: Path,
    to: int | None,
    line: bytes,
    message: str,
) -> None:
    engine = opened(migrated("sqlite"))
    row = {"table": RAW_TABLE, "report_id": "y", "connection_id": 2, "arrived_us": 1}
    good = json.dumps({**row, "payload": body(hostname="x").decode()}).encode()
    done = imported(engine, file_of(tmp_path, line, line, good), to=to)
    assert [message in reason for _, reason in done.refused] == [True, True]
    assert done.counts.stored == 1


def test_a_connection_that_is_not_there_ends_the_import_before_it_begins(
    migrated: Callable[[str], str], opened: Callable[[str], Engine], tmp_path: Path
) -> None:
    engine = opened(migrated("sqlite"))
    message = "there is no connection '7'"
    with pytest.raises(ConfigurationError, match=message):
        imported(engine, file_of(tmp_path, b"{}"), to=7)


def test_a_day_that_the_database_refuses_does_not_keep_its_neighbours_out(
    engine: Engine, tmp_path: Path
) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("its tables can't get a rule afterwards")
    store(engine, [arrival(developer=name) for name in ("ann", "poison", "zoë")], STRATEGIES)
    days = [
        {**row, "report_id": None, "_raw_data_id": None}
        for row in exported_days(engine, ExportSelection())
    ]
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {TOOL_TABLE}")
        connection.exec_driver_sql(
            f"ALTER TABLE {TOOL_TABLE} ADD CONSTRAINT picky CHECK (developer_id <> 'poison')"
        )
    try:
        lines = [json.dumps(day).encode() for day in days]
        done = imported(engine, file_of(tmp_path, *lines))
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {TOOL_TABLE} DROP CONSTRAINT picky")
    [(item, why)] = done.refused
    assert (item.position, done.counts.days) == ("line 2", 2)
    assert "picky" in why
    assert "poison" not in why


def test_files_that_are_none_of_ours_are_named_and_the_others_imported(
    embedded: Callable[..., str], tmp_path: Path
) -> None:
    embedded("connect", "fleet")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.json").write_bytes(body(hostname="tower"))
    (folder / "deep.json").write_bytes(b'{"table": ' + b"[" * 200_000)
    (folder / "utf16.json").write_bytes('{"developer": "ann"}'.encode("utf-16"))
    (folder / "photo.json").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(999))
    (folder / "empty.json").touch()
    (folder / "lost.json").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.json")
    (folder / "._good.json").write_bytes(b"\0\x05\x16\x07")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "x.json").write_bytes(b"\0\x05\x16\x07")

    shown = embedded("import", "in", "missing.json", "--errors", "bad.txt")

    assert shown.startswith("1 ")
    lines = shown[2:].splitlines()
    assert "in/utf16.json: it is UTF-16 text; save it as UTF-8" in lines
    assert "in/photo.json: it is a picture" in lines
    assert "in/empty.json: nothing is in it" in lines
    assert "in/lost.json: can't be read to its end: No such file or directory" in lines
    assert "missing.json: can't be read to its end: No such file or directory" in lines
    assert "reports stored: 1" in lines
    assert "can't be imported: 5" in lines
    assert "_good.json" not in shown
    assert "MACOSX" not in shown
    assert all(line.isprintable() for line in (tmp_path / "bad.txt").read_text().splitlines())


# As an operator does it --------------------------------------------------------------------------


def test_a_day_with_the_command(embedded: Callable[..., str], tmp_path: Path) -> None:
    embedded("connect", "fleet")
    folder = tmp_path / "archives"
    folder.mkdir()
    archive(folder)
    archive(folder, "daily_2026-11-22.json", date="2026-11-22")
    (folder / "notes.txt").write_text("none of ours")
    path = file_of(folder, body(hostname="tower").replace(b"\n", b""), b'{"date": "no"}')
    who = ("--developer", "ann.lee", "--hostname", "laptop")
    assert embedded("import", "archives", *who, "--errors", "bad.txt").splitlines() == [
        "1 reports stored: 3",
        "files in folders passed over for their names: 1",
        "can't be imported: 1",
        "bad.txt has them with their reasons; correct them there, then import that file",
    ]
    reason, line = (tmp_path / "bad.txt").read_text().splitlines()
    assert reason.startswith(f"# {Path('archives') / path.name} line 2: date: missing")
    assert line == '{"date": "no"}'
    (tmp_path / "bad.txt").write_text(f"{reason}\n{line.replace('no', '2026-11-21')}\n")
    assert embedded("import", "bad.txt", *who) == "0 reports stored: 1\n"
    assert not list(tmp_path.glob("import-errors-*"))
    (tmp_path / "bad.txt").write_text("?")
    assert embedded("import", "bad.txt").startswith("1 reports stored: 0\n")
    assert len(list(tmp_path.glob("import-errors-*.txt"))) == 1


def test_reports_can_come_through_a_pipe(embedded: Callable[..., str]) -> None:
    embedded("connect", "fleet")
    done = subprocess.run(
        [COMMAND, "import", "-", "--developer", "ann.lee"],
        env=environment(TELEMETRY_DATA_DIR="data"),
        input=json.dumps(ARCHIVE, indent=2).encode(),
        capture_output=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (b"reports stored: 1\n", b"")


def test_killed_in_the_middle_and_started_again_it_is_as_in_one_go(
    database_url: str,
    migrated: Callable[[str], str],
    opened: Callable[[str], Engine],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "archives"
    folder.mkdir()
    random = Random(1)
    lines = [
        b" ".join(each.report.payload.encode().split()) for each in traffic(1, 3 * BATCH_REPORTS)
    ]
    for number, line in enumerate(lines):  # no two alike, as if each were of another hour
        lines[number] = b'{"salt": %d, ' % random.getrandbits(60) + line[1:]
    half = len(lines) // 2
    file_of(folder, *lines[:half], name="1.ndjson")
    # Whoever gets so far waits here to be killed.
    os.mkfifo(tmp_path / "pipe")
    migrate(database_url, tmp_path)
    add_connection(database_url)

    def stored() -> int:
        [(count,)] = query(database_url, "SELECT COUNT(*) FROM _raw_developer_telemetry")
        assert isinstance(count, int)
        return count

    process = subprocess.Popen(
        [COMMAND, "import", "archives", "pipe"],
        cwd=tmp_path,
        env=environment(DB_URL=database_url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: stored() >= BATCH_REPORTS, 60)
    finally:
        process.kill()
        process.wait()
    (tmp_path / "pipe").unlink()
    file_of(folder, *lines[half:], name="2.ndjson")
    before = stored()
    assert BATCH_REPORTS <= before <= half
    done = run_command(tmp_path, "import", "archives", DB_URL=database_url)
    assert done.stdout.splitlines() == [
        f"reports stored: {len(lines) - before}",
        f"stored already, passed over: {before}",
    ]
    in_one_go = opened(migrated("sqlite"))
    assert imported(in_one_go, folder, to=1).counts.stored == len(lines)
    resumed = opened(database_url)
    [(connection_id,)] = query(database_url, "SELECT id FROM _tool_developer_telemetry_connections")
    assert connection_id == 1
    assert without_ids(raw_rows(resumed)) == without_ids(raw_rows(in_one_go))
    assert without_ids(tool_rows(resumed)) == without_ids(tool_rows(in_one_go))
    machines = ("developer_id", "hostname", "reports", "first_seen", "last_seen")
    assert rows(resumed, MACHINE_TABLE, machines, "hostname, developer_id") == rows(
        in_one_go, MACHINE_TABLE, machines, "hostname, developer_id"
    )
