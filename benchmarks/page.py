"""Write docs/benchmarks.md, where each benchmark has a section."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"

_INTRODUCTION = """# Benchmarks

Written by `make bench`. The machine ran client, receiver and database together and may have had
other work to do, so absolute figures are noisy; compare ratios, whose two sides were measured
within the same minutes.
"""
_PACKAGES = (
    "SQLAlchemy",
    "uvicorn",
    "uvloop",
    "starlette",
    "msgspec",
    "mysqlclient",
    "PyMySQL",
    "psycopg",
    "sqlmodel",
    "pydantic",
)


def put(path: Path, title: str, text: str) -> None:
    """Put a section into the page in place of the one with the same title."""
    page = path.read_text(encoding="utf-8") if path.exists() else _INTRODUCTION
    section = f"## {title}\n\n{machine()}\n\n{text.strip()}\n"
    position = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    if position:
        remainder = page[position.end() :]
        page = page[: position.start()] + section + ("\n" + remainder if remainder else "")
    else:
        page = page.rstrip() + "\n\n" + section
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; all columns but the first hold numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def machine() -> str:
    """Return date, machine and versions as a sentence."""
    today = datetime.now(timezone.utc).date().isoformat()
    packages = ", ".join(f"{name} {results}" for name in _PACKAGES if (results := _version(name)))
    return (
        f"Measured on {today}: {os.cpu_count()} cores ({_processor()}), {platform.system()}"
        f" {platform.release()}, Python {platform.python_version()}, {packages}."
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
