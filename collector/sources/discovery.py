"""Find the git repositories below the roots.

Folders are listed, and of files only `.git` is read, which names the git folder of a work tree.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Dict, List, Optional

from collector.evidence import Repository

# Folders that hold no work of one's own, and may be large.
SKIPPED = frozenset(
    [
        "node_modules",
        "bower_components",
        "vendor",
        "venv",
        "env",
        "site-packages",
        "target",
        "build",
        "dist",
        "out",
        "__pycache__",
        "Library",
        "Applications",
        "AppData",
        "Music",
        "Movies",
        "Pictures",
        "Videos",
        "go/pkg",
        "OneDrive",
        "Dropbox",
    ]
)
MODULES_DEPTH = 4
MOST_FOLDERS = 50000


def find_repositories(roots: Sequence[str], depth: int) -> List[Repository]:
    """Return the repositories below the roots, each once, however many work trees it has."""
    repositories: Dict[str, Repository] = {}
    for root in roots:
        for path in _folders(os.path.abspath(os.path.expanduser(root)), depth):
            git_folder = _git_folder(path)
            if git_folder is None:
                continue
            for repository in _with_submodules(path, git_folder):
                repositories.setdefault(repository.key, repository)
    return sorted(repositories.values())


def _folders(root: str, depth: int) -> Iterator[str]:
    """Yield the root and folders below it; nothing below a repository, nor of another disk."""
    try:
        device = os.stat(root).st_dev
    except OSError:
        return
    waiting = [(root, 0)]
    count = 0
    while waiting and count < MOST_FOLDERS:
        folder, level = waiting.pop()
        count += 1
        yield folder
        if level == depth or (level > 0 and _git_folder(folder) is not None):
            continue
        for entry in _subfolders(folder):
            try:
                if entry.stat(follow_symlinks=False).st_dev in (device, 0):
                    waiting.append((entry.path, level + 1))
            except OSError:
                continue


def _subfolders(folder: str) -> List[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [
                entry
                for entry in entries
                if not entry.name.startswith(".")
                and entry.name not in SKIPPED
                and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return []


def _git_folder(path: str) -> Optional[str]:
    """Return the git folder of a work tree or a bare repository; None if it is neither."""
    inner = os.path.join(path, ".git")
    if os.path.isdir(inner):
        return inner if os.path.exists(os.path.join(inner, "HEAD")) else None
    if os.path.isfile(inner):
        return _linked_folder(inner)
    is_bare = all(os.path.exists(os.path.join(path, name)) for name in ("HEAD", "objects", "refs"))
    return path if is_bare else None


def _linked_folder(file: str) -> Optional[str]:
    """Return the folder that a `.git` file of a linked work tree or a submodule names."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as lines:
            line = lines.read(8192)
    except OSError:
        return None
    if not line.startswith("gitdir:"):
        return None
    folder = os.path.normpath(os.path.join(os.path.dirname(file), line[7:].strip()))
    return folder if os.path.exists(os.path.join(folder, "HEAD")) else None


def common_folder(git_folder: str) -> str:
    """Return the folder that the work trees of a repository have in common."""
    try:
        with open(
            os.path.join(git_folder, "commondir"), encoding="utf-8", errors="surrogateescape"
        ) as file:
            return os.path.normpath(os.path.join(git_folder, file.read(8192).strip()))
    except OSError:
        return git_folder


def _with_submodules(path: str, git_folder: str) -> Iterator[Repository]:
    common = os.path.realpath(common_folder(git_folder))
    yield Repository(common, _name(path, common), _main_path(path, common))
    yield from _modules(os.path.join(common, "modules"), MODULES_DEPTH)


def _modules(folder: str, depth: int) -> Iterator[Repository]:
    for entry in _subfolders(folder) if depth else ():
        if os.path.exists(os.path.join(entry.path, "HEAD")):
            key = os.path.realpath(entry.path)
            yield Repository(key, entry.name, entry.path)
            yield from _modules(os.path.join(entry.path, "modules"), depth - 1)
        else:
            yield from _modules(entry.path, depth - 1)


def _main_path(path: str, common: str) -> str:
    return os.path.dirname(common) if os.path.basename(common) == ".git" else path


def _name(path: str, common: str) -> str:
    """Return the folder name of the main work tree, or that of a bare repository without .git."""
    name = os.path.basename(_main_path(path, common).rstrip(os.sep))
    return name[:-4] if name.endswith(".git") and len(name) > 4 else name
