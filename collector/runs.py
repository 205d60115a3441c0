"""A run: collect what is new, and send what is due."""

from __future__ import annotations

import os
import time
from typing import Optional

from collector.collecting import Collection
from collector.figures import Identity
from collector.run_lock import run_lock
from collector.sender import Sender, poster
from collector.settings import Settings
from collector.sources.git import Git, find_git
from collector.store import Store

LOCK_FILE = "run.lock"


def lock_path(settings: Settings) -> str:
    """Return the file of the lock; its time is that of the last run."""
    os.makedirs(settings.state, mode=0o700, exist_ok=True)
    return os.path.join(settings.state, LOCK_FILE)


def last_run(settings: Settings) -> float:
    """Return when the last run collected, in seconds; 0 for never."""
    try:
        status = os.stat(lock_path(settings))
    except OSError:
        return 0.0
    return status.st_mtime if status.st_size else 0.0


def run_once(settings: Settings, now: Optional[float] = None, sends: bool = True) -> None:
    """Run, unless it is paused.

    Raises:
        AnotherRun: another run is under way.
    """
    before = last_run(settings)
    with run_lock(lock_path(settings)):
        now = time.time() if now is None else now
        store = Store(settings.state)
        try:
            if store.paused_until(now) is not None:
                return
            Collection(store, settings, before, now).run()
            _note_run(settings, now)
            if sends:
                make_sender(store, settings, now).run()
        finally:
            store.close()


def send_now(settings: Settings, now: float) -> None:
    """Send all days that wait.

    Raises:
        AnotherRun: a run is under way.
    """
    with run_lock(lock_path(settings)):
        store = Store(settings.state)
        try:
            make_sender(store, settings, now).run(at_once=True)
        finally:
            store.close()


def _note_run(settings: Settings, now: float) -> None:
    """Note the time without a write that waits for the disk."""
    path = lock_path(settings)
    if not os.stat(path).st_size:
        with open(path, "wb") as file:
            file.write(b"The time of this file is that of the last run.\n")
    os.utime(path, (now, now))


def make_sender(store: Store, settings: Settings, now: float) -> Sender:
    """Return what sends the days of a store."""
    return Sender(store, settings, read_identity(settings), poster(settings), now)


def read_identity(settings: Settings) -> Identity:
    """Return the person of the reports; git's own settings fill what `install` did not name."""
    program = find_git()
    git = Git(program) if program else None
    email = settings.emails[0] if settings.emails else ""
    return Identity(
        settings.developer,
        email or (git.global_setting("user.email") if git else ""),
        settings.name or (git.global_setting("user.name") if git else ""),
        settings.page_key,
    )
