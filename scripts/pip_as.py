"""Let pip resolve requirements for another Python.

    python scripts/pip_as.py 3.9.2 . ./sdk [more of `pip install`'s arguments]

Nothing is installed. pip's own --python-version selects the wheels, but evaluates environment
markers (`python_version < "3.11"`) for the running Python; here they are evaluated for the other.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from pip._internal.cli.main import main
from pip._vendor.packaging import markers

version, *arguments = sys.argv[1:]
running: Any = markers.default_environment


def target_environment() -> Any:
    major_minor = ".".join(version.split(".")[:2])
    return {**running(), "python_version": major_minor, "python_full_version": version}


markers.default_environment = target_environment

with tempfile.TemporaryDirectory() as target:
    status = main(
        [
            "install",
            "--dry-run",
            "--ignore-installed",
            "--only-binary=:all:",
            f"--python-version={version}",
            f"--target={target}",
            *arguments,
        ]
    )
sys.exit(status)
