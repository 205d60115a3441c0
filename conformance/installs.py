"""Install the plugin below DevLake's plugin folder as in docs/install.md: clone, build.sh."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from conformance.environments import ROOT
from conformance.outcomes import Unmet

NAME = "developer_telemetry"


def clone(folder: Path) -> Path:
    """Clone this project, without uncommitted changes, as users do."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


def install_on_ours(folder: Path) -> Path:
    """Turn `folder` into a REMOTE_PLUGIN_DIR with the plugin on our SDK."""
    _build(clone(folder / NAME), PYTHON=sys.executable)
    return folder


def install_in_tree(sdk: Path, folder: Path) -> Path:
    """Copy DevLake's tree with the plugin to `folder`; return its REMOTE_PLUGIN_DIR.

    Of the tree there is a copy of the SDK alone. build.sh finds the Python that it needs.
    """
    shutil.copytree(
        sdk, folder / "pydevlake", ignore=shutil.ignore_patterns(".venv", "__pycache__")
    )
    plugins = folder / "plugins"
    _build(clone(plugins / NAME))
    return plugins


def python_of(plugins: Path) -> Path:
    """Return the Python from which DevLake runs the plugin there."""
    return plugins / NAME / ".venv-plugin" / "bin" / "python"


def _build(plugin: Path, **settings: str) -> None:
    """Run build.sh.

    :raises Unmet: it failed, or DevLake would find another run.sh than the plugin's.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    done = subprocess.run(
        ["./build.sh"],
        cwd=plugin,
        env={**inherited, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise Unmet(f"build.sh: {done.stderr.strip()}")
    results = [str(item.relative_to(plugin)) for item in plugin.parent.rglob("run.sh")]
    if results != ["run.sh"]:
        raise Unmet(f"DevLake would call {', '.join(sorted(results))}")
