"""The plugin in a folder as DevLake calls it, on the SDK of the tests' environment."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def plugin_folder() -> Path:
    """Make a folder with run.sh, the package, and this process's environment.

    In the clone itself build.sh may have left an environment for DevLake, with another SDK.
    """
    place = tempfile.mkdtemp(prefix="plugins-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    folder = Path(place) / "developer_telemetry"
    folder.mkdir()
    shutil.copy(ROOT / "run.sh", folder)
    (folder / "developer_telemetry").symlink_to(ROOT / "developer_telemetry")
    (folder / ".venv-plugin").symlink_to(sys.prefix)
    return folder
