"""Run our plugin's tests on the genuine SDK, and the genuine SDK's tests and plugins on ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conformance.environments import Tests, run_tests
from conformance.outcomes import Outcomes, Unmet
from pydevlake.testing import assert_valid_plugin_info

# The tests of streams, models, migrations and protocol; other tests use no SDK.
OURS = (
    *("database/test_go_upgrade", "database/test_migrate", "database/test_migrations"),
    *("pipeline/test_accounts", "pipeline/test_cicd_tasks", "pipeline/test_extract"),
    *("pipeline/test_org_rules", "pipeline/test_ownership", "pipeline/test_plugin"),
    "pipeline/test_watermarks",
    *("reports/test_daily_metrics", "reports/test_parser"),
    *("storage/test_tables", "storage/test_writer"),
)
# Warnings of newer Pythons about the genuine SDK's libraries are no faults of ours.
_LENIENT = ("-W", "ignore::DeprecationWarning")

# Tests of ours that the genuine SDK must not pass, with the reason.
EXPECTED_FAILURES = {
    "test_a_failed_run_says_why_in_one_line": "the genuine SDK writes a traceback of many lines"
    " to stderr, all of which DevLake shows; ours writes one line",
    "test_statements_stay_under_a_quarter_of_what_mysql_takes": "measured by a method that only"
    " PyMySQL has; the genuine SDK brings mysqlclient",
}


def ours_on_genuine(outcomes: Outcomes, python: Path, copy: Path) -> None:
    """Run the tests of streams, models, migrations and protocol on the SDK of `python`.

    `copy` is a clone of ours for it.
    """
    for name in OURS:
        file = f"{name}.py"
        with outcomes.record_outcome(file) as remarks:
            tests = run_tests(
                python, copy, "-p", "conformance.sdk_test_plugin", *_LENIENT, f"tests/{file}"
            )
            remarks.append(_describe_tests(tests, EXPECTED_FAILURES))


def _describe_tests(tests: Tests, recognized: dict[str, str]) -> str:
    """Describe the outcome of a run.

    :raises Unmet: a test failed that is not known to.
    """
    expected = [name for name in tests.failed if _plain(name) in recognized]
    unexpected = [name for name in tests.failed if name not in expected]
    if unexpected:
        raise Unmet(f"{tests}: {', '.join(unexpected)}")
    reasons = {recognized[_plain(name)] for name in expected}
    return "; ".join([str(tests), *(f"known to fail: {item}" for item in sorted(reasons))])


def _plain(test: str) -> str:
    """Return a test's name without its module and parameters."""
    return test.partition("[")[0].rpartition(".")[2]


def genuine_on_ours(name: str, sdk: Path, folder: Path) -> Outcomes:
    """Run the tests of the genuine SDK on ours, in this environment."""
    outcomes = Outcomes(name)
    copy = folder / "genuine" / "tests"  # the expected ids contain the folder's name
    shutil.copytree(sdk / "tests", copy, ignore=shutil.ignore_patterns("__pycache__"))
    for file in sorted(copy.glob("*_test.py")):
        with outcomes.record_outcome(file.name) as remarks:
            remarks.append(
                _describe_tests(run_tests(Path(sys.executable), copy.parent, str(file)), {})
            )
    return outcomes


def plugins_of(devlake: Path) -> list[Path]:
    """Return the folders of the Python plugins in a checkout."""
    python = devlake / "backend" / "python"
    return sorted(
        file.parent
        for position in ("plugins", "test")
        for file in (python / position).glob("*/run.sh")
        if (file.parent / file.parent.name / "main.py").is_file()
    )


def copy_of(plugin: Path, folder: Path) -> Path:
    """Return a copy of a plugin in a folder of its own, started on our SDK; ids need its name."""
    copy = folder / plugin.name
    shutil.copytree(plugin, copy, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
    (copy / "run.sh").write_text(
        f'#!/bin/sh\ncd "$(dirname "$0")" || exit 1\n'
        f'PYTHONPATH=. exec {sys.executable} {plugin.name}/main.py "$@"\n'
    )
    (copy / "run.sh").chmod(0o755)
    return copy


def plugins_on_ours(name: str, copies: Path) -> Outcomes:
    """Start the other Python plugins of DevLake's tree on our SDK, and run their tests.

    `copies` is a folder with what `copy_of` made of them.
    """
    outcomes = Outcomes(name)
    for copy in sorted(copies.iterdir()):
        with outcomes.record_outcome(f"{copy.name}: plugin-info obeys the server") as remarks:
            [info] = answers(copy, "plugin-info")
            assert_valid_plugin_info(info)
            remarks.append(
                f"{len(info['subtask_metas'])} subtasks,"
                f" {len(info['migration_scripts'])} migrations"
            )
        files = sorted(map(str, copy.glob("tests/*_test.py")))
        if files:
            with outcomes.record_outcome(f"{copy.name}: its own tests") as remarks:
                tests = run_tests(
                    Path(sys.executable), copy, *files, environment={"PYTHONPATH": "."}
                )
                remarks.extend([_describe_tests(tests, {}), *tests.skipped])
    return outcomes


def answers(plugin: Path, verb: str, *arguments: Any) -> list[Any]:
    """Return the answer of a plugin's run.sh on file descriptor 3.

    :raises Unmet: it ended with another status than 0.
    """
    reader, writer = os.pipe()
    documents: Sequence[str] = [json.dumps(item) for item in ({"log_level": "info"}, *arguments)]
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3>&{writer}', "bash", "./run.sh", verb, *documents],
        cwd=plugin,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(writer,),
        text=True,
    )
    os.close(writer)
    with os.fdopen(reader) as channel:
        lines = channel.read().splitlines()
    _, errors = process.communicate()
    if process.returncode != 0:
        raise Unmet(f"{verb} ended with {process.returncode}: {errors[-600:]}")
    return [json.loads(line) for line in lines]
