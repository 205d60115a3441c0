"""The settings of an installed collector: one JSON file that its user alone can read."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import tempfile
from typing import Any, List, NamedTuple
from urllib.parse import urlsplit

from collector.errors import CollectorError

REPORT_PATH = re.compile(
    r"(/plugins/developer-telemetry/[0-9]+|/plugins/developer_telemetry/connections/[0-9]+)/report$"
)

# The receiver has the same: a short number could be a part of another report by chance.
LEAST_NUMBER = 10**10


class Settings(NamedTuple):
    """The settings that `install` and `exclude` write."""

    url: str
    token: str = ""
    developer: str = ""
    emails: List[str] = []
    name: str = ""
    roots: List[str] = []
    depth: int = 4
    histories: List[str] = []
    # Repositories, by a path or by a folder's name, whose work is left out.
    excluded: List[str] = []
    # Repositories whose names are replaced.
    hidden: List[str] = []
    name_salt: str = ""
    # Known to this machine alone; its hash, the page key, is in each report.
    page_secret: str = ""
    ca_file: str = ""
    proxy: str = ""
    program: str = ""
    state: str = ""

    @property
    def page_key(self) -> List[int]:
        """Return the hash of the page secret: numbers, which no setting of a receiver changes."""
        if not self.page_secret:
            return []
        parts = struct.unpack(">4I", hashlib.sha256(self.page_secret.encode("utf-8")).digest()[:16])
        return [LEAST_NUMBER + part for part in parts]


def check_url(url: str) -> str:
    """Return a report URL that reports can be sent to.

    Raises:
        CollectorError: it is not one.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CollectorError(
            f"{url!r} is not an http or https URL; copy the URL that `connect` or the page shows"
        )
    if parts.username or parts.password:
        raise CollectorError("the URL holds a password; pass the token with --token-stdin instead")
    if parts.query or parts.fragment or not REPORT_PATH.search(parts.path):
        raise CollectorError(
            f"{url!r} is not a report URL, which ends with"
            " /plugins/developer-telemetry/NUMBER/report"
        )
    return url.strip()


def check_token(token: str) -> str:
    """Return a token that fits into a header.

    Raises:
        CollectorError: it does not.
    """
    token = token.strip()
    if not re.fullmatch(r"[!-~]*", token):
        raise CollectorError("a token has letters, digits and punctuation of ASCII, no spaces")
    return token


def read_settings(path: str) -> Settings:
    """Return the settings in a file.

    Raises:
        CollectorError: there is no such file, or it is damaged.
    """
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
        usual = Settings("")
        known_values = {
            name: _checked(name, value, getattr(usual, name))
            for name, value in values.items()
            if name in Settings._fields
        }
        return Settings(**known_values)
    except FileNotFoundError:
        raise CollectorError("the collector is not installed here; run its `install`") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CollectorError(f"{path} can't be read: {error}; run `install` again") from None


def _checked(name: str, value: Any, usual: Any) -> Any:
    if not isinstance(value, type(usual)):
        raise ValueError(f"{name} is not {type(usual).__name__}")
    return value


def write_settings(path: str, settings: Settings) -> None:
    """Replace the file of settings at once; only its owner can read it, at any moment."""
    text = json.dumps(settings._asdict(), indent=2, sort_keys=True) + "\n"
    write_private(path, text.encode("utf-8"))


def write_private(path: str, content: bytes) -> None:
    """Replace a file by one of mode 0600, durably; its folder is made with mode 0700."""
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    number, temporary = tempfile.mkstemp(dir=folder, prefix=".new-")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
