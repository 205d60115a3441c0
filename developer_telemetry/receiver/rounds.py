"""What a receiver does again and again beside its requests."""

from __future__ import annotations

import threading


class Rounds:
    """A thread that goes its rounds, as `_run` says, until it is told to end."""

    def __init__(self, name: str) -> None:
        self._ending = threading.Event()
        # A daemon, since a database that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End after what is at hand, and wait for that for so many seconds."""
        self._ending.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        """Until `_ending` is set, which to wait for is the pause between two rounds."""
        raise NotImplementedError
