"""Test what is kept of people is in files that others can't read, whatever the umask, from the
start."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry import private_files
from developer_telemetry.config import load_settings
from developer_telemetry.connections.embedded_database import ensure_secret
from developer_telemetry.connections.registry import Connections, create
from developer_telemetry.database.engine import open_engine
from developer_telemetry.database.migrate import migrate
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.receiver.ingest.spool import Spool
from developer_telemetry.receiver.ingest.spooled_report import SpooledReport
from developer_telemetry.transfer.exporter import open_output
from developer_telemetry.transfer.input_files import InputItem, RejectFile
from tests.support.receivers import SECRET, Receiver, eventually, report, run_command
from tests.support.servers import free_port
from tests.support.warm_starts import COMMAND

SETTINGS = {"ENCRYPTION_SECRET": "", "TELEMETRY_SPOOL_DIR": ""}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


class OpenToAll(Receiver):
    """A receiver whose umask takes nothing away."""

    def command(self) -> list[str]:
        return ["sh", "-c", f"umask {self.umask}; exec {COMMAND} serve"]

    umask = "000"


class ClosedToItself(OpenToAll):
    """A receiver whose umask takes everything away."""

    umask = "0777"


@pytest.mark.parametrize("kind", [OpenToAll, ClosedToItself])
def test_all_that_a_receiver_makes_is_private_whatever_the_umask(
    kind: type[Receiver], tmp_path: Path
) -> None:
    with kind("", tmp_path, **SETTINGS) as receiver:
        rotated = run_command(tmp_path, "token", "rotate", "1", "--json", **SETTINGS)
        token = json.loads(rotated.stdout)["token"]
        eventually(lambda: receiver.send(report("ann"), 1, token).status_code == 200, 20)
        made = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
    names = {each.name for each in made}

    assert names >= {"telemetry.db", "encryption_secret", "spool.db", "reserve", "receiver-id"}
    assert names >= {"connections.json", "lock", "spool"}
    for each in made:
        assert mode(each) == (0o700 if each.is_dir() else 0o600), each


def test_what_an_older_release_left_open_is_tightened_and_said(tmp_path: Path) -> None:
    with Receiver("", tmp_path, **SETTINGS) as receiver:
        pass
    folder = tmp_path / "data"
    for each in (folder, *folder.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)

    with receiver:
        wide = [each for each in (folder, *folder.rglob("*")) if mode(each) & 0o077]

    assert wide == []
    assert "data/telemetry.db could be read by others (its mode was 644)" in receiver.log


def test_a_folder_with_others_files_in_it_stays_as_it_is(tmp_path: Path) -> None:
    for name in ("spool.db", "theirs"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o644)
    tmp_path.chmod(0o755)

    private_files.make_folder(tmp_path, ["spool"])

    assert (mode(tmp_path), mode(tmp_path / "theirs")) == (0o755, 0o644)
    assert mode(tmp_path / "spool.db") == 0o600


def test_files_that_commands_write_replace_a_link_and_do_not_follow_it(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o644)
    links = [tmp_path / name for name in ("export", "errors", "connections.json")]
    for link in links:
        link.symlink_to(victim)

    with open_output(links[0]) as file:
        file.write(b"rows")
    rejects = RejectFile(links[1], [])
    rejects.add([(InputItem("a", "line 1", b"x"), "why")])
    rejects.close()
    engine = open_engine(f"sqlite:///{tmp_path}/telemetry.db")
    migrate(engine)
    create(engine, SECRET, "fleet", "token")
    Connections(engine, SECRET, links[2]).reload()
    engine.dispose()

    assert victim.read_text() == "precious"
    for link in links:
        assert link.is_file()
        assert not link.is_symlink()
        assert mode(link) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make links in another's name")
@pytest.mark.parametrize("name", ["data/telemetry.db", "data/spool/spool.db"])
def test_another_users_link_is_refused_in_words(tmp_path: Path, name: str) -> None:
    link = tmp_path / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "victim")
    os.lchown(link, 65534, 65534)

    done = run_command(tmp_path, "serve", TELEMETRY_PORT=str(free_port()), **SETTINGS)

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("see where it leads, and remove it")
    assert "is a link that another user made" in done.stderr
    assert not (tmp_path / "victim").exists()


def test_a_link_of_the_operator_s_own_is_followed(tmp_path: Path) -> None:
    (tmp_path / "telemetry.db").symlink_to(tmp_path / "elsewhere.db")

    engine = open_engine(f"sqlite:///{tmp_path}/telemetry.db")
    migrate(engine)
    engine.dispose()

    assert (tmp_path / "telemetry.db").is_symlink()
    assert mode(tmp_path / "elsewhere.db") == 0o600


def test_locks_outlive_what_makes_files_private(tmp_path: Path) -> None:
    """To close a file that SQLite has locked would end its locks."""
    url = f"sqlite:///{tmp_path}/telemetry.db"
    engine, other = open_engine(url), open_engine(url)
    migrate(engine)
    with engine.begin():
        (tmp_path / "telemetry.db").chmod(0o644)
        assert not _can_write(other)

    assert mode(tmp_path / "telemetry.db") == 0o600
    assert _can_write(other)
    for each in (engine, other):
        each.dispose()


def _can_write(engine: Engine) -> bool:
    import sqlite3

    path = engine.url.database
    with engine.connect():  # which makes the file private
        pass
    pid = os.fork()
    if pid == 0:
        try:
            sqlite3.connect(str(path), timeout=0, isolation_level=None).execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def test_the_secret_of_an_embedded_database_is_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        settings = ensure_secret(
            load_settings({"TELEMETRY_DATA_DIR": str(tmp_path / "data")}), print
        )
    finally:
        os.umask(before)

    assert len(settings.encryption_secret) == 64
    assert mode(tmp_path / "data/encryption_secret") == 0o600
    assert [each.name for each in (tmp_path / "data").iterdir()] == ["encryption_secret"]


def test_a_device_is_written_to_as_it_is(tmp_path: Path) -> None:
    for path in (Path("/dev/null"), Path("/dev/stderr")):
        before = path.lstat()
        with open_output(path):
            pass
        assert path.lstat().st_ino == before.st_ino


def test_a_spool_made_private_keeps_its_reports(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = Spool(folder, 1 << 20)
    spool.put([SpooledReport("id", 1, 1, "{}")])
    spool.close()
    for each in folder.iterdir():
        each.chmod(0o644)

    spool = Spool(folder, 1 << 20)
    spool.close()

    assert spool.depth == 1
    assert spool.corruptions == 0
    assert {mode(each) for each in folder.iterdir()} == {0o600}


def test_a_refusal_names_the_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    if os.getuid() == 0:
        os.lchown(link, 4712, 4712)

    with pytest.raises(ConfigurationError, match="link is a link that another user made"):
        private_files.make_file(link)
