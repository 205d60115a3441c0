"""The zipapp as its user has it: installed, looked at, paused, removed."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import httpx
import pytest

from collector.version import VERSION
from developer_telemetry.connections.report_url import COLLECTOR_PATH
from developer_telemetry.privacy.personal_links import make_page_key
from developer_telemetry.receiver.collector_archive import build_archive
from tests.support.receivers import TOKEN, Receiver, add_connection, migrate, query

# Each call compiles the zipapp anew, which takes long on a busy machine.
pytestmark = pytest.mark.timeout(400)
NAME = "developer-telemetry-collector"
NOBODY = 65534
# The programs of a system that turn a timer on; they note what they were told.
SYSTEMCTL = """#!/bin/sh
echo "$@" >>"$HOME/../systemctl.log"
test -e "$HOME/../has-systemd"
"""
CRONTAB = """#!/bin/sh
file="$HOME/../crontab"
case "$1" in
-l) test -e "$file" && cat "$file" || { echo "no crontab for ann" >&2; exit 1; } ;;
-r) rm "$file" ;;
-) cat >"$file" ;;
esac
"""


class Machine:
    """An ordinary user with a home and a copy of the zipapp; as root, the user is nobody."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.python = python
        for path in (self.home, folder / "bin"):
            path.mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("crontab", CRONTAB)):
            (folder / "bin" / name).write_text(text, encoding="utf-8")
            (folder / "bin" / name).chmod(0o755)
        self.download = folder / "collector.pyz"
        self.download.write_bytes(build_archive())
        (self.home / ".gitconfig").write_text("[user]\n\temail = ann@example.com\n")
        for path in (folder, *folder.rglob("*")):
            self._give(path)

    def _give(self, path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)

    @property
    def installed(self) -> Path:
        return self.home / ".local/share" / NAME / f"{NAME}.pyz"

    def call(self, *arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command of the collector, of the installed one if there is one."""
        program = self.installed if self.installed.exists() else self.download
        return subprocess.run(
            [self.python, str(program), *arguments],
            input=token + "\n",
            capture_output=True,
            text=True,
            cwd=self.home,
            env={"HOME": str(self.home), "PATH": f"{self.folder}/bin:/usr/bin:/bin"},
            check=False,
            user=NOBODY if os.geteuid() == 0 else None,
            group=NOBODY if os.geteuid() == 0 else None,
            extra_groups=[] if os.geteuid() == 0 else None,
        )

    def install(self, url: str, *options: str) -> subprocess.CompletedProcess[str]:
        arguments = ("--url", url, "--developer", "ann", "--token-stdin", *options)
        return self.call("install", *arguments, token=TOKEN)

    def type(self, line: str) -> None:
        with (self.home / ".zsh_history").open("a", encoding="utf-8") as history:
            history.write(f": {int(time.time())}:0;{line}\n")

    @property
    def files(self) -> set[str]:
        names = (str(path.relative_to(self.home)) for path in self.home.rglob("*"))
        return {name for name in names if name not in (".gitconfig", ".zsh_history")}


def python_for_users() -> Optional[str]:
    """Return an interpreter that the user of these tests may run."""
    if os.geteuid() != 0:
        return sys.executable
    return next((path for path in ("/usr/bin/python3",) if os.path.exists(path)), None)


@pytest.fixture
def machine() -> Iterator[Machine]:
    python = python_for_users()
    if python is None:
        pytest.skip("as root these tests need an interpreter that everyone may run")
    folder = Path(tempfile.mkdtemp(prefix="telemetry-collector-"))
    folder.chmod(0o755)
    yield Machine(folder, python)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Receiver, str, int]]:
    folder = tmp_path_factory.mktemp("receiver")
    database = f"sqlite:///{folder}/telemetry.db"
    migrate(database, folder)
    connection = add_connection(database)
    with Receiver(database, folder) as receiver:
        yield receiver, database, connection


def test_from_the_first_line_to_the_tool_row_and_back_out(
    machine: Machine, receiver: tuple[Receiver, str, int]
) -> None:
    running, database, connection = receiver
    (machine.folder / "has-systemd").touch()
    done = machine.install(f"{running.url}/api/plugins/developer-telemetry/{connection}/report")
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout
    units = machine.home / ".config/systemd/user"
    assert {path.name for path in units.iterdir()} == {f"{NAME}.service", f"{NAME}.timer"}
    assert not any(TOKEN in path.read_text() for path in units.iterdir())
    config = machine.home / ".config" / NAME / "config.json"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert "enable --now" in (machine.folder / "systemctl.log").read_text()

    machine.type("make test")
    assert machine.call("run").returncode == 0
    day = time.strftime("%Y-%m-%d")
    [row] = query(
        database,
        "SELECT date, command_counts, test_runs, active_hours FROM _tool_developer_metrics"
        " WHERE developer_id = 'ann'",
    )
    assert (str(row[0]), *row[1:]) == (day, '{"make test":1}', 1, 1)

    status = machine.call("status").stdout
    assert "Waiting    nothing" in status
    assert "every 15 minutes, by a systemd user timer" in status
    assert len(status.splitlines()) <= 24
    assert json.loads(machine.call("sent", day).stdout)["developer"] == "ann"

    done = machine.call("uninstall")
    assert done.returncode == 0, done.stderr
    assert machine.files == set()
    assert "disable --now" in (machine.folder / "systemctl.log").read_text()


def test_the_receiver_serves_it_and_its_version(receiver: tuple[Receiver, str, int]) -> None:
    running, _, _ = receiver
    for prefix in ("", "/api"):
        answer = running.client.get(prefix + COLLECTOR_PATH)
        assert (answer.status_code, answer.content) == (200, build_archive())
    document = running.client.get("/openapi.json").json()
    assert document["info"]["x-collector-version"] == VERSION


def test_a_wrong_token_is_explained_and_the_right_one_sends_the_day(
    machine: Machine, receiver: tuple[Receiver, str, int]
) -> None:
    running, _, connection = receiver
    url = f"{running.url}/plugins/developer-telemetry/{connection}/report"
    options = ("--url", url, "--token-stdin", "--no-timer", "--developer", "bob")
    assert machine.call("install", *options, token="wrong").returncode == 0
    machine.type("git push")
    assert machine.call("run").returncode == 0
    status = machine.call("status").stdout
    assert "401" in status
    assert "the token is wrong or was replaced; install again with the new one" in status
    assert "tried again after" in status
    assert json.loads(machine.call("show").stdout)["metrics"]["commands"] == {"git": 1}
    assert machine.call("install", *options, token=TOKEN).returncode == 0
    done = machine.call("send")
    assert (done.returncode, done.stdout) == (0, "All days are sent.\n")


def test_a_developer_opens_a_page_with_what_the_machine_has_sent(
    machine: Machine, receiver: tuple[Receiver, str, int]
) -> None:
    running, _, connection = receiver
    url = f"{running.url}/api/plugins/developer-telemetry/{connection}/report"
    options = ("--url", url, "--token-stdin", "--no-timer", "--developer", "dora")
    assert machine.call("install", *options, token=TOKEN).returncode == 0
    machine.type("make test")
    before = machine.call("status", "--open")
    assert before.returncode == 1
    assert "404" in before.stderr
    assert "type `send`, then again" in before.stderr
    assert machine.call("run").returncode == 0

    done = machine.call("status", "--open")

    assert done.returncode == 0, done.stderr
    link = done.stdout.splitlines()[-1]
    assert link.startswith(f"{running.url}/api/plugins/developer-telemetry/me/open?link=")
    with httpx.Client(trust_env=False, verify=False, follow_redirects=True) as browser:
        page = browser.get(link).text
        body = browser.get(f"{running.url}/api/plugins/developer-telemetry/me/data.json").json()
    assert "dora" in page
    assert json.loads(body["reports"][0]["body"])["metrics"]["commands"] == {"make test": 1}
    config = json.loads((machine.home / ".config" / NAME / "config.json").read_text())
    assert config["page_secret"] not in machine.call("show").stdout + done.stdout + page
    assert json.loads(body["reports"][0]["body"])["page_key"] == list(
        make_page_key(config["page_secret"])
    )
    # An update keeps the secret.
    assert machine.call("install", *options, token=TOKEN).returncode == 0
    assert json.loads((machine.home / ".config" / NAME / "config.json").read_text()) == config


def test_a_browser_gets_the_link_from_this_process_and_not_on_its_command_line(
    tmp_path: Path,
) -> None:
    browser = tmp_path / "browser"
    browser.write_text(
        f"#!{sys.executable}\nimport http.client, sys, urllib.parse\n"
        "parts = urllib.parse.urlsplit(sys.argv[1])\n"
        "def ask(path):\n"
        "    connection = http.client.HTTPConnection(parts.netloc, timeout=10)\n"
        "    connection.request('GET', path)\n"
        "    return connection.getresponse()\n"
        "wrong = ask('/another').status\n"
        "right = ask(parts.path)\n"
        f"with open({str(tmp_path / 'seen')!r}, 'w') as file:\n"
        "    print(sys.argv[1], wrong, right.status, right.headers['Location'], file=file)\n"
    )
    browser.chmod(0o755)
    code = "import sys; from collector.own_page import open_in_browser; "
    code += "print(open_in_browser(sys.argv[1]))"
    link = "https://devlake.example.com/api/plugins/developer-telemetry/me/open?link=a.b"

    def open_with(program: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", code, link],
            env={"PATH": "/usr/bin:/bin", "BROWSER": program, "HOME": str(tmp_path)},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert open_with(str(browser)) == "True\n"
    address, wrong, right, location = (tmp_path / "seen").read_text().split()
    assert (wrong, right, location) == ("404", "303", link)
    assert "link=" not in address
    assert open_with("/bin/false") == "False\n"


def test_without_systemd_cron_runs_it(machine: Machine) -> None:
    crontab = machine.folder / "crontab"
    crontab.write_text("0 1 * * * backup\n", encoding="utf-8")
    crontab.chmod(0o666)
    url = "http://127.0.0.1:9/plugins/developer-telemetry/1/report"
    assert machine.install(url).returncode == 0
    assert machine.install(url).returncode == 0  # again, as after an update
    mine, ours = crontab.read_text(encoding="utf-8").splitlines()
    assert (mine, ours.endswith(NAME)) == ("0 1 * * * backup", True)
    assert TOKEN not in ours
    assert machine.call("uninstall").returncode == 0
    assert crontab.read_text(encoding="utf-8") == "0 1 * * * backup\n"
    assert machine.files == set()


def test_a_person_can_pause_exclude_and_hide(machine: Machine) -> None:
    url = "http://127.0.0.1:9/plugins/developer-telemetry/1/report"
    assert machine.install(url, "--no-timer").returncode == 0
    assert "until `resume`" in machine.call("pause").stdout
    machine.type("git push")
    assert machine.call("run").returncode == 0
    assert machine.call("send").returncode == 1
    assert "nothing is read or sent" in machine.call("status").stdout
    assert machine.call("resume").returncode == 0
    assert machine.call("run").returncode == 0
    assert machine.call("show").stdout == ""
    assert machine.call("pause", "--until", "2020-01-01").returncode == 1
    assert machine.call("pause", "--until", "never").returncode == 1
    listed = machine.call("exclude", "secret", "/repositories/customer").stdout
    assert listed.splitlines() == ["Left out     /repositories/customer", "Left out     secret"]
    listed = machine.call("exclude", "--remove", "secret").stdout
    assert listed.splitlines() == ["Left out     /repositories/customer"]
    assert "Name hidden  shop" in machine.call("exclude", "--hide", "shop").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "https://host/wrong"], "is not a report URL"),
        (["--url", "ftp://host/plugins/developer-telemetry/1/report"], "is not an http or https"),
        (["--url", "https://a:b@host/plugins/developer-telemetry/1/report"], "holds a password"),
    ],
)
def test_a_wrong_url_is_refused_with_what_to_do(
    machine: Machine, arguments: list[str], message: str
) -> None:
    done = machine.call("install", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert machine.files == set()


def test_before_install_a_command_says_so(machine: Machine) -> None:
    done = machine.call("status")
    assert (done.returncode, done.stderr) == (
        1,
        f"{NAME}: the collector is not installed here; run its `install`\n",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be refused")
def test_root_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "collector.pyz"
    program.write_bytes(build_archive())
    command = [sys.executable, str(program), "install", "--url"]
    done = subprocess.run(
        [*command, "http://127.0.0.1:9/plugins/developer-telemetry/1/report"],
        capture_output=True,
        text=True,
        env={"HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 1
    assert "run this as the developer, not as root" in done.stderr
