"""The folders of the collector on three systems.

They are computed as text with the rules of the system in question, so that the paths of any
system can be computed on any other.
"""

from __future__ import annotations

import ntpath
import os
import posixpath
import sys
from collections.abc import Mapping
from typing import NamedTuple

from collector.version import NAME

LINUX, MACOS, WINDOWS = "linux", "macos", "windows"
PROGRAM_FILE = NAME + ".pyz"
CONFIG_FILE = "config.json"


class Folders(NamedTuple):
    """The three folders; on macOS and Windows they are one."""

    config: str
    program: str
    state: str


def this_system() -> str:
    """Return which of the three systems this is; any other Unix counts as Linux."""
    if sys.platform == "win32":
        return WINDOWS
    return MACOS if sys.platform == "darwin" else LINUX


def default_folders(system: str, home: str, environment: Mapping[str, str]) -> Folders:
    """Return the folders for a home and an environment."""
    if system == WINDOWS:
        local = environment.get("LOCALAPPDATA") or ntpath.join(home, "AppData", "Local")
        return Folders(*[ntpath.join(local, NAME)] * 3)
    if system == MACOS:
        return Folders(*[posixpath.join(home, "Library", "Application Support", NAME)] * 3)

    def folder(variable: str, usual: str) -> str:
        base = environment.get(variable, "")
        # The specification of these variables has a relative path ignored.
        return posixpath.join(base if base.startswith("/") else posixpath.join(home, usual), NAME)

    return Folders(
        folder("XDG_CONFIG_HOME", ".config"),
        folder("XDG_DATA_HOME", ".local/share"),
        folder("XDG_STATE_HOME", ".local/state"),
    )


def home_folder() -> str:
    """Return the home of the user that runs this."""
    return os.path.expanduser("~")
