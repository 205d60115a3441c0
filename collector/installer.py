"""Install the collector for one user, and remove all of it again."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from typing import List, NamedTuple

from collector.errors import CollectorError
from collector.paths import CONFIG_FILE, PROGRAM_FILE, Folders
from collector.settings import Settings, read_settings, write_private, write_settings
from collector.store import Store
from collector.timers.base import Program, Timer
from collector.timers.choice import choose_timer
from collector.version import NAME


class Machine(NamedTuple):
    """Where things are on this machine."""

    system: str
    home: str
    folders: Folders
    environment: Mapping[str, str]
    timers: List[Timer]

    @property
    def config(self) -> str:
        """Return the file of settings."""
        return os.path.join(self.folders.config, CONFIG_FILE)

    @property
    def program(self) -> str:
        """Return the installed zipapp."""
        return os.path.join(self.folders.program, PROGRAM_FILE)


def install(machine: Machine, settings: Settings, with_timer: bool) -> Settings:
    """Copy the zipapp, write the settings, and turn the timer on.

    What an earlier installation has set and this one does not name stays, except the token.
    """
    archive = running_archive()
    timer = choose_timer(machine.timers) if with_timer else None
    settings = _with_earlier(machine, settings)
    settings = settings._replace(
        program=machine.program,
        state=machine.folders.state,
        name_salt=settings.name_salt or secrets.token_hex(16),
        page_secret=settings.page_secret or secrets.token_hex(32),
        histories=_histories(machine.environment, settings.histories),
    )
    if os.path.abspath(archive) != os.path.abspath(machine.program):
        with open(archive, "rb") as file:
            write_private(machine.program, file.read())
    write_settings(machine.config, settings)
    _allow_retries(settings)
    for other in machine.timers:
        if other is not timer:
            remove_timer(machine, other)
    if timer is not None:
        # The interpreter of a virtual environment would go with it.
        python = getattr(sys, "_base_executable", "") or sys.executable
        program = Program(python, machine.program, machine.config)
        for path, content in timer.files(program):
            write_private(path, content)
        timer.turn_on(program)
    return settings


def _allow_retries(settings: Settings) -> None:
    store = Store(settings.state)
    try:
        with store.transaction():
            store.allow_retries()
            store.set_meta("hold", "")
    finally:
        store.close()


def running_archive() -> str:
    """Return the zipapp that this is.

    Raises:
        CollectorError: this is a folder of sources.
    """
    path = sys.argv[0]
    if not zipfile.is_zipfile(path):
        raise CollectorError("this is not the zipapp; `make collector` builds it")
    return path


def _with_earlier(machine: Machine, settings: Settings) -> Settings:
    try:
        earlier = read_settings(machine.config)
    except CollectorError:
        return settings
    usual = Settings("")
    unset = {
        name: getattr(earlier, name)
        for name in Settings._fields
        if getattr(settings, name) == getattr(usual, name) and name != "token"
    }
    return settings._replace(**unset)


def _histories(environment: Mapping[str, str], named: List[str]) -> List[str]:
    """Return the histories to read besides the usual ones."""
    histories = list(named)
    file = environment.get("HISTFILE", "")
    if os.path.isabs(file) and file not in histories:
        histories.append(file)
    if os.path.isabs(environment.get("ZDOTDIR", "")):
        histories.append(os.path.join(environment["ZDOTDIR"], ".zsh_history"))
    return sorted(set(histories))


def remove_timer(machine: Machine, timer: Timer) -> None:
    """Turn a timer off and delete its files."""
    timer.turn_off()
    for path, _ in timer.files(Program("", "", "")):
        _delete(path)
        _delete_empty_folders(os.path.dirname(path), machine.home)


def uninstall(machine: Machine) -> List[str]:
    """Remove the timer, the settings, the program and the stored days; return what is left."""
    paths = set(machine.folders)
    with suppress(CollectorError):
        paths.add(read_settings(machine.config).state)
    for timer in machine.timers:
        remove_timer(machine, timer)
    folders = sorted(path for path in paths if os.path.basename(path) == NAME)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        _delete_empty_folders(os.path.dirname(folder), machine.home)
    return [folder for folder in folders if os.path.exists(folder)]


def _delete(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)


def _delete_empty_folders(folder: str, home: str) -> None:
    """Delete folders below the home that are empty; those above hold something."""
    home = os.path.abspath(home)
    while os.path.abspath(folder).startswith(home + os.sep):
        try:
            os.rmdir(folder)
        except OSError:
            return
        folder = os.path.dirname(folder)
