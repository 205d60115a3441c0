"""Virtual environments, and test runs in them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from conformance.outcomes import Unmet

ROOT = Path(__file__).parent.parent
# Dependencies of the genuine SDK for a debugger alone; and pytest, which its testing helpers
# import: the pinned release can't run some of our tests.
NOT_PINNED = {"python", "pydevd-pycharm", "pytest"}
NEEDS_HEADERS = (
    "The genuine SDK speaks to MySQL by mysqlclient alone, which is built with the client's C"
    " headers: install those (on Debian libmariadb-dev and pkg-config) and try again."
)
# Further dependencies of the plugin and of our tests.
OURS = ["msgspec", "cryptography"]
TEST_TOOLS = [
    *("httpx", "hypothesis", "psycopg[binary]", "PyMySQL"),
    *("pytest", "pytest-timeout", "sqlglot"),
]


class Tests(NamedTuple):
    """The outcome of a run of pytest: counts, and failed and skipped tests with their reasons."""

    counts: Counter[str]
    failed: list[str]
    skipped: list[str]

    def __str__(self) -> str:
        counts = [f"{self.counts[item]} {item}" for item in ("passed", "failed", "skipped")]
        return ", ".join(item for item in counts if not item.startswith("0 "))


def genuine_environment(sdk: Path, made_by: Path, folder: Path) -> Path:
    """Make an environment with the genuine SDK on its pinned versions; return its Python.

    Raises:
        Unmet: if pip can't install it.
    """
    subprocess.run([made_by, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    pins = _pins(sdk)
    _pip(python, "wheel", "setuptools<70")  # which the build of older drivers needs
    try:
        _pip(python, f"mysqlclient=={pins.pop('mysqlclient')}")
    except Unmet as reason:
        raise Unmet(f"{reason}\n{NEEDS_HEADERS}") from None
    try:
        _pip(python, f"psycopg2=={pins.pop('psycopg2')}")
    except Unmet:
        _pip(python, "psycopg2-binary")  # the same without C headers
    _pip(python, *(f"{name}=={version}" for name, version in pins.items()), *OURS, *TEST_TOOLS)
    # By its path, since an installation would write into the checkout.
    packages = Path(_output(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    (packages / "genuine-pydevlake.pth").write_text(f"{sdk}\n")
    return python


def _pins(sdk: Path) -> dict[str, str]:
    """Return the versions of the SDK's dependencies in its lock file.

    And what those do not run without at that very version: pydantic 1.10.7 fails on today's
    typing-extensions, and sqlmodel 0.0.8 on SQLAlchemy 2.
    """
    section = re.search(
        r"^\[tool\.poetry\.dependencies\]\n(.*?)(?=^\[)",
        (sdk / "pyproject.toml").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    locked = dict(
        re.findall(r'^name = "(.*)"\nversion = "(.*)"$', (sdk / "poetry.lock").read_text(), re.M)
    )
    names = re.findall(r"^([\w-]+) *=", section[1] if section else "", re.MULTILINE)
    wanted = [*(name.lower() for name in names), "sqlalchemy", "typing-extensions"]
    return {name: locked[name] for name in wanted if name in locked and name not in NOT_PINNED}


def _pip(python: Path, *packages: str) -> None:
    command = [
        str(python),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        "install",
        *packages,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or ["(no reason)"]
        raise Unmet(f"pip can't install {' '.join(packages)}: {lines[0]}")


def _output(python: Path, *arguments: str) -> str:
    command = [str(python), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def versions(python: Path, names: Sequence[str]) -> str:
    """Return the versions of Python and of these distributions in an environment."""
    code = (
        "import json, sys, importlib.metadata as m\n"
        "found = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        "print(json.dumps([sys.version.split()[0], found]))"
    )
    release, results = json.loads(_output(python, "-c", code))
    listed = [f"{name} {results[name.lower()]}" for name in names if name.lower() in results]
    return ", ".join([f"Python {release}", *listed])


def run_tests(
    python: Path, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Tests:
    """Run pytest in a folder.

    :raises Unmet: it ran no test; the message ends with what it said.
    """
    with tempfile.TemporaryDirectory() as position:
        report = Path(position) / "report.xml"
        command = [
            str(python),
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
        ]
        done = subprocess.run(
            [*command, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode not in (0, 1) or not report.exists():
            raise Unmet(
                f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-1500:]}"
            )
        return _read(report)


def _read(report: Path) -> Tests:
    counts: Counter[str] = Counter()
    failed: list[str] = []
    skipped: list[str] = []
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            counts["failed"] += 1
            failed.append(name)
        elif (skip := case.find("skipped")) is not None:
            counts["skipped"] += 1
            skipped.append(f"{name} ({skip.get('message')})")
        else:
            counts["passed"] += 1
    return Tests(counts, failed, skipped)
