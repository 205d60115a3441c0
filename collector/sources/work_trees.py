"""See when files of work trees and indexes were written, by their times alone."""

from __future__ import annotations

import os
import time
from typing import List

from collector.evidence import Repository
from collector.sources.git import Git, GitFailed, linked_folders

MOST_FILES = 20000


def index_files(repository: Repository) -> List[str]:
    """Return the index of each work tree of a repository."""
    folders = [repository.key, *linked_folders(repository.key)]
    return [os.path.join(folder, "index") for folder in folders]


def work_trees(repository: Repository) -> List[str]:
    """Return the work trees of a repository; none of a bare one."""
    folders = []
    if os.path.exists(os.path.join(repository.path, ".git")):
        folders.append(repository.path)
    for linked in linked_folders(repository.key):
        try:
            path = os.path.join(linked, "gitdir")
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                folders.append(os.path.dirname(file.read(8192).strip()))
        except OSError:
            continue
    return folders


def written_times(git: Git, folder: str, after: float, now: float) -> List[float]:
    """Return when tracked or new files of a work tree were written, later than a time.

    git lists the names; no file is opened.

    Raises:
        GitFailed: git can't read the repository.
    """
    listed = git.run(
        _git_folder(folder),
        *("--work-tree", folder, "-C", folder, "ls-files", "-z", "--cached", "--others"),
        *("--exclude-standard", "--directory", "--no-empty-directory"),
    )
    times = []
    root = os.fsencode(folder)
    for name in listed.split(b"\0")[:MOST_FILES]:
        try:
            written = os.lstat(os.path.join(root, name)).st_mtime if name else 0.0
        except OSError:
            continue
        if after < written <= now:
            times.append(written)
    return times


def _git_folder(folder: str) -> str:
    path = os.path.join(folder, ".git")
    if os.path.isdir(path):
        return path
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return os.path.normpath(os.path.join(folder, file.read(8192)[7:].strip()))
    except OSError:
        raise GitFailed("its work tree is gone") from None


class Budget:
    """A limit of time that the repositories of a run share."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def is_spent(self) -> bool:
        """Return true once the time is over."""
        return time.monotonic() >= self._end
