"""Test what is exported, and that an import of it makes the same rows, in another database, too."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Engine

from developer_telemetry.connections.registry import Connection
from developer_telemetry.constants import OVERWRITE, RAW_TABLE, TOOL_TABLE
from developer_telemetry.pipeline.runner import convert
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.reports.privacy_filter import PrivacyRules
from developer_telemetry.reports.pseudonyms import Pseudonyms
from developer_telemetry.storage.statistics import count_machines
from developer_telemetry.storage.writer import store
from developer_telemetry.transfer import exporter as exporting
from developer_telemetry.transfer import input_files as archives
from developer_telemetry.transfer.exporter import (
    ExportOutput,
    ExportSelection,
    open_output,
    read_derived_rows,
    read_raw_rows,
    read_tool_rows,
)
from developer_telemetry.transfer.input_files import defuse_cell
from tests.support import rows
from tests.support.factories import START_US, arrival, body
from tests.support.imports import imported
from tests.support.layers import STRATEGIES, insert_go_plugin_row, traffic
from tests.support.receivers import SECRET, environment
from tests.support.warm_starts import COMMAND

Layer = Callable[[Engine, ExportSelection], Iterator[dict[str, Any]]]


def exported(engine: Engine, path: Path, *layers: Layer, as_csv: bool = False) -> Path:
    with open_output(path) as file:
        output = ExportOutput(file, as_csv)
        for layer in layers:
            for row in layer(engine, ExportSelection()):
                output.write(row)
    return path


def whole(engine: Engine, folder: Path, as_csv: bool) -> list[Path]:
    """Files with both layers; raw last, so that their order is seen not to matter."""
    if not as_csv:
        return [exported(engine, folder / "all.ndjson.gz", read_raw_rows, read_tool_rows)]
    return [
        exported(engine, folder / f"{layer.__name__}.csv", layer, as_csv=True)
        for layer in (read_tool_rows, read_raw_rows)
    ]


def told(engine: Engine) -> tuple[list[rows.Row], list[rows.Row]]:
    """Both layers without raw ids; a tool row's newest report goes by its identity."""
    raw = rows.raw_rows(engine)
    identities = {row.pop("id"): row["report_id"] for row in raw}
    tool = rows.tool_rows(engine)
    for row in tool:
        row["_raw_data_id"] = identities.get(row["_raw_data_id"], row["_raw_data_id"])
    return raw, tool


def empty(engine: Engine) -> None:
    with engine.begin() as connection:
        for table in (RAW_TABLE, TOOL_TABLE):
            connection.exec_driver_sql(f"DELETE FROM {table}")


# The way there and back --------------------------------------------------------------------------

WORDS = st.one_of(
    st.sampled_from(
        ["null", "NULL", '"', ',"', "=1+1", "-2", "@a", "'", "\\N", "a\r\nb", "zoë 🐙"]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
)
ARRIVALS = st.lists(
    st.builds(
        lambda connection_id, after, developer, text, hours, indent: arrival(
            json.dumps(
                {
                    "developer": f"d{developer}",
                    "date": "2026-11-23",
                    "hostname": text,
                    "name": text,
                    "email": developer,
                    "metrics": {"active_hours": hours, "tools_used": [text]},
                },
                indent=indent,
                ensure_ascii=bool(indent),
            ).encode(),
            connection_id=connection_id,
            after=after,
        ),
        st.sampled_from([1, 2]),
        st.sampled_from([-START_US / 1_000_000, 0, 1, 2.5]),  # the first is none at all
        WORDS,
        WORDS,
        st.floats(0, 5),
        st.sampled_from([None, 2]),
    ),
    max_size=12,
)


@pytest.mark.parametrize("as_csv", [False, True], ids=["ndjson", "csv"])
def test_an_export_imported_elsewhere_gives_the_same_rows(
    engine: Engine,
    migrated: Callable[[str], str],
    opened: Callable[[str], Engine],
    tmp_path: Path,
    as_csv: bool,
) -> None:
    kind = "sqlite" if engine.dialect.name != "sqlite" else "postgresql"
    other = opened(migrated(kind))

    @given(ARRIVALS)
    @settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def there(arrivals: list[ReceivedReport]) -> None:
        empty(engine)
        empty(other)
        store(engine, arrivals, STRATEGIES)
        insert_go_plugin_row(engine, "of the Go plugin")
        done = imported(other, *whole(engine, tmp_path, as_csv))
        assert not done.refused
        assert told(other) == told(engine)
        # And twice is as once.
        again = imported(other, *whole(engine, tmp_path, as_csv))
        assert (again.counts.stored, again.counts.already_stored) == (0, len(arrivals))
        assert told(other) == told(engine)

    there()


def test_days_whose_reports_were_pruned_are_kept(
    engine: Engine, migrated: Callable[[str], str], opened: Callable[[str], Engine], tmp_path: Path
) -> None:
    other = opened(migrated("sqlite" if engine.dialect.name != "sqlite" else "mariadb"))
    people = ("ann", "liam", "zoë")
    store(engine, [arrival(developer=each, active_hours=7) for each in people], STRATEGIES)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {RAW_TABLE}")
    path = exported(engine, tmp_path / "days.ndjson", read_tool_rows)
    assert imported(other, path).counts.days == 3
    days = [{**row, "_raw_data_id": 0} for row in rows.tool_rows(engine)]
    assert rows.tool_rows(other) == days
    # A report that came later is newer, and one that came earlier is not.
    late = arrival(after=5000, developer="ann", active_hours=1)
    early = arrival(after=-5000, developer="liam", active_hours=1)
    store(other, [late, early], STRATEGIES)
    imported(other, path)
    ann, liam, zoe = rows.tool_rows(other)
    assert (ann["active_hours"], ann["arrived_us"]) == (1, late.arrived_us)
    assert ann["created_at"] == days[0]["created_at"]
    assert liam == {**days[1], "created_at": "2026-11-23 19:03:20.123"}
    assert zoe == days[2]


def test_a_connections_reports_can_be_copied_to_another(engine: Engine, tmp_path: Path) -> None:
    store(engine, [each._replace(connection_id=1) for each in traffic(2, 40)], STRATEGIES)
    path = exported(engine, tmp_path / "one.ndjson", read_raw_rows, read_tool_rows)
    before = told(engine)
    done = imported(engine, path, to=2)
    assert (done.counts.stored, done.counts.refused, done.counts.days) == (40, 0, 0)
    raw, tool = told(engine)
    assert raw[:40] == before[0]
    assert len({row["report_id"] for row in raw}) == 80
    same = ("payload", "created_at", "arrived_us", "developer_id", "date", "hostname")
    assert [[row[each] for each in same] for row in raw[40:]] == [
        [row[each] for each in same] for row in raw[:40]
    ]
    assert [row for row in tool if row["connection_id"] == 1] == before[1]
    assert imported(engine, path, to=2).counts.already_stored == 40
    assert told(engine) == (raw, tool)


def test_pseudonyms_stay_and_others_names_become_some(
    engine: Engine, migrated: Callable[[str], str], opened: Callable[[str], Engine], tmp_path: Path
) -> None:
    other = opened(migrated("sqlite" if engine.dialect.name != "sqlite" else "postgresql"))
    private = Connection(
        1, "private", None, OVERWRITE, privacy=PrivacyRules(True, Pseudonyms(SECRET, 1))
    )
    sent = arrival(
        developer="ann.lee",
        hostname="anns-laptop",
        email="ann.lee@example.com",
        name="Ann Lee",
        projects=[{"name": "ann.lee's", "path": "/home/ann.lee/x"}],
    )
    store(engine, [sent], STRATEGIES)
    plain = exported(engine, tmp_path / "plain.ndjson", read_raw_rows)
    days = exported(engine, tmp_path / "days.ndjson", read_tool_rows)
    # A day without its report, then the report, then all of it back.
    for path in (days, plain):
        imported(other, path, connections={1: private})
        assert not re.search("ann|lee|/home", json.dumps(told(other)), re.IGNORECASE)
    kept = told(other)
    assert kept[1][0]["developer_id"].startswith("dev-")
    there = exported(other, tmp_path / "there.ndjson", read_raw_rows, read_tool_rows)
    empty(engine)
    imported(engine, there, connections={1: private})
    assert told(engine) == kept


# What is chosen ----------------------------------------------------------------------------------


def days(engine: Engine, wanted: ExportSelection) -> list[tuple[Any, ...]]:
    raw = [
        (r["connection_id"], r["developer_id"], r["date"]) for r in read_raw_rows(engine, wanted)
    ]
    tool = [
        (r["connection_id"], r["developer_id"], r["date"]) for r in read_tool_rows(engine, wanted)
    ]
    assert sorted(raw) == sorted(tool)
    return sorted(raw)


def test_days_connections_and_developers_can_be_chosen(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PAGE", 2)
    everything = [
        (connection_id, developer, date)
        for connection_id in (1, 2)
        for developer in ("Ann", "ann", "zoë")
        for date in ("2026-11-21", "2026-11-22", "2026-11-23")
    ]
    arrivals = [arrival(connection_id=c, developer=d, date=date) for c, d, date in everything]
    store(engine, arrivals, STRATEGIES)
    with engine.begin() as connection:  # ids with gaps
        connection.exec_driver_sql(f"UPDATE {RAW_TABLE} SET id = id * 7 + 1000000")
        connection.exec_driver_sql(f"UPDATE {TOOL_TABLE} SET _raw_data_id = _raw_data_id * 7")
    assert days(engine, ExportSelection()) == everything
    assert days(engine, ExportSelection(connection_id=2)) == everything[9:]
    assert days(engine, ExportSelection(since="2026-11-23")) == everything[2::3]
    assert days(engine, ExportSelection(until="2026-11-21")) == everything[::3]
    assert days(engine, ExportSelection(1, "2026-11-22", "2026-11-22")) == everything[1:9:3]
    assert (
        days(engine, ExportSelection(developers=[(1, "ann"), (2, "zoë")]))
        == everything[3:6] + everything[15:]
    )
    assert (
        days(engine, ExportSelection(1, "2026-11-22", developers=[(1, "ann")])) == everything[4:6]
    )
    assert [r["report_id"] for r in read_raw_rows(engine, ExportSelection())] == [
        a.report_id for a in arrivals
    ]


def test_of_a_person_there_are_machines_and_accounts_too(engine: Engine) -> None:
    for developer in ("ann", "Ann"):
        for host in ("tower", "laptop"):
            sent = arrival(
                developer=developer,
                hostname=host,
                development_activity={"test_runs_detected": 2},
            )
            store(engine, [sent], STRATEGIES)
    count_machines(engine, None)
    for _ in convert(engine, 1, "overwrite", tasks=True):
        pass
    found = list(read_derived_rows(engine, [(1, "ann")]))
    assert [(row["table"], row.get("hostname"), row.get("user_name")) for row in found] == [
        ("_tool_developer_telemetry_machines", "laptop", None),
        ("_tool_developer_telemetry_machines", "tower", None),
        ("accounts", None, "ann"),
        ("cicd_tasks", None, None),
    ]
    assert found[0]["last_seen"] == "2026-11-23 20:26:40.123"
    json.dumps(found)


# How it is written -------------------------------------------------------------------------------


@given(st.text(alphabet="=+-@\t\r\n;|,'\"a\uff1d") | st.text())
def test_no_cell_is_a_formula_and_an_import_reads_what_was_stored(text: str) -> None:
    defused = defuse_cell(text)

    for cell in re.split(r"[;|\t\r\n]", defused):
        assert not cell.startswith(("=", "+", "-", "@", "\uff1d"))
    assert not defused.startswith(("\t", "\r"))
    record = f'"{defused.replace(chr(34), chr(34) * 2)}"'
    assert archives._parse_cells(record) == [text]


def test_csv_holds_what_is_stored_and_tells_of_formulas(engine: Engine) -> None:
    store(engine, [arrival(developer="=1+1", name='say "hi",\nthen', email="@x")], STRATEGIES)
    insert_go_plugin_row(engine)
    file = io.BytesIO()
    output = ExportOutput(file, as_csv=True)
    for row in read_tool_rows(engine, ExportSelection()):
        output.write(row)
    assert output.formulas == 2
    read = list(csv.DictReader(io.StringIO(file.getvalue().decode(), newline="")))
    stored = rows.tool_rows(engine)
    assert len(read) == len(stored) == 2
    for line, row in zip(read, stored):
        assert {name: line[name] for name in row} == {
            name: defuse_cell(value)
            if isinstance(value, str)
            else ""
            if value is None
            else str(value)
            for name, value in row.items()
        }


def test_a_file_appears_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "export.ndjson"
    path.write_bytes(b"of yesterday")

    def interrupted() -> None:
        with open_output(path) as file:
            file.write(b"half of it")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"of yesterday"
    with open_output(path) as file:
        file.write(b"all of it")
    assert path.read_bytes() == b"all of it"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


# As an operator does it --------------------------------------------------------------------------


GUIDE = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")


def test_a_move_with_the_command(embedded: Callable[..., str], tmp_path: Path) -> None:
    for place in ("data", "other"):
        embedded("connect", "fleet", place=place)
    sent = [body(developer=name, email=f"{name}@x.org").decode() for name in ("ann", "-zoë")]
    (tmp_path / "sent.json").write_text(f"[{','.join(sent)}]")
    assert embedded("import", "sent.json") == "0 reports stored: 2\n"
    assert embedded("export", "-o", "all.ndjson.gz") == "0 4 rows exported\n"
    with gzip.open(tmp_path / "all.ndjson.gz") as file:
        assert len(file.readlines()) == 4
    assert embedded("import", "all.ndjson.gz", place="other").splitlines() == [
        "0 reports stored: 2",
        "rows left out that follow from the reports: 2",
    ]
    assert embedded("export", "--developer", "ANN@x.org", "-o", "ann") == "0 4 rows exported\n"
    about = [json.loads(line) for line in (tmp_path / "ann").read_text().splitlines()]
    assert {row["developer_id"] for row in about} == {"ann"}
    assert [row["table"].rpartition("_")[2] for row in about] == [
        "telemetry",
        "metrics",
        "machines",
        "accesses",  # of this export
    ]
    table = ("export", "--format", "csv", "--layer", "tool", "-o", "days.csv")
    assert "2 cells look like formulas" in embedded(*table, "--since", "2026-11-23")
    assert len((tmp_path / "days.csv").read_text().splitlines()) == 3
    assert embedded("export", "--until", "2026-11-22") == "0 0 rows exported\n"


def test_the_guides_commands_do_what_it_says(embedded: Callable[..., str], tmp_path: Path) -> None:
    assert embedded("connect", "fleet").startswith("0 ")
    sent = {"date": "2026-11-23", "email": "ann.lee@example.com", "active_hours": 2}
    archive = tmp_path / "archive" / "daily_2026-11-23.json"
    archive.parent.mkdir()
    archive.write_text(json.dumps(sent))
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL))
    said = [embedded(*shlex.split(line)[1:]) for line in blocks.replace("\\\n", "").splitlines()]
    assert said == [
        "0 0 rows exported\n",
        "0 reports.ndjson.gz: nothing is in it\nreports stored: 0\n",
        "0 connection 1: 0 reports, 0 accounts\n",
        "0 reports stored: 1\n",
        "0 4 rows exported\n",
    ]
    answer = [json.loads(line) for line in (tmp_path / "ann.ndjson").read_text().splitlines()]
    assert {row["developer_id"] for row in answer} == {"ann.lee"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "csv"], "a CSV file holds one table: say which with --layer raw or tool"),
        (["--developer", "nobody"], "nothing is stored of 'nobody'"),
        (["-o", "no/such/folder/x"], "can't write no/such/folder/x"),
    ],
)
def test_mistakes_are_named(
    embedded: Callable[..., str], arguments: list[str], message: str
) -> None:
    embedded("migrate")

    assert embedded("export", *arguments).startswith(f"2 error: {message}")


def test_a_reader_that_goes_away_ends_the_export_quietly(
    embedded: Callable[..., str], tmp_path: Path
) -> None:
    embedded("connect", "fleet")
    bodies = [body(n=n, long="x" * 5000).replace(b"\n", b"") for n in range(50)]
    (tmp_path / "many.ndjson").write_bytes(b"\n".join(bodies))
    assert embedded("import", "many.ndjson") == "0 reports stored: 50\n"
    process = subprocess.Popen(
        [COMMAND, "export"],
        env=environment(TELEMETRY_DATA_DIR="data"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(10)
    process.stdout.close()
    _, said = process.communicate(timeout=60)
    assert said == b""
