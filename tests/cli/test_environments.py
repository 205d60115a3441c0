"""Every command in broken environments: it says so in a line, names what is at fault, and ends."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest

from developer_telemetry.connections.registry import create
from developer_telemetry.constants import OVERWRITE
from developer_telemetry.database.engine import now_us, open_engine
from developer_telemetry.database.migrate import migrate
from developer_telemetry.storage.writer import store
from tests.support.environments import Outcome, forking
from tests.support.factories import arrival
from tests.support.receivers import SECRET, command_names
from tests.support.servers import HOST, free_port

Run = Callable[..., Outcome]

ARGUMENTS = {
    "connect": ["näw"],
    "connections show": ["1"],
    "connections rename": ["1", "Zoë 漢字"],
    "connections set": ["1", "--pseudonyms"],
    "connections delete": ["1"],
    "token rotate": ["1"],
    "token revoke": ["1", "--previous"],
    "token add": ["1", "Größe"],
    "token list": ["1"],
    "import": ["sent.json"],
    "erase": ["zoë"],
    "demo": ["--developers", "1", "--days", "1"],
}
DEVLAKE = {"DEVLAKE_URL": "https://127.0.0.1:1"}
ASKING = {"connections list", "connections show", "connect", "doctor", "token rotate"}


class Broken(NamedTuple):
    """An environment, and what those commands say that notice: a pattern of standard error."""

    variables: dict[str, str] = {}
    how: dict[str, str] = {}
    noticed_by: set[str] = set()
    says: str = ""


ENVIRONMENTS = {
    "full disk": Broken(
        how={"stdout": "full"},
        noticed_by={"status", "connections list", "export", "connect", "prune"},
        says=r"^error: can't write to standard output.*No space left on device",
    ),
    "readers gone away": Broken(how={"stdout": "pipe", "stderr": "pipe"}),
    "full disk for errors, too": Broken(how={"stdout": "full", "stderr": "full"}),
    "outputs closed": Broken(how={"stdout": "closed", "stderr": "closed"}),
    "ascii": Broken(how={"encoding": "ascii"}),
    "no home, no folder for temporary files": Broken({"HOME": "/nowhere", "TMPDIR": "/nowhere"}),
    "odd terminal": Broken(
        {"TERM": "x\x1b", "COLUMNS": "9999999999", "LINES": "-1", "TERMINAL_WIDTH": "wide"}
    ),
    "folder gone": Broken(
        how={"cwd": "gone"}, noticed_by={"status", "doctor"}, says="no longer exists"
    ),
    "nowhere to keep data": Broken(
        {"TELEMETRY_DATA_DIR": "/dev/null/x", "DB_URL": ""},
        noticed_by={"serve", "import", "connect"},
        says="^error: can't keep data in /dev/null/x .*TELEMETRY_DATA_DIR",
    ),
    "nowhere to spool": Broken(
        {"TELEMETRY_SPOOL_DIR": "/dev/null/x", "TELEMETRY_PORT": str(free_port())},
        noticed_by={"serve"},
        says="^error: can't keep a spool in /dev/null/x .*TELEMETRY_SPOOL_DIR",
    ),
    "setting from a file that is not there": Broken(
        {"DB_URL_FILE": "/nowhere"}, noticed_by={"status", "serve"}, says="^error: DB_URL_FILE"
    ),
    "proxy that is none": Broken(
        {"HTTPS_PROXY": "junk://x", **DEVLAKE}, noticed_by=ASKING, says="^error: HTTPS_PROXY is no"
    ),
    "socks": Broken(
        {"all_proxy": "socks5://x:1", **DEVLAKE},
        noticed_by=ASKING,
        says="^error: all_proxy is a SOCKS proxy",
    ),
    "proxy that is away": Broken(
        {"HTTPS_PROXY": "http://127.0.0.1:1", **DEVLAKE},
        noticed_by=ASKING - {"doctor"},
        says="^error: can't reach DevLake .*through the proxy in HTTPS_PROXY",
    ),
    "no certificates": Broken(
        {"SSL_CERT_FILE": "/nowhere", "REQUESTS_CA_BUNDLE": "/nowhere", **DEVLAKE},
        noticed_by=ASKING,
        says="^error: SSL_CERT_FILE: can't read /nowhere",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environments")
    engine = open_engine(f"sqlite:///{folder}/telemetry.db")
    migrate(engine)
    create(engine, SECRET, "Zoë 漢字", "token")
    made = arrival(developer="zoë", email="zoë@x.org", name="Zoë 漢字")
    store(engine, [made._replace(arrived_us=now_us())], {1: OVERWRITE})
    engine.dispose()
    (folder / "sent.json").write_text('{"developer": "zoë", "date": "2026-11-23"}')
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Iterator[Run]:
    with forking(folder) as run:
        yield run


@pytest.fixture(scope="module")
def taken_port() -> Iterator[int]:
    """`serve` ends at once, having said so."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_no_command_ends_in_a_traceback(name: str, run: Run, folder: Path, taken_port: int) -> None:
    broken = ENVIRONMENTS[name]
    base: dict[str, str] = {
        "PATH": "/usr/bin:/bin",
        "DB_URL": f"sqlite:///{folder}/telemetry.db",
        "ENCRYPTION_SECRET": SECRET,
        "TELEMETRY_PORT": str(taken_port),
        "TELEMETRY_PUBLIC_URL": f"http://{HOST}:{free_port()}",
    }
    for command in command_names():
        how: dict[str, Any] = dict(broken.how)
        if "cwd" in how:
            how["cwd"] = str(folder / how["cwd"])
            Path(how["cwd"]).mkdir()
        call = [*command.split(), *ARGUMENTS.get(command, [])]
        done = run(call, {**base, **broken.variables}, **how)
        told = f"{call}: {done.status}\n{done.out}\n{done.err}"
        assert done.status in (0, 1, 2, 75, 130), told
        for text in (done.out, done.err):
            assert "Traceback" not in text, told
            assert "unexpected" not in text, told
            assert "Exception ignored" not in text, told
        if command in broken.noticed_by:
            assert done.status in (1, 2, 75), told
            assert re.search(broken.says, done.err, re.MULTILINE), told
            errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
            assert len(errors) == 1, told


@pytest.mark.parametrize(
    "call", [[], ["--help"], ["connect", "--help"], ["x\x1b"], ["status", "\x9b"]]
)
@pytest.mark.parametrize("name", ["full disk", "ascii", "odd terminal", "outputs closed"])
def test_help_and_wrong_usage_end_well_too(call: list[str], name: str, run: Run) -> None:
    broken = ENVIRONMENTS[name]

    done = run(call, broken.variables, **broken.how)

    assert done.status in (0, 1, 2)
    for text in (done.out, done.err):
        assert "Traceback" not in text
        assert not re.search("[\x1b\x9b]", text)
