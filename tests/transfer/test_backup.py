"""Test that a backup restored into any kind of database has the same rows, all or none."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest
from sqlalchemy import inspect
from sqlalchemy.engine import Engine

from developer_telemetry.connections.registry import Connections, create
from developer_telemetry.constants import (
    LINK_TABLE,
    MADE_LINK_TABLE,
    MIGRATION_TABLE,
    RAW_TABLE,
    REFUSAL_TABLE,
    TOOL_TABLE,
)
from developer_telemetry.database.bulk_insert import insert_typed
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.storage.statistics import count_machines
from developer_telemetry.storage.tables import BACKUP_TABLES
from developer_telemetry.storage.tombstones import Tombstone, read_tombstone_rows, write_tombstones
from developer_telemetry.storage.writer import store
from developer_telemetry.transfer.backup import back_up, list_tables, make_header
from developer_telemetry.transfer.backup_file import (
    BackupManifest,
    BackupWriter,
    open_backup,
    read_backup,
)
from developer_telemetry.transfer.restorer import Restorer, require_compatible
from tests.support import rows
from tests.support.devlake_tables import devlake_tables
from tests.support.factories import arrival
from tests.support.layers import STRATEGIES, insert_go_plugin_row, traffic
from tests.support.receivers import (
    SECRET,
    TOKEN,
    Receiver,
    environment,
    eventually,
    query,
    report,
    run_command,
)
from tests.support.warm_starts import COMMAND

Open = Callable[[str], Engine]
LINKS = {LINK_TABLE, MADE_LINK_TABLE}
# Each direction between two kinds once.
WAYS = ("sqlite", "mariadb", "sqlite", "postgresql", "mariadb", "postgresql", "sqlite")
TEXT = 'Zoë\'s "quotes" \\ 🐙\n'


ASCII_COLUMNS = ("id", "how", "subject", "address", "matched_by", "fingerprint")


def fill(engine: Engine) -> None:
    """Insert reports, days without reports, and a row of odd values into each other table."""
    for name in ("fleet", f"other {TEXT}"):
        create(engine, SECRET, name, TOKEN)
    store(engine, traffic(3, 60), STRATEGIES)
    insert_go_plugin_row(engine, "of the Go plugin")
    count_machines(engine, None)
    odd_rows = {
        name: (columns, [[odd_value(engine, name, column) for column in columns]])
        for (name, *_), columns, *_ in list_tables()
        if name not in {RAW_TABLE, TOOL_TABLE, *LINKS}
    }
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {RAW_TABLE} WHERE date = '2026-11-22'")
        for name, (columns, values) in odd_rows.items():
            insert_typed(connection, name, columns, values, "")


def odd_value(engine: Engine, table: str, column: str) -> Any:
    """Return a value that a column of this name and type can have."""
    if column == "entities":
        return ["CROSS", TEXT]
    [kind] = [c["type"] for c in inspect(engine).get_columns(table) if c["name"] == column]
    declared = str(kind).upper()
    if re.match("DATETIME|TIMESTAMP", declared):
        return "2026-11-23 20:26:40.120"
    if declared.startswith("DATE"):
        return "2026-02-28"
    if re.match("BOOL|TINYINT", declared):
        return 1
    if re.match("BIGINT|INT", declared):
        return 7 if column.endswith("id") else 1 << 40
    return "ascii" if column in ASCII_COLUMNS else TEXT


def back_up_to(path: Path, engine: Engine) -> BackupManifest:
    with open_backup(str(path)) as file:
        writer = BackupWriter(file, make_header(engine, SECRET))
        for _ in back_up(engine, writer):
            pass
        return writer.finish()


def restore_from(path: Path, engine: Engine) -> Restorer:
    with read_backup(str(path)) as reader:
        require_compatible(reader.header, SECRET)
        restorer = Restorer(engine, reader)
        for _ in restorer.restore():
            pass
    return restorer


def lines_of(path: Path) -> list[bytes]:
    return gzip.decompress(path.read_bytes()).splitlines(keepends=True)


def count_rows(engine: Engine) -> int:
    """Count the rows of all tables."""
    with engine.connect() as connection:
        return sum(
            connection.exec_driver_sql(f"SELECT COUNT(*) FROM {table}").scalar_one()
            for table in inspect(engine).get_table_names()
            if table != MIGRATION_TABLE and not table.startswith("sqlite_")
        )


def test_rows_are_equal_after_restores_between_all_kinds_of_databases(
    migrated: Callable[[str], str], opened: Open, tmp_path: Path
) -> None:
    path = tmp_path / "backup"
    engine = opened(migrated(WAYS[0]))
    fill(engine)
    manifest = back_up_to(path, engine)
    lines = lines_of(path)[1:-1]
    assert manifest.rows.keys() == {table.name for table in BACKUP_TABLES} - LINKS
    assert manifest.rows[RAW_TABLE] > 10
    assert manifest.sha256 == hashlib.sha256(b"".join(lines)).hexdigest()

    for kind in WAYS[1:]:
        engine = opened(migrated(kind))
        restore_from(path, engine)
        assert back_up_to(path, engine) == manifest
        assert lines_of(path)[1:-1] == lines
        assert_new_rows_get_new_ids(engine)


def assert_new_rows_get_new_ids(engine: Engine) -> None:
    before = ids_with_token(engine)
    new = create(engine, SECRET, "new", TOKEN)
    assert new > max(7, *before)
    store(engine, [arrival(developer="new", after=1e6)], STRATEGIES)
    with engine.begin() as connection:
        write_tombstones(connection, [Tombstone(0, "new", 1, False)])
    assert ids_with_token(engine) == [*before, new]


def ids_with_token(engine: Engine) -> list[int]:
    connections = Connections(engine, SECRET)
    connections.reload()
    return [each.id for each in connections.all() if each.token == TOKEN]


def test_links_are_restored_to_the_users_that_the_database_has(
    engine: Engine, migrated: Callable[[str], str], opened: Open, tmp_path: Path
) -> None:
    path = tmp_path / "backup"
    lake = opened(migrated("mariadb" if engine.dialect.name == "sqlite" else "sqlite"))
    with devlake_tables(lake):
        add_users(lake, "ann", "bob")
        add_links(lake, ("account of ann", "ann"), ("account of bob", "bob"), ("by hand", "ann"))
        with lake.begin() as connection:
            connection.exec_driver_sql(
                f"DELETE FROM {MADE_LINK_TABLE} WHERE account_id = 'by hand'"
            )
        # That one was made by DevLake's administrator.
        assert back_up_to(path, lake).rows == {LINK_TABLE: 2, MADE_LINK_TABLE: 2}
    with devlake_tables(engine):
        add_users(engine, "ann")
        restorer = restore_from(path, engine)

        assert restorer.links_left_out == 1
        for table in LINKS:
            links = rows.rows(engine, table, ("account_id", "user_id"), "account_id")
            assert links == [{"account_id": "account of ann", "user_id": "ann"}]


def add_users(engine: Engine, *ids: str) -> None:
    with engine.begin() as connection:
        insert_typed(connection, "users", ("id",), [(id,) for id in ids], "")


def add_links(engine: Engine, *links: tuple[str, str]) -> None:
    columns = ("account_id", "user_id", "connection_id", "matched_by", "matched_text")
    with engine.begin() as connection:
        insert_typed(connection, LINK_TABLE, columns[:2], links, "")
        records = [(*link, 1, "email", "text") for link in links]
        insert_typed(connection, MADE_LINK_TABLE, columns, records, "")


def test_a_database_with_rows_is_refused_and_stays_as_it_is(engine: Engine, tmp_path: Path) -> None:
    create(engine, SECRET, "fleet", TOKEN)
    store(engine, [arrival(), arrival(developer="bob")], STRATEGIES)
    path = tmp_path / "backup"
    before = back_up_to(path, engine)

    with pytest.raises(ConfigurationError, match="2 reports, 2 days, 1 scopes, 1 connections"):
        restore_from(path, engine)

    assert back_up_to(path, engine) == before


def test_what_receivers_write_before_a_restore_is_kept(
    engine: Engine, migrated: Callable[[str], str], opened: Open, tmp_path: Path
) -> None:
    source = opened(migrated("postgresql" if engine.dialect.name != "postgresql" else "sqlite"))
    path = tmp_path / "backup"
    both, old, new = (Tombstone(0, name * 64, 9, name == "a") for name in "abc")
    for database, stones in ((source, [old, both]), (engine, [both, new])):
        with database.begin() as connection:
            write_tombstones(connection, stones)
            columns = ("connection_id", "day", "reason", "count")
            count = (1, "2026-11-23", "body", 3)
            insert_typed(connection, REFUSAL_TABLE, columns, [count], "")
    back_up_to(path, source)

    restore_from(path, engine)

    with engine.connect() as connection:
        assert set(read_tombstone_rows(connection)[0]) == {both, old, new}


@pytest.fixture
def database(migrated: Callable[[str], str], opened: Open) -> Engine:
    return opened(migrated("sqlite"))


@pytest.fixture
def backup(database: Engine, tmp_path: Path) -> Path:
    """A backup of a filled database, which is empty afterwards."""
    fill(database)
    path = tmp_path / "backup.gz"
    back_up_to(path, database)
    with database.begin() as connection:
        for table in BACKUP_TABLES:
            if table.name != LINK_TABLE:
                connection.exec_driver_sql(f"DELETE FROM {table.name}")
    return path


def change_header(**fields: Any) -> Callable[[list[bytes]], None]:
    def change(lines: list[bytes]) -> None:
        lines[0] = json.dumps({**json.loads(lines[0]), **fields}).encode() + b"\n"

    return change


def swap(lines: list[bytes]) -> None:
    lines[3], lines[4] = lines[4], lines[3]


def add_table(lines: list[bytes]) -> None:
    lines.insert(-1, b'{"table":"sqlite_master","name":"x"}\n')


def add_column(lines: list[bytes]) -> None:
    lines[2] = lines[2].replace(b'"table":', b'"x; DROP TABLE y":1,"table":')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines.pop(), "its end is missing"),
        (swap, "its sum differs"),
        (add_table, "'sqlite_master'"),
        (add_column, "columns differ"),
        (lambda lines: lines.__setitem__(5, b"nonsense\n"), "is damaged"),
        (lambda lines: lines.clear(), "is no backup"),
        (lambda lines: lines.pop(0), "is no backup"),
        (change_header(backup=2), "update developer-telemetry"),
        (change_header(schema=1 << 50), "update developer-telemetry"),
        (change_header(secret="another"), "another ENCRYPTION_SECRET"),
    ],
)
def test_a_file_that_is_not_right_restores_nothing(
    change: Callable[[list[bytes]], None], message: str, database: Engine, backup: Path
) -> None:
    lines = lines_of(backup)
    change(lines)
    backup.write_bytes(gzip.compress(b"".join(lines)))

    with pytest.raises(ConfigurationError, match=message):
        restore_from(backup, database)

    assert count_rows(database) == 0


def test_a_file_that_was_cut_off_restores_nothing(database: Engine, backup: Path) -> None:
    content = backup.read_bytes()
    backup.write_bytes(content[: len(content) // 2])

    with pytest.raises(ConfigurationError, match="is damaged or incomplete"):
        restore_from(backup, database)

    assert count_rows(database) == 0


def test_a_backup_of_an_older_release_has_fewer_columns(database: Engine, backup: Path) -> None:
    *lines, end = lines_of(backup)
    older = lines[:1]
    for line in lines[1:]:
        row = json.loads(line)
        if "_refused_machines" not in row["table"]:
            new = ("retired_us", "user_agent")
            old_row = {column: value for column, value in row.items() if column not in new}
            older.append(json.dumps(old_row).encode() + b"\n")
    manifest = json.loads(end)
    del manifest["rows"]["_tool_developer_telemetry_refused_machines"]
    manifest["sha256"] = hashlib.sha256(b"".join(older[1:])).hexdigest()
    text = b"".join(older) + json.dumps(manifest, separators=(",", ":")).encode()
    backup.write_bytes(text)  # unpacked, as an operator may have left it

    restore_from(backup, database)

    machines = rows.rows(
        database, "_tool_developer_telemetry_machines", ("retired_us", "user_agent"), "hostname"
    )
    assert machines
    assert {tuple(machine.values()) for machine in machines} == {(0, "")}


def test_a_backup_is_private_and_read_by_standard_tools(backup: Path, tmp_path: Path) -> None:
    assert backup.stat().st_mode & 0o777 == 0o600
    command = f"zcat {backup} | sed '1d;$d' | sha256sum"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == json.loads(lines_of(backup)[-1])["sha256"]


def test_a_backup_that_fails_leaves_the_old_file(database: Engine, backup: Path) -> None:
    before = backup.read_bytes()

    def fail() -> None:
        with open_backup(str(backup)) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert backup.read_bytes() == before
    assert [path.name for path in backup.parent.iterdir()] == [backup.name]


def test_a_backup_has_the_rows_of_one_moment(engine: Engine, opened: Open, tmp_path: Path) -> None:
    other = opened(engine.url.render_as_string(hide_password=False))
    store(engine, [arrival(developer=f"d{n}") for n in range(30)], STRATEGIES)
    before = back_up_to(tmp_path / "before", engine)

    with open_backup(str(tmp_path / "during")) as file:
        writer = BackupWriter(file, make_header(engine, SECRET))
        steps = back_up(engine, writer)
        next(steps)
        # On SQLite a writer waits until the end; a receiver spools meanwhile.
        if engine.dialect.name != "sqlite":
            store(other, [arrival(developer="new"), arrival(developer="d1")], STRATEGIES)
        for _ in steps:
            pass
        during = writer.finish()

    assert during == before


def test_a_receiver_takes_reports_while_sqlite_is_backed_up(
    database: Engine, tmp_path: Path
) -> None:
    connection_id = create(database, SECRET, "fleet", TOKEN)
    url = database.url.render_as_string()
    with Receiver(url, tmp_path) as receiver, open_backup(str(tmp_path / "backup")) as file:
        writer = BackupWriter(file, make_header(database, SECRET))
        steps = back_up(database, writer)
        next(steps)
        assert receiver.send(report("ann"), connection_id).status_code == 200
        for _ in steps:
            pass
        assert RAW_TABLE not in writer.finish().rows

        eventually(lambda: query(url, f"SELECT id FROM {RAW_TABLE}"), seconds=20)


def test_a_restore_that_is_killed_leaves_nothing_and_can_be_repeated(
    migrated_url: str, engine: Engine, tmp_path: Path
) -> None:
    store(engine, [arrival(developer=f"d{n}", rest="x" * 999) for n in range(2000)], STRATEGIES)
    path = tmp_path / "backup"
    manifest = back_up_to(path, engine)
    with engine.begin() as connection:
        for table in (RAW_TABLE, TOOL_TABLE):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    text = b"".join(lines_of(path))
    process = subprocess.Popen(
        [str(COMMAND), "restore", "-"],
        cwd=tmp_path,
        env=environment(DB_URL=migrated_url),
        stdin=subprocess.PIPE,
    )
    assert process.stdin is not None
    # More than a pipe holds, so that most of it was read and written.
    process.stdin.write(text[: len(text) // 2])
    process.stdin.flush()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()

    assert eventually(lambda: count_rows(engine) == 0, seconds=20)
    done = run_command(tmp_path, "restore", str(path), "--json", DB_URL=migrated_url)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"rows": manifest.rows, "sha256": manifest.sha256}
    assert back_up_to(path, engine) == manifest


# The commands ------------------------------------------------------------------------------------


def embedded(folder: Path, secret: str = SECRET) -> dict[str, str]:
    return {
        "DB_URL": "",
        "ENCRYPTION_SECRET": secret,
        "TELEMETRY_DATA_DIR": str(folder),
        "TELEMETRY_SPOOL_DIR": "",
    }


def test_a_restored_database_takes_the_machines_of_the_old_one(
    tmp_path: Path, migrated: Callable[[str], str]
) -> None:
    old = embedded(tmp_path / "old", secret="")
    said(run_command(tmp_path, "connect", "unused", **old))
    said(run_command(tmp_path, "connect", "fleet", "--secret-token", TOKEN, **old))
    said(run_command(tmp_path, "connections", "delete", "unused", "--yes", **old))
    said(run_command(tmp_path, "backup", "b.gz", **old))
    secret = (tmp_path / "old" / "encryption_secret").read_text()
    url = migrated("postgresql")

    done = run_command(tmp_path, "restore", "b.gz", DB_URL=url, ENCRYPTION_SECRET=secret)

    assert "connections  1" in said(done)
    with Receiver(url, tmp_path, ENCRYPTION_SECRET=secret) as receiver:
        assert receiver.send(report("ann"), 2).status_code == 200


def test_a_restore_makes_a_database_only_under_the_right_secret(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    said(run_command(tmp_path, "connect", "fleet", **embedded(old)))
    said(run_command(tmp_path, "backup", "b.gz", **embedded(old)))

    missing = run_command(tmp_path, "restore", "b.gz", **embedded(new, secret=""))
    other = run_command(tmp_path, "restore", "b.gz", **embedded(new, secret="other" * 9))

    assert (missing.returncode, other.returncode) == (2, 2)
    assert f"or copy its file to {new}/encryption_secret" in missing.stderr
    assert "another ENCRYPTION_SECRET" in other.stderr
    assert not new.exists()
    assert "made at" in run_command(tmp_path, "restore", "b.gz", **embedded(new)).stderr
    again = run_command(tmp_path, "restore", "b.gz", **embedded(new))
    assert again.returncode == 2
    assert "is not empty, it has 1 scopes, 1 connections" in again.stderr


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout
