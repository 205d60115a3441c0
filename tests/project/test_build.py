"""build.sh and run.sh in a fresh clone, as whoever installs the plugin into DevLake meets them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# No index to ask and nothing to find elsewhere: as without a network.
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
# Most of what is installed is never imported here, so compiling it would be half of the time.
UNCOMPILED = {"PIP_NO_COMPILE": "1"}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    # Elsewhere than beside a pydevlake, so that the SDK is our own.
    folder = tmp_path / "plugins" / "developer_telemetry"
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    return folder


def in_a_tree(clone: Path, wanted: str, *dependencies: str) -> Path:
    """Put an SDK where DevLake's tree has its own; it wants one Python alone, as DevLake's does."""
    sdk = clone.parent.parent / "pydevlake"
    shutil.copytree(ROOT / "sdk" / "pydevlake", sdk / "pydevlake")
    shutil.copy(ROOT / "sdk" / "README.md", sdk)
    text = (ROOT / "sdk" / "pyproject.toml").read_text()
    more = "".join(f'    "{each}",\n' for each in dependencies)
    text = text.replace("dependencies = [\n", f"dependencies = [\n{more}", 1)
    (sdk / "pyproject.toml").write_text(
        f'{text}\n[tool.poetry.dependencies]\npython = "~{wanted}"\n'
    )
    return sdk


def programs(folder: Path, **scripts: str) -> Path:
    """A folder for `PATH` with these shell scripts in it."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def run(folder: Path, command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shutil.which("bash") or "bash", "-c", command],
        cwd=folder,
        env={**os.environ, **UNCOMPILED, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_a_build_makes_all_that_run_needs_and_the_next_one_asks_for_no_network(clone: Path) -> None:
    built = run(clone, "./build.sh")
    assert built.returncode == 0, built.stderr
    assert built.stdout == f"developer_telemetry: ready on the SDK in {clone}/sdk\n"

    called = run(clone, "./run.sh plugin-info '{}' 3>&1")
    assert (called.returncode, called.stderr) == (0, "")
    # What MySQL's accounts need without TLS; no MariaDB has such accounts to try it with.
    encrypts = "from pymysql import _auth; assert _auth._have_cryptography"
    assert run(clone, f".venv-plugin/bin/python -c '{encrypts}'").returncode == 0
    assert f'"plugin_path":"{clone}/run.sh"' in called.stdout

    again = run(clone, "./build.sh", **OFFLINE)
    assert (again.returncode, again.stdout) == (
        0,
        "developer_telemetry: .venv-plugin has everything\n",
    )
    assert list(clone.rglob("run.sh")) == [clone / "run.sh"]


def test_devlake_finds_one_run_sh_in_whatever_is_put_below_its_plugin_folder(clone: Path) -> None:
    """It calls each one, at any depth, and one that fails ends its start."""
    tracked = run(ROOT, "git ls-files --cached --others --exclude-standard").stdout.splitlines()
    there = [each for each in tracked if (ROOT / each).exists()]
    assert [each for each in there if Path(each).name == "run.sh"] == ["run.sh"]
    assert list(clone.rglob("run.sh")) == [clone / "run.sh"]
    archived = run(ROOT, "git archive HEAD | tar -t").stdout.splitlines()
    assert [each for each in archived if Path(each).name == "run.sh"] == ["run.sh"]


def test_a_build_in_devlakes_tree_takes_its_sdk_and_the_python_that_it_needs(
    clone: Path, tmp_path: Path
) -> None:
    minor = "{}.{}".format(*sys.version_info[:2])
    sdk = in_a_tree(clone, minor)
    # As where the system's Python is another one than DevLake's.
    path = programs(
        tmp_path / "bin",
        python3="case $1 in -c) echo 3.8.10 ;; *) exit 1 ;; esac",
        **{f"python{minor}": f'exec {sys.executable} "$@"'},
    )
    built = run(clone, "./build.sh", PATH=f"{path}:{os.environ['PATH']}")
    assert (built.stderr, built.returncode) == ("", 0)
    assert built.stdout == f"developer_telemetry: ready on the SDK in {sdk}\n"

    traced = run(clone, "sh -x ./run.sh plugin-info '{}' 3>/dev/null")
    assert traced.returncode == 0, traced.stderr
    # The one that make leaves alone: see test_make_run.py.
    assert re.findall(r"exec (\S+)/bin/python", traced.stderr) == [".venv-plugin"]
    assert run(clone, "git status --porcelain").stdout == ""


def test_a_build_names_the_python_that_devlakes_sdk_needs(clone: Path) -> None:
    in_a_tree(clone, "3.99")
    for settings in ({}, {"PYTHON": sys.executable}):
        built = run(clone, "./build.sh", **settings)
        assert built.returncode == 1
        (line,) = built.stderr.splitlines()
        assert "needs Python 3.99" in line
        assert "PYTHON=python3.99 ./build.sh" in line
    assert not (clone / ".venv-plugin").exists()


def test_a_build_names_the_headers_that_devlakes_drivers_need(clone: Path, tmp_path: Path) -> None:
    in_a_tree(clone, "{}.{}".format(*sys.version_info[:2]), "mysqlclient")
    bare = programs(tmp_path / "bin")
    tools = "cat cp dirname env grep head id ls mktemp rm sed sh sort tail tr"
    for tool in tools.split(" "):
        (bare / tool).symlink_to(shutil.which(tool) or "")
    settings = {"PIP_NO_CACHE_DIR": "1", "PIP_NO_BINARY": "mysqlclient"}
    built = run(clone, "/bin/sh ./build.sh", PATH=str(bare), PYTHON=sys.executable, **settings)
    assert built.returncode == 1
    (line,) = built.stderr.splitlines()
    for package in ("gcc", "pkg-config", "default-libmysqlclient-dev", "libpq-dev"):
        assert package in line
    assert not (clone / ".venv-plugin").exists()


def test_a_build_that_can_not_install_says_so_in_one_line_and_leaves_nothing(clone: Path) -> None:
    built = run(clone, "./build.sh", **OFFLINE)
    assert built.returncode == 1
    (line,) = built.stderr.splitlines()
    assert line.startswith("developer_telemetry: can't install the SDK")
    assert "ERROR: Could not find" in line
    assert not (clone / ".venv-plugin").exists()

    called = run(clone, "./run.sh plugin-info '{}' 3>&1")
    assert called.returncode == 1
    (line,) = called.stderr.splitlines()
    assert "run ./build.sh" in line


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"PIP_INDEX_URL": "junk", "PIP_RETRIES": "0"}, "PIP_INDEX_URL"),
        ({"PIP_TIMEOUT": "soon"}, "PIP_TIMEOUT"),
        ({"PIP_CONSTRAINT": "/nowhere"}, "PIP_CONSTRAINT"),
        ({"HTTPS_PROXY": "junk://x", "PIP_RETRIES": "0"}, "HTTPS_PROXY"),
        ({"TMPDIR": "/nowhere"}, "TMPDIR"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_failed_installation_names_the_variables_that_may_be_why(
    variables: dict[str, str], named: str
) -> None:
    install = f"scripts/pip_install.sh '{sys.executable}' no-such-package-of-anybody==1"

    done = run(ROOT, install, **variables)

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert named in line


def test_variables_that_send_packages_elsewhere_do_not_count(tmp_path: Path) -> None:
    elsewhere = {"PIP_USER": "1", "PIP_TARGET": str(tmp_path), "PIP_REQUIRE_VIRTUALENV": "1"}

    done = run(ROOT, f"scripts/pip_install.sh '{sys.executable}' pip", **elsewhere, **OFFLINE)

    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_the_plugins_image_has_all_that_a_build_calls(clone: Path) -> None:
    folder = clone.parent / "in_the_image"
    lines = (clone / "deploy" / "plugin.Dockerfile").read_text().splitlines()
    for line in (each for each in lines if each.startswith("COPY ")):
        *sources, target = line.split()[1:]
        for source in sources:
            place = folder / target / ("" if (clone / source).is_dir() else Path(source).name)
            place.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (clone / source).is_dir() else shutil.copy
            copy(clone / source, place)
    in_a_tree(folder, "{}.{}".format(*sys.version_info[:2]))
    built = run(folder, "./build.sh", PYTHON=sys.executable, **OFFLINE)
    assert built.returncode == 1
    assert "ERROR: Could not find" in built.stderr  # which is what is missing without a network


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\nexit 1\n", "too old"),
        (None, "missing"),
    ],
    ids=["an old Python", "no Python"],
)
def test_a_build_says_what_is_wrong_with_python(
    clone: Path, tmp_path: Path, script: str, said: str
) -> None:
    python = tmp_path / "python"
    if script is not None:
        python.write_text(script)
        python.chmod(0o755)
    built = run(clone, "./build.sh", PYTHON=str(python))
    assert built.returncode == 1
    (line,) = built.stderr.splitlines()
    assert said in line
    assert "Python 3.9" in line
