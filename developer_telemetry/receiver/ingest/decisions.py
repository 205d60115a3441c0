"""An operator's decisions about a spool that a running receiver holds: files in its folder."""

from __future__ import annotations

import time
from pathlib import Path

from developer_telemetry.errors import ConfigurationError
from developer_telemetry.private_files import make_file

_DROP = "drop-connection-"
POLL_SECONDS = 0.1


class Decisions:
    """The decisions about the spool in `folder`, as its receiver reads them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def list_connections_to_drop(self) -> list[int]:
        """Return the connections whose waiting reports are to be deleted."""
        names = [path.name[len(_DROP) :] for path in self._folder.glob(f"{_DROP}*")]
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def done(self, connection_id: int) -> None:
        """Take note that a decision was carried out, or does not apply any more."""
        (self._folder / f"{_DROP}{connection_id}").unlink(missing_ok=True)


def ask_to_drop(folder: Path, connection_id: int, seconds: float) -> bool:
    """Have the receiver delete what waits for a connection; return true once it has.

    Returns false if it has not within `seconds`; it does so later then.
    """
    request = folder / f"{_DROP}{connection_id}"
    try:
        make_file(request)
    except OSError as error:
        raise ConfigurationError(
            f"can't write {request} ({error.strerror}); run this as the receiver's user"
        ) from None
    ends_at = time.monotonic() + seconds
    while request.exists():
        if time.monotonic() > ends_at:
            return False
        time.sleep(POLL_SECONDS)
    return True
