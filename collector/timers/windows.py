"""A task of the Windows Task Scheduler."""

from __future__ import annotations

import ntpath
import os
import subprocess
import xml.sax.saxutils
from typing import List, Tuple

from collector.timers.base import DELAY_SECONDS, MINUTES, Program, Timer, call, call_or_fail
from collector.version import NAME

# The order of elements is that of the schema.
TASK = """\
<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>Report this developer's day to DevLake</Description>
  </RegistrationInfo>
  <Triggers>
    <TimeTrigger>
      <Repetition>
        <Interval>PT{minutes}M</Interval>
        <StopAtDurationEnd>false</StopAtDurationEnd>
      </Repetition>
      <StartBoundary>2020-01-01T00:00:00</StartBoundary>
      <Enabled>true</Enabled>
      <RandomDelay>PT{delay}S</RandomDelay>
    </TimeTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author">
      <UserId>{user}</UserId>
      <LogonType>InteractiveToken</LogonType>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <StartWhenAvailable>true</StartWhenAvailable>
    <IdleSettings>
      <StopOnIdleEnd>false</StopOnIdleEnd>
      <RestartOnIdle>false</RestartOnIdle>
    </IdleSettings>
    <Hidden>true</Hidden>
    <ExecutionTimeLimit>PT15M</ExecutionTimeLimit>
    <Priority>9</Priority>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>{command}</Command>
      <Arguments>{arguments}</Arguments>
    </Exec>
  </Actions>
</Task>
"""


def windowless(python: str) -> str:
    """Return the interpreter that opens no window, if it is beside this one."""
    folder, name = ntpath.split(python)
    candidate = ntpath.join(folder, "pythonw.exe")
    is_usual = name.lower() in ("python.exe", "python3.exe")
    return candidate if is_usual and os.path.exists(candidate) else python


def task_xml(program: Program, user: str) -> bytes:
    """Return the task in the encoding that `schtasks /xml` reads."""
    escape = xml.sax.saxutils.escape
    command, *arguments = program.arguments
    text = TASK.format(
        minutes=MINUTES,
        delay=DELAY_SECONDS,
        user=escape(user),
        command=escape(windowless(command)),
        arguments=escape(subprocess.list2cmdline(arguments)),
    )
    return text.replace("\n", "\r\n").encode("utf-16")


class WindowsTimer(Timer):
    """A task of the user, registered from a file."""

    description = "scheduled task"

    def __init__(self, folder: str) -> None:
        self._path = ntpath.join(folder, "task.xml")

    def is_available(self) -> bool:
        return True

    def files(self, program: Program) -> List[Tuple[str, bytes]]:
        domain, user = os.environ.get("USERDOMAIN", ""), os.environ.get("USERNAME", "")
        return [(self._path, task_xml(program, domain + "\\" + user if domain else user))]

    def turn_on(self, program: Program) -> None:
        call_or_fail(["schtasks", "/create", "/f", "/tn", NAME, "/xml", self._path])

    def turn_off(self) -> None:
        call("schtasks", "/delete", "/f", "/tn", NAME)

    def is_on(self) -> bool:
        return call("schtasks", "/query", "/tn", NAME).returncode == 0
