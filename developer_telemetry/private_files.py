"""Files and folders that only their owner may read, from their first byte.

A new file is made exclusively, with its mode set before a byte is written, under any umask. A link
that another user has put in the place of our file is never followed.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from developer_telemetry.errors import ConfigurationError

FILE_MODE = 0o600
FOLDER_MODE = 0o700

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Paths there lead to devices and open files, which are written to as they are.
_DEVICES = ("/dev/", "/proc/")

logger = logging.getLogger(__name__)
# Closing a file ends every lock of the process on it, so no other thread may open it meanwhile.
_making = threading.Lock()


def make_folder(path: Path, contents: Sequence[str]) -> None:
    """Make a private folder; make the files of ours private in one that is there.

    The folder itself becomes private, too, if there is nothing else in it.

    Args:
        path: Folders above it are made with the default mode.
        contents: The beginnings of the names of our own files in it.

    Raises:
        OSError: The file or folder can't be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        if not path.is_dir():
            raise
        names = os.listdir(path)
        ours = [name for name in names if name.startswith(tuple(contents))]
        if len(ours) == len(names):
            _tighten(path, FOLDER_MODE)
        for file in map(path.joinpath, ours):
            if file.is_file():
                make_private(file)
    else:
        path.chmod(FOLDER_MODE)


def make_file(path: Path) -> None:
    """Make an empty private file, or make one private that is there; its content stays.

    A file that is there is not opened, which would end the locks that SQLite has on it.

    Raises:
        ConfigurationError: Another user has put a link there.
        OSError: The file or folder can't be made.
    """
    target = _followed(path)
    with _making:
        try:
            os.close(_new(target))
        except FileExistsError:
            _tighten(target, FILE_MODE)


def make_private(path: Path) -> None:
    """Make a file private if it is there."""
    with suppress(FileNotFoundError):
        _tighten(_followed(path), FILE_MODE)


def open_new(path: Path) -> IO[bytes]:
    """Open a new private file for writing, replacing an old one; a device is opened as it is.

    Raises:
        OSError: The file or folder can't be made.
    """
    if is_device(path):
        return open(path, "ab")
    with suppress(FileNotFoundError):
        path.unlink()
    return os.fdopen(_new(path), "wb")


@contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a private file that replaces `path`, synced, at the end of the block.

    If the block fails, the old file stays. A link is replaced, not its target.

    Raises:
        OSError: The file can't be made or renamed.
    """
    draft = path.with_name(f"{path.name[:40]}.{secrets.token_hex(4)}.part")
    with os.fdopen(_new(draft), "wb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def is_device(path: Path) -> bool:
    """Tell whether a path leads to a device, a pipe or an open file, not to a file of its own."""
    return os.path.abspath(path).startswith(_DEVICES) or (
        path.exists() and not path.is_file() and not path.is_dir()
    )


def _new(path: Path) -> int:
    descriptor = os.open(path, _NEW, FILE_MODE)
    os.fchmod(descriptor, FILE_MODE)  # the umask may have taken from it
    return descriptor


def _followed(path: Path) -> Path:
    """Return the file that a path names; only links of our own or root's are followed."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return path
    if not stat.S_ISLNK(status.st_mode):
        return path
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(
            f"{path} is a link that another user made; see where it leads, and remove it"
        )
    return Path(os.path.realpath(path))


def _tighten(path: Path, mode: int) -> None:
    status = path.lstat()
    is_ours = status.st_uid == os.geteuid() and not stat.S_ISLNK(status.st_mode)
    if not is_ours or not status.st_mode & 0o077:
        return
    path.chmod(mode)
    logger.warning(
        "%s could be read by others (its mode was %o); now it is private",
        path,
        stat.S_IMODE(status.st_mode),
    )
