"""Write docs/commands.md and docs/settings.md from the declarations in the code.

python scripts/reference.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from developer_telemetry.config import SETTINGS

DOCS = Path(__file__).parent.parent / "docs"

_SETTINGS = """\
# Settings

The environment variables of the receiver and of every command. The value of each may be in a file
instead, named by the same variable with the ending `_FILE`. `make reference` writes this page.

| name | default | what for |
| --- | --- | --- |
"""


def settings() -> str:
    """Return the page of all settings."""
    rows = [
        f"| `{item.name}` | {f'`{item.default}`' if item.default else ''} | {item.help} |"
        for item in SETTINGS
    ]
    return _SETTINGS + "\n".join(rows) + "\n"


def commands() -> str:
    """Return the page of all commands, with the texts of `--help`."""
    tool = [sys.executable, "-m", "typer", "developer_telemetry.cli.main", "utils", "docs"]
    name = ["--name", "developer-telemetry", "--title", "Commands"]
    result = subprocess.run([*tool, *name], check=True, capture_output=True, text=True)
    return result.stdout.rstrip() + "\n"


PAGES = {"settings.md": settings, "commands.md": commands}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
