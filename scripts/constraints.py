"""Write constraints.txt: the versions of all packages in .venv, for each Python that we support.

A package with different versions for different Pythons has several lines with markers.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
OURS = {"devlake-developer-telemetry", "pydevlake"}
PYTHONS = {
    "3.9": "3.9.2",  # some wheels exclude 3.9.0 and 3.9.1
    "3.10": "3.10.0",
    "3.11": "3.11.0",
    "3.12": "3.12.0",
    "3.13": "3.13.0",
}
HEAD = """\
# What .venv holds, exactly. Made by `make constraints`; not to be edited.
"""


def main() -> None:
    results: dict[str, dict[str, str]] = {}
    for python, release in PYTHONS.items():
        print(f"resolving for Python {python}", flush=True)
        for name, version in resolve(release).items():
            results.setdefault(name, {})[python] = version
    lines = [line for name in sorted(results) for line in constraints(name, results[name])]
    (ROOT / "constraints.txt").write_text(HEAD + "\n".join(lines) + "\n")


def resolve(release: str) -> dict[str, str]:
    """Return the present versions of all distributions for a Python, by normalized name."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run(
            [
                sys.executable,
                str(ROOT / "scripts/pip_as.py"),
                release,
                "--quiet",
                f"--report={report}",
                "--no-build-isolation",
                "pip",
                "hatchling",
                "editables",
                "./sdk",
                ".[receiver,dev]",
            ],
            cwd=ROOT,
            check=True,
        )
        installs = json.loads(report.read_text())["install"]
    versions = {
        re.sub(r"[-_.]+", "-", install["metadata"]["name"]).lower(): install["metadata"]["version"]
        for install in installs
    }
    return {name: version for name, version in versions.items() if name not in OURS}


def constraints(name: str, versions: dict[str, str]) -> list[str]:
    """Return one line if all Pythons have the same version, else one for each run of Pythons."""
    runs: list[tuple[str, list[str]]] = []
    for python, version in versions.items():
        if runs and runs[-1][0] == version:
            runs[-1][1].append(python)
        else:
            runs.append((version, [python]))
    if len(runs) == 1:
        return [f"{name}=={runs[0][0]}"]
    return [f"{name}=={version} ; {marker(run)}" for version, run in runs]


def marker(run: list[str]) -> str:
    """Return a marker for a run of Pythons; that of the newest one includes later Pythons."""
    pythons = list(PYTHONS)
    conditions = []
    if run[0] != pythons[0]:
        conditions.append(f'python_version >= "{run[0]}"')
    if run[-1] != pythons[-1]:
        following = pythons[pythons.index(run[-1]) + 1]
        conditions.append(f'python_version < "{following}"')
    return " and ".join(conditions)


if __name__ == "__main__":
    main()
