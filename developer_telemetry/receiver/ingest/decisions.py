"""An operator's decisions about a spool that a running receiver holds: empty files in its folder.

Their names say all, so that the receiver need not be allowed to read what another user has written.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from developer_telemetry.errors import ConfigurationError
from developer_telemetry.private_files import make_file

_DROP = "drop-connection-"
_RETRY_LETTER = "retry-dead-letter-"
_DROP_LETTER = "drop-dead-letter-"
POLL_SECONDS = 0.1


class Decisions:
    """The decisions about the spool in `folder`, as its receiver reads them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def list_connections_to_drop(self) -> list[int]:
        """Return the connections whose waiting reports are to be deleted."""
        names = self._list_names(_DROP)
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def done(self, connection_id: int) -> None:
        """Take note that a decision was carried out, or does not apply any more."""
        (self._folder / f"{_DROP}{connection_id}").unlink(missing_ok=True)

    def list_letters_to_retry(self) -> list[str]:
        """Return the ids of dead letters that are to be stored again."""
        return self._list_names(_RETRY_LETTER)

    def list_letters_to_drop(self) -> list[str]:
        """Return the ids of dead letters that are to be deleted."""
        return self._list_names(_DROP_LETTER)

    def done_letters(self, report_ids: Iterable[str]) -> None:
        """Take note that the decisions about dead letters were carried out."""
        for report_id in report_ids:
            for prefix in (_RETRY_LETTER, _DROP_LETTER):
                (self._folder / f"{prefix}{report_id}").unlink(missing_ok=True)

    def _list_names(self, prefix: str) -> list[str]:
        return sorted(path.name[len(prefix) :] for path in self._folder.glob(f"{prefix}*"))


def ask_to_drop(folder: Path, connection_id: int, seconds: float) -> bool:
    """Have the receiver delete what waits for a connection; return true once it has.

    Returns false if it has not within `seconds`; it does so later then.
    """
    return _ask(folder, [f"{_DROP}{connection_id}"], seconds)


def ask_about_letters(
    folder: Path, report_ids: Sequence[str], is_retry: bool, seconds: float
) -> bool:
    """Have the receiver retry or else delete dead letters; return true once it has begun.

    Returns false if it has not within `seconds`; it does so later then.
    """
    prefix = _RETRY_LETTER if is_retry else _DROP_LETTER
    return _ask(folder, [f"{prefix}{report_id}" for report_id in report_ids], seconds)


def _ask(folder: Path, names: Iterable[str], seconds: float) -> bool:
    requests = [folder / name for name in names]
    for request in requests:
        try:
            make_file(request)
        except OSError as error:
            raise ConfigurationError(
                f"can't write {request} ({error.strerror}); run this as the receiver's user"
            ) from None
    ends_at = time.monotonic() + seconds
    while requests := [request for request in requests if request.exists()]:
        if time.monotonic() > ends_at:
            return False
        time.sleep(POLL_SECONDS)
    return True
