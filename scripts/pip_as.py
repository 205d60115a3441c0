"""Let pip work out what it would install under another Python.

    python scripts/pip_as.py 3.9.2 . ./sdk [more of `pip install`'s arguments]

Nothing gets installed. pip's own --python-version picks the wheels, but reads environment markers
(`python_version < "3.11"`) as the Python that runs it; here they are read as the one asked for.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from pip._internal.cli.main import main
from pip._vendor.packaging import markers

version, *arguments = sys.argv[1:]
running: Any = markers.default_environment


def asked_for() -> Any:
    major_minor = ".".join(version.split(".")[:2])
    return {**running(), "python_version": major_minor, "python_full_version": version}


markers.default_environment = asked_for

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
