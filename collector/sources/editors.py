"""See when editors have written their lists of recent files, by the times of these files alone."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from typing import List, NamedTuple

from collector.paths import LINUX, MACOS


class Sign(NamedTuple):
    """A file that an editor writes when its user saves or opens a file."""

    path: str
    tool: str
    written: float


# An editor's folder below that of applications' settings; each saved file has a folder in it.
CODE_EDITORS = {
    "Code": "vscode",
    "Code - Insiders": "vscode",
    "VSCodium": "vscode",
    "Cursor": "cursor",
    "Windsurf": "windsurf",
}
JETBRAINS = {
    "IntelliJIdea": "intellij",
    "IdeaIC": "intellij",
    "PyCharm": "pycharm",
    "GoLand": "goland",
    "WebStorm": "webstorm",
    "PhpStorm": "phpstorm",
    "RubyMine": "rubymine",
    "CLion": "clion",
    "Rider": "rider",
    "RustRover": "rustrover",
    "AndroidStudio": "android-studio",
}


def recent_signs(
    system: str, home: str, environment: Mapping[str, str], since: float
) -> Iterator[Sign]:
    """Yield the newest sign of each editor, if it was written since a time."""
    settings, caches = _application_folders(system, home, environment)
    for name, tool in CODE_EDITORS.items():
        yield from _newest(
            _saved_files(os.path.join(settings, name, "User", "History")), tool, since
        )
    for folder in _subfolders(os.path.join(caches, "JetBrains")):
        names = (
            tool for name, tool in JETBRAINS.items() if os.path.basename(folder).startswith(name)
        )
        tool = next(names, "")
        if tool:
            changes = os.path.join(glob.escape(folder), "LocalHistory", "changes.storage*")
            yield from _newest(glob.glob(changes), tool, since)
    state = environment.get("XDG_STATE_HOME") or os.path.join(home, ".local", "state")
    vim = [os.path.join(home, ".viminfo"), os.path.join(home, "_viminfo")]
    vim += [os.path.join(state, "nvim", "shada", "main.shada")]
    yield from _newest(vim, "vim", since)
    emacs = os.path.join(home, ".emacs.d")
    yield from _newest(
        [os.path.join(emacs, "recentf"), os.path.join(emacs, ".recentf")], "emacs", since
    )


def _application_folders(system: str, home: str, environment: Mapping[str, str]) -> tuple[str, str]:
    if system == MACOS:
        library = os.path.join(home, "Library")
        return os.path.join(library, "Application Support"), os.path.join(library, "Caches")
    if system == LINUX:
        return (
            environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"),
            environment.get("XDG_CACHE_HOME") or os.path.join(home, ".cache"),
        )
    return environment.get("APPDATA", ""), environment.get("LOCALAPPDATA", "")


def _saved_files(history: str) -> List[str]:
    """Return the folders of saved files; each save writes into the folder of its file."""
    return _subfolders(history)


def _subfolders(folder: str) -> List[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _newest(paths: List[str], tool: str, since: float) -> Iterator[Sign]:
    newest = None
    for path in paths:
        try:
            written = os.stat(path).st_mtime
        except OSError:
            continue
        if written >= since and (newest is None or written > newest.written):
            newest = Sign(path, tool, written)
    if newest is not None:
        yield newest
