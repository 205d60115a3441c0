"""The timers of three systems, checked with what reads them where that can be had."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from collector.paths import LINUX, MACOS, WINDOWS, default_folders
from collector.timers.base import Program
from collector.timers.cron import MARKER, cron_line, without_our_lines
from collector.timers.launchd import property_list
from collector.timers.systemd import SystemdTimer
from collector.timers.windows import task_xml

ODD = Program("/usr/bin/python3", '/home/ann o\'x/100% "$HOME"/c.pyz', "/home/ann/config.json")


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    python = Program("/usr/bin/env", *ODD[1:])
    for path, content in SystemdTimer(str(tmp_path), str(tmp_path)).files(python):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)
    units = sorted((tmp_path / "systemd/user").iterdir())
    assert [unit.suffix for unit in units] == [".service", ".timer"]
    # A manager of one's own, or it would ask the one of the machine.
    command = ["systemd-analyze", "verify", "--man=no", *map(str, units)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    calendar = ["systemd-analyze", "calendar", "*:0/15"]
    assert subprocess.run(calendar, capture_output=True, check=False).returncode == 0


def test_a_line_of_cron_runs_the_program_whatever_its_path_has(tmp_path: Path) -> None:
    program = tmp_path / 'it\'s 100% "$HOME".sh'
    program.write_text('echo "$@"\n', encoding="utf-8")
    line = cron_line(Program("/bin/sh", str(program), "/c o.json"), 37)
    times, command = line[: line.index(" * ")], line.split(" * * * * ")[1]
    assert times == "7,22,37,52"
    as_cron_does = command.replace("\\%", "%").replace(">/dev/null 2>&1", "")
    command_line = ["/bin/sh", "-c", as_cron_does]
    done = subprocess.run(command_line, capture_output=True, text=True, check=True)
    assert done.stdout == "--config /c o.json run\n"


def test_other_lines_of_a_crontab_stay() -> None:
    mine = "# mine\n0 1 * * * backup\n"
    assert without_our_lines(mine + cron_line(ODD, 0) + "\n") == mine
    assert without_our_lines(MARKER + "\n") == ""


# The keys of launchd.plist(5), with the types that they have there.
LAUNCHD = {
    "Label": str,
    "ProgramArguments": list,
    "StartInterval": int,
    "RunAtLoad": bool,
    "ProcessType": str,
    "LowPriorityIO": bool,
    "Nice": int,
    "ExitTimeOut": int,
}


def test_the_agent_of_macos_has_keys_of_launchd_alone() -> None:
    agent = plistlib.loads(property_list(ODD))
    assert {key: type(value) for key, value in agent.items()} == LAUNCHD
    assert agent["ProgramArguments"] == [*ODD[:2], "--config", ODD.config, "run"]
    assert agent["ProcessType"] in ("Background", "Standard", "Adaptive", "Interactive")
    assert -20 <= agent["Nice"] <= 20


# The order in which the schema of tasks (version 1.2) has these elements.
TASK = ["RegistrationInfo", "Triggers", "Principals", "Settings", "Actions"]
TRIGGER = ["Repetition", "StartBoundary", "Enabled", "RandomDelay"]
NAMESPACE = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"


def test_the_task_of_windows_has_the_elements_of_its_schema() -> None:
    path = "C:\\Users\\Ann & Bob\\AppData\\Local\\c.pyz"
    content = task_xml(Program("C:\\Python\\python.exe", path, "C:\\c.json"), "CORP\\ann")
    assert content.startswith(b"\xff\xfe")  # schtasks reads UTF-16 with its mark
    task = ElementTree.fromstring(content)
    assert [child.tag for child in task] == [NAMESPACE + name for name in TASK]
    [trigger] = task.iter(NAMESPACE + "TimeTrigger")
    assert [child.tag for child in trigger] == [NAMESPACE + name for name in TRIGGER]
    texts = {element.tag[len(NAMESPACE) :]: element.text for element in task.iter()}
    assert texts["UserId"] == "CORP\\ann"
    assert texts["RunLevel"] == "LeastPrivilege"
    assert texts["LogonType"] == "InteractiveToken"
    assert texts["Arguments"] == f'"{path}" --config C:\\c.json run'


@pytest.mark.parametrize(
    ("system", "home", "environment", "state"),
    [
        (LINUX, "/home/ann", {}, "/home/ann/.local/state/"),
        (LINUX, "/home/ann", {"XDG_STATE_HOME": "/state"}, "/state/"),
        (LINUX, "/home/ann", {"XDG_STATE_HOME": "relative"}, "/home/ann/.local/state/"),
        (MACOS, "/Users/ann", {}, "/Users/ann/Library/Application Support/"),
        (WINDOWS, "C:\\Users\\ann", {"LOCALAPPDATA": "D:\\Local"}, "D:\\Local\\"),
        (WINDOWS, "C:\\Users\\ann", {}, "C:\\Users\\ann\\AppData\\Local\\"),
    ],
)
def test_each_system_has_its_folders(
    system: str, home: str, environment: dict[str, str], state: str
) -> None:
    folders = default_folders(system, home, environment)
    assert folders.state == state + "developer-telemetry-collector"


def test_no_timer_has_the_token() -> None:
    assert "token" not in " ".join(ODD.arguments)
